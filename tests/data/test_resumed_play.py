"""Runs on environments that are interrupted go on bit for bit: what was played, what was left of a pass,
and the environments themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import thetahat as th
from thetahat.errors import BadSave
from thetahat.rl import GAE, Advantage, Clipped, Replay, Rollouts
from thetahat.rl.environments import Environments

STEPS = 24
SYNC = {"vectorization_mode": "sync"}


def ppo(environment: str, settings: dict[str, Any] | None, **more: Any) -> th.Objective:
    rollouts = Rollouts(
        environment, 3, settings=settings, **({"num_steps": 16, "epochs": 2, "batch_size": 20} | more)
    )
    d = int(np.prod(rollouts.environments.shape))
    space = rollouts.actions
    policy = th.rl.Policy(
        torch.nn.Sequential(
            th.networks.Normaliser(d),
            th.networks.mlp(d, 8, th.rl.Policy(torch.nn.Identity(), space).actions.outputs),
        ),
        space,
    )
    value = th.rl.Value(th.networks.mlp(d, 8, 1, seed=1))
    rollouts.advantage = GAE(value)
    weights = Clipped(0.2) if rollouts.epochs else Advantage(0.01)
    return th.Objective([th.LogLikelihood(policy, rollouts, weights), th.LogLikelihood(value, rollouts)])


def c51() -> th.Objective:
    model = th.rl.C51(th.networks.mlp(4, 8, 2 * 5), 0.0, 50.0, 5)
    return th.Objective(
        [
            th.LogLikelihood(
                model,
                Replay(
                    "CartPole-v1",
                    2,
                    learning_starts=30,
                    buffer_size=60,
                    target_update_interval=7,
                    batch_size=8,
                    n_steps=2,
                ),
            )
        ]
    )


SYSTEMS = {
    "PPO, segments": lambda: ppo("CartPole-v1", None),
    "PPO, environments apart": lambda: ppo("CartPole-v1", SYNC | {"max_episode_steps": 11}),
    "PPO, whole episodes": lambda: ppo("CartPole-v1", {"max_episode_steps": 15}, num_steps=None),
    "PPO, a continuous action": lambda: ppo("Pendulum-v1", {"max_episode_steps": 13}),
    "A2C, segments": lambda: ppo(
        "Acrobot-v1", {"max_episode_steps": 21}, epochs=None, batch_size=None, num_steps=5
    ),
    "C51": c51,
}


def trained(system: str, path: Any, until: int = STEPS) -> torch.Tensor:
    """θ after the steps; with `until`, the process is gone after so many, wherever that is between two
    checkpoints."""
    solver = th.Stochastic(
        steps=STEPS,
        learning_rate=0.01,
        held_out=None,
        checkpoint=path,
        checkpoint_every=3,
        evaluate_every=STEPS,
    )
    objective = SYSTEMS[system]()
    state = solver.start(objective)
    while state.step < until:
        state = solver.step(objective, state)
    return state.theta


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_that_is_interrupted_anywhere_goes_on_bit_for_bit(tmp_path, system):
    """Three interruptions of one run at random steps; θ at the end is that of the run without one."""
    whole = trained(system, tmp_path / "whole")
    at = np.sort(np.random.default_rng(len(system)).integers(1, STEPS, 3))
    for until in at:
        trained(system, tmp_path / "parts", int(until))
    assert torch.equal(trained(system, tmp_path / "parts"), whole)


def test_a_process_that_is_killed_goes_on_bit_for_bit(tmp_path):
    """SIGKILL at a random moment after the first checkpoint, in the midst of PPO's segments."""
    path = tmp_path / "killed"
    code = f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import test_resumed_play as t
        real = t.th.Stochastic.step
        def slow(*given):
            time.sleep(0.05)
            return real(*given)
        t.th.Stochastic.step = slow
        t.trained("PPO, segments", {str(path)!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert torch.equal(trained("PPO, segments", path), trained("PPO, segments", tmp_path / "whole"))


# ---- one environment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, SYNC], ids=["together", "apart"])
@pytest.mark.parametrize(
    "name",
    [
        "CartPole-v1",
        "Acrobot-v1",
        "MountainCar-v0",
        "MountainCarContinuous-v0",
        "Pendulum-v1",
        "FrozenLake-v1",
    ],
)
def test_an_environment_stands_where_another_stood(name, settings):
    """The same actions from there on have the same states, rewards and ends, through limits of steps and new
    episodes."""
    one, other = Environments(name, 3, settings), Environments(name, 3, settings)
    one.reset(seed=1)
    generator = np.random.default_rng(0)

    def action():
        drawn = [one.actions.sample() for _ in range(3)]
        return np.asarray(drawn)

    one.actions.seed(int(generator.integers(1000)))
    for _ in range(40):
        one.step(action())
    other.restore(one.kept())
    for _ in range(250):
        chosen = action()
        a, b = one.step(chosen), other.step(chosen)
        for field in ("state", "reward", "next", "terminated", "truncated", "count"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


class Simulated(gymnasium.Env):
    """Its state is in something that Python cannot see into, as that of a simulator in C is."""

    observation_space, action_space = spaces.Box(-1e6, 1e6, (1,), np.float32), spaces.Discrete(2)

    def __init__(self):
        self.clock = (i for i in range(10**9))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.array([next(self.clock)], np.float32), 1.0, False, False, {}


def test_where_an_environment_cannot_be_kept_the_run_goes_on_with_new_episodes_and_says_so():
    policy = th.rl.Policy(torch.nn.Linear(1, 2))
    rollouts = Rollouts(Simulated, 2, num_steps=4)
    next(rollouts.batches(policy))
    fresh = Rollouts(Simulated, 2, num_steps=4)
    with pytest.warns(UserWarning, match=r"clock is a builtins\.generator.*new ones begin"):
        fresh.restore(rollouts.state())
    assert not fresh.under_way
    assert fresh.played == rollouts.played


def test_a_checkpoint_of_another_environment_is_refused():
    one, other = Environments("CartPole-v1", 2, SYNC), Environments("Acrobot-v1", 2, SYNC)
    one.reset(seed=0)
    with pytest.raises(BadSave, match="another environment than this Acrobot-v1"):
        other.restore(one.kept())
