"""Baum and Welch's algorithm, and then Newton's: the solver of hidden Markov models.

EM never lets the log-likelihood fall, and that is checked at every step. It converges linearly; so its steps are extrapolated (SQUAREM),
and once a cycle gains less than `hand_over` nats Newton's method takes over on the log-likelihood itself, whose decrement is the
certificate. There are many maxima: the run is made from several first guesses, and the highest maximum is the answer.

A transition that the data never take has probability 0 at the maximum, an end of its range: it is held there and leaves θ, Newton's
method maximises the others, and a step back inside must then lower the log-likelihood. The certificate names it.

References
----------
Baum, Petrie, Soules and Weiss (1970), A maximization technique occurring in the statistical analysis of probabilistic
functions of Markov chains; Varadhan and Roland (2008), Simple and globally convergent methods for accelerating the
convergence of any EM algorithm; Turner (2008), Direct maximization of the likelihood of a hidden Markov model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import BadArgument
from ..likelihood import Objective
from ..models import HMM
from ..models.hidden_guess import first_guess
from ..models.information import Factor
from .certificate import Certificate
from .complete_data import agreed
from .expected_states import (
    FAR,
    Point,
    expect,
    limits,
    maximised,
    over,
    seen_scale,
    settled,
    singular,
    steering,
    thinned,
    whole,
)
from .maxima import LOST, Maximum, leads_to, starts_of, told_of
from .never_taken import held, inside, rare, without
from .newton import EPS, Newton

NEAR = 3.0  # standard errors: how far Newton's first step may go from where EM stands
THINNED = 30.0  # the same from the maximum of a subsample
BEHIND = 20.0  # nats of the subsample by which an end that is followed up may be lower
COARSE, SAME = (
    0.1,
    1.0,
)  # nats of the subsample: a cycle that gains less is the last, ends that differ by less are one
MANY = 20_000  # rows beyond which states are not counted at every step of Newton's
ROUTES = 3  # maxima of a subsample from which all rows are used


@dataclass(frozen=True)
class End(Maximum):
    """Where a run ended; its objective is that of the transitions that are left."""

    objective: Objective | None = None
    point: Point | None = None


@dataclass(frozen=True)
class State:
    """The run under way, and where those before it ended."""

    starts: tuple[Tensor, ...]
    limits: Tensor
    point: Point | None = None
    found: tuple[End, ...] = ()
    tried: int = 0
    gain: float = math.inf
    step: int = 0
    passes: int = 0
    trace: tuple[tuple[int, float, float], ...] = ()

    @property
    def best(self) -> End | None:
        """The highest maximum so far; of runs that came to none, the highest."""
        return max(self.found, key=lambda m: (not m.trouble, m.value), default=None)

    @property
    def theta(self) -> Tensor:
        return self.best.theta if self.best is not None else self.starts[0]

    @property
    def ended(self) -> Objective | None:
        """The objective of the best end, at its θ."""
        best = self.best
        return None if best is None or best.objective is None else best.objective.at(best.theta)

    @property
    def factor(self) -> Factor | None:
        return None if self.best is None or self.best.newton is None else self.best.newton.factor

    @property
    def scale(self) -> Tensor | None:
        """What is known of each coordinate if the states are seen."""
        return None if self.best is None else self.best.scale


@dataclass(frozen=True, kw_only=True)
class BaumWelch:
    """Settings.

    Parameters
    ----------
    starts
        first guesses (one, of a model of one state)
    seed
        of the guesses; same seed, same numbers
    accelerate
        SQUAREM; False: plain EM
    hand_over
        nats; once a cycle of EM gains less, Newton takes over
    cycles
        of EM at most, for one run
    inner
        steps of Newton in M, where there is no formula
    tolerance
        Newton's λ at which to stop, in standard errors
    thin_above
        rows above which the guesses are tried on a subsample, and all rows used from its highest maxima
    begin
        a θ from which to start, instead of guesses

    Examples
    --------
    >>> BaumWelch(starts=5).seed
    0
    """

    starts: int = 10
    seed: int = 0
    accelerate: bool = True
    hand_over: float = 1e-2
    cycles: int = 200
    inner: int = 1
    tolerance: float = 1e-8
    thin_above: int = 20_000
    begin: Tensor | None = field(default=None, repr=False)
    smooth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in (("starts", self.starts), ("cycles", self.cycles), ("inner", self.inner)):
            if value < 1:
                raise BadArgument(f"{name}={value}. Accepted: 1 or more.")
        if not (self.hand_over > 0 and self.tolerance > 0):
            raise BadArgument(f"hand_over={self.hand_over}, tolerance={self.tolerance}: both are positive.")

    # ---- start ---------------------------------------------------------------------------------------------

    def start(self, objective: Objective) -> State:
        model = _hmm(objective)
        given = None if self.begin is None else [self.begin]
        if (objective.rows or 0) > self.thin_above and model.k > 1:
            guesses = self._routes(objective, model, given)
            tried = (self.starts if given is None else 1) if guesses else 0
        else:
            guesses, tried = [], 0
        guesses = guesses or given or self._guesses(objective, model)
        return State(tuple(agreed(theta) for theta in guesses), limits(objective), tried=tried)

    def _guesses(self, objective: Objective, model: HMM) -> list[Tensor]:
        """θ of each first guess: by the values of y, and every third by stretches of time."""
        batch, out = whole(objective), []
        if not all(model.chain.starts) or not all(map(all, model.chain.allowed)):
            out.append(model.start(objective.terms[0].source))  # transitions are held at 0 already
        for i in range(self.starts if model.k > 1 else 1):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + i)
            out.append(first_guess(model, batch, generator, blocks=i % 3 == 2).theta)
        return out

    def _routes(self, objective: Objective, model: HMM, given: list[Tensor] | None) -> list[Tensor]:
        """Where EM ends on a subsample, the highest first: where to start on many rows. A run that falls behind is
        left."""
        some = thinned(objective, self.thin_above // 4)
        bound, ends = limits(some), list[Point]()
        for theta in given or self._guesses(some, model):
            point, gain, best = (
                expect(some, theta, bound),
                math.inf,
                max((e.value for e in ends), default=-math.inf),
            )
            for step in range(self.cycles):
                if point.trouble or gain < COARSE or (step > 3 and point.value + 10 * gain < best - BEHIND):
                    break
                after, _ = self.cycle(some, point, bound)
                point, gain = after, after.value - point.value
            ends += [] if point.trouble else [point]
        ends.sort(key=lambda e: -e.value)
        apart = [
            e
            for e, before in zip(ends, [None, *ends], strict=False)
            if before is None or before.value - e.value > SAME
        ]
        return [e.theta for e in apart[:ROUTES] if e.value > ends[0].value - BEHIND]

    # ---- step ----------------------------------------------------------------------------------------------

    def step(self, objective: Objective, state: State) -> State:
        """A cycle of EM; or, where the run has become slow, Newton to its end."""
        if state.point is None:
            point = expect(objective, state.starts[len(state.found)], state.limits)
            fresh = replace(state, point=point, gain=math.inf, step=0, trace=())
            return _told(fresh, point, 1)
        before = state.point
        # from the maximum of a subsample, and with priors, Newton's is the way
        near = bool(objective.priors) or state.tried > 0
        if before.trouble or near or state.gain < self.hand_over or state.step >= self.cycles:
            return self._polished(objective, state)
        point, passes = self.cycle(objective, before, state.limits)
        return _told(
            replace(state, point=point, gain=point.value - before.value, step=state.step + 1), point, passes
        )

    def advance(self, objective: Objective, point: Point, limits: Tensor) -> Point:
        """One step of EM. ℓ does not fall, or the run is in trouble."""
        theta = maximised(objective, point, self.inner)
        if not bool(torch.isfinite(theta).all()):
            return replace(point, trouble=singular(objective.model, theta, point.gamma))
        after = expect(objective, theta, limits)
        fallen = point.value - after.value
        if not after.trouble and fallen > 1e-9 * (1 + abs(point.value)):
            return replace(point, trouble=f"A step of EM lowered the log-likelihood by {fallen:.2g} nats.")
        return after

    def cycle(self, objective: Objective, start: Point, limits: Tensor) -> tuple[Point, int]:
        """Two steps of EM, and the leap that they suggest. Returns the point, and how many passes it took."""
        one = self.advance(objective, start, limits)
        if one.trouble or not self.accelerate:
            return one, 1
        two = self.advance(objective, one, limits)
        r = one.theta - start.theta
        v = two.theta - one.theta - r
        if two.trouble or not float(v.norm()) > EPS * float(r.norm()):
            return two, 2
        alpha, passes = -float(r.norm() / v.norm()), 2
        for _ in range(5):
            if alpha > -1 - 1e-2:
                break
            leap = expect(objective, start.theta - 2 * alpha * r + alpha**2 * v, limits)
            passes += 1
            if leap.value >= two.value and not leap.trouble:
                return leap, passes
            alpha = (alpha - 1) / 2
        return two, passes

    # ---- the end of a run ----------------------------------------------------------------------------------

    def _polished(self, objective: Objective, state: State) -> State:
        """Newton on ℓ from where EM stands; the next run begins."""
        point = state.point
        assert point is not None
        if point.trouble:
            lost = Certificate(status="no maximum", size=objective.size)
            end = End(
                point.theta, point.value, lost, None, state.trace, point.trouble, None, objective, point
            )
            return _ended(state, end)
        here = over(objective, objective.at(point.theta).model.ordered())
        known = _known(here, here.theta, point.value, state)
        if known is not None:
            return _ended(state, known)
        point = expect(here, here.theta, state.limits)
        scaled = seen_scale(here, point)
        if state.tried > 0 and point.passed is not None:
            here = settled(here, point.passed)
        passes, trace, freed = state.passes, list(state.trace), set[tuple[int, int]]()
        while True:
            here, found, used = self._maximum(here, state, frozenset(freed))
            passes += used
            if found is None:
                continue
            end = found
            trace += [(state.step + i, value, decrement) for i, value, decrement in end.trace]
            wrong = None if end.trouble or not end.certificate.ok else inside(here.at(end.theta), freed)
            if wrong is None:
                break
            freed.add(wrong[0])
            here = wrong[1]
        model = here.at(end.theta).model
        ordered = model.ordered()
        if not torch.equal(ordered.theta, end.theta) or ordered.chain != model.chain:
            here = over(here, ordered)
            again, last, _ = self._maximum(here, state, frozenset(freed))
            if last is not None:
                here, end = again, last
        scale = end.scale
        if scale is not None and len(scale) == len(scaled):
            scale = torch.maximum(scale, scaled)
        end = replace(end, trace=tuple(trace), scale=scale, objective=here)
        return _ended(replace(state, passes=passes), end)

    def _maximum(
        self, here: Objective, state: State, freed: frozenset[tuple[int, int]]
    ) -> tuple[Objective, End | None, int]:
        """Newton's method to its end; or, as soon as a transition is never taken, the objective without it and None."""
        point = expect(here, here.theta, state.limits)
        newton = Newton(tolerance=self.tolerance, steps=300, begin=here.theta, thin_above=FAR)
        rest = without(here, point, freed)
        if rest is not None:
            return rest, None, 1
        J = steering(here, self.thin_above // 4) if state.tried > 0 else None
        if J is None:
            now = replace(newton.start(here), radius=NEAR)
        else:  # one step goes most of the way, and J is summed over all rows behind it
            now = newton.step(here, replace(newton.steered(here, here.theta, J), radius=THINNED))
            newton = replace(newton, keep_below=THINNED)
            now = newton.resumed(here, replace(now, radius=THINNED))
        while not newton.done(here, now) and not point.trouble:
            now = newton.step(here, now)
            last = newton.done(here, now)
            if not last and (here.rows or 0) > MANY and not rare(here.at(now.theta).model):
                continue
            point = expect(here, now.theta, state.limits)
            rest = None if point.trouble else without(here.at(now.theta), point, freed)
            if rest is not None:
                return rest, None, 2 * now.passes
        lost = Certificate(status="no maximum", size=here.size)
        certificate = lost if point.trouble else newton.certificate(here, now)
        scale = seen_scale(here, point)
        end = End(now.theta, now.value, certificate, now, now.trace, point.trouble, scale, here, point)
        return here, end, 2 * now.passes

    # ---- done ----------------------------------------------------------------------------------------------

    def done(self, objective: Objective, state: State) -> bool:
        return len(state.found) >= len(state.starts)

    def certificate(self, objective: Objective, state: State) -> Certificate:
        """Newton's, of the highest maximum; which transitions it never takes; and what became of the other runs."""
        best = state.best
        assert best is not None
        steps = max((line[0] for line in best.trace), default=0)
        if best.trouble:
            detail = (
                f"the likelihood has no maximum that could be found: each of {starts_of(state.found)} ran into a "
                f"singularity. {best.trouble} Fewer states, another family, or a prior on the scales "
                "(prior=th.priors.Normal(1.0, location=…, on='*scale*')) prevent it."
            )
            return replace(best.certificate, detail=detail, steps=steps, passes=state.passes)
        told, spare = told_of(state.found, state.tried), _needless(best)
        if spare is not None:
            return Certificate(
                status="flat direction",
                size=objective.size,
                directions=(dict.fromkeys(spare[0], 1.0),),
                detail=f"the {objective.model.k} states are not identifiable from these data: {spare[1]} A model of fewer is as probable. {told}",
                steps=steps,
                passes=state.passes,
            )
        detail = " ".join(part for part in (best.certificate.detail, told) if part)
        assert best.objective is not None
        zero = held(best.objective.model)
        status = "boundary" if zero and best.certificate.ok else best.certificate.status
        return replace(
            best.certificate, status=status, boundary=zero, detail=detail, steps=steps, passes=state.passes
        )


def _told(state: State, point: Point, passes: int) -> State:
    line = (state.step, point.value, math.inf)
    return replace(state, passes=state.passes + passes, trace=(*state.trace, line))


def _ended(state: State, end: End) -> State:
    after = replace(state, point=None, found=(*state.found, end))
    assert after.best is not None
    return replace(after, trace=after.best.trace)


def _known(here: Objective, theta: Tensor, value: float, state: State) -> End | None:
    """The maximum to which a run leads that is so near it."""
    for m in state.found:
        assert m.objective is not None
        if m.objective.model.chain == here.model.chain and leads_to(theta, value, m):
            return m
    return None


# ---- states that are not needed ----------------------------------------------------------------------------


def _needless(best: End) -> tuple[list[str], str] | None:
    """The coordinates that mean nothing where a state is never visited, or is another one once more."""
    factor = None if best.newton is None else best.newton.factor
    if best.scale is None or best.point is None or best.objective is None:
        return None
    if factor is not None and bool((factor.inverse_diagonal().clamp(min=0).sqrt() * best.scale < LOST).all()):
        return None
    model, names = best.objective.model, best.objective.model.coefficient_names
    for k, place in enumerate(model.places):
        if float(best.point.gamma[k].sum()) < 1e-3:
            return names[place], f"state {k + 1} is never visited."
        for j in range(k):
            away = best.theta[place] - best.theta[model.places[j]]
            if float((away * best.scale[place]).norm()) < 0.1:
                return names[place], f"states {j + 1} and {k + 1} describe y alike."
    return None


def _hmm(objective: Objective) -> HMM:
    """The model that is to be fitted, or the reason why this solver does not do it."""
    model = objective.model if len(objective.terms) == 1 else None
    if not isinstance(model, HMM):
        raise BadArgument(
            "BaumWelch fits one hidden Markov model to one source of data. Solvers of other models: th.Newton(), "
            "th.LBFGS(), th.Stochastic()."
        )
    if objective.terms[0].weights is not None:
        raise BadArgument(
            "the rows of a sequence are one observation: a hidden Markov model takes no weighting of rows."
        )
    return model
