"""Policies, and the rollouts that they play."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, MissingExtra, ModelError
from thetahat.rl import Rollouts
from thetahat.rl.rollouts import returns

CARTPOLE = "CartPole-v1"


@pytest.fixture
def policy():
    return th.rl.Policy(th.networks.mlp(4, 16, 2, "tanh", seed=1))


def test_the_likelihood_of_an_action_is_its_softmax_and_padding_is_exactly_zero(policy):
    g = torch.Generator().manual_seed(0)
    state, action = torch.randn(3, 5, 4, generator=g), torch.randint(0, 2, (3, 5), generator=g)
    count = torch.ones(3, 5)
    count[1, 3:] = 0
    found = policy.log_prob(Batch({"state": state, "action": action}, count=count, dims=2))
    wanted = torch.distributions.Categorical(logits=policy.network(state)).log_prob(action)
    torch.testing.assert_close(found[count == 1], wanted[count == 1])
    assert found[1, 3:].tolist() == [0.0, 0.0]
    flat = Batch({"state": state.reshape(15, 4), "action": action.reshape(15)})
    torch.testing.assert_close(policy.log_prob(flat), wanted.reshape(15))


def test_actions_are_drawn_with_their_probabilities(policy):
    """5 sigma of a binomial proportion, 20,000 draws."""
    state = torch.tensor([[0.1, 0.5, -0.2, 0.3]]).expand(20_000, 4)
    p = float(torch.softmax(policy.logits(state[:1]), -1)[0, 1].detach())
    drawn = policy.act(state, torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / 20_000) ** 0.5)
    assert policy.act(state[:1], greedy=True).tolist() == [int(p > 0.5)]


def test_a_network_of_the_wrong_shape_is_named():
    with pytest.raises(ModelError, match=r"\(3, 1\)"):
        th.rl.Policy(torch.nn.Linear(4, 1)).log_prob(
            Batch({"state": torch.zeros(3, 4), "action": torch.zeros(3)})
        )


def test_a_rollout_is_what_the_environment_does_with_its_actions(policy):
    """Each episode played again in a single environment from its first state: the same states, rewards and
    end."""
    import gymnasium

    batch = next(Rollouts(CARTPOLE, 6, seed=3).batches(policy))
    single = gymnasium.make(CARTPOLE).unwrapped
    for i in range(6):
        length = int(batch.count[i].sum())
        single.reset(seed=0)
        single.state = batch["state"][i, 0].double().numpy()
        for t in range(length):
            _, reward, ended, _, _ = single.step(int(batch["action"][i, t]))
            assert reward == float(batch["reward"][i, t])
            assert ended == bool(batch["terminated"][i, t])
            if t + 1 < length:
                np.testing.assert_allclose(single.state, batch["state"][i, t + 1].numpy(), atol=2e-4)
        assert bool((batch["state"][i, length:] == 0).all())
        assert float(batch["reward"][i, length:].sum()) == 0
    single.close()


def test_an_episode_cut_off_at_its_limit_is_truncated_and_not_terminated(policy):
    """CartPole limited to 5 steps: no pole falls so soon."""
    batch = next(Rollouts(CARTPOLE, 4, settings={"max_episode_steps": 5}).batches(policy))
    assert batch.shape == (4, 5)
    assert bool(batch["truncated"][:, 4].all())
    assert int(batch["truncated"].sum()) == 4
    assert int(batch["terminated"].sum()) == 0
    assert batch["step"][0].tolist() == [0, 1, 2, 3, 4]


def test_an_environment_without_a_vector_form_is_played_too():
    """Acrobot is stepped one environment at a time by gymnasium; it pays −1 a step."""
    policy = th.rl.Policy(th.networks.mlp(6, (), 3))
    batch = next(Rollouts("Acrobot-v1", 2, settings={"max_episode_steps": 7}).batches(policy))
    assert batch.shape == (2, 7)
    assert bool((batch["reward"] == -1).all())


def test_the_same_seed_plays_the_same_episodes_and_the_next_pass_others(policy):
    one, two = Rollouts(CARTPOLE, 3, seed=5), Rollouts(CARTPOLE, 3, seed=5)
    first, second, other = next(one.batches(policy)), next(two.batches(policy)), next(one.batches(policy))
    assert torch.equal(first["state"], second["state"])
    assert first["state"].shape != other["state"].shape or not torch.equal(first["state"], other["state"])


def test_what_cannot_be_played_is_refused(policy, monkeypatch):
    import gymnasium

    with pytest.raises(BadArgument, match="NoSuch-v0"):
        Rollouts("NoSuch-v0")
    with pytest.raises(BadArgument, match="finite edges"):
        th.rl.Policy(torch.nn.Linear(4, 2), gymnasium.spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(BadArgument, match="Accepted: Discrete"):
        th.rl.Policy(torch.nn.Linear(4, 2), gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)]))
    with pytest.raises(BadArgument, match="play"):
        next(Rollouts(CARTPOLE).batches(torch.nn.Linear(4, 2)))
    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *a, **k: _absent(name) if name == "gymnasium" else real(name, *a, **k),
    )
    with pytest.raises(MissingExtra, match=r"thetahat\[rl\]"):
        Rollouts(CARTPOLE)


def _absent(name: str) -> None:
    raise ImportError(name)


def test_reinforce_improves_the_return_on_cartpole():
    """The mean return of 32 drawn episodes before and after 15 steps: a gain of more than 5 standard
    errors; and greedily."""
    policy = th.rl.Policy(th.networks.mlp(4, 32, 2, "tanh", seed=0))
    before, greedy = (
        returns(policy, CARTPOLE, 32, seed=100, greedy=False),
        returns(policy, CARTPOLE, 32, seed=100),
    )
    weights = th.rl.RewardToGo(0.99, normalise=True)
    solver = th.Stochastic(steps=15, learning_rate=0.02, lr_schedule="constant")
    fit = th.fit(policy, Rollouts(CARTPOLE, 8, seed=0), weights=weights, solver=solver)
    policy = fit.model
    after = returns(policy, CARTPOLE, 32, seed=101, greedy=False)
    error = float((before.var() / 32 + after.var() / 32).sqrt())
    assert fit.certificate.status == "stochastic"
    assert "drawn from the model" in fit.certificate.detail
    assert float(after.mean() - before.mean()) > 5 * error
    assert float(returns(policy, CARTPOLE, 32, seed=101).mean()) > float(greedy.mean())
