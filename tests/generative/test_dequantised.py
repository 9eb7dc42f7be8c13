"""The mass of whole numbers from a density: below the exact one, and nearer for more draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import thetahat as th
from thetahat.data import Batch, maps
from thetahat.errors import BadArgument, ModelError, OutOfSupport

Dequantised = th.generative.Dequantised


def normal(mean: float, scale: float) -> th.models.Density:
    """A Normal density at these parameters."""
    model = th.models.Density(th.families.Normal())
    with torch.no_grad():
        model.theta.copy_(torch.tensor([mean, math.log(scale)], dtype=torch.float64))
    return model


def exact(y: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """log P(y ≤ Y < y + 1) by the cdf."""
    return np.log(norm.cdf(y + 1, mean, scale) - norm.cdf(y, mean, scale))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_bound_is_below_the_mass_of_the_interval_and_rises_to_it_with_K() -> None:
    """scipy's normal cdf. The mean of 4000 bounds of K draws has a standard error; monotone by Burda et al.,
    Theorem 1."""
    y = np.arange(-3, 6)
    truth = exact(y, 1.3, 0.7)
    batch = Batch({"y": torch.from_numpy(np.repeat(y, 4000))})
    means, errors = [], []
    for K in (1, 2, 8, 64):
        with torch.no_grad():
            value = Dequantised(normal(1.3, 0.7), K=K).log_prob(batch, seeded()).reshape(len(y), 4000).numpy()
        means.append(value.mean(1))
        errors.append(value.std(1) / 4000**0.5)
    for mean, error in zip(means, errors, strict=True):
        assert (mean < truth + 5 * error).all()
    for K in range(3):
        assert (means[K] < means[K + 1] + 5 * (errors[K] + errors[K + 1])).all()
        assert means[K].sum() < means[K + 1].sum()
    assert means[0].sum() < truth.sum() - 1  # far below, to begin with
    np.testing.assert_allclose(means[-1], truth, atol=0.06)


def test_many_draws_are_the_integral() -> None:
    """K = 200,000, held in several parts: the Monte Carlo error of the mean is far below 0.01."""
    y = np.array([0.0, 1.0, 2.0])
    with torch.no_grad():
        found = Dequantised(normal(1.3, 0.7), K=200_000).log_prob(Batch({"y": torch.from_numpy(y)}), seeded())
    np.testing.assert_allclose(found.numpy(), exact(y, 1.3, 0.7), atol=0.01)


def test_a_uniform_density_over_the_cells_has_its_mass_from_one_draw() -> None:
    """Logistic t = logit(x/L) is uniform x: P(y) = 1/L for every y and every draw, through the logit and its
    log-determinant."""
    logistic = th.models.Density(th.families.Logistic())  # mean 0, scale 1
    model = Dequantised(logistic, 17, maps=["logit"])
    y = torch.arange(17)
    with torch.no_grad():
        found = model.log_prob(Batch({"y": y}), seeded())
    np.testing.assert_allclose(found.numpy(), -math.log(17), atol=1e-9)


def test_an_image_is_one_term_of_all_its_pixels() -> None:
    """Independent Normals: the bound of the vector is the sum of those of its components at the same u,
    and one draw serves all."""
    normals = th.models.Density(th.families.MultivariateNormal(2))
    y = torch.tensor([[0, 1], [2, -1]])
    with torch.no_grad():
        found = Dequantised(normals).log_prob(Batch({"y": y}), seeded())
        u = torch.rand(1, 2, 2, dtype=torch.float64, generator=seeded())[0]
        one = normals.log_prob(Batch({"y": y + u}))
    torch.testing.assert_close(found, one)


def test_a_fit_of_counts_finds_the_normal_that_was_rounded() -> None:
    """Maximum likelihood of the rounded normal, by scipy's cdf: the bound with K = 32 comes within its
    noise."""
    y = np.floor(np.random.default_rng(0).normal(3.0, 1.5, size=2000))
    model = Dequantised(normal(2.0, 1.0), K=32)
    solver = th.Stochastic(steps=120, batch_size=500, learning_rate=0.03, held_out=None)
    fit = th.fit(model, {"y": torch.from_numpy(y)}, solver=solver)
    mean, log_scale = fit.theta.tolist()
    assert mean == pytest.approx(3.0, abs=5 * 1.5 / 2000**0.5 + 0.02)
    assert math.exp(log_scale) == pytest.approx(1.5, abs=5 * 1.5 / 4000**0.5 + 0.02)
    score = fit.score(samples=500)
    assert (score.kind, score.measure, score.K) == ("lower bound", "mass", 500)
    assert score.total == pytest.approx(exact(y, mean, math.exp(log_scale)).sum(), abs=5)


def test_a_bound_made_of_draws_is_not_given_to_newton() -> None:
    """Its θ may be float64: what decides is that its value is not the same twice."""
    objective = th.Objective(
        [th.LogLikelihood(Dequantised(normal(0, 1)), th.data.Tensors({"y": torch.zeros(3)}))]
    )
    assert isinstance(th.solvers.choose(objective), th.Stochastic)


def test_draws_are_whole_numbers_with_the_masses() -> None:
    """The normal cdf, 5 sigma of 20,000 draws."""
    y = Dequantised(normal(1.3, 0.7)).draw(20_000, generator=seeded()).numpy()
    for value in range(-1, 4):
        p = math.exp(exact(np.array(value), 1.3, 0.7))
        assert (y == value).mean() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 20_000))


def test_draws_outside_the_levels_are_drawn_again() -> None:
    """What is kept has the masses of the normal, divided by what lies inside."""
    y = Dequantised(normal(0.0, 1.0), 2).draw(20_000, generator=seeded())
    assert y.dtype == torch.uint8
    inside = norm.cdf(2) - norm.cdf(0)
    assert float((y == 0).double().mean()) == pytest.approx(
        (norm.cdf(1) - norm.cdf(0)) / inside, abs=5 * 0.5 / 20_000**0.5
    )
    with pytest.raises(ModelError, match="100 rounds of draws 0 of 3 lie within 0 … 1"):
        Dequantised(normal(100.0, 1.0), 2).draw(3, generator=seeded())


def test_a_mixture_of_densities_has_masses_too() -> None:
    """Its mass is the mixture of theirs."""
    mixture = th.models.Mixture([normal(0.0, 1.0), normal(3.0, 0.5)])
    y = np.array([0.0, 2.0, 3.0])
    with torch.no_grad():
        found = Dequantised(mixture, K=100_000).log_prob(Batch({"y": torch.from_numpy(y)}), seeded())
    truth = np.logaddexp(exact(y, 0.0, 1.0), exact(y, 3.0, 0.5)) - math.log(2)
    np.testing.assert_allclose(found.numpy(), truth, atol=0.02)
    drawn = Dequantised(mixture).draw(20_000, generator=seeded()).numpy()
    for value, p in zip(y, np.exp(truth), strict=True):
        assert (drawn == value).mean() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 20_000))


def test_a_flow_stands_in_one_table_with_a_model_of_pixels() -> None:
    """Both are masses of the same y: a bound above an exact value is better, below it is undecided."""
    y = np.random.default_rng(0).integers(0, 4, size=(60, 2, 2))
    images = th.generative.Images(y, levels=4)
    solver = th.Stochastic(steps=5, batch_size=30)
    flow = th.fit(
        Dequantised(th.generative.Flow.affine(4, hidden=(8,)), 4, maps=["logit"]), images, solver=solver
    )
    pixels = th.fit(
        th.generative.FullyVisible(th.families.Categorical(4), th.generative.MaskedMLP(4, 4)),
        images,
        solver=solver,
    )
    table = th.compare({"flow": flow, "pixels": pixels}, images)
    assert table.pair("flow", "pixels").relation in ("≥", "?")
    assert flow.sample(3).shape == (3, 4)
    assert flow.score(images).mean == flow.score(images).mean


def test_what_cannot_be_dequantised_is_named() -> None:
    with pytest.raises(OutOfSupport, match=r"'y' is 0\.5 at \[1\], and not a whole number \(1 such"):
        Dequantised(normal(0, 1)).log_prob(Batch({"y": torch.tensor([1.0, 0.5])}))
    with pytest.raises(
        OutOfSupport, match=r"'y' is 4 at \[0, 1\], and not a whole number 0 … 3 \(levels=4\)"
    ):
        Dequantised(th.models.Density(th.families.MultivariateNormal(2)), 4).log_prob(
            Batch({"y": torch.tensor([[3, 4]])})
        )
    with pytest.raises(BadArgument, match="FullyVisible is not a model of a density"):
        Dequantised(th.generative.FullyVisible(th.families.Bernoulli(), th.generative.MaskedMLP(2, 1)))
    with pytest.raises(BadArgument, match="Dequantised"):
        Dequantised(Dequantised(normal(0, 1)))
    for settings, said in (
        ({"levels": 1}, "levels=1"),
        ({"K": 0}, "K=0"),
        ({"maps": ["logit"]}, "no upper end"),
    ):
        with pytest.raises(BadArgument, match=said):
            Dequantised(normal(0, 1), **settings)
    with pytest.raises(BadArgument, match="learnt no scale"):
        Dequantised(normal(0, 1), 4, maps=[maps.Standardise()]).log_prob(Batch({"y": torch.zeros(2)}))
