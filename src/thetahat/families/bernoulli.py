"""Successes: one trial, several trials, and trials whose probability itself varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import links
from .base import Derivatives, Family, Parameter, Tailed, binary, counts, weighted_mean, weighted_variance
from .links import CLogLog, Identity, Link, Log, Logit, LogLog, Probit
from .negative_binomial import log_nb2
from .ranges import nonnegative, probability
from .special import (
    beta_fraction,
    count_quantile,
    log1mexp,
    log_factorial,
    log_gamma_sample,
    log_rising,
    log_sum,
    many,
)

_CONCAVE: tuple[type[Link], ...] = (
    Logit,
    Probit,
    CLogLog,
    LogLog,
    Log,
    Identity,
)  # log μ(η) and log(1 − μ(η)) both are


@dataclass(frozen=True)
class Bernoulli(Family):
    """One trial: logistic regression and its kin, by the link.

        log p(y | μ) = y·log μ + (1 − y)·log(1 − μ)

    Parameters
    ----------
    mean
        0 ≤ μ ≤ 1, link logit; probit, cloglog, loglog, cauchit, log, identity … by `link=`

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 4.

    Examples
    --------
    >>> round(Bernoulli().log_prob(torch.tensor(1.0), torch.tensor(0.25)).item(), 6)
    -1.386294
    """

    mean = Parameter(probability, link=links.logit)
    support = binary
    measure = "mass"

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        value = torch.xlogy(y, mean) + torch.special.xlog1py(1 - y, -mean)
        return torch.where(binary.contains(y), value, -torch.inf)

    def log_prob_eta(self, y: Tensor, eta: Tensor) -> Tensor:
        link = self.parameters["mean"].link
        success = y > 0.5
        # the side that was not observed is looked at in the middle: at the end of the range its slope is
        # infinite
        middle = self.parameters["mean"].limits.middle
        one, none = torch.where(success, eta, middle), torch.where(success, middle, eta)
        value = torch.where(success, link.log_inverse(one), link.log1m_inverse(none))
        return torch.where(binary.contains(y), value, -torch.inf)

    def log_prob_outputs(self, y: Tensor, outputs: Tensor, **extras: Tensor) -> Tensor:
        plain = (
            outputs.shape[-1] == 1
            and y.shape == outputs.shape[:-1]
            and isinstance(self.parameters["mean"].link, Logit)
        )
        if not plain or y.is_floating_point() or torch.compiler.is_compiling() or y.numel() == 0:
            return super().log_prob_outputs(y, outputs, **extras)
        own = y[:1] if y.ndim > 1 and y.stride(0) == 0 else y  # one y beside many η is looked at once
        low, high = torch.aminmax(own)
        if low < 0 or high > 1:
            return super().log_prob_outputs(y, outputs, **extras)
        turned = outputs[..., 0] * (
            1 - 2 * own.to(outputs.dtype)
        )  # every y is 0 or 1: log p = −log(1 + e^±η)
        return softplus(turned, threshold=40.0).neg_()

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if not isinstance(self.parameters["mean"].link, Logit):
            return super().derivatives(y, eta, extras, order)
        mean = torch.sigmoid(eta[0])
        value = y * eta[0] - softplus(eta[0], threshold=40.0)  # log(1 + e^η) = η to float64 above 40
        return value, [y - mean], {(0, 0): mean * (mean - 1)} if order > 1 else {}

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        if not isinstance(self.parameters["mean"].link, Logit):
            return super().third(y, eta, v, extras)
        mean = torch.sigmoid(eta[0])
        return [v[0, 0] * mean * (mean - 1) * (1 - 2 * mean)] if v else [torch.zeros_like(y)]

    @property
    def compiled(self) -> str | None:
        return "bernoulli" if isinstance(self.parameters["mean"].link, Logit) else None

    def sample(self, mean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.bernoulli(mean, generator=generator)

    def expectation(self, mean: Tensor) -> Tensor:
        return mean

    def variance(self, mean: Tensor) -> Tensor:
        return mean * (1 - mean)

    def cdf(self, y: Tensor, mean: Tensor) -> Tensor:
        return torch.where(y < 0, 0.0, torch.where(y < 1, 1 - mean, torch.ones_like(mean)))

    def quantile(self, q: Tensor, mean: Tensor) -> Tensor:
        return (q > 1 - mean).to(mean.dtype)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (min(max(weighted_mean(y, weight), 0.01), 0.99),)

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        return (weighted_mean(y, weight),)

    @property
    def concave(self) -> bool:
        return isinstance(self.parameters["mean"].link, _CONCAVE)

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.where(y > 0.5, 1.0, -1.0).to(torch.float64)
        return sign[:, None, None], torch.zeros(len(y), 1, dtype=torch.bool)


@dataclass(frozen=True)
class Binomial(Tailed):
    """The number of successes in m independent trials.

        log p(y | μ) = log m! − log y! − log (m − y)! + y·log μ + (m − y)·log(1 − μ)

    Mean mμ, variance mμ(1 − μ).

    Parameters
    ----------
    mean
        0 ≤ μ ≤ 1, the probability of success, link logit; probit, cloglog, loglog, cauchit, log, identity …
        by `link=`
    trials
        m, one number a row, known

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., §4.2.

    Examples
    --------
    >>> round(Binomial().log_prob(torch.tensor(1.0), torch.tensor(0.25), trials=torch.tensor(2.0)).item(), 6)
    -0.980829
    """

    mean = Parameter(probability, link=links.logit)
    support = counts
    measure = "mass"
    extras = {"trials": None}

    def in_support(self, y: Tensor, trials: Tensor) -> Tensor:
        return counts.contains(y) & (y <= trials)

    def log_prob(self, y: Tensor, mean: Tensor, trials: Tensor) -> Tensor:
        inside = self.in_support(y, trials)
        y = torch.where(inside, y, 0.0)
        value = _log_choose(trials, y) + torch.xlogy(y, mean) + torch.special.xlog1py(trials - y, -mean)
        return torch.where(inside, value, -torch.inf)

    def log_prob_eta(self, y: Tensor, eta: Tensor, trials: Tensor) -> Tensor:
        link, inside = self.parameters["mean"].link, self.in_support(y, trials)
        y = torch.where(inside, y, 0.0)
        failures = trials - y
        # a side without observations is looked at where it is finite: 0 · ∞ would be NaN
        middle = self.parameters["mean"].limits.middle
        value = y * link.log_inverse(torch.where(y > 0, eta, middle))
        value = value + failures * link.log1m_inverse(torch.where(failures > 0, eta, middle))
        return torch.where(inside, _log_choose(trials, y) + value, -torch.inf)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if extras is None or not isinstance(self.parameters["mean"].link, Logit):
            return super().derivatives(y, eta, extras, order)
        trials, logit = extras["trials"], eta[0].detach()
        mean = torch.sigmoid(logit)
        value = _log_choose(trials, y) + y * logit - trials * softplus(logit, threshold=40.0)
        return value, [y - trials * mean], {(0, 0): trials * mean * (mean - 1)} if order > 1 else {}

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        if extras is None or not isinstance(self.parameters["mean"].link, Logit):
            return super().third(y, eta, v, extras)
        mean = torch.sigmoid(eta[0])
        return (
            [v[0, 0] * extras["trials"] * mean * (mean - 1) * (1 - 2 * mean)] if v else [torch.zeros_like(y)]
        )

    def sample(self, mean: Tensor, *, trials: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, trials = torch.broadcast_tensors(mean, trials.to(mean.dtype))
        return torch.binomial(trials, mean, generator=generator)

    def expectation(self, mean: Tensor, trials: Tensor) -> Tensor:
        return trials * mean

    def variance(self, mean: Tensor, trials: Tensor) -> Tensor:
        return trials * mean * (1 - mean)

    def tails(self, y: Tensor, mean: Tensor, trials: Tensor) -> tuple[Tensor, Tensor]:
        """P(Y ≤ y) = I_{1−μ}(m − y, y + 1): the smaller tail from its fraction, the larger from its
        complement."""
        y, mean, m = torch.broadcast_tensors(torch.floor(y), mean, trials.to(mean.dtype))
        below, all_of_it = y < 0, y >= m
        y = torch.where(below | all_of_it, 0.0, y)
        m = torch.where(below | all_of_it, 1.0, m)
        gap = (m + 1) * mean - (y + 1)
        left = gap > 0
        a, b = torch.where(left, m - y, y + 1), torch.where(left, y + 1, m - y)
        fraction = beta_fraction(a, b, torch.where(left, 1 - mean, mean), torch.where(left, gap, -gap))
        prefactor = (
            _log_choose(m, y + 1)
            + torch.log(y + 1)
            + torch.xlogy(y + 1, mean)
            + torch.special.xlog1py(m - y, -mean)
        )
        smaller = prefactor + torch.log(fraction)
        larger = log1mexp(smaller)
        log_cdf, log_survival = torch.where(left, smaller, larger), torch.where(left, larger, smaller)
        log_cdf = torch.where(below, -torch.inf, torch.where(all_of_it, 0.0, log_cdf))
        return log_cdf, torch.where(below, 0.0, torch.where(all_of_it, -torch.inf, log_survival))

    def quantile(self, q: Tensor, mean: Tensor, trials: Tensor) -> Tensor:
        q, mean, trials = torch.broadcast_tensors(q, mean, trials.to(mean.dtype))
        return count_quantile(lambda y: self.cdf(y, mean, trials), q, trials)

    def start(self, y: Tensor, weight: Tensor, trials: Tensor) -> tuple[float, ...]:
        share = weighted_mean(y, weight) / max(weighted_mean(trials, weight), 1e-300)
        return (min(max(share, 0.01), 0.99),)

    def maximum(self, y: Tensor, weight: Tensor, trials: Tensor) -> tuple[float, ...]:
        return (weighted_mean(y, weight) / weighted_mean(trials, weight),)

    @property
    def concave(self) -> bool:
        return isinstance(self.parameters["mean"].link, _CONCAVE)

    def impossible(self, y: Tensor, j: int, high: bool, trials: Tensor) -> Tensor:
        return y != (trials if high else 0)

    def recession(self, y: Tensor, trials: Tensor) -> tuple[Tensor, Tensor]:
        return _one_sided(y, trials, 1)


@dataclass(frozen=True)
class BetaBinomial(Family):
    """The number of successes in m trials whose common probability is itself a Beta(μ/ρ, (1 − μ)/ρ) draw.

        log p(y | μ, ρ) = log C(m, y) + Σ_{k<y} log(μ + ρk) + Σ_{k<m−y} log(1 − μ + ρk) − Σ_{k<m} log(1 + ρk)

    Mean mμ, variance mμ(1 − μ)·(1 + mρ)/(1 + ρ). ρ → 0 is binomial; the correlation of two trials of a row is
    ρ/(1 + ρ).

    Parameters
    ----------
    mean
        0 ≤ μ ≤ 1, link logit; probit, cloglog, loglog, cauchit, log, identity … by `link=`
    dispersion
        ρ > 0, link log
    trials
        m, one number a row, known

    References
    ----------
    Griffiths (1973), Maximum likelihood estimation for the beta-binomial distribution, Biometrics 29, eq.
    1.1.

    Examples
    --------
    >>> half, m = torch.tensor(0.5), torch.tensor(2.0)
    >>> round(BetaBinomial().log_prob(torch.tensor(1.0), mean=half, dispersion=half, trials=m).item(), 6)
    -1.098612
    """

    mean = Parameter(probability, link=links.logit)
    dispersion = Parameter(nonnegative, link=links.log, boundary=0.0, limit="Binomial")
    support = counts
    measure = "mass"
    extras = {"trials": None}

    def in_support(self, y: Tensor, trials: Tensor) -> Tensor:
        return counts.contains(y) & (y <= trials)

    def log_prob(self, y: Tensor, mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
        return self._log_prob(y, torch.log(mean), torch.log1p(-mean), dispersion, trials)

    def log_prob_eta(self, y: Tensor, *eta: Tensor, trials: Tensor) -> Tensor:
        link = self.parameters["mean"].link
        return self._log_prob(
            y, link.log_inverse(eta[0]), link.log1m_inverse(eta[0]), torch.exp(eta[1]), trials
        )

    def _log_prob(
        self, y: Tensor, log_mean: Tensor, log1m_mean: Tensor, dispersion: Tensor, trials: Tensor
    ) -> Tensor:
        inside = self.in_support(y, trials)
        large = inside & many(trials, log_mean, log1m_mean, torch.log(dispersion))
        small, m = torch.where(inside & ~large, y, 0.0), torch.where(large, 0.0, trials)
        value = _log_choose(m, small) - log_rising(m, dispersion)
        for count, log_share in ((small, log_mean), (m - small, log1m_mean)):
            log_share = torch.where(count > 0, log_share, 0.0)  # Σ over no k is 0, whatever the share
            value = value + count * log_share + log_rising(count, dispersion * torch.exp(-log_share))
        if bool(large.any()):
            # rows that are not large are evaluated where nothing overflows, and dropped
            y, m, dispersion = (torch.where(large, t, 1.0) for t in (y, trials, dispersion))
            log_mean, log1m_mean = (torch.where(large, t, -1.0) for t in (log_mean, log1m_mean))
            value = torch.where(large, _of_many(y, log_mean, log1m_mean, dispersion, m), value)
        return torch.where(inside, value, -torch.inf)

    def sample(
        self, mean: Tensor, dispersion: Tensor, *, trials: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        mean, dispersion, trials = torch.broadcast_tensors(mean, dispersion, trials.to(mean.dtype))
        success = log_gamma_sample(mean / dispersion, generator)
        failure = log_gamma_sample((1 - mean) / dispersion, generator)
        return torch.binomial(trials, torch.sigmoid(success - failure), generator=generator)

    def expectation(self, mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
        return trials * mean + 0 * dispersion

    def variance(self, mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
        return trials * mean * (1 - mean) * (1 + trials * dispersion) / (1 + dispersion)

    def cdf(self, y: Tensor, mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, mean, dispersion, trials))

    def log_cdf(self, y: Tensor, mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
        y, mean, dispersion, trials = torch.broadcast_tensors(
            torch.floor(y), mean, dispersion, trials.to(mean.dtype)
        )
        lower = log_sum(
            lambda k: self.log_prob(k, mean, dispersion, trials),
            torch.zeros_like(y),
            torch.minimum(y, trials - 1),
        )
        return torch.where(y >= trials, 0.0, lower)

    def log_survival(self, y: Tensor, mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
        y, mean, dispersion, trials = torch.broadcast_tensors(
            torch.floor(y), mean, dispersion, trials.to(mean.dtype)
        )
        upper = log_sum(lambda k: self.log_prob(k, mean, dispersion, trials), (y + 1).clamp(min=1), trials)
        return torch.where(y < 0, 0.0, upper)

    def quantile(self, q: Tensor, mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
        q, mean, dispersion, trials = torch.broadcast_tensors(q, mean, dispersion, trials.to(mean.dtype))
        return count_quantile(lambda y: self.cdf(y, mean, dispersion, trials), q, trials)

    def start(self, y: Tensor, weight: Tensor, trials: Tensor) -> tuple[float, ...]:
        (mean,) = Binomial().start(y, weight, trials)
        m = weighted_mean(trials, weight)
        # Var y = mμ(1 − μ)·(1 + (m − 1)·ρ/(1 + ρ)), solved for ρ/(1 + ρ)
        excess = weighted_variance(y - trials * mean, weight) / max(m * mean * (1 - mean), 1e-300) - 1
        correlation = min(max(excess / max(m - 1, 1.0), 0.02), 0.8)
        return mean, correlation / (1 - correlation)

    def impossible(self, y: Tensor, j: int, high: bool, trials: Tensor) -> Tensor:
        return Binomial().impossible(y, j, high, trials) if j == 0 else super().impossible(y, j, high)

    def recession(self, y: Tensor, trials: Tensor) -> tuple[Tensor, Tensor]:
        return _one_sided(y, trials, 2)


def _of_many(y: Tensor, log_mean: Tensor, log1m_mean: Tensor, dispersion: Tensor, trials: Tensor) -> Tensor:
    """The beta-binomial mass as NB(y)·NB(m − y)/NB(m), means mμ, m(1 − μ), m and dispersions ρ/μ, ρ/(1 −
    μ), ρ, whose powers cancel: for many trials each is of the size of the answer, where the logarithms of
    the products have that of m·log m."""
    log_m, log_rho = torch.log(trials.clamp(min=1.0)), torch.log(dispersion)
    successes = log_nb2(y, log_m + log_mean, log_rho - log_mean)
    failures = log_nb2(trials - y, log_m + log1m_mean, log_rho - log1m_mean)
    return successes + failures - log_nb2(trials, log_m, log_rho)


def _log_choose(m: Tensor, y: Tensor) -> Tensor:
    return log_factorial(m) - log_factorial(y) - log_factorial(m - y)


def _one_sided(y: Tensor, trials: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """No success lets η fall, no failure lets it rise, both pin it, and no trial says nothing. The dispersion
    takes no part."""
    A = torch.zeros(len(y), 1, k, dtype=torch.float64, device=y.device)
    success, failure = y > 0, y < trials
    A[:, 0, 0] = success.to(A) - failure.to(A) + (success & failure).to(A)
    return A, (success & failure)[:, None]
