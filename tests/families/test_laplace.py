"""The Laplace distributions against scipy, and against what a pinball is."""

import math

import pytest
import scipy.stats
import torch

from thetahat.errors import BadArgument
from thetahat.families import AsymmetricLaplace, Family, Laplace

from . import checks
from .checks import RESIDUALS, D

LEVELS = [0.05, 0.5, 0.9]


def scipys(level, location, scale):
    """scipy's κ = √(q/(1 − q)) and scale σ/√(q(1 − q))."""
    return scipy.stats.laplace_asymmetric(
        math.sqrt(level / (1 - level)), location, scale / math.sqrt(level * (1 - level))
    )


@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        (Laplace(), scipy.stats.laplace(0.3, 1.7)),
        *((AsymmetricLaplace(q), scipys(q, 0.3, 1.7)) for q in LEVELS),
    ],
    ids=lambda each: (
        str(each) if isinstance(each, Family) else "scipy"
    ),  # a name without an address: workers must agree
)
def test_laplace_is_scipys(family, frozen):
    y = 0.3 + 1.7 * RESIDUALS
    # scipy forms logcdf of its asymmetric Laplace from the cdf: compared where that loses nothing
    checks.matches_scipy(
        family, (0.3, 1.7), frozen, y[1:-1] if isinstance(family, AsymmetricLaplace) else y, rtol=1e-11
    )


@pytest.mark.parametrize("family", [Laplace(), *map(AsymmetricLaplace, LEVELS)], ids=str)
def test_laplace_agrees_with_itself(family):
    y = 0.3 + 1.7 * RESIDUALS
    checks.integrates_to_one(family, (0.3, 1.7))
    checks.derivatives_agree(family, (0.3, 1.7), y)
    checks.cdf_agrees(family, (0.3, 1.7), y)
    checks.quantile_inverts(family, (0.3, 1.7))
    checks.samples_follow(family, (0.3, 1.7))
    checks.never_nan(family, (0.0, 1.0), torch.tensor([0.0, 1e-300, -1e6, 1e200], dtype=D))
    checks.starts_inside(family)


def test_kinks_are_announced():
    y = torch.tensor([0.5, 2.0], dtype=D)
    for family in (Laplace(), AsymmetricLaplace(0.2)):
        assert not family.smooth
        assert bool((family.derivatives(y, checks.linear_predictors(family, (0.3, 1.7)))[2][0, 0] == 0).all())


def test_the_location_of_an_asymmetric_laplace_is_its_quantile():
    for level in LEVELS:
        family, theta = AsymmetricLaplace(level), checks.tensors((0.3, 1.7))
        assert float(family.cdf(theta[0], *theta)) == pytest.approx(level, rel=1e-14)


def test_the_even_asymmetric_laplace_is_laplace_with_twice_the_scale():
    y, theta = RESIDUALS, checks.tensors((0.3, 1.7))
    torch.testing.assert_close(
        AsymmetricLaplace(0.5).log_prob(y, *theta), Laplace().log_prob(y, theta[0], 2 * theta[1])
    )


@pytest.mark.parametrize("level", [0.0, 1.0, -3.0, math.nan])
def test_a_level_lies_between_0_and_1(level):
    with pytest.raises(BadArgument, match="strictly between 0 and 1"):
        AsymmetricLaplace(level)
