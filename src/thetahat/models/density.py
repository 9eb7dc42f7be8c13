"""Density: a family fitted to vectors alone, each parameter one constant for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source, Tensors
from ..errors import BadArgument, NotFinite, OutOfSupport
from ..families.base import Family
from .base import Model


class Density(Model):
    """p(y | θ) of a family without predictors; y may be a vector.

        log p(y | η) = log p(y | g_1⁻¹(η_1), …, g_k⁻¹(η_k))

    θ = (η_1, …, η_k), unconstrained; `natural` gives the family's own parameters.

    Parameters
    ----------
    family : p(y | its k parameters)

    >>> from thetahat.families import Normal
    >>> Density(Normal()).names
    ['mean', 'scale']
    """

    def __init__(self, family: Family):
        super().__init__()
        self.family, self.measure = family, family.measure
        self.theta = nn.Parameter(torch.zeros(len(family.parameters), dtype=torch.float64))

    def log_prob(self, batch: Batch) -> Tensor:
        return self.family.log_prob_eta(batch["y"], *[eta.expand(len(batch)) for eta in self.theta])

    def parameters_at(self, batch: Batch) -> list[Tensor]:
        """The family's parameters on their own scales, each (n,)."""
        with torch.no_grad():
            return [v.expand(len(batch)) for v in self.natural(self.theta.detach())]

    def mean(self, batch: Batch) -> Tensor:
        """E[y], for each row the same."""
        return self.family.expectation(*self.parameters_at(batch))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row."""
        return self.family.sample(*self.parameters_at(batch), generator=generator)

    def start(self, source: Source) -> Tensor:
        """The family's own start, on its links."""
        batches = list(source.batches())
        y, weight = torch.cat([b["y"] for b in batches]), torch.cat([b.count.to(torch.float64) for b in batches])
        values = self.family.start(y, weight)
        pairs = zip(self.family.parameters.values(), values, strict=True)
        return torch.stack([p.link(torch.tensor(v, dtype=torch.float64)) for p, v in pairs])

    @property
    def names(self) -> list[str]:
        return list(self.family.parameters)

    @property
    def coefficient_names(self) -> list[str]:
        return self.names

    @property
    def slopes(self) -> list[bool]:
        """No coordinate is the coefficient of a column: a prior has to name what it is on."""
        return [False] * len(self.names)

    def natural(self, theta: Tensor) -> Tensor:
        """θ on the family's own scales, elementwise."""
        return torch.stack(self.family.natural(list(theta)))

    @property
    def elementwise(self) -> bool:
        return True

    @property
    def concave(self) -> bool:
        return self.family.concave


def density(family: Family, array: Any) -> tuple[Density, Tensors]:
    """The model and the source of a family fitted to vectors, (n, d).

    Raises
    ------
    BadArgument : the vectors are not of the family's length
    NotFinite, OutOfSupport : the first row that cannot be used

    >>> from thetahat.families import Normal
    >>> model, source = density(Normal(), [0.0, 1.0])
    >>> source.size
    2
    """
    values = np.asarray(array)
    if values.dtype.kind not in "fiub":
        raise BadArgument(f"{family} describes numbers; received an array of type {values.dtype}.")
    y = torch.tensor(values, dtype=torch.float64)
    finite = torch.isfinite(y.reshape(len(y), -1)).all(-1)
    if not bool(finite.all()):
        row = int(torch.nonzero(~finite)[0, 0])
        raise NotFinite(f"row {row} is {y[row].tolist()}. Every value must be finite ({int((~finite).sum())} rows are not).")
    source = Tensors({"y": y})
    inside = family.in_support(y)
    if inside.shape != y.shape[:1]:
        raise BadArgument(f"{family} describes numbers, an array (n,); received one of shape {tuple(y.shape)}.")
    if not bool(inside.all()):
        row = int(torch.nonzero(~inside)[0, 0])
        raise OutOfSupport(
            f"row {row}: {y[row].tolist()}, to which {family} gives probability zero. Its support is {family.support}. "
            f"({int((~inside).sum())} such rows.)"
        )
    return Density(family), source
