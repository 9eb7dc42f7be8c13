"""What an answer is worth, beyond what the solver saw: flat directions, boundaries, separation, other
recession directions.

Looked for only where something is odd: the information is singular, the solver could not certify, or some
coefficient's standard error has grown a thousandfold along the iterations (1/√J against the largest J_jj
met), as it does along every direction in which the likelihood flattens for ever. A maximum with a
well-conditioned information is a maximum, and needs no such search.

The questions come in the order of what is proven: what the model itself can prove; a perfect fit; parameters
at their boundary, where the same is asked of those that are left; separation and flat directions, which hold
whatever θ; a higher point near by; and, only from a point at which the iterations converged, a direction
along which the likelihood was never seen to fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.batch import Batch
from ..families.links import Identity
from ..likelihood import Objective
from ..likelihood.total import folded
from ..models.base import natural_of
from ..models.custom import Custom, Interval, Positive
from ..models.information import Factor
from ..models.regression import Regression
from ..protocols import HasEnded, HasFactor, HasRecession, HasScale, HasStart, Partitioned, Steers, Together
from ..types import ModelLike, SolverLike, StateLike
from . import interior_point, limits, proximal
from .boundary import inside, reduced
from .certificate import Certificate, direction_text
from .failure import cause
from .flat import flat_certificate, flat_directions, named, weak_directions
from .interior_point import State as Interior
from .lbfgs import State as LBFGSState
from .loop import iterate
from .newton import Newton
from .recession import never_falls, perfect, perhaps, separated, unbounded
from .stochastic import Stochastic

SUSPICIOUS = 1e3  # growth of a standard error along the iterations at which reasons are looked for
LOST = 1e6  # and at which nothing is certified, even if none is found
LARGE = 5000  # coordinates beyond which no directions are searched but those of whole levels of a category
SMALL = 200  # coordinates beyond which no higher point is sought
ATTEMPTS = 3  # at a higher point
VAGUE = 30.0  # on a link's scale: a standard error beside which no estimate is one
DISTANT = 15.0  # and a difference of linear predictors, e¹⁵ in odds, at which reasons are looked for
BEYOND = "The log-likelihood or an estimate is beyond float64."
HIGHER = 1e-6  # nats by which it has to be higher


@dataclass(frozen=True)
class Point:
    """Where the iterations ended: the objective there, the solver's last state, and what is known of it."""

    objective: Objective
    state: StateLike
    certificate: Certificate

    @property
    def converged(self) -> bool:
        """Whether the gradient vanishes: what is seen elsewhere is no more than a slope."""
        return self.certificate.ok or self.certificate.status == "stationary point"

    def judged(self, certificate: Certificate) -> Point:
        """The same point with another certificate."""
        return replace(self, certificate=certificate)


def diagnose(objective: Objective, solver: SolverLike, state: StateLike) -> Point:
    """The objective at θ̂, and the solver's certificate, or the reason why there is no maximum to certify.

    Where the data push a parameter to its boundary, it is held there and the objective is that of the others.
    Where a higher point is found near by, the state is that of the iterations from there.
    """
    certificate = solver.certificate(objective, state)
    ended = (
        state.ended if isinstance(state, HasEnded) else None
    )  # of a solver whose objective is not the one that it was given
    point = Point(objective.at(state.theta) if ended is None else ended, state, certificate)
    if certificate.status == "stochastic" or isinstance(solver, Stochastic):
        kinked = (
            "A prior's kink was met by its subgradient: no coefficient is exactly zero."
            if objective.kinked
            else ""
        )
        return point.judged(replace(certificate, detail=f"{certificate.detail} {kinked}".strip()))
    value = state.trace[-1][1] if state.trace else point.objective.value()  # the last step's: not a pass more
    if certificate.ok and not _finite(point.objective, value):
        point = point.judged(replace(certificate, status="not converged", detail=BEYOND))
    begin = state.trace[0][1] if state.trace else 0.0
    if not certificate.ok and not math.isfinite(begin):
        proven = _proven(point) if isinstance(point.objective.model, Steers) else None
        if proven is not None:  # a restricted likelihood, which integrates β out, is then nowhere finite
            return proven
        return point.judged(
            replace(certificate, status="not converged", detail=_impossible(point.objective, begin))
        )
    end = _examined(point)
    end = end.judged(limits.named(end.objective, end.certificate))
    if end.certificate.status == "boundary" and not _finite(end.objective, end.objective.value()):
        end = end.judged(replace(end.certificate, status="not converged", detail=BEYOND))
    model = end.objective.model
    extreme = (
        "" if end.certificate.ok or not isinstance(model, Regression) else _magnitudes(model, end.objective)
    )
    return end.judged(replace(end.certificate, status="not converged", detail=extreme)) if extreme else end


