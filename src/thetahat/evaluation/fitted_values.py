"""What a model says of each row: its family, its linear predictors, and functions of them with their
gradients in θ.

    f_i = f(η_i1, …, η_ik),      ∂f_i/∂θ = Σ_j ∂f_i/∂η_ij · ∂η_ij/∂θ

The first factor is by automatic differentiation of one small function; the second are rows of the design, or,
for a network, its Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..data.table import Encoder
from ..errors import BadArgument
from ..families.base import Family
from ..models import Density
from ..models.base import family_of
from ..models.described import DescribesRows
from ..models.regression import Regression
from ..models.taylor import jacobian
from ..protocols import Categories, HasFixed, HasGradientRows, Working, encoder_of, target_of
from ..types import Levels, ModelLike

Function = Callable[..., Tensor]

T = TypeVar("T")


def batches(rows: Batch | Source, model: ModelLike) -> Iterator[Batch]:
    """New rows are one batch; a source is read batch by batch."""
    if isinstance(rows, Batch):
        yield rows
    else:
        yield from rows.batches(model)


def family_for(model: ModelLike, what: str) -> Family:
    """The family that the model gives each row.

    Raises
    ------
    BadArgument
        it has none (a likelihood of one's own)
    """
    family = family_of(model)
    if not isinstance(family, Family):
        raise BadArgument(
            f"the model returns log p of each row alone, and no distribution of y: {what} cannot be had of it. Of a "
            "likelihood of one's own: return the distribution, th.families.Normal().at(mean, scale)."
        )
    return family


def extras_of(model: ModelLike, batch: Batch) -> dict[str, Tensor]:
    """What the family asks of each row besides y.

    Raises
    ------
    BadArgument
        something is needed, and the rows lack it
    """
    family = model.family
    if isinstance(model, DescribesRows):
        return model.extras(batch)
    out = {name: batch[name] for name in family.extras if name in batch}
    own = (
        model.encoder.extras if isinstance(model, Regression) else {}
    )  # a bound that the fit was given is not left out of a prediction
    for name, default in family.extras.items():
        if (default is None or name in own) and name not in out and name not in family.outcome:
            raise BadArgument(
                f"{family} needs {name} for these rows: the column {own.get(name, name)!r} is not among them."
            )
    return out


def eta_of(model: ModelLike, batch: Batch) -> list[Tensor]:
    """The family's linear predictors, each (n,), with a graph to θ."""
    eta = list(model.theta) if isinstance(model, Density) else model.eta(batch)
    return [e.expand(len(batch)) for e in eta]


def natural_at(family: Family, eta: Sequence[Tensor]) -> list[Tensor]:
    """The parameters on their own scales; the K logits of a classifier as they are."""
    return family.natural(eta) if len(eta) == len(family.parameters) else list(eta)


def parameters_of(model: ModelLike, batch: Batch) -> list[Tensor]:
    """The family's parameters at θ̂, each (n,)."""
    with torch.no_grad():
        # a window of θ itself asks for a gradient even here
        return [v.detach().expand(len(batch)) for v in natural_at(model.family, eta_of(model, batch))]


def centre(family: Family, parameters: Sequence[Tensor], **extras: Tensor) -> Tensor:
    """What a prediction is of: E[y]; of a working density (a quantile regression's) what it is fitted for, its first parameter,
    for its mean is neither that quantile nor the mean of the data."""
    return parameters[0] if isinstance(family, Working) else family.expectation(*parameters, **extras)


def mean_of(model: ModelLike, batch: Batch) -> Tensor:
    """E[y | x] at θ̂ (`centre`), (n,), or (n, d) of a vector.

    Raises
    ------
    BadArgument
        the family has no mean
    """
    family = family_for(model, "mean")
    if not family.has("expectation"):
        raise BadArgument(f"{family} has no mean{': its y is a category' * isinstance(family, Categories)}.")
    with torch.no_grad():
        return centre(family, parameters_of(model, batch), **extras_of(model, batch))


def with_slopes(function: Function, eta: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """f(η), (n,), and ∂f/∂η_j, k tensors (n,): rows do not mix."""
    with torch.enable_grad():
        leaves = [e.detach().clone().requires_grad_() for e in eta]
        value = function(*leaves)
        if not value.requires_grad:
            return value.detach(), [torch.zeros_like(e) for e in leaves]
        found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return value.detach(), [
        torch.zeros_like(e) if g is None else g for g, e in zip(found, leaves, strict=True)
    ]


def free_of(model: ModelLike, values: Sequence[T]) -> list[T]:
    """Of one value a parameter of the family, those of the parameters that are estimated."""
    fixed = model.fixed if isinstance(model, HasFixed) else {}
    return (
        list(values)
        if not fixed
        else [v for n, v in zip(model.family.parameters, values, strict=True) if n not in fixed]
    )


def gradient_rows(model: ModelLike, batch: Batch, slopes: Sequence[Tensor]) -> Tensor:
    """∂f_i/∂θ, (n, p), in the model's own θ, from ∂f_i/∂η_ij."""
    if isinstance(model, HasGradientRows):
        return model.gradient_rows(batch, free_of(model, list(slopes)))
    with torch.enable_grad():
        values = torch.stack([s.detach() * e for s, e in zip(slopes, eta_of(model, batch), strict=True)]).sum(
            0
        )
        return jacobian(values, [p for p in model.parameters() if p.requires_grad]).to(torch.float64)


def levels_of(model: ModelLike) -> Levels | None:
    """The levels that the codes of a categorical response stand for: of a regression, and of a mixed model at given
    random effects."""
    encoder = encoder_of(model)
    return encoder.response.levels if isinstance(encoder, Encoder) else None


def as_levels(model: ModelLike, codes: np.ndarray) -> np.ndarray:
    """Codes as the levels that they stand for; numbers as they are."""
    levels = levels_of(model)
    return codes if levels is None else np.asarray(levels)[codes.astype(np.int64)]


def response_of(model: ModelLike, batch: Batch) -> Tensor:
    """y, (n,).

    Raises
    ------
    BadArgument
        it is a vector
    """
    y = batch[target_of(model)]
    if y.ndim != 1:
        raise BadArgument(
            f"the response of each row is a vector of shape {tuple(y.shape[1:])}: it has no residual, and no "
            "one bin."
        )
    out: Tensor = y.to(torch.float64)
    return out
