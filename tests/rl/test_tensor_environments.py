"""Environments as tensors: gymnasium's own classic controls are the oracle, step by step; and what is played by them is
played as by any other."""

from __future__ import annotations

from shutil import which

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.rl import Rollouts, TensorEnvironment
from thetahat.rl.classic_control import CLASSIC
from thetahat.rl.environments import Environments
from thetahat.rl.rollouts import returns
from thetahat.rl.tensor_environments import TensorVector

NAMES = list(CLASSIC)
SETTINGS = [(name, {}) for name in NAMES] + [
    ("CartPole-v1", {"sutton_barto_reward": True}),
    ("MountainCar-v0", {"goal_velocity": 0.02}),
    ("MountainCarContinuous-v0", {"goal_velocity": 0.01}),
    ("Pendulum-v1", {"g": 9.81}),
]


def chosen(env, state, rng, drawn):
    """An action, drawn or by a rule that gets episodes to their end: always along the last velocity."""
    space, along = env.action_space, state[-1] > 0
    if isinstance(space, spaces.Discrete):
        return int(rng.integers(space.n)) if drawn else int(along) * (int(space.n) - 1)
    most = space.high * 1.25  # beyond the edge too, where the environment cuts it off
    return (rng.uniform(-1, 1, 1) * most).astype(np.float32) if drawn else np.where(along, most, -most)


def played(name, settings, episodes):
    """(state, action, observation, reward, terminated) of every step that gymnasium itself makes."""
    env, rng, rows = gymnasium.make(name, **settings, disable_env_checker=True), np.random.default_rng(0), []
    for episode in range(episodes):
        env.reset(seed=episode)
        over = False
        while not over:
            state = np.array(env.unwrapped.state, dtype=np.float64)
            action = chosen(env, state, rng, episode % 2)
            shown, reward, terminated, truncated, _ = env.step(action)
            rows.append((state, action, shown, reward, terminated))
            over = terminated or truncated
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.filterwarnings("ignore:.*Casting input x to numpy array.*")
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda v: str(v))
def test_a_step_is_gymnasiums_to_the_last_digit(name, settings):
    state, action, shown, reward, terminated = played(name, settings, 12)
    ours = CLASSIC[name](**settings)
    moved, paid, ended = ours.step(torch.from_numpy(state), torch.from_numpy(action))
    seen = ours.observation(moved).numpy()
    assert seen.dtype == shown.dtype == np.float32
    assert len(shown) > 200
    np.testing.assert_array_equal(seen, shown)
    np.testing.assert_array_equal(ended.numpy(), terminated)
    # u² of the pendulum is float32, and numpy's scalar power is off by its last digit now and then
    np.testing.assert_allclose(paid.numpy(), reward, rtol=0, atol=5e-10 if name == "Pendulum-v1" else 0)
    assert name == "Pendulum-v1" or terminated.any()


@pytest.mark.parametrize("name", NAMES)
def test_spaces_limits_and_first_states_are_gymnasiums(name):
    env, ours = gymnasium.make(name), CLASSIC[name]()
    assert isinstance(ours, TensorEnvironment)
    assert ours.observation_space == env.observation_space
    assert ours.action_space == env.action_space
    assert ours.max_episode_steps == env.spec.max_episode_steps
    first = ours.reset(4000, torch.Generator().manual_seed(0)).numpy()
    theirs = np.stack([(env.reset(seed=s), np.array(env.unwrapped.state))[1] for s in range(1000)])
    assert first.dtype == np.float64
    # uniform on the same box: the edges are reached to 1 %, the means agree within four standard errors
    width = theirs.max(0) - theirs.min(0)
    np.testing.assert_allclose(first.min(0), theirs.min(0), atol=0.01 * width.max())
    np.testing.assert_allclose(first.max(0), theirs.max(0), atol=0.01 * width.max())
    error = width / np.sqrt(12 * 1000) * np.sqrt(1 + 1 / 4)
    assert (np.abs(first.mean(0) - theirs.mean(0)) <= 4 * error).all()
    # of an observation gymnasium rounds the cosine of a float32 angle, which is off by its last digit
    env.reset(seed=0)
    state = torch.from_numpy(np.array(env.unwrapped.state, dtype=np.float64))[None]
    np.testing.assert_array_max_ulp(ours.observation(state).numpy()[0], env.reset(seed=0)[0], 1)


