"""The logistic, the hyperbolic secant and the Gumbel distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import links
from .base import Family, Parameter
from .ranges import positive, real
from .special import median_and_spread

EULER_GAMMA = 0.57721566490153286


@dataclass(frozen=True)
class Logistic(Family):
    """The logistic distribution: a bell with exponential tails.

        log p(y | μ, σ) = log s(z) + log s(−z) − log σ,      z = (y − μ)/σ,  s the sigmoid

    Mean μ, variance π²σ²/3.

    Parameters
    ----------
    location
        μ, link identity
    scale
        σ > 0, link log

    References
    ----------
    Johnson, Kotz and Balakrishnan (1995), Continuous Univariate Distributions 2, ch. 23.

    Examples
    --------
    >>> round(Logistic().log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -1.626523
    """

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        z = (y - location) / scale
        return logsigmoid(z) + logsigmoid(-z) - torch.log(scale)

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        location, scale = torch.broadcast_tensors(location, scale)
        return location + scale * (
            _log_exponential(location, generator) - _log_exponential(location, generator)
        )

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        return location + 0 * scale

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        return scale**2 * (math.pi**2 / 3) + 0 * location

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.sigmoid((y - location) / scale)

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return logsigmoid((y - location) / scale)

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return logsigmoid((location - y) / scale)

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return location + scale * torch.logit(q)

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor) -> Tensor:
        return 2 * math.lgamma(1 + beta) - math.lgamma(2 + 2 * beta) - beta * torch.log(scale) + 0 * location

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        centre, spread = median_and_spread(y, weight)
        return centre, spread / math.log(3)


@dataclass(frozen=True)
class HyperbolicSecant(Family):
    """The hyperbolic secant distribution: log-cosh loss, with its scale made explicit.

        log p(y | μ, σ) = −log πσ − log cosh z,      z = (y − μ)/σ

    Mean μ, variance π²σ²/4.

    Parameters
    ----------
    location
        μ, link identity
    scale
        σ > 0, link log

    References
    ----------
    Johnson, Kotz and Balakrishnan (1995), Continuous Univariate Distributions 2, §23.11.

    Examples
    --------
    >>> round(HyperbolicSecant().log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -1.578511
    """

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        z = (y - location) / scale
        return (logsigmoid(2 * z) + logsigmoid(-2 * z)) / 2 - math.log(math.pi / 2) - torch.log(scale)

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        location, scale = torch.broadcast_tensors(location, scale)
        # log |ratio of two normals|, as the log of a Cauchy variable's size is of this distribution
        a, b = torch.randn((2, *scale.shape), generator=generator, dtype=scale.dtype, device=scale.device)
        return location + scale * (torch.log(a.abs()) - torch.log(b.abs()))

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        return location + 0 * scale

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        return scale**2 * (math.pi**2 / 4) + 0 * location

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, location, scale))

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return _log_two_atan_exp((y - location) / scale)

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return _log_two_atan_exp((location - y) / scale)

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        z = torch.log(torch.tan(math.pi / 2 * torch.minimum(q, 1 - q)))
        return location + scale * torch.where(q < 0.5, z, -z)

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor) -> Tensor:
        beta_half = (
            math.lgamma(0.5) + math.lgamma((1 + beta) / 2) - math.lgamma(1 + beta / 2)
        )  # log ∫ cosh^(−1−β) z dz
        return beta_half - (1 + beta) * math.log(math.pi) - beta * torch.log(scale) + 0 * location

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        centre, spread = median_and_spread(y, weight)
        return centre, spread / math.asinh(1.0)


def _log_two_atan_exp(z: Tensor) -> Tensor:
    """log (2/π)·atan(e^z): z + log 2/π below −20 to the last digit, 1 − (2/π)·atan(e^(−z)) above 0."""
    low, high = z < -20, z > 0
    middle = torch.log(2 / math.pi * torch.atan(torch.exp(torch.where(low | high, 0.0, z))))
    above = torch.log1p(-2 / math.pi * torch.atan(torch.exp(-torch.where(high, z, 1.0))))
    return torch.where(low, z + math.log(2 / math.pi), torch.where(high, above, middle))


@dataclass(frozen=True)
class Gumbel(Family):
    """The Gumbel distribution: the largest of many; in −y the smallest.

        log p(y | μ, σ) = −log σ − z − e^(−z),      z = (y − μ)/σ

    Mean μ + γσ, γ = 0.5772…, variance π²σ²/6; μ is the mode.

    Parameters
    ----------
    location
        μ, link identity
    scale
        σ > 0, link log

    References
    ----------
    Gumbel (1958), Statistics of Extremes, ch. 5.

    Examples
    --------
    >>> round(Gumbel().log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -1.367879
    """

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        z = (y - location) / scale
        # below z = −600, where log p < −10²⁶⁰, e^(−z) stays finite: with ∞ its derivatives would be NaN
        return -torch.log(scale) - z - torch.exp(-z.clamp(min=-600.0))

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        location, scale = torch.broadcast_tensors(location, scale)
        return location - scale * _log_exponential(location, generator)

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        return location + EULER_GAMMA * scale

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        return scale**2 * (math.pi**2 / 6) + 0 * location

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, location, scale))

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return -torch.exp((location - y) / scale)

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        # log(1 − e^(−e^η)) is the complementary log-log's log θ; above η = 6.5 it is −10⁻²⁸⁹, and its
        # gradient 0 · ∞
        return links.cloglog.log_inverse(((location - y) / scale).clamp(max=6.5))

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return location - scale * torch.log(-torch.log(q))

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor) -> Tensor:
        return math.lgamma(1 + beta) - (1 + beta) * math.log1p(beta) - beta * torch.log(scale) + 0 * location

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        centre, spread = median_and_spread(y, weight)
        scale = spread / 0.7862  # half of its interquartile range at scale 1: log(log 4 / log 4/3) / 2
        return centre + scale * math.log(math.log(2)), scale


def _log_exponential(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """log E, E exponential with mean 1."""
    return torch.log(
        torch.empty_like(like, memory_format=torch.contiguous_format).exponential_(generator=generator)
    )
