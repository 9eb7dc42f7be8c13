"""A step of AdamW as one graph: the step that is not compiled is the oracle, its failures included."""

from __future__ import annotations

from shutil import which

import pytest
import torch
import torch._inductor.config

import thetahat as th

pytestmark = [
    pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own code
]


def ppo(compile, epochs=3, batch_size=64, normalise=False):
    """normalise : the states, by a layer that policy and value function share"""
    rollouts = th.rl.Rollouts(
        "CartPole-v1", 4, num_steps=16, epochs=epochs, batch_size=batch_size, vectorization="tensor",
        compile=compile,
    )  # fmt: skip
    layer = [th.networks.Normaliser(4)] if normalise else []
    policy = th.rl.Policy(torch.nn.Sequential(*layer, th.networks.mlp(4, 8, 2, "tanh", seed=0)))
    value = th.rl.Value(torch.nn.Sequential(*layer, th.networks.mlp(4, 8, 1, "tanh", seed=1)))
    rollouts.advantage = th.rl.GAE(value, normalise=True)
    weights = th.rl.Clipped(0.2)
    return th.LogLikelihood(policy, rollouts, weights) + th.LogLikelihood(value, rollouts), weights


def table(scale=1.0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=g) * scale
    y = torch.poisson(torch.exp(x[:, 0] / scale / 2), generator=g)
    model = th.models.Conditional(th.families.Poisson(), th.networks.mlp(3, 8, 1, "tanh", seed=0))
    return th.Objective([th.LogLikelihood(model, th.data.Tensors(th.data.Batch({"x": x, "y": y})))])


def run(objective, steps, **settings):
    """The states of a run, θ after each, and the optimiser."""
    settings = {"learning_rate": 1e-2, "lr_schedule": "linear", "held_out": None, "in_place": True} | settings
    solver = th.Stochastic(steps=steps, **settings)
    states, thetas = [solver.start(objective)], []
    while not solver.done(objective, states[-1]):
        states.append(solver.step(objective, states[-1]))
        thetas.append(objective.theta.clone())
    return states, thetas


@pytest.mark.parametrize(("most", "normalise"), [(None, False), (0.5, True)])
def test_ppo_by_one_graph_a_step_is_ppo(most, normalise):
    """Eight passes, rollouts compiled too: θ, values and norms of 24 steps, what the weights measure, AdamW's moments."""
    (objective, weights), (compiled, own) = (ppo(compile, normalise=normalise) for compile in (False, True))
    states, thetas = run(objective, 24, max_grad_norm=most)
    found, ours = run(compiled, 24, max_grad_norm=most, compile=True)
    assert compiled.terms[0].source._graph.possible
    update = found[-1].work.engine.update
    assert update is not None
    assert update.possible
    for a, b in zip(thetas, ours, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=2e-5)
    assert [s.value for s in found[1:]] == pytest.approx([s.value for s in states[1:]], rel=1e-4, abs=1e-5)
    assert [s.norm for s in found[1:]] == pytest.approx([s.norm for s in states[1:]], rel=1e-3)
    assert own.measured() == pytest.approx(weights.measured(), rel=1e-3, abs=1e-6)
    for a, b in zip(
        *(s[-1].work.optimisers[0].state_dict()["state"].values() for s in (states, found)), strict=True
    ):
        assert float(a["step"]) == float(b["step"]) == 24
        torch.testing.assert_close(b["exp_avg"], a["exp_avg"], rtol=1e-3, atol=1e-5)


def test_weight_decay_shrinks_matrices_alone():
    """Rows of a table, with decay: the step of torch's AdamW."""
    settings = {"weight_decay": 0.3, "batch_size": 32, "betas": (0.8, 0.95)}
    _, thetas = run(table(), 10, **settings)
    found, ours = run(table(), 10, compile=True, **settings)
    assert found[-1].work.engine.update.possible
    torch.testing.assert_close(ours[-1], thetas[-1], rtol=0, atol=1e-5)
    _, without = run(table(), 10, **settings | {"weight_decay": 0.0})
    assert float((without[-1] - thetas[-1]).abs().max()) > 1e-3


def test_a_step_that_is_not_finite_moves_nothing():
    """The failure and θ of the run that is not compiled."""

    def worse(batch, log_prob):  # without bound once the steps have begun
        return torch.full_like(log_prob, 1e30) * torch.exp(-log_prob * 1e3)

    ends = []
    for compile in (False, True):
        objective = table()
        objective = th.Objective(
            [th.LogLikelihood(objective.terms[0].model, objective.terms[0].source, worse)]
        )
        before = objective.theta.clone()
        states, _ = run(objective, 3, compile=compile)
        ends.append((states[-1].failure, objective.theta))
        assert states[-1].failure
        assert torch.equal(objective.theta, before)
    assert ends[0][0] == ends[1][0]


def test_a_parameter_without_a_gradient_is_moved_by_nobody():
    """AdamW leaves it out, which one graph does not: the step is made in parts."""
    objective = table()
    model = objective.terms[0].model
    model.idle = torch.nn.Parameter(torch.ones(2))
    objective = th.Objective(objective.terms)
    states, _ = run(objective, 3, compile=True)
    assert not states[-1].work.engine.update.possible
    assert states[-1].step == 3
    assert torch.equal(model.idle, torch.ones(2))


def test_a_compiled_run_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    settings = {"compile": True, "lr_schedule": "constant", "evaluate_every": 5, "in_place": False}
    whole = th.maximize(ppo(True)[0], solver=th.Stochastic(steps=10, held_out=None, **settings))
    parts = settings | {"checkpoint": tmp_path / "run.pt", "held_out": None}
    th.maximize(ppo(True)[0], solver=th.Stochastic(steps=5, **parts))
    again = th.maximize(ppo(True)[0], solver=th.Stochastic(steps=10, **parts))
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


@torch._inductor.config.patch({"cpp.cxx": (None, "a-compiler-that-is-not-there")})
def test_without_a_compiler_the_run_is_not_compiled():
    """A warning names what is missing, and the numbers are those of the run that is not compiled."""
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        objective, _ = ppo(True)
    with pytest.warns(UserWarning, match="not compiled"):
        found, ours = run(objective, 6, compile=True)
    _, thetas = run(ppo(False)[0], 6)
    assert not found[-1].failure
    assert torch.equal(ours[-1], thetas[-1])


def test_large_networks_keep_the_optimiser_outside():
    model = th.models.Conditional(th.families.Poisson(), th.networks.mlp(3, (600, 600), 1))
    source = table().terms[0].source
    solver = th.Stochastic(steps=1, held_out=None, compile=True)
    state = solver.start(th.Objective([th.LogLikelihood(model, source)]))
    assert state.work.engine.whole is not None
    assert state.work.engine.update is None
