"""The beta distribution: rates, shares and proportions strictly between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import links
from .base import Derivatives, Family, Parameter, units, weighted_mean, weighted_variance
from .incomplete import log_betainc, stirling, stirling_jets
from .ranges import positive, unit
from .special import LOG_ROOT_2PI, invert_cdf, log_gamma_sample


@dataclass(frozen=True)
class Beta(Family):
    """A share of a whole, by its mean and its precision.

        log p(y | μ, φ) = −φ·K + ½ log(φμ(1 − μ)/2π) + δ(φ) − δ(α) − δ(β) − log y(1 − y),      α = φμ,  β = φ(1 − μ)

    the beta density of shapes α and β, with its terms collected so that none cancel; δ is what Stirling's
    formula leaves of log Γ, and K = μ·log(μ/y) + (1 − μ)·log((1 − μ)/(1 − y)). Mean μ, variance μ(1 − μ)/(1 +
    φ).

    Parameters
    ----------
    mean
        0 < μ < 1, link logit
    precision
        φ > 0, link log

    References
    ----------
    Ferrari and Cribari-Neto (2004), Beta Regression for Modelling Rates and Proportions, J. Appl. Stat. 31.

    Examples
    --------
    >>> round(Beta().log_prob(torch.tensor(0.3), torch.tensor(0.5), torch.tensor(4.0)).item(), 6)
    0.231112
    """

    mean = Parameter(unit, link=links.logit)
    precision = Parameter(positive, link=links.log)
    support = units

    def log_prob(self, y: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        return self._log_prob(y, torch.logit(mean), torch.log(precision))

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        mean, precision = (p.link for p in self.parameters.values())
        return self._log_prob(
            y, mean.log_inverse(eta[0]) - mean.log1m_inverse(eta[0]), precision.log_inverse(eta[1])
        )

    def _log_prob(self, y: Tensor, logit: Tensor, log_precision: Tensor) -> Tensor:
        inside = (y > 0) & (y < 1)
        log_y, log_1my = _logs(torch.where(inside, y, 0.5))
        precision = torch.exp(log_precision)
        normaliser = (
            0.5 * (log_precision + logsigmoid(logit) + logsigmoid(-logit))
            - LOG_ROOT_2PI
            + stirling(precision)
        )
        for tail in (logit, -logit):
            normaliser = normaliser - stirling(torch.exp(log_precision + logsigmoid(tail)))
        value = normaliser - precision * _divergence(log_y - log_1my, logit) - log_y - log_1my
        return torch.where(inside, value, -math.inf)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        logit, log_precision = eta
        mean, rest, phi = torch.sigmoid(logit), torch.sigmoid(-logit), torch.exp(log_precision)
        alpha, beta = (torch.exp(log_precision + logsigmoid(tail)) for tail in (logit, -logit))
        (d, d1, d2), (a, a1, a2), (b, b1, b2) = (stirling_jets(k) for k in (phi, alpha, beta))
        log_y, log_1my = _logs(y)
        distance = (log_y - log_1my) - logit
        divergence = phi * _divergence(log_y - log_1my, logit)
        normaliser = 0.5 * (log_precision + logsigmoid(logit) + logsigmoid(-logit)) - LOG_ROOT_2PI + d - a - b
        value = normaliser - divergence - log_y - log_1my
        slope, tilt = mean * rest, rest - mean  # μ′ = dμ/dη, and μ″ = μ′·tilt
        scaled, gap = phi * slope, a1 - b1
        score = [
            scaled * distance + (0.5 * tilt - scaled * gap),
            (0.5 + phi * d1 - alpha * a1 - beta * b1) - divergence,
        ]
        if order < 2:
            return value, score, {}
        mean_mean = scaled * tilt * distance - (scaled + slope + scaled * (tilt * gap + scaled * (a2 + b2)))
        both = scaled * distance - scaled * (gap + alpha * a2 - beta * b2)
        constant = phi * (d1 + phi * d2) - alpha * (a1 + alpha * a2) - beta * (b1 + beta * b2)
        return value, score, {(0, 0): mean_mean, (0, 1): both, (1, 1): constant - divergence}

    def sample(self, mean: Tensor, precision: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        mean, precision = torch.broadcast_tensors(mean, precision)
        logit = log_gamma_sample(mean * precision, generator) - log_gamma_sample(
            (1 - mean) * precision, generator
        )
        limits = torch.finfo(mean.dtype)
        return torch.sigmoid(logit).clamp(min=limits.tiny, max=1 - limits.eps / 2)

    def expectation(self, mean: Tensor, precision: Tensor) -> Tensor:
        return mean + 0 * precision

    def variance(self, mean: Tensor, precision: Tensor) -> Tensor:
        return mean * (1 - mean) / (1 + precision)

    def cdf(self, y: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, mean, precision))

    def log_cdf(self, y: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        return log_betainc(mean * precision, (1 - mean) * precision, y)[0]

    def log_survival(self, y: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        return log_betainc(mean * precision, (1 - mean) * precision, y)[1]

    def quantile(self, q: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        lower, upper = (
            lambda y, tail=tail: torch.exp(tail(y, mean, precision))
            for tail in (self.log_cdf, self.log_survival)
        )
        return invert_cdf(lower, q, 0.0, 1.0, upper)

    def log_power_integral(self, beta: float, mean: Tensor, precision: Tensor) -> Tensor:
        first, second = mean * precision, (1 - mean) * precision
        a, b = first + beta * (first - 1), second + beta * (second - 1)
        finite = (a > 0) & (b > 0)
        inside = _log_beta(torch.where(finite, a, 1.0), torch.where(finite, b, 1.0))
        return torch.where(finite, inside - (1 + beta) * _log_beta(first, second), math.inf)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean = min(max(weighted_mean(y, weight), 1e-10), 1 - 1e-10)
        variance = weighted_variance(y, weight)
        return mean, min(max(mean * (1 - mean) / variance - 1, 0.1), 1e4) if variance > 0 else 1e4


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _logs(y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.log(y), torch.log1p(-y)


def _divergence(logit_y: Tensor, logit: Tensor) -> Tensor:
    """K = log(1 + μ·(e^d − 1)) − μ·d ≥ 0, d = logit y − logit μ; seen from the side where μ ≤ ½, which
    keeps its digits."""
    side = torch.where(logit > 0, -1.0, 1.0).to(logit)
    distance, tail = side * (logit_y - logit), side * logit
    far = distance > 100  # where e^d may overflow
    near = torch.log1p(torch.sigmoid(tail) * torch.expm1(torch.where(far, 0.0, distance)))
    return (
        torch.where(far, torch.logaddexp(logsigmoid(-tail), logsigmoid(tail) + distance), near)
        - torch.sigmoid(tail) * distance
    )
