"""Exponential and gamma against scipy, mpmath, one another, and their own derivatives."""

import math

import mpmath
import pytest
import scipy.stats
import torch

from thetahat.families import Exponential, Family, Gamma

from . import checks, positive_checks
from .checks import D

REGIONS = [(2.5, 0.3), (40.0, 3.0), (1e-3, 1e-4), (7.0, 1.0), (1e5, 25.0)]


def scipy_gamma(mean, dispersion):
    return scipy.stats.gamma(1 / dispersion, scale=mean * dispersion)


@pytest.mark.parametrize("parameters", REGIONS, ids=str)
def test_gamma_is_scipys(parameters):
    y = torch.from_numpy(scipy_gamma(*parameters).ppf([1e-6, 0.01, 0.3, 0.5, 0.8, 0.999, 1 - 1e-9]))
    # scipy forms (a − 1)·log y − y − log Γ(a), which loses digits where the shape a = 1e4
    checks.matches_scipy(
        Gamma(), parameters, scipy_gamma(*parameters), y, rtol=1e-10 if parameters[1] < 1e-3 else 1e-12
    )


@pytest.mark.parametrize("parameters", [(2.5, 0.3), (40.0, 3.0), (7.0, 1.0), (3.0, 0.02)], ids=str)
def test_gamma_agrees_with_itself(parameters):
    positive_checks.agrees_with_itself(Gamma(), parameters)


@pytest.mark.parametrize("dispersion", [1e-12, 1e-6, 0.02, 0.5, 3.0, 1e4])
def test_gamma_is_exact_for_every_dispersion(dispersion):
    """mpmath, 60 digits: where φ → 0 the textbook's terms dwarf their sum, and ours do not."""
    eta = checks.linear_predictors(Gamma(), (2.5, dispersion))
    y = torch.tensor(
        [2.5 * (1 + math.sqrt(min(dispersion, 0.1)) * k) for k in (-2.0, -0.3, 0.1, 3.0)], dtype=D
    )
    with mpmath.workdps(60):
        log_mean, log_phi = (mpmath.mpf(float(e)) for e in eta)

        def log_prob(y, t):
            a = mpmath.exp(-t)
            rate = a * mpmath.exp(-log_mean)
            return a * mpmath.log(rate) + (a - 1) * mpmath.log(y) - rate * y - mpmath.loggamma(a)

        h = mpmath.mpf(10) ** -15
        rows = [[log_prob(v, log_phi + k * h) for k in (-1, 0, 1)] for v in map(mpmath.mpf, y.tolist())]
        exact = torch.tensor(
            [[float(b), float((c - a) / (2 * h)), float((c - 2 * b + a) / h**2)] for a, b, c in rows], dtype=D
        ).T
    for value, score, curvature in (Gamma().derivatives(y, eta), Family.derivatives(Gamma(), y, eta)):
        torch.testing.assert_close(
            torch.stack([value, score[1], curvature[1, 1]]),
            exact,
            rtol=1e-8 if dispersion < 1e-9 else 1e-11,
            atol=0,
        )


def test_gamma_of_dispersion_one_is_the_exponential():
    y, theta = torch.tensor([1e-8, 0.3, 2.0, 90.0], dtype=D), checks.tensors((2.5, 1.0))
    for method in ("log_prob", "cdf", "log_cdf", "log_survival"):
        ours, theirs = getattr(Gamma(), method)(y, *theta), getattr(Exponential(), method)(y, theta[0])
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)


def test_exponential_is_scipys_and_agrees_with_itself():
    y = torch.tensor([1e-9, 0.2, 1.0, 30.0, 500.0], dtype=D)
    checks.matches_scipy(Exponential(), (2.5,), scipy.stats.expon(scale=2.5), y)
    positive_checks.agrees_with_itself(Exponential(), (2.5,))
    assert Exponential().log_prob(torch.zeros(1, dtype=D), *checks.tensors((2.5,))).item() == pytest.approx(
        -math.log(2.5)
    )
    assert Exponential().concave


@pytest.mark.parametrize("link", ["identity", "inverse"])
def test_other_links_of_the_mean_have_the_same_density(link):
    y = torch.tensor([0.3, 2.0, 9.0], dtype=D)
    for family, parameters in ((Gamma(link=link), (2.5, 0.3)), (Exponential(link=link), (2.5,))):
        checks.derivatives_agree(family, parameters, y)
        eta = checks.linear_predictors(family, parameters)
        torch.testing.assert_close(
            family.log_prob_eta(y, *eta), type(family)().log_prob(y, *checks.tensors(parameters))
        )


@pytest.mark.parametrize("parameters", [(1e-150, 0.5), (1e150, 0.5), (1.0, 1e-14), (1.0, 1e14)], ids=str)
def test_far_parameters_and_amounts_give_no_nan(parameters):
    y = torch.tensor([1e-300, 1e-5, 1.0, 1e5, 1e300], dtype=D)
    checks.never_nan(Gamma(), parameters, y)
    checks.never_nan(Exponential(), parameters[:1], y)


def test_impossible_amounts_and_ends():
    positive_checks.impossible_outside(Gamma(), (2.5, 0.3), 0.0, -1.0)
    positive_checks.impossible_outside(Exponential(), (2.5,), -0.1)
    positive_checks.ends_of_the_cdf(Gamma(), (2.5, 0.3), 0.0, math.inf)


def test_starts_are_inside_whatever_the_data():
    for family in (Gamma(), Exponential()):
        positive_checks.starts_inside(family, [3.0], [2.0, 2.0, 2.0], [1e200, 1e-200, 5.0], [1e-3, 2.0, 4.0])
    assert Exponential().start(torch.zeros(3, dtype=D), torch.ones(3, dtype=D)) == (1.0,)
