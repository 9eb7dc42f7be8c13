"""Advantages and clipped ratios as weights: each against the sum or the surrogate that defines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument
from thetahat.rl import GAE, Advantage, Clipped


class Table(nn.Module):
    """V of a numbered state."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(torch.as_tensor(values, dtype=torch.float64))

    def forward(self, state):
        return self.values[state]


def rollout(seed, B=4, T=9):
    """Random transitions: each next state is the following one unless an episode ends, sometimes cut off,
    sometimes terminated."""
    g = np.random.default_rng(seed)
    state = g.integers(0, 6, (B, T + 1))
    terminated = g.random((B, T)) < 0.2
    truncated = (g.random((B, T)) < 0.2) & ~terminated
    following = np.where(truncated | terminated, g.integers(0, 6, (B, T)), state[:, 1:])
    tensors = {
        "state": state[:, :T],
        "next": following,
        "reward": g.normal(size=(B, T)),
        "terminated": terminated,
        "truncated": truncated,
    }
    return Batch({name: torch.from_numpy(v) for name, v in tensors.items()}, dims=2)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), discount=st.floats(0, 1), trace=st.floats(0, 1))
def test_gae_is_the_sum_that_defines_it(seed, discount, trace):
    """A_t = Σ_k (γλ)^k δ_{t+k} to the end of the episode or of the pass, written out."""
    batch = rollout(seed)
    V = np.random.default_rng(seed + 1).normal(size=6)
    A, G = GAE(th.rl.Value(Table(V)), discount, trace)(batch)
    s, n, r, term, trunc = (batch[k].numpy() for k in ("state", "next", "reward", "terminated", "truncated"))
    for i in range(4):
        for t in range(9):
            direct, k = 0.0, t
            while True:
                delta = r[i, k] + (0.0 if term[i, k] else discount * V[n[i, k]]) - V[s[i, k]]
                direct += (discount * trace) ** (k - t) * delta
                if term[i, k] or trunc[i, k] or k == 8:
                    break
                k += 1
            assert float(A[i, t]) == pytest.approx(direct, abs=1e-12)
            assert float(G[i, t]) == pytest.approx(direct + V[s[i, t]], abs=1e-12)


def test_an_episode_cut_off_is_bootstrapped_and_one_that_ended_is_not():
    """One step, r = 1, V(s') = 10, γ = 0.5: A = 1 + 5 − V(s) when cut off, 1 − V(s) when over."""
    value = th.rl.Value(Table([2.0, 10.0]))
    for terminated, wanted in ((False, 4.0), (True, -1.0)):
        flags = {"terminated": torch.tensor([[terminated]]), "truncated": torch.tensor([[not terminated]])}
        batch = Batch(
            {
                "state": torch.tensor([[0]]),
                "next": torch.tensor([[1]]),
                "reward": torch.ones(1, 1, dtype=torch.float64),
                **flags,
            },
            dims=2,
        )
        assert float(GAE(value, 0.5)(batch)[0]) == wanted


def test_steps_that_only_begin_anew_are_no_part_of_an_advantage():
    """Acrobot cut off every 4 steps, in passes of 7: gymnasium's reset steps have count 0, advantage 0, and
    nothing is carried over them."""
    policy, value = (m(th.networks.mlp(6, (), k)) for m, k in ((th.rl.Policy, 3), (th.rl.Value, 1)))
    rollouts = th.rl.Rollouts(
        "Acrobot-v1", 2, num_steps=7, advantage=GAE(value, 1.0, 1.0), settings={"max_episode_steps": 4}
    )
    batch = next(rollouts.batches(policy))
    assert batch.count[0].tolist() == [1, 1, 1, 1, 0, 1, 1]
    assert bool((batch["advantage"][:, 4] == 0).all())
    with torch.no_grad():
        V, beyond = value.of(batch["state"], (2, 7)).double(), value.of(batch["next"], (2, 7)).double()
    torch.testing.assert_close(batch["advantage"][:, 0], -4 + beyond[:, 3] - V[:, 0])
    torch.testing.assert_close(batch["advantage"][:, 5], -2 + beyond[:, 6] - V[:, 5])


