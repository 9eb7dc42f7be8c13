"""What a model is: a torch module whose θ is `parameters()` and that says log p(x | θ), one value a term.

A plain `nn.Module` with `log_prob(batch)` and `measure` is a model. What it may offer besides opens a faster
or a better-explained road, each on its own:

    taylor(batch, weight, order, precision)   value, gradient and information at once     → blocked Newton
    start(source)                             a θ from which to start
    names, natural(theta)                     what θ is called, and θ seen through its constraints
    concave                                   every stationary point is a global maximum
    recession(source)                         (status, direction, why) where it can prove that there is no one maximum; or None
    closed_form(source)                       the maximum itself
    draw(n, generator)                        n new observations, (n, …), of a model without predictors
    log_prob(batch, generator), K, tightened  a bound made of K draws (`bound.py`)
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import sent
from ..errors import ModelError
from ..families.base import Family
from ..protocols import Categories, HasCoefficientNames, HasFamily, HasNames, HasNatural
from ..types import ModelLike


class Model(nn.Module, ABC):
    """p(data | θ). A subclass says `log_prob(batch)`, of `batch.shape`, in nats."""

    measure: str = "density"
    kind: ClassVar[str] = "exact"
    keeps: str = (
        "all"  # of a saved fit; "free": what was moved alone, where the rest is given again with the network
    )

    @abstractmethod
    def log_prob(self, batch: Batch) -> Tensor: ...

    def forward(self, batch: Batch) -> Tensor:
        return self.log_prob(batch)


def unpadded(log_prob: Tensor, batch: Batch) -> Tensor:
    """log p, exactly 0 where the count is 0: padding has no influence, whatever it holds."""
    return torch.where(batch.count == 0, torch.zeros_like(log_prob), log_prob) if batch.counted else log_prob


def response(batch: Batch, name: str, family: Family) -> Tensor:
    """y, (…) of batch.shape, or (…, d) of a family of vectors: a column too many would be broadcast against
    the rows.

    Raises
    ------
    ModelError
    """
    y, d = batch[name], family.length
    wanted = batch.shape if d is None else (*batch.shape, d)
    if y.shape == wanted:
        out: Tensor = y
        return out
    hint = ""
    if y.ndim == len(wanted) + 1 and y.shape[-1] == 1:
        hint = f" {name}[..., 0] is such."
    elif y.ndim == len(wanted) + 1 and isinstance(family, Categories):
        hint = f" Of one-hot rows: {name}.argmax(-1)."
    raise ModelError(
        f"{name!r} has the shape {tuple(y.shape)}, and {family} describes "
        f"{'one number' if d is None else f'a vector of {d}'} a row. "
        f"Accepted: {tuple(wanted)}.{hint}"
    )


def applied(network: nn.Module, x: Tensor) -> Tensor:
    """A network of real numbers, these in its precision; of codes (embeddings) and of levels (`ConvNet`) as
    they are. What comes out lies where x lies, wherever the network does.

    Raises
    ------
    ModelError
        whole numbers, and the network reads real ones
    """
    first = _first_parameter(network)
    if first is not None and first.device != x.device:
        return applied(network, sent(x, first.device)).to(x.device)
    if x.is_floating_point() or _of_numbers(network):
        out: Tensor = network(x if first is None or first.dtype == x.dtype else x.to(first.dtype))
        return out
    try:
        out = network(x)
        return out
    except RuntimeError as error:
        raise ModelError(
            f"{type(network).__name__} fails on inputs of type {x.dtype} and shape {tuple(x.shape)}: "
            f"{error}. Where it reads real numbers, "
            "give it floating ones (x.float())."
        ) from error


def drawn(
    family: Family, parameters: Sequence[Tensor], generator: torch.Generator | None, **extras: Tensor
) -> Tensor:
    """Draws of a family at these parameters, where they lie; made on the generator's device, so that a seed gives
    the same draws on every accelerator."""
    here = parameters[0].device
    where = here if generator is None else generator.device
    y: Tensor = family.sample(
        *(p.to(where) for p in parameters), generator=generator, **{n: e.to(where) for n, e in extras.items()}
    )
    return y.to(here)


def _of_numbers(network: nn.Module) -> bool:
    """Whether the first layer is an affine map of torch's own, which takes no whole numbers."""
    while isinstance(network, nn.Sequential) and len(network):
        network = next((layer for layer in network if any(True for _ in layer.parameters())), network[0])
    return isinstance(network, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _first_parameter(module: nn.Module) -> nn.Parameter | None:
    """`next(module.parameters(), None)`, without four generators: it is asked at every step."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        if child is not None and (found := _first_parameter(child)) is not None:
            return found
    return None


def family_of(model: object) -> Family | None:
    """The family of a model of one response; None: it has none."""
    found = model.family if isinstance(model, HasFamily) else None
    return found if isinstance(found, Family) else None


def log_prob_of(model: ModelLike, batch: Batch) -> Tensor:
    """log p, (…) of batch.shape: a function of the model, so that it can be compiled."""
    out: Tensor = model.log_prob(batch)
    return out


def objective_of(model: ModelLike, batch: Batch) -> Tensor:
    """What a model is trained by in the place of its log p (`HasTrainingObjective`), one value a term."""
    out: Tensor = model.objective(batch)
    return out


def get_theta(model: nn.Module) -> Tensor:
    """θ, flat, (p,), detached."""
    parts = [p.detach().reshape(-1) for p in model.parameters() if p.requires_grad]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def set_theta(model: nn.Module, theta: Tensor) -> None:
    """Write θ, flat, back into the model."""
    at = 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(theta[at : at + parameter.numel()].view_as(parameter))
                at += parameter.numel()


def names_of(model: nn.Module) -> list[str]:
    """One name an entry of natural(θ), no two alike: of several that would be, the second is "name (2)"."""
    return unique(model.names if isinstance(model, HasNames) else _parameter_names(model))


def coefficient_names(model: nn.Module) -> list[str]:
    """One name a coordinate of θ, as priors name it; no two alike."""
    return unique(
        model.coefficient_names if isinstance(model, HasCoefficientNames) else _parameter_names(model)
    )


def _parameter_names(model: nn.Module) -> list[str]:
    out = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            out += [name] if parameter.numel() == 1 else [f"{name}[{i}]" for i in range(parameter.numel())]
    return out


def unique(names: Iterable[str]) -> list[str]:
    """The same names, those that stand a second time numbered.

    Examples
    --------
    >>> unique(["x", "z", "x", "x (2)"])
    ['x', 'z', 'x (3)', 'x (2)']
    """
    names = list(names)
    taken = set(names)
    if len(taken) == len(names):
        return names
    seen: set[str] = set()
    out = []
    for name in names:
        new = name
        if name in seen:
            new = next(f"{name} ({k})" for k in itertools.count(2) if f"{name} ({k})" not in taken)
            taken.add(new)
        seen.add(new)
        out.append(new)
    return out


def place_of(name: str, names: Sequence[str]) -> int | None:
    """Which of the names is meant, None: none. Backticks, in which formulas quote columns, may be there or
    not.

    Examples
    --------
    >>> place_of("`site name`[T.b]", ["x", "site name[T.b]"]), place_of("log(site name)", ["log(`site name`)"])
    (1, 0)
    """
    if name in names:
        return list(names).index(name)
    bare = [i for i, known in enumerate(names) if known.replace("`", "") == name.replace("`", "")]
    return bare[0] if len(bare) == 1 else None


def natural_of(model: nn.Module, theta: Tensor) -> Tensor:
    """θ seen through its constraints: what is reported."""
    return model.natural(theta) if isinstance(model, HasNatural) else theta
