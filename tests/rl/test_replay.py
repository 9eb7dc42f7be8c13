"""What a replay remembers, sums and bootstraps, against a tape of the same steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import FiniteMDP
from thetahat.errors import BadArgument, BadSave
from thetahat.rl import Replay


class Counter(gymnasium.Env[Any, Any]):
    """Shows how often it was stepped, ever; pays that number. Every third episode terminates after 4 steps,
    others are cut off after 5."""

    observation_space = gymnasium.spaces.Box(-1, 1e6, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.clock, self.episode = 0.0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.clock, self.begun, self.episode = self.clock + 1, self.clock + 1, self.episode + 1
        return np.array([self.clock]), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, self.clock = self.clock, self.clock + 1
        length = self.clock - self.begun
        terminated = self.episode % 3 == 0 and length == 4
        return np.array([self.clock]), reward, terminated, not terminated and length == 5, {}


class Tape(torch.nn.Module):
    """Its target of a transition is (Σ γʲ R, γᵏ, the state then, terminated, what it holds): nothing of
    what it is told is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.held = torch.nn.Parameter(torch.zeros(()))

    def worth(self, state: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(state), 2)

    def act(self, state: torch.Tensor, generator: Any = None, *, greedy: bool = False) -> np.ndarray:
        return np.zeros(len(state), dtype=np.int64)

    def projected(
        self, reward: Any, discount: Any, following: Any, terminated: Any, action: Any = None
    ) -> torch.Tensor:
        held = self.held.detach().expand(len(reward))
        return torch.stack([reward, discount, following.reshape(len(reward)), terminated.double(), held], -1)


def replay(**settings: Any) -> Replay:
    return Replay(
        Counter, **({"learning_starts": 60, "batch_size": 256, "exploration": (0.0, 0.0, 0)} | settings)
    )


def told(clock: float, steps: int, discount: float, newest: float) -> tuple[float, ...]:
    """What the tape must hold of the transition that began at this clock, by walking the episodes: 6 clock
    values each, 5 where it terminates."""
    begun, episode = 1.0, 1
    while True:
        length = 4 if episode % 3 == 0 else 5
        if clock < begun + length:
            break
        begun, episode = begun + length + 1, episode + 1
    k = int(min(steps, begun + length - clock, newest + 1 - clock))
    terminated = float(episode % 3 == 0 and clock + k == begun + length)
    return sum(discount**j * (clock + j) for j in range(k)), discount**k, clock + k, terminated


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("capacity", [10_000, 13])
def test_sums_never_cross_an_end_and_bootstrap_on_truncation_alone(steps, capacity):
    """Each target against a walk through the known episodes; capacity 13 has wrapped around by then, and
    holds the latest alone."""
    source, model = replay(n_steps=steps, buffer_size=capacity, discount=0.5), Tape()
    flags: set[float] = set()
    for _, batch in zip(range(12), source.minibatches(model), strict=False):
        newest = float(source.environments.state[0, 0]) - (0 if source.environments.over[0] else 1)
        newest = max(newest, float(batch["state"].max()))
        for clock, target in zip(batch["state"][:, 0].tolist(), batch["target"].tolist(), strict=True):
            assert tuple(target[:4]) == pytest.approx(told(clock, steps, 0.5, newest))
        assert float(batch["state"].min()) >= newest - source.rows
        flags |= set(batch["target"][:, 3].tolist())
    assert flags == {0.0, 1.0}  # ends of both kinds were drawn


def test_a_step_that_only_begins_an_episode_is_never_drawn():
    """gymnasium's next-step autoreset: the state after an end is followed by a step that is no transition."""
    source = replay()
    batch = next(source.minibatches(Tape()))
    assert int((~source.memory["count"][: source.written]).sum()) >= 9
    ended = {
        float(s)
        for s, e in zip(source.memory["next"][:, 0, 0], source.memory["ended"][:, 0], strict=True)
        if e
    }
    assert ended
    assert not ended & set(batch["state"][:, 0].tolist())
    assert source.played == int(source.memory["count"].sum()) == 60


def test_every_transition_is_as_probable_as_any_other():
    """χ² of 51,200 draws of 60 transitions in two copies: below its 99.99 % point."""
    from scipy.stats import chi2

    drawn = next(replay(num_envs=2, batch_size=51_200).minibatches(Tape()))["state"][:, 0]
    _, many = torch.unique(drawn, return_counts=True)  # both copies show the same clock
    assert len(many) == 30
    assert float(((many - 51_200 / 30) ** 2 / (51_200 / 30)).sum()) < chi2.ppf(0.9999, 29)


def test_the_frozen_copy_moves_at_its_refreshes_alone():
    source, model = replay(target_update_interval=4), Tape()
    held = []
    for i, batch in zip(range(12), source.minibatches(model), strict=False):
        held.append(float(batch["target"][0, 4]))
        with torch.no_grad():
            model.held.fill_(i + 1)
    assert held == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8]


def test_so_many_transitions_are_played_a_step():
    source = replay(train_frequency=2.5, num_envs=2, learning_starts=20)
    played = [source.played for _ in zip(range(9), source.minibatches(Tape()), strict=False)]
    assert played[0] == 20
    assert all(20 + 2.5 * i <= n < 20 + 2.5 * i + 2 for i, n in enumerate(played))