def _proven(point: Point) -> Point | None:
    """The point, judged by the proof that its model has of there being no maximum; None: it has none."""
    objective, certificate = point.objective, point.certificate
    own = None if objective.priors or len(objective.terms) != 1 else objective.model
    proven = _recession(own, point)
    if proven is not None or not isinstance(objective.model, Steers):
        return None if proven is None else point.judged(proven)
    lost = _fixed_separated(point)
    if lost is None and not certificate.ok:
        from .variance_boundary import collinear  # brings scipy

        lost = collinear(objective, certificate)
    return None if lost is None else point.judged(lost)


def _examined(point: Point) -> Point:
    proven = _proven(point)
    if proven is not None:
        return proven
    if isinstance(point.objective.model, Steers):
        from .variance_boundary import at_boundary  # brings scipy

        return Point(*at_boundary(point.objective, point.state, point.certificate))
    return _bounded(point, ATTEMPTS)


def _recession(model: ModelLike, point: Point) -> Certificate | None:
    """What the model itself can prove."""
    known = model.recession(point.objective.terms[0].source) if isinstance(model, HasRecession) else None
    if known is None:
        return None
    status, direction, detail = known
    lost = replace(point.certificate, status=status, directions=(direction,), detail=detail, concave=False)
    return replace(lost, nats=None, standard_errors=None)


def _fixed_separated(point: Point) -> Certificate | None:
    """Of a mixed model: a direction of its fixed effects along which rows become ever more probable. It is one of the
    regression without random effects, and at any of them the same; so the integral rises along it too."""
    from ..models.mixed import Mixed  # brings scipy

    objective, certificate, model = point.objective, point.certificate, point.objective.model
    if not isinstance(model, Mixed) or len(objective.terms) != 1:
        return None
    restricted = model.reml and bool(objective.priors)  # their priors do not steer the integral over them
    error, reach = _size_of_fixed(point)
    seen = _growth(objective, point.state) >= SUSPICIOUS or error >= VAGUE or reach >= DISTANT
    if certificate.ok and not seen and not restricted:
        return None
    if isinstance(model.regression, HasRecession):
        lost = _recession(model.regression, point) if restricted or not objective.priors else None
    else:
        held = torch.zeros(objective.size, dtype=torch.bool)
        for prior in objective.priors:
            held[prior.prior.coordinates(prior.model)] = True
        if restricted:
            for p in model.integrated:
                held[p.start : p.start + p.size] = False
        lost = separated(model.regression, objective, certificate, held[: len(model.coefficients)])
    return None if lost is None else _not_integrable(lost) if restricted else lost


def _not_integrable(lost: Certificate) -> Certificate:
    """Of a restricted likelihood with a prior: the integral over the fixed effects diverges, whatever prior they have beside it."""
    parts = lost.directions[0]
    return replace(
        lost,
        detail="the restricted likelihood is not finite: reml=True integrates the fixed effects out under a flat prior, whichever "
        f"prior= they have, and the likelihood never falls along {direction_text(parts)}. Fit by maximum likelihood with that prior "
        f"(reml=False, without --reml), or leave out {', '.join(n for n in parts if n != 'Intercept')}.",
    )


