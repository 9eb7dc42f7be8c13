"""A causal language model of transformers as a network: what it can do is tried on four tokens, not assumed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadArgument, ModelError


class Pretrained(nn.Module):
    """Tokens (B, T) → logits of the next token (B, T, V), by any causal language model of transformers (Llama, GPT-2, Qwen …).

    Parameters
    ----------
    own : AutoModelForCausalLM.from_pretrained(…), or one built from a configuration

    Raises
    ------
    ModelError : it sees the future: a position's hidden state changes with a later token

    `linear` says whether the logits are one matrix times the last hidden state (then a large vocabulary is never held whole); `masks`
    whether documents in one row can be kept apart.
    """

    def __init__(self, own: nn.Module):
        super().__init__()
        head = getattr(own, "get_output_embeddings", lambda: None)()
        if head is None:
            raise BadArgument(f"a {type(own).__name__} is no causal language model of transformers: it has no output embeddings.")
        self.own: Any = own
        self.vocabulary = int(head.weight.shape[0])
        self.linear, self.masks = self._tried()

    @property
    def lm_head(self) -> nn.Linear:
        return self.own.get_output_embeddings()

    def features(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """The last hidden state, (B, T, D); documents (B, T): a position sees its own alone, and is counted from its beginning."""
        return self.own.base_model(input_ids=tokens, use_cache=False, **self._apart(documents)).last_hidden_state

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        return self.own(input_ids=tokens, use_cache=False, **self._apart(documents)).logits

    def extend(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the token after these, (B, V), and the keys and values so far."""
        out = self.own(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], out.past_key_values

    def _apart(self, documents: Tensor | None) -> dict[str, Tensor]:
        if documents is None:
            return {}
        T = documents.shape[1]
        place = torch.arange(T, device=documents.device)
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        first = torch.where(begins, place, 0).cummax(1).values
        seen = (place[:, None] >= place) & (documents[:, :, None] == documents[:, None, :])
        dtype = self.lm_head.weight.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=documents.device).masked_fill(~seen, torch.finfo(dtype).min)
        return {"attention_mask": mask[:, None], "position_ids": place - first}

    @torch.no_grad()
    def _tried(self) -> tuple[bool, bool]:
        """(logits = W h?, documents apart?) on four tokens."""
        training = self.own.training
        self.own.eval()
        device = self.lm_head.weight.device
        tokens = torch.tensor([[1, 2, 3, 4]], device=device) % self.vocabulary
        try:
            h = self.features(tokens)
            later = self.features((tokens + torch.tensor([0, 0, 1, 1], device=device)) % self.vocabulary)
            if self.vocabulary > 1 and not torch.allclose(h[:, :2], later[:, :2], rtol=1e-3, atol=1e-4):
                raise ModelError(
                    f"{type(self.own).__name__} sees the future: its hidden state at position 1 or before changes with the tokens at positions 2 "
                    "and 3. Accepted: a causal language model (of BERT and its kin: config.is_decoder=True)."
                )
            linear = torch.allclose(self.lm_head(h), self.forward(tokens), rtol=1e-3, atol=1e-4)
            try:
                packed = self.features(tokens, torch.tensor([[0, 0, 1, 1]], device=device))
                alone = torch.cat([self.features(tokens[:, :2]), self.features(tokens[:, 2:])], 1)
                masks = torch.allclose(packed, alone, rtol=1e-3, atol=1e-3)
            except (TypeError, ValueError, RuntimeError):  # no such argument, or no mask of that shape
                masks = False
        finally:
            self.own.train(training)
        return linear, masks
