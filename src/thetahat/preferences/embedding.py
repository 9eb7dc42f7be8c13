"""Features of answers: what a language model makes of a prompt and its answer, one vector an answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.devices import device_of
from ..data.source import evaluating
from ..errors import BadArgument
from ..protocols import HasFeatures
from ..types import ModelLike
from .token_pairs import TokenPairs

POOLINGS = ("last", "mean")


@torch.no_grad()
def embedded(
    network: ModelLike, pairs: TokenPairs, pooling: str | Sequence[str] = "last", *, tokens: int = 4096
) -> tuple[Tensor, Tensor]:
    """The features of the chosen and of the rejected answers, (n, d) each, float64.

        last    h_T, the last hidden state at the answer's last token (its end), which has seen everything
        mean    Σ_t m_t h_t / Σ_t m_t over the answer's tokens, its end included

    A reward that is linear in them is fitted by `BradleyTerry(features=…)`; its gradient does not run through
    the network.

    Parameters
    ----------
    network
        causal, with `features(tokens (B, T)) → (B, T, D)`, as `Pretrained` and `Transformer` have
    pairs
        n of them
    pooling
        one or several, side by side: d = D times their number
    tokens
        of a batch. Sequences of like length go together, so that little padding is computed; what lies behind
        a sequence's end is never seen by it, so that the features do not depend on it

    Raises
    ------
    BadArgument
        another pooling, or a network that has no hidden states
    """
    how = [pooling] if isinstance(pooling, str) else list(pooling)
    if not how or any(each not in POOLINGS for each in how):
        raise BadArgument(f"pooling={pooling!r}. Accepted: {', '.join(map(repr, POOLINGS))}, or several.")
    if not isinstance(network, HasFeatures):
        raise BadArgument(
            f"a {type(network).__name__} has no features(tokens). Accepted: Transformer, Pretrained(…)."
        )
    batch = pairs.whole
    ids = torch.cat([batch["chosen"], batch["rejected"]])
    mask = torch.cat([batch["chosen_mask"], batch["rejected_mask"]])
    length = torch.cat([batch["chosen_length"], batch["rejected_length"]])
    parts, order = [], _alike(length, tokens)
    device = device_of(network)
    with evaluating(network):
        for rows in order:
            T = int(length[rows].max())
            h = network.features(ids[rows, :T].to(device)).to("cpu", torch.float64)
            parts.append(torch.cat([_pooled(each, h, mask[rows, :T], length[rows]) for each in how], -1))
    out = torch.cat(parts)[torch.argsort(torch.cat(order))]
    return out[: len(batch)], out[len(batch) :]


def _pooled(how: str, h: Tensor, mask: Tensor, length: Tensor) -> Tensor:
    if how == "last":
        return h[torch.arange(len(h)), length - 1]
    m = mask.to(h.dtype)[..., None]
    return (m * h).sum(1) / m.sum(1)


def _alike(length: Tensor, tokens: int) -> list[Tensor]:
    """Rows in batches of like length, the longest first: what does not fit is known at once."""
    order, out, at = torch.argsort(length, descending=True, stable=True), [], 0
    while at < len(order):
        many = max(1, tokens // int(length[order[at]]))
        out.append(order[at : at + many])
        at += many
    return out
