"""Newton's method in a trust region, on the whole data.

    d = argmax  gᵀd − ½ dᵀJd   within the region;     λ² = gᵀ J⁻¹ g

Two things make it fast on many rows. It begins on a subsample, whose maximum is √(keep·p) standard errors
from that of the whole. And J only steers: it may be summed in float32 and kept for several steps, corrected
by secant pairs (BFGS), while value and gradient, which decide the answer, are float64 at every step.

Two stopping tests, and why each is sound:
  1. λ ≤ tolerance. In the quadratic model θ̂ is then within `tolerance` standard errors of the maximum in every direction. With a kept J
     the estimate of λ errs by the relative change of J over the last steps, which those same steps bound by O(λ/√n).
  2. The predicted gain λ²/2 is below the rounding error of the sum, and a further step has not reduced λ: float64 can see no more.
     It counts as a maximum only if λ is still below `coarse`, a hundredth of a standard error; else the fit has not converged.

References
----------
Nocedal and Wright (2006), Numerical Optimization, 2nd ed., ch. 4 and 6; Boyd and Vandenberghe (2004), Convex
Optimization, §9.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..likelihood import Objective
from ..models.information import Factor, Information
from ..models.taylor import Taylor
from ..protocols import Compiled, HasFamily, WantsBlocks, is_concave, taylor_of
from ..types import ObjectiveLike
from .certificate import Certificate
from .surrogate import corrected, held

CRAWL, CRAWLED = 25, 1e-2  # steps without a decrement, and the nats that they have to gain together
PATIENCE, GAIN = 100, 1e-4  # steps, and the nats that they have to gain together: a solver that gains goes on
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class State:
    """θ, the objective there, the information that steers (from `age` steps ago), and the trust region."""

    theta: Tensor
    taylor: Taylor
    information: Information
    factor: Factor | None
    scale: Tensor  # (p,) the largest √J_jj seen: the metric of the trust region
    radius: float = math.inf
    pairs: tuple[tuple[Tensor, Tensor], ...] = ()
    decrement: float = math.inf
    previous: float = math.inf
    step: int = 0
    passes: int = 0
    stalled: int = 0
    precision: torch.dtype = torch.float64
    borrowed: bool = False  # the information is the subsample's, scaled: it steers, and certifies nothing
    trace: tuple[tuple[int, float, float], ...] = ()

    @property
    def value(self) -> float:
        return float(self.taylor.value)


@dataclass(frozen=True, kw_only=True)
class Newton:
    """Settings.

    Parameters
    ----------
    tolerance
        λ at which to stop, in standard errors
    steps
        at most so many. Long before, the iterations end once 100 of them have gained less than 1e-4 nats
        together
    keep_above, keep_below
        J is kept for several steps on more rows than `keep_above` and where λ < `keep_below`
    float32_above
        rows above which J is summed in float32 first, where torch sums it (float64 again if it is too ill-conditioned for that)
    thin_above
        rows above which the iterations begin on a subsample
    coarse
        the largest λ that may count as a maximum when floating-point precision stops the iterations
    first
        (objective) → θ next to the maximum, where there is a formula for that; None: it has none for these data
    """

    tolerance: float = 1e-8
    steps: int = 3000
    keep_above: int = 20_000
    keep_below: float = 3.0
    float32_above: int = 50_000
    thin_above: int = 20_000
    coarse: float = 1e-2
    first: Callable[[Objective], Tensor | None] | None = field(default=None, repr=False)
    begin: Tensor | None = field(default=None, repr=False)
    smooth: ClassVar[bool] = True  # goes by curvature alone

    # ---- start ---------------------------------------------------------------------------------------------

    def start(self, objective: ObjectiveLike) -> State:
        begin = objective.theta if self.begin is None else self.begin
        rows = objective.rows or 0
        near = self.first(objective) if self.first is not None and isinstance(objective, Objective) else None
        if near is not None:
            return self._look(objective, near, torch.float64)
        if rows > self.thin_above and objective.size * 50 < rows:
            keep = max(2, min(32, rows // max(self.thin_above // 4, 50 * objective.size)))
            borrowed = self._thinned_start(objective, begin, keep)
            dear = taylor_of(objective.model) is None
            if borrowed is not None and (
                dear or (borrowed.factor is not None and _gradient_is_cheap(objective))
            ):
                return self._borrow(objective, borrowed, rows / (objective.thinned(keep).rows or rows))
            begin = begin if borrowed is None else borrowed.theta
        single = rows > self.float32_above and not _in_double(objective)
        return self._look(objective, begin, torch.float32 if single else torch.float64)

    def _thinned_start(self, objective: ObjectiveLike, begin: Tensor, keep: int) -> State | None:
        """Run on every keep-th row first. Only a start: if the subsample has no maximum, begin where we
        were."""
        solver = replace(self, tolerance=0.3, steps=25, thin_above=10**18, begin=begin)
        thinned = objective.thinned(keep)
        state = solver.start(thinned)
        while not solver.done(thinned, state):
            state = solver.step(thinned, state)
        sound = state.decrement <= 1.0 and bool(torch.isfinite(state.theta).all())
        return state if sound else None

    def _borrow(self, objective: ObjectiveLike, thinned: State, keep: float) -> State:
        """The state at the subsample's maximum, steered by the subsample's information times `keep`."""
        return self.steered(objective, thinned.theta, thinned.information.times(keep))

    def steered(self, objective: ObjectiveLike, theta: Tensor, information: Information) -> State:
        """The state at θ, steered by an information that is not its own."""
        t = objective.taylor(theta, order=1)
        state = State(theta, t, information, None, _scale(information, None), passes=1, borrowed=True)
        return self._measured(self._factored(objective, state))

    def _look(self, objective: ObjectiveLike, theta: Tensor, precision: torch.dtype) -> State:
        """The state at θ with fresh information."""
        t = objective.taylor(theta, order=2, precision=precision)
        state = State(
            theta, t, t.information, None, _scale(t.information, None), precision=precision, passes=1
        )
        return self._measured(self._factored(objective, state))

    def _factored(self, objective: ObjectiveLike, state: State) -> State:
        """With a factor of J; summed again in float64 if float32 cannot carry it."""
        factor = state.information.factor()
        if state.precision == torch.float32 and (factor is None or factor.pivot < 1e-4):
            t = objective.taylor(state.theta, order=2)
            state = replace(
                state, information=t.information, precision=torch.float64, passes=state.passes + 1
            )
            factor = t.information.factor()
        if factor is not None and factor.pivot < 1e-13:
            factor = None
        return replace(state, factor=factor, pairs=(), scale=_scale(state.information, state.scale))

    def _measured(self, state: State) -> State:
        """With its decrement, and a line in the trace."""
        g = state.taylor.gradient
        decrement = math.inf
        if state.factor is not None:
            decrement = math.sqrt(max(float(g @ solve(state, g)), 0.0))
        trace = (*state.trace, (state.step, state.value, decrement))
        return replace(state, decrement=decrement, trace=trace)

    # ---- step ----------------------------------------------------------------------------------------------

    def step(self, objective: ObjectiveLike, state: State) -> State:
        if state.borrowed and state.decrement <= self.tolerance:
            return self._measured(replace(self.refreshed(objective, state), step=state.step + 1))
        if state.pairs and state.decrement > (0.5 if state.borrowed else 0.3) * state.previous:
            state = self.refreshed(objective, state)  # the kept information no longer steers well
        d, predicted = self._direction(state)
        sample = None if state.borrowed or state.pairs else held(objective)
        if (
            sample is not None
            and state.factor is not None
            and float((d * state.scale).norm()) <= 0.5 * state.radius
        ):
            d = corrected(objective, sample, state.theta, state.information, state.factor, d)
        # far from the maximum J changes too much along the step for the old one to steer the next: it is
        # summed anew in the same pass. What was borrowed steers on where J costs many gradients
        dear = state.borrowed and not _gradient_is_cheap(objective)
        near = dear or (state.decrement < self.keep_below and not state.borrowed)
        keep = (objective.rows or 0) > self.keep_above and state.factor is not None and near
        if keep and _in_double(objective) and isinstance(objective, Objective):
            keep = not objective.streamed  # a file is read for a gradient as for an information
        passes = state.passes
        for _ in range(60):
            t = objective.taylor(state.theta + d, order=1 if keep else 2, precision=state.precision)
            passes += 1
            gain = float(t.value) - state.value
            noise = 16 * EPS * (abs(state.value) + 1)
            # rounding decides the sign, of residuals over a small scale a thousand times as much: the
            # gradient judges
            close = predicted <= noise and abs(gain) <= 1e3 * noise
            if (
                math.isfinite(gain)
                and bool(torch.isfinite(t.gradient).all())
                and (gain >= 1e-4 * predicted or close)
            ):
                return self._accepted(
                    objective, replace(state, passes=passes), d, t, gain / predicted if predicted > 0 else 1.0
                )
            length = float((d * state.scale).norm())
            state = replace(state, radius=0.25 * length if math.isfinite(length) else 1.0)
            if state.pairs:
                state = self.refreshed(objective, replace(state, passes=passes))
                passes = state.passes
            d, predicted = self._direction(state)
            if length < 1e-13 * (1 + float((state.theta * state.scale).norm())):
                break
        return replace(state, passes=passes, stalled=99, step=state.step + 1)

    def _accepted(self, objective: ObjectiveLike, state: State, d: Tensor, t: Taylor, ratio: float) -> State:
        length = float((d * state.scale).norm())
        radius = state.radius
        if ratio < 0.25:
            radius = 0.25 * length
        elif ratio > 0.75 and length > 0.8 * radius:
            radius = 4 * radius
        new = replace(
            state,
            theta=state.theta + d,
            taylor=t,
            radius=radius,
            step=state.step + 1,
            previous=state.decrement,
        )
        if t.information is not None:
            new = self._factored(objective, replace(new, information=t.information, borrowed=False))
        else:
            y = state.taylor.gradient - t.gradient
            if float(d @ y) > 1e-10 * float(d.norm() * y.norm()):
                new = replace(new, pairs=(*state.pairs, (d, y)))
        new = self._measured(new)
        noise = 16 * EPS * (abs(new.value) + 1)
        if new.factor is None:  # there is no decrement: the gradient tells, and what was gained
            worse = _steepness(new) > 0.5 * _steepness(state) and abs(new.value - state.value) <= noise
        else:
            worse = new.decrement > 0.5 * state.decrement and 0.5 * new.decrement**2 <= noise
        return replace(new, stalled=state.stalled + 1 if worse else 0)

    def refreshed(self, objective: ObjectiveLike, state: State) -> State:
        """The state with its information summed anew."""
        t = objective.taylor(state.theta, order=2, precision=state.precision)
        fresh = replace(state, taylor=t, information=t.information, passes=state.passes + 1, borrowed=False)
        return self._factored(objective, fresh)

    def resumed(self, objective: ObjectiveLike, state: State) -> State:
        """The same θ and trust region, whatever was borrowed or had stalled: measured by its own information."""
        return self._measured(self.refreshed(objective, replace(state, stalled=0, step=state.step + 1)))

    def _direction(self, state: State) -> tuple[Tensor, float]:
        """The step, and the gain that the quadratic model promises for it."""
        g = state.taylor.gradient
        if state.factor is not None:
            d = solve(state, g)
            if float((d * state.scale).norm()) <= state.radius:
                return d, 0.5 * float(g @ d)
        elif _steepness(state) <= self.tolerance:
            away = _upward(state)
            if away is not None:
                d = min(state.radius, 1.0) * away
                return d, float(g @ d - 0.5 * (d @ state.information.multiply(d)))
        return self._damped(state, g)

    def _damped(self, state: State, g: Tensor) -> tuple[Tensor, float]:
        """(J + μS²) d = g with the smallest μ that makes the matrix positive definite and d no longer than
        the radius."""
        J, square = state.information, state.scale**2
        low, mu, best = (
            0.0,
            1e-10,
            None,
        )  # along a direction that J does not know, a small μ does not hold the others back
        for _ in range(60):
            factor = J.plus_diagonal(mu * square).factor()
            d = factor.solve(g) if factor is not None else None
            if d is None or not bool(torch.isfinite(d).all()):
                low, mu = mu, (100 if mu < 1e-3 else 8) * mu
                continue
            length = float((d * state.scale).norm())
            if length <= state.radius:
                best = (d, mu)
                if (
                    length >= 0.5 * min(state.radius, 1e300)
                    or mu - low <= 0.2 * mu
                    or not math.isfinite(state.radius)
                ):
                    break
                mu = low + 0.25 * (mu - low) if low > 0 else 0.25 * mu
                if mu < 1e-12:
                    break
            else:
                low = mu
                mu = 4 * mu if best is None else 0.5 * (mu + best[1])
        if best is None:
            d = g / square.clamp(min=1e-300)
            d = d * min(1.0, state.radius / max(float((d * state.scale).norm()), 1e-300))
        else:
            d = best[0]
        return d, float(g @ d - 0.5 * (d @ J.multiply(d)))

    # ---- done ----------------------------------------------------------------------------------------------

    def done(self, objective: ObjectiveLike, state: State) -> bool:
        if state.factor is None and _steepness(state) <= self.tolerance and _upward(state) is None:
            return True  # stationary, with a singular information: the diagnosis tells which kind
        if state.borrowed and state.stalled < 2 and state.step < self.steps:
            return False
        last = state.trace[-CRAWL:]
        if (
            len(last) == CRAWL
            and all(math.isinf(decrement) for _, _, decrement in last)
            and state.value - last[0][1] < CRAWLED
        ):
            return (
                True  # J is singular, and nothing is gained: columns that are nearly collinear, a singularity
            )
        return (
            state.decrement <= self.tolerance
            or state.stalled >= 2
            or state.step >= self.steps
            or _recent(state) < GAIN
        )

    def certificate(self, objective: ObjectiveLike, state: State) -> Certificate:
        """What the last state shows. Separation, boundaries and flat directions are looked for by
        `solvers.diagnose`."""
        known = {"size": objective.size, "steps": state.step, "passes": state.passes}
        if state.factor is None:
            stationary = _steepness(state) <= (self.coarse if state.stalled >= 2 else self.tolerance)
            status = "stationary point" if stationary else "not converged"
            detail = "The information is not positive definite."
            return Certificate(
                status=status, detail=detail if stationary else f"{detail} {self._why(state)}", **known
            )
        nats = 0.5 * state.decrement**2
        known |= {"nats": nats, "standard_errors": state.decrement, "rank": objective.size}
        steady = all(
            math.isfinite(decrement) for _, _, decrement in state.trace[-CRAWL:]
        )  # J was positive definite all along
        idle = state.stalled >= 2 or (steady and _recent(state) < GAIN)
        if state.decrement <= self.tolerance or (idle and state.decrement <= self.coarse):
            return Certificate(status="certified maximum", concave=is_concave(objective), **known)
        return Certificate(status="not converged", detail=self._why(state), **known)

    def _why(self, state: State) -> str:
        """Why the iterations ended without a maximum, and what to do."""
        elsewhere = "Begin nearer to the maximum, or express columns and parameters in units in which they are of similar size."
        if state.stalled >= 2:
            return f"Stopped at the limit of floating-point precision. {elsewhere}"
        if state.step < self.steps:
            last, little = (PATIENCE, GAIN) if _recent(state) < GAIN else (CRAWL, CRAWLED)
            return f"The last {last} steps gained less than {little:g} nats together. {elsewhere}"
        seen = state.trace[-PATIENCE - 1 :]
        gained = state.value - seen[0][1]
        more = f"Allow more steps (solver=th.{type(self).__name__}(steps={10 * self.steps}))."
        return f"Stopped after {state.step} steps, which is their limit; the last {len(seen) - 1} still gained {gained:.3g} nats. {more}"


def _recent(state: State) -> float:
    """What the last steps have gained, in nats; ∞ while they are fewer than `PATIENCE`, or began at −∞."""
    if len(state.trace) <= PATIENCE or not math.isfinite(state.trace[-PATIENCE - 1][1]):
        return math.inf
    return state.value - state.trace[-PATIENCE - 1][1]


def _steepness(state: State) -> float:
    """The length of the gradient in the metric of the trust region: what is left of λ where J is singular."""
    return float((state.taylor.gradient / state.scale).norm())


def _upward(state: State) -> Tensor | None:
    """At a stationary point: the direction, of unit length in the metric of the trust region, in which ℓ
    curves upward most, if it does."""
    if state.information.size > 2000:
        return None
    J = state.information.dense() / state.scale[:, None] / state.scale
    if not bool(torch.isfinite(J).all()):
        return None
    values, vectors = torch.linalg.eigh(J)
    if values[0] >= -1e-8:
        return None
    d = vectors[:, 0] / state.scale
    out: Tensor | None = d if float(d @ state.taylor.gradient) >= 0 else -d
    return out


def _in_double(objective: ObjectiveLike) -> bool:
    """Whether the information is summed in float64 whatever is asked for."""
    return isinstance(objective.model, WantsBlocks) and objective.model.block_rows is not None


def _gradient_is_cheap(objective: ObjectiveLike) -> bool:
    """Whether a gradient takes half the time of an information: of a family whose rows are compiled too, in memory."""
    model, streamed = objective.model, isinstance(objective, Objective) and objective.streamed
    family = model.family if isinstance(model, HasFamily) else None
    return (
        _in_double(objective)
        and not streamed
        and isinstance(family, Compiled)
        and family.compiled is not None
    )


def _scale(J: Information, before: Tensor | None) -> Tensor:
    now = J.diagonal().abs().nan_to_num(nan=1.0, posinf=1.0).sqrt()
    now = torch.where(now > 0, now, torch.ones_like(now))
    return now if before is None else torch.maximum(now, before)


def solve(state: State, g: Tensor) -> Tensor:
    """J⁻¹ g, J the kept information corrected by the secant pairs since (Nocedal and Wright, algorithm
    7.4)."""
    assert state.factor is not None
    q, alphas = g.clone(), []
    for s, y in reversed(state.pairs):
        a = (s @ q) / (s @ y)
        q = q - a * y
        alphas.append(a)
    r = state.factor.solve(q)
    for (s, y), a in zip(state.pairs, reversed(alphas), strict=True):
        r = r + s * (a - (y @ r) / (s @ y))
    return r
