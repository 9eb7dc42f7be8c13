"""Returns as weights: with them a weighted-likelihood step on a policy's own rollouts is a policy-gradient
step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.devices import widest
from ..errors import BadArgument
from ..likelihood.weights.bounded import ROUNDING


@dataclass(frozen=True)
class RewardToGo:
    """REINFORCE's weight: the rewards that follow an action, less what other episodes had at the same step.

        w_it = γ^{s·t} · (G_it − b_it) / c,      G_it = Σ_{t'≥t} γ^{t'−t} r_it',      b_it = Σ_{j≠i} G_jt / (B − 1)

    The sum goes to the end of the episode that (i, t) is in; where several stand in one row, the t of γ^{s·t}
    counts from the beginning of each.

    E Σ_it w_it ∇log π(a_it | s_it) = B ∇E[Σ_t γᵗ r_t] exactly for γ = 1, or with from_start (s = 1) for every
    γ: the baseline leaves the episode's own return out, so it is independent of its actions and adds no bias.
    Without from_start (s = 0, as is customary) later steps are not discounted, and for γ < 1 the sum is the
    gradient of no objective (Nota and Thomas, 2020).

    Parameters
    ----------
    discount
        γ in [0, 1]
    baseline
        "mean" (b above; an episode that has ended has G = 0), or None (b = 0)
    normalise
        c is the standard deviation of the weights in the batch, else 1
    from_start
        s is 1, else 0

    References
    ----------
    Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement
    learning; Kool, van Hoof and Welling (2019), Buy 4 REINFORCE Samples, Get a Baseline for Free!

    Examples
    --------
    >>> batch = Batch({"reward": torch.ones(1, 3)}, dims=2)
    >>> RewardToGo(0.5, baseline=None)(batch, torch.zeros(1, 3)).tolist()
    [[1.75, 1.5, 1.0]]
    """

    discount: float = 1.0
    baseline: str | None = "mean"
    normalise: bool = False
    from_start: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise BadArgument(f"discount={self.discount}. Accepted: a number in [0, 1].")
        if self.baseline not in ("mean", None):
            raise BadArgument(f"baseline={self.baseline!r}. Accepted: 'mean', None.")

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        """w, (B, T); 0 on padding."""
        if len(batch.shape) != 2:
            raise BadArgument(
                "RewardToGo needs episodes in order, terms (B, T); the batch has terms of shape "
                f"{batch.shape}."
            )
        played = (batch.count > 0).to(widest(batch.count.device))
        ended = (
            batch["terminated"] | batch["truncated"]
            if "terminated" in batch
            else torch.zeros_like(played, dtype=torch.bool)
        )
        returns = self.returns(batch["reward"].detach() * played, ended)
        weight = returns
        if self.baseline == "mean" and len(returns) > 1:
            weight = (returns - (returns.sum(0) - returns) / (len(returns) - 1)) * played
        if self.normalise:
            mean = weight.sum() / played.sum()
            spread = ((weight - mean) ** 2 * played).sum().div(played.sum()).sqrt()
            same = float(spread) <= ROUNDING * float(returns.abs().max())
            weight = torch.zeros_like(weight) if same else weight / spread
        if self.from_start and self.discount < 1:
            weight = weight * self.discount ** _since(ended)
        return weight

    def returns(self, reward: Tensor, ended: Tensor | None = None) -> Tensor:
        """G, (B, T). `ended`: with this term an episode was over; None: a row is one episode."""
        out, ahead = torch.empty_like(reward), reward.new_zeros(len(reward))
        keep = (
            torch.full_like(reward, self.discount)
            if ended is None
            else self.discount * (~ended).to(reward.dtype)
        )
        for t in range(reward.shape[1] - 1, -1, -1):
            ahead = reward[:, t] + keep[:, t] * ahead
            out[:, t] = ahead
        return out


def _since(ended: Tensor) -> Tensor:
    """(B, T) how many terms of its episode came before each."""
    t = torch.arange(ended.shape[1], device=ended.device).expand(ended.shape)
    began = torch.zeros_like(t)
    began[:, 1:] = torch.where(ended[:, :-1], t[:, 1:], 0).cummax(1).values
    return (t - began).to(widest(ended.device))
