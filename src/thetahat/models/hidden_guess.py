"""A first guess at the states of a hidden Markov model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..data.batch import Batch
from ..data.source import Tensors
from ..protocols import HasStart
from .base import set_theta
from .mixture import Recounted
from .partition import partition
from .regression import Regression

if TYPE_CHECKING:
    from .hmm import HMM


def first_guess(hmm: HMM, batch: Batch, generator: torch.Generator, *, blocks: bool = False) -> HMM:
    """The model at a θ from which to begin: states where the rows that are given to them suggest, and transitions as
    often as those rows follow one another.

    Parameters
    ----------
    blocks
        give stretches of time to random states, rather than values near each other to one
    """
    seen, K, n = hmm.seen(batch), hmm.k, len(batch)
    rows = batch if bool(seen.all()) else batch[seen]
    if blocks:
        length = max(2, n // max(3 * K, int(torch.randint(3 * K, 12 * K, (1,), generator=generator))))
        state = torch.randint(0, K, (n // length + 1,), generator=generator).repeat_interleave(length)[:n][
            seen
        ]
        noise = torch.rand(len(state), K, dtype=torch.float64, generator=generator)
        r = 0.8 * nn.functional.one_hot(state, K) + 0.2 * noise / noise.sum(1, keepdim=True)
    else:
        first = hmm.states[0]
        encoder = first.encoder if isinstance(first, Regression) and first.predictors[0].size > 1 else None
        like = SimpleNamespace(k=K, encoder=encoder, components=hmm.states, target="y")
        r = partition(like, [rows], generator)[0]
    parts = []
    for k, component in enumerate(hmm.states):
        own = Recounted(Tensors(rows, copy=False, block=10**18), [r[:, k]])
        parts.append(component.start(own) if isinstance(component, HasStart) else torch.zeros(hmm.sizes[k]))
    full = torch.full((n, K), 1 / K, dtype=torch.float64)
    full[seen] = r
    layout = hmm.arranged(batch)
    r_placed = full[torch.from_numpy(layout.order)]
    later = torch.from_numpy(layout.later)
    counts = r_placed[later - 1].T @ r_placed[later] + 0.5
    logits = torch.log(counts / counts.sum(1, keepdim=True))
    W = logits.new_zeros(K, K, hmm.chain.q)
    W[:, :, 0] = logits
    start, w = hmm.chain.read(logits.new_zeros(K), W)
    out = hmm.of(hmm.states[0], hmm.chain, hmm.slot)
    set_theta(out, torch.cat([start, w, *(p.to(torch.float64) for p in parts)]))
    return out
