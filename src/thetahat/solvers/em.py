"""EM: responsibilities as weights. For a model with a posterior over a finite latent variable: mixtures.

    E    r_ik = p(k | x_i, θ)                                         the responsibilities, at the θ that is
    M    θ' = argmax Q,   Q = Σ_i w_i Σ_k r_ik log(π_k p_k(x_i | θ_k)) + log p(θ)

M is weighted maximum likelihood of each component on its own, responsibilities as counts: by the component's
formula where it has one (a normal's mean and covariance, least squares of a regression), else by a few steps
of Newton on Q. Either way Q does not fall, so the log-likelihood does not (Jensen), and that is all that EM
promises: it converges linearly, and slowly where components overlap. Hence

1. SQUAREM. From θ_0 two steps of EM give r = θ_1 − θ_0 and v = (θ_2 − θ_1) − r, and the next θ is θ_0 − 2αr +
α²v with α = −‖r‖/‖v‖. Where ℓ is
   lower there than at θ_2, α is halved towards −1, which is θ_2 itself: ℓ never falls.
2. Newton, on the log-likelihood itself, once a cycle gains less than `hand_over` nats. It converges
quadratically, and its decrement is the
   certificate. Its trust region never lets ℓ fall either.

A mixture has many maxima, and the run is made from several first guesses; the highest maximum is the answer,
which is certified as a local one, and the others are told. Where a component's density can concentrate on few
rows without bound (a normal's variance → 0) the likelihood has no maximum at all, only local ones: a run that
runs there is left, and told. What is then estimated is the highest local maximum in the interior, which is
consistent.

References
----------
Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm; Varadhan and
Roland (2008), Simple and globally convergent methods for accelerating the convergence of any EM algorithm
(scheme S3); Kiefer (1978), Discrete parameter variation: efficient estimation of a switching regression model
(consistency of the interior root).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..data.source import Tensors
from ..errors import BadArgument
from ..likelihood import LogLikelihood, Objective
from ..likelihood.restricted import Restricted
from ..models.base import family_of
from ..models.information import Factor
from ..models.mixture import Mixture, Recounted
from ..models.partition import partition
from ..models.regression import _some_rows
from ..types import fields_of
from .certificate import Certificate
from .complete_data import Complete, Point, agreed, expect, formula, limits, seen, singular
from .loop import iterate
from .maxima import Maximum, distinct, leads_to, needless, starts_of, told_of
from .newton import EPS, Newton

# standard errors: how far Newton's first step may go from where EM stands, so that it stays in its valley
NEAR = 3.0
ROUTES = 3  # maxima of a subsample from which all rows are used


@dataclass(frozen=True)
class State:
    """The run under way, and where those before it ended."""

    starts: tuple[Tensor, ...]
    limits: Tensor  # (K,) a log density beyond which a component counts as collapsed
    point: Point | None = None
    found: tuple[Maximum, ...] = ()
    tried: int = 0  # guesses on a subsample, whose highest maxima are the starts
    gain: float = math.inf
    hand_over: float = 0.0
    step: int = 0
    passes: int = 0
    trace: tuple[tuple[int, float, float], ...] = ()

    @property
    def best(self) -> Maximum | None:
        """The highest maximum found so far; of runs that came to none, the highest."""
        return max(self.found, key=lambda m: (not m.trouble, m.value), default=None)

    @property
    def theta(self) -> Tensor:
        return self.best.theta if self.best is not None else self.starts[0]

    @property
    def factor(self) -> Factor | None:
        return None if self.best is None or self.best.newton is None else self.best.newton.factor

    @property
    def scale(self) -> Tensor:
        """What is known of each coordinate if the components are seen: where θ̂ knows a thousandth of it,
        it is diagnosed."""
        own = None if self.best is None else self.best.scale
        return torch.ones_like(self.theta) if own is None else own


@dataclass(frozen=True, kw_only=True)
class EM:
    """Settings.

    Parameters
    ----------
    starts
        first guesses (one, where a model has one component)
    seed
        of the guesses; same seed, same numbers
    accelerate
        SQUAREM; False: plain EM
    hand_over
        nats; once a cycle of EM gains less, Newton takes over
    cycles
        of EM at most, for one run
    inner
        steps of Newton on Q, for components without a formula; one is enough for EM's own rate (Lange 1995, A
        gradient algorithm locally equivalent to the EM algorithm)
    tolerance
        Newton's λ at which to stop, in standard errors
    thin_above
        rows above which the guesses are tried on a subsample, and all rows used from its highest maxima
    begin
        a θ from which to start, instead of guesses

    Examples
    --------
    >>> EM(starts=5).seed
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
    smooth: ClassVar[bool] = True  # goes by curvature alone

    def __post_init__(self) -> None:
        for name in ("starts", "cycles", "inner"):
            if (value := fields_of(self)[name]) < 1:
                raise BadArgument(f"{name}={value}. Accepted: 1 or more.")
        if not (self.hand_over > 0 and self.tolerance > 0):
            raise BadArgument(f"hand_over={self.hand_over}, tolerance={self.tolerance}: both are positive.")

    # ---- start ---------------------------------------------------------------------------------------------

    def start(self, objective: Objective) -> State:
        model = _mixture(objective)
        guesses = [self.begin] if self.begin is not None else []
        tried = 0
        if not guesses and (objective.rows or 0) > self.thin_above and model.k > 1:
            guesses = self._routes(objective, model)
            tried = self.starts if guesses else 0
        guesses = guesses or self._guesses(objective, model)
        return State(tuple(agreed(theta) for theta in guesses), limits(objective, model), tried=tried)

    def _guesses(self, objective: Objective, model: Mixture) -> list[Tensor]:
        """θ of each first guess."""
        source = objective.terms[0].source
        batches, out = list(source.batches(model)), []
        for i in range(self.starts if model.k > 1 else 1):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + i)
            out.append(model.begin(source, partition(model, batches, generator)))
        return out

    def _routes(self, objective: Objective, model: Mixture) -> list[Tensor]:
        """The highest maxima of a subsample: where to start on many rows."""
        term = objective.terms[0]
        some = _some_rows(term.source, self.thin_above // 2)
        thinned = Objective(
            [LogLikelihood(model, Tensors(some, target=model.target, copy=False), term.weights)],
            objective.priors,
        )
        found = iterate(replace(self, thin_above=10**18, hand_over=0.1, tolerance=1e-2), thinned).found
        return [m.theta for m, _ in distinct([m for m in found if not m.trouble])[:ROUTES]]

    # ---- step ----------------------------------------------------------------------------------------------

    def step(self, objective: Objective, state: State) -> State:
        """A cycle of EM; or, where the run has become slow, Newton to its end."""
        if state.point is None:
            point = expect(objective, state.starts[len(state.found)], state.limits)
            fresh = replace(state, point=point, gain=math.inf, step=0, trace=(), hand_over=self.hand_over)
            return self._told(fresh, point, 1)
        before = state.point
        if before.trouble or state.gain < state.hand_over or state.step >= self.cycles:
            return self._polished(objective, state)
        point, passes = self.cycle(objective, before, state.limits)
        return self._told(
            replace(state, point=point, gain=point.value - before.value, step=state.step + 1), point, passes
        )

    def _told(self, state: State, point: Point, passes: int) -> State:
        return replace(
            state, passes=state.passes + passes, trace=(*state.trace, (state.step, point.value, math.inf))
        )

    def cycle(self, objective: Objective, start: Point, limits: Tensor) -> tuple[Point, int]:
        """Two steps of EM, and the leap that they suggest. Returns the point, and how many passes over the
        data it took."""
        one = self.advance(objective, start, limits)
        if one.trouble or not self.accelerate:
            return one, 2
        two = self.advance(objective, one, limits)
        r = one.theta - start.theta
        v = two.theta - one.theta - r
        if two.trouble or not float(v.norm()) > EPS * float(r.norm()):
            return two, 4
        alpha, passes = -float(r.norm() / v.norm()), 4
        for _ in range(5):
            if alpha > -1 - 1e-2:
                break
            leap = expect(objective, start.theta - 2 * alpha * r + alpha**2 * v, limits)
            passes += 1
            if not leap.trouble and leap.value < two.value:
                leap, passes = (
                    self.advance(objective, leap, limits),
                    passes + 2,
                )  # a step of EM may mend a leap that went too far
            if leap.value >= two.value and not leap.trouble:
                return leap, passes
            alpha = (alpha - 1) / 2
        return two, passes

    def advance(self, objective: Objective, point: Point, limits: Tensor) -> Point:
        """One step of EM: M at the point's responsibilities, and E at the θ that comes of it. ℓ does not
        fall."""
        theta = self.maximised(objective, point)
        if not bool(torch.isfinite(theta).all()):
            return replace(point, trouble=singular(objective.model, theta, point.n))
        return expect(objective, theta, limits)

    def maximised(self, objective: Objective, point: Point) -> Tensor:
        """argmax Q, or a θ where Q is higher: component by component where they have formulas. Not finite
        where Q has no maximum."""
        model, theta = objective.model, point.theta.clone()
        free = torch.ones(len(theta), dtype=torch.bool)
        if not objective.priors:
            theta[: model.k - 1] = torch.log(point.n[1:] / point.n[0])
            free[: model.k - 1] = False
            for k, (component, place) in enumerate(zip(model.components, model.places, strict=True)):
                found = formula(component, Recounted(objective.terms[0].source, point.times_weight(k)))
                if found is not None:
                    theta[place], free[place] = found, False
        if bool(torch.isfinite(theta).all()) and bool(free.any()):
            Q = Restricted(Complete(objective, point), theta, free)  # type: ignore[arg-type]
            newton = Newton(
                steps=self.inner,
                tolerance=1e-8,
                begin=point.theta[free],
                thin_above=10**18,
                keep_above=10**18,
            )
            theta = Q.lift(iterate(newton, Q).theta)
        return theta

    def _polished(self, objective: Objective, state: State) -> State:
        """Newton on ℓ from where EM stands; the next run begins. Where ℓ is not yet concave EM goes on
        instead, as long as it may."""
        point = state.point
        assert point is not None
        if point.trouble:
            return self._ended(
                state,
                Maximum(point.theta, point.value, _collapse(objective), None, state.trace, point.trouble),
            )
        theta = objective.model.canonical(point.theta)
        known = next((m for m in state.found if leads_to(theta, point.value, m)), None)
        if known is not None:
            return self._ended(state, known)
        newton = Newton(tolerance=self.tolerance, steps=60, begin=theta, thin_above=10**18)
        polished = replace(newton.start(objective), radius=NEAR)
        if polished.factor is None and state.step < self.cycles and state.hand_over > 1e-6:
            return replace(state, hand_over=0.1 * state.hand_over, gain=math.inf, passes=state.passes + 1)
        last = point
        while not newton.done(objective, polished) and not last.trouble:
            polished = newton.step(objective, polished)
            last = expect(objective, polished.theta, state.limits)
            known = next((m for m in state.found if leads_to(polished.theta, polished.value, m)), None)
            if known is not None:
                return self._ended(replace(state, passes=state.passes + 2 * polished.passes), known)
        ordered = objective.model.canonical(polished.theta)
        if not torch.equal(ordered, polished.theta):  # the last steps have brought one component past another
            polished = replace(iterate(replace(newton, begin=ordered), objective), trace=polished.trace)
        certificate = newton.certificate(objective, polished) if not last.trouble else _collapse(objective)
        tail = tuple((state.step + i, value, decrement) for i, value, decrement in polished.trace)
        scale = torch.maximum(
            seen(objective, point),
            seen(objective, expect(objective, state.starts[len(state.found)], state.limits)),
        )
        end = Maximum(
            polished.theta, polished.value, certificate, polished, (*state.trace, *tail), last.trouble, scale
        )
        return self._ended(replace(state, passes=state.passes + 2 * polished.passes), end)

    def _ended(self, state: State, end: Maximum) -> State:
        after = replace(state, point=None, found=(*state.found, end))
        assert after.best is not None
        return replace(after, trace=after.best.trace)

    # ---- done ----------------------------------------------------------------------------------------------

    def done(self, objective: Objective, state: State) -> bool:
        return len(state.found) >= len(state.starts)

    def certificate(self, objective: Objective, state: State) -> Certificate:
        """Newton's, of the highest maximum; and what became of the other runs."""
        best = state.best
        assert best is not None
        steps = max((line[0] for line in best.trace), default=0)
        if best.trouble:
            detail = (
                f"the likelihood has no maximum that could be found: each of {starts_of(state.found)} ran "
                f"into a singularity. {best.trouble} Fewer "
                "components, another family, or a prior on the scales (prior=th.priors.Normal(1.0, "
                "location=…, on='*scale*')) prevent it."
            )
            return replace(best.certificate, detail=detail, steps=steps, passes=state.passes)
        told, spare = told_of(state.found, state.tried), needless(objective, best)
        if spare:
            return Certificate(
                status="flat direction",
                size=objective.size,
                directions=(dict.fromkeys(spare[0], 1.0),),
                detail=f"the data do not ask for {objective.model.k} components: {spare[1]} A mixture of fewer is as probable. {told}",
                steps=steps,
                passes=state.passes,
            )
        detail = " ".join(part for part in (best.certificate.detail, told) if part)
        return replace(best.certificate, detail=detail, steps=steps, passes=state.passes)


def _mixture(objective: Objective) -> Mixture:
    """The mixture that is to be fitted, or the reason why EM does not do it."""
    model = objective.model if len(objective.terms) == 1 else None
    if not isinstance(model, Mixture):
        raise BadArgument(
            "EM fits one mixture to one source of data. Solvers of other models: th.Newton(), th.LBFGS(), "
            "th.Stochastic()."
        )
    for k, component in enumerate(model.components):
        family = family_of(component)
        if family is not None and not family.smooth:
            raise BadArgument(
                f"component {k} is {family}, whose log p has kinks, at which no decrement can certify a "
                "maximum. Take a smooth family: "
                "student_t, logistic, huber."
            )
    return model


def _collapse(objective: Objective) -> Certificate:
    return Certificate(status="no maximum", size=objective.size)
