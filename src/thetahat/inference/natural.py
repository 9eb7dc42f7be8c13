"""θ and what is reported of it: the map from θ to the natural values, its derivative, and its inverse one
coordinate at a time.

    v = natural(θ),      G = ∂v/∂θ

An estimate is *elementwise* where v_i is a monotone function of one θ_j alone (a coefficient, a scale): its
intervals are found on θ_j, and mapped. The parts of a simplex or of an ordered vector are not.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import BadArgument
from ..families.base import Parameter
from ..families.links import Identity
from ..likelihood import Objective
from ..models.base import names_of, natural_of, place_of
from ..models.custom import Constraint, Custom
from ..models.density import Density
from ..models.hmm import HMM
from ..models.latent import LatentModel
from ..models.mixed import Mixed
from ..models.random_effects import RandomEffects
from ..models.regression import Regression
from ..models.tempered import Tempered
from ..protocols import HasComponents, HasElementwise, HasNatural
from ..types import ModelLike


def own_places(objective: Objective) -> Tensor:
    """Where the reported model's θ lies in the objective's (which may have further models)."""
    return objective.positions(objective.model)


def natural(objective: Objective, theta: Tensor) -> Tensor:
    """The natural values, (q,), float64, of a θ of the objective, (p,)."""
    return natural_of(objective.model, theta[own_places(objective)]).detach().to(torch.float64)


def jacobian(objective: Objective, theta: Tensor) -> Tensor:
    """G = ∂v/∂θ, (q, p)."""
    at = own_places(objective)
    out = torch.zeros(len(natural(objective, theta)), len(theta), dtype=torch.float64)
    if elementwise(objective.model):
        out[torch.arange(len(at)), at] = slopes(objective, theta)
    else:
        own = torch.autograd.functional.jacobian(lambda t: natural_of(objective.model, t), theta[at])
        out[:, at] = own.to(torch.float64)
    return out


def slopes(objective: Objective, theta: Tensor) -> Tensor:
    """dv_j/dθ_j, (q,), of an elementwise model: the derivative of Σ v, and never a p × p matrix."""
    with torch.enable_grad():
        leaf = theta[own_places(objective)].clone().requires_grad_()
        return torch.autograd.grad(natural_of(objective.model, leaf).sum(), leaf)[0].to(torch.float64)


def elementwise(model: nn.Module) -> bool:
    """Whether every natural value is a function of one coordinate of θ, its own."""
    return model.elementwise if isinstance(model, HasElementwise) else not isinstance(model, HasNatural)


def coordinates(objective: Objective) -> list[int | None]:
    """For each estimate, the coordinate of the objective's θ of which alone it is a function; None where
    there is none."""
    own = own_places(objective).tolist()
    return [None if j is None else own[j] for j in _coordinates(objective.model)]


def _coordinates(model: ModelLike) -> list[int | None]:
    out: list[int | None] = []
    if isinstance(model, HasComponents):
        out += [None] * model.heads
        for component, place in zip(model.get_submodule("components"), model.places, strict=True):
            out += [None if j is None else place.start + j for j in _coordinates(component)]
        return out
    if isinstance(model, RandomEffects):
        own = (
            _coordinates(model.custom)
            if isinstance(model, LatentModel)
            else [*range(len(model.coefficients))]
        )
        return [*own, *[None] * (len(names_of(model)) - len(own))]
    if elementwise(model):
        return list(range(sum(p.numel() for p in model.parameters() if p.requires_grad)))
    if not isinstance(model, Custom):
        return [None] * len(names_of(model))
    at = 0
    for name, constraint in model.constraints.items():
        size = model.theta[name].numel()
        values = model.values()[name].numel()
        out += range(at, at + size) if constraint.elementwise else [None] * values
        at += size
    return out


def probabilities(objective: Objective) -> list[bool]:
    """For each estimate, whether it is a probability of a hidden Markov model's chain, whose intervals are made on the
    scale of its logit."""
    model = objective.model
    size = len(names_of(model))
    if not isinstance(model, HMM):
        return [False] * size
    own = model.heads - (model.chain.sizes[1] if model.chain.columns else 0)
    return [i < own for i in range(size)]


def linear(objective: Objective) -> list[bool]:
    """For each estimate, whether it is its coordinate of θ itself, rather than a function of it."""
    return _linear(objective.model)


def _linear(model: ModelLike) -> list[bool]:
    if isinstance(model, HasComponents):
        return [False] * model.heads + [
            each for component in model.get_submodule("components") for each in _linear(component)
        ]
    if isinstance(model, Regression):
        return [not c for c in model.constants]
    if isinstance(model, RandomEffects):
        own = (
            [not c for c in model.regression.constants] if isinstance(model, Mixed) else _linear(model.custom)
        )
        return own + [False] * (len(names_of(model)) - len(own))
    if isinstance(model, Custom):
        out: list[bool] = []
        for name, constraint in model.constraints.items():
            same = type(constraint).constrain is Constraint.constrain
            out += [same] * constraint.constrain(model.theta[name].detach()).numel()
        return out
    if isinstance(model, Density):
        return [isinstance(p.link, Identity) for p in model.family.parameters.values()]
    return [not isinstance(model, HasNatural)] * len(names_of(model))


def _innermost(model: ModelLike, index: int) -> tuple[ModelLike, int]:
    """The component that has an estimate of a model put together, and its index there; of another model, itself.
    (A weight is the mixture's own.)"""
    if not isinstance(model, HasComponents) or index < model.heads:
        return model, index
    index -= model.heads
    for component in model.get_submodule("components"):
        if index < len(names_of(component)):
            return _innermost(component, index)
        index -= len(names_of(component))
    raise IndexError(index)


def parameter(objective: Objective, index: int) -> Parameter | None:
    """The family's parameter of which an estimate is the natural value; None for coefficients and for
    models of one's own."""
    return _parameter(*_innermost(objective.model, index))


def _parameter(model: ModelLike, index: int) -> Parameter | None:
    if isinstance(model, Density):
        return list(model.family.parameters.values())[index]
    if isinstance(model, Mixed):
        return _parameter(model.regression, index) if index < len(model.coefficients) else None
    if isinstance(model, Regression) and model.constants[index]:
        return next(p.spec for p in model.predictors if p.start == index)
    return model.spec if isinstance(model, Tempered) else None


def unconstrained(objective: Objective, index: int, value: float) -> float:
    """The θ_j at which elementwise estimate `index` has this natural value; ±∞ at an end of its range.

    Raises
    ------
    BadArgument
        the value is outside the range
    """
    name, v = names_of(objective.model)[index], torch.tensor(float(value), dtype=torch.float64)
    model, index = _innermost(objective.model, index)
    model = model.custom if isinstance(model, LatentModel) else model
    eta, spec = v, _parameter(model, index)
    if isinstance(model, Custom):
        sizes = [c.constrain(model.theta[n].detach()).numel() for n, c in model.constraints.items()]
        at = next(k for k in range(len(sizes)) if index < sum(sizes[: k + 1]))
        eta = list(model.constraints.values())[at].unconstrain(v)
    elif spec is not None:
        eta = spec.link(v) if spec.range.low <= value <= spec.range.high else v * torch.nan
    if torch.isnan(eta):
        raise BadArgument(f"{value:g} is outside the range of {name}.")
    return float(eta)


def find(objective: Objective, names: str | Sequence[str] | None) -> list[int]:
    """The indices of estimates by name; None: all.

    Raises
    ------
    BadArgument
        no estimate has that name; the nearest is named
    """
    known = names_of(objective.model)
    if names is None:
        return list(range(len(known)))
    out = []
    for name in [names] if isinstance(names, str) else names:
        at = place_of(name, known)
        if at is None:
            raise unknown(name, known)
        out.append(at)
    return out


def unknown(name: str, known: Sequence[str], where: str = "") -> BadArgument:
    """The error for a name that no estimate has."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Nearest: {near[0]!r}." if near else ""
    shown = ", ".join(known[:12]) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
    return BadArgument(f"{where}no estimate is called {name!r}.{hint} Estimates: {shown}.")
