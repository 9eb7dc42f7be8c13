"""The bound of a diffusion of T steps, against Gaussian divergences written out by hand in numpy."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, ModelError

L, MEAN, VARIANCE = 8, 0.1, 0.06
BAR = np.cumprod(1 - np.geomspace(0.01, 0.5, 16))
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Denoiser(nn.Module):
    """x ~ N(m, v): E[x | z] and what follows from it, called as diffusers calls a UNet2DModel."""

    def __init__(self, prediction_type: str = "epsilon", bar: np.ndarray = BAR):
        super().__init__()
        self.register_buffer("bar", torch.from_numpy(bar.copy()))
        self.prediction_type = prediction_type

    def forward(self, z: Tensor, t: Tensor) -> SimpleNamespace:
        bar = self.bar[t].reshape(-1, 1, 1, 1)
        assert z.ndim == 4
        assert t.dtype == torch.int64
        a, s = bar.sqrt(), (1 - bar).sqrt()
        x = MEAN + a * VARIANCE / (bar * VARIANCE + 1 - bar) * (z - a * MEAN)
        epsilon = (z - a * x) / s
        out = {"sample": x, "epsilon": epsilon, "v_prediction": a * epsilon - s * x}
        return SimpleNamespace(sample=out[self.prediction_type])


def squares(x: np.ndarray, bar: float) -> np.ndarray:
    """E over ε of (x − x̂)² of the best denoiser: (1 − kα)²(x − m)² + k²σ²."""
    k = np.sqrt(bar) * VARIANCE / (bar * VARIANCE + 1 - bar)
    return (1 - k * np.sqrt(bar)) ** 2 * (x - MEAN) ** 2 + k**2 * (1 - bar)


def chain(x: np.ndarray, error, variance_type: str) -> np.ndarray:
    """−Σ KL of N's means and variances, as in Ho et al. (2020); error(x, ᾱ) = E (x − x̂)²."""
    total = 0.5 * (BAR[-1] * x**2 + (1 - BAR[-1]) - 1 - np.log(1 - BAR[-1]))
    for before, bar in itertools.pairwise(BAR):
        beta = 1 - bar / before
        posterior = beta * (1 - before) / (1 - bar)
        var = posterior if variance_type == "fixed_small" else beta
        gap = (np.sqrt(before) * beta / (1 - bar)) ** 2 * error(x, bar)  # of the two means
        total = total + 0.5 * (np.log(var / posterior) - 1 + posterior / var + gap / var)
    return -total.sum(-1)


def decoder_sd() -> float:
    return float(np.sqrt((1 - BAR[1] / BAR[0]) * (1 - BAR[0]) / (1 - BAR[1])))


def log_decoder(y: np.ndarray, mean: np.ndarray | float) -> np.ndarray:
    """log P of a level under N(mean, β̃_2), the outer levels with their tails; by the nearer tail of scipy's."""
    sd, half = decoder_sd(), 1 / (L - 1)
    x = 2 * y / (L - 1) - 1
    low = np.where(y == 0, -np.inf, (x - half - mean) / sd)
    high = np.where(y == L - 1, np.inf, (x + half - mean) / sd)
    norm = stats.norm
    return np.log(np.where(low > 0, norm.sf(low) - norm.sf(high), norm.cdf(high) - norm.cdf(low)))


def images(n: int) -> np.ndarray:
    x = np.random.default_rng(0).normal(MEAN, VARIANCE**0.5, (n, 1, 2, 2))
    return np.clip(np.round((x + 1) / 2 * (L - 1)), 0, L - 1).astype(np.uint8)


def model(network: object, **settings: object) -> th.generative.DiscreteDiffusion:
    half = (L - 1) / 2
    return th.generative.DiscreteDiffusion(
        network, BAR, **{"levels": L, "shift": half, "scale": half, "shape": (1, 2, 2)} | settings
    )


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_a_network_that_ignores_its_input_has_the_bound_of_the_hand_calculation(variance_type: str) -> None:
    """x̂ = 0.2 whatever z: nothing is random, and every divergence is one between two known Gaussians."""
    y = images(50).reshape(50, 4)
    x = 2 * y / (L - 1) - 1
    constant = model(
        lambda z, t: torch.full_like(z, 0.2), prediction_type="sample", variance_type=variance_type
    )
    hand = chain(x, lambda x, _: (x - 0.2) ** 2, variance_type) + log_decoder(y, 0.2).sum(1)
    assert constant.log_prob(Batch({"y": torch.from_numpy(y)})).numpy() == pytest.approx(hand, abs=1e-10)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("times", [None, 3])
