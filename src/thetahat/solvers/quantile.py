"""Least absolute deviations and quantile regression: the maximum of a Laplace likelihood, as a linear
programme.

    maximise  −Σ w ρ_q(y − Xβ) / σ − Σ w log σ,       ρ_q(r) = r·(q − 1[r < 0])

β̂ does not depend on σ; its dual is  max yᵀa  subject to  Xᵀa = (1 − q) XᵀW1,  0 ≤ a ≤ w,  and β̂ are the
multipliers of the equalities. Then σ̂ = Σ w ρ_q(r) / Σ w. The gap between primal and dual bounds how far β̂
is from the maximum: the certificate, in nats.

References
----------
Koenker and Bassett (1978), Regression quantiles; Koenker (2005), Quantile Regression, §6.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument
from ..families.base import Family
from ..families.laplace import AsymmetricLaplace, Laplace
from ..families.links import Identity
from ..likelihood import Objective
from ..models.regression import Regression
from ..types import Settings
from .certificate import Certificate
from .closed_form import RANK

KINK = (
    "{family} has a kink at its location, and where the errors are of another kind its {what} is not that of "
    "a χ². Use kind='wald', whose standard "
    "errors are quantile regression's, or kind='bootstrap' of an interval."
)
PERFECT = 1e-14  # Σ w ρ(r) against Σ w |y|, below which the fit is perfect


@dataclass(frozen=True)
class State:
    theta: Tensor
    gap: float = math.inf
    perfect: bool = False
    rank: int = 0
    trace: tuple[tuple[int, float, float], ...] = ()


def applies(objective: Objective) -> bool:
    """Whether the likelihood is Laplace with predictors for the location alone."""
    model = objective.model
    kinked = isinstance(model, Regression) and isinstance(model.family, (Laplace, AsymmetricLaplace))
    return kinked and len(objective.terms) == 1 and objective.terms[0].robust is None


def linear(objective: Objective) -> bool:
    """Whether it is a linear programme besides: an identity link, predictors for the location alone, no
    prior."""
    if not applies(objective) or objective.priors or not objective.model.predictors:
        return False
    location, *scale = objective.model.predictors
    identity = isinstance(objective.model.family.parameters["location"].link, Identity)
    return location.parameter == "location" and identity and all(p.design.constant for p in scale)


def level_of(family: Family) -> float:
    """Of the quantile that the family fits: the median, unless it says otherwise."""
    return family.level if isinstance(family, AsymmetricLaplace) else 0.5


def rows(objective: Objective) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, (n, p), y less its offset, and what each row weighs; those that weigh nothing are left out."""
    model, term = objective.model, objective.terms[0]
    location, *rest = model.predictors
    parts = []
    for batch in term.source.batches():
        one, none = torch.ones(len(batch), dtype=torch.float64), torch.zeros(len(batch), dtype=torch.float64)
        X = model.gradient_rows(batch, [one, *(none for _ in rest)])[:, : location.size].numpy()
        offset, weight = batch.tensors.get(f"offset{location.slot}"), term.weight(batch)
        y = batch["y"] if offset is None else batch["y"] - offset
        parts.append((X, y.numpy(), (one if weight is None else weight).numpy()))
    X, y, w = (np.concatenate(part) for part in zip(*parts, strict=True))
    return X[w > 0], y[w > 0], w[w > 0]


@dataclass(frozen=True, kw_only=True)
class LinearProgramme:
    """Exact quantile regression by HiGHS, the rows in memory."""

    def start(self, objective: Objective) -> State:
        model = objective.model
        if not linear(objective):
            raise BadArgument(
                f"{model.family} is fitted with an identity link, predictors for the location alone and no "
                "prior, as a linear programme. "
                "For a scale with predictors, or a prior, take a smooth family: student_t, logistic, huber."
            )
        theta, before = objective.theta, objective.value()
        X, y, w = rows(objective)
        level = level_of(model.family)
        unit = X / np.maximum(np.abs(X).max(0), 1e-300)
        pivots = np.abs(np.diag(np.linalg.qr(unit, mode="r"))) / np.maximum(
            np.linalg.norm(unit, axis=0)[: min(X.shape)], 1e-300
        )
        rank = int((pivots > RANK).sum())
        if rank < X.shape[1]:
            return State(theta, rank=rank)
        beta, gap, loss = _solve(X, y, w, level)
        theta[: len(beta)] = torch.from_numpy(beta)
        scale = (2 * loss if isinstance(model.family, Laplace) else loss) / w.sum()  # |r| = 2ρ_½(r)
        perfect = len(model.predictors) == 2 and loss <= PERFECT * float(w @ np.abs(y))
        if len(model.predictors) == 2 and not perfect:
            theta[-1] = math.log(scale)
        nats = (
            gap / (scale if len(model.predictors) == 2 else model.fixed["scale"]) if not perfect else math.nan
        )
        return State(
            theta, nats, perfect, rank, trace=((0, before, math.inf), (1, objective.value(theta), math.nan))
        )

    def step(self, objective: Objective, state: State) -> State:
        return state

    def done(self, objective: Objective, state: State) -> bool:
        return True

    def certificate(self, objective: Objective, state: State) -> Certificate:
        known: Settings = {
            "size": objective.size,
            "rank": state.rank + objective.size - objective.model.predictors[0].size,
            "steps": 1,
        }
        if state.perfect:
            detail = (
                "the likelihood has no maximum: the fit is perfect, and the density grows without bound as "
                "scale → 0. "
                "Hold the scale (scale=value)."
            )
            return Certificate(status="no maximum", directions=({"scale": -1.0},), detail=detail, **known)
        if not math.isfinite(state.gap):
            return Certificate(status="flat direction", detail="The columns are collinear.", **known)
        if state.gap > 1e-6:
            return Certificate(
                status="not converged", nats=state.gap, detail="The linear programme left a gap.", **known
            )
        return Certificate(
            status="certified maximum",
            concave=True,
            nats=state.gap,
            detail="By a linear programme: the gap to its dual.",
            **known,
        )


def coefficients(X: np.ndarray, y: np.ndarray, w: np.ndarray, level: float) -> np.ndarray:
    """β̂ of a quantile, (p,)."""
    return _solve(X, y, w, level)[0]


def _solve(X: np.ndarray, y: np.ndarray, w: np.ndarray, level: float) -> tuple[np.ndarray, float, float]:
    """β̂, the duality gap, and Σ w ρ_q(y − Xβ̂)."""
    scale = np.maximum(np.abs(X).max(0), 1e-300)
    size = max(float(np.abs(y).max()), 1e-300)
    Z = X / scale
    from scipy.optimize import linprog  # takes long to load: only where it is needed

    found = linprog(
        -y / size,
        A_eq=Z.T,
        b_eq=(1 - level) * (Z.T @ w),
        bounds=np.column_stack([np.zeros(len(y)), w]),
        method="highs",
    )
    if found.x is None:
        return np.full(X.shape[1], np.nan), math.inf, math.inf
    beta = -found.eqlin.marginals * size / scale
    r = y - X @ beta
    loss = float(w @ (r * (level - (r < 0))))
    dual = float(y @ found.x) - (1 - level) * float(w @ y)
    return beta, max(loss - dual, 0.0), loss
