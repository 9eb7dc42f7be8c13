"""The maximum itself, where there is a formula: the normal linear model with constant scale.

    β̂ = argmin Σ w (y − Xβ)²,   σ̂² = Σ w (y − Xβ̂)² / Σ w,   cov β̂ = σ̂² (XᵀWX)⁻¹,   var log σ̂ = 1 / 2Σw

by Householder QR of √W X, a block of rows at a time (of each block R alone is kept), never by the
normal equations, whose condition is squared. Data of one block are refined: the augmented system  [I X; Xᵀ 0]
[r; β] = [y; 0]  is solved again for residuals formed in extended precision, which makes the error
proportional to the condition of X and not to its square.

References
----------
Björck (1967), Iterative refinement of linear least squares solutions I; Golub and Van Loan (2013), Matrix
Computations, §5.3, §5.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..families.links import Identity, Log
from ..families.normal import Normal
from ..families.special import LOG_ROOT_2PI
from ..likelihood import Objective
from ..likelihood.total import folded
from ..models.base import family_of
from ..models.information import Factor
from ..models.regression import NARROW, Predictor, Regression
from ..models.taylor import Taylor
from ..protocols import Partitioned
from ..types import ModelLike, Settings
from .certificate import Certificate

# n·p²: products in extended precision, a pass of refinement, up to which X is refined (half a second)
REFINED = 20_000_000
COARSE = 1e-2  # the largest λ, in standard errors, that rounding may leave
REFINEMENTS, CLOSE = (
    4,
    1e-6,
)  # of least squares by blocks, and a step, in standard errors, after which none follows
RANK = 1e-13  # |R_jj| / ‖x_j‖ below this: column j is a combination of those before it


@dataclass(frozen=True)
class LeastSquares:
    """β̂, the root of XᵀWX (or its refined inverse), and Σ w r²."""

    beta: np.ndarray
    inverse: np.ndarray  # (XᵀWX)⁻¹
    squares: float
    weight: float
    response: float  # Σ w y², against which a perfect fit is judged
    pivots: np.ndarray


def is_linear(objective: Objective) -> bool:
    """Whether the objective is a normal linear model with identity link and constant scale."""
    model = objective.model
    if (
        not isinstance(model, Regression)
        or len(objective.terms) != 1
        or objective.priors
        or objective.terms[0].weights is not None
        or objective.terms[0].robust is not None
    ):
        return False
    if (
        not isinstance(model.family, Normal)
        or not isinstance(model.family.parameters["mean"].link, Identity)
        or "mean" in model.fixed
    ):
        return False
    mean = model.predictors[0]
    if mean.size == 0:
        return False
    return len(model.predictors) == 1 or model.predictors[1].design.constant


def applies(objective: Objective) -> bool:
    """Whether the objective is a normal linear model, whose columns can be held."""
    if not is_linear(objective):
        return False
    mean = objective.model.predictors[0]
    return not any(levels > NARROW for _, _, levels in mean.terms) and mean.size <= 2000


def by_blocks(objective: Objective) -> Tensor | None:
    """Where Newton's method begins on a normal linear model: at its maximum, found by the sums of variance 1.

        q(β) = −½ Σ w (y − Xβ)²,      β ← β + (XᵀWX)⁻¹ ∂q/∂β,      σ̂² = −2 q(β̂) / Σ w

    The second step and those after it refine the first, as far as rounding allows. Of the likelihood there, with n = Σ w,

        ℓ = −n log(σ√2π) + q/σ²,      J_ββ = XᵀWX / σ²,      J_βlogσ = 2 ∂q/∂β / σ² = 0,      J_logσlogσ = −4 q/σ²

    the objective remembers all, so that no pass more is made for it. None where XᵀWX is singular, or the fit is perfect.
    """
    model, theta, n = objective.model, objective.theta, objective.observations
    scale = model.predictors[1] if len(model.predictors) > 1 else None
    if scale is not None and not isinstance(scale.spec.link, Log):
        return None
    sums = objective.terms[0].summed
    at = sums(partial(model.squares, theta=theta, order=2))
    J = at.information
    if scale is not None:
        J = J.with_diagonal(scale.start, n)
    factor = J.factor()
    if factor is None or factor.pivot < RANK:
        return None
    for _ in range(REFINEMENTS):
        step = factor.solve(at.gradient)
        theta = theta + step
        gap = float(at.gradient @ step)
        at = sums(partial(model.squares, theta=theta, order=1))
        q = float(at.value)
        variance = -2 * q / n if scale is not None else model.fixed["scale"] ** 2
        if not (math.isfinite(q) and 0 < variance < math.inf):
            return None
        if gap <= CLOSE**2 * variance:  # of the step that was made: what is left is far below it
            break
    gradient = at.gradient / variance
    J = J.times(1 / variance)
    if scale is not None:
        theta[scale.start] = 0.5 * math.log(variance)
        gradient[scale.start] = -2 * q / variance - n
        J = J.with_diagonal(scale.start, -4 * q / variance)
    J.known = factor.rescaled(J)
    value = -n * (LOG_ROOT_2PI + 0.5 * math.log(variance)) + q / variance
    objective.remember(theta, Taylor(torch.tensor(value, dtype=torch.float64), gradient, J))
    return theta


def columns(mean: Predictor, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, y − offset, w of a batch."""
    X = mean.rows(batch, torch.float64).T.numpy()
    y = batch["y"]
    offset = batch.tensors.get(f"offset{mean.slot}")
    y = (y if offset is None else y - offset).numpy()
    return X, y, batch.count.numpy() if batch.counted else np.ones(len(y))


