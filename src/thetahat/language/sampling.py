"""Sampling: the distribution that tokens are drawn from, where that is not the model's own.

    q(v | x) ∝ 1[v in S(x)] · p(v | x)^{1/τ},      S(x) the top_k most probable tokens, of those the fewest whose q sums to top_p

It is a distribution like any other, so it has a log-likelihood: `Autoregressive(network, sampling=Sampling(…))` draws from
q, and its `log_prob` is log q. What reinforcement learning weighs is then the probability with which the token was
drawn, and the ratio of the first step is 1.

How many tokens S held when a text was drawn is kept with it ("kept"), so that a later θ scores the same kind of set. A token
that was drawn is always in S: where rounding, or a later θ, would leave it out, it takes the place of the least.

References
----------
Fan, Lewis and Dauphin (2018), Hierarchical neural story generation (top k); Holtzman et al. (2020), The curious case of
neural text degeneration (top p).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument
from ..families.log_sum_exp import log_sum_exp


@dataclass(frozen=True)
class Sampling:
    """Settings.

    Parameters
    ----------
    temperature
        τ ≥ 0; 1: p itself; 0: the most probable token, always (which is no distribution to train)
    top_k
        tokens; None: all
    top_p
        in (0, 1]; None: all

    Examples
    --------
    >>> logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    >>> Sampling(top_p=0.75).probabilities(logits).round(decimals=3).tolist()
    [[0.625, 0.375, 0.0, 0.0]]
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise BadArgument(f"temperature={self.temperature}. Accepted: 0 or more.")
        if self.top_k is not None and (isinstance(self.top_k, bool) or self.top_k < 1):
            raise BadArgument(f"top_k={self.top_k}. Accepted: 1 or more, or None.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadArgument(f"top_p={self.top_p}. Accepted: a number in (0, 1], or None.")

    @property
    def truncates(self) -> bool:
        return self.top_k is not None or (self.top_p is not None and self.top_p < 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """q of every token, (…, V)."""
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        z = logits / self.temperature
        if self.truncates:
            order = torch.sort(z, dim=-1, descending=True, stable=True).indices
            rank = torch.empty_like(order).scatter_(
                -1, order, torch.arange(z.shape[-1], device=z.device).expand_as(z)
            )
            z = z.masked_fill(rank >= self.kept(logits)[..., None], -torch.inf)
        return torch.softmax(z, -1)

    def kept(self, logits: Tensor) -> Tensor:
        """How many tokens S holds, (…)."""
        V = logits.shape[-1]
        k = min(self.top_k or V, V)
        out = torch.full(logits.shape[:-1], k, dtype=torch.long, device=logits.device)
        if self.top_p is None or self.top_p >= 1:
            return out
        p = torch.softmax((logits / self.temperature).topk(k, -1).values, -1)
        before = p.cumsum(-1) - p  # the sum of those that are more probable
        return (before < self.top_p).sum(-1).clamp(min=1)

    def log_prob(self, logits: Tensor, y: Tensor, kept: Tensor | None = None) -> Tensor:
        """log q(y | x), (…), of logits (…, V).

        kept : (…) how many tokens S held; None: as these logits say
        """
        if self.temperature == 0:
            raise BadArgument(
                "temperature=0 always takes the most probable token: that has no likelihood to train."
            )
        z = logits / self.temperature
        own = z.gather(-1, y[..., None])[..., 0]
        if not self.truncates:
            return (own - log_sum_exp(z)).to(z.dtype)
        if kept is None:
            kept = self.kept(logits.detach())
        kept = kept.clamp(1, z.shape[-1])
        most = z.topk(int(kept.max()), -1).values
        place = torch.arange(most.shape[-1], device=z.device)
        least = most.gather(-1, kept[..., None] - 1)
        outside = (own[..., None] < least) & (place == kept[..., None] - 1)
        most = torch.where(outside, own[..., None], most)
        total = log_sum_exp(most.masked_fill(place >= kept[..., None], -torch.inf))
        return (own - total).to(z.dtype)
