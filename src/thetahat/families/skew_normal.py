"""Azzalini's skew-normal distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import links
from .base import Family, Parameter, weighted_mean, weighted_variance
from .ranges import positive, real
from .special import LOG_ROOT_2PI, invert_cdf, log_mills, log_ndtr, log_tail


@dataclass(frozen=True)
class SkewNormal(Family):
    """The skew-normal: a normal tilted to one side.

        log p(y | μ, σ, α) = log 2 − log σ + log φ(z) + log Φ(αz),      z = (y − μ)/σ

    Mean μ + σδ√(2/π), variance σ²(1 − 2δ²/π), δ = α/√(1 + α²). α = 0 is Normal, where the information about
    (μ, σ, α) is singular; α → ±∞ is half-normal: a small sample may well have its maximum there.

    Parameters
    ----------
    location
        μ, link identity; not the mean
    scale
        σ > 0, link log
    shape
        α, link identity; its sign is that of the skewness

    References
    ----------
    Azzalini (1985), A class of distributions which includes the normal ones, Scand. J. Statist. 12.

    Examples
    --------
    >>> round(SkewNormal().log_prob(*torch.tensor([1.0, 0.0, 1.0, 2.0])).item(), 6)
    -0.748804
    """

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)
    shape = Parameter(real, boundary=math.inf, limit="half-normal")

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        z = (y - location) / scale
        return math.log(2) - torch.log(scale) - LOG_ROOT_2PI - z * z / 2 + log_ndtr(shape * z)

    def sample(
        self, location: Tensor, scale: Tensor, shape: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        location, scale, shape = torch.broadcast_tensors(location, scale, shape)
        a, b = torch.randn((2, *scale.shape), generator=generator, dtype=scale.dtype, device=scale.device)
        out: Tensor = location + scale * (shape * a.abs() + b) / torch.sqrt(1 + shape**2)
        return out

    def expectation(self, location: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return location + scale * math.sqrt(2 / math.pi) * shape / torch.sqrt(1 + shape**2)

    def variance(self, location: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return scale**2 * (1 - 2 / math.pi * shape**2 / (1 + shape**2)) + 0 * location

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, location, scale, shape))

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return self.log_survival(2 * location - y, location, scale, -shape)

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        z, shape = torch.broadcast_tensors((y - location) / scale, shape)
        # where z < 0: one minus the tail of −z, whose shape is −α
        right, left = (
            _log_upper(torch.where(z < 0, 1.0, z), shape),
            _log_upper(torch.where(z < 0, -z, 1.0), -shape),
        )
        return torch.where(z < 0, torch.log1p(-torch.exp(torch.where(z < 0, left, -1.0))), right)

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        zero, one = torch.zeros_like(shape), torch.ones_like(shape)

        def upper(z: Tensor) -> Tensor:
            return torch.exp(self.log_survival(z, zero, one, shape))

        return location + scale * invert_cdf(
            lambda z: self.cdf(z, zero, one, shape), q, -math.inf, math.inf, upper
        )

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        # the method of moments, from a skewness g that the family can have and that is not 0
        deviation = math.sqrt(weighted_variance(y, weight))
        if not 0 < deviation < math.inf:
            return weighted_mean(y, weight), 1.0, 1.0
        g = weighted_mean(((y - weighted_mean(y, weight)) / deviation) ** 3, weight)
        size = min(max(abs(g), 0.05), 0.9) ** (2 / 3)
        delta = math.copysign(math.sqrt(math.pi / 2 * size / (size + ((4 - math.pi) / 2) ** (2 / 3))), g)
        scale = deviation / math.sqrt(1 - 2 / math.pi * delta**2)
        return (
            weighted_mean(y, weight) - scale * delta * math.sqrt(2 / math.pi),
            scale,
            delta / math.sqrt(1 - delta**2),
        )


def _log_upper(z: Tensor, shape: Tensor) -> Tensor:
    """log P(Z > z) for z ≥ 0, all of it in units of 2φ(z), so that no z² is subtracted from another.

    By quadrature of the thin tail, that of −|α|. The tail of |α| is 2Φ(−z) less the thin one, at least half
    of which remains.
    """
    z = z.clamp(max=torch.finfo(z.dtype).max ** 0.49)  # short of what overflows when squared
    size = torch.where(shape < 0, -shape, shape)
    at, steep = z[..., None], -size[..., None]
    scale = 1 / (torch.sqrt(1 + size**2) + z * (1 + size**2))
    thin = log_tail(lambda x: log_ndtr(steep * (at + x)) - (at + x / 2) * x, scale)
    both = log_mills(z)
    return (
        math.log(2)
        - LOG_ROOT_2PI
        - z * z / 2
        + torch.where(shape < 0, thin, both + torch.log1p(-torch.exp(thin - both)))
    )
