"""The beta distribution against scipy, mpmath, and its own derivatives."""

import math

import mpmath
import pytest
import scipy.stats
import torch

from thetahat.families import Beta, Family

from . import checks, positive_checks
from .checks import D

REGIONS = [(0.3, 5.0), (0.5, 1.0), (0.97, 400.0), (0.02, 1e4), (0.6, 0.3)]


def scipy_beta(mean, precision):
    return scipy.stats.beta(mean * precision, (1 - mean) * precision)


@pytest.mark.parametrize("parameters", REGIONS, ids=str)
def test_beta_is_scipys(parameters):
    frozen = scipy_beta(*parameters)
    y = torch.from_numpy(frozen.ppf([1e-4, 0.01, 0.3, 0.5, 0.7]))
    checks.matches_scipy(Beta(), parameters, frozen, y, rtol=1e-10 if parameters[1] > 1e3 else 1e-12)


@pytest.mark.parametrize("parameters", REGIONS[:4], ids=str)
def test_beta_agrees_with_itself(parameters):
    positive_checks.agrees_with_itself(Beta(), parameters)


@pytest.mark.parametrize(
    ("mean", "precision"), [(0.3, 1e8), (0.999999, 1e8), (1e-9, 30.0), (0.4, 1e-5), (0.7, 3.0)]
)
def test_beta_is_exact_for_every_precision(mean, precision):
    """mpmath, 60 digits, at the η that float64 holds: y within three deviations of μ."""
    eta = checks.linear_predictors(Beta(), (mean, precision))
    spread = math.sqrt(mean * (1 - mean) / (1 + precision))
    y = torch.tensor(
        [min(max(mean + k * spread, mean / 3), (2 + mean) / 3) for k in (-2.0, 0.1, 3.0)], dtype=D
    )
    with mpmath.workdps(60):
        logit, log_phi = (mpmath.mpf(float(e)) for e in eta)

        def log_prob(y, m, t):
            y, phi = mpmath.mpf(y), mpmath.exp(t)
            a, b = phi / (1 + mpmath.exp(-m)), phi / (1 + mpmath.exp(m))
            front = mpmath.loggamma(phi) - mpmath.loggamma(a) - mpmath.loggamma(b)
            return front + (a - 1) * mpmath.log(y) + (b - 1) * mpmath.log1p(-y)

        h = mpmath.mpf(10) ** -15
        exact = []
        for v in y.tolist():
            along, across = (
                [log_prob(v, logit + k * h * s, log_phi + k * h * (1 - s)) for k in (-1, 0, 1)]
                for s in (0, 1)
            )
            slopes = [float((c - a) / (2 * h)) for a, _, c in (across, along)]
            bends = [float((c - 2 * b + a) / h**2) for a, b, c in (across, along)]
            exact.append([float(along[1]), *slopes, *bends])
        exact = torch.tensor(exact, dtype=D).T
    for value, score, curvature in (Beta().derivatives(y, eta), Family.derivatives(Beta(), y, eta)):
        found = torch.stack([value, *score, curvature[0, 0], curvature[1, 1]])
        torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10 * precision**0.5)


def test_a_share_and_its_rest_are_mirror_images():
    y, theta, mirrored = (
        torch.tensor([0.01, 0.3, 0.9], dtype=D),
        checks.tensors((0.3, 5.0)),
        checks.tensors((0.7, 5.0)),
    )
    torch.testing.assert_close(
        Beta().log_prob(y, *theta), Beta().log_prob(1 - y, *mirrored), rtol=1e-13, atol=1e-14
    )
    torch.testing.assert_close(
        Beta().log_cdf(y, *theta), Beta().log_survival(1 - y, *mirrored), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("link", ["probit", "cloglog", "cauchit"])
def test_other_links_of_the_mean_have_the_same_density(link):
    y, family = torch.tensor([0.03, 0.4, 0.99], dtype=D), Beta(link=link)
    checks.derivatives_agree(family, (0.3, 5.0), y)
    found = family.log_prob_eta(y, *checks.linear_predictors(family, (0.3, 5.0)))
    torch.testing.assert_close(found, Beta().log_prob(y, *checks.tensors((0.3, 5.0))), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("parameters", [(1e-12, 5.0), (1 - 1e-12, 5.0), (0.5, 1e-12), (0.5, 1e12)], ids=str)
def test_far_parameters_and_shares_give_no_nan(parameters):
    checks.never_nan(Beta(), parameters, torch.tensor([1e-300, 1e-5, 0.5, 0.999, 1 - 1e-16], dtype=D))


def test_impossible_shares_ends_and_starts():
    positive_checks.impossible_outside(Beta(), (0.3, 5.0), 0.0, 1.0, -0.1, 1.1)
    positive_checks.ends_of_the_cdf(Beta(), (0.3, 5.0), 0.0, 1.0)
    positive_checks.starts_inside(
        Beta(), [0.3], [0.5, 0.5], [1e-300, 1 - 1e-16, 0.5], [1e-300, 1e-300], [1 - 1e-16], [0.1, 0.2, 0.9]
    )
