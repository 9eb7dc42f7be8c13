"""Where Newton's method begins on a Poisson regression with categories of many levels: their effects fitted in turn.

    Σ_{i in l} c (y_i − μ_i e^δ) = 0      →      δ_l = log Σ_{i in l} c y_i − log Σ_{i in l} c μ_i

is the maximum over the effects of one category, of all its levels at once, and takes a pass over the rows. Between sweeps
over the categories the slopes of numeric columns take a step of Newton's method, by the information of a part of the rows.
From a constant alone Newton's method on all coefficients needs three or four informations to come as near, because the
model is far from quadratic there. Half a row is added to either sum, so that a level in which all y are 0 begins at a
finite effect.

Source: Correia, Guimarães and Zylkin (2020), Fast Poisson estimation with high-dimensional fixed effects, for the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batch import Batch
from ..families.links import Log
from ..families.poisson import Poisson
from ..likelihood import Objective
from ..models.regression import Predictor, Regression

SWEEPS = 2  # over all categories
HALF = 0.5  # a row
SOME = 20_000  # rows of which the information of slopes is summed


def applies(objective: Objective) -> bool:
    """Whether the objective is a plain Poisson regression on a category of many levels."""
    model = objective.model
    if (
        not isinstance(model, Regression)
        or not isinstance(model.family, Poisson)
        or len(model.predictors) != 1
    ):
        return False
    plain = not objective.priors and len(objective.terms) == 1 and objective.terms[0].robust is None
    logarithmic = isinstance(model.predictors[0].spec.link, Log)
    wide = model.layout.eliminated is not None and model.predictors[0].design.intercept
    return plain and logarithmic and wide


def begin(objective: Objective) -> Tensor | None:
    """θ with the effects of every category near their maximum, the other coefficients as they are; None: it is not finite."""
    mean, theta = objective.model.predictors[0], objective.theta
    totals = objective.terms[0].summed(lambda batch, weight: _response(mean, batch, weight, len(theta)))
    terms = [
        (first, levels) for j, first, levels in mean.terms if levels and not mean.design.coded[j].numeric
    ]
    for _ in range(SWEEPS):
        for first, levels in sorted(terms, key=lambda term: -term[1]):
            means = totals - objective.taylor(theta, order=1).gradient
            seen, expected = (_by_level(sums, mean.start, first, levels) for sums in (totals, means))
            shift = ((seen + HALF) / (expected.clamp(min=0) + HALF)).log()
            theta[mean.start] += shift[0]
            theta[first : first + levels] += shift[1:] - shift[0]
        theta = _with_slopes(objective, mean, theta)
    return theta if bool(torch.isfinite(theta).all()) else None


def _with_slopes(objective: Objective, mean: Predictor, theta: Tensor) -> Tensor:
    """θ after a step of the constant and the slopes alone, unless that is worse."""
    if not mean.design.columns:
        return theta
    at, some = objective.taylor(theta, order=1), objective.thinned(max(1, (objective.rows or 0) // SOME))
    J = some.terms[0].summed(lambda batch, weight: _information(mean, batch, weight, theta))
    L, failed = torch.linalg.cholesky_ex(J * (objective.observations / some.observations))
    if failed:
        return theta
    own, moved = slice(mean.start, mean.start + len(J)), theta.clone()
    moved[own] += torch.cholesky_solve(at.gradient[own, None], L)[:, 0]
    return moved if float(objective.taylor(moved, order=1).value) > float(at.value) else theta


def _information(mean: Predictor, batch: Batch, weight: Tensor | None, theta: Tensor) -> Tensor:
    """Σ c μ x xᵀ of the constant and the numeric columns."""
    mu = mean.eta(batch, theta).exp()
    X = torch.nn.functional.pad(batch[f"x{mean.slot}"].to(torch.float64), (1, 0), value=1.0)
    return X.T @ (X * (mu if weight is None else weight * mu)[:, None])


def _response(mean: Predictor, batch: Batch, weight: Tensor | None, size: int) -> Tensor:
    """Xᵀ c y, (p,)."""
    y, out = batch["y"], torch.zeros(size, dtype=torch.float64)
    mean.pull(batch, y if weight is None else weight * y, out)
    return out


def _by_level(sums: Tensor, constant: int, first: int, levels: int) -> Tensor:
    """Of sums by coefficient those of one category, its reference level first: what the others leave of the whole."""
    own = sums[first : first + levels]
    return torch.cat([(sums[constant] - own.sum())[None], own])
