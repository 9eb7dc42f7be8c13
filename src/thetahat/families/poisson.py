"""Counts whose variance is their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import links
from .base import Derivatives, Family, Parameter, counts, weighted_mean
from .incomplete import log_gammainc
from .links import Identity, Log, Softplus, Sqrt
from .ranges import nonnegative
from .special import count_quantile, log_factorial


@dataclass(frozen=True)
class Poisson(Family):
    """Counts of events that happen independently at a constant rate.

        log p(y | μ) = y·log μ − μ − log y!

    Mean μ, variance μ.

    Parameters
    ----------
    mean
        μ ≥ 0, link log

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., §6.2.

    Examples
    --------
    >>> round(Poisson().log_prob(torch.tensor(3.0), torch.tensor(2.0)).item(), 6)
    -1.712318
    """

    mean = Parameter(nonnegative, link=links.log)
    support = counts
    measure = "mass"

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        return torch.where(counts.contains(y), torch.xlogy(y, mean) - mean - torch.lgamma(y + 1), -torch.inf)

    def log_prob_eta(self, y: Tensor, eta: Tensor) -> Tensor:
        link = self.parameters["mean"].link
        seen = torch.where(y > 0, eta, self.parameters["mean"].limits.middle)  # 0 · log 0 is 0
        value = y * link.log_inverse(seen) - link.inverse(eta) - log_factorial(y)
        return torch.where(counts.contains(y), value, -torch.inf)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if not isinstance(self.parameters["mean"].link, Log):
            return super().derivatives(y, eta, extras, order)
        mean = torch.exp(eta[0])
        return y * eta[0] - mean - log_factorial(y), [y - mean], {(0, 0): -mean} if order > 1 else {}

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        if not isinstance(self.parameters["mean"].link, Log):
            return super().third(y, eta, v, extras)
        return [-v[0, 0] * torch.exp(eta[0])] if v else [torch.zeros_like(y)]

    @property
    def compiled(self) -> str | None:
        return "poisson" if isinstance(self.parameters["mean"].link, Log) else None

    def sample(self, mean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.poisson(mean, generator=generator)

    def expectation(self, mean: Tensor) -> Tensor:
        return mean

    def variance(self, mean: Tensor) -> Tensor:
        return mean

    def cdf(self, y: Tensor, mean: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, mean))  # torch.special.gammaincc has but nine digits

    def log_cdf(self, y: Tensor, mean: Tensor) -> Tensor:
        return torch.where(y < 0, -torch.inf, log_gammainc(torch.floor(y).clamp(min=0) + 1, mean)[1])

    def log_survival(self, y: Tensor, mean: Tensor) -> Tensor:
        return torch.where(y < 0, 0.0, log_gammainc(torch.floor(y).clamp(min=0) + 1, mean)[0])

    def quantile(self, q: Tensor, mean: Tensor) -> Tensor:
        q, mean = torch.broadcast_tensors(q, mean)
        return count_quantile(lambda y: self.cdf(y, mean), q)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (max(weighted_mean(y, weight), 1e-3),)

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (weighted_mean(y, weight),)

    @property
    def concave(self) -> bool:
        return isinstance(self.parameters["mean"].link, (Log, Identity, Sqrt, Softplus))

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # y = 0 is ever more probable as η → −∞; y > 0 pins η
        return -torch.ones(len(y), 1, 1, dtype=torch.float64), (y > 0)[:, None]
