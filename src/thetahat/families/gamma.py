"""Waiting times and positive amounts: the exponential and the gamma distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import links
from .base import (
    Derivatives,
    Family,
    Parameter,
    Tailed,
    nonnegatives,
    positives,
    weighted_mean,
    weighted_variance,
)
from .incomplete import log_gammainc, stirling, stirling_jets
from .links import Log
from .ranges import positive
from .special import LOG_ROOT_2PI, invert_cdf, log1mexp, log_gamma_sample


@dataclass(frozen=True)
class Exponential(Family):
    """The time to an event whose rate is constant.

        log p(y | μ) = −log μ − y/μ

    Mean μ, variance μ².

    Parameters
    ----------
    mean
        μ > 0, link log

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., §13.3.1.

    Examples
    --------
    >>> round(Exponential().log_prob(torch.tensor(3.0), torch.tensor(2.0)).item(), 6)
    -2.193147
    """

    mean = Parameter(positive, link=links.log)
    support = nonnegatives

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        return torch.where(y >= 0, -torch.log(mean) - y / mean, -math.inf)

    def log_prob_eta(self, y: Tensor, eta: Tensor) -> Tensor:
        log_mean = self.parameters["mean"].link.log_inverse(eta)
        return torch.where(y >= 0, -log_mean - y * torch.exp(-log_mean), -math.inf)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if not isinstance(self.parameters["mean"].link, Log):
            return super().derivatives(y, eta, extras, order)
        ratio = y * torch.exp(-eta[0])
        return -eta[0] - ratio, [ratio - 1], {(0, 0): -ratio} if order > 1 else {}

    def sample(self, mean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return mean * torch.empty_like(mean).exponential_(generator=generator)

    def expectation(self, mean: Tensor) -> Tensor:
        return mean

    def variance(self, mean: Tensor) -> Tensor:
        return mean**2

    def cdf(self, y: Tensor, mean: Tensor) -> Tensor:
        return -torch.expm1(-y.clamp(min=0) / mean)

    def log_cdf(self, y: Tensor, mean: Tensor) -> Tensor:
        ratio = torch.where(y > 0, y, 1.0) / mean
        return torch.where(y > 0, log1mexp(-ratio), -math.inf)

    def log_survival(self, y: Tensor, mean: Tensor) -> Tensor:
        return -y.clamp(min=0) / mean

    def quantile(self, q: Tensor, mean: Tensor) -> Tensor:
        return -mean * torch.log1p(-q)

    def log_power_integral(self, beta: float, mean: Tensor) -> Tensor:
        return -beta * torch.log(mean) - math.log1p(beta)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (weighted_mean(y, weight) or 1.0,)

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (weighted_mean(y, weight),)

    @property
    def concave(self) -> bool:
        return isinstance(self.parameters["mean"].link, Log)


@dataclass(frozen=True)
class Gamma(Tailed):
    """Positive amounts whose standard deviation is proportional to their mean: claims, durations,
    concentrations.

        log p(y | μ, φ) = −(u − 1 − log u)/φ − ½ log(2πφ) − δ(1/φ) − log y,      u = y/μ

    the gamma density of shape 1/φ and scale φμ, with its terms collected so that none cancel; δ is what
    Stirling's formula leaves of log Γ. Mean μ, variance φμ². φ = 1 is the exponential distribution.

    Parameters
    ----------
    mean
        μ > 0, link log
    dispersion
        φ > 0, link log

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 8.

    Examples
    --------
    >>> round(Gamma().log_prob(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(0.5)).item(), 6)
    -1.901388
    """

    mean = Parameter(positive, link=links.log)
    dispersion = Parameter(positive, link=links.log)
    support = positives

    def log_prob(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        return self._log_prob(y, torch.log(mean), torch.log(dispersion))

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        return self._log_prob(
            y, *(p.link.log_inverse(e) for p, e in zip(self.parameters.values(), eta, strict=True))
        )

    def _log_prob(self, y: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
        log_y = torch.log(torch.where(y > 0, y, 1.0))
        z, shape = log_y - log_mean, torch.exp(-log_dispersion)
        value = -shape * (torch.expm1(z) - z) - 0.5 * log_dispersion - LOG_ROOT_2PI - stirling(shape) - log_y
        return torch.where(y > 0, value, -math.inf)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        shape = torch.exp(-eta[1])
        delta, delta1, delta2 = stirling_jets(shape)
        log_y = torch.log(y)
        z = log_y - eta[0]
        excess = torch.expm1(z)
        deviance = shape * (excess - z)
        value = -deviance - (0.5 * eta[1] + LOG_ROOT_2PI + delta) - log_y
        score = [shape * excess, deviance + (shape * delta1 - 0.5)]
        if order < 2:
            return value, score, {}
        both = -deviance - shape * (delta1 + shape * delta2)
        return value, score, {(0, 0): -score[0] - shape, (0, 1): -score[0], (1, 1): both}

    def sample(self, mean: Tensor, dispersion: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        mean, dispersion = torch.broadcast_tensors(mean, dispersion)
        log_y = log_gamma_sample(1 / dispersion, generator) + torch.log(mean * dispersion)
        return torch.exp(log_y).clamp(min=torch.finfo(mean.dtype).tiny)

    def expectation(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean + 0 * dispersion

    def variance(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return dispersion * mean**2

    def tails(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> tuple[Tensor, Tensor]:
        finite = y < math.inf
        x = torch.where(
            finite, torch.where(finite, y, 0.0) / (mean * dispersion), y
        )  # y = ∞ has no derivative of its quotient
        return log_gammainc(1 / dispersion, x)

    def quantile(self, q: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        shape = 1 / dispersion
        lower, upper = (lambda x, tail=tail: torch.exp(log_gammainc(shape, x)[tail]) for tail in (0, 1))
        return mean * dispersion * invert_cdf(lower, q, 0.0, math.inf, upper)

    def log_power_integral(self, beta: float, mean: Tensor, dispersion: Tensor) -> Tensor:
        # Γ(a) / (Γ(k)^(1+β) s^β (1+β)^a), k the shape, s = μ/k the scale, a = k + β(k − 1), Stirling's terms
        # collected; ∞ where a ≤ 0
        shape = 1 / dispersion
        a = shape + beta * (shape - 1)
        finite = a > 0
        a = torch.where(finite, a, 1.0)
        share = torch.where(finite, beta / ((1 + beta) * shape), 0.0)
        value = (1 + beta) / 2 * torch.log(shape) + a * torch.log1p(-share) + beta - 0.5 * torch.log(a)
        value = value + stirling(a) - (1 + beta) * stirling(shape) - beta * (LOG_ROOT_2PI + torch.log(mean))
        return torch.where(finite, value, math.inf)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean = weighted_mean(y, weight)
        return mean, min(max(weighted_variance(y / mean, weight), 1e-4), 1e4)
