"""Links: the strictly monotone maps between a parameter θ of a family and its linear predictor η.

    η = g(θ),      θ = g⁻¹(η)

    identity   η = θ                        log        η = log θ               sqrt             η = √θ
    inverse    η = 1/θ                      softplus   θ = log(1 + e^η)        inverse_squared  η = 1/θ²
    logit      η = log θ/(1 − θ)            probit     η = Φ⁻¹(θ)              power(λ)         η = θ^λ
    cloglog    η = log(−log(1 − θ))         loglog     η = −log(−log θ)        cauchit          η = tan(π(θ − ½))

Where g⁻¹ does not lead into the range of a parameter for every η (the identity for a Poisson mean, the log
for a probability), `within` says for which η it does: a fit keeps every row's η there.

A link of a probability also gives log θ and log(1 − θ) straight from η, so that no log-probability is ever
formed from a probability. Names are those of the field; `get` turns a name into the object.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus
from torch.special import log_ndtr, ndtr, ndtri

from ..errors import BadArgument


@dataclass(frozen=True)
class Link:
    """η = g(θ). `log_inverse` and `log1m_inverse` are log g⁻¹(η) and log(1 − g⁻¹(η)), exact in both tails.

    domain : the η for which g⁻¹ is defined; beyond them it is NaN
    image : where g⁻¹ leads, as an interval of θ
    increasing : whether g rises
    """

    domain: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    image: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    increasing: ClassVar[bool] = True

    def __call__(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def inverse(self, eta: Tensor) -> Tensor:
        raise NotImplementedError

    def log_inverse(self, eta: Tensor) -> Tensor:
        return torch.log(self.inverse(eta))

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return torch.log1p(-self.inverse(eta))

    def within(self, low: float, high: float) -> tuple[float, float]:
        """The interval of η for which low ≤ g⁻¹(η) ≤ high.

        Examples
        --------
        >>> log.within(0.0, 1.0)
        (-inf, 0.0)
        >>> logit.within(0.0, 1.0)
        (-inf, inf)
        """
        ends = []
        for end, reached, edge in ((low, self.image[0], 0), (high, self.image[1], 1)):
            inside = reached >= end if edge == 0 else reached <= end
            at = edge if self.increasing else 1 - edge
            ends.append(self.domain[at] if inside else float(self(torch.tensor(end, dtype=torch.float64))))
        return (min(ends), max(ends))

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

    image = (0.0, math.inf)

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(value)

    def inverse(self, eta: Tensor) -> Tensor:
        return torch.exp(eta)

    def log_inverse(self, eta: Tensor) -> Tensor:
        return eta

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        near = eta > -math.log(2)
        direct = torch.log(-torch.expm1(torch.where(near, eta, -1.0)))
        return torch.where(near, direct, torch.log1p(-torch.exp(torch.where(near, -1.0, eta))))


@dataclass(frozen=True)
class Inverse(Link):
    """η = 1/θ, θ > 0; of a parameter that may be negative, η ≠ 0."""

    domain = (0.0, math.inf)
    image = (0.0, math.inf)
    increasing = False

    def within(self, low: float, high: float) -> tuple[float, float]:
        return (-math.inf, math.inf) if low < 0 else super().within(low, high)

    def __call__(self, value: Tensor) -> Tensor:
        return 1 / value

    def inverse(self, eta: Tensor) -> Tensor:
        return 1 / eta

    def log_inverse(self, eta: Tensor) -> Tensor:
        return -torch.log(eta)


@dataclass(frozen=True)
class Logit(Link):
    """η = log θ/(1 − θ), 0 < θ < 1: the logistic distribution's quantile."""

    image = (0.0, 1.0)

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

    image = (0.0, 1.0)

    def __call__(self, value: Tensor) -> Tensor:
        out: Tensor = ndtri(value)
        return out

    def inverse(self, eta: Tensor) -> Tensor:
        out: Tensor = ndtr(eta)
        return out

    def log_inverse(self, eta: Tensor) -> Tensor:
        out: Tensor = log_ndtr(eta)
        return out

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        out: Tensor = log_ndtr(-eta)
        return out


@dataclass(frozen=True)
class CLogLog(Link):
    """η = log(−log(1 − θ)), 0 < θ < 1: the complementary log-log."""

    image = (0.0, 1.0)

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(-torch.log1p(-value))

    def inverse(self, eta: Tensor) -> Tensor:
        return -torch.expm1(-torch.exp(eta))

    def log_inverse(self, eta: Tensor) -> Tensor:
        # log(1 − e^(−e^η)) = η − e^η/2 + O(e^2η): below −18 the series is exact to float64, and the direct
        # form is 0 · ∞ in its gradient
        small = eta < -18
        direct = torch.log(-torch.expm1(-torch.exp(torch.where(small, 0.0, eta))))
        return torch.where(small, eta - torch.exp(eta) / 2, direct)

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return -torch.exp(eta)


@dataclass(frozen=True)
class Cauchit(Link):
    """η = tan(π(θ − ½)), 0 < θ < 1: the Cauchy distribution's quantile."""

    image = (0.0, 1.0)

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
class LogLog(Link):
    """η = −log(−log θ), 0 < θ < 1: the log-log, the complementary log-log of 1 − θ with its sign changed."""

    image = (0.0, 1.0)

    def __call__(self, value: Tensor) -> Tensor:
        return -torch.log(-torch.log(value))

    def inverse(self, eta: Tensor) -> Tensor:
        return torch.exp(-torch.exp(-eta))

    def log_inverse(self, eta: Tensor) -> Tensor:
        return -torch.exp(-eta)

    def log1m_inverse(self, eta: Tensor) -> Tensor:
        return cloglog.log_inverse(-eta)


