"""Counts that come in clusters: the generalised Poisson distribution of Consul and Jain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import links
from .base import Family, Parameter, counts, weighted_mean, weighted_variance
from .ranges import nonnegative
from .special import count_quantile, log1mexp, log_poisson, log_sum, log_sum_above, many


@dataclass(frozen=True)
class GeneralizedPoisson(Family):
    """The total progeny of a Poisson number of families: a count whose variance grows with the cube of its
    mean (GP-2).

        log p(y | μ, α) = y·log(μ / (1 + αμ)) + (y − 1)·log(1 + αy) − log y! − μ(1 + αy) / (1 + αμ)

    Mean μ, variance μ(1 + αμ)². α → 0 is Poisson. In Consul and Jain's own parameters the rate is θ = μ/(1 +
    αμ) and the clustering λ = αθ; 0 ≤ λ < 1, so that the mass sums to 1 exactly, with no truncation.

    Parameters
    ----------
    mean
        μ ≥ 0, link log
    dispersion
        α > 0, link log

    References
    ----------
    Consul and Famoye (1992), Generalized Poisson regression model, Comm. Statist. Theory Methods 21, eq. 2.1.

    Examples
    --------
    >>> round(GeneralizedPoisson().log_prob(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(0.5)).item(), 6)
    -2.459178
    """

    mean = Parameter(nonnegative, link=links.log)
    dispersion = Parameter(nonnegative, link=links.log, boundary=0.0, limit="Poisson")
    support = counts
    measure = "mass"

    def log_prob(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        return self._log_prob(y, torch.log(mean), torch.log(dispersion))

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        return self._log_prob(y, self.parameters["mean"].link.log_inverse(eta[0]), eta[1])

    def _log_prob(self, y: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
        inside = counts.contains(y)
        y = torch.where(inside, y, 0.0)
        minus_log_p = softplus(log_mean + log_dispersion, threshold=40.0)
        log_rate = log_mean - minus_log_p
        large = many(y, log_mean, log_dispersion)
        small, ay = torch.where(large, 0.0, y), torch.exp(log_dispersion) * y
        # Poisson's mass of the mean m = μ(1 + αy)/(1 + αμ), less log(1 + αy)
        log_m = log_rate + torch.log1p(ay)
        value = small * log_m - torch.lgamma(small + 1) - torch.exp(log_m)
        if bool(large.any()):
            # rows that are not large are evaluated where nothing overflows, and dropped
            gap = torch.exp(log_rate) - y * torch.exp(-minus_log_p)  # m − y = (μ − y)/(1 + αμ)
            y, mean, gap = (
                torch.where(large, v, at) for v, at in ((y, 1.0), (torch.exp(log_m), 1.0), (gap, 0.0))
            )
            value = torch.where(large, log_poisson(y, mean, gap), value)
        return torch.where(inside, value - torch.log1p(ay), -torch.inf)

    def sample(self, mean: Tensor, dispersion: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Generation after generation, each individual with Poisson(λ) children, until none is born."""
        mean, dispersion = torch.broadcast_tensors(mean, dispersion)
        rate = mean / (1 + dispersion * mean)
        born = torch.poisson(rate, generator=generator)
        total = born.clone()
        while bool((born > 0).any()):
            born = torch.poisson(dispersion * rate * born, generator=generator)
            total += born
        return total

    def expectation(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean + 0 * dispersion

    def variance(self, mean: Tensor, dispersion: Tensor) -> Tensor:
        return mean * (1 + dispersion * mean) ** 2

    def cdf(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, mean, dispersion)).clamp(max=1.0)

    def log_cdf(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        y, mean, dispersion = torch.broadcast_tensors(torch.floor(y), mean, dispersion)
        return log_sum(lambda k: self.log_prob(k, mean, dispersion), torch.zeros_like(y), y)

    def log_survival(self, y: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        """From the terms above y where they are the smaller part, else from those below."""
        y, mean, dispersion = torch.broadcast_tensors(torch.floor(y), mean, dispersion)
        below = log_sum(lambda k: self.log_prob(k, mean, dispersion), torch.zeros_like(y), y)
        upper = (below > -0.7) & (y >= 0)
        start = torch.where(upper, y + 1, torch.ceil(torch.nan_to_num(mean.detach())) + 1)
        above = log_sum_above(lambda k: self.log_prob(k, mean, dispersion), start)
        return torch.where(upper, above, log1mexp(torch.where(upper, -1.0, below.clamp(max=-1e-300))))

    def quantile(self, q: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
        q, mean, dispersion = torch.broadcast_tensors(q, mean, dispersion)
        return count_quantile(lambda y: self.cdf(y, mean, dispersion), q)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean, variance = max(weighted_mean(y, weight), 1e-3), weighted_variance(y, weight)
        excess = max(variance / mean, 1.0) ** 0.5 - 1
        return mean, min(max(excess, 0.02), 20.0) / max(mean, 0.1)

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # y = 0 is ever more probable as log μ → −∞; y > 0 pins it; the dispersion takes no part
        A = torch.zeros(len(y), 1, 2, dtype=torch.float64, device=y.device)
        A[:, 0, 0] = -1.0
        return A, (y > 0)[:, None]