def test_advantages_are_normalised_over_all_of_a_pass():
    value = th.rl.Value(Table(np.zeros(6)))
    batch = rollout(3)
    batch = batch.with_count((torch.rand(4, 9, generator=torch.Generator().manual_seed(0)) < 0.8).double())
    A = GAE(value, 0.9, 0.9, normalise=True)(batch)[0]
    own = A[batch.count > 0]
    assert float(own.mean()) == pytest.approx(0, abs=1e-12)
    assert float(own.std(correction=0)) == pytest.approx(1, abs=1e-12)
    assert bool((A[batch.count == 0] == 0).all())


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), epsilon=st.floats(0.05, 0.5))
def test_ppo_as_a_weighted_likelihood_has_the_gradient_of_its_clipped_surrogate(seed, epsilon):
    """autograd of Σ min(ρ A, clip(ρ) A) beside Σ w ∇log π, in float64."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, 3, generator=g, dtype=torch.float64, requires_grad=True)
    action = torch.randint(3, (50,), generator=g)
    A, before = (
        torch.randn(50, generator=g, dtype=torch.float64),
        torch.randn(50, 3, generator=g, dtype=torch.float64),
    )
    played = torch.log_softmax(logits.detach() + 0.4 * before, -1).gather(-1, action[:, None])[:, 0]
    log_prob = torch.log_softmax(logits, -1).gather(-1, action[:, None])[:, 0]
    ratio = torch.exp(log_prob - played)
    surrogate = torch.minimum(ratio * A, ratio.clamp(1 - epsilon, 1 + epsilon) * A).sum()
    w = Clipped(epsilon)(Batch({"advantage": A, "log_prob": played}), log_prob.detach())
    wanted = torch.autograd.grad(surrogate, logits, retain_graph=True)[0]
    found = torch.autograd.grad((w * log_prob).sum(), logits)[0]
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("weighting", [Advantage(entropy_coef=0.7), Clipped(0.2, entropy_coef=0.7)])
def test_the_bonus_has_the_gradient_of_the_entropy_in_expectation(weighting):
    """All actions of a softmax, each as often as it is probable, advantage 0: Σ_a π(a) w ∇log π = c ∇H."""
    logits = torch.randn(
        5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True
    )
    log_prob = torch.log_softmax(logits, -1)
    p = log_prob.exp().detach()
    batch = Batch({"advantage": torch.zeros(5, dtype=torch.float64), "log_prob": log_prob.detach()})
    found = torch.autograd.grad(
        (p * weighting(batch, log_prob.detach()) * log_prob).sum(), logits, retain_graph=True
    )[0]
    wanted = torch.autograd.grad(-0.7 * (log_prob.exp() * log_prob).sum(), logits)[0]
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_the_first_step_on_fresh_rollouts_has_a_ratio_of_exactly_one():
    policy, value = (m(th.networks.mlp(4, (8,), k)) for m, k in ((th.rl.Policy, 2), (th.rl.Value, 1)))
    rollouts = th.rl.Rollouts("CartPole-v1", 3, num_steps=5, advantage=GAE(value))
    batch = next(rollouts.batches(policy))
    with torch.no_grad():
        torch.testing.assert_close(policy.log_prob(batch), batch["log_prob"], atol=1e-6, rtol=0)
        w = Clipped(0.2)(batch, batch["log_prob"])
    assert torch.equal(w, batch["advantage"])


def test_what_a_weighting_lacks_is_named():
    bare = Batch({"advantage": torch.zeros(2)})
    with pytest.raises(BadArgument, match=r"rl\.GAE"):
        Advantage()(Batch({"y": torch.zeros(2)}), torch.zeros(2))
    with pytest.raises(BadArgument, match="log π of the policy that played"):
        Clipped()(bare, torch.zeros(2))
    with pytest.raises(BadArgument, match="clip_coef=0"):
        Clipped(0)
    with pytest.raises(BadArgument, match="gae_lambda=2"):
        GAE(th.rl.Value(Table([0.0])), 0.9, 2)
    with pytest.raises(BadArgument, match=r"rl\.Value"):
        GAE(nn.Linear(2, 1))