def test_the_expected_bound_is_that_of_the_hand_calculation(
    prediction_type: str, variance_type: str, times: int | None
) -> None:
    """Of the best denoiser: E (x − x̂)² in closed form, the decoder by Gauss and Hermite's quadrature."""
    y = images(3000).reshape(-1, 4)
    x = 2 * y / (L - 1) - 1
    k = np.sqrt(BAR[0]) * VARIANCE / (BAR[0] * VARIANCE + 1 - BAR[0])
    mean = MEAN + k * (np.sqrt(BAR[0]) * (x - MEAN))
    each = log_decoder(y[..., None], mean[..., None] + k * np.sqrt(1 - BAR[0]) * NODES) @ WEIGHTS
    hand = chain(x, squares, variance_type) + each.sum(1)
    found = model(
        Denoiser(prediction_type),
        prediction_type=prediction_type,
        variance_type=variance_type,
        times=times,
        K=8,
    )
    off = found.log_prob(Batch({"y": torch.from_numpy(y)}), torch.Generator().manual_seed(0)).numpy() - hand
    assert off.std() / len(off) ** 0.5 < 0.05
    assert abs(off.mean()) < 4 * off.std() / len(off) ** 0.5


def test_the_density_of_real_vectors_is_the_chain_and_a_gaussian() -> None:
    """levels=None, a constant x̂, and the change of units by the scale."""
    y = np.random.default_rng(1).normal(size=(20, 3))
    x = (y - 0.5) / 2
    found = model(
        lambda z, t: torch.zeros_like(z),
        prediction_type="sample",
        levels=None,
        shift=0.5,
        scale=2.0,
        shape=None,
    )
    gaussian = stats.norm.logpdf(x, 0, decoder_sd()).sum(1)
    hand = chain(x, lambda x, _: x**2, "fixed_small") + gaussian - 3 * np.log(2)
    assert found.measure == "density"
    assert found.log_prob(Batch({"y": torch.from_numpy(y)})).numpy() == pytest.approx(hand, abs=1e-10)


def test_the_mass_of_all_levels_is_one() -> None:
    """Of a decoder alone (x̂ constant): the chain's terms leave Σ_y P(y | z_1) = 1."""
    y = torch.arange(L)[:, None]
    found = model(lambda z, t: torch.full_like(z, 0.9), prediction_type="sample", shape=None)
    terms = found.terms(y)
    assert terms.mass is not None
    assert float(terms.mass.exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_a_level_in_a_far_tail_keeps_its_digits() -> None:
    """40 standard deviations away, where Φ is 1 to every digit: against scipy's logarithms."""
    bar, half = [0.999, 0.9], 1 / (L - 1)
    sd = float(np.sqrt((1 - 0.9 / 0.999) * 0.001 / 0.1))
    settings = {"levels": L, "shift": 3.5, "scale": 3.5, "prediction_type": "sample"}
    found = th.generative.DiscreteDiffusion(lambda z, t: torch.full_like(z, -1.0), bar, **settings)
    terms = found.terms(torch.tensor([[5.0]]))
    assert terms.mass is not None
    low, high = ((2 * 5 / (L - 1) - 1 + side * half + 1) / sd for side in (-1, 1))
    hand = stats.norm.logsf(low) + np.log1p(-np.exp(stats.norm.logsf(high) - stats.norm.logsf(low)))
    assert low > 30
    assert float(terms.mass) == pytest.approx(hand, rel=1e-12)


def test_clipping_the_prediction_of_a_far_network_tightens_the_bound() -> None:
    """x lies within ±1: the nearest point of the interval is nearer to it."""
    y = Batch({"y": torch.from_numpy(images(10).reshape(10, 4))})
    wild = {"prediction_type": "sample"}
    free, clipped = (
        model(lambda z, t: torch.full_like(z, 3.0), clip=clip, **wild).log_prob(y) for clip in (None, 1.0)
    )
    at_one = model(lambda z, t: torch.ones_like(z), **wild).log_prob(y)
    assert bool((clipped > free).all())
    assert torch.allclose(clipped, at_one, rtol=0, atol=1e-12)


def test_what_is_no_level_is_impossible() -> None:
    y = torch.tensor([[8.0, 0.0], [0.5, 1.0], [7.0, 0.0]])
    found = model(lambda z, t: torch.zeros_like(z), shape=None).log_prob(Batch({"y": y}))
    assert torch.isinf(found).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"prediction_type": "score"}, "prediction_type='score'"),
        ({"variance_type": "learned"}, "variance_type='learned'"),
        ({"levels": 1}, "levels=1"),
        ({"times": 0}, "times=0"),
        ({"clip": -1.0}, "clip=-1.0"),
        ({"scale": 0.0}, "scale=0.0"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(BadArgument, match=match):
        model(lambda z, t: z, **settings)


@pytest.mark.parametrize(
    ("bar", "match"),
    [
        ([0.5], r"shape \(1,\)"),
        ([0.1, 0.5], "fall"),
        ([1.0, 0.5], "fall"),
        ([0.9, float("nan")], "fall"),
        ([0.5, 0.0], "ends at 0"),
        ("cosine", "alphas_cumprod is str"),
    ],
)
def test_steps_that_do_not_fall_are_refused(bar: object, match: str) -> None:
    with pytest.raises(BadArgument, match=match):
        th.generative.DiscreteDiffusion(lambda z, t: z, bar, levels=None)


def test_a_network_that_also_gives_a_variance_is_refused() -> None:
    with pytest.raises(ModelError, match="variance"):
        model(lambda z, t: torch.cat([z, z], 1)).log_prob(Batch({"y": torch.zeros(2, 4)}))
