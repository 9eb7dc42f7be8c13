"""Environments: a transition means the same under each of gymnasium's ways to begin anew; and what an
environment does wrong is named."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import thetahat as th
from thetahat.errors import BadArgument, DataError, NotFinite
from thetahat.rl import Rollouts
from thetahat.rl.environments import Environments
from thetahat.rl.rollouts import returns


class Counter(gymnasium.Env):
    """Shows (episode, t); pays t; terminates after 3 steps in even episodes, and is cut off after 2 in odd
    ones."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)
    episode = -1

    def __init__(self, fault: str = ""):
        self.fault = fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._shown(), {}

    def step(self, action):
        self.t += 1
        even = self.episode % 2 == 0
        reward = float("nan") if self.fault == "reward" and self.t == 2 else float(self.t)
        return self._shown(), reward, even and self.t == 3, not even and self.t == 2, {}

    def _shown(self):
        return np.array(
            [self.episode, np.inf if self.fault == "state" and self.t == 2 else self.t], dtype=np.float32
        )


gymnasium.register("Counter-v0", entry_point=lambda fault="": Counter(fault))


def transitions(mode, steps=16):
    """(state, next, reward, terminated, truncated) of the first copy's transitions, in order."""
    environments = Environments(
        "Counter-v0", 2, {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}}
    )
    environments.reset(seed=0)
    found = []
    for _ in range(steps):
        now = environments.step(np.zeros(2, dtype=int))
        if now.count[0]:
            found.append(
                (*now.state[0], *now.next[0], now.reward[0], bool(now.terminated[0]), bool(now.truncated[0]))
            )
    environments.close()
    return found


@pytest.mark.parametrize("mode", AutoresetMode)
def test_transitions_are_the_same_whoever_begins_anew(mode):
    """Episode e: t → t + 1 pays t + 1; even ones terminate at 3, odd ones are cut off at 2: written out."""
    wanted = []
    for e in range(8):
        last = 3 if e % 2 == 0 else 2
        wanted += [
            (e, t, e, t + 1, t + 1, e % 2 == 0 and t + 1 == last, e % 2 == 1 and t + 1 == last)
            for t in range(last)
        ]
    found = transitions(mode)
    assert len(found) == (12 if mode == AutoresetMode.NEXT_STEP else 16)
    assert [tuple(map(float, row)) for row in found] == [
        tuple(map(float, row)) for row in wanted[: len(found)]
    ]


def test_whole_episodes_end_where_they_end_in_every_mode():
    policy = th.rl.Policy(torch.nn.Linear(2, 2))
    for mode in AutoresetMode:
        settings = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}}
        batch = next(Rollouts("Counter-v0", 2, settings=settings).batches(policy))
        assert batch["reward"].tolist() == [[1, 2, 3]] * 2
        assert batch["terminated"].tolist() == [[False, False, True]] * 2
        assert returns(policy, "Counter-v0", 2, **settings).tolist() == [6, 6]


def test_an_episode_that_does_not_end_is_an_error_and_not_a_wait(monkeypatch):
    monkeypatch.setattr("thetahat.rl.rollouts.LONGEST", 5)
    policy = th.rl.Policy(torch.nn.Linear(4, 2))
    with pytest.raises(DataError, match=r"CartPole-v1 has not ended after 5 steps.*max_episode_steps"):
        returns(policy, "CartPole-v1", 2)
    with pytest.raises(DataError, match="has not ended"):
        next(Rollouts("CartPole-v1", 2).batches(policy))


def test_segments_go_on_from_pass_to_pass():
    rollouts = Rollouts(Counter, 1, num_steps=4)
    policy = th.rl.Policy(torch.nn.Linear(2, 2))
    first, second = next(rollouts.batches(policy)), next(rollouts.batches(policy))
    assert first["next"][0].tolist() == [
        [0, 1],
        [0, 2],
        [0, 3],
        [0, 0],
    ]  # the fourth step only begins anew: no transition
    assert first.count[0].tolist() == [1, 1, 1, 0]
    assert second["state"][0, 0].tolist() == [1, 0]
    assert rollouts.played == 3 + int(second.count.sum())
    assert rollouts.measured()["training_return"] == np.mean([6, 3])


@pytest.mark.parametrize(
    ("fault", "said"),
    [("reward", "the reward nan in environment 0 after 2 steps"), ("state", "the state inf")],
)
def test_what_is_not_finite_is_named(fault, said):
    with pytest.raises(NotFinite, match=said):
        returns(th.rl.Policy(torch.nn.Linear(2, 2)), "Counter-v0", 1, fault=fault)


