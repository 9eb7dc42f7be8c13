"""A language of 27 sentences, on which the optimum π_ref e^{r/β}/Z of RLHF and of DPO is known."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

import thetahat as th

WORDS, LENGTH, BETA = 3, 3, 0.5


EVERY = torch.tensor(list(itertools.product(range(WORDS), repeat=LENGTH)))  # (27, 3)


START = WORDS  # the prompt, a token that no sentence has


class Table(nn.Module):
    """Logits of the next word for every beginning of a sentence."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.logits = nn.Parameter(
            torch.randn(LENGTH, WORDS**LENGTH, WORDS, generator=g, dtype=torch.float64)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        code, out = torch.zeros(len(tokens), dtype=torch.long), []
        for t in range(tokens.shape[1]):
            code = code * WORDS + tokens[:, t] if t else code
            out.append(self.logits[t, code])
        return torch.stack(out, 1)


def reward(sentences: Tensor) -> Tensor:
    """A word is worth its number, and a word said twice in a row costs one."""
    return sentences.double().mean(1) - (sentences[:, 1:] == sentences[:, :-1]).double().sum(1)


def log_probs(model: th.language.Autoregressive) -> Tensor:
    """log π of all 27 sentences."""
    whole = torch.cat([torch.full((len(EVERY), 1), START), EVERY], 1)
    with torch.no_grad():
        return model.log_prob(th.data.Batch({"input": whole[:, :-1], "target": whole[:, 1:]}, dims=2)).sum(1)


def distance(policy: th.language.Autoregressive, reference: th.language.Autoregressive) -> float:
    """KL(π ‖ π*), nats a sentence."""
    now, best = log_probs(policy), torch.log_softmax(log_probs(reference) + reward(EVERY) / BETA, 0)
    return float((now.exp() * (now - best)).sum())
