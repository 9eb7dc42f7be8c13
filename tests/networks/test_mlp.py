"""The multilayer perceptron."""

from __future__ import annotations

import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.networks import mlp


def test_the_network_is_the_formula():
    """f(x) = W_2 tanh(W_1 x + b_1) + b_2, written out."""
    net = mlp(3, 5, 2, "tanh", dtype=torch.float64)
    w1, b1, w2, b2 = net.parameters()
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), torch.tanh(x @ w1.T + b1) @ w2.T + b2)


def test_the_seed_decides_the_weights_and_the_global_randomness_is_left_alone():
    before = torch.random.get_rng_state()
    a, b, c = (torch.cat([p.reshape(-1) for p in mlp(4, (8, 8), 2, seed=s).parameters()]) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_are_uniform_on_one_over_the_root_of_the_fan_in():
    """Variance of the uniform distribution on ±1/√d: 1/(3d)."""
    weight = next(mlp(100, 400, 1, generator=torch.Generator().manual_seed(3)).parameters()).detach()
    assert float(weight.abs().max()) <= 0.1 + 1e-8
    assert float(weight.var()) == pytest.approx(1 / 300, rel=0.02)


def test_a_network_without_hidden_layers_is_affine():
    net = mlp(2, (), 3)
    assert len(net) == 1
    assert th.models.Conditional(th.families.Categorical(3), net).concave


def test_what_cannot_be_built_is_refused():
    with pytest.raises(BadArgument, match="activation='swosh'"):
        mlp(2, 3, 1, "swosh")
    with pytest.raises(BadArgument, match="widths"):
        mlp(2, (3, 0), 1)
