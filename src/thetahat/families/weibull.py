"""Survival times: the Weibull and the log-logistic, whose tails are closed forms."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import links
from .base import Derivatives, Family, Parameter, positives, weighted_mean, weighted_variance
from .links import cloglog
from .ranges import positive


def _log(y: Tensor) -> Tensor:
    """log y, and 0 where y has none."""
    return torch.log(torch.where(y > 0, y, 1.0))


def _at_ends(y: Tensor, inside: Tensor, below: float, above: float) -> Tensor:
    """`inside` for 0 < y < ∞, and what it becomes at the ends, where its formula is 0 · ∞."""
    return torch.where(y > 0, torch.where(y < math.inf, inside, above), below)


def _log_moments(y: Tensor, weight: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of log y."""
    log_y = torch.log(y)
    return weighted_mean(log_y, weight), math.sqrt(weighted_variance(log_y, weight))


class _Power(Family):
    """y = scale · e^(w/k) with w of a density without parameters: log p(y) = log k − log y + log p(w),  w =
    k·log(y/scale)."""

    scale = Parameter(positive, link=links.log)
    shape = Parameter(positive, link=links.log)
    support = positives

    def log_prob(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return self._log_prob(y, torch.log(scale), torch.log(shape))

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        return self._log_prob(
            y, *(p.link.log_inverse(e) for p, e in zip(self.parameters.values(), eta, strict=True))
        )

    def _log_prob(self, y: Tensor, log_scale: Tensor, log_shape: Tensor) -> Tensor:
        log_y = _log(y)
        log_density = self._log_density(torch.exp(log_shape) * (log_y - log_scale))
        return torch.where(y > 0, log_shape - log_y + log_density, -math.inf)

    @abstractmethod
    def _log_density(self, w: Tensor) -> Tensor:
        """log p(w)."""

    def _w(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return shape * (_log(torch.where(y < math.inf, y, 1.0)) - torch.log(scale))


@dataclass(frozen=True)
class Weibull(_Power):
    """Times to failure, of a hazard that is a power of time.

        log p(y | λ, k) = log k − log y + w − e^w,      w = k·log(y/λ)

    Survival exp(−(y/λ)^k), mean λ·Γ(1 + 1/k). k = 1 is the exponential distribution.

    Parameters
    ----------
    scale
        λ > 0, link log
    shape
        k > 0, link log

    References
    ----------
    Weibull (1951), A Statistical Distribution Function of Wide Applicability, J. Appl. Mech. 18.

    Examples
    --------
    >>> round(Weibull().log_prob(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(1.5)).item(), 6)
    -1.922067
    """

    def _log_density(self, w: Tensor) -> Tensor:
        return w - torch.exp(w)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        shape, log_y = torch.exp(eta[1]), torch.log(y)
        w = shape * (log_y - eta[0])
        hazard, excess = torch.exp(w), torch.expm1(w)
        value = eta[1] - log_y + w - hazard
        score = [shape * excess, 1 - w * excess]
        if order < 2:
            return value, score, {}
        bend = w * hazard
        return (
            value,
            score,
            {(0, 0): -(shape**2) * hazard, (0, 1): shape * (excess + bend), (1, 1): -w * (excess + bend)},
        )

    def sample(self, scale: Tensor, shape: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        scale, shape = torch.broadcast_tensors(scale, shape)
        return scale * torch.empty_like(scale).exponential_(generator=generator) ** (1 / shape)

    def expectation(self, scale: Tensor, shape: Tensor) -> Tensor:
        return scale * torch.exp(torch.lgamma(1 + 1 / shape))

    def variance(self, scale: Tensor, shape: Tensor) -> Tensor:
        log_mean = torch.lgamma(1 + 1 / shape)
        return scale**2 * torch.exp(2 * log_mean) * torch.expm1(torch.lgamma(1 + 2 / shape) - 2 * log_mean)

    def cdf(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return _at_ends(y, -torch.expm1(-torch.exp(self._w(y, scale, shape))), 0.0, 1.0)

    def log_cdf(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return _at_ends(y, cloglog.log_inverse(self._w(y, scale, shape)), -math.inf, 0.0)

    def log_survival(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return _at_ends(y, -torch.exp(self._w(y, scale, shape)), 0.0, -math.inf)

    def quantile(self, q: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return scale * (-torch.log1p(-q)) ** (1 / shape)

    def log_power_integral(self, beta: float, scale: Tensor, shape: Tensor) -> Tensor:
        a = 1 + beta - beta / shape  # (k/λ)^β Γ(a) (1 + β)^(−a)
        value = (
            beta * torch.log(shape / scale) + torch.lgamma(torch.where(a > 0, a, 1.0)) - a * math.log1p(beta)
        )
        return torch.where(a > 0, value, math.inf)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean, deviation = _log_moments(
            y, weight
        )  # log y has mean log λ − γ/k (γ Euler's) and deviation π/(k√6)
        shape = math.pi / math.sqrt(6) / min(max(deviation, 1e-2), 1e2)
        return math.exp(mean + 0.5772156649015329 / shape), shape


@dataclass(frozen=True)
class LogLogistic(_Power):
    """Survival times whose odds of having ended are a power of time.

        log p(y | α, k) = log k − log y + log σ(w) + log σ(−w),      w = k·log(y/α),  σ(w) = 1/(1 + e^(−w))

    Median α, distribution function σ(w); the mean exists for k > 1, the variance for k > 2.

    Parameters
    ----------
    scale
        α > 0, the median; link log
    shape
        k > 0, link log

    References
    ----------
    Bennett (1983), Log-Logistic Regression Models for Survival Data, J. R. Statist. Soc. C 32.

    Examples
    --------
    >>> round(LogLogistic().log_prob(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(1.5)).item(), 6)
    -2.170527
    """

    def _log_density(self, w: Tensor) -> Tensor:
        return logsigmoid(w) + logsigmoid(-w)

    def sample(self, scale: Tensor, shape: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        scale, shape = torch.broadcast_tensors(scale, shape)
        u, v = (torch.empty_like(scale).exponential_(generator=generator) for _ in range(2))
        return scale * (u / v) ** (1 / shape)  # a ratio of exponentials has odds u/v of logistic logarithm

    def expectation(self, scale: Tensor, shape: Tensor) -> Tensor:
        angle = math.pi / shape
        return torch.where(shape > 1, scale * angle / torch.sin(angle), math.inf)

    def variance(self, scale: Tensor, shape: Tensor) -> Tensor:
        angle = math.pi / shape
        second = (angle / torch.sin(angle)) ** 2 * (torch.tan(angle) / angle - 1)
        return torch.where(shape > 2, scale**2 * second, math.inf)

    def cdf(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, scale, shape))

    def log_cdf(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return _at_ends(y, logsigmoid(self._w(y, scale, shape)), -math.inf, 0.0)

    def log_survival(self, y: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return _at_ends(y, logsigmoid(-self._w(y, scale, shape)), 0.0, -math.inf)

    def quantile(self, q: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
        return scale * (q / (1 - q)) ** (1 / shape)

    def log_power_integral(self, beta: float, scale: Tensor, shape: Tensor) -> Tensor:
        below, above = 1 + beta - beta / shape, 1 + beta + beta / shape  # (k/α)^β B(1 + β − β/k, 1 + β + β/k)
        value = (
            torch.lgamma(torch.where(below > 0, below, 1.0)) + torch.lgamma(above) - math.lgamma(2 + 2 * beta)
        )
        return torch.where(below > 0, value + beta * torch.log(shape / scale), math.inf)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean, deviation = _log_moments(y, weight)  # log y is logistic, of deviation π/(k√3)
        return math.exp(mean), math.pi / math.sqrt(3) / min(max(deviation, 1e-2), 1e2)
