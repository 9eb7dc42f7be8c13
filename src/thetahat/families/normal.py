"""The normal distribution, and the log-normal."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtr, ndtri

from . import links
from .base import Derivatives, Family, Parameter, positives, weighted_mean, weighted_variance
from .ranges import positive, real
from .special import LOG_ROOT_2PI


@dataclass(frozen=True)
class Normal(Family):
    """The normal distribution: squared loss, with its scale made explicit.

        log p(y | μ, σ) = −½ log 2π − log σ − (y − μ)² / 2σ²

    Parameters
    ----------
    mean
        μ, link identity
    scale
        σ > 0, link log. σ → 0 is a perfect fit, where the density has no maximum.

    References
    ----------
    Gauss (1809), Theoria motus corporum coelestium, §177.

    Examples
    --------
    >>> round(Normal().log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -1.418939
    """

    mean = Parameter(real)
    scale = Parameter(positive, link=links.log)

    def log_prob(self, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return -LOG_ROOT_2PI - torch.log(scale) - 0.5 * ((y - mean) / scale) ** 2

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        mean, log_scale = eta
        precision = torch.exp(-2 * log_scale)
        residual = y - mean
        square = residual * residual * precision
        value = -LOG_ROOT_2PI - log_scale - 0.5 * square
        score = [residual * precision, square - 1]
        if order < 2:
            return value, score, {}
        return (
            value,
            score,
            {(0, 0): (-precision).expand(y.shape), (0, 1): -2 * score[0], (1, 1): -2 * square},
        )

    def sums(self, y: Tensor, weight: Tensor, *eta: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """From Σ w, Σ w (y − μ) and Σ w (y − μ)²."""
        if self.link is not None:
            return None
        mean, log_scale = (e.reshape(()) for e in eta)
        precision, residual = torch.exp(-2 * log_scale), y - mean
        weighted = weight * residual
        total, first, second = (
            weight.sum(),
            precision * weighted.sum(),
            precision * torch.dot(weighted, residual),
        )
        value = -total * (LOG_ROOT_2PI + log_scale) - second / 2
        J = torch.stack([precision * total, 2 * first, 2 * first, 2 * second]).reshape(2, 2)
        return value, torch.stack([first, second - total]), J

    def sample(self, mean: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        mean, scale = torch.broadcast_tensors(mean, scale)
        return torch.normal(mean, scale, generator=generator)

    def expectation(self, mean: Tensor, scale: Tensor) -> Tensor:
        return mean + 0 * scale

    def variance(self, mean: Tensor, scale: Tensor) -> Tensor:
        return scale**2 + 0 * mean

    def cdf(self, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = ndtr((y - mean) / scale)
        return out

    def log_cdf(self, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = log_ndtr((y - mean) / scale)
        return out

    def log_survival(self, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = log_ndtr((mean - y) / scale)
        return out

    def quantile(self, q: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = mean + scale * ndtri(q)
        return out

    def log_power_integral(self, beta: float, mean: Tensor, scale: Tensor) -> Tensor:
        return -beta * (LOG_ROOT_2PI + torch.log(scale)) - 0.5 * math.log1p(beta) + 0 * mean

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return weighted_mean(y, weight), math.sqrt(weighted_variance(y, weight)) or 1.0

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return weighted_mean(y, weight), math.sqrt(weighted_variance(y, weight))

    def concave_with(self, held: Container[str]) -> bool:
        """A parabola in μ, the scale given."""
        return "scale" in held and self.link is None


@dataclass(frozen=True)
class LogNormal(Family):
    """A positive quantity whose logarithm is normal.

        log p(y | μ, σ) = −½ log 2π − log σ − log y − (log y − μ)² / 2σ²

    Mean exp(μ + σ²/2), variance (exp σ² − 1)·exp(2μ + σ²).

    Parameters
    ----------
    location
        μ, the mean of log y; link identity
    scale
        σ > 0, the standard deviation of log y; link log

    References
    ----------
    Crow and Shimizu (1988), Lognormal Distributions, §1.

    Examples
    --------
    >>> round(LogNormal().log_prob(torch.tensor(2.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -1.852312
    """

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)
    support = positives

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        log_y = torch.log(y)
        return -LOG_ROOT_2PI - torch.log(scale) - log_y - 0.5 * ((log_y - location) / scale) ** 2

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.exp(Normal().sample(location, scale, generator=generator))

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(location + scale**2 / 2)

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        return torch.expm1(scale**2) * torch.exp(2 * location + scale**2)

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = ndtr((torch.log(y) - location) / scale)
        return out

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = log_ndtr((torch.log(y) - location) / scale)
        return out

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = log_ndtr((location - torch.log(y)) / scale)
        return out

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(location + scale * ndtri(q))

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor) -> Tensor:
        tilt = (beta * scale) ** 2 / (2 * (1 + beta)) - beta * location  # of y^(−β) under the normal of log y
        return Normal().log_power_integral(beta, location, scale) + tilt

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return Normal().start(torch.log(y), weight)

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return Normal().maximum(torch.log(y), weight)