def by_hand(environment, limit, actions, seed):
    """One environment's steps, as gymnasium describes "same step": where an episode ends, what is shown is the first
    state of the next, and the last state is told apart."""
    generator, t = torch.Generator().manual_seed(seed), 0
    state = environment.reset(1, generator)
    for action in actions:
        last, reward, ended = environment.step(state, torch.tensor([action]))
        t, cut = t + 1, t + 1 >= limit
        state = environment.reset(1, generator) if bool(ended) or cut else last
        t = 0 if bool(ended) or cut else t
        yield state, last, float(reward), bool(ended), cut


def test_episodes_begin_anew_in_the_step_of_their_end():
    vector, actions = TensorVector(CLASSIC["CartPole-v1"](), 1, 7), [1] * 25 + [0, 1] * 20
    vector.reset(seed=3)
    expected = list(by_hand(CLASSIC["CartPole-v1"](), 7, actions, 3))
    ended = 0
    for action, (state, last, reward, terminated, truncated) in zip(actions, expected, strict=True):
        shown, r, e, t, info = vector.step(np.array([action]))
        assert np.array_equal(shown, state.float().numpy())
        assert (r[0], bool(e[0]), bool(t[0])) == (reward, terminated, truncated)
        assert ("final_obs" in info) == (terminated or truncated)
        if "final_obs" in info:
            assert np.array_equal(info["final_obs"], last.float().numpy())
        ended += terminated or truncated
    assert ended > 5


def test_first_states_are_the_same_however_many_are_asked_for():
    at_once, one_by_one = (TensorVector(CLASSIC["Acrobot-v1"](), 3) for _ in range(2))
    for vector in (at_once, one_by_one):
        vector.reset(seed=1)
    many = at_once.first_states(200)
    assert torch.equal(many, torch.cat([one_by_one.begin(1) for _ in range(200)]))
    assert torch.equal(at_once.begin(7), many[:7])
    assert torch.equal(at_once.begin(7), many[7:14])


def test_trajectories_have_gymnasiums_distribution():
    """Steps until the pole falls, actions drawn at random: two samples, compared by their means and quartiles."""
    policy = th.rl.Policy(torch.nn.Linear(4, 2))
    torch.nn.init.zeros_(policy.network.weight), torch.nn.init.zeros_(policy.network.bias)
    ours, theirs = (
        returns(policy, "CartPole-v1", 2000, seed=5, greedy=False, vectorization=how)
        for how in ("tensor", "gymnasium")
    )
    error = float((ours.var() / 2000 + theirs.var() / 2000).sqrt())
    assert abs(float(ours.mean() - theirs.mean())) < 3 * error
    assert abs(float(ours.quantile(0.75) - theirs.quantile(0.75))) <= 2


class Walk:
    """Left or right on a line until 3 or −3; 3 pays 1. What is shown is the state itself: an alias."""

    observation_space = spaces.Box(-3, 3, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, max_episode_steps=50):
        self.max_episode_steps = max_episode_steps

    def reset(self, n, generator):
        return torch.randint(-1, 2, (n, 1), generator=generator).float()

    def observation(self, state):
        return state

    def step(self, state, action):
        state = state + 2 * action[:, None] - 1
        return state, (state[:, 0] == 3).float(), state[:, 0].abs() == 3


def test_an_environment_of_ones_own_is_learnt():
    """Always right is best: the walk from −1, 0 or 1 ends at 3 with a return of 1."""
    rollouts = Rollouts(Walk(), 16, seed=1)
    policy = th.rl.Policy(torch.nn.Linear(1, 2), rollouts.actions)
    objective = th.LogLikelihood(policy, rollouts, th.rl.RewardToGo(normalise=True))
    fit = th.maximize(objective, solver=th.Stochastic(steps=40, learning_rate=0.1, held_out=None))
    assert float(returns(fit.model, Walk(), 50).mean()) == 1.0
    assert float(returns(fit.model, Walk, 50, vectorization="tensor", max_episode_steps=2).mean()) < 1.0


def test_what_was_shown_stays_when_an_episode_begins_anew():
    """Transitions of a pass by the rules of the walk, though an environment shows its state itself."""
    rollouts = Rollouts(Walk(), 8, num_steps=40, seed=2)
    policy = th.rl.Policy(torch.nn.Linear(1, 2), rollouts.actions)
    batch = next(rollouts.batches(policy))
    played = batch.count > 0
    moved = batch["next"][..., 0] - batch["state"][..., 0]
    assert torch.equal(moved[played], (2.0 * batch["action"] - 1)[played])
    ended = batch["terminated"][played]
    assert torch.equal(ended, (batch["next"][..., 0].abs() == 3)[played])
    assert ended.any()


