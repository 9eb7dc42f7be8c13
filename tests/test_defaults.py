"""torch's defaults are the user's: a fit under float64 is that under float32, bit for bit; under others it is
refused; none is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.families import Categorical
from thetahat.generative import (
    VAE,
    ConvNet,
    Denoiser,
    Dequantised,
    Diffusion,
    Flow,
    FullyVisible,
    Images,
    MaskedMLP,
    Noised,
    PixelTransformer,
    UNet,
)
from thetahat.language import Autoregressive, Tokens, add_lora
from thetahat.models import Conditional
from thetahat.networks import Transformer

RNG = np.random.default_rng(0)
TABLE = {
    "x": RNG.normal(size=80),
    "y": RNG.poisson(2.0, 80).astype(float),
    "c": RNG.choice(["a", "b", "d"], 80),
}
PIXELS = RNG.integers(0, 17, (40, 4, 4)).astype("uint8")
STEPS = {"steps": 3, "batch_size": 16}


def images():
    return Images(PIXELS, levels=17)


FITS = {
    "formula": lambda: th.fit("y ~ x + C(c)", TABLE, family="negative_binomial"),
    "categories": lambda: th.fit("c ~ x", TABLE, family="categorical"),
    "kinked prior": lambda: th.fit("y ~ x", TABLE, prior=th.priors.Laplace(1.0)),
    "VAE": lambda: th.fit(VAE.images((4, 4), 17, latent=2, width=8), images(), solver=th.Stochastic(**STEPS)),
    "binarised": lambda: th.fit(
        VAE.images((4, 4), 2, latent=2, width=8), images().binarised(), solver=th.Stochastic(**STEPS)
    ),
    "U-net": lambda: th.fit(
        Diffusion(UNet((4, 4), 17, channels=(4,)), levels=17, predict="levels"),
        images(),
        solver=th.Stochastic(**STEPS),
    ),
    "noised": lambda: th.fit(
        Diffusion(Denoiser(16, width=8, blocks=1), levels=17), Noised(images()), solver=th.Stochastic(**STEPS)
    ),
    "flow": lambda: th.fit(
        Dequantised(Flow.spline(16, hidden=(8,), transforms=1), levels=17, maps=["logit"]),
        images(),
        solver=th.Stochastic(**STEPS),
    ),
    "MADE": lambda: th.fit(
        FullyVisible(Categorical(17), MaskedMLP(16, 17, 8, levels=17)),
        images(),
        solver=th.Stochastic(**STEPS),
    ),
    "pixels": lambda: th.fit(
        FullyVisible(Categorical(17), PixelTransformer((4, 4), 17, layers=1, width=8, heads=2)),
        images(),
        solver=th.Stochastic(**STEPS),
    ),
    "GPT": lambda: th.fit(
        Autoregressive(add_lora(Transformer(11, layers=1, width=8, heads=2), 2)),
        Tokens(["abcdefghijk" * 40], "characters", context=8),
        solver=th.Stochastic(**STEPS),
    ),
    "classifier": lambda: th.fit(
        Conditional(Categorical(3), ConvNet((4, 4), 3, (4,), levels=17)),
        {"x": torch.from_numpy(PIXELS), "y": torch.arange(40) % 3},
        solver=th.Stochastic(ema_decay=0.9, **STEPS),
    ),
}


@pytest.fixture
def default():
    """A setter of torch's defaults, which are as they were afterwards."""
    dtype = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(dtype)
    torch.set_default_device(None)


@pytest.mark.parametrize("name", FITS)
def test_a_fit_does_not_depend_on_the_default_type(name, default):
    """Networks, draws and tables have types of their own."""
    one = FITS[name]()
    default(torch.float64)
    other = FITS[name]()
    assert torch.get_default_dtype() == torch.float64
    assert other.theta.dtype == one.theta.dtype
    assert torch.equal(other.theta, one.theta)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["formula", "MADE"])
def test_half_precision_as_the_default_is_refused(name, dtype, default):
    default(dtype)
    with pytest.raises(BadArgument, match=f"torch's default type is {dtype}"):
        FITS[name]()


def test_a_default_device_without_numbers_is_refused(default):
    model = FullyVisible(Categorical(17), MaskedMLP(16, 17, 8, levels=17))
    term = th.likelihood.LogLikelihood(model, images())
    with torch.device("meta"):
        for call in (
            FITS["formula"],
            lambda: th.fit(model, PIXELS),
            lambda: th.maximize(term, solver=th.Stochastic(**STEPS)),
        ):
            with pytest.raises(BadArgument, match="default device is 'meta'"):
                call()
    torch.set_default_device("meta")
    with pytest.raises(BadArgument, match="default device is 'meta'"):
        FITS["categories"]()
    assert torch.get_default_device().type == "meta"


def test_a_network_without_numbers_is_named():
    """As `with torch.device("meta")` or accelerate's empty weights leave it."""
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 1))
    data = {"x": torch.ones(8, 2), "y": torch.ones(8)}
    with pytest.raises(BadArgument, match=r"network.0.weight of Conditional is on the device 'meta'"):
        th.fit(Conditional(th.families.Poisson(), network), data, solver=th.Stochastic(**STEPS))
