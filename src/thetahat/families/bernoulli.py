"""Successes: one trial, several trials, and trials whose probability itself varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import links
from .base import Derivatives, Family, Parameter, binary, unit, weighted_mean
from .links import CLogLog, Logit, Probit


@dataclass(frozen=True)
class Bernoulli(Family):
    """One trial: logistic regression and its kin, by the link.

        log p(y | μ) = y·log μ + (1 − y)·log(1 − μ)

    Parameters
    ----------
    mean : 0 < μ < 1, link logit; probit, cloglog and cauchit by `link=`

    Source: McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 4.

    >>> round(Bernoulli().log_prob(torch.tensor(1.0), torch.tensor(0.25)).item(), 6)
    -1.386294
    """

    mean = Parameter(unit, link=links.logit)
    support = binary
    measure = "mass"

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        return torch.xlogy(y, mean) + torch.special.xlog1py(1 - y, -mean)

    def log_prob_eta(self, y: Tensor, eta: Tensor) -> Tensor:
        link = self.parameters["mean"].link
        return torch.where(y > 0.5, link.log_inverse(eta), link.log1m_inverse(eta))

    def derivatives(self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2) -> Derivatives:
        if not isinstance(self.parameters["mean"].link, Logit):
            return super().derivatives(y, eta, extras, order)
        mean = torch.sigmoid(eta[0])
        value = y * eta[0] - softplus(eta[0], threshold=40.0)  # log(1 + e^η) = η to float64 above 40
        return value, [y - mean], {(0, 0): mean * (mean - 1)} if order > 1 else {}

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

    @property
    def concave(self) -> bool:
        return isinstance(self.parameters["mean"].link, (Logit, Probit, CLogLog))

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.where(y > 0.5, 1.0, -1.0).to(torch.float64)
        return sign[:, None, None], torch.zeros(len(y), 1, dtype=torch.bool)
