"""Proximal Newton: the maximum under priors with a kink (Laplace, ElasticNet), where coefficients are exactly
zero.

    F(θ) = f(θ) − Σ_j λ_j |θ_j − m_j|,      f smooth, with gradient g and information J

    u⁺ = argmax_u  gᵀ(u − u₀) − ½ (u − u₀)ᵀ J (u − u₀) − Σ_j λ_j |u_j|,      u₀ = θ − m

then a line search on F itself from u₀ to u⁺. The model of F is maximised exactly, not roughly: coordinate
descent finds which coefficients are zero and the signs of the others, and those signs given, what remains is
a linear system.

Where f is not concave there may be two maxima: of a normal response whose σ is estimated, one at which every coefficient is
zero and σ is large, so that a coefficient gains little, and one near the maximum without the prior, where σ is small and the
prior weighs little. So the iterations begin at both, and the higher end counts.

The stopping test is Newton's. What the model promises, Δ = q(u⁺) − q(u₀) nats, is λ²/2 where nothing is
penalised; it is 0 if and only if

    g_j = λ_j sign(u_j)  where u_j ≠ 0,        |g_j| ≤ λ_j  where u_j = 0

(the subgradient condition), which for a concave f is the condition for the global maximum. The maximum is one
point if J is positive definite on the coordinates where |g_j| = λ_j.

References
----------
Lee, Sun and Saunders (2014), Proximal Newton-type methods for minimizing composite functions; Friedman,
Hastie and Tibshirani (2010), Regularization paths for generalized linear models via coordinate descent;
Tibshirani (2013), The lasso problem and uniqueness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument
from ..models.base import names_of
from ..models.taylor import Taylor
from ..types import ObjectiveLike, Settings
from .certificate import Certificate, direction_text

EPS = torch.finfo(torch.float64).eps
CYCLES = 100  # of coordinate descent and a linear system each
SWEEPS = 5  # of coordinate descent in a cycle
TIED = 1e-7  # |g_j| = λ_j, relatively
SINGULAR = 1e-11  # a squared pivot of the scaled J below which a direction is flat


@dataclass(frozen=True)
class State:
    """θ, the smooth part there, and where the model of F has its maximum."""

    theta: Tensor
    value: float  # F(θ)
    taylor: Taylor  # of f
    target: Tensor  # u⁺
    slope: float  # what F gains along u⁺ − u, to first order
    decrement: float  # √(2Δ)
    square: Tensor  # (p,) the largest J_jj seen
    step: int = 0
    passes: int = 0
    stalled: int = 0
    trace: tuple[tuple[int, float, float], ...] = ()
    origin: int = 0  # the step at which these iterations began
    other: Tensor | None = None  # where to begin again
    rival: State | None = None  # the end of the iterations before


@dataclass(frozen=True, kw_only=True)
class Proximal:
    """Settings.

    Parameters
    ----------
    tolerance
        √(2Δ) at which to stop, in standard errors: Δ is what the quadratic model says is left, in nats
    steps
        at most so many
    coarse
        the largest that may count as a maximum when floating-point precision stops the iterations
    begin
        θ to begin at, (p,)
    twice
        where the log-likelihood is not concave, begin also at the maximum without the prior

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"y": [1.0, 2.0, 3.5, 4.0], "x": [-1.5, -0.5, 0.5, 1.5], "z": [1.0, -1.0, -1.0, 1.0]}
    >>> fit = th.fit("y ~ x + z", data, scale=1.0, prior=th.priors.Laplace(1.0))
    >>> fit.estimates.round(4).to_dict()  # of x, whose coefficient was 1.05: 1/Σx² = 0.2 less
    {'Intercept': 2.625, 'x': 0.85, 'z': 0.0}
    """

    tolerance: float = 1e-8
    steps: int = 200
    coarse: float = 1e-2
    begin: Tensor | None = field(default=None, repr=False)
    twice: bool = True

    def start(self, objective: ObjectiveLike) -> State:
        theta = objective.theta if self.begin is None else self.begin
        if theta.dtype != torch.float64:
            raise BadArgument(
                f"Proximal finds exact zeros in float64, and this model is {theta.dtype}: use Stochastic, or "
                "model.double()."
            )
        smooth, value = _smooth(objective, theta, objective.taylor(theta))
        first = _looked(
            objective, State(theta, value, smooth, theta, 0.0, math.inf, torch.zeros_like(theta), passes=1)
        )
        if not self.twice or objective.concave:
            return first
        other, passes = without_kinks(objective, first)
        return replace(first, other=other, passes=passes)

    def step(self, objective: ObjectiveLike, state: State) -> State:
        if self._ended(state):
            return self._next(objective, state)
        _, center = objective.kinks()
        u = state.theta - center
        noise, passes, t = 16 * EPS * (abs(state.value) + 1), state.passes, 1.0
        for _ in range(60):
            theta = center + state.target if t == 1.0 else state.theta + t * (state.target - u)
            smooth, value = _smooth(objective, theta, objective.taylor(theta))
            passes += 1
            gain = value - state.value
            close = (
                t * state.slope <= noise and abs(gain) <= noise
            )  # rounding decides the sign: the subgradients judge
            if (
                math.isfinite(gain)
                and bool(torch.isfinite(smooth.gradient).all())
                and (gain >= 1e-4 * t * state.slope or close)
            ):
                new = replace(
                    state, theta=theta, value=value, taylor=smooth, step=state.step + 1, passes=passes
                )
                new = _looked(objective, new)
                worse = new.decrement > 0.5 * state.decrement and 0.5 * new.decrement**2 <= noise
                return replace(new, stalled=state.stalled + 1 if worse else 0)
            t *= 0.5 if math.isfinite(gain) else 0.1
        return replace(state, passes=passes, stalled=99, step=state.step + 1)

    def done(self, objective: ObjectiveLike, state: State) -> bool:
        return self._ended(state) and state.other is None and state.rival is None

    def _ended(self, state: State) -> bool:
        return (
            state.decrement <= self.tolerance or state.stalled >= 2 or state.step - state.origin >= self.steps
        )

    def _next(self, objective: ObjectiveLike, state: State) -> State:
        """The second start; after its iterations the end that counts: the higher one, of those that are maxima."""
        if state.other is not None:
            smooth, value = _smooth(objective, state.other, objective.taylor(state.other))
            begun = replace(
                state, theta=state.other, value=value, taylor=smooth, decrement=math.inf, stalled=0, origin=state.step,
                passes=state.passes + 1, other=None, rival=state, square=torch.zeros_like(state.theta),
            )  # fmt: skip
            return _looked(objective, begun)
        assert state.rival is not None
        ends = [end for end in (state.rival, state) if end.decrement <= self.coarse] or [state.rival]
        best = max(ends, key=lambda end: end.value)
        return replace(
            best, step=state.step, passes=state.passes, trace=state.trace, other=None, rival=None, origin=best.origin
        )  # fmt: skip

    def certificate(self, objective: ObjectiveLike, state: State) -> Certificate:
        """What the last state shows, and how many coefficients are exactly zero."""
        weight, center = objective.kinks()
        u, J = state.theta - center, _dense(state.taylor)
        zero = (u == 0) & (weight > 0)
        miss = _missed(state.taylor.gradient, weight, u) / state.square.clamp(min=1e-300).sqrt()
        known = {
            "size": objective.size,
            "steps": state.step,
            "passes": state.passes,
            "zeros": int(zero.sum()),
        }
        if not (state.decrement <= self.tolerance or (state.stalled >= 2 and state.decrement <= self.coarse)):
            why = (
                "floating-point precision stops the iterations."
                if state.stalled >= 2
                else f"Stopped after {state.step} steps."
            )
            if objective.rows is not None and int((~zero).sum()) >= objective.rows:
                why += " As many coefficients are free as there are rows: hold the family's scale (scale=value), or use a prior of smaller scale."
            return Certificate(status="not converged", detail=why, **known)
        told = (
            f"{int(zero.sum())} of {int((weight > 0).sum())} penalised coefficients "
            f"{'is' if int(zero.sum()) == 1 else 'are'} exactly "
            f"{_kinks(center[weight > 0])}; no subgradient is off by more than {float(miss.max()):.1e} "
            "standard errors."
        )
        known |= {
            "nats": 0.5 * state.decrement**2,
            "standard_errors": state.decrement,
            "rank": int((~zero).sum()),
        }
        free = ~zero
        factor = _pivots(J[free][:, free])
        tied = zero & (state.taylor.gradient.abs() >= (1 - TIED) * weight)
        if factor is None:
            return self._flat(objective, state, J, free, None, known)
        for k in torch.nonzero(tied).reshape(-1):
            rest = torch.cholesky_solve(J[free, k][:, None], factor)[:, 0]
            if float(J[k, k] - J[free, k] @ rest) <= SINGULAR * float(J[k, k]):
                return self._flat(objective, state, J, free, (int(k), rest), known)
        if objective.concave:
            return Certificate(status="certified maximum", concave=True, detail=told, **known)
        every = free | tied
        if _pivots(J[every][:, every]) is None:
            return Certificate(
                status="stationary point", detail="The information is not positive definite.", **known
            )
        return Certificate(status="certified maximum", detail=told, **known)

    def _flat(
        self,
        objective: ObjectiveLike,
        state: State,
        J: Tensor,
        free: Tensor,
        tie: tuple[int, Tensor] | None,
        known: Settings,
    ) -> Certificate:
        """The maximum is not one point: columns that say the same have the same subgradient, however their
        coefficient is shared out."""
        direction = torch.zeros(len(J), dtype=torch.float64)
        if tie is None:
            direction[free] = torch.linalg.eigh(J[free][:, free]).eigenvectors[:, 0]
        else:
            direction[tie[0]], direction[free] = 1.0, -tie[1]
        direction = direction / direction.abs().max()
        if tie is None and not objective.concave:
            weight, center = objective.kinks()
            u = (state.theta - center)[weight > 0].abs() / direction[weight > 0].abs().clamp(min=1e-6)
            away = objective.value(
                state.theta + 0.5 * float(u[u > 0].min() if bool((u > 0).any()) else 1.0) * direction
            )
            if not abs(away - state.value) <= 1e-11 * (abs(state.value) + 1):
                return Certificate(
                    status="stationary point", detail="The information is not positive definite.", **known
                )
        names = names_of(objective.model)
        part = torch.nonzero(direction.abs() > 1e-6).reshape(-1).tolist()
        sign = float(direction[part[0]].sign())
        named = {
            names[j] if j < len(names) else f"θ[{j}]": round(sign * float(direction[j]), 9) for j in part
        }
        detail = (
            f"the maximum is not one point: along {direction_text(named)} the data say nothing, and the "
            "prior does not either while no coefficient "
            "changes its sign. Drop one of these columns, or use th.priors.ElasticNet, under which columns "
            "alike share their coefficient."
        )
        return Certificate(status="flat direction", directions=(named,), detail=detail, **known)


# ---- the parts ---------------------------------------------------------------------------------------------


def growth(objective: ObjectiveLike, state: State) -> Tensor:
    """The squared growth along the iterations of the standard error of each coefficient that is not zero:
    (J_ff⁻¹)_jj times the largest J_jj met; infinite where J_ff is not positive definite."""
    weight, center = objective.kinks()
    free = ~((state.theta == center) & (weight > 0))
    factor = _pivots(_dense(state.taylor)[free][:, free])
    if factor is None:
        return torch.full((1,), math.inf, dtype=torch.float64)
    return torch.cholesky_inverse(factor).diagonal() * state.square[free]


def without_kinks(objective: ObjectiveLike, state: State) -> tuple[Tensor | None, int]:
    """Near the maximum without the kinks, from a state: one of Newton's steps of the penalised coordinates, then the others
    at their maximum given those. None where there is nothing to gain; the passes it took."""
    weight, _ = objective.kinks()
    penalised = weight > 0
    step = torch.zeros_like(state.theta)
    step[penalised] = _ascent(_dense(state.taylor)[penalised][:, penalised], state.taylor.gradient[penalised])
    theta, passes = state.theta + step, state.passes
    free = torch.nonzero(~penalised).reshape(-1)
    for _ in range(CYCLES):
        smooth, value = _smooth(objective, theta, objective.taylor(theta))
        passes += 1
        if not (math.isfinite(value) and bool(torch.isfinite(smooth.gradient).all())):
            return None, passes
        g = smooth.gradient[free]
        d = _ascent(_dense(smooth)[free][:, free], g)
        if not len(free) or float(g @ d) <= 1e-4:
            break
        t = 1.0
        while t > 1e-6 and not objective.value(theta.index_add(0, free, t * d)) >= value + 1e-4 * t * float(
            g @ d
        ):
            t, passes = 0.5 * t, passes + 1
        if t <= 1e-6:
            break
        theta = theta.index_add(0, free, t * d)
    return theta, passes


def _ascent(J: Tensor, g: Tensor) -> Tensor:
    """J⁻¹ g, J made positive definite."""
    if not len(g):
        return g
    square = J.diagonal().abs().clamp(min=1e-300)
    out: Tensor = torch.linalg.solve(_definite(J, square, torch.zeros(len(g), dtype=torch.bool)), g)
    return out


def _smooth(objective: ObjectiveLike, theta: Tensor, whole: Taylor) -> tuple[Taylor, float]:
    """f to second order at θ, and F(θ): the objective's own expansion counts a kink by the middle of its
    slopes."""
    weight, center = objective.kinks()
    u = theta - center
    value = whole.value + (weight * u.abs()).sum()
    return Taylor(value, whole.gradient + weight * u.sign(), whole.information), float(whole.value)


def _dense(taylor: Taylor) -> Tensor:
    assert taylor.information is not None
    return taylor.information.dense().to(torch.float64)


def _looked(objective: ObjectiveLike, state: State) -> State:
    """With the maximum of the model of F at the state's θ, what it promises, and a line in the trace."""
    weight, center = objective.kinks()
    g, J, u = state.taylor.gradient, _dense(state.taylor), state.theta - center
    square = torch.maximum(state.square, J.diagonal().abs())
    J = _definite(J, torch.where(square > 0, square, torch.ones_like(square)), (weight > 0) & (u == 0))
    target = _maximum(J, g + J @ u, weight, u)
    d = target - u
    Jd = J @ d
    slack = _slack(g - Jd, weight, u, target)
    promised = 0.5 * float(d @ Jd) + float(slack.sum())
    first = promised + 0.5 * float(d @ Jd)
    decrement = math.sqrt(2 * max(promised, 0.0)) if math.isfinite(promised) else math.inf
    trace = (*state.trace, (state.step, state.value, decrement))
    return replace(state, target=target, slope=first, decrement=decrement, square=square, trace=trace)