def _size_of_fixed(point: Point) -> tuple[float, float]:
    """Of links other than the identity, over the fixed effects: the largest standard error times its column's size (what the
    start saw already is no growth), and the largest change of a linear predictor from one end of a column to the other (far out,
    an information by differences is noise, and no error is large)."""
    from ..models.mixed import predictor_columns

    model, state = point.objective.model, point.state
    factor = state.factor if isinstance(state, HasFactor) else None
    known = isinstance(factor, Factor) and factor.information.size == point.objective.size
    batch = next(iter(point.objective.terms[0].source.batches(model)))
    errors = factor.inverse_diagonal().clamp(min=0).sqrt() if known and isinstance(factor, Factor) else None
    beta, largest, reach = model.coefficients.detach(), 0.0, 0.0
    for p in model.regression.predictors:
        curved = isinstance(model.family, Together) or not isinstance(p.spec.link, Identity)
        if p.size and curved:
            columns, own = torch.from_numpy(predictor_columns(p, batch)), slice(p.start, p.start + p.size)
            across = columns.amax(0) - columns.amin(0)
            reach = max(reach, float((beta[own].abs() * across).max()))
            if errors is not None:
                size = (columns**2).mean(0).sqrt()
                largest = max(largest, float((errors[own] * size).max()))
    return largest, reach


def _bounded(point: Point, attempts: int) -> Point:
    """A perfect fit, or parameters at their boundary; then what is found of those that are left."""
    certificate = point.certificate
    known = certificate.ok or certificate.status == "no maximum" or stays(point.objective)
    rows = None if known else perfect(point.objective)
    if rows:
        lost = replace(certificate, status="no maximum", rows=rows[0], detail=rows[1], concave=False)
        return point.judged(replace(lost, nats=None, standard_errors=None))
    at = reduced(point.objective, point.state)
    if at is None:
        return _searched(point, attempts)
    left = _searched(Point(at.objective, at.state, at.solver.certificate(at.objective, at.state)), attempts)
    if not left.certificate.ok:
        return left
    solver = inside(point.objective, at) if attempts else None
    if solver is not None:
        return _bounded(_again(point.objective, solver), attempts - 1)
    return left.judged(replace(left.certificate, status="boundary", boundary=at.found))


def _again(objective: Objective, solver: Newton) -> Point:
    """Newton's method from a higher point."""
    state = iterate(solver, objective)
    return Point(objective.at(state.theta), state, solver.certificate(objective, state))


def _searched(point: Point, attempts: int) -> Point:
    """Separation, flat directions, a higher point near by, a direction along which the likelihood never
    falls; else the point as it is."""
    objective, certificate, model = point.objective, point.certificate, point.objective.model
    growth = _growth(objective, point.state)
    lost = growth >= LOST or _spread(objective, point.state) >= LOST
    if certificate.ok and growth < SUSPICIOUS and not lost:
        return point
    if certificate.status == "no maximum" or certificate.directions or len(objective.terms) != 1:
        return point
    held = torch.zeros(
        objective.size, dtype=torch.bool
    )  # by a prior, which falls for ever in every direction
    for prior in objective.priors:
        held[prior.prior.coordinates(prior.model)] = True
    if objective.size > LARGE:
        searched = isinstance(model, Regression) and not stays(objective)
        apart = separated(model, objective, certificate, held, levels=True) if searched else None
        return point if apart is None else point.judged(apart)
    information = objective.taylor(order=2).information
    assert information is not None
    weak, scale = weak_directions(information)
    free = weak[:, (weak[held].abs() < 1e-9).all(0)]
    proven = isinstance(model, Regression)
    flat = flat_directions(objective, model, free, scale) if proven or point.converged else []
    found = separated(model, objective, certificate, held) if proven and not stays(objective) else None
    if found and flat:
        return point.judged(
            replace(found, detail=f"{found.detail} Besides, {flat_certificate(flat, certificate).detail}")
        )
    if found:
        return point.judged(found)
    if flat:
        return point.judged(flat_certificate(flat, certificate))
    higher = (
        _higher(objective, weak[:, 0] / scale) if point.converged and attempts and weak.shape[1] else None
    )
    if higher is not None:
        return _bounded(_again(objective, Newton(begin=higher)), attempts - 1)
    seen = never_falls(objective, free / scale[:, None], held)
    if seen:
        return point.judged((unbounded if point.converged else perhaps)(*seen, certificate))
    return point.judged(_unsure(point, weak / scale[:, None], lost))


