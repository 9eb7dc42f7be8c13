"""The convolutional network, and the layer that standardises a table's columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument, NotFinite
from thetahat.generative import ConvNet
from thetahat.networks import Standardise


def images(n, *shape, seed=0):
    return torch.randint(
        0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_the_network_is_the_formula():
    """relu(norm(pool(K ∗ h))) twice and W h + b, by torch's functions, in evaluation mode with running
    statistics that are not 0 and 1."""
    net = ConvNet((2, 8, 12), 3, (4, 5), seed=1)
    x = images(6, 2, 8, 12)
    net.train()
    net(images(50, 2, 8, 12, seed=2))
    net.eval()
    h = x.float() / 255
    for stage in net.stages:
        h = F.max_pool2d(F.conv2d(h, stage[0].weight, padding=1), 2)
        h = F.relu(
            F.batch_norm(h, stage[2].running_mean, stage[2].running_var, stage[2].weight, stage[2].bias)
        )
    torch.testing.assert_close(
        net(x), h.reshape(6, -1) @ net.head.weight.T + net.head.bias, rtol=1e-4, atol=1e-5
    )


def test_flat_and_square_bytes_and_floats_are_the_same_image():
    net = ConvNet((8, 8), 3, (4,)).eval()
    x = images(5, 8, 8)
    for same in (x.reshape(5, 64), x[:, None], x / 255, (x / 255).reshape(5, 64)):
        torch.testing.assert_close(net(same), net(x))
    few = ConvNet((8, 8), 3, (4,), levels=17).eval()
    torch.testing.assert_close(few((x % 17).to(torch.uint8)), net((x % 17) / 16))


def test_a_row_in_evaluation_mode_does_not_depend_on_its_neighbours():
    """log p of each row alone is that of the row in the batch: what a score adds up is a probability."""
    net = ConvNet((8, 8), 3, (4,))
    net(images(20, 8, 8))
    net.eval()
    x = images(5, 8, 8, seed=3)
    torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(5)]), rtol=1e-5, atol=1e-6)


def test_the_seed_decides_the_weights_and_the_global_randomness_is_left_alone():
    before = torch.random.get_rng_state()
    a, b, c = (
        torch.cat([p.reshape(-1) for p in ConvNet((8, 8), 3, (4,), seed=s).parameters()]) for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvNet((28,), 10), r"shape=\(28,\)"),
        (lambda: ConvNet((28, 28), 0), "outputs=0"),
        (lambda: ConvNet((28, 28), 10, ()), r"channels=\(\)"),
        (lambda: ConvNet((8, 8), 10, (4, 4, 4, 4)), "at most 3"),
        (lambda: ConvNet((8, 8), 10, (4,))(torch.zeros(5, 63)), r"\(5, 63\)"),
    ],
)
def test_what_cannot_be_built_or_read_is_refused(build, message):
    with pytest.raises(BadArgument, match=message):
        build()


def test_a_classifier_of_images_learns_where_the_light_is():
    """Four categories, the quarter of the image with one bright square: all right after a second, and sure of
    it."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    x = rng.integers(0, 60, (400, 16, 16))
    for i, q in enumerate(y):
        r, c = 8 * (q // 2) + rng.integers(0, 6), 8 * (q % 2) + rng.integers(0, 6)
        x[i, r : r + 2, c : c + 2] = 255
    data = {"x": x.astype(np.uint8), "y": y}
    model = th.models.Conditional(th.families.Categorical(4), ConvNet((16, 16), 4, (8, 8)))
    fit = th.fit(
        model, data, solver=th.Stochastic(steps=40, batch_size=64, learning_rate=0.02, held_out=None)
    )
    assert not fit.model.training
    assert fit.score(data).mean > -0.05
    assert (fit.predict(data, "probabilities").to_numpy().argmax(1) == y).mean() > 0.98


# ---- standardise -------------------------------------------------------------------------------------------


def test_standardised_columns_have_mean_0_and_standard_deviation_1():
    x = np.random.default_rng(0).normal([1e3, 0.0, -5.0], [10.0, 1e-3, 1.0], (200, 3))
    x[:, 2] = 7.0  # a constant keeps its scale
    z = Standardise.of(x, dtype=torch.float64)(torch.tensor(x))
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-9)
    np.testing.assert_allclose(z.std(0, correction=0), [1.0, 1.0, 0.0], atol=1e-9)


def test_what_standardises_is_held_and_travels_with_the_network():
    net = torch.nn.Sequential(Standardise([1.0, 2.0], [3.0, 4.0]), torch.nn.Linear(2, 1))
    assert sum(p.numel() for p in net.parameters()) == 3
    assert {"0.mean", "0.scale"} <= set(net.state_dict())


def test_a_linear_network_of_standardised_columns_is_the_same_regression():
    """An affine change of x changes no maximum: the formula's log-likelihood."""
    rng = np.random.default_rng(0)
    x = rng.normal([50.0, 0.01], [10.0, 0.002], (100, 2))
    y = rng.poisson(np.exp(0.03 * x[:, 0] + 20 * x[:, 1] - 1)).astype(float)
    formula = th.fit("y ~ a + b", {"a": x[:, 0], "b": x[:, 1], "y": y}, family="poisson")
    net = torch.nn.Sequential(
        Standardise.of(x, torch.float64), th.networks.mlp(2, (), 1, dtype=torch.float64)
    )
    fit = th.fit(th.models.Conditional(th.families.Poisson(), net), {"x": x, "y": y})
    assert fit.certificate.concave
    assert fit.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-6)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: Standardise([1.0], [1.0, 2.0]), BadArgument),
        (lambda: Standardise([1.0], [0.0]), BadArgument),
        (lambda: Standardise([np.nan], [1.0]), NotFinite),
        (lambda: Standardise.of(np.zeros(5)), BadArgument),
        (lambda: Standardise.of([[1.0, np.nan], [2.0, 3.0]]), NotFinite),
    ],
)
def test_what_cannot_be_standardised_is_refused(build, error):
    with pytest.raises(error):
        build()


def test_a_table_streams_through_the_network():
    x = images(10, 8, 8)
    source = Tensors({"x": x, "y": torch.zeros(10)}, block=3)
    model = th.models.Conditional(th.families.Categorical(3), ConvNet((8, 8), 3, (4,)).eval())
    parts = torch.cat([model.log_prob(batch) for batch in source.batches()])
    torch.testing.assert_close(parts, model.log_prob(source.whole), rtol=1e-5, atol=1e-6)
