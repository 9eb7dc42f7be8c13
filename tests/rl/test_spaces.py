"""Observations and actions of every kind of space that people's environments have."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import thetahat as th
from thetahat.cli import policies
from thetahat.errors import BadArgument
from thetahat.rl.environments import Environments
from thetahat.rl.rollouts import returns


class Shown(gymnasium.Env):
    """One step an episode; what is shown is drawn, and the reward is told by `pays`."""

    def __init__(self, observation=None, action=None, pays=None):
        self.observation_space = observation or spaces.Discrete(3)
        self.action_space = action or spaces.Discrete(2)
        self.pays = pays or (lambda seen, action: 0.0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.seen = self.observation_space.sample()
        return self.seen, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.seen, float(self.pays(self.seen, action)), True, False, {}


OBSERVATIONS = {
    "dict": spaces.Dict({"place": spaces.Box(-1, 1, (2,), np.float32), "kind": spaces.Discrete(3)}),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (3,), np.float64))),
    "bits": spaces.MultiBinary(4),
    "several": spaces.MultiDiscrete([2, 3]),
    "image": spaces.Box(0, 255, (4, 4, 2), np.uint8),
    "numbered from 5": spaces.Discrete(3, start=5),
}


@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("given", ["a function", "an environment"])
def test_states_are_what_gymnasium_flattens(kind, given):
    space = OBSERVATIONS[kind]
    made = (lambda: Shown(space)) if given == "a function" else Shown(space)
    environments = Environments(made, 3)
    state = environments.reset(seed=0)
    flat = isinstance(space, (spaces.Dict, spaces.Tuple, spaces.MultiBinary, spaces.MultiDiscrete))
    raw = [env.unwrapped.seen for env in environments.vector.envs]
    if kind == "numbered from 5":
        wanted = np.array(raw) - 5
    else:
        wanted = np.stack([spaces.flatten(space, each) if flat else each for each in raw])
    np.testing.assert_allclose(state, wanted)
    assert (environments.levels == 3) == (kind == "numbered from 5")


def test_the_end_of_an_episode_is_shown_flattened_too():
    class Two(Shown):
        def step(self, action):
            self.seen = {"place": np.array([0.5, -0.5], dtype=np.float32), "kind": np.int64(2)}
            return self.seen, 1.0, True, False, {}

    step = Environments(lambda: Two(OBSERVATIONS["dict"]), 2)
    step.reset(seed=0)
    assert step.step(np.array([0, 1])).next[0].tolist() == [0, 0, 1, 0.5, -0.5]


@pytest.mark.parametrize(
    ("action", "best"),
    [
        (spaces.MultiBinary(3), np.array([1, 0, 1])),
        (spaces.Box(-1, 2, (2,), np.int32), np.array([2, -1])),
        (spaces.Discrete(3, start=-1), 1),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2])),
    ],
    ids=["MultiBinary", "Box of whole numbers", "Discrete from −1", "MultiDiscrete"],
)
def test_a_policy_learns_the_best_action_of_every_space(action, best):
    """One action is paid, entry by entry; the environment refuses what its space does not contain."""
    make = lambda: Shown(None, action, lambda seen, a: np.mean(np.asarray(a) == best))  # noqa: E731
    rollouts = th.rl.Rollouts(make, 32)
    outputs = th.rl.actions.actions_of(rollouts.actions).outputs
    policy = th.rl.Policy(torch.nn.Embedding(3, outputs), rollouts.actions)
    fit = th.fit(
        policy, rollouts, weights=th.rl.RewardToGo(), solver=th.Stochastic(steps=80, learning_rate=0.2)
    )
    assert float(returns(fit.model, make, 20).mean()) == 1.0


def test_an_image_is_read_by_a_convolution_under_rollouts_and_replay():
    make = lambda: Shown(  # noqa: E731
        OBSERVATIONS["image"], spaces.Discrete(2), lambda seen, a: float((seen[0, 0, 0] > 127) == a)
    )
    seen = Environments(make, 1)
    network = th.networks.Convolution(seen.shape, 2, channels=(8,), width=32)
    rollouts = th.rl.Rollouts(make, 64)
    fit = th.fit(
        th.rl.Policy(network),
        rollouts,
        weights=th.rl.RewardToGo(normalise=True),
        solver=th.Stochastic(steps=150, learning_rate=0.01),
    )
    assert float(returns(fit.model, make, 60).mean()) > 0.85
    model = th.rl.C51(th.networks.Convolution(seen.shape, 2 * 5, channels=(4,), width=8), 0.0, 1.0, 5)
    batch = next(th.rl.Replay(make, 2, learning_starts=20, batch_size=8).minibatches(model))
    assert batch["state"].shape == (8, 4, 4, 2)
    assert model.log_prob(batch).shape == (8,)


def test_a_convolution_scales_bytes_and_takes_channels_first_or_last():
    for shape in ((4, 10, 10), (10, 10, 4), (84, 84, 3)):
        network = th.networks.Convolution(shape, 3, channels=(4, 4))
        x = torch.randint(256, (5, 2, *shape)).float()
        assert network(x).shape == (5, 2, 3)
        assert network(x[0]).shape == (2, 3)
    with pytest.raises(BadArgument, match="shape"):
        th.networks.Convolution((4,), 2)
    with pytest.raises(BadArgument, match="too small"):
        th.networks.Convolution((3, 2, 2), 2, channels=(4, 4, 4))


@pytest.mark.parametrize(
    "space", [spaces.Box(-np.inf, np.inf, (2,)), spaces.Text(3)], ids=["no edges", "text"]
)
def test_actions_that_cannot_be_played_are_refused_with_what_to_do(space):
    with pytest.raises(BadArgument, match="TransformAction"):
        th.rl.actions.actions_of(space)


def test_states_that_are_no_numbers_are_refused():
    with pytest.raises(BadArgument, match="shows states of Text"):
        Environments(lambda: Shown(spaces.Text(3)), 1)
    with pytest.raises(BadArgument, match="Leave them out"):
        Environments(Shown(), 1, {"max_episode_steps": 3})


# ---- evaluations that do not end ---------------------------------------------------------------------------


class Forever(Shown):
    def step(self, action):
        return self.seen, 1.0, False, False, {}


def test_an_episode_that_never_ends_counts_what_it_earned_and_says_so():
    policy = th.rl.Policy(torch.nn.Embedding(3, 2))
    with pytest.warns(RuntimeWarning, match="2 of 2 episodes of .* did not end within 50 steps"):
        found = returns(policy, Forever, 2, max_steps=50)
    assert found.tolist() == [50.0, 50.0]


def test_a_run_says_how_many_episodes_of_an_evaluation_did_not_end(monkeypatch):
    """An embedding of the state's number that always walks left on CliffWalking's edge: no episode ends."""
    monkeypatch.setattr(policies, "LONGEST_EVALUATION", 50)
    policy = th.rl.Policy(torch.nn.Embedding(48, 4))
    with torch.no_grad():
        policy.network.weight.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(48, 4))
    system = policies.PPO(env="CliffWalking-v1", max_episode_steps=1000, eval_episodes=3)
    assert system.measure(policy)["unfinished_episodes"] == 3
    short = policies.PPO(env="CliffWalking-v1", max_episode_steps=20, eval_episodes=3)
    assert short.measure(policy)["unfinished_episodes"] == 0


# ---- over runs ---------------------------------------------------------------------------------------------


def test_intervals_of_the_interquartile_mean_cover_it():
    """Of 200 samples of 20 normal runs: 95 % intervals contain the truth, 0, nearly that often (the bootstrap of so few is a
    little short)."""
    g = np.random.default_rng(0)
    inside = []
    for k in range(200):
        found = th.rl.performance.iqm(g.normal(size=20), draws=400, seed=k)
        inside.append(found.low <= 0 <= found.high)
    assert 0.88 <= np.mean(inside) <= 0.98


def test_tasks_are_drawn_within_each_and_weigh_alike():
    runs = {"a": [0.0, 0.0, 1.0, 1.0], "b": [10.0, 10.0, 10.0, 10.0]}
    profile = th.rl.performance.performance_profile(runs, [0.5, 5.0])
    assert profile["share"].tolist() == [0.75, 0.5]
    assert profile["low"].tolist()[1] == profile["high"].tolist()[1] == 0.5
    better = th.rl.performance.probability_of_improvement(
        {"a": [2.0, 3.0], "b": [0.0, 0.0]}, {"a": [1.0, 1.0], "b": [0.0, 0.0]}
    )
    assert better.value == 0.75
    with pytest.raises(BadArgument, match="tasks of the two differ"):
        th.rl.performance.probability_of_improvement({"a": [1.0, 2.0]}, {"b": [1.0, 2.0]})
    with pytest.raises(BadArgument, match="two finite returns"):
        th.rl.performance.iqm([1.0])
