"""A reward head: one number a text, from the last hidden state of a language model that is moved with it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..errors import BadArgument
from ..protocols import HasFeatures
from ..types import ModelLike


class Reward(nn.Module):
    """r(x) = w·h_T, h_T the hidden state at the last token of a text (its end), w the head.

    w begins at 0: every preference has probability ½ then. The network's output matrix is not part of the
    reward, and is not moved unless it is the embedding too. For `BradleyTerry(Reward(network))` on
    `TokenPairs`.

    Parameters
    ----------
    network
        a causal language model with `features(tokens (B, T)) → (B, T, D)`: `Transformer`, `Pretrained`
    frozen
        the network stays as it is, and w alone is fitted
    in_place
        False keeps a copy of the network, and the one given stays as it is; True takes the one given, and
        freezes what is not moved of it: for networks of which memory cannot hold two

    References
    ----------
    Stiennon et al. (2020), Learning to summarize from human feedback, §3.4.

    Examples
    --------
    >>> from ..networks.transformer import Transformer
    >>> reward = Reward(Transformer(10, layers=1, width=8, heads=1))
    >>> reward(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])).tolist()
    [0.0, 0.0]
    """

    def __init__(self, network: ModelLike, *, frozen: bool = False, in_place: bool = False):
        super().__init__()
        if not isinstance(network, HasFeatures):
            raise BadArgument(
                f"a {type(network).__name__} has no features(tokens). Accepted: Transformer, Pretrained(…)."
            )
        network = network if in_place else copy.deepcopy(network)
        self.network: ModelLike = network
        output = getattr(network, "lm_head", None)
        if output is not None and (frozen or _alone(network, output.weight)):
            output.weight.requires_grad_(False)
        if frozen:
            network.requires_grad_(False)
        with torch.no_grad():
            h = network.features(
                torch.zeros(1, 1, dtype=torch.long, device=next(network.parameters()).device)
            )
        self.head = nn.Linear(h.shape[-1], 1, bias=False, dtype=h.dtype, device=h.device)
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        """r, (B,), of tokens (B, T) of which the first `length`, (B,), are real."""
        h = self.network.features(tokens)
        out: Tensor = self.head(h[torch.arange(len(h), device=h.device), length - 1]).squeeze(-1)
        return out


def _alone(network: nn.Module, weight: Tensor) -> bool:
    """Whether no other module has this matrix (an embedding tied to it)."""
    return sum(p is weight for module in network.modules() for p in module.parameters(recurse=False)) == 1
