"""Several numbers a row, independent given their parameters: labels of which several may be true, or responses that one
network explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import BadArgument
from .base import Family, Parameter, Support, floating
from .bernoulli import Bernoulli


@dataclass(frozen=True)
class Independent(Family):
    """A vector whose components are independent, each of one family with parameters of its own.

        log p(y | θ_1, …, θ_k) = Σ_j log p(y_j | θ_j),      p the family inside

    `Conditional(Independent(Bernoulli(), k), network)` is a classifier of k labels of which any number may be true
    (multi-label): the network gives k logits, and the binary cross-entropies of the labels are summed.

    Parameters
    ----------
    family
        p(y_j | θ_j) of single numbers, without further data
    k
        how many components

    References
    ----------
    Tsoumakas and Katakis (2007), Multi-label classification: an overview (binary relevance).

    Examples
    --------
    >>> family = Independent(Bernoulli(), 3)
    >>> list(family.parameters)
    ['mean_1', 'mean_2', 'mean_3']
    >>> p = family.log_prob(torch.tensor([[1.0, 0.0, 1.0]]), *torch.tensor([0.5, 0.8, 0.9])).exp()
    >>> round(p.item(), 6)  # 0.5 · 0.2 · 0.9
    0.09
    """

    family: Family = field(default_factory=Bernoulli)
    k: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise BadArgument(f"k={self.k!r} components. Accepted: a whole number of at least 1.")
        if not isinstance(self.family, Family):
            raise BadArgument(f"family={self.family!r}: not a family (th.families.Bernoulli()).")
        if self.family.length is not None or self.family.extras or not self.family.parameters:
            raise BadArgument(
                f"Independent({self.family}): the family inside is of single numbers, without further data."
            )
        if self.link is not None:
            raise BadArgument(
                f"link={self.link!r} belongs to the family inside: {type(self.family).__name__}(link=…)."
            )

    @property
    def length(self) -> int:
        return self.k

    @property
    def measure(self) -> str:
        return self.family.measure

    @property
    def smooth(self) -> bool:
        return self.family.smooth

    @property
    def support(self) -> Support:
        inside = self.family.support
        return Support(f"vectors, each component one of {inside}", inside.low, inside.high)

    @property
    def parameters(self) -> dict[str, Parameter]:
        return {
            f"{name}_{j}": replace(p, own_predictors=i == 0)
            for j in range(1, self.k + 1)
            for i, (name, p) in enumerate(self.family.parameters.items())
        }

    def _apart(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Each parameter of the family inside, (…, k), of the k · m parameters."""
        m = len(self.family.parameters)
        wide = torch.stack(torch.broadcast_tensors(*values), -1)
        return list(wide.unflatten(-1, (self.k, m)).unbind(-1))

    def log_prob(self, y: Tensor, *parameters: Tensor) -> Tensor:
        return self.family.log_prob(floating(y, parameters[0]), *self._apart(parameters)).sum(-1)

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        return self.family.log_prob_eta(floating(y, eta[0]), *self._apart(eta)).sum(-1)

    def impossible(self, y: Tensor, j: int, high: bool, **extras: Tensor) -> Tensor:
        component, i = divmod(j, len(self.family.parameters))
        return self.family.impossible(y[..., component], i, high)

    def sample(self, *parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.family.sample(*self._apart(parameters), generator=generator)

    def expectation(self, *parameters: Tensor) -> Tensor:
        return self.family.expectation(*self._apart(parameters))

    def variance(self, *parameters: Tensor) -> Tensor:
        """The covariance, (n, k, k), which is diagonal."""
        return torch.diag_embed(self.family.variance(*self._apart(parameters)))

    def in_support(self, y: Tensor) -> Tensor:
        if y.ndim < 2 or y.shape[-1] != self.k:
            raise BadArgument(
                f"{self} describes vectors of {self.k} components; y has the shape {tuple(y.shape)}."
            )
        return self.family.in_support(y).all(-1)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return tuple(v for j in range(self.k) for v in self.family.start(y[..., j], weight))

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...] | None:
        parts = [self.family.maximum(y[..., j], weight) for j in range(self.k)]
        return None if any(part is None for part in parts) else tuple(v for part in parts for v in part or ())

    @property
    def concave(self) -> bool:
        return self.family.concave
