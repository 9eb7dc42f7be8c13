"""Finite Markov decision processes, whose returns are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from thetahat.data import FiniteMDP
from thetahat.errors import BadArgument, NotConverged


def test_the_return_of_a_geometric_episode_is_geometric():
    """Each step pays 1 and goes on with probability p: P(G = k) = p^k (1 − p)."""
    p = 0.7
    values, mass = FiniteMDP([[[(p, 1.0, 0), (1 - p, 0.0, None)]]]).returns()[0][0]
    assert mass.sum() == pytest.approx(1, abs=1e-8)
    np.testing.assert_allclose(values, np.arange(len(values)), atol=1e-12)
    np.testing.assert_allclose(mass, p ** np.arange(len(values)) * (1 - p), atol=1e-12)


def test_a_fair_bit_discounted_by_a_half_is_uniform():
    """Σ_k 2^−k B_k, B_k fair bits, is uniform on [0, 2); here ten of them: 1024 equal masses."""
    chain = FiniteMDP(
        [[[(0.5, 0.0, s + 1 if s < 9 else None), (0.5, 1.0, s + 1 if s < 9 else None)]] for s in range(10)]
    )
    values, mass = chain.returns(discount=0.5)[0][0]
    np.testing.assert_allclose(values, 2 * np.arange(1024) / 1024, atol=1e-12)
    np.testing.assert_allclose(mass, 1 / 1024, atol=1e-15)


def test_the_policy_weighs_what_follows():
    mdp = FiniteMDP([[[(1.0, 0.0, 1)], [(1.0, 5.0, 1)]], [[(1.0, 1.0, None)], [(1.0, -1.0, None)]]])
    values, mass = mdp.returns([[1, 0], [0.25, 0.75]], discount=0.5)[0][1]
    assert (values.tolist(), mass.tolist()) == ([4.5, 5.5], [0.75, 0.25])


def test_the_environment_pays_what_the_table_says():
    """5 sigma of a binomial proportion, 4,000 steps."""
    env = FiniteMDP([[[(0.2, 3.0, None), (0.8, -1.0, None)]]])()
    env.reset(seed=0)
    rewards = np.array([env.step(0)[1] for _ in range(4000)])
    assert set(rewards.tolist()) == {3.0, -1.0}
    assert (rewards == 3).mean() == pytest.approx(0.2, abs=5 * (0.16 / 4000) ** 0.5)


def test_what_is_no_process_is_refused():
    with pytest.raises(BadArgument, match=r"state 0, action 0: the probabilities sum to 0\.5"):
        FiniteMDP([[[(0.5, 0.0, None)]]])
    with pytest.raises(BadArgument, match="leads to 1"):
        FiniteMDP([[[(1.0, 0.0, 1)]]])
    with pytest.raises(BadArgument, match="state 1 has 2 actions"):
        FiniteMDP([[[(1.0, 0.0, 1)]], [[(1.0, 0.0, None)]] * 2])
    with pytest.raises(NotConverged, match="not ended"):
        FiniteMDP([[[(1.0, 1.0, 0)]]]).returns(discount=0.5, rounds=20)
