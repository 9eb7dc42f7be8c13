"""Policy: the probability of an action, given what is seen. Its likelihood, weighted by returns, is what REINFORCE climbs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, ModelError
from ..families.categorical import Categorical
from .base import Model


class Policy(Model):
    """A distribution over discrete actions.

        log π(a | s) = log softmax(f_θ(s))_a

    The gradient of Σ_t w_t log π(a_t | s_t), w_t a return less a baseline and held fixed, is the policy gradient: with
    `weights.RewardToGo`, maximising this likelihood on rollouts of the policy itself is REINFORCE.

    Parameters
    ----------
    network : s (…, d) → logits of the K actions, (…, K)

    Raises
    ------
    ModelError : the network's output does not match the terms

    Source: Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.

    >>> policy = Policy(nn.Linear(4, 2))
    >>> batch = Batch({"state": torch.zeros(3, 7, 4), "action": torch.zeros(3, 7, dtype=torch.long)}, dims=2)
    >>> tuple(policy.log_prob(batch).shape)
    (3, 7)
    """

    measure = "mass"
    target = "action"

    def __init__(self, network: nn.Module):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise BadArgument(f"Policy(network): network is {type(network).__name__}, not a torch.nn.Module.")
        self.network = network

    def logits(self, state: Tensor) -> Tensor:
        """f_θ(s), (…, K)."""
        first = next(self.network.parameters(), None)
        return self.network(state.to(first.dtype) if first is not None and state.is_floating_point() else state)

    def log_prob(self, batch: Batch) -> Tensor:
        """log π(a | s) of each term, (n,) or (B, T); exactly 0 where the count is 0 (padding)."""
        logits = self.logits(batch["state"])
        if tuple(logits.shape[:-1]) != batch.shape or logits.shape[-1] < 2:
            raise ModelError(
                f"the network gives a tensor of shape {tuple(logits.shape)} for terms of shape {batch.shape}. "
                f"Accepted: {(*batch.shape, 'K')}, K actions, 2 or more."
            )
        out = Categorical(logits.shape[-1]).log_prob_eta(batch["action"], *logits.unbind(-1))
        return torch.where(batch.count == 0, torch.zeros_like(out), out) if batch.counted else out

    def act(self, state: Tensor, generator: torch.Generator | None = None, *, greedy: bool = False) -> Tensor:
        """An action for each state, (n,): drawn from π, or (greedy) its most probable one."""
        with torch.no_grad():
            logits = self.logits(state)
        if greedy:
            return logits.argmax(-1)
        return torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)[..., 0]