def test_a_state_of_another_shape_is_named(monkeypatch):
    environments = Environments("CartPole-v1", 2)
    environments.reset(seed=0)
    real = environments.vector.step
    monkeypatch.setattr(
        environments.vector, "step", lambda action: (real(action)[0][:, :3], *real(action)[1:])
    )
    with pytest.raises(DataError, match=r"a state of shape \(2, 3\) after 1 steps; it promises \(2, 4\)"):
        environments.step(np.array([0, 1]))


class Faulty(Counter):
    """Raises, or shows a state of another shape, after two steps; or pays in words."""

    def step(self, action):
        state, reward, *rest = super().step(action)
        if self.fault == "raises" and self.t == 2:
            raise RuntimeError("boom")
        return (
            np.zeros(3, np.float32) if self.fault == "shape" and self.t == 2 else state,
            "x" if self.fault == "word" else reward,
            *rest,
        )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "raises",
            r"Faulty failed after 1 steps of 1 environments: RuntimeError: boom. It promises states of shape "
            r"\(2,\)",
        ),
        ("shape", "Faulty failed after 1 steps"),
        ("word", "Faulty failed after 0 steps .*'x'"),
    ],
)
def test_what_an_environment_raises_is_said_to_be_its_own(fault, said):
    with pytest.raises(DataError, match=said):
        returns(th.rl.Policy(torch.nn.Linear(2, 2)), Faulty, 1, fault=fault)


def test_an_environment_that_cannot_be_made_is_named():
    for name in ("NoSuch-v0", "no_such_module:X-v0", lambda: 1 / 0):
        with pytest.raises(BadArgument, match=r"gymnasium cannot make"):
            Environments(name)


def test_states_that_are_no_arrays_are_refused():
    class Words(Counter):
        observation_space = spaces.Text(5)

    with pytest.raises(BadArgument, match="Accepted: Box, Discrete"):
        Environments(Words)


def test_actions_of_every_space_are_played_and_their_density_is_right():
    """Pendulum's squashed normal beside torch's TransformedDistribution; a multi-discrete action beside
    independent categoricals."""
    rollouts = Rollouts("Pendulum-v1", 2, num_steps=3)
    policy = th.rl.Policy(th.networks.mlp(3, 8, 2), rollouts.actions)
    batch = next(rollouts.batches(policy))
    m, s = policy.network(batch["state"]).chunk(2, -1)
    base = torch.distributions.Normal(m, s.exp())
    squashed = torch.distributions.TransformedDistribution(
        base, [torch.distributions.TanhTransform(), torch.distributions.AffineTransform(0.0, 2.0)]
    )
    wanted = squashed.log_prob(2 * torch.tanh(batch["action"]))[..., 0]
    torch.testing.assert_close(policy.log_prob(batch), wanted, atol=1e-4, rtol=1e-4)
    assert np.abs(policy.sent(torch.tensor([[50.0], [-50.0]]))).tolist() == [[2.0], [2.0]]
    many = th.rl.Policy(torch.nn.Linear(2, 5), spaces.MultiDiscrete([2, 3]))
    state, action = torch.randn(4, 2), torch.tensor([[0, 2], [1, 1], [1, 0], [0, 0]])
    logits = many.network(state)
    parts = [torch.distributions.Categorical(logits=logits[:, a:b]) for a, b in ((0, 2), (2, 5))]
    wanted = parts[0].log_prob(action[:, 0]) + parts[1].log_prob(action[:, 1])
    torch.testing.assert_close(many.log_prob(th.data.Batch({"state": state, "action": action})), wanted)
    assert many.act(state, torch.Generator().manual_seed(0)).shape == (4, 2)


# ---- spaces ------------------------------------------------------------------------------------------------


