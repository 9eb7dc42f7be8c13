"""Returns as weights: the weighted-likelihood gradient is the policy gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument
from thetahat.models.taylor import taylor

HORIZON = 3


@dataclass
class Tiny:
    """A Markov decision process of two states and an end, two actions, three steps at most; a tabular softmax
    policy."""

    start: Tensor = field(default_factory=lambda: torch.tensor([0.4, 0.6], dtype=torch.float64))
    reward: Tensor = field(
        default_factory=lambda: torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=torch.float64)
    )
    move: Tensor = field(  # (state, action, next); next 2 is the end
        default_factory=lambda: torch.tensor(
            [[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], [[0.25, 0.25, 0.5], [0.7, 0.3, 0.0]]], dtype=torch.float64
        )
    )

    def policy(self) -> th.rl.Policy:
        net = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            net.weight.copy_(torch.tensor([[0.2, -0.4], [0.5, 0.3]]))
        return th.rl.Policy(net)

    def gradient(self, policy: th.rl.Policy, discount: float) -> Tensor:
        """∇ E[Σ γᵗ r_t] by automatic differentiation of Bellman's recursion."""
        pi = torch.softmax(policy.logits(torch.eye(2, dtype=torch.float64)), -1)
        value = torch.zeros(3, dtype=torch.float64)
        for _ in range(HORIZON):
            inner = (pi * (self.reward + discount * self.move @ value)).sum(1)
            value = torch.cat([inner, torch.zeros(1, dtype=torch.float64)])
        return torch.autograd.grad(self.start @ value[:2], policy.network.weight)[0].reshape(-1)

    def trajectories(self, policy: th.rl.Policy) -> tuple[Batch, Tensor]:
        """Every trajectory, padded, and its probability under the policy."""
        pi = torch.softmax(policy.logits(torch.eye(2, dtype=torch.float64)), -1).detach()
        whole: list[tuple[list[tuple[int, int]], float]] = []

        def go_on(path: list[tuple[int, int]], state: int, p: float) -> None:
            for a in range(2):
                longer, q = [*path, (state, a)], p * float(pi[state, a])
                if len(longer) == HORIZON:
                    whole.append((longer, q))
                    continue
                whole.append((longer, q * float(self.move[state, a, 2])))
                for following in range(2):
                    go_on(longer, following, q * float(self.move[state, a, following]))

        for s in range(2):
            go_on([], s, float(self.start[s]))
        tensors = {"state": torch.zeros(len(whole), HORIZON, 2, dtype=torch.float64)}
        tensors |= {
            "action": torch.zeros(len(whole), HORIZON, dtype=torch.long),
            "reward": torch.zeros(len(whole), HORIZON, dtype=torch.float64),
        }
        count = torch.zeros(len(whole), HORIZON, dtype=torch.float64)
        for i, (path, _) in enumerate(whole):
            for t, (s, a) in enumerate(path):
                tensors["state"][i, t, s], tensors["action"][i, t], tensors["reward"][i, t], count[i, t] = (
                    1.0,
                    a,
                    self.reward[s, a],
                    1.0,
                )
        return Batch(tensors, count=count, dims=2), torch.tensor([p for _, p in whole], dtype=torch.float64)


@pytest.mark.parametrize(("discount", "from_start"), [(1.0, False), (0.9, True)])
def test_the_weighted_likelihood_gradient_is_the_policy_gradient(discount, from_start):
    """Expectation over all trajectories, against the derivative of the exact expected return, to 1e-10."""
    tiny = Tiny()
    policy = tiny.policy()
    batch, p = tiny.trajectories(policy)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
    weight = th.rl.RewardToGo(discount, baseline=None, from_start=from_start)(batch, policy.log_prob(batch))
    found = taylor(policy, batch, weight * batch.count * p[:, None], order=1).gradient
    torch.testing.assert_close(found, tiny.gradient(policy, discount), rtol=0, atol=1e-10)


