"""Counts whose variance exceeds their mean because their rate varies: the negative binomial, its linear
kin, the geometric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import links
from .base import Derivatives, Family, Parameter, Tailed, counts, weighted_mean, weighted_variance
from .derivatives import one_value
from .links import Log
from .ranges import nonnegative
from .special import (
    LOG_ROOT_2PI,
    MANY,
    bennett,
    beta_fraction,
    count_quantile,
    log1mexp,
    log1p_remainder,
    log_factorial,
    log_rising,
    many,
    stirling_error,
)


@dataclass(frozen=True)
class NegativeBinomial(Tailed):
    """Counts whose variance grows with the square of their mean (NB2).

        log p(y | μ, α) = lgamma(y + 1/α) − lgamma(1/α) − lgamma(y + 1) − (1/α)·log(1 + αμ) + y·log(αμ / (1 + αμ))

    Mean μ, variance μ + αμ². α → 0 is Poisson: the boundary that the certificate reports.

    Parameters
    ----------
    mean
        μ ≥ 0, link log
    dispersion
        α > 0, link log

    References
    ----------
    Hilbe (2011), Negative Binomial Regression, 2nd ed., eq. 8.2.

    Examples
    --------
    >>> NegativeBinomial().log_prob(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(0.5)).item()
    -2.0794...
    """

    mean = Parameter(nonnegative, link=links.log)
    dispersion = Parameter(nonnegative, link=links.log, boundary=0.0, limit="Poisson")
    support = counts
    measure = "mass"

    def log_prob(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        return log_nb2(y, torch.log(mean), torch.log(dispersion))

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        return log_nb2(y, self.parameters["mean"].link.log_inverse(eta[0]), eta[1])

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if not isinstance(self.parameters["mean"].link, Log) or not bool(((y >= 0) & (y <= MANY)).all()):
            return super().derivatives(y, eta, extras, order)
        log_mean, log_dispersion = (e.detach() for e in eta)
        minus_log_p, mean, mean_p, p, q, excess = _parts(log_mean, log_dispersion)
        c, c1, c2, _ = _coefficient(y, log_dispersion)
        value = c + y * (log_mean - minus_log_p) - mean_p - excess  # (1/α)·log(1 + αμ) = μp + excess
        score = [p * (y - mean), c1 - q * y + excess]
        if order < 2:
            return value, score, {}
        cross = -q * score[0]
        return value, score, {(0, 0): cross - mean_p, (0, 1): cross, (1, 1): c2 + cross - excess}

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        if not isinstance(self.parameters["mean"].link, Log) or not bool(((y >= 0) & (y <= MANY)).all()):
            return super().third(y, eta, v, extras)
        log_mean, log_dispersion = (e.detach() for e in eta)
        _, mean, mean_p, p, q, excess = _parts(log_mean, log_dispersion)
        c3 = _coefficient(y, log_dispersion)[3]
        cross = -p * q * (y - mean)  # ∂²/∂η∂δ, η = log μ, δ = log α
        turned = (p - q) * cross
        nothing = torch.zeros_like(y)
        v00, v01, v11 = (v.get(ab, nothing) for ab in ((0, 0), (0, 1), (1, 1)))
        once, twice = turned + q * mean_p, turned  # ηηδ and ηδδ
        return [
            v00 * (turned - (p - q) * mean_p) + 2 * v01 * once + v11 * twice,
            v00 * once + 2 * v01 * twice + v11 * (c3 + turned + excess - q * mean_p),
        ]

    def sample(self, mean: Tensor, dispersion: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        mean, dispersion = torch.broadcast_tensors(mean, dispersion)
        shape = (1 / dispersion).clamp(max=1e30)
        return torch.poisson(
            mean * (torch._standard_gamma(shape, generator=generator) / shape), generator=generator
        )

    def expectation(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean + 0 * dispersion

    def variance(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean + dispersion * mean**2

    def tails(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> tuple[Tensor, Tensor]:
        return _tails(y, mean, dispersion)

    def quantile(self, q: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        q, mean, dispersion = torch.broadcast_tensors(q, mean, dispersion)
        return count_quantile(lambda y: self.cdf(y, mean, dispersion), q)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean, variance = max(weighted_mean(y, weight), 1e-3), weighted_variance(y, weight)
        return mean, min(max((variance - mean) / mean**2, 0.05), 20.0)

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _zeros_recede(y, 2)


@dataclass(frozen=True)
class NegativeBinomial1(Tailed):
    """Counts whose variance is a multiple of their mean (NB1).

        log p(y | μ, α) = lgamma(y + μ/α) − lgamma(μ/α) − lgamma(y + 1) − (μ/α)·log(1 + α) + y·log(α / (1 + α))

    Mean μ, variance μ(1 + α). α → 0 is Poisson. It is NB2 with the dispersion α/μ.

    Parameters
    ----------
    mean
        μ ≥ 0, link log
    dispersion
        α > 0, link log

    References
    ----------
    Cameron and Trivedi (1986), Econometric models based on count data, J. Appl. Econometrics 1, eq. 2.8.

    Examples
    --------
    >>> NegativeBinomial1().log_prob(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(1.0)).item()
    -2.0794...
    """

    mean = Parameter(nonnegative, link=links.log)
    dispersion = Parameter(nonnegative, link=links.log, boundary=0.0, limit="Poisson")
    support = counts
    measure = "mass"

    def log_prob(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        log_mean = torch.log(mean)
        return log_nb2(y, log_mean, torch.log(dispersion) - log_mean)

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        log_mean = self.parameters["mean"].link.log_inverse(eta[0])
        return log_nb2(y, log_mean, eta[1] - log_mean)

    def sample(self, mean: Tensor, dispersion: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return NegativeBinomial().sample(mean, dispersion / mean, generator=generator)

    def expectation(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean + 0 * dispersion

    def variance(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean * (1 + dispersion)

    def tails(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> tuple[Tensor, Tensor]:
        return _tails(y, mean, dispersion / mean)

    def quantile(self, q: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        return NegativeBinomial().quantile(q, mean, dispersion / mean)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean, variance = max(weighted_mean(y, weight), 1e-3), weighted_variance(y, weight)
        return mean, min(max(variance / mean - 1, 0.05), 1e3)

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _zeros_recede(y, 2)


@dataclass(frozen=True)
class Geometric(Family):
    """The number of failures before the first success.

        log p(y | μ) = y·log μ − (y + 1)·log(1 + μ),      which is (1 − π)^y π with π = 1/(1 + μ)

    Mean μ, variance μ + μ²: the negative binomial with dispersion 1.

    Parameters
    ----------
    mean
        μ ≥ 0, link log

    References
    ----------
    Johnson, Kemp and Kotz (2005), Univariate Discrete Distributions, 3rd ed., §5.2.

    Examples
    --------
    >>> round(Geometric().log_prob(torch.tensor(2.0), torch.tensor(1.0)).item(), 6)
    -2.079442
    """

    mean = Parameter(nonnegative, link=links.log)
    support = counts
    measure = "mass"

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        inside = counts.contains(y)
        y = torch.where(inside, y, 0.0)
        return torch.where(
            inside, -torch.where(y > 0, y * torch.log1p(1 / mean), 0.0) - torch.log1p(mean), -torch.inf
        )

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        log_mean = self.parameters["mean"].link.log_inverse(eta[0])
        inside = counts.contains(y)
        y = torch.where(inside, y, 0.0)
        return torch.where(inside, _geometric(y, log_mean), -torch.inf)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if not isinstance(self.parameters["mean"].link, Log):
            return super().derivatives(y, eta, extras, order)
        log_mean = eta[0].detach()
        q, p = torch.sigmoid(log_mean), torch.sigmoid(-log_mean)
        return _geometric(y, log_mean), [y * p - q], {(0, 0): -(y + 1) * q * p} if order > 1 else {}

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        if not isinstance(self.parameters["mean"].link, Log):
            return super().third(y, eta, v, extras)
        q, p = torch.sigmoid(eta[0]), torch.sigmoid(-eta[0])
        return [-v[0, 0] * (y + 1) * q * p * (p - q)] if v else [torch.zeros_like(y)]

    def sample(self, mean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        u = 1 - torch.rand(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
        return torch.floor(-torch.log(u) / torch.log1p(1 / mean))

    def expectation(self, mean: Tensor) -> Tensor:
        return mean

    def variance(self, mean: Tensor) -> Tensor:
        return mean + mean**2

    def cdf(self, y: Tensor, mean: Tensor) -> Tensor:
        return -torch.expm1(self.log_survival(y, mean))

    def log_cdf(self, y: Tensor, mean: Tensor) -> Tensor:
        survival = self.log_survival(y, mean)
        return torch.where(y < 0, -torch.inf, log1mexp(torch.where(y < 0, -1.0, survival)))

    def log_survival(self, y: Tensor, mean: Tensor) -> Tensor:
        return -(torch.floor(y) + 1).clamp(min=0) * torch.log1p(1 / mean)

    def quantile(self, q: Tensor, mean: Tensor) -> Tensor:
        y = (torch.ceil(-torch.log1p(-q) / torch.log1p(1 / mean)) - 1).clamp(min=0)
        lower = (y - 1).clamp(min=0)  # the ceiling of a rounded quotient may be one too many, or one too few
        return torch.where(self.cdf(lower, mean) >= q, lower, torch.where(self.cdf(y, mean) >= q, y, y + 1))

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (max(weighted_mean(y, weight), 1e-3),)

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (weighted_mean(y, weight),)

    @property
    def concave(self) -> bool:
        return isinstance(self.parameters["mean"].link, Log)

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _zeros_recede(y, 1)


def _geometric(y: Tensor, log_mean: Tensor) -> Tensor:
    """y·log(μ/(1 + μ)) − log(1 + μ), the two logarithms of the first term in one: for a large μ they
    cancel."""
    return -y * softplus(-log_mean, threshold=40.0) - softplus(log_mean, threshold=40.0)


def log_nb2(y: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """NB2, with (1/α)·log(1 + αμ) = μ·(p + q·χ(αμ)), q = αμ/(1 + αμ) = 1 − p: nothing cancels as α → 0."""
    inside = counts.contains(y)
    large = inside & many(y, log_mean, log_dispersion)
    small = torch.where(inside & ~large, y, 0.0)
    log_odds = log_mean + log_dispersion
    minus_log_p = softplus(log_odds, threshold=40.0)
    x = torch.exp(log_odds.clamp(max=200.0))
    # exp, not sigmoid, whose gradient s(1 − s) loses its digits near s = 1; the bound keeps the gradient's
    # powers of αμ finite
    mean_p = torch.exp(log_mean - minus_log_p)
    rising = log_rising(small, torch.exp(log_dispersion)) - log_factorial(small)
    value = rising + small * (log_mean - minus_log_p) - mean_p * (1 + x * bennett(x))
    if bool(large.any()):
        # rows that are not large are evaluated where nothing overflows, and dropped
        log_mean, log_dispersion = (torch.where(large, e, 0.0) for e in (log_mean, log_dispersion))
        value = torch.where(
            large, _of_many(torch.where(large, y, 2.0 * MANY), log_mean, log_dispersion), value
        )
    return torch.where(inside, value, -torch.inf)


def _of_many(y: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """NB2 for large y, whose terms have the size of the answer and not of y (Loader's saddle-point form), s
    Stirling's error:

    log p = −½ log 2πy − ½ log(1 + αy) + s(y + 1/α) − s(1/α) − s(y) − δ²·(h(δ/y)/y + α·h(−αδ)),    δ = (μ − y)/(1 + αμ)
    """
    minus_log_p = softplus(log_mean + log_dispersion, threshold=40.0)
    mean_p = torch.exp(log_mean - minus_log_p)
    gap = mean_p - y * torch.exp(-minus_log_p)
    dispersion = torch.exp(log_dispersion)
    ay = dispersion * y
    # 1 + δ/y = αμ(1 + αy)/(αy(1 + αμ)) and 1 − αδ = (1 + αy)/(1 + αμ)
    left = log1p_remainder(gap / y, torch.log(mean_p / y) + torch.log1p(ay))
    right = log1p_remainder(-dispersion * gap, torch.log1p(ay) - minus_log_p)
    inverse = dispersion / (1 + ay)
    corrections = stirling_error(1 / inverse, inverse) - stirling_error(
        torch.exp(-log_dispersion), dispersion
    )
    shape = corrections - stirling_error(y, 1 / y) - 0.5 * torch.log1p(ay)
    return shape - LOG_ROOT_2PI - 0.5 * torch.log(y) - gap * (gap / y * left + dispersion * gap * right)


def _parts(log_mean: Tensor, log_dispersion: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """log(1 + αμ), μ, μp, p, q and the excess E of (1/α)·log(1 + αμ) = μp + E; p = 1/(1 + αμ), q = 1 − p."""
    alpha = one_value(log_dispersion)
    x = torch.exp((log_mean + alpha).clamp(max=600.0))
    minus_log_p, p = torch.log1p(x), 1 / (1 + x)
    mean = torch.exp(log_mean)
    mean_p = mean * p
    if float(x.min() if x.numel() else 1.0) > 1e-3:  # the closed form keeps 13 digits of the excess there
        excess = minus_log_p * torch.exp(-alpha) - mean_p
    else:
        excess = mean_p * x * bennett(x)
    return minus_log_p, mean, mean_p, p, x * p, excess


def _coefficient(y: Tensor, log_dispersion: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log Π_{k<y} (1 + αk)/(k + 1), and its first three derivatives in log α, for counts up to `MANY`.

    With one α for all rows they are running sums over k, looked up at y; else each row's own sum: exact for every
    α, and no lgamma a row.
    """
    log_dispersion, shape = one_value(log_dispersion), y.shape
    y = y.reshape(-1)
    if not y.numel():
        return y, y, y, y
    most = int(y.max())
    if log_dispersion.numel() == 1:
        k = torch.arange(most, dtype=y.dtype, device=y.device)
        steps = torch.stack([*_step(torch.exp(log_dispersion.reshape(1)) * k)])
        steps[0] -= torch.log1p(k)
        table = torch.cumsum(torch.cat([steps.new_zeros(4, 1), steps], 1), 1)
        c, c1, c2, c3 = torch.index_select(table, 1, y.long())
        return c.view(shape), c1.view(shape), c2.view(shape), c3.view(shape)
    order = torch.argsort(y, descending=True)
    sums, alpha = y.new_zeros(4, len(y)), torch.exp(log_dispersion.expand(shape).reshape(-1)[order])
    beyond = len(y) - torch.cumsum(torch.bincount(y.long(), minlength=most + 1), 0)  # rows with more than k
    for count, rows in enumerate(beyond[:-1].tolist()):
        for total, step in zip(sums, _step(alpha[:rows] * count), strict=True):
            total[:rows] += step
    found = torch.empty_like(sums)
    found[:, order] = sums
    c, c1, c2, c3 = found
    return (c - log_factorial(y)).view(shape), c1.view(shape), c2.view(shape), c3.view(shape)


def _step(ak: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log(1 + αk), and its first three derivatives in log α."""
    rest = 1 / (1 + ak)
    share = ak * rest
    second = share * rest
    return torch.log1p(ak), share, second, second * (rest - share)


def _tails(y: Tensor, mean: Tensor, dispersion: Tensor) -> tuple[Tensor, Tensor]:
    """log P(Y ≤ y) and log P(Y > y): the smaller from the incomplete beta's fraction, the larger from its
    complement.

    P(Y ≤ y) = I_p(1/α, y + 1), p = 1/(1 + αμ);      both tails have the prefactor (y + 1)·P(Y = y + 1)
    """
    y, mean, dispersion = torch.broadcast_tensors(torch.floor(y), mean, dispersion)
    below = y < 0
    y = torch.where(below, 0.0, y)
    dispersion = dispersion.clamp(min=1e-100)
    r, x = 1 / dispersion, dispersion * mean
    gap = (mean - (y + 1)) / (1 + x)
    left = gap > 0
    a, b = torch.where(left, r, y + 1), torch.where(left, y + 1, r)
    fraction = beta_fraction(a, b, torch.where(left, 1 / (1 + x), x / (1 + x)), torch.where(left, gap, -gap))
    smaller = NegativeBinomial().log_prob(y + 1, mean, dispersion) + torch.log(y + 1) + torch.log(fraction)
    larger = log1mexp(smaller)
    log_cdf, log_survival = torch.where(left, smaller, larger), torch.where(left, larger, smaller)
    return torch.where(below, -torch.inf, log_cdf), torch.where(below, 0.0, log_survival)


def _zeros_recede(y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """y = 0 is ever more probable as log μ → −∞; y > 0 pins it; the dispersion takes no part."""
    A = torch.zeros(len(y), 1, k, dtype=torch.float64, device=y.device)
    A[:, 0, 0] = -1.0
    return A, (y > 0)[:, None]
