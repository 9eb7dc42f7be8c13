"""Links: the strictly monotone maps between a parameter θ of a family and its linear predictor η.

    η = g(θ),      θ = g⁻¹(η)

A link of a probability also gives log θ and log(1 − θ) straight from η, so that no log-probability is ever formed from a
probability. Names are those of the field; `get` turns a name into the object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus
from torch.special import log_ndtr, ndtr, ndtri

from ..errors import BadArgument


@dataclass(frozen=True)
class Link:
    """η = g(θ). `log_inverse` and `log1m_inverse` are log g⁻¹(η) and log(1 − g⁻¹(η)), exact in both tails."""

    def __call__(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def inverse(self, eta: Tensor) -> Tensor:
        raise NotImplementedError

    def log_inverse(self, eta: Tensor) -> Tensor:
        return torch.log(self.inverse(eta))

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return torch.log1p(-self.inverse(eta))

    def __str__(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Identity(Link):
    """η = θ."""

    def __call__(self, value: Tensor) -> Tensor:
        return value

    def inverse(self, eta: Tensor) -> Tensor:
        return eta


@dataclass(frozen=True)
class Log(Link):
    """η = log θ, θ > 0."""

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(value)

    def inverse(self, eta: Tensor) -> Tensor:
        return torch.exp(eta)

    def log_inverse(self, eta: Tensor) -> Tensor:
        return eta


@dataclass(frozen=True)
class Inverse(Link):
    """η = 1/θ, θ > 0."""

    def __call__(self, value: Tensor) -> Tensor:
        return 1 / value

    def inverse(self, eta: Tensor) -> Tensor:
        return 1 / eta

    def log_inverse(self, eta: Tensor) -> Tensor:
        return -torch.log(eta)


@dataclass(frozen=True)
class Logit(Link):
    """η = log θ/(1 − θ), 0 < θ < 1: the logistic distribution's quantile."""

    def __call__(self, value: Tensor) -> Tensor:
        return torch.logit(value)

    def inverse(self, eta: Tensor) -> Tensor:
        return torch.sigmoid(eta)

    def log_inverse(self, eta: Tensor) -> Tensor:
        return logsigmoid(eta)

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return logsigmoid(-eta)


@dataclass(frozen=True)
class Probit(Link):
    """η = Φ⁻¹(θ), 0 < θ < 1: the normal distribution's quantile."""

    def __call__(self, value: Tensor) -> Tensor:
        return ndtri(value)

    def inverse(self, eta: Tensor) -> Tensor:
        return ndtr(eta)

    def log_inverse(self, eta: Tensor) -> Tensor:
        return log_ndtr(eta)

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return log_ndtr(-eta)


@dataclass(frozen=True)
class CLogLog(Link):
    """η = log(−log(1 − θ)), 0 < θ < 1: the complementary log-log."""

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(-torch.log1p(-value))

    def inverse(self, eta: Tensor) -> Tensor:
        return -torch.expm1(-torch.exp(eta))

    def log_inverse(self, eta: Tensor) -> Tensor:
        # log(1 − e^(−e^η)) = η − e^η/2 + O(e^2η): below −18 the series is exact to float64, and the direct form is 0 · ∞ in its gradient
        small = eta < -18
        direct = torch.log(-torch.expm1(-torch.exp(torch.where(small, 0.0, eta))))
        return torch.where(small, eta - torch.exp(eta) / 2, direct)

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return -torch.exp(eta)


@dataclass(frozen=True)
class Cauchit(Link):
    """η = tan(π(θ − ½)), 0 < θ < 1: the Cauchy distribution's quantile."""

    def __call__(self, value: Tensor) -> Tensor:
        return torch.tan(math.pi * (value - 0.5))

    def inverse(self, eta: Tensor) -> Tensor:
        return 0.5 + torch.atan(eta) / math.pi

    def log_inverse(self, eta: Tensor) -> Tensor:
        # ½ + atan(η)/π = atan2(1, −η)/π, which keeps its relative accuracy for η → −∞
        return torch.log(torch.atan2(torch.ones_like(eta), -eta) / math.pi)

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return self.log_inverse(-eta)


@dataclass(frozen=True)
class Scaled(Link):
    """A logit on (low, high):  η = log (θ − low)/(high − θ)."""

    low: float
    high: float

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(value - self.low) - torch.log(self.high - value)

    def inverse(self, eta: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.sigmoid(eta)


@dataclass(frozen=True)
class Above(Link):
    """A shifted log on (low, ∞):  η = log(θ − low)."""

    low: float

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(value - self.low)

    def inverse(self, eta: Tensor) -> Tensor:
        return self.low + torch.exp(eta)


@dataclass(frozen=True)
class Softplus(Link):
    """θ = log(1 + e^η), θ > 0: linear where θ is large."""

    def __call__(self, value: Tensor) -> Tensor:
        return value + torch.log(-torch.expm1(-value))

    def inverse(self, eta: Tensor) -> Tensor:
        return softplus(eta)


identity, log, inverse, logit, probit, cloglog, cauchit = Identity(), Log(), Inverse(), Logit(), Probit(), CLogLog(), Cauchit()
softplus_link = Softplus()

registry: dict[str, Link] = {str(link): link for link in (identity, log, inverse, logit, probit, cloglog, cauchit, softplus_link)}


def get(link: str | Link) -> Link:
    """The link of that name, or the link itself.

    >>> str(get("probit"))
    'probit'
    """
    if isinstance(link, Link):
        return link
    if link not in registry:
        raise BadArgument(f"unknown link {link!r}. Links: {', '.join(registry)}.")
    return registry[link]
