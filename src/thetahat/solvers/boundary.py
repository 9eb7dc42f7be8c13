"""Parameters at the end of their range, where the family becomes a simpler one: Poisson where a dispersion is
0.

A constant that the data push there is held there and leaves θ, and the others are fitted again. That is a
maximum of the simpler model; a higher one with the parameter inside its range is looked for besides, and
excluded only where log p is concave.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..families.base import Parameter
from ..families.links import Identity
from ..likelihood import LogPrior, Objective
from ..models.regression import Predictor, Regression
from ..protocols import HasScale, HoldsConstants, Steers
from ..types import SolverLike, StateLike
from . import interior_point
from .interior_point import InteriorPoint
from .loop import iterate
from .newton import Newton, State
from .proximal import Proximal

FAR = 23.0  # a linear predictor at which a log link is e⁻²³ = 10⁻¹⁰ from its boundary
GAINED = 1e-6  # nats by which a point inside has to be better than the boundary
STEP = 1e-5  # from the boundary, where its one-sided slope is taken
ROWS = 20_000  # beyond so many, one point inside is tried and not three


@dataclass(frozen=True)
class Reduced:
    """The objective with some constants held at their boundaries, the solver's state at the maximum of the
    others, and what the model is there."""

    objective: Objective
    solver: Newton | Proximal | InteriorPoint
    state: StateLike
    found: dict[str, str] = field(default_factory=dict)


def reduced(objective: Objective, state: StateLike) -> Reduced | None:
    """Every constant that the data push to its boundary held there, or None where there is none."""
    found: dict[str, str] = {}
    if not isinstance(objective.model, HoldsConstants) or len(objective.terms) != 1:
        return None
    kept = torch.arange(objective.size)  # the coordinates that are left, as they were counted
    for p in list(objective.model.constant_predictors):
        model, term = objective.model, objective.terms[0]
        j = _place(model, p)
        eta = pushed(objective, p, j)
        if eta is None:
            continue
        held = model.holding(p.parameter, float(p.spec.link.inverse(eta)))
        objective = Objective(
            [term.over(term.source, held)], [LogPrior(each.prior, held) for each in objective.priors]
        )
        kept = torch.cat([kept[:j], kept[j + 1 :]])
        found[p.parameter] = simpler(p.parameter, p.spec)
    if not found:
        return None
    solver: SolverLike
    if isinstance(objective.model, Steers):  # whose rows are not independent: none of them are left out
        solver = Newton(thin_above=10**18, float32_above=10**18)
    elif objective.kinked:
        solver = Proximal()
    else:
        solver = InteriorPoint() if interior_point.applies(objective) else Newton()
    end = iterate(solver, objective)
    scale = state.scale if isinstance(state, HasScale) else None
    if scale is not None and isinstance(end, State):  # what was seen of the information before counts on
        end = replace(end, scale=torch.maximum(end.scale, scale[kept]))
    return Reduced(objective.at(end.theta), solver, end, found)


def _place(model: HoldsConstants, p: Predictor) -> int:
    return next(q.start for q in model.constant_predictors if q.parameter == p.parameter)


def simpler(name: str, spec: Parameter) -> str:
    """What the family is at that parameter's boundary."""
    return spec.limit or f"that of {name} → {spec.boundary:g}"


def pushed(objective: Objective, p: Predictor, j: int) -> Tensor | None:
    """η at the boundary of a constant, the j-th coordinate, where the objective is as high there as at θ̂ and θ̂ is near it
    already."""
    edge = p.spec.boundary
    if edge is None or not p.design.constant:
        return None
    theta = objective.theta
    if any(bool((each.prior.coordinates(each.model) == j).any()) for each in objective.priors):
        return None  # its prior is 0 there
    value = float(p.spec.link.inverse(theta[j]))
    if (math.isfinite(edge) and abs(value - edge) > 1e-3) or (not math.isfinite(edge) and abs(value) < 1e4):
        return None
    far = theta.clone()
    if isinstance(p.spec.link, Identity):  # which comes to an infinite edge by itself, on either side
        far[j] = math.copysign(max(abs(value), 1e10), value)
    else:
        far[j] = FAR if edge > value else -FAR
    return far[j] if objective.value(far) >= objective.value() - GAINED else None


def slope(objective: Objective, parameter: str) -> tuple[float, Objective]:
    """∂ℓ/∂u of a constant that is held at its boundary, where it leaves it, and the objective in which it is free there.

    u is its distance from the boundary, of an infinite one 1/|value|; the slope is taken at u = STEP.
    """
    model, term = objective.model, objective.terms[0]
    spec = model.family.parameters[parameter]
    edge: float = spec.boundary
    low = edge <= spec.range.low
    value = (edge + STEP if low else edge - STEP) if math.isfinite(edge) else 1 / STEP
    if not math.isfinite(edge):
        value = math.copysign(value, model.fixed[parameter])
    eta = spec.link(torch.tensor(value, dtype=torch.float64))
    free = model.freeing(parameter, float(eta))
    full = Objective(
        [term.over(term.source, free)], [LogPrior(each.prior, free) for each in objective.priors]
    )
    j = next(p.start for p in free.constant_predictors if p.parameter == parameter)

    def away(eta: Tensor) -> Tensor:
        now = spec.link.inverse(eta)
        out: Tensor = (now - edge).abs() if math.isfinite(edge) else 1 / now.abs()
        return out

    du = float(torch.autograd.functional.jacobian(away, eta))
    return float(full.taylor(order=1).gradient[j]) / du, full


def inside(objective: Objective, at: Reduced) -> Newton | None:
    """The solver from a point inside the range that leads higher than the boundary, or None.

    Parameters
    ----------
    objective
        that in which every parameter is free
    """
    if (
        at.objective.concave
        or objective.kinked
        or interior_point.applies(objective)
        or objective.terms[0].robust is not None
    ):
        return None  # a robust fit has been begun at several points already
    boundary = at.objective.value()
    few = (objective.rows or 0) > ROWS
    best: tuple[float, Tensor] | None = None
    for theta in list(_points(objective, at))[: 1 if few else None]:
        state = iterate(Newton(begin=theta, steps=100), objective)
        higher = math.isfinite(state.value) and state.value > max(
            boundary + GAINED, -math.inf if best is None else best[0]
        )
        if higher and bool(torch.isfinite(state.theta).all()):
            best = (state.value, state.theta)
    return None if best is None else Newton(begin=best[1])


def _points(objective: Objective, at: Reduced) -> Iterator[Tensor]:
    """The others where they are at the boundary, and the held ones inside: where a fit would start, and to
    either side."""
    model: Regression = objective.model
    start, theta = model.start(objective.terms[0].source), objective.theta.clone()
    own = torch.tensor(
        [_place(model, p) for p in model.constant_predictors if p.parameter in at.found], dtype=torch.long
    )
    others = torch.ones(len(theta), dtype=torch.bool)
    others[own] = False
    theta[others] = at.state.theta
    for shift in (0.0, 2.0, -2.0):
        theta = theta.clone()
        theta[own] = start[own] + shift
        yield theta
    yield start
