"""A step as one graph: the numbers are those of the step that is not compiled, of every kind of term; and what cannot be
one graph is compiled in parts."""

from __future__ import annotations

from shutil import which

import pytest
import torch

import thetahat as th
from thetahat.protocols import is_drawn
from thetahat.solvers.gradient import StepGradient
from thetahat.solvers.minibatches import Feed
from thetahat.solvers.optimisers import AdamW

pytestmark = [
    pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler here"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore:The .grad attribute"
    ),  # of torch's own code
]


def ppo(weights, known=True, vectorization="tensor"):
    """known : whether the policy is told the actions, or takes as many as its network has outputs"""
    rollouts = th.rl.Rollouts("CartPole-v1", 4, num_steps=16, epochs=1, vectorization=vectorization)
    policy = th.rl.Policy(th.networks.mlp(4, 8, 2, "tanh", seed=0), rollouts.actions if known else None)
    value = th.rl.Value(th.networks.mlp(4, 8, 1, "tanh", seed=1))
    rollouts.advantage = th.rl.GAE(value)
    return th.LogLikelihood(policy, rollouts, weights) + th.LogLikelihood(value, rollouts)


def counts(weights):
    """Rows with counts, one of them 0, of a network's Poisson mean."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=g)
    y = torch.poisson(torch.exp(x[:, 0] / 2), generator=g)
    count = torch.randint(0, 4, (50,), generator=g).double()
    model = th.models.Conditional(th.families.Poisson(), th.networks.mlp(3, 8, 1, "tanh", seed=0))
    batch = th.data.Batch({"x": x, "y": y}, count=count)
    return th.Objective([th.LogLikelihood(model, th.data.Tensors(batch), weights)])


def classes(weights):
    """Rows of three classes: a family that looks where its links lead before it is traced."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 3, generator=g), torch.randint(3, (50,), generator=g)
    model = th.models.Conditional(th.families.Categorical(3), th.networks.mlp(3, 8, 3, seed=0))
    return th.Objective([th.LogLikelihood(model, th.data.Tensors(th.data.Batch({"x": x, "y": y})), weights)])


def both(objective, steps=1):
    """(value, gradient, the engine) of a batch, as it is and compiled."""
    found = []
    source = objective.terms[0].source
    model = objective.terms[0].model
    batch = next(source.minibatches(model) if is_drawn(source) else source.batches())
    for compiled in (False, True):
        engine = StepGradient(objective, 1, None, compiled, "ddp")
        feed = Feed(list(objective.terms), iter([]), None, None, True)
        for _ in range(steps):
            value = engine.gradient([(feed, [batch])])
        found.append((value, [p.grad.clone() for p in engine.parameters], engine))
    return found


def off(found, expected):
    """The largest difference, by the largest entry."""
    most = max(float(g.abs().max()) for g in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / most


@pytest.mark.parametrize(
    ("make", "weights"),
    [
        (ppo, th.rl.Clipped(0.2, entropy_coef=0.01)),
        (ppo, th.rl.Advantage(0.01)),
        (lambda weights: ppo(weights, known=False), th.rl.Clipped(0.2)),
        (counts, None),
        (classes, None),
        (counts, lambda batch, log_prob: torch.exp(log_prob).sqrt()),
    ],
    ids=["clipped", "advantage", "actions by the network", "counted", "classes", "weights of one's own"],
)
def test_value_and_gradient_are_those_of_the_step_that_is_not_compiled(make, weights):
    """To what float32 rounds: 2e-6 of the gradient's largest entry."""
    (value, gradient, _), (compiled, whole, engine) = both(make(weights), 2)
    assert engine.whole is not None
    assert engine.whole.possible
    assert compiled == pytest.approx(value, rel=1e-6)
    assert off(whole, gradient) < 2e-6


def test_what_a_weighting_measures_is_measured_in_the_graph():
    measured, clipped = [], th.rl.Clipped(0.2)
    objective = ppo(clipped)
    rows = next(objective.terms[0].source.minibatches(objective.terms[0].model))
    for compiled in (False, True):
        engine = StepGradient(objective, 1, None, compiled, "ddp")
        clipped._last[0].zero_()
        engine.gradient([(Feed(list(objective.terms), iter([]), None, None, True), [rows])])
        measured.append(clipped.measured())
    assert engine.whole is not None
    assert engine.whole.possible
    assert set(measured[0]) == {"approx_kl", "clip_fraction", "entropy"}
    assert measured[1] == pytest.approx(measured[0], rel=1e-5, abs=1e-7)


def test_a_weighting_that_asks_for_numbers_is_compiled_in_parts():
    def by_mean(batch, log_prob):
        return torch.ones_like(log_prob) if float(log_prob.mean()) > -5 else torch.zeros_like(log_prob)

    (value, gradient, _), (compiled, parts, engine) = both(counts(by_mean), 2)
    assert engine.whole is not None
    assert not engine.whole.possible
    assert compiled == pytest.approx(value, rel=1e-6)
    assert off(parts, gradient) < 2e-6


def test_one_graph_serves_passes_of_every_length():
    """Passes of a policy have as many transitions as there are no first states in them: no new graph for each."""
    objective = ppo(th.rl.Clipped(), vectorization="gymnasium")
    rollouts = objective.terms[0].source
    solver = th.Stochastic(steps=12, held_out=None, compile=True, in_place=True)
    state, lengths, graphs = solver.start(objective), [], []
    while not solver.done(objective, state):
        state = solver.step(objective, state)
        lengths.append(len(rollouts._rows))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert state.work.engine.whole.possible
    assert not state.failure
    assert len(set(lengths[1:])) > 2
    assert graphs[-1] == graphs[0]


def test_settings_of_torch_are_as_they_were():
    before = torch._dynamo.config.trace_autograd_ops
    both(counts(None))
    assert torch._dynamo.config.trace_autograd_ops is before


def test_adamw_is_torchs_bit_for_bit():
    """Two groups, a parameter without a gradient for two steps, a rate that changes."""
    g = torch.Generator().manual_seed(0)
    moved = []
    for kind in (AdamW, torch.optim.AdamW):
        g.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(s, generator=g)) for s in ((3, 4), (4,), (2,))]
        groups = [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:]}]
        optimiser = kind(groups, lr=0.1, weight_decay=0.0, fused=True)
        for step in range(6):
            for group in optimiser.param_groups:
                group["lr"] = 0.1 / (step + 1)
            for k, p in enumerate(parameters):
                p.grad = torch.randn(p.shape, generator=g) if k < 2 or step > 1 else None
            optimiser.step()
            if step == 3:
                optimiser.load_state_dict(optimiser.state_dict())
        moved.append((parameters, [optimiser.state[p]["step"].item() for p in parameters]))
    (ours, steps), (theirs, same) = moved
    assert steps == same == [6.0, 6.0, 4.0]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_network_that_is_slower_compiled_is_named():
    data = {"x": torch.zeros(8, 64, dtype=torch.uint8), "y": torch.zeros(8, dtype=torch.int64)}
    model = th.models.Conditional(th.families.Categorical(2), th.generative.ConvNet((8, 8), 2, channels=(4,)))
    objective = th.Objective([th.LogLikelihood(model, th.data.Tensors(data))])
    with pytest.warns(UserWarning, match="Conditional has MaxPool2d"):
        th.Stochastic(steps=1, held_out=None, compile=True).start(objective)