def made(observations, actions, shown=lambda t: 0, taken=None):
    """An environment of these spaces that shows `shown(t)`, and appends the actions that it is given to
    `taken`."""

    class Made(gymnasium.Env):
        observation_space, action_space = observations, actions

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return shown(0), {}

        def step(self, action):
            assert self.action_space.contains(action), action
            if taken is not None:
                taken.append(action)
            self.t += 1
            return shown(self.t), 1.0, False, self.t >= 5, {}

    return Made


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [(np.uint8, np.float32), (np.int16, np.float32), (np.int32, np.float64), (np.int64, np.float64)],
)
def test_whole_numbers_of_a_box_are_numbers_to_a_network(dtype, wide):
    make = made(spaces.Box(0, 100, (2,), dtype), spaces.Discrete(2), lambda t: np.array([t, 10 * t], dtype))
    policy = th.rl.Policy(th.networks.mlp(2, 4, 2))
    batch = next(Rollouts(make, 2).batches(policy))
    assert batch["state"].numpy().dtype == wide
    assert batch["state"][0].tolist() == [[t, 10 * t] for t in range(5)]
    replay = th.rl.Replay(make, 2, learning_starts=10, batch_size=4)
    assert next(replay.minibatches(th.rl.C51(th.networks.mlp(2, 4, 2 * 5), 0.0, 10.0, 5)))[
        "state"
    ].dtype.is_floating_point
    assert returns(policy, make, 2).tolist() == [5, 5]


def test_a_discrete_space_that_begins_elsewhere_is_numbered_from_zero():
    """States 3, 4, 5 are rows 0, 1, 2 of a table; actions 1 and 2 of the environment are the outputs 0 and
    1 of a network."""
    taken: list[int] = []
    make = made(spaces.Discrete(3, start=3), spaces.Discrete(2, start=1), lambda t: 3 + t % 3, taken)
    rollouts = Rollouts(make, 1)
    policy = th.rl.Policy(torch.nn.Embedding(3, 2), rollouts.actions)
    batch = next(rollouts.batches(policy))
    assert batch["state"][0].tolist() == [0, 1, 2, 0, 1]
    assert [int(a) for a in taken] == [a + 1 for a in batch["action"][0].tolist()]
    taken.clear()
    model = th.rl.QRDQN(torch.nn.Embedding(3, 2 * 4), levels=4)
    with torch.no_grad():
        model.network.weight.copy_(
            torch.tensor([[0.0] * 4 + [1.0] * 4] * 3)
        )  # the second action is the better one
    assert returns(model, make, 1).tolist() == [5]
    assert [int(a) for a in taken] == [2] * 5
    replay = th.rl.Replay(make, 1, learning_starts=5, exploration=(0.0, 0.0, 1), batch_size=4)
    assert next(replay.minibatches(model))["action"].tolist() == [1] * 4


def test_several_discrete_actions_that_begin_elsewhere_are_numbered_from_zero():
    taken: list[Any] = []
    make = made(spaces.Discrete(1), spaces.MultiDiscrete([2, 3], start=[5, -1]), taken=taken)
    rollouts = Rollouts(make, 1)
    batch = next(rollouts.batches(th.rl.Policy(torch.nn.Embedding(1, 5), rollouts.actions)))
    assert [list(a) for a in taken] == (batch["action"][0].numpy() + [5, -1]).tolist()


def test_a_state_or_an_action_that_is_none_of_a_space_is_named():
    with pytest.raises(DataError, match=r"the state 7 in environment 0 .* 3 … 5"):
        Environments(made(spaces.Discrete(3, start=3), spaces.Discrete(2), lambda t: 7)).reset(seed=0)
    environments = Environments(made(spaces.Discrete(1), spaces.Discrete(2)))
    environments.reset(seed=0)
    with pytest.raises(BadArgument, match=r"action 2 was chosen in environment 0; .* 0 … 1"):
        environments.step(np.array([2]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_actions_lie_within_their_box_in_its_own_numbers(dtype):
    """float32(0.1) = 0.10000000149… is more than 0.1: `contains` of the environment's own space is asked
    at both ends."""
    box = spaces.Box(np.array([-0.3, 0.1], dtype), np.array([0.1, 0.7], dtype), dtype=dtype)
    actions = th.rl.Policy(torch.nn.Identity(), box).actions
    for u in (-40.0, 0.0, 0.3, 40.0):
        sent = actions.sent(torch.full((1, 2), u))
        assert sent.dtype == dtype
        assert box.contains(sent[0])
    rough = th.rl.actions.SquashedNormal([-0.1], [0.1])
    assert rough.sent(torch.tensor([[-40.0]])).item() >= -0.1
    assert rough.sent(torch.tensor([[40.0]])).item() <= 0.1
    played = next(
        Rollouts(made(spaces.Discrete(1), box), 1).batches(th.rl.Policy(torch.nn.Embedding(1, 4), box))
    )
    assert played["action"].shape == (1, 5, 2)
