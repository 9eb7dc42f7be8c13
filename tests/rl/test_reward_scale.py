"""Rewards divided by the running standard deviation of the discounted return."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.rl import Rollouts
from thetahat.rl.reward_scale import RewardScale
from thetahat.rl.rollouts import returns


class Paid(gymnasium.Env):
    """Pays 1000 × a draw; terminates after 3 to 6 steps (or never)."""

    ends = True

    observation_space, action_space = spaces.Box(-10, 10, (2,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 7))
        return self.np_random.normal(size=2).clip(-9, 9).astype(np.float32), {}

    def step(self, action):
        self.left -= 1
        reward = 1000 * float(self.np_random.random())
        return (
            self.np_random.normal(size=2).clip(-9, 9).astype(np.float32),
            reward,
            self.ends and self.left == 0,
            False,
            {},
        )


class Endless(Paid):
    ends = False


def policy():
    return th.rl.Policy(th.networks.mlp(2, 8, 2, seed=3))


def passes(n, make=Paid, **settings):
    rollouts, model = Rollouts(make, 3, num_steps=20, seed=4, **settings), policy()
    return rollouts, [next(rollouts.batches(model)) for _ in range(n)]


def test_the_scale_is_the_standard_deviation_of_the_discounted_return_by_hand():
    """C_t = 0.9 C_{t−1} + r_t, written out in a loop of Python; its standard deviation by numpy, over all passes so far."""
    _, raw = passes(3)
    _, found = passes(3, normalise_rewards=0.9)
    C, all_of_them = [0.0] * 3, []
    for one, other in zip(raw, found, strict=True):
        for i in range(3):
            for t in range(20):
                if one.count[i, t] > 0:
                    C[i] = 0.9 * C[i] + float(one["reward"][i, t])
                    all_of_them.append(C[i])
                    C[i] = 0.0 if one["terminated"][i, t] else C[i]
        np.testing.assert_allclose(other["reward"], one["reward"] / np.std(all_of_them), rtol=1e-12)


def test_the_scale_is_gymnasiums():
    """gymnasium's NormalizeReward on the same play, which does not end (where an episode terminates, gymnasium takes the
    last reward alone for C; Stable-Baselines3's VecNormalize, as here, the whole). It begins with a variance of 1 that
    counts for 1e-4 of a step, and rounds C to float32: hence 1e-5."""
    rollouts, batches = passes(3, Endless, normalise_rewards=0.99)
    vector = gymnasium.wrappers.vector.NormalizeReward(
        gymnasium.vector.SyncVectorEnv([Endless for _ in range(3)]), gamma=0.99
    )
    generator = torch.Generator().manual_seed(4)
    vector.reset(seed=int(torch.randint(2**31 - 1, (), generator=generator)))
    for batch in batches:
        for t in range(20):
            vector.step(batch["action"][:, t].numpy())
    assert rollouts.measured()["reward_std"] == pytest.approx(float(vector.return_rms.var) ** 0.5, rel=1e-5)


def test_the_gradient_is_that_of_the_raw_rewards_over_the_scale():
    rollouts, (scaled,) = passes(1, normalise_rewards=1.0)
    _, (raw,) = passes(1)

    def gradient(batch):
        model, weights = policy(), th.rl.RewardToGo(0.9)
        log_prob = model.log_prob(batch)
        (weights(batch, log_prob.detach()) * log_prob).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    torch.testing.assert_close(
        gradient(scaled) * rollouts.measured()["reward_std"], gradient(raw), rtol=1e-4, atol=1e-2
    )


def test_what_is_measured_and_evaluated_is_in_units_of_the_environment():
    rollouts, (scaled,) = passes(1, normalise_rewards=True)
    plain, _ = passes(1)
    assert scaled["reward"].max() < 5
    assert rollouts.measured()["training_return"] == plain.measured()["training_return"] > 500
    assert float(returns(policy(), Paid, 4).mean()) > 500


def test_a_run_goes_on_bit_for_bit():
    (one, _), other = (
        passes(2, normalise_rewards=0.9),
        Rollouts(Paid, 3, num_steps=20, seed=4, normalise_rewards=0.9),
    )
    other.restore(one.state())
    a, b = next(one.batches(policy())), next(other.batches(policy()))
    assert torch.equal(a["reward"], b["reward"])
    assert one.measured() == other.measured()
    assert one.fingerprint == other.fingerprint != Rollouts(Paid, 3, num_steps=20, seed=4).fingerprint


def test_returns_that_do_not_vary_are_left_as_they_are():
    scale = RewardScale(0.9, 2)
    ended = played = np.ones((2, 3), dtype=bool)
    assert scale(np.full((2, 3), 0.1), ended, played).tolist() == np.full((2, 3), 0.1).tolist()
    assert scale(np.zeros((2, 0)), ended[:, :0], played[:, :0]).shape == (2, 0)
    with pytest.raises(BadArgument, match="normalise_rewards="):
        Rollouts(Paid, 1, normalise_rewards=1.5)


def test_the_discount_is_that_of_the_advantage():
    value = th.rl.Value(torch.nn.Linear(2, 1))
    a, b = (
        next(
            Rollouts(Paid, 2, num_steps=9, advantage=th.rl.GAE(value, 0.5), normalise_rewards=given).batches(
                policy()
            )
        )
        for given in (True, 0.5)
    )
    assert torch.equal(a["reward"], b["reward"])
