"""Samplers, held to data of which the paths are known."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch

from thetahat.errors import BadArgument
from thetahat.generative import Diffusion
from thetahat.generative.samplers import solve
from thetahat.generative.schedule import Cosine, Linear

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import MEAN, Gaussian, Independent


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("predict", ["epsilon", "v"])
@pytest.mark.parametrize(("method", "order"), [("ddim", 1), ("heun", 2)])
def test_deterministic_samplers_reach_the_probability_flow_at_their_order(method, order, predict):
    """Gaussian data: along each eigenvector the flow keeps the quantile. Twice the steps, 2^order times less
    error."""
    network = Gaussian(predict=predict)
    model = Diffusion(network, predict=predict, schedule=Cosine(8.0, -8.0))
    z = torch.randn(20, 3, generator=seeded(), dtype=torch.float64)
    exact = network.flow(z, -8.0, 8.0)
    errors = [float((solve(model, z, steps=n, method=method) - exact).abs().max()) for n in (200, 400, 800)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize(("method", "steps"), [("ancestral", 300), ("ddim", 300), ("heun", 60)])
def test_draws_have_the_mean_and_the_covariance_of_the_data(method, steps):
    """x ~ N(m, C): 20000 draws, 5 standard errors and 2 % for the size of the steps."""
    network = Gaussian()
    model = Diffusion(network, predict="epsilon", schedule=Cosine(10.0, -10.0))
    n = 20_000
    x = model.draw(n, steps=steps, method=method, generator=seeded(1))
    sd = network.C.diagonal().sqrt()
    assert ((x.mean(0) - MEAN).abs() < 5 * sd / n**0.5 + 0.02 * sd).all()
    assert ((torch.cov(x.T) - network.C).abs() < (0.02 + 5 * (2 / n) ** 0.5) * sd[:, None] * sd).all()


def white_variance(model: Diffusion, steps: int) -> float:
    """Of z_0 after ancestral steps for x ~ N(0, I), where x̂ = αz: var_s = α_s² ((1 − c)/α_t + cα_t)² var_t +
    σ_s² c."""
    grid = model.schedule.log_snr(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    variance = 1.0
    for t, s in itertools.pairwise(grid):
        c, a_t, a_s = 1 - torch.exp(t - s), torch.sigmoid(t).sqrt(), torch.sigmoid(s).sqrt()
        variance = float((a_s * ((1 - c) / a_t + c * a_t)) ** 2 * variance + torch.sigmoid(-s) * c)
    return variance


def test_ancestral_steps_have_the_variance_that_the_formula_gives():
    """White data, in closed form for any number of steps (4 standard errors); the marginal's own, 1, is
    reached as 1/steps."""
    model = Diffusion(
        Gaussian(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)), predict="epsilon"
    )
    z = torch.randn(20_000, 2, generator=seeded(), dtype=torch.float64)
    out = solve(model, z, steps=20, method="ancestral", generator=seeded(1))
    assert float(out.var()) == pytest.approx(white_variance(model, 20), rel=4 * (2 / 4e4) ** 0.5)
    gaps = [1 - white_variance(model, n) for n in (500, 1000)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("method", ["ancestral", "ddim", "heun"])
def test_draws_of_levels_are_levels_with_their_probabilities(method):
    """Independent pixels: the share of each level, 5 standard errors; deterministic samplers too, since the
    start is random."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]], dtype=torch.float64)
    model = Diffusion(Independent(p), levels=3, predict="levels", schedule=Cosine(9.0, -9.0))
    n = 5000
    y = model.draw(n, steps=150, method=method, generator=seeded(2))
    assert y.dtype == torch.int64
    share = torch.stack([(y == level).double().mean(0) for level in range(3)], 1)
    assert ((share - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 0.005).all()


def test_one_seed_one_draw_and_the_global_randomness_is_left_alone():
    model = Diffusion(Gaussian(), predict="epsilon")
    before = torch.random.get_rng_state()
    a, b = (model.draw(4, steps=5, generator=seeded(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_a_sampler_cannot_do_is_said():
    model = Diffusion(Gaussian(), predict="epsilon", schedule=Linear(8.0, -8.0))
    with pytest.raises(BadArgument, match="method='euler'"):
        model.draw(3, method="euler")
    with pytest.raises(BadArgument, match="steps=0"):
        model.draw(3, steps=0)
    model.dimensions = None
    with pytest.raises(BadArgument, match="dimensions="):
        model.draw(3)