def _rows(mean: Predictor, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """√w X, √w (y − offset), w of a batch."""
    X, y, w = columns(mean, batch)
    root = np.sqrt(w)
    return X * root[:, None], y * root, w


def solve(objective: Objective) -> LeastSquares:
    """Least squares of the mean's predictor, by QR; NaN where the columns are collinear, or too large or
    small to be squared."""
    with np.errstate(all="ignore"):
        return _solve(objective)


def _solve(objective: Objective) -> LeastSquares:
    model = objective.model
    assert isinstance(model, Regression)
    mean = model.predictors[0]
    source = objective.terms[0].source
    whole = (
        objective.rows is not None
        and not isinstance(source, Partitioned)
        and (objective.rows * mean.size**2 <= REFINED or objective.rows < mean.size)
    )
    parts = [_rows(mean, b) for b in source.batches()] if whole else None
    if parts is not None:
        X, y, w = (np.concatenate(p) for p in zip(*parts, strict=True))
        return _refined(np.ascontiguousarray(X), y, float(w.sum()))
    p = mean.size
    R, norm, weight, response = folded(partial(_triangle, mean), source, combine=_stacked)
    pivots = np.abs(np.diag(R)[:p]) / np.sqrt(np.maximum(norm, 1e-300))
    if not (pivots.min() >= RANK and np.isfinite(R).all()):
        return _nothing(p, weight, response, pivots)
    from scipy.linalg import solve_triangular

    root = solve_triangular(R[:p, :p], np.eye(p))
    squares = float(R[p, p] ** 2) if len(R) > p else 0.0
    return LeastSquares(root @ R[:p, p], root @ root.T, squares, weight, response, pivots)


Triangle = tuple[np.ndarray, np.ndarray, float, float]


def _triangle(mean: Predictor, batch: Batch) -> Triangle:
    """R of √w [X, y] = Q R, the squared length of each column, Σ w, Σ w y²."""
    X, y, w = _rows(mean, batch)
    R = np.asarray(np.linalg.qr(np.column_stack([X, y]), mode="r"))
    return R, (X**2).sum(0), float(w.sum()), float(y @ y)


def _stacked(a: Triangle, b: Triangle) -> Triangle:
    """R of both parts of the rows: that of one R under the other."""
    R = np.asarray(np.linalg.qr(np.vstack([a[0], b[0]]), mode="r"))
    return R, a[1] + b[1], a[2] + b[2], a[3] + b[3]


def _refined(X: np.ndarray, y: np.ndarray, weight: float) -> LeastSquares:
    scale = np.abs(X).max(0)
    p, response = X.shape[1], float(y @ y)
    if len(X) < p or not (scale > 0).all():
        return _nothing(p, weight, response, np.zeros(p))
    scale = 2.0 ** np.floor(np.log2(scale))  # a power of two scales without rounding
    Xs = X / scale
    Q, R = np.linalg.qr(Xs)
    pivots = np.abs(np.diag(R)) / np.sqrt((Xs**2).sum(0))
    if not pivots.min() >= RANK:
        return _nothing(p, weight, response, pivots)
    long = Xs.astype(np.longdouble)
    right = np.column_stack([y, np.zeros((len(y), p))])
    below = np.column_stack([np.zeros(p), -np.eye(p)])
    r, beta = _augmented(Q, R, long, right, below)
    residual = r[:, 0]
    return LeastSquares(
        np.asarray(beta[:, 0] / scale, dtype=np.float64),
        np.asarray(beta[:, 1:] / scale[:, None] / scale, dtype=np.float64),
        float(residual @ residual),
        weight,
        response,
        pivots,
    )


def _nothing(p: int, weight: float, response: float, pivots: np.ndarray) -> LeastSquares:
    return LeastSquares(np.full(p, np.nan), np.full((p, p), np.nan), np.nan, weight, response, pivots)


def _augmented(
    Q: np.ndarray, R: np.ndarray, X: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """r + Xβ = a, Xᵀr = b, for several right-hand sides, refined with residuals in extended precision."""
    from scipy.linalg import solve_triangular

    r, beta = np.zeros(a.shape, dtype=np.longdouble), np.zeros(b.shape, dtype=np.longdouble)
    for _ in range(6):
        f = np.asarray(a - r - X @ beta, dtype=np.float64)
        g = np.asarray(b - X.T @ r, dtype=np.float64)
        u, v = Q.T @ f, solve_triangular(R, g, trans="T")
        step = solve_triangular(R, u - v)
        beta = beta + step
        r = r + (f - Q @ (u - v))
        if not np.isfinite(step).all() or np.abs(step).max() <= 1e-17 * np.abs(beta).max():
            break
    return r, beta


@dataclass(frozen=True)
class State:
    theta: Tensor
    taylor: Taylor | None
    least_squares: LeastSquares
    trace: tuple[tuple[int, float, float], ...] = ()
    factor: Factor | None = None


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """The normal linear model, in one step."""

    def start(self, objective: Objective) -> State:
        model = objective.model
        if not applies(objective) or not isinstance(model, Regression):
            raise BadArgument(
                "solver=th.ClosedForm() is least squares: a normal response with an identity link and a "
                "constant scale, without a prior, "
                f"robust= or a weighting; the model is {family_of(model) or type(model).__name__}. Leave the "
                "solver out, or use th.Newton()."
            )
        found = solve(objective)
        theta = objective.theta
        before = objective.value()
        scaled = len(model.predictors) == 1 or 0 < found.squares < np.inf
        if not (scaled and np.isfinite(found.beta).all() and np.isfinite(found.inverse).all()):
            return State(theta, None, found)
        theta[: len(found.beta)] = torch.from_numpy(found.beta)
        if len(model.predictors) == 2:
            theta[-1] = 0.5 * np.log(found.squares / found.weight)
        t = objective.taylor(theta, order=1)
        return State(
            theta,
            t,
            found,
            trace=((0, before, np.inf), (1, float(t.value), self._decrement(model, t, found))),
        )

    def step(self, objective: Objective, state: State) -> State:
        return state

    def done(self, objective: Objective, state: State) -> bool:
        return True

    def certificate(self, objective: Objective, state: State) -> Certificate:
        found, model = state.least_squares, objective.model
        assert isinstance(model, Regression)
        known: Settings = {"size": objective.size, "steps": 1, "passes": 2}
        if not (
            np.isfinite(found.beta).all() and np.isfinite(found.inverse).all() and np.isfinite(found.squares)
        ):
            collinear = bool((found.pivots < RANK).any())
            status = "flat direction" if collinear else "not converged"
            return Certificate(status=status, rank=int((found.pivots >= RANK).sum()), **known)
        if (
            len(model.predictors) == 2
            and not found.squares > (64 * np.finfo(float).eps) ** 2 * found.response
        ):
            detail = (
                "the likelihood has no maximum: the fit is perfect (every residual is zero to rounding), and "
                "the density grows without bound "
                "as scale → 0. Hold the scale (scale=value), or leave columns out."
            )
            return Certificate(status="no maximum", directions=({"scale": -1.0},), detail=detail, **known)
        assert state.taylor is not None
        decrement = self._decrement(model, state.taylor, found)
        known |= {"nats": 0.5 * decrement**2, "standard_errors": decrement, "rank": objective.size}
        if not decrement <= COARSE:
            detail = (
                "Stopped at the limit of floating-point precision: the residuals are too small against the "
                "response and the columns. "
                "Subtract a constant from them, or change the unit."
            )
            return Certificate(status="not converged", detail=detail, **known)
        return Certificate(status="certified maximum", concave=True, detail="Closed form.", **known)

    def _decrement(self, model: ModelLike, t: Taylor, found: LeastSquares) -> float:
        """√(gᵀ J⁻¹ g), J the information at the maximum, from the same QR."""
        precision, g = _precision(model, found), t.gradient.numpy()
        p = len(found.beta)
        square = float(g[:p] @ found.inverse @ g[:p]) / precision
        if len(g) > p:
            square += float(g[-1] ** 2) / (2 * found.weight)
        return float(np.sqrt(max(square, 0.0)))


def _precision(model: ModelLike, found: LeastSquares) -> float:
    """1/σ²."""
    return found.weight / found.squares if len(model.predictors) == 2 else model.fixed["scale"] ** -2


def covariance(objective: Objective) -> Tensor:
    """J⁻¹ at θ̂ by QR, (p, p), θ = (β, log σ): where `applies`, more exact than any factor of J."""
    remembered = objective.inverse  # of an objective that was saved without its rows
    if remembered is not None:
        return remembered
    found, model = solve(objective), objective.model
    p = len(found.beta)
    out = torch.zeros(objective.size, objective.size, dtype=torch.float64)
    out[:p, :p] = torch.from_numpy(found.inverse / _precision(model, found))
    if objective.size > p:
        out[-1, -1] = 0.5 / found.weight
    return out