def make(seed=0, **settings):
    rollouts = Rollouts("Pendulum-v1", 4, num_steps=16, epochs=2, batch_size=32, seed=seed, **settings)
    policy = th.rl.Policy(th.networks.mlp(3, 8, 2, seed=seed), rollouts.actions)
    value = th.rl.Value(th.networks.mlp(3, 8, 1, seed=seed + 1))
    rollouts.advantage = th.rl.GAE(value)
    return th.LogLikelihood(policy, rollouts, th.rl.Clipped()) + th.LogLikelihood(value, rollouts)


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    solver = {"held_out": None, "learning_rate": 1e-2, "lr_schedule": "constant", "evaluate_every": 6}
    whole = th.maximize(make(vectorization="tensor"), solver=th.Stochastic(steps=18, **solver))
    parts = {"checkpoint": tmp_path / "run.pt", **solver}
    th.maximize(make(vectorization="tensor"), solver=th.Stochastic(steps=12, **parts))
    again = th.maximize(make(vectorization="tensor"), solver=th.Stochastic(steps=18, **parts))
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_seeds_together_are_what_each_is_alone():
    solver = th.Stochastic(steps=8, held_out=None, learning_rate=1e-2, lr_schedule="constant")
    together = th.maximize(
        th.rl.stacked([make(seed, vectorization="tensor") for seed in range(2)]), solver=solver
    )
    for seed, member in enumerate(together.model.members):
        alone = th.maximize(make(seed, vectorization="tensor"), solver=solver)
        for a, b in zip(member.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_replay_plays_tensors():
    """Every transition that is remembered is the environment's own step from its state."""
    replay = th.rl.Replay("MountainCar-v0", 2, learning_starts=60, batch_size=16, vectorization="tensor")
    model = th.rl.QRDQN(th.networks.mlp(2, 8, 3 * 5), levels=5)
    batch = next(replay.minibatches(model))
    assert isinstance(replay.environments.vector, TensorVector)
    assert batch["state"].shape == (16, 2)
    assert (batch["state"][:, 1].abs() < 0.07).all()


def test_rollouts_of_one_way_do_not_pass_for_the_other():
    ways = ("gymnasium", "tensor")
    assert len({Rollouts("CartPole-v1", 2, vectorization=way).fingerprint for way in ways}) == 2
    with pytest.raises(BadArgument, match="vectorization=gymnasium, seed 0 with tensor"):
        th.rl.stacked([make(0, vectorization="tensor"), make(1)])


@pytest.mark.parametrize(
    ("environment", "settings", "said"),
    [
        ("Taxi-v3", {"vectorization": "tensor"}, "Taxi-v3.*CartPole-v1.*gymnasium"),
        ("CartPole-v1", {"vectorization": "async"}, "vectorization='async'.*'gymnasium', 'tensor'"),
        ("CartPole-v1", {"compile": True}, "vectorization='tensor'"),
        ("CartPole-v1", {"vectorization": "tensor", "settings": {"gravity": 1.0}}, "gravity"),
        ("CartPole-v1", {"vectorization": "tensor", "settings": {"render_mode": "human"}}, "render_mode"),
        ("CartPole-v1", {"vectorization": "tensor", "settings": {"max_episode_steps": 0}}, "max_episode_steps=0"),
        (Walk(), {"settings": {"wide": True}}, "already made"),
        (lambda: 3, {"vectorization": "tensor"}, "TensorEnvironment"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_by_name(environment, settings, said):
    with pytest.raises(BadArgument, match=said):
        Rollouts(environment, 2, **settings)


def test_limits_of_steps_are_settings():
    policy = th.rl.Policy(torch.nn.Linear(4, 2))
    found = returns(policy, "CartPole-v1", 3, vectorization="tensor", max_episode_steps=4)
    assert found.tolist() == [4.0, 4.0, 4.0]


@pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about its own code
def test_a_compiled_step_is_the_step():
    """What is shown of 200 steps of 8 environments, with ends and new episodes, compiled and not."""
    both = [
        Environments("CartPole-v1", 8, {"max_episode_steps": 30}, "tensor", compile)
        for compile in (False, True)
    ]
    rng = np.random.default_rng(0)
    first = [environments.reset(seed=4) for environments in both]
    np.testing.assert_array_equal(*first)
    for _ in range(200):
        action = rng.integers(2, size=8)
        a, b = (environments.step(action) for environments in both)
        np.testing.assert_allclose(a.next, b.next, rtol=1e-6, atol=1e-7)
        for name in ("reward", "terminated", "truncated", "count"):
            np.testing.assert_array_equal(vars(a)[name], vars(b)[name])
