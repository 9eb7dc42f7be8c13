"""The inverse Gaussian: positive amounts with a heavier right tail than the gamma's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import erfcx

from . import links
from .base import Derivatives, Parameter, Tailed, positives, weighted_mean, weighted_variance
from .ranges import positive, positive_or_infinite
from .special import LOG_ROOT_2PI, invert_cdf, log1mexp, log_ndtr, polynomial


@dataclass(frozen=True)
class InverseGaussian(Tailed):
    """The time at which a Brownian motion with drift first reaches a level.

        log p(y | μ, φ) = −½ log(2πφ) − (3/2)·log y − (y/μ − 1)² / 2φy

    Mean μ, variance φμ³; λ = 1/φ is the shape of other texts.

    Parameters
    ----------
    mean
        μ > 0, link log. μ = ∞ is Lévy's distribution, which a link such as inverse can reach.
    dispersion
        φ > 0, in the inverse of y's unit; link log

    References
    ----------
    Tweedie (1957), Statistical Properties of Inverse Gaussian Distributions I, Ann. Math. Statist. 28. The
    distribution function: Shuster (1968), On the Inverse Gaussian Distribution Function, J. Amer. Statist.
    Assoc. 63.

    Examples
    --------
    >>> round(InverseGaussian().log_prob(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(0.5)).item(), 6)
    -2.303617
    """

    mean = Parameter(positive_or_infinite, link=links.log)
    dispersion = Parameter(positive, link=links.log)
    support = positives

    def log_prob(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        return self._log_prob(y, torch.log(mean), torch.log(dispersion))

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        return self._log_prob(
            y, *(p.link.log_inverse(e) for p, e in zip(self.parameters.values(), eta, strict=True))
        )

    def _log_prob(self, y: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
        inside = torch.where(y > 0, y, 1.0)
        log_y = torch.log(inside)
        z = log_y - log_mean
        small = z < -0.7  # the slope of expm1 is formed as 1 + expm1, which loses e^z there
        excess = torch.where(small, torch.exp(z) - 1, torch.expm1(torch.where(small, 0.0, z)))  # y/μ − 1
        deviance = excess**2 * torch.exp(-log_dispersion) / inside
        return torch.where(y > 0, -LOG_ROOT_2PI - 0.5 * (log_dispersion + 3 * log_y + deviance), -math.inf)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        log_y = torch.log(y)
        excess = torch.expm1(log_y - eta[0])  # u − 1, u = y/μ
        scaled = excess * torch.exp(-eta[1]) / y
        slope = scaled * (excess + 1)
        half = 0.5 * scaled * excess
        value = (-LOG_ROOT_2PI - 0.5 * eta[1]) - 1.5 * log_y - half
        score = [slope, half - 0.5]
        if order < 2:
            return value, score, {}
        bend = -torch.exp(-eta[1] - eta[0]) * (2 * excess + 1)  # −u(2u − 1)/(φy), u/y = 1/μ
        return value, score, {(0, 0): bend, (0, 1): -slope, (1, 1): -half}

    def sample(self, mean: Tensor, dispersion: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Michael, Schucany and Haas (1976), Generating Random Variates Using Transformations with Multiple
        Roots."""
        mean, dispersion = torch.broadcast_tensors(mean, dispersion)
        half = 0.5 * mean * dispersion * torch.normal(torch.zeros_like(mean), 1.0, generator=generator) ** 2
        root = 1 + half + torch.sqrt(half * (2 + half))  # the larger root over μ; the smaller is its inverse
        u = torch.rand(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
        return mean * torch.where(u * (1 + root) <= root, 1 / root, root)

    def expectation(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean + 0 * dispersion

    def variance(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return dispersion * mean**3

    def tails(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> tuple[Tensor, Tensor]:
        """log P(Y ≤ y) and log P(Y > y): Φ(a) + e^(2/φμ)·Φ(−b) and its complement, a, b = (y/μ ∓ 1)/√(φy).

        As 2/φμ = (b² − a²)/2, the second term is e^(−a²/2)·M(b), M(b) = e^(b²/2)·Φ(−b), and nothing
        overflows.
        """
        y, mean, dispersion = torch.broadcast_tensors(y, mean, dispersion)
        inside = (y > 0) & (y < math.inf)
        y_in = torch.where(inside, y, mean)
        root = torch.sqrt(dispersion * y_in)
        a, b = (y_in - mean) / mean / root, (y_in + mean) / mean / root
        above = a > 0
        left, right = torch.where(above, 0.0, a), torch.where(above, a, 0.0)
        log_m, log_m_a = _log_mills(b), _log_mills(right)
        lower = torch.logaddexp(log_ndtr(left), log_m - 0.5 * left**2)
        upper = log_m_a - 0.5 * right**2 + log1mexp(torch.where(above, log_m - log_m_a, -1.0))
        log_cdf = torch.where(above, log1mexp(torch.where(above, upper, -1.0)), lower)
        log_survival = torch.where(above, upper, log1mexp(torch.where(above, -1.0, lower)))
        log_cdf = torch.where(inside, log_cdf, torch.where(y > 0, 0.0, -math.inf))
        return log_cdf, torch.where(inside, log_survival, torch.where(y > 0, -math.inf, 0.0))

    def quantile(self, q: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        lower, upper = (
            lambda y, tail=tail: torch.exp(self.tails(y, mean, dispersion)[tail]) for tail in (0, 1)
        )
        return invert_cdf(lower, q, 0.0, math.inf, upper)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean = weighted_mean(y, weight)
        return mean, min(max(weighted_variance(y / mean, weight), 1e-4), 1e4) / mean

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean = weighted_mean(y, weight)
        return mean, weighted_mean((y / mean - 1) ** 2 / y, weight)


def _log_mills(x: Tensor) -> Tensor:
    """log of e^(x²/2)·Φ(−x), x ≥ 0; from 15 on by its asymptotic series, as the derivative of erfcx cancels
    there."""
    far = x > 15
    near = torch.log(0.5 * erfcx(torch.where(far, 0.0, x) / math.sqrt(2)))
    out = torch.where(far, x, 15.0)
    series = polynomial(out**-2, [(-1.0) ** k * math.prod(range(1, 2 * k, 2)) for k in range(13)])
    return torch.where(far, torch.log(series) - torch.log(out) - LOG_ROOT_2PI, near)
