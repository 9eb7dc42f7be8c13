"""Huber's distribution against quadrature, Normal, and its own automatic derivatives."""

import math

import pytest
import scipy.integrate
import torch

from thetahat.errors import BadArgument
from thetahat.families import Huber, Normal

from . import checks
from .checks import RESIDUALS, D

THETA = (0.3, 1.7)


@pytest.mark.parametrize("threshold", [0.05, 1.345, 4.0, 20.0])
def test_huber_agrees_with_itself(threshold):
    family, y = Huber(threshold), 0.3 + 1.7 * RESIDUALS
    checks.derivatives_agree(family, THETA, y)
    checks.cdf_agrees(family, THETA, y)
    checks.quantile_inverts(family, THETA)
    checks.samples_follow(family, THETA)
    checks.starts_inside(family)
    checks.never_nan(family, THETA, torch.tensor([0.0, 1e-300, -1e6, 1e200], dtype=D))
    if threshold > 1:
        checks.integrates_to_one(family, THETA)


@pytest.mark.parametrize("threshold", [0.5, 1.345, 4.0])
def test_normaliser_tails_and_variance_are_those_of_quadrature(threshold):
    """scipy.integrate.quad of e^(−ρ), split at the threshold."""

    def density(z):
        return math.exp(-z * z / 2 if abs(z) <= threshold else -threshold * abs(z) + threshold**2 / 2)

    def total(function, low):
        pieces = [(low, threshold), (threshold, math.inf)] if low < threshold else [(low, math.inf)]
        return sum(scipy.integrate.quad(function, *piece, epsabs=1e-15)[0] for piece in pieces)

    half = total(density, 0.0)
    theta = checks.tensors((0.0, 1.0))
    for z in (0.0, 0.3, 1.345, 2.0, 5.0):
        at = torch.tensor([z], dtype=D)
        assert float(Huber(threshold).log_prob(at, *theta)) == pytest.approx(
            math.log(density(z) / (2 * half)), rel=1e-12
        )
        assert float(Huber(threshold).cdf(-at, *theta)) == pytest.approx(
            total(density, z) / (2 * half), rel=1e-9
        )
    assert float(Huber(threshold).variance(*theta)) == pytest.approx(
        total(lambda z: z * z * density(z), 0.0) / half, rel=1e-9
    )


def test_a_large_threshold_is_the_normal():
    y, theta = RESIDUALS, checks.tensors(THETA)
    for method in ("log_prob", "log_cdf", "log_survival"):
        torch.testing.assert_close(
            getattr(Huber(50.0), method)(y, *theta),
            getattr(Normal(), method)(y, *theta),
            rtol=1e-12,
            atol=1e-15,
        )


def test_tails_are_exact_where_probabilities_underflow():
    z = torch.tensor([-2000.0], dtype=D)
    log_cdf = Huber(1.0).log_cdf(z, *checks.tensors((0.0, 1.0)))
    constant = math.sqrt(2 * math.pi) * math.erf(1 / math.sqrt(2)) + 2 * math.exp(-0.5)
    assert float(log_cdf) == pytest.approx(0.5 - 2000 - math.log(constant), rel=1e-14)


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.inf, math.nan])
def test_a_threshold_is_a_positive_number(threshold):
    with pytest.raises(BadArgument, match="positive number"):
        Huber(threshold)
