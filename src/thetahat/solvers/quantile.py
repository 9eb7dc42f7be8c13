"""Least absolute deviations and quantile regression: the maximum of a Laplace likelihood, as a linear
programme.

    maximise  −Σ w ρ_q(y − Xβ) / σ − Σ w log σ,       ρ_q(r) = r·(q − 1[r < 0])

β̂ does not depend on σ; its dual is  max yᵀa  subject to  Xᵀa = (1 − q) XᵀW1,  0 ≤ a ≤ w,  and β̂ are the
multipliers of the equalities. Then σ̂ = Σ w ρ_q(r) / Σ w. The gap between primal and dual bounds how far β̂
is from the maximum: the certificate, in nats.

References
----------
Koenker and Bassett (1978), Regression quantiles; Koenker (2005), Quantile Regression, §6.2; Portnoy and Koenker (1997), The
Gaussian hare and the Laplacian tortoise.
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
    "a χ². Use 'wald' (kind=, or test= of anova), whose standard "
    "errors are quantile regression's, or kind='bootstrap' of an interval."
)
MANY = 2_000  # rows above which those that are surely above or below are left out of the programme
ROUNDS = 10  # of moving rows into it, before more are taken from the start
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
    found = _programme(X / scale, y / size, w, level)
    if found is None:
        return np.full(X.shape[1], np.nan), math.inf, math.inf
    beta = found[0] * size / scale
    r = y - X @ beta
    loss = float(w @ (r * (level - (r < 0))))
    dual = float(y @ found[1]) - (1 - level) * float(w @ y)
    return beta, max(loss - dual, 0.0), loss


def _programme(
    Z: np.ndarray, y: np.ndarray, w: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """β and the dual's a, (n,), at the maximum of all rows; None: it was not found.

    Of many rows most are surely above or below the quantile, as a fit to some of them shows: their a is w or 0. The
    programme of those in between is small; if its residuals have the signs that were taken for sure, the a of all rows is
    feasible, and complementary to β: the maximum of all of them. If not, the rows that have not go into it.

    Portnoy and Koenker (1997), The Gaussian hare and the Laplacian tortoise.
    """
    n, p = Z.shape
    many = int((math.sqrt(p) * n) ** (2 / 3))
    if n <= MANY or 4 * many > n:
        return _whole(Z, y, w, level, (1 - level) * (Z.T @ w))
    step = n // many
    first = _programme(Z[::step], y[::step], w[::step], level)
    if first is None:
        return _whole(Z, y, w, level, (1 - level) * (Z.T @ w))
    spread = np.linalg.norm(Z[::step], axis=0)  # of each column
    r = (y - Z @ first[0]) / np.maximum(np.abs(Z / spread).sum(1), 1e-300)
    while 4 * many <= n:
        low, high = np.quantile(r, [max(level - many / (2 * n), 0.0), min(level + many / (2 * n), 1.0)])
        inside, above = (r >= low) & (r <= high), r > high
        for _ in range(ROUNDS):
            rest = (1 - level) * (Z.T @ w) - Z[above].T @ w[above]
            found = _whole(Z[inside], y[inside], w[inside], level, rest)
            if (
                found is None
            ):  # too many signs were taken for sure: without those rows the loss has no minimum
                break
            beta, own = found
            residual = y - Z @ beta
            wrong = ~inside & np.where(above, residual < 0, residual > 0)
            if not wrong.any():
                a = np.where(above, w, 0.0)
                a[inside] = own
                return beta, a
            inside |= wrong
            above &= ~wrong
        many *= 2
    return _whole(Z, y, w, level, (1 - level) * (Z.T @ w))


def _whole(
    Z: np.ndarray, y: np.ndarray, w: np.ndarray, level: float, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """β and a of  max yᵀa  subject to  Zᵀa = right,  0 ≤ a ≤ w;  None where there is none."""
    from scipy.optimize import linprog  # takes long to load: only where it is needed

    bounds = np.column_stack([np.zeros(len(y)), w])
    found = linprog(-y, A_eq=Z.T, b_eq=right, bounds=bounds, method="highs")
    return None if found.x is None else (-found.eqlin.marginals, found.x)
