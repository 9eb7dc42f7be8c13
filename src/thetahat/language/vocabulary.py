"""A vocabulary that is larger than the tokenizer's: rows of an embedding that were added to make it a round number.

log p of a text is the model's, which gives those ids what it gives them. Text is drawn without them:

    q(v | x) = p(v | x) / Σ_{u < V} p(u | x),      v < V, the tokenizer's vocabulary
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..protocols import Extends
from .autoregressive import Autoregressive


class WithText(nn.Module):
    """A network of which the logits of ids that have no text are −∞.

    Parameters
    ----------
    network
        tokens (B, T) → logits (B, T, V')
    vocabulary
        V ≤ V', ids that the tokenizer has

    Examples
    --------
    >>> WithText(nn.Embedding(4, 4), 3)(torch.tensor([[0]]))[0, 0, 3].item()
    -inf
    """

    def __init__(self, network: nn.Module, vocabulary: int):
        super().__init__()
        self.own, self.vocabulary = network, vocabulary

    def forward(self, tokens: Tensor) -> Tensor:
        return self._masked(self.own(tokens))

    def extend(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the token after these, (B, V'), and what is kept for the next."""
        if isinstance(self.own, Extends):
            logits, cache = self.own.extend(tokens, cache)
            return self._masked(logits), cache
        whole = tokens if cache is None else torch.cat([cache, tokens], 1)
        return self._masked(self.own(whole)[:, -1]), whole

    def _masked(self, logits: Tensor) -> Tensor:
        out = logits.clone()
        out[..., self.vocabulary :] = -torch.inf
        return out


def with_text(model: Autoregressive, vocabulary: int) -> Autoregressive:
    """The model to draw text from: itself, where each of its ids is a token; else without those that are none.

    Examples
    --------
    >>> model = Autoregressive(nn.Embedding(4, 4))
    >>> with_text(model, 4) is model, int(with_text(model, 3).sample(torch.tensor([0]), 50).max()) < 3
    (True, True)
    """
    if model.vocabulary is None or model.vocabulary <= vocabulary:
        return model
    return Autoregressive(WithText(model.network, vocabulary), sampling=model.sampling)
