"""A logistic density rounded to levels: the mass of a pixel, in two numbers whatever the levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import BadArgument
from . import links
from .base import Family, Parameter, Support, categories, weighted_mean, weighted_variance
from .ranges import positive, real
from .special import log1mexp

HELD = 2**22  # numbers of a (…, levels) tensor that are held at once


@dataclass(frozen=True)
class DiscretisedLogistic(Family):
    """A logistic variable rounded to the nearest of L levels 0 … L − 1: what lies beyond an end is counted to
    that end.

        P(y | μ, σ) = s((x + δ − μ)/σ) − s((x − δ − μ)/σ),      x = 2y/(L − 1) − 1,  δ = 1/(L − 1),  s the sigmoid

    with s(−∞) = 0 below level 0 and s(∞) = 1 above level L − 1. Location and scale are in units in which the
    levels span −1 … 1, so that a network gives numbers of size 1 for every L. Σ_y P(y) = 1 exactly, for every
    μ and σ. Grey levels near each other are alike, which a Categorical(L) has to learn, and there are two
    numbers a pixel instead of L: `MixtureOf(DiscretisedLogistic(256), 5)` has several peaks.

    Parameters
    ----------
    levels
        L
    location
        μ, link identity
    scale
        σ > 0, link log

    References
    ----------
    Kingma et al. (2016), Improved variational inference with inverse autoregressive flow, eq. 34; Salimans,
    Karpathy, Chen and Kingma (2017), PixelCNN++, §2.1.

    Examples
    --------
    >>> family = DiscretisedLogistic(4)
    >>> y, zero = torch.arange(4.0, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    >>> torch.exp(family.log_prob(y, zero, zero + 0.5)).tolist()  # s(−4/3), s(0) − s(−4/3), …
    [0.208608..., 0.291391..., 0.291391..., 0.208608...]
    """

    levels: int = 256

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)
    measure = "mass"

    def __post_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 2:
            raise BadArgument(f"levels={self.levels!r}. Accepted: a whole number of 2 or more.")

    @property
    def support(self) -> Support:
        return categories(self.levels)

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return self._log_prob(y, location, 1 / scale)

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        if self.link is not None:
            return super().log_prob_eta(y, *eta)
        return self._log_prob(y, eta[0], torch.exp(-eta[1]))  # σ = e^η may overflow where 1/σ does not

    def _log_prob(self, y: Tensor, location: Tensor, inverse: Tensor) -> Tensor:
        """log(s(b) − s(a)) = log s(b) + log s(−a) + log(1 − e^(a − b)), b − a = 2δ/σ: no difference of near
        numbers."""
        above, below = (self._edge(y) - location) * inverse, (self._edge(y - 1) - location) * inverse
        first, last = y <= 0, y >= self.levels - 1
        width = (inverse * (-2 / (self.levels - 1))).clamp(max=-torch.finfo(inverse.dtype).tiny)
        value = torch.where(last, 0.0, logsigmoid(above)) + torch.where(first, 0.0, logsigmoid(-below))
        value = value + torch.where(first | last, 0.0, log1mexp(width))
        return torch.where(self.support.contains(y), value, -torch.inf)

    def _edge(self, y: Tensor) -> Tensor:
        """x + δ: the upper end of the cell of a level, which is the lower end of the next one's to the
        last bit."""
        return (2 * y + 1) / (self.levels - 1) - 1

    # ---- what follows --------------------------------------------------------------------------------------

    def sample(self, location: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        location, scale = torch.broadcast_tensors(location, scale)
        u = torch.rand(location.shape, dtype=location.dtype, device=location.device, generator=generator)
        return self.quantile(u, location, scale)

    def expectation(self, location: Tensor, scale: Tensor) -> Tensor:
        return self._summed(lambda j: torch.ones_like(j), location, scale)

    def variance(self, location: Tensor, scale: Tensor) -> Tensor:
        mean = self.expectation(location, scale)[..., None]
        # E[(Y − m)²] = m² + Σ_j ((j − m)² − (j − 1 − m)²) P(Y ≥ j): about the mean, so that no digits are
        # lost
        return self._summed(lambda j: 2 * (j - mean) - 1, location, scale) + mean[..., 0] ** 2

    def _summed(self, gain: Callable[[Tensor], Tensor], location: Tensor, scale: Tensor) -> Tensor:
        """Σ_j gain(j) P(Y ≥ j) over j = 1 … L − 1, of which not all are held at once."""
        location, scale = torch.broadcast_tensors(location, scale)
        total = torch.zeros_like(location)
        every = torch.arange(1, self.levels, dtype=location.dtype, device=location.device)
        for j in every.split(max(1, HELD // max(location.numel(), 1))):
            tail = torch.sigmoid((location[..., None] - self._edge(j - 1)) / scale[..., None])
            total = total + (gain(j) * tail).sum(-1)
        return total

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, location, scale))

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return self._ends(y, logsigmoid((self._edge(torch.floor(y)) - location) / scale), -torch.inf, 0.0)

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        return self._ends(y, logsigmoid((location - self._edge(torch.floor(y))) / scale), 0.0, -torch.inf)

    def _ends(self, y: Tensor, value: Tensor, before: float, after: float) -> Tensor:
        return torch.where(y < 0, before, torch.where(y >= self.levels - 1, after, value))

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        x = location + scale * torch.logit(q)
        return torch.ceil((x + 1) * ((self.levels - 1) / 2) - 0.5).clamp(0, self.levels - 1)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        x = 2 * y / (self.levels - 1) - 1
        spread = math.sqrt(3 * weighted_variance(x, weight)) / math.pi
        return weighted_mean(x, weight), max(spread, 0.5 / (self.levels - 1))
