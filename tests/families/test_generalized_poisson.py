"""The generalised Poisson against statsmodels, its limit and its own sums."""

import numpy as np
import pytest
import torch
from statsmodels.distributions.discrete import genpoisson_p

from thetahat.families import GeneralizedPoisson, Poisson

from . import count_checks as checks
from .count_checks import D, tensors

REGIONS = [(2.5, 0.3), (30.0, 0.01), (0.2, 2.0), (5.0, 1e-6)]
COUNTS = torch.tensor([0.0, 1.0, 2.0, 9.0, 40.0], dtype=D)
FAMILY = GeneralizedPoisson()


@pytest.mark.parametrize(("mean", "dispersion"), REGIONS)
def test_log_prob_is_that_of_statsmodels_gp2(mean, dispersion):
    """statsmodels 0.15, genpoisson_p with p = 2."""
    expected = genpoisson_p.logpmf(COUNTS.numpy(), mean, dispersion, 2)
    np.testing.assert_allclose(FAMILY.log_prob(COUNTS, *tensors(mean, dispersion)), expected, rtol=1e-11)


def test_dispersion_0_is_poisson():
    poisson = Poisson().log_prob(COUNTS, *tensors(3.0))
    np.testing.assert_allclose(FAMILY.log_prob(COUNTS, *tensors(3.0, 1e-12)), poisson, rtol=1e-8)
    np.testing.assert_allclose(FAMILY.log_prob(COUNTS, *tensors(3.0, 0.0)), poisson, rtol=1e-14)


@pytest.mark.parametrize("region", REGIONS)
def test_the_mass_sums_to_1_and_has_the_stated_moments(region):
    checks.mass_has_the_moments(FAMILY, tensors(*region), torch.arange(4000, dtype=D))


def test_what_is_no_count_has_no_probability():
    assert torch.isneginf(FAMILY.log_prob(torch.tensor([-1.0, 0.5], dtype=D), *tensors(2.0, 0.5))).all()


@pytest.mark.parametrize("link", [None, "softplus"])
def test_automatic_scores_are_the_central_differences(link):
    eta = [torch.linspace(-1, 3, 5, dtype=D), torch.linspace(0.5, -8, 5, dtype=D)]
    checks.automatic_is_difference(GeneralizedPoisson(link=link), COUNTS, eta)


def test_the_score_of_a_tiny_dispersion_keeps_its_digits():
    """As α → 0, ∂ log p/∂ log α → α·(y(y − 1) − 2yμ + μ²) = α·((y − μ)² − y)."""
    y, eta = (
        torch.tensor([0.0, 1.0, 7.0], dtype=D),
        [torch.tensor([3.0], dtype=D).log(), torch.tensor([1e-12], dtype=D).log()],
    )
    np.testing.assert_allclose(FAMILY.derivatives(y, eta)[1][1], 1e-12 * ((y - 3) ** 2 - y), rtol=1e-9)


def test_no_eta_makes_nan():
    checks.never_nan(FAMILY, torch.tensor([0.0, 1.0, 5.0, 1e6], dtype=D), [-300.0, -50.0, 0.0, 50.0, 300.0])


@pytest.mark.parametrize("region", REGIONS)
def test_tails_are_sums_of_the_mass(region):
    y = torch.arange(-1, 4000, dtype=D)
    p = torch.exp(FAMILY.log_prob(y, *tensors(*region)))
    at = torch.tensor([0, 1, 3, 8, 31, 60]) + 1
    np.testing.assert_allclose(FAMILY.cdf(y[at], *tensors(*region)), p.cumsum(0)[at], rtol=1e-11)
    survival = torch.exp(FAMILY.log_survival(y[at], *tensors(*region)))
    np.testing.assert_allclose(survival, p.flip(0).cumsum(0).flip(0)[at + 1], rtol=1e-11)
    below = torch.tensor([-1.0], dtype=D)
    assert FAMILY.cdf(below, *tensors(*region)) == 0
    assert FAMILY.log_survival(below, *tensors(*region)) == 0


def test_tails_are_differentiable():
    """∂ of both tails against the derivative of the sum of the mass."""
    y, k = torch.tensor([0.0, 2.0, 6.0, 25.0], dtype=D), torch.arange(26, dtype=D)
    theta = torch.tensor([5.0, 0.1], dtype=D, requires_grad=True)
    mass = torch.exp(FAMILY.log_prob(k, *theta))
    direct = torch.autograd.grad(sum(mass[: int(t) + 1].sum() for t in y), theta)[0]
    ours = torch.autograd.grad(FAMILY.cdf(y, *theta).sum(), theta)[0]
    torch.testing.assert_close(ours, direct, rtol=1e-10, atol=0.0)
    ours = torch.autograd.grad(torch.exp(FAMILY.log_survival(y, *theta)).sum(), theta)[0]
    torch.testing.assert_close(ours, -direct, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("region", REGIONS)
def test_quantile_inverts_the_cdf_and_samples_have_the_moments(region):
    checks.quantile_inverts(FAMILY, tensors(*region), torch.arange(40, dtype=D))
    checks.draws_have_the_moments(FAMILY, tensors(*region))


@pytest.mark.parametrize("y", [[0.0, 0.0], [4.0], [0.0, 1e9], [3.0, 3.0, 3.0]])
def test_a_start_lies_inside_the_range(y):
    start = FAMILY.start(torch.tensor(y, dtype=D), torch.ones(len(y), dtype=D))
    assert len(start) == 2
    assert all(np.isfinite(s) and s > 0 for s in start)


def test_zeros_recede_and_other_counts_pin_the_mean():
    A, equality = FAMILY.recession(torch.tensor([0.0, 2.0], dtype=D))
    assert A.tolist() == [[[-1.0, 0.0]], [[-1.0, 0.0]]]
    assert equality.tolist() == [[False], [True]]
