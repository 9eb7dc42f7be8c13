"""A family at given parameters: one distribution a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .base import Family


@dataclass(frozen=True, eq=False)
class Distribution:
    """p(y | θ₁, …, θ_k) of each row, made by `Family.at`. A likelihood of one's own may return it in the place of
    log p (`th.model`).

    Parameters
    ----------
    family
        of the response
    parameters
        on their own scales, each (n,) or broadcastable to it
    extras
        what the family asks of each row besides y (trials, bounds), by name

    Examples
    --------
    >>> from thetahat.families import Poisson
    >>> coin = Poisson().at(torch.tensor([1.0, 2.0], dtype=torch.float64))
    >>> coin.mean.tolist(), coin.log_prob(torch.tensor([0.0, 0.0])).tolist()
    ([1.0, 2.0], [-1.0, -2.0])
    """

    family: Family
    parameters: tuple[Tensor, ...]
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def log_prob(self, y: Tensor) -> Tensor:
        """log p(y), (n,)."""
        return self.family.log_prob(y, *self.parameters, **self.extras)

    @property
    def mean(self) -> Tensor:
        """E[y]; NaN or infinity where it does not exist."""
        return self.family.expectation(*self.parameters, **self.extras)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw a row."""
        return self.family.sample(*self.parameters, generator=generator, **self.extras)
