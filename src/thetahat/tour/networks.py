"""Systems whose p is a network, trained by stochastic ascent: a classifier, a small GPT, a policy."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch

from ..data import Tensors
from ..errors import MissingExtra
from ..evaluation.score import score
from ..families import Categorical
from ..fit import fit, maximize
from ..generative.augmented import Augmented, Shifts
from ..generative.convnet import ConvNet
from ..language.autoregressive import Autoregressive
from ..language.tokenizers import Characters
from ..language.tokens import Tokens
from ..likelihood import LogLikelihood
from ..models import Conditional
from ..networks import Transformer, mlp
from ..rl.advantage import GAE, Clipped
from ..rl.policy import Policy, Value
from ..rl.returns import RewardToGo
from ..rl.rollouts import Rollouts, returns
from ..solvers import Stochastic
from .row import Row


def classifier(quick: bool) -> Row:
    try:
        digits = import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise MissingExtra.named("scikit-learn", "sklearn") from error
    x, y = torch.tensor(digits.data, dtype=torch.uint8), torch.tensor(digits.target)
    train, test = slice(0, 1400), slice(1400, None)
    held_out = Tensors({"x": x[test], "y": y[test]})
    network = ConvNet((8, 8), 10, (16, 32), levels=17)
    solver = Stochastic(
        steps=60 if quick else 200, batch_size=100, learning_rate=0.01, warmup_steps=20, held_out=None
    )
    shifted = Augmented(Tensors({"x": x[train], "y": y[train]}), Shifts((8, 8), 1))
    before = score(Conditional(Categorical(10), network), held_out).mean
    found = fit(Conditional(Categorical(10), network), shifted, solver=solver)
    after = found.score(held_out)
    right = (found.model.probabilities(held_out.whole).argmax(-1) == y[test]).double().mean()
    calibration = found.calibration_error(held_out)
    return Row(
        "network classifier",
        "digits, 1400 images, shifted",
        "Σ log Categorical(y | f_θ(x))",
        "nats a held-out image",
        before,
        after.mean,
        f"stochastic: on 397 other images {after.mean:.3f} ± {after.standard_error:.3f} nats; calibration "
        f"error {100 * calibration.value:.1f} %",
        f"chance is −log 10 = {-math.log(10):.3f} nats and 10 % right; found {100 * float(right):.1f} % "
        "right",
    )


def gpt(quick: bool) -> Row:
    topics = import_module("pydoc_data.topics").topics  # Python's own documentation, in every Python
    texts = [topics[name] for name in sorted(topics)]
    alphabet = Characters.of(*texts)
    train, held_out = Tokens(texts, alphabet, context=64).split(0.05)
    network = Transformer(alphabet.vocabulary, layers=2, width=64, heads=4, activation="relu2", seed=0)
    solver = Stochastic(
        steps=60 if quick else 180, batch_size=32, optimiser="muon", learning_rate=0.02, momentum=0.95, lr_schedule="linear", held_out=held_out,
        evaluate_every=60 if quick else 180,
    )  # fmt: skip
    found = fit(Autoregressive(network), train, solver=solver)
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


def _bigrams(train: Tokens, held_out: Tokens) -> float:
    """Nats a held-out character of a Markov chain whose transitions were counted, each once more than it was
    seen (Laplace)."""
    V = train.vocabulary
    seen, new = (torch.zeros(V, V, dtype=torch.float64) for _ in range(2))
    for into, source in ((seen, train), (new, held_out)):
        for batch in source.batches():
            pair = batch["input"] * V + batch["target"]
            into.view(-1).index_add_(0, pair.reshape(-1), batch.count.reshape(-1).double())
    return float((new * torch.log((seen + 1) / (seen.sum(1, keepdim=True) + V))).sum() / new.sum())


def reinforce(quick: bool) -> Row:
    policy = Policy(mlp(4, 32, 2, "tanh", seed=0))
    rollouts = Rollouts("CartPole-v1", 16, seed=0)
    before = float(returns(policy, "CartPole-v1", 20, seed=1000).mean())
    solver = Stochastic(steps=15 if quick else 40, learning_rate=0.02, lr_schedule="constant")
    policy = fit(policy, rollouts, weights=RewardToGo(0.99, normalise=True), solver=solver).model
    after = float(returns(policy, "CartPole-v1", 20, seed=1000).mean())
    return Row(
        "REINFORCE",
        "CartPole-v1, its own rollouts",
        "Σ (return − baseline) log π(a | s)",
        "greedy return, 20 episodes",
        before,
        after,
        f"stochastic: {solver.steps} steps on data drawn from the model",
        f"195 is the mark of CartPole-v0, 500 the most there is; found {after:.0f}",
        None if quick else after >= 195,
    )


def ppo(quick: bool) -> Row:
    policy, value = Policy(mlp(4, (64, 64), 2, "tanh", seed=0)), Value(mlp(4, (64, 64), 1, "tanh", seed=1))
    advantage = GAE(value, 0.98, 0.9, normalise=True)
    rollouts = Rollouts("CartPole-v1", 32, num_steps=32, advantage=advantage, epochs=8, batch_size=256)
    before = float(returns(policy, "CartPole-v1", 20, seed=1000).mean())
    solver = Stochastic(
        steps=320 if quick else 1200, learning_rate=3e-3, lr_schedule="linear", max_grad_norm=0.5
    )
    found = maximize(
        LogLikelihood(policy, rollouts, Clipped(0.2)) + LogLikelihood(value, rollouts), solver=solver
    )
    played: Any = found.source
    after = float(returns(found.model, "CartPole-v1", 20, seed=1000).mean())
    return Row(
        "PPO, with a value function",
        "CartPole-v1, its own rollouts",
        "Σ ρ A 1[not clipped] log π(a | s) + Σ log Normal(G | V(s))",
        "greedy return, 20 episodes",
        before,
        after,
        f"stochastic: {played.played:,} steps played, each pass learnt from 8 times",
        f"500 is the most there is; found {after:.0f}",
        None if quick else after >= 475,
    )
