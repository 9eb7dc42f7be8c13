"""A rollout as one graph: the rollout that is played step by step is the oracle, noise and first states included."""

from __future__ import annotations

import warnings
from shutil import which

import numpy as np
import pytest
import torch
from gymnasium import spaces

import thetahat as th
from thetahat.errors import NotFinite
from thetahat.rl import Rollouts

pytestmark = [
    pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's compiler, about its own code
]


def passes(environment, inputs, outputs, many, compile, **settings):
    """So many passes of 4 environments, the rollouts, and what they measured."""
    rollouts = Rollouts(
        environment, 4, num_steps=24, seed=5, vectorization="tensor", compile=compile, **settings
    )
    policy = th.rl.Policy(th.networks.mlp(inputs, 16, outputs, "tanh", seed=0), rollouts.actions)
    return [next(rollouts.batches(policy)) for _ in range(many)], rollouts


@pytest.mark.parametrize(
    ("environment", "inputs", "outputs", "settings"),
    [
        ("CartPole-v1", 4, 2, {"settings": {"max_episode_steps": 30}}),
        ("CartPole-v1", 4, 2, {"greedy": True, "normalise_rewards": True}),
        ("Pendulum-v1", 3, 2, {"settings": {"max_episode_steps": 50}}),
        ("MountainCarContinuous-v0", 2, 2, {}),
    ],
)
def test_a_rollout_by_one_graph_is_that_of_its_steps(environment, inputs, outputs, settings):
    """Six passes, with ends, limits of steps and new episodes: the same actions and ends, the same numbers to rounding,
    which the pendulum makes larger from step to step."""
    (expected, by_steps), (found, by_graph) = (
        passes(environment, inputs, outputs, 6, compile, **settings) for compile in (False, True)
    )
    assert by_graph._graph.possible
    for a, b in zip(expected, found, strict=True):
        assert set(a) == set(b)
        for name in a:
            assert a[name].dtype == b[name].dtype
            torch.testing.assert_close(b[name], a[name], rtol=1e-4, atol=1e-4, msg=name)
        assert torch.equal(a.count, b.count)
    assert by_graph.measured() == pytest.approx(by_steps.measured(), rel=1e-5)
    assert by_graph.environments.steps == by_steps.environments.steps == 6 * 24
    np.testing.assert_array_equal(by_graph.environments.over, by_steps.environments.over)
    kept = [r.environments.vector for r in (by_steps, by_graph)]
    torch.testing.assert_close(kept[1].state, kept[0].state, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(kept[1].steps, kept[0].steps)
    assert torch.equal(kept[1].first_states(9), kept[0].first_states(9))


class Drift:
    """A sum of what is chosen, two numbers at once; the third choice of the second is a division by zero."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.MultiDiscrete([2, 3])
    max_episode_steps = 11

    def __init__(self, fails=False):
        self.fails = fails

    def reset(self, n, generator):
        return torch.zeros(n, 2)

    def observation(self, state):
        return state

    def step(self, state, action):
        state = state + action.float()
        paid = 1.0 / (2 - action[:, 1]) if self.fails else state.sum(1)
        return state, paid.double(), state[:, 1] > 8


def test_environments_of_ones_own_with_several_actions_at_once():
    (expected, _), (found, rollouts) = (passes(Drift(), 2, 5, 3, compile) for compile in (False, True))
    assert rollouts._graph.possible
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a["action"], b["action"])
        assert torch.equal(a["next"], b["next"])
        assert torch.equal(a["terminated"], b["terminated"])
    assert any(bool(b["terminated"].any()) for b in found)


def test_what_is_not_finite_is_named_with_its_step():
    """As step by step: the first step of which an environment gives no number."""
    said = []
    for compile in (False, True):
        with pytest.raises(NotFinite, match="reward inf in environment") as error:
            passes(Drift(fails=True), 2, 5, 3, compile)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_what_cannot_be_one_graph_is_played_step_by_step():
    """An environment that asks a tensor for a number, which no graph can: the same numbers, and a warning."""

    class Asks(Drift):
        def step(self, state, action):
            if float(state.sum()) > 1e6:
                raise ValueError
            return super().step(state, action)

    expected, _ = passes(Asks(), 2, 5, 2, False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found, rollouts = passes(Asks(), 2, 5, 2, True)
    assert not rollouts._graph.possible
    assert [str(w.message) for w in seen if "cannot be one graph" in str(w.message)]
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a["action"], b["action"])


def test_a_policy_with_its_own_way_to_play_is_asked_itself():
    class Always(th.rl.Policy):
        def play(self, state, generator=None, **settings):
            return torch.ones(len(state), dtype=torch.long), torch.zeros(len(state))

    rollouts = Rollouts("CartPole-v1", 2, num_steps=5, vectorization="tensor", compile=True)
    batch = next(rollouts.batches(Always(torch.nn.Linear(4, 2))))
    assert bool((batch["action"] == 1).all())
