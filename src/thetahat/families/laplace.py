"""The Laplace distributions, whose negative logs are the absolute and the pinball loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import BadArgument
from . import links
from .base import Family, Parameter
from .ranges import positive, real
from .special import median_and_spread, weighted_quantile


@dataclass(frozen=True)
class Laplace(Family):
    """The Laplace distribution: absolute loss, with its scale made explicit. The estimate of a lone μ is the
    median.

        log p(y | μ, σ) = −log 2σ − |y − μ| / σ

    Mean μ, variance 2σ². Not smooth: the curvature in μ is 0 everywhere but at y = μ, where it does not
    exist, so that Newton's method has nothing to divide by.

    Parameters
    ----------
    location
        μ, link identity
    scale
        σ > 0, link log

    References
    ----------
    Laplace (1774), Mémoire sur la probabilité des causes par les évènements.

    Examples
    --------
    >>> round(Laplace().log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0)).item(), 6)
    -1.886294
    """

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)
    smooth: ClassVar[bool] = False

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return -math.log(2) - torch.log(scale) - (y - location).abs() / scale

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        location, scale = torch.broadcast_tensors(location, scale)
        return location + scale * (_exponential(location, generator) - _exponential(location, generator))

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        return location + 0 * scale

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        return 2 * scale**2 + 0 * location

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, location, scale))

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return _log_lower(2 * (y - location) / scale, 0.5)

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return _log_lower(2 * (location - y) / scale, 0.5)

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return location + scale * torch.where(q < 0.5, torch.log(2 * q), -torch.log(2 * (1 - q)))

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor) -> Tensor:
        return -beta * torch.log(2 * scale) - math.log1p(beta) + 0 * location

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        centre, spread = median_and_spread(y, weight)
        return centre, spread / math.log(2)


@dataclass(frozen=True)
class AsymmetricLaplace(Family):
    """The asymmetric Laplace distribution: pinball loss, so that maximum likelihood is quantile regression.

        log p(y | μ, σ) = log q(1 − q) − log σ − ρ((y − μ)/σ),      ρ(z) = z·(q − 1[z < 0])

    P(Y ≤ μ) = q. Mean μ + σ(1 − 2q)/(q(1 − q)), variance σ²(1 − 2q + 2q²)/(q(1 − q))². Not smooth: the
    curvature in μ is 0 everywhere but at y = μ, where it does not exist. At q = ½ it is Laplace, with twice
    its σ.

    Parameters
    ----------
    level
        0 < q < 1, the quantile that is fitted; a setting, never estimated
    location
        μ, the q-quantile of y; link identity
    scale
        σ > 0, link log

    Raises
    ------
    BadArgument
        where level does not lie strictly between 0 and 1

    References
    ----------
    Koenker and Machado (1999), Goodness of fit and related inference processes for quantile regression, J.
    Amer. Statist. Assoc. 94; Yu and Moyeed (2001), Bayesian quantile regression, Statist. Probab. Lett. 54.

    Examples
    --------
    >>> round(AsymmetricLaplace(0.9).log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -3.307946
    """

    level: float = 0.5

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)
    smooth: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise BadArgument(f"level is a quantile's level, strictly between 0 and 1; got {self.level!r}.")

    @property
    def working(self) -> str:
        return (
            f"The asymmetric Laplace density is a working likelihood: its maximum is the quantile of level {self.level:g}. It ranks "
            "fits of this level alone, and the data need not have this distribution."
        )

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        q, z = self.level, (y - location) / scale
        return math.log(q) + math.log1p(-q) - torch.log(scale) - torch.maximum(q * z, (q - 1) * z)

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        location, scale = torch.broadcast_tensors(location, scale)
        above, below = _exponential(location, generator), _exponential(location, generator)
        return location + scale * (above / self.level - below / (1 - self.level))

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        q = self.level
        return location + scale * ((1 - 2 * q) / (q * (1 - q)))

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        q = self.level
        return scale**2 * ((1 - 2 * q + 2 * q * q) / (q * (1 - q)) ** 2) + 0 * location

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, location, scale))

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return _log_lower((y - location) / scale, self.level)

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return _log_lower((location - y) / scale, 1 - self.level)

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        level = self.level
        below, above = torch.log(q / level) / (1 - level), -torch.log((1 - q) / (1 - level)) / level
        return location + scale * torch.where(q < level, below, above)

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor) -> Tensor:
        q = self.level
        return beta * (math.log(q) + math.log1p(-q) - torch.log(scale)) - math.log1p(beta) + 0 * location

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        _, spread = median_and_spread(y, weight)
        return weighted_quantile(y, weight, self.level), spread * min(self.level, 1 - self.level)


def _log_lower(z: Tensor, q: float) -> Tensor:
    """log P(Z ≤ z): log q + (1 − q)z below 0, log(1 − (1 − q)e^(−qz)) above; each branch sees only its own
    z."""
    below, above = torch.where(z < 0, z, 0.0), torch.where(z < 0, 0.0, z)
    return torch.where(z < 0, math.log(q) + (1 - q) * below, torch.log1p(-(1 - q) * torch.exp(-q * above)))


def _exponential(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format).exponential_(generator=generator)