@dataclass(frozen=True)
class Power(Link):
    """η = θ^λ, θ ≥ 0 (θ > 0 where λ < 0).

    Parameters
    ----------
    exponent
        λ, any number but 0, of which the limit is the link log

    Raises
    ------
    BadArgument
        λ is 0 or not a finite number

    Examples
    --------
    >>> Power(0.5).inverse(torch.tensor(3.0)).item()
    9.0
    """

    exponent: float

    def __post_init__(self) -> None:
        number = isinstance(self.exponent, (int, float)) and not isinstance(self.exponent, bool)
        if not number or not math.isfinite(self.exponent) or self.exponent == 0:
            raise BadArgument(
                f"exponent={self.exponent!r}. Accepted: a finite number other than 0; for 0 the link is "
                "'log'."
            )

    domain = (0.0, math.inf)
    image = (0.0, math.inf)

    @property
    def increasing(self) -> bool:
        return self.exponent > 0

    def __call__(self, value: Tensor) -> Tensor:
        return value**self.exponent

    def inverse(self, eta: Tensor) -> Tensor:
        inside = ~(eta < 0)
        return torch.where(inside, torch.where(inside, eta, 1.0) ** (1 / self.exponent), torch.nan)

    def log_inverse(self, eta: Tensor) -> Tensor:
        return torch.log(eta) / self.exponent

    def __str__(self) -> str:
        return f"power({self.exponent:g})"


@dataclass(frozen=True)
class Sqrt(Link):
    """η = √θ, θ ≥ 0."""

    domain = (0.0, math.inf)
    image = (0.0, math.inf)

    def __call__(self, value: Tensor) -> Tensor:
        return torch.sqrt(value)

    def inverse(self, eta: Tensor) -> Tensor:
        return torch.where(eta < 0, torch.nan, eta * eta)

    def log_inverse(self, eta: Tensor) -> Tensor:
        return 2 * torch.log(eta)


@dataclass(frozen=True)
class InverseSquared(Link):
    """η = 1/θ², θ > 0: the canonical link of the inverse Gaussian distribution."""

    domain = (0.0, math.inf)
    image = (0.0, math.inf)
    increasing = False

    def __call__(self, value: Tensor) -> Tensor:
        return value**-2

    def inverse(self, eta: Tensor) -> Tensor:
        return torch.rsqrt(eta)

    def log_inverse(self, eta: Tensor) -> Tensor:
        return -0.5 * torch.log(eta)

    def __str__(self) -> str:
        return "inverse_squared"


@dataclass(frozen=True)
class Scaled(Link):
    """A logit on (low, high):  η = log (θ − low)/(high − θ)."""

    low: float
    high: float

    @property
    def image(self) -> tuple[float, float]:
        return self.low, self.high

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(value - self.low) - torch.log(self.high - value)

    def inverse(self, eta: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.sigmoid(eta)


@dataclass(frozen=True)
class Above(Link):
    """A shifted log on (low, ∞):  η = log(θ − low)."""

    low: float

    @property
    def image(self) -> tuple[float, float]:
        return self.low, math.inf

    def __call__(self, value: Tensor) -> Tensor:
        return torch.log(value - self.low)

    def inverse(self, eta: Tensor) -> Tensor:
        return self.low + torch.exp(eta)


@dataclass(frozen=True)
class Softplus(Link):
    """θ = log(1 + e^η), θ > 0: linear where θ is large."""

    image = (0.0, math.inf)

    def __call__(self, value: Tensor) -> Tensor:
        return value + torch.log(-torch.expm1(-value))

    def inverse(self, eta: Tensor) -> Tensor:
        return softplus(eta)


identity, log, inverse, logit, probit, cloglog, cauchit = (
    Identity(),
    Log(),
    Inverse(),
    Logit(),
    Probit(),
    CLogLog(),
    Cauchit(),
)
softplus_link, loglog, sqrt, inverse_squared = Softplus(), LogLog(), Sqrt(), InverseSquared()

_every = (
    identity,
    log,
    inverse,
    logit,
    probit,
    cloglog,
    cauchit,
    softplus_link,
    loglog,
    sqrt,
    inverse_squared,
)
registry: dict[str, Link] = {str(link): link for link in _every}


def get(link: str | Link) -> Link:
    """The link of that name, or the link itself; "power(λ)" with a number for λ.

    Raises
    ------
    BadArgument
        no link has that name

    Examples
    --------
    >>> str(get("probit"))
    'probit'
    >>> get("power(0.5)")
    Power(exponent=0.5)
    """
    if isinstance(link, Link):
        return link
    power = re.fullmatch(r"\s*power\(\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*\)\s*", str(link).lower())
    if power:
        return Power(float(power[1]))
    name = re.sub(r"[\s-]+", "_", str(link).strip().lower())
    if name not in registry:
        raise BadArgument(f"unknown link {link!r}. Links: {', '.join(registry)}, power(λ) with a number λ.")
    return registry[name]
