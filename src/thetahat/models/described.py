"""A model that gives each row a distribution, so that everything which is asked of a family's parameters can be asked of
it: predictions and their intervals, residuals, calibration, draws. Such is a likelihood of one's own whose function
returns a distribution.

    η_j = g_j(θ_j(x)),      g_j the family's links

so that an interval of a mean is made where the mean is nearly normal, as that of a regression is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source
from ..errors import ModelError
from ..families.base import Family
from ..families.distribution import Distribution
from ..types import Plain
from .base import Model, drawn
from .custom import Custom


class DescribesRows(Model):
    """A subclass says `at(batch)` and `family`."""

    family: Family

    @abstractmethod
    def at(self, batch: Batch) -> Distribution:
        """The distribution of each row, with its graph to θ."""

    def eta(self, batch: Batch) -> list[Tensor]:
        """The family's linear predictors, each (n,)."""
        links = [p.link for p in self.family.parameters.values()]
        return [g(p).expand(len(batch)) for g, p in zip(links, self.at(batch).parameters, strict=True)]

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        """What the family asks of each row besides y."""
        with torch.no_grad():
            found: Mapping[str, Tensor] = self.at(batch).extras
            return {name: torch.as_tensor(e).expand(len(batch)) for name, e in found.items()}

    def parameters_at(self, batch: Batch) -> list[Tensor]:
        """On their own scales, each (n,)."""
        with torch.no_grad():
            return [p.expand(len(batch)) for p in self.at(batch).parameters]

    def mean(self, batch: Batch) -> Tensor:
        """E[y | x]."""
        return self.family.expectation(*self.parameters_at(batch), **self.extras(batch))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row."""
        return drawn(self.family, self.parameters_at(batch), generator, **self.extras(batch))


class Described(DescribesRows, Custom):
    """A likelihood of one's own that returns a distribution. Made by `described`, not by hand.

    Parameters
    ----------
    custom
        whose function returns it
    family
        of that distribution
    """

    def __init__(self, custom: Custom, family: Family):
        super().__init__(custom.function, custom.constraints, family.measure, custom.target, custom.concave)
        self.theta = nn.ParameterDict(
            [(name, nn.Parameter(custom.theta[name].detach().clone())) for name in custom.constraints]
        )
        self.family = family

    def at(self, batch: Batch) -> Distribution:
        return returned(self.function(batch, **self.values()), self.family, self.function.__name__)


def returned(out: Plain, family: Family, name: str) -> Distribution:
    """What a function returned, which is a distribution of that family.

    Raises
    ------
    ModelError
        it is another thing than before
    """
    if isinstance(out, Distribution) and type(out.family) is type(family):
        return out
    found = str(out.family) if isinstance(out, Distribution) else type(out).__name__
    raise ModelError(f"{name} returned {family} of the rows that were fitted, and {found} of these.")


def described(custom: Custom, source: Source) -> Custom:
    """The model with its family, where its function returns a distribution; else itself."""
    if isinstance(custom, Described):
        return custom
    first = next(iter(source.batches(custom)), None)
    if first is None:
        return custom
    with torch.no_grad():
        out = custom.function(first, **custom.values())
    return Described(custom, out.family) if isinstance(out, Distribution) else custom
