"""What a run measures besides log p, against the definitions computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.evaluation.confusion import confusion
from thetahat.io import runs

X = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0.5).long()


def test_accuracy_of_held_out_rows_is_the_share_that_is_guessed(tmp_path):
    """With batch norm and an average of θ, so that the wrong θ or the wrong mode would show."""
    network = torch.nn.Sequential(
        th.networks.mlp(2, (), 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), th.networks.mlp(8, (), 3)
    )
    model = th.models.Conditional(th.families.Categorical(3), network)
    out = th.data.Tensors({"x": X[90:], "y": Y[90:]})
    solver = th.Stochastic(
        steps=40,
        batch_size=16,
        learning_rate=0.02,
        held_out=out,
        ema_decay=0.9,
        evaluate_every=20,
        restore_best=False,
    )
    states = []
    fit = th.fit(model, {"x": X[:90], "y": Y[:90]}, solver=solver, run=tmp_path / "r", callback=states.append)
    last = states[-1].evaluations[-1]
    right = (fit.model.network(X[90:]).argmax(-1) == Y[90:]).double()
    assert last.measured["accuracy"] == pytest.approx(float(right.mean()))
    assert last.measured["accuracy_error"] == pytest.approx(float(right.std()) / math.sqrt(30))
    line = [line for line in runs.metrics(tmp_path / "r") if "validation/accuracy" in line][-1]
    assert line["validation/accuracy"] == last.measured["accuracy"]
    assert "accuracy" in str(fit.summary())


def test_a_binary_response_is_guessed_at_one_half():
    model = th.models.Conditional(th.families.Bernoulli(), th.networks.mlp(2, (), 1))
    rows = th.data.Batch({"x": X, "y": (X[:, 0] > 0).double()})
    guess = (torch.sigmoid(model.network(X)[:, 0]) > 0.5).double()
    assert torch.equal(model.diagnostics(rows)["accuracy"], (guess == rows["y"]).double())
    assert th.models.Conditional(th.families.Normal(), th.networks.mlp(2, (), 2)).diagnostics(rows) == {}


def test_perplexity_and_bits_per_byte_of_a_text_are_those_of_its_score():
    """Of letters of two bytes: the bits of a token, shared among them."""
    texts = ["αβγδ" * 8 + "ab", "δγβα" * 8 + "ba"] * 6
    tokens = th.language.Tokens(texts, "characters", context=16)
    network = th.networks.Transformer(tokens.vocabulary, layers=1, width=16, heads=2)
    states = []
    fit = th.fit(
        th.language.Autoregressive(network),
        tokens,
        solver=th.Stochastic(steps=6, held_out=tokens, restore_best=False, evaluate_every=3),
        callback=states.append,
    )
    found, score = states[-1].evaluations[-1].measured, fit.score(tokens)
    assert found["perplexity"] == pytest.approx(math.exp(-score.mean), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(-score.total / math.log(2) / _bytes(texts), rel=1e-5)


def _bytes(texts: list[str]) -> int:
    """Of every character but the first of each text, which nothing precedes."""
    return sum(len(text[1:].encode()) for text in texts)


def test_what_ppo_measures_is_what_its_definitions_say():
    """Two terms and padding; ρ = e^0.1 and e^−0.5, ε = 0.2."""
    batch = th.data.Batch(
        {"advantage": torch.tensor([1.0, -1.0, 9.0]), "log_prob": torch.tensor([-1.0, -2.0, -9.0])},
        count=torch.tensor([1.0, 1.0, 0.0]),
    )
    weights = th.rl.Clipped(0.2)
    assert weights.measured() == {}
    weights(batch, torch.tensor([-0.9, -2.5, 3.0]))
    rho = np.exp([0.1, -0.5])
    wanted = {
        "approx_kl": np.mean(rho - 1 - np.array([0.1, -0.5])),
        "clip_fraction": 0.5,
        "entropy": np.mean(rho * [0.9, 2.5]),
    }
    assert weights.measured() == pytest.approx(wanted, rel=1e-5)


def test_explained_variance_is_one_of_a_perfect_value_function_and_zero_of_a_constant():
    class Known:
        def __init__(self, V):
            self.V = V

        def of(self, state, shape):
            return self.V[state.long()].reshape(shape)

    batch = th.data.Batch(
        {
            "state": torch.arange(4)[None],
            "next": torch.tensor([[1, 2, 3, 3]]),
            "reward": torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64),
            "terminated": torch.tensor([[False, False, False, True]]),
            "truncated": torch.zeros(1, 4, dtype=torch.bool),
        },
        dims=2,
    )
    for V, wanted in ((torch.tensor([10.0, 9.0, 7.0, 4.0]), 1.0), (torch.full((4,), 5.0), 0.0)):
        advantage = th.rl.GAE(Known(V), discount=1.0, gae_lambda=1.0)
        advantage(batch)
        assert advantage.measured()["explained_variance"] == pytest.approx(wanted)


def test_a_policys_run_records_what_people_expect(tmp_path):
    value = th.rl.Value(th.networks.mlp(4, 8, 1))
    rollouts = th.rl.Rollouts(
        "CartPole-v1", 4, num_steps=16, advantage=th.rl.GAE(value, normalise=True), epochs=2, batch_size=32
    )
    policy = th.rl.Policy(th.networks.mlp(4, 8, 2))
    objective = th.LogLikelihood(policy, rollouts, th.rl.Clipped()) + th.LogLikelihood(value, rollouts)
    th.maximize(objective, solver=th.Stochastic(steps=12), run=tmp_path / "r")
    last = runs.metrics(tmp_path / "r")[-1]
    assert {"approx_kl", "clip_fraction", "entropy", "explained_variance", "played"} <= last.keys()
    assert 0 < last["entropy"] <= math.log(2) * 1.01


# ---- confusion ---------------------------------------------------------------------------------------------


def test_a_confusion_matrix_counts_each_pair():
    rows = {"y": [0, 0, 1, 2, 2, 2], "x": np.eye(6, dtype=np.float32), "n": [1, 2, 3, 1, 1, 1]}
    network = torch.nn.Linear(6, 3, bias=False)
    guess = [0, 1, 1, 2, 0, 2]
    with torch.no_grad():
        network.weight.copy_(torch.nn.functional.one_hot(torch.tensor(guess), 3).T * 9.0)
    model = th.models.Conditional(th.families.Categorical(3), network)
    source = th.models.inputs.source_of({k: np.asarray(v) for k, v in rows.items()}, model, "n")
    fit = th.maximize(
        th.Objective([th.LogLikelihood(model, source)]),
        solver=th.Stochastic(steps=1, learning_rate=1e-9, held_out=None),
    )
    found = confusion(fit)
    assert found.to_numpy().tolist() == [[1, 2, 0], [0, 3, 0], [1, 0, 2]]
    assert found.attrs["accuracy"] == pytest.approx(6 / 9)
    with pytest.raises(th.errors.BadArgument, match="not a category"):
        confusion(th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]}))


def test_the_report_of_a_classifier_shows_its_confusion(tmp_path):
    model = th.models.Conditional(th.families.Categorical(3), th.networks.mlp(2, 8, 3))
    fit = th.fit(model, {"x": X, "y": Y}, solver=th.Stochastic(steps=5))
    page = fit.report(tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Confusion" in page
    assert "most probable" in page