def _slack(r: Tensor, weight: Tensor, u: Tensor, target: Tensor) -> Tensor:
    """r_j (u⁺_j − u_j) − λ_j (|u⁺_j| − |u_j|) ≥ 0, r the model's gradient at u⁺; without cancellation
    where no sign changes."""
    same = (u.sign() == target.sign()) | (weight == 0)
    along = (r - weight * target.sign()) * (target - u)
    across = r * (target - u) - weight * (target.abs() - u.abs())
    return torch.where(same, along, across)


def _missed(g: Tensor, weight: Tensor, u: Tensor) -> Tensor:
    """By how much the subgradient condition is violated, (p,)."""
    return torch.where(u != 0, (g - weight * u.sign()).abs(), (g.abs() - weight).clamp(min=0))


def _definite(J: Tensor, square: Tensor, zero: Tensor) -> Tensor:
    """J + μ·diag(square), with the smallest μ tried that makes it positive definite: 0 where J is. Only the
    coefficients that are zero are damped where the rest of J is positive definite, so that the steps of those
    that are not are Newton's."""
    if bool(zero.any()) and _pivots(J[~zero][:, ~zero], 1e-12) is not None:
        square = torch.where(zero, square, torch.zeros_like(square))
    mu = 0.0
    while True:
        shifted = J if mu == 0 else J + mu * torch.diag(square)
        if not bool(torch.isfinite(shifted).all()) or mu > 1e6 or _pivots(shifted, 1e-12) is not None:
            return shifted
        mu = 1e-10 if mu == 0 else 100 * mu