def test_epsilon_falls_in_a_line_and_actions_follow_it():
    source = replay(exploration=(1.0, 0.1, 2000), learning_starts=1000, buffer_size=20_000)
    next(source.minibatches(Tape()))
    assert source.epsilon == pytest.approx(0.55)
    by_chance = source.memory["action"][:1000, 0].mean()  # the model itself always takes action 0
    assert by_chance == pytest.approx(0.775 / 2, abs=5 * (0.25 / 1000) ** 0.5)
    source.played = 10**6
    assert source.epsilon == 0.1


def test_the_online_model_chooses_what_the_frozen_one_values():
    """Double Q-learning, on a model whose two copies disagree; without it the frozen one chooses too."""
    mdp = FiniteMDP([[[(1.0, 0.0, 0)], [(1.0, 0.0, 0)]]])
    for double, wanted in ((True, 1.0), (False, 7.0)):
        model = th.rl.QRDQN(torch.nn.Embedding(1, 2), levels=1)
        source = Replay(
            mdp, learning_starts=4, batch_size=4, target_update_interval=10**9, discount=1.0, double=double
        )
        deal = source.minibatches(model)
        with torch.no_grad():
            model.network.weight.copy_(torch.tensor([[1.0, 7.0]]))  # copied to the frozen one as it begins
        next(deal)
        with torch.no_grad():
            model.network.weight.copy_(torch.tensor([[3.0, 2.0]]))
        assert next(deal)["target"].unique().tolist() == [wanted]


def test_a_climb_that_was_killed_goes_on_with_what_it_remembered(tmp_path):
    """θ, the memory, the frozen copy, the counts and the episodes under way are those of the run that was not
    killed."""

    def optimise(source: Replay, steps: int, **settings: Any) -> th.rl.C51:
        model = th.rl.C51(torch.nn.Linear(4, 2 * 5), 0.0, 50.0, 5)
        with torch.no_grad():
            [p.zero_() for p in model.parameters()]
        th.fit(
            model,
            source,
            solver=th.Stochastic(steps=40, checkpoint=tmp_path / "c", checkpoint_every=10, **settings),
        )
        return model

    def source() -> Replay:
        return Replay(
            "CartPole-v1",
            2,
            learning_starts=50,
            buffer_size=300,
            target_update_interval=7,
            batch_size=16,
            n_steps=2,
        )

    whole = source()
    model = optimise(whole, 40)
    again = source()
    resumed = optimise(again, 40)  # nothing is left to do: θ is that of the file
    assert torch.equal(resumed.network.weight, model.network.weight)
    fresh = source()
    fresh.restore(whole.state())
    assert (fresh.played, fresh.written, fresh.taken, fresh.epsilon) == (
        whole.played,
        whole.written,
        whole.taken,
        whole.epsilon,
    )
    for name in ("state", "next", "action", "reward", "terminated", "ended", "count"):
        np.testing.assert_array_equal(fresh.memory[name], whole.memory[name])
    held = {name: t.clone() for name, t in whole.frozen.state_dict().items()}
    fresh.taken = 36  # between refreshes: the frozen copy is the one that was saved, not the model's
    batch = next(fresh.minibatches(model))
    assert all(torch.equal(t, held[name]) for name, t in fresh.frozen.state_dict().items())
    assert not bool(fresh.memory["ended"][(whole.written - 1) % whole.rows].all())
    assert torch.allclose(batch["target"].sum(-1), torch.ones(16))


def test_another_replays_memory_is_refused():
    state = replay().state()
    with pytest.raises(BadSave, match="other"):
        replay(discount=0.5).restore(state)


def test_a_model_that_does_not_suit_is_named():
    with pytest.raises(BadArgument, match="received Policy"):
        next(replay().minibatches(th.rl.Policy(torch.nn.Linear(1, 2))))
    with pytest.raises(BadArgument, match="values 3 actions; Counter has 2"):
        next(replay().minibatches(th.rl.QRDQN(torch.nn.Linear(1, 12), levels=4)))
    with pytest.raises(BadArgument, match="Accepted: Discrete"):
        Replay("Pendulum-v1")
    for wrong in (
        {"discount": 1.5},
        {"train_frequency": 0},
        {"n_steps": 0},
        {"buffer_size": 2, "n_steps": 3},
        {"exploration": (2.0, 0.1, 10)},
    ):
        with pytest.raises(BadArgument, match=next(iter(wrong))):
            replay(**wrong)


def test_what_was_played_is_measured():
    """Episodes of 5, 5, 4, … steps that pay the clock: returns of the three that end in 15 steps, known."""
    source = replay(learning_starts=14, train_frequency=1e-9)
    next(source.minibatches(Tape()))
    found = source.measured()
    episodes = [sum(range(1, 6)), sum(range(7, 12)), sum(range(13, 17))]
    assert found["played"] == 14
    assert found["training_return"] == pytest.approx(np.mean(episodes))
    assert "training_return" not in source.measured()