def stays(objective: Objective) -> bool:
    """Whether rows stay in an engine: what takes all of them at once is not asked there."""
    return any(isinstance(term.source, Partitioned) for term in objective.terms)


def _unsure(point: Point, vectors: Tensor, lost: bool) -> Certificate:
    """Where no reason was found: not certified if a standard error is not a number that could be one."""
    certificate, model = point.certificate, point.objective.model
    near = direction_text(named(model, vectors[:, 0])) if vectors.shape[1] else ""
    if certificate.ok and lost:
        detail = (
            f"the likelihood is so flat along {near} that float64 cannot tell a maximum from a plateau: "
            "standard errors there are beyond all "
            "bounds. Hold a parameter that takes part in it (name=value), choose a simpler model, or put a "
            "prior on it "
            "(prior=th.priors.Normal(2.5), --prior normal:2.5)."
        )
        return replace(
            certificate, status="not converged", detail=detail, concave=False, nats=None, standard_errors=None
        )
    if (
        isinstance(model, Regression)
        and near
        and isinstance(point.state, HasFactor)
        and point.state.factor is None
    ):
        near = f"The columns are nearly collinear along {near}: centre them, or drop one."
        return replace(certificate, detail=f"{certificate.detail} {near}".strip())
    return certificate


def _growth(objective: Objective, state: StateLike) -> float:
    """How much the standard error of some coefficient has grown since the information was largest: along the
    iterations, or since the start."""
    if isinstance(state, LBFGSState):
        return _since_start(objective)
    if isinstance(state, proximal.State):
        return _largest(proximal.growth(objective, state))
    scale = state.scale if isinstance(state, HasScale) else None
    if scale is None or (isinstance(state, Interior) and len(state.held)):
        # a solver without information to grow suspicious about, or rows at the edge of their range, whose
        # information is infinite
        return 0.0
    if state.factor is None:
        return math.inf
    if isinstance(state.factor, Factor):  # a bound is made in a tenth of the time, and mostly says enough
        most = _largest(state.factor.inverse_diagonal_bound() * scale**2)
        if most < SUSPICIOUS:
            return most
    return _largest(state.factor.inverse_diagonal().clamp(min=0) * scale**2)