def _pivots(J: Tensor, least: float = SINGULAR) -> Tensor | None:
    """A Cholesky factor of J, or None where a squared pivot of the scaled J is below `least`."""
    scale = J.diagonal().clamp(min=0).sqrt()
    if not bool((scale > 0).all()):
        return None
    L, info = torch.linalg.cholesky_ex(J / scale[:, None] / scale)
    if int(info) != 0 or (len(L) and float(L.diagonal().min()) ** 2 < least):
        return None
    out: Tensor | None = L * scale[:, None]
    return out


def _maximum(J: Tensor, b: Tensor, weight: Tensor, u: Tensor) -> Tensor:
    """argmax bᵀu − ½ uᵀJu − Σ λ|u|, from u: coordinate descent on those that may move, a linear system on
    those that have."""
    A, lam, x = J.numpy(), weight.numpy(), u.numpy().copy()
    if not np.isfinite(A).all():
        return u
    r = b.numpy() - A @ x
    diagonal = A.diagonal()
    close = 1e-10 * np.sqrt(diagonal) + 64 * EPS * (np.abs(b.numpy()) + lam)
    for _ in range(CYCLES):
        before = x.copy()
        moving = np.flatnonzero((x != 0) | (np.abs(r) > lam))
        for _ in range(SWEEPS):
            if not _swept(A, r, x, lam, moving):
                break
        r = _faced(J, b, weight, x, r)
        miss = np.where(x != 0, np.abs(r - lam * np.sign(x)), np.maximum(np.abs(r) - lam, 0))
        if (miss <= close).all() or np.array_equal(x, before):
            break
    return torch.from_numpy(x)


