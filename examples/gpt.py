"""GPT: maximise Σ log p(x_t | x_<t)."""

from __future__ import annotations

import math
from importlib import import_module

import torch

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    topics = import_module("pydoc_data.topics").topics  # Python's own documentation, in every Python
    texts = [topics[name] for name in sorted(topics)]
    alphabet = th.language.Characters.of(*texts)
    train, held_out = th.language.Tokens(texts, alphabet, context=64).split(0.05)
    network = th.networks.Transformer(
        alphabet.vocabulary, layers=2, width=64, heads=4, activation="relu2", seed=0
    )
    solver = th.Stochastic(
        steps=60 if quick else 180, batch_size=32, optimiser="muon", learning_rate=0.02, momentum=0.95, lr_schedule="linear", held_out=held_out,
        evaluate_every=60 if quick else 180,
    )  # fmt: skip
    found = th.fit(th.language.Autoregressive(network), train, solver=solver)
    assert found.certificate.trend is not None
    first, after, error = found.certificate.trend
    counted = _bigrams(train, held_out)
    return Row(
        "GPT",
        f"Python's documentation, {train.documents} documents",
        "Σ log p(x_t | x_<t)",
        "nats a held-out character",
        first,
        after,
        f"stochastic: held out, {after:.3f} ± {error:.3f} nats",
        f"bigrams by counting: {counted:.3f} nats; {network.vocabulary} characters at random: "
        f"{-math.log(network.vocabulary):.3f}",
    )


def _bigrams(train: th.language.Tokens, held_out: th.language.Tokens) -> float:
    """Nats a held-out character of a Markov chain whose transitions were counted, each once more than it was
    seen (Laplace)."""
    V = train.vocabulary
    seen, new = (torch.zeros(V, V, dtype=torch.float64) for _ in range(2))
    for into, source in ((seen, train), (new, held_out)):
        for batch in source.batches():
            pair = batch["input"] * V + batch["target"]
            into.view(-1).index_add_(0, pair.reshape(-1), batch.count.reshape(-1).double())
    return float((new * torch.log((seen + 1) / (seen.sum(1, keepdim=True) + V))).sum() / new.sum())


if __name__ == "__main__":
    print(run())