def test_the_baseline_of_other_episodes_adds_no_bias():
    """Expectation over all pairs of trajectories: with the mean of the other as baseline, the same
    gradient to 1e-10."""
    tiny = Tiny()
    policy = tiny.policy()
    batch, p = tiny.trajectories(policy)
    weighting = th.rl.RewardToGo(1.0, baseline="mean")
    log_prob = torch.zeros(2, HORIZON)
    expected = torch.stack(
        [
            sum(p[j] * weighting(batch[torch.tensor([i, j])], log_prob)[0] for j in range(len(p)))
            for i in range(len(p))
        ]
    )
    plain = th.rl.RewardToGo(1.0, baseline=None)(batch, log_prob)
    assert float((expected - plain).abs().max()) > 0.1  # the weights differ, their gradient does not
    found = taylor(policy, batch, expected * batch.count * p[:, None], order=1).gradient
    torch.testing.assert_close(found, tiny.gradient(policy, 1.0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("weighting", [th.rl.Advantage(), th.rl.Clipped(0.2)])
def test_advantages_give_the_policy_gradient_whatever_the_value_function(weighting):
    """A2C's weight, and PPO's at its first step (ratio 1), with λ = 1 and a V that is wrong: expectation over
    all trajectories, to 1e-10."""
    tiny = Tiny()
    policy = tiny.policy()
    batch, p = tiny.trajectories(policy)
    last = torch.zeros(batch.shape, dtype=torch.bool)
    last[torch.arange(len(batch)), (batch.count.sum(1) - 1).long()] = True
    batch.tensors |= {
        "terminated": last,
        "truncated": torch.zeros_like(last),
        "next": torch.zeros_like(batch["state"]),
    }
    wrong = torch.nn.Linear(2, 1, dtype=torch.float64)
    torch.nn.init.constant_(wrong.weight, 1.0)
    batch.tensors["advantage"], _ = th.rl.GAE(th.rl.Value(wrong), discount=1.0, gae_lambda=1.0)(batch)
    batch.tensors["log_prob"] = log_prob = policy.log_prob(batch).detach()
    plain = th.rl.RewardToGo(1.0, baseline=None)(batch, log_prob)
    weight = weighting(batch, log_prob)
    assert float((weight - plain).abs().max()) > 0.1
    found = taylor(policy, batch, weight * batch.count * p[:, None], order=1).gradient
    torch.testing.assert_close(found, tiny.gradient(policy, 1.0), rtol=0, atol=1e-10)


def test_the_return_is_its_sum_written_out():
    """G_t = Σ γ^{t'−t} r_t' by a double loop, on random rewards."""
    r = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for discount in (0.0, 0.7, 1.0):
        G = th.rl.RewardToGo(discount, baseline=None).returns(r)
        written = [
            [sum(discount ** (u - t) * r[i, u] for u in range(t, 6)) for t in range(6)] for i in range(4)
        ]
        torch.testing.assert_close(G, torch.tensor(written, dtype=torch.float64))


def test_weights_are_zero_on_padding_carry_no_gradient_and_have_unit_spread_if_asked():
    r = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    count = torch.ones(5, 4, dtype=torch.float64)
    count[2, 2:] = count[4, 1:] = 0
    weight = th.rl.RewardToGo(0.9, normalise=True)(
        Batch({"reward": r}, count=count, dims=2), torch.zeros(5, 4)
    )
    assert bool((weight[count == 0] == 0).all())
    assert not weight.requires_grad
    assert float(weight[count == 1].std(correction=0)) == pytest.approx(1.0)


@pytest.mark.parametrize(("discount", "reward"), [(0.99, 1.0), (1.0, 0.1), (0.99, -1.0)])
def test_equal_episodes_say_nothing(discount, reward):
    """A policy that always gets the most there is: what is left of the returns is rounding, and is not
    blown up to unit spread."""
    batch = Batch({"reward": torch.full((16, 200), reward, dtype=torch.float64)}, dims=2)
    assert bool((th.rl.RewardToGo(discount, normalise=True)(batch, torch.zeros(16, 200)) == 0).all())
    for G in (3, 6, 7, 12):
        R = torch.full((1, G), 0.7, dtype=torch.float64)
        assert bool((th.language.GroupRelative(by_length=False)(R, torch.ones(1, G)) == 0).all())


def test_equal_advantages_say_nothing():
    """Of V = 0.3 everywhere and rewards of 0.1 that end at once: A = −0.2 for every action, less its mean
    0."""

    class Level:
        def of(self, state, shape):
            return torch.full(shape, 0.3)

    every = torch.ones(8, 5, dtype=torch.bool)
    tensors = {"reward": torch.full((8, 5), 0.1), "terminated": every, "truncated": ~every}
    batch = Batch(tensors | {"state": torch.zeros(8, 5, 2), "next": torch.zeros(8, 5, 2)}, dims=2)
    A, _ = th.rl.GAE(Level(), normalise=True)(batch)
    assert bool((A == 0).all())


@pytest.mark.parametrize("from_start", [False, True])
def test_returns_end_with_their_episode(from_start):
    """Two episodes in one row weigh as in rows of their own."""
    r = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]], dtype=torch.float64)
    end = torch.tensor([[False, True, False, False, True]])
    weighting = th.rl.RewardToGo(0.5, baseline=None, from_start=from_start)
    whole = weighting(
        Batch({"reward": r, "terminated": end, "truncated": torch.zeros_like(end)}, dims=2), torch.zeros(1, 5)
    )
    apart = [
        weighting(Batch({"reward": part}, dims=2), torch.zeros(part.shape)) for part in (r[:, :2], r[:, 2:])
    ]
    assert torch.equal(whole, torch.cat(apart, 1))


def test_what_cannot_be_weighted_is_refused():
    with pytest.raises(BadArgument, match=r"discount=1\.5"):
        th.rl.RewardToGo(1.5)
    with pytest.raises(BadArgument, match="baseline='median'"):
        th.rl.RewardToGo(baseline="median")
    with pytest.raises(BadArgument, match=r"\(3,\)"):
        th.rl.RewardToGo()(Batch({"reward": torch.ones(3)}), torch.zeros(3))
