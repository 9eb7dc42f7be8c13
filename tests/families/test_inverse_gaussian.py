"""The inverse Gaussian against scipy, mpmath, and its own derivatives."""

import math

import mpmath
import pytest
import scipy.stats
import torch

from thetahat.families import InverseGaussian

from . import checks, positive_checks
from .checks import D

REGIONS = [(2.5, 0.3), (0.1, 0.2), (3.0, 4.0), (50.0, 1e-5)]


def scipy_inverse_gaussian(mean, dispersion):
    return scipy.stats.invgauss(mean * dispersion, scale=1 / dispersion)


@pytest.mark.parametrize("parameters", REGIONS, ids=str)
def test_inverse_gaussian_is_scipys(parameters):
    frozen = scipy_inverse_gaussian(*parameters)
    y = torch.from_numpy(frozen.ppf([1e-6, 0.01, 0.3, 0.5, 0.8, 0.999]))
    theta = checks.tensors(parameters)
    torch.testing.assert_close(
        InverseGaussian().log_prob(y, *theta), torch.from_numpy(frozen.logpdf(y)), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(
        InverseGaussian().cdf(y, *theta), torch.from_numpy(frozen.cdf(y)), rtol=1e-9, atol=0
    )
    assert InverseGaussian().expectation(*theta).item() == pytest.approx(frozen.mean())
    assert InverseGaussian().variance(*theta).item() == pytest.approx(frozen.var())


@pytest.mark.parametrize("parameters", [*REGIONS, (2.0, 1e-9)], ids=str)
def test_the_tails_are_exact_however_far_out(parameters):
    """mpmath, 500 digits: Φ(a) + e^(2/φμ)·Φ(−b), whose second term overflows float64 in three of these
    regions."""
    mean, dispersion = parameters
    spread = math.sqrt(dispersion * mean)
    y = torch.tensor(
        [
            mean * u
            for u in (
                1 / (1 + 20 * spread),
                1 / (1 + 2 * spread),
                1 + 0.1 * spread,
                1 + 5 * spread,
                1 + 40 * spread,
            )
        ],
        dtype=D,
    )
    theta = checks.tensors(parameters)
    with mpmath.workdps(500):
        mu, phi = mpmath.mpf(mean), mpmath.mpf(dispersion)

        def tails(y):
            y = mpmath.mpf(y)
            a, b = (y / mu - 1) / mpmath.sqrt(phi * y), (y / mu + 1) / mpmath.sqrt(phi * y)
            second = mpmath.exp(2 / (phi * mu) + mpmath.log(mpmath.erfc(b / mpmath.sqrt(2)) / 2))
            lower = mpmath.erfc(-a / mpmath.sqrt(2)) / 2 + second
            return float(mpmath.log(lower)), float(mpmath.log(mpmath.erfc(a / mpmath.sqrt(2)) / 2 - second))

        exact = torch.tensor([tails(v) for v in y.tolist()], dtype=D).T
    # y/μ − 1 is known to 1e-16, so that the square of a few hundred deviations is known to about 1e-11 where
    # φμ is 1e-9
    rtol = 1e-9 if dispersion < 1e-8 else 2e-12
    torch.testing.assert_close(InverseGaussian().log_cdf(y, *theta), exact[0], rtol=rtol, atol=0)
    torch.testing.assert_close(InverseGaussian().log_survival(y, *theta), exact[1], rtol=rtol, atol=0)


@pytest.mark.parametrize("parameters", [(2.5, 0.3), (0.1, 0.2), (3.0, 4.0), (5.0, 0.01)], ids=str)
def test_inverse_gaussian_agrees_with_itself(parameters):
    positive_checks.agrees_with_itself(InverseGaussian(), parameters)


def test_another_link_has_the_same_density():
    y, family = torch.tensor([0.3, 2.0, 9.0], dtype=D), InverseGaussian(link="inverse")
    checks.derivatives_agree(family, (2.5, 0.3), y)
    found = family.log_prob_eta(y, *checks.linear_predictors(family, (2.5, 0.3)))
    torch.testing.assert_close(found, InverseGaussian().log_prob(y, *checks.tensors((2.5, 0.3))))


@pytest.mark.parametrize("parameters", [(1e-50, 0.5), (1e50, 0.5), (1.0, 1e-14), (1.0, 1e14)], ids=str)
def test_far_parameters_and_amounts_give_no_nan(parameters):
    checks.never_nan(InverseGaussian(), parameters, torch.tensor([1e-100, 1e-5, 1.0, 1e5, 1e100], dtype=D))


def test_impossible_amounts_ends_and_starts():
    positive_checks.impossible_outside(InverseGaussian(), (2.5, 0.3), 0.0, -1.0)
    positive_checks.ends_of_the_cdf(InverseGaussian(), (2.5, 0.3), 0.0, math.inf)
    positive_checks.starts_inside(
        InverseGaussian(), [3.0], [2.0, 2.0, 2.0], [1e100, 1e-100, 5.0], [1e-3, 2.0, 4.0]
    )
