"""Huber's least favourable distribution: a normal in the middle, Laplace in the tails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtri

from ..errors import BadArgument
from . import links
from .base import Derivatives, Family, Parameter
from .ranges import positive, real
from .special import log_ndtr, median_and_spread


@dataclass(frozen=True)
class Huber(Family):
    """Huber's distribution: Huber's loss, with its scale made explicit and its normaliser exact.

        log p(y | μ, σ) = −log C − log σ − ρ(z),      z = (y − μ)/σ
        ρ(z) = z²/2 where |z| ≤ c,  c|z| − c²/2 beyond,      C = √(2π)·(2Φ(c) − 1) + (2/c)·e^(−c²/2)

    Mean μ. c → ∞ is Normal. Because C does not depend on σ, the scale is estimated with the location, as in
    any other family. The curvature jumps at |z| = c but is finite; log p is once continuously differentiable.

    Parameters
    ----------
    threshold
        c > 0; 1.345 is 95 % efficient for the location of normal data. A setting, never estimated
    location
        μ, link identity
    scale
        σ > 0, link log

    Raises
    ------
    BadArgument
        where threshold is not a positive number

    References
    ----------
    Huber (1964), Robust estimation of a location parameter, Ann. Math. Statist. 35, eq. (4.1).

    Examples
    --------
    >>> round(Huber().log_prob(torch.tensor(3.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -4.109086
    """

    threshold: float = 1.345

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < math.inf:
            raise BadArgument(f"threshold is a positive number of scales; got {self.threshold!r}.")

    @property
    def _parts(self) -> tuple[float, float]:
        """C, of the middle and of both tails."""
        c = self.threshold
        return math.sqrt(2 * math.pi) * math.erf(c / math.sqrt(2)), 2 / c * math.exp(-c * c / 2)

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        z = (y - location) / scale
        psi = z.clamp(-self.threshold, self.threshold)  # ρ′(z), and ρ(z) = ψz − ψ²/2
        return -math.log(sum(self._parts)) - torch.log(scale) - psi * (z - psi / 2)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        location, log_scale = eta
        root = torch.exp(-log_scale)
        z = (y - location) * root
        psi = z.clamp(-self.threshold, self.threshold)
        pull = psi * z
        value = -math.log(sum(self._parts)) - log_scale - pull + psi * psi / 2
        score = [psi * root, pull - 1]
        if order < 2:
            return value, score, {}
        core = torch.where(z.abs() <= self.threshold, z, 0.0)  # z where ρ is quadratic
        flat = (z.abs() <= self.threshold).to(z.dtype) * root
        return value, score, {(0, 0): -flat * root, (0, 1): -(core + psi) * root, (1, 1): -pull - core * core}

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        location, scale = torch.broadcast_tensors(location, scale)
        u = torch.rand((2, *scale.shape), generator=generator, dtype=scale.dtype, device=scale.device)
        size = self._upper_quantile((1 - u[0]) / 2)
        return location + scale * torch.where(u[1] < 0.5, size, -size)

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        return location + 0 * scale

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        c, (middle, tails) = self.threshold, self._parts
        return scale**2 * ((middle + tails * (2 + 2 / c**2)) / (middle + tails)) + 0 * location

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, location, scale))

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        z = (y - location) / scale
        log_upper = self._log_upper(torch.where(z < 0, -z, z))
        return torch.where(z < 0, log_upper, torch.log1p(-torch.exp(log_upper)))

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return self.log_cdf(2 * location - y, location, scale)

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        size = self._upper_quantile(torch.minimum(q, 1 - q))
        return location + scale * torch.where(q < 0.5, -size, size)

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor) -> Tensor:
        c, power = self.threshold, 1 + beta
        middle = math.sqrt(2 * math.pi / power) * math.erf(c * math.sqrt(power / 2))
        tails = 2 / (c * power) * math.exp(-power * c * c / 2)
        return (
            math.log(middle + tails)
            - power * math.log(sum(self._parts))
            - beta * torch.log(scale)
            + 0 * location
        )

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        centre, spread = median_and_spread(y, weight)
        return centre, 1.4 * spread

    def _log_upper(self, z: Tensor) -> Tensor:
        """log P(Z > z) for z ≥ 0: tail beyond c, tail + the normal's middle before."""
        c, (middle, tails) = self.threshold, self._parts
        outside = z > c
        inner = torch.where(outside, 0.0, z)
        # P(inner < N < c) of the normal, as a difference of its upper tails, which are exact
        between = math.sqrt(2 * math.pi) * (torch.exp(log_ndtr(-inner)) - math.erfc(c / math.sqrt(2)) / 2)
        beyond = c * c / 2 - math.log(c) - c * torch.where(outside, z, c)
        return torch.where(outside, beyond, torch.log(tails / 2 + between)) - math.log(middle + tails)

    def _upper_quantile(self, p: Tensor) -> Tensor:
        """The z ≥ 0 with P(Z > z) = p, 0 ≤ p ≤ ½."""
        c, (middle, tails) = self.threshold, self._parts
        mass = p * (middle + tails)
        outside = mass < tails / 2
        upper = (mass - tails / 2) / math.sqrt(2 * math.pi) + math.erfc(c / math.sqrt(2)) / 2
        return torch.where(
            outside, c / 2 - torch.log(c * mass) / c, -ndtri(torch.where(outside, 0.25, upper))
        )
