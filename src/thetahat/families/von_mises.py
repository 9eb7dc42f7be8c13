"""The von Mises distribution: the normal of the circle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.special import i0e

from . import links
from .base import Family, Parameter, Support
from .ranges import nonnegative, real
from .special import invert_cdf, polynomial

angles = Support("the angles in radians, taken modulo 2π")


@dataclass(frozen=True)
class VonMises(Family):
    """Angles around a mean direction.

        log p(y | μ, κ) = κ cos(y − μ) − log 2π − log I₀(κ)

    A density over one turn: it integrates to 1 over any interval of length 2π, and y and y + 2π are the same
    angle. Mean direction μ; κ large is Normal with variance 1/κ, κ → 0 is uniform on the circle. Where an
    angle must stand on a line (cdf, quantile, sample, expectation, variance) the circle is cut opposite μ,
    and y is the representative in (μ − π, μ + π].

    Parameters
    ----------
    location
        μ in radians, link identity (μ and μ + 2π are the same model)
    concentration
        κ > 0, link log

    References
    ----------
    Mardia and Jupp (2000), Directional Statistics, §3.5.4.

    Examples
    --------
    >>> round(VonMises().log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0)).item(), 6)
    -1.581266
    """

    location = Parameter(real)
    concentration = Parameter(nonnegative, link=links.log, boundary=0.0, limit="uniform on the circle")
    support = angles

    def log_prob(self, y: Tensor, location: Tensor, concentration: Tensor) -> Tensor:
        # cos − 1 = −2 sin²(½·): κ(cos − 1) keeps its digits for large κ, and I₀(κ)e^(−κ) does not overflow
        return (
            -2 * concentration * torch.sin((y - location) / 2) ** 2
            - math.log(2 * math.pi)
            - _log_i0e(concentration)
        )

    def sample(
        self, location: Tensor, concentration: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        location, kappa = torch.broadcast_tensors(location, concentration)
        shape, kappa = location.shape, kappa.reshape(-1).clamp(min=1e-30)
        angle = torch.empty_like(kappa)
        rows = torch.arange(len(kappa), device=kappa.device)
        while len(rows):
            draw, accepted = _best_fisher(kappa[rows], generator)
            angle[rows[accepted]] = draw[accepted]
            rows = rows[~accepted]
        return location + angle.reshape(shape)

    def expectation(self, location: Tensor, concentration: Tensor) -> Tensor:
        return location + 0 * concentration

    def variance(self, location: Tensor, concentration: Tensor) -> Tensor:
        """E (y − μ)² of the representative in (μ − π, μ + π]."""
        zero = torch.zeros_like(concentration)
        return 2 * _integral(zero, concentration, lambda angle: angle**2) + 0 * location

    def cdf(self, y: Tensor, location: Tensor, concentration: Tensor) -> Tensor:
        angle = _wrap(y - location)
        tail = _integral(torch.where(angle < 0, -angle, angle), concentration)
        return torch.where(angle < 0, tail, 1 - tail)

    def log_cdf(self, y: Tensor, location: Tensor, concentration: Tensor) -> Tensor:
        angle = _wrap(y - location)
        tail = _integral(torch.where(angle < 0, -angle, angle), concentration)
        return torch.where(angle < 0, torch.log(tail), torch.log1p(-tail))

    def log_survival(self, y: Tensor, location: Tensor, concentration: Tensor) -> Tensor:
        return self.log_cdf(2 * location - y, location, concentration)

    def quantile(self, q: Tensor, location: Tensor, concentration: Tensor) -> Tensor:
        def lower(angle: Tensor) -> Tensor:
            tail = _integral(torch.where(angle < 0, -angle, angle), concentration)
            return torch.where(angle < 0, tail, 1 - tail)

        return location + invert_cdf(lower, q, -math.pi, math.pi, lambda angle: lower(-angle))

    def log_power_integral(self, beta: float, location: Tensor, concentration: Tensor) -> Tensor:
        whole = _log_i0e((1 + beta) * concentration) - (1 + beta) * _log_i0e(concentration)
        return whole - beta * math.log(2 * math.pi) + 0 * location

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        # the mean direction and resultant length R̄, and Banerjee et al. (2005), eq. 4.4, for κ(R̄)
        cosine, sine = (float((weight * f(y)).sum() / weight.sum()) for f in (torch.cos, torch.sin))
        r = min(max(math.hypot(cosine, sine), 1e-3), 0.9999)
        return math.atan2(sine, cosine), r * (2 - r * r) / (1 - r * r)


def _wrap(angle: Tensor) -> Tensor:
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))


# √(2πκ) I₀(κ)e^(−κ) = Σ a_k κ⁻ᵏ, a_k = a_{k−1}·(2k − 1)²/8k: below 1e-16 after 16 terms for κ > 30
_HANKEL = [math.prod((2 * j - 1) ** 2 / (8 * j) for j in range(1, k + 1)) for k in range(1, 17)]


def _log_i0e(kappa: Tensor) -> Tensor:
    """log(I₀(κ)e^(−κ)); by Hankel's expansion above 30, where I₁/I₀ − 1 and its derivative would lose their
    digits."""
    large = kappa > 30
    inverse = 1 / torch.where(large, kappa, 30.0)
    far = torch.log1p(inverse * polynomial(inverse, _HANKEL)) + 0.5 * torch.log(inverse / (2 * math.pi))
    return torch.where(large, far, torch.log(i0e(torch.where(large, 1.0, kappa))))


def _integral(start: Tensor, kappa: Tensor, function: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """∫ function(φ)·p(φ) dφ from start ≥ 0 to π, by Gauss and Legendre's rule up to where the density has
    fallen by e⁻⁴⁰."""
    start, kappa = torch.broadcast_tensors(start, kappa)
    nodes, weights = (
        torch.as_tensor(a, dtype=start.dtype, device=start.device)
        for a in np.polynomial.legendre.leggauss(64)
    )
    base = torch.sin(start / 2) ** 2
    with torch.no_grad():  # what lies beyond the end does not count, and neither does its derivative
        end = torch.where(
            base + 20 / kappa < 1, 2 * torch.asin(torch.sqrt((base + 20 / kappa).clamp(max=1.0))), math.pi
        )
    half = ((end - start) / 2).clamp(min=torch.finfo(start.dtype).tiny)
    angle = start[..., None] + half[..., None] * (1 + nodes)
    density = torch.exp(-2 * kappa[..., None] * torch.sin(angle / 2) ** 2 - _log_i0e(kappa)[..., None]) / (
        2 * math.pi
    )
    return half * ((density if function is None else density * function(angle)) * weights).sum(-1)


def _best_fisher(kappa: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """A wrapped Cauchy angle for each κ, and whether it is accepted (about two of three are).

    Best and Fisher (1979), Appl. Statist. 28. Their r is (1 + √(1 + 4κ²))/2κ; all is written by r − 1, for
    large κ.
    """
    u = torch.rand((3, len(kappa)), generator=generator, dtype=kappa.dtype, device=kappa.device)
    excess = (1 + 1 / (torch.sqrt(1 + 4 * kappa**2) + 2 * kappa)) / (2 * kappa)  # r − 1
    z = torch.cos(math.pi * u[0])
    versine = excess * (1 - z) / (1 + excess + z)  # 1 − cos of the angle
    c = kappa * (excess + versine)
    accepted = ~(
        torch.log(c) - torch.log1p(-u[1]) + 1 - c < 0
    )  # a κ that is not a number is accepted: it would be drawn for ever
    angle = 2 * torch.asin(torch.sqrt((versine / 2).clamp(0.0, 1.0)))
    return torch.where(u[2] < 0.5, angle, -angle), accepted
