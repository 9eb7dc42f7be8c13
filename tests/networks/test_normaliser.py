"""Normaliser: mean and variance of all that was played, exactly; frozen within a pass, and wherever
nothing is played to learn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.networks import Normaliser, mlp
from thetahat.rl.rollouts import returns


def pair(seed: int = 0):
    normaliser = Normaliser(4)
    policy = th.rl.Policy(nn.Sequential(normaliser, mlp(4, 8, 2, seed=seed)))
    return normaliser, policy, th.rl.Value(nn.Sequential(normaliser, mlp(4, 8, 1, seed=seed + 1)))


def test_in_pieces_as_at_once():
    """Far from 0 and of little spread, where a sum of squares would lose all its digits."""
    g = np.random.default_rng(0)
    x = 1e8 + g.normal(size=(1000, 3)) * [1e-3, 1.0, 100.0]
    layer = Normaliser(3)
    for part in np.split(x, [1, 17, 500]):
        layer.observe(torch.from_numpy(part))
    layer.observe(torch.zeros(0, 3))
    assert torch.allclose(layer.mean, torch.from_numpy(1e8 + (x - 1e8).mean(0)), rtol=5e-16, atol=0)
    v = np.array([np.var(column - column[0]) for column in x.T])
    assert torch.allclose(layer.squares / layer.seen, torch.from_numpy(v), rtol=1e-6)


def test_a_pass_is_played_and_learnt_from_with_one_normaliser():
    """It knows the passes before, padding left out, and not the one under way: the recorded log π is that
    of the policy that learns."""
    normaliser, policy, value = pair()
    rollouts = th.rl.Rollouts("CartPole-v1", 3, num_steps=20, advantage=th.rl.GAE(value), seed=1)
    played = []
    for _ in range(4):
        (batch,) = rollouts.batches(policy)
        if played:
            x = torch.cat(played).double()
            assert torch.allclose(normaliser.mean, x.mean(0), atol=1e-9)
            assert torch.allclose(normaliser.squares / normaliser.seen, x.var(0, correction=0), atol=1e-9)
        real = batch.count > 0
        assert torch.allclose(
            policy.log_prob(batch)[real], batch["log_prob"][real].to(torch.float32), atol=1e-6
        )
        played.append(batch["state"][real])


def test_evaluation_and_steps_leave_it_as_it_is():
    normaliser, policy, value = pair()
    rollouts = th.rl.Rollouts(
        "CartPole-v1", 4, num_steps=8, advantage=th.rl.GAE(value), epochs=3, batch_size=16, seed=0
    )
    objective = th.LogLikelihood(policy, rollouts, th.rl.Clipped()) + th.LogLikelihood(value, rollouts)
    policy = th.maximize(objective, solver=th.Stochastic(steps=12, learning_rate=1e-3)).model
    normaliser = next(m for m in policy.modules() if isinstance(m, Normaliser))
    assert float(normaliser.seen) > 0
    before = {name: b.clone() for name, b in normaliser.named_buffers()}
    returns(policy, "CartPole-v1", 3)
    policy.log_prob(next(th.rl.Rollouts("CartPole-v1", 2, num_steps=4).batches(policy)))
    assert all(torch.equal(b, before[name]) for name, b in normaliser.named_buffers())


def test_a_climb_that_was_killed_goes_on_with_what_it_had_seen(tmp_path):
    """Whole episodes: bit for bit the run that was never killed."""

    class Killed(Exception):
        pass

    def optimise(path, dies=None):
        _, policy, _ = pair(3)
        rollouts = th.rl.Rollouts("CartPole-v1", 2, seed=2)
        objective = th.Objective([th.LogLikelihood(policy, rollouts, th.rl.RewardToGo())])
        solver = th.Stochastic(
            steps=8, learning_rate=0.01, checkpoint=path, checkpoint_every=1, held_out=None
        )

        def watch(state):
            if state.step == dies:
                raise Killed

        if dies is None:
            th.maximize(objective, solver=solver)
        else:
            with pytest.raises(Killed):
                th.maximize(objective, solver=solver, callback=watch)
        return policy.state_dict()

    whole = optimise(tmp_path / "whole")
    optimise(tmp_path / "part", dies=5)
    again = optimise(tmp_path / "part")
    assert all(torch.equal(a, again[name]) for name, a in whole.items())


def test_scales_that_would_stop_a_network_do_not_stop_it():
    """CartPole with its position in hundredths of millimetres and its angle in ten-thousandths: tanh units saturate
    without a normaliser."""
    import gymnasium

    scale = np.array([1e5, 1e5, 1e4, 1e4], dtype=np.float32)

    def poles():
        own = gymnasium.make("CartPole-v1")
        space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        return gymnasium.wrappers.TransformObservation(own, lambda s: s * scale, space)

    def learnt(normalised: bool) -> float:
        layer = Normaliser(4) if normalised else nn.Identity()
        policy = th.rl.Policy(nn.Sequential(layer, mlp(4, 32, 2, "tanh", seed=0)))
        value = th.rl.Value(nn.Sequential(layer, mlp(4, 32, 1, "tanh", seed=1)))
        advantage = th.rl.GAE(value, 0.99, 0.95, normalise=True)
        rollouts = th.rl.Rollouts(
            poles, 16, num_steps=32, advantage=advantage, epochs=8, batch_size=512, seed=0
        )
        objective = th.LogLikelihood(policy, rollouts, th.rl.Clipped()) + th.LogLikelihood(value, rollouts)
        policy = th.maximize(
            objective, solver=th.Stochastic(steps=160, learning_rate=0.02, max_grad_norm=0.5, seed=0)
        ).model
        return float(returns(policy, poles, 10, seed=5).mean())

    assert learnt(True) > 2 * learnt(False)


def test_what_is_refused():
    with pytest.raises(BadArgument, match="positive limit"):
        Normaliser(2, limit=0.0)
    with pytest.raises(BadArgument, match="2 columns"):
        Normaliser(2).observe(torch.zeros(5, 3))
