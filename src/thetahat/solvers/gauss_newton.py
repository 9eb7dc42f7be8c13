"""Nonlinear least squares: a likelihood of one's own that is normal with one scale for all rows.

    maximise  −n log σ − Σ w (y − μ(β))² / 2σ²:      β̂ = argmin Σ w (y − μ(β))²,      σ̂² = Σ w (y − μ(β̂))² / Σ w

β̂ by Levenberg and Marquardt's method in MINPACK, whose steps come from a QR factorisation of the Jacobian (a
root of the information): the error goes with its condition, where that of Newton's normal equations goes with
the square. From there Newton's method on the whole likelihood, whose information certifies the answer. Where
that ends at no certified maximum, Newton begins where the model does.

References
----------
Moré (1978), The Levenberg–Marquardt algorithm: implementation and theory; Nocedal and Wright (2006),
Numerical Optimization, §10.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..families.normal import Normal
from ..families.recorder import Call
from ..likelihood import Objective
from ..models.taylor import jacobian
from ..types import ModelLike, ObjectiveLike
from .newton import Newton, State

WRITTEN = 20_000_000  # n·p: entries of the Jacobian up to which it is written out
POLISH = 100  # steps of Newton's method from the least-squares estimate, before it is given up
FAR = 1e150  # a residual that is not finite: MINPACK then shortens the step


@runtime_checkable
class Recorded(Protocol):
    """A model that knows which call of a family gave its log p, if one did."""

    def call(self, batch: Batch) -> Call | None: ...


@dataclass(frozen=True)
class NormalRows:
    """Residuals and derivatives at θ: μ's and log σ's Jacobians are (n, p), the others (n,)."""

    residual: Tensor
    scale: Tensor
    count: Tensor
    mean_slopes: Tensor
    scale_slopes: Tensor


def normal_rows(model: ModelLike, batch: Batch) -> NormalRows | None:
    """The rows of a model whose log p is that of a normal distribution, at its θ; None where it is
    another, or is not known."""
    if not isinstance(model, Recorded) or len(batch.shape) != 1:
        return None
    free = [p for p in model.parameters() if p.requires_grad]  # type: ignore[attr-defined]
    size = sum(p.numel() for p in free)
    with torch.enable_grad():
        call = model.call(batch)
        if call is None or not isinstance(call.family, Normal):
            return None
        mean, scale = (p.expand(batch.shape) for p in call.parameters)
        slopes = [
            jacobian(v, free) if v.requires_grad else v.new_zeros(len(batch), size)
            for v in (mean, scale.log())
        ]
    return NormalRows(
        (call.y - mean).detach(), scale.detach(), batch.count.to(torch.float64), slopes[0], slopes[1]
    )


def _all_rows(objective: Objective) -> NormalRows | None:
    """Of every batch, at the objective's θ."""
    term = objective.terms[0]
    parts = [normal_rows(term.model, batch) for batch in term.source.batches(term.model)]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return NormalRows(*(torch.cat([vars(part)[f.name] for part in known]) for f in fields(NormalRows)))


def _separate(rows: NormalRows) -> tuple[Tensor, int | None] | None:
    """Where β is in θ, and which coordinate is σ's own (None: σ is held); None where σ varies or depends
    on β."""
    of_mean, of_scale = ((s != 0).any(0) for s in (rows.mean_slopes, rows.scale_slopes))
    own = torch.nonzero(of_scale).reshape(-1)
    alone = bool((rows.scale == rows.scale[0]).all() & (rows.scale_slopes == rows.scale_slopes[0]).all())
    if not alone or len(own) > 1 or bool((of_mean & of_scale).any()):
        return None
    beta = torch.nonzero(~of_scale).reshape(-1)
    return (beta, int(own[0]) if len(own) else None) if len(beta) else None