def _swept(A: np.ndarray, r: np.ndarray, x: np.ndarray, lam: np.ndarray, moving: np.ndarray) -> bool:
    """One sweep of coordinate descent, x_j ← S(r_j + J_jj x_j, λ_j)/J_jj, in place; whether anything moved by
    10⁻⁸ of an error."""
    furthest = 0.0
    for j in moving:
        a, old = A[j, j], x[j]
        z = r[j] + a * old
        new = math.copysign(max(abs(z) - lam[j], 0.0), z) / a
        if new != old:
            x[j] = new
            r -= A[j] * (new - old)
            furthest = max(furthest, a * (new - old) ** 2)
    return furthest > 1e-16


def _faced(J: Tensor, b: Tensor, weight: Tensor, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Signs given, the maximum is J_AA x_A = b_A − λ_A s_A: go there, in place, and set to zero what would
    change its sign on the way.

    The objective on the face is a concave quadratic, so that every part of the way to its maximum is a gain.
    """
    for _ in range(20):
        at = torch.from_numpy(np.flatnonzero((x != 0) | (weight.numpy() == 0)))
        if len(at) == 0:
            break
        factor = _pivots(J[at[:, None], at], 1e-14)
        if factor is None:
            return r
        now = torch.from_numpy(x[at.numpy()])
        goal = torch.cholesky_solve((b[at] - weight[at] * now.sign())[:, None], factor)[:, 0]
        crossing = (weight[at] > 0) & (goal * now.sign() <= 0)
        if not bool(crossing.any()):
            x[at.numpy()] = goal.numpy()
            break
        share = torch.where(crossing, now / (now - goal), torch.inf)
        first = int(share.argmin())
        moved = now + share[first] * (goal - now)
        moved[first] = 0.0
        x[at.numpy()] = moved.numpy()
    return (b - J @ torch.from_numpy(x)).numpy()


def _kinks(center: Tensor) -> str:
    """Where the kinks are: 0, or their locations."""
    found = sorted({float(c) for c in center})
    return f"{found[0]:g}" if len(found) == 1 else "at their prior's location"