def _spread(objective: Objective, state: StateLike) -> float:
    """The largest standard error of a linear predictor on the scale of a link other than the identity, where
    1 is much, whatever the units.

    A positive definite information says nothing of it: one interval, (1, 10], of a Weibull has the standard
    error 10⁴⁸ of its log shape.
    """
    factor, model = state.factor if isinstance(state, HasFactor) else None, objective.model
    if factor is None or not isinstance(factor, Factor) or factor.information.size != objective.size:
        return 0.0  # no factor of all coordinates
    if not isinstance(model, Regression):
        bounded = (
            model.constraints.values() if isinstance(model, Custom) else ()
        )  # of a likelihood of one's own: logarithms and logits
        at = torch.cat(
            [torch.full(c.start().shape, type(c) in (Positive, Interval)).reshape(-1) for c in bounded]
            or [torch.zeros(0)]
        )
        own = factor.inverse_diagonal()[at.bool()] if len(at) == objective.size else torch.zeros(0)
        return _largest(own)
    batch = next(iter(objective.terms[0].source.batches(model)))
    some = batch[:: max(1, len(batch) // 50)]
    out = 0.0
    for p in model.predictors:
        if not isinstance(p.spec.link, Identity):
            X = torch.zeros(objective.size, len(some), dtype=torch.float64)
            X[p.narrow] = p.rows(some[:1] if p.design.constant else some, torch.float64)
            out = max(out, _largest(factor.forms(X)))
    return out


def _largest(variance: Tensor) -> float:
    found = float(variance.clamp(min=0).sqrt().max()) if len(variance) else 0.0
    return found if math.isfinite(found) else math.inf


def _since_start(objective: Objective) -> float:
    model = objective.model
    if not isinstance(model, HasStart) or objective.size > LARGE // 10 or len(objective.terms) != 1:
        return 0.0
    first, last = (
        objective.taylor(theta, order=2).information
        for theta in (model.start(objective.terms[0].source), objective.theta)
    )
    assert first is not None
    assert last is not None
    factor = last.factor()
    if factor is None:
        return math.inf
    return _largest(factor.inverse_diagonal().clamp(min=0) * torch.maximum(first.diagonal(), last.diagonal()))


def _higher(objective: Objective, weakest: Tensor) -> Tensor | None:
    """A higher point to either side of the weakest direction, or None.

    At a stationary point whose information says nothing of a direction the objective may rise by its third
    derivative, along a curve: the skew-normal has one at shape 0, whatever the data. Newton's method is begun
    beside it, and finds the curve.
    """
    if objective.size > SMALL or objective.kinked or interior_point.applies(objective):
        return None
    best, value = None, objective.value() + HIGHER
    unit = weakest / float(weakest.abs().max())
    for t in (1.0, -1.0, 3.0, -3.0):
        state = iterate(Newton(begin=objective.theta + t * unit, steps=200), objective)
        if math.isfinite(state.value) and state.value > value and bool(torch.isfinite(state.theta).all()):
            best, value = state.theta, state.value
    return best


def _finite(objective: Objective, value: float) -> bool:
    """Whether the log-likelihood and every estimate are finite numbers.

    Of random effects with a standard deviation of 0 the correlations are not defined: there θ has to be finite.
    """
    model = objective.model
    own = len(objective.terms) == 1 and not isinstance(model, Steers)
    natural = natural_of(model, objective.theta) if own else objective.theta
    return math.isfinite(value) and bool(torch.isfinite(natural).all())


def _impossible(objective: Objective, value: float) -> str:
    """Which row makes the log-likelihood infinite or NaN where the iterations began."""
    seen, found = 0, ""
    for batch in () if stays(objective) else objective.terms[0].source.batches(objective.model):
        with torch.no_grad():
            log_prob = objective.model.log_prob(batch).reshape(len(batch), -1).sum(-1)
        bad = torch.nonzero(~torch.isfinite(log_prob))
        if len(bad):
            found = f": row {seen + int(bad[0, 0])} has log p = {float(log_prob[bad[0, 0]]):g}"
            found += cause(objective.terms[0], batch, int(bad[0, 0]))
            break
        seen += len(batch)
    return f"the log-likelihood is {value:g} where the iterations begin{found}. Begin where every row is possible."


def _magnitudes(model: Regression, objective: Objective) -> str:
    """The columns whose squares float64 cannot hold, and what to do about them."""

    def of(batch: Batch) -> dict[str, float]:
        found = {model.encoder.response.expression: batch["y"]} if not model.family.support.integer else {}
        for p in model.predictors:
            dense = batch.tensors.get(f"x{p.slot}")
            names = p.design.names[int(p.design.intercept) :]
            found |= (
                {name: dense[:, j] for j, name in enumerate(names[: p.design.columns])}
                if dense is not None
                else {}
            )
        return {name: float(column.abs().max()) for name, column in found.items()}

    largest = folded(
        of, objective.terms[0].source, combine=lambda a, b: {name: max(v, b[name]) for name, v in a.items()}
    )
    extreme = [f"{name} ({size:.0e})" for name, size in largest.items() if size > 1e150 or 0 < size < 1e-150]
    return f"the squares of {', '.join(extreme)} are beyond float64: change the unit." if extreme else ""