def applies(objective: Objective) -> bool:
    """Whether the objective is one normal likelihood of one's own with one scale for all rows, small
    enough to be written out."""
    term = objective.terms[0]
    plain = (
        len(objective.terms) == 1 and not objective.priors and term.weights is None and term.robust is None
    )
    n = objective.rows
    if (
        not plain
        or not isinstance(term.model, Recorded)
        or n is None
        or n < objective.size
        or n * objective.size > WRITTEN
    ):
        return False
    if (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    ):  # each process has its own rows
        return False
    rows = _all_rows(objective)
    return rows is not None and _separate(rows) is not None


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Newton):
    """Levenberg and Marquardt's method, then Newton's. Settings: those of `Newton`."""

    def start(self, objective: ObjectiveLike) -> State:
        begin = objective.theta if self.begin is None else self.begin
        theta = _least_squares(objective, begin)
        if theta is not None:
            newton = Newton.start(replace(self, begin=theta, thin_above=10**18), objective)
            while not self.done(objective, newton) and newton.step < POLISH:
                newton = self.step(objective, newton)
            if self.certificate(objective, newton).ok:
                begun = float(objective.taylor(begin, order=1).value)
                return replace(
                    newton,
                    trace=((0, begun, math.inf), *((k + 1, value, away) for k, value, away in newton.trace)),
                )
        return Newton.start(replace(self, begin=begin), objective)


def _least_squares(objective: Objective, begin: Tensor) -> Tensor | None:
    """θ at the least-squares estimate and its scale; None where there is none, or no finite one is found."""
    from scipy.optimize import leastsq  # takes long to load: only where it is needed

    at = _rows_at(objective)
    rows = at(begin)
    places = None if rows is None else _separate(rows)
    if rows is None or places is None:
        return None
    beta, own = places

    def moved(b: np.ndarray) -> Tensor:
        theta = begin.clone()
        theta[beta] = torch.from_numpy(b)
        return theta

    def residuals(b: np.ndarray) -> np.ndarray:
        found = at(moved(b))
        r = np.full(1, FAR) if found is None else (found.count.sqrt() * found.residual).numpy()
        return np.where(np.isfinite(r), r, FAR)

    def slopes(b: np.ndarray) -> np.ndarray:
        found = at(moved(b))
        assert found is not None
        out: np.ndarray = np.nan_to_num(
            -(found.count.sqrt()[:, None] * found.mean_slopes[:, beta]).numpy(), posinf=FAR, neginf=-FAR
        )
        return out

    with np.errstate(all="ignore"):
        b, *_ = leastsq(
            residuals,
            begin[beta].numpy(),
            Dfun=slopes,
            full_output=True,
            ftol=1e-15,
            xtol=1e-15,
            gtol=0.0,
            maxfev=200 * (len(beta) + 1) + 1000,
        )
    theta = moved(b)
    return theta if own is None else _with_scale(at, theta, own)


def _with_scale(at: Callable[[Tensor], NormalRows | None], theta: Tensor, own: int) -> Tensor | None:
    """θ with σ² = Σ w r² / Σ w, by Newton's method on log σ as a function of its coordinate (one step
    where that is its logarithm)."""
    theta = theta.clone()
    for _ in range(60):
        rows = at(theta)
        if rows is None:
            return None
        square = float((rows.count * rows.residual**2).sum() / rows.count.sum())
        gap, slope = (
            0.5 * np.log(square) - float(rows.scale[0].log()) if square > 0 else np.nan,
            float(rows.scale_slopes[0, own]),
        )
        if not (np.isfinite(gap) and slope != 0):
            return None
        theta[own] += gap / slope
        if abs(gap) < 1e-12:
            return theta
    return None


def _rows_at(objective: Objective) -> Callable[[Tensor], NormalRows | None]:
    """θ ↦ the rows there; the last are kept, since MINPACK asks for residuals and Jacobian at one θ in
    turn."""
    last: list[tuple[Tensor, NormalRows | None]] = []

    def at(theta: Tensor) -> NormalRows | None:
        if not (last and torch.equal(last[0][0], theta)):
            with objective.moved(theta) as there:
                last[:] = [(theta.clone(), _all_rows(there))]
        return last[0][1]

    return at
