"""The logistic, hyperbolic secant and Gumbel distributions against scipy."""

import math

import pytest
import scipy.stats
import torch

from thetahat.families import Family, Gumbel, HyperbolicSecant, Logistic

from . import checks
from .checks import RESIDUALS, D

THETA = (0.3, 1.7)
FAMILIES = [Logistic(), HyperbolicSecant(), Gumbel()]


@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        (Logistic(), scipy.stats.logistic(*THETA)),
        (HyperbolicSecant(), scipy.stats.hypsecant(*THETA)),
        (Gumbel(), scipy.stats.gumbel_r(*THETA)),
    ],
    ids=lambda each: (
        str(each) if isinstance(each, Family) else "scipy"
    ),  # a name without an address: workers must agree
)
def test_distribution_is_scipys(family, frozen):
    # where scipy's own logs lose nothing: it takes log(1 − cdf) of the hyperbolic secant
    checks.matches_scipy(family, THETA, frozen, 0.3 + 1.7 * RESIDUALS[1:-2], rtol=1e-11)
    y = 0.3 + 1.7 * RESIDUALS
    torch.testing.assert_close(
        family.log_prob(y, *checks.tensors(THETA)),
        torch.tensor(frozen.logpdf(y.numpy())),
        rtol=1e-12,
        atol=1e-14,
    )


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_distribution_agrees_with_itself(family):
    y = 0.3 + 1.7 * RESIDUALS[1:]
    checks.integrates_to_one(family, THETA)
    checks.derivatives_agree(family, THETA, y)
    checks.cdf_agrees(family, THETA, y)
    checks.quantile_inverts(family, THETA)
    checks.samples_follow(family, THETA)
    checks.starts_inside(family)


def test_tails_are_exact_where_probabilities_underflow():
    theta = checks.tensors((0.0, 1.0))
    far = torch.tensor([800.0], dtype=D)
    for family, constant in [(Logistic(), 0.0), (HyperbolicSecant(), math.log(2 / math.pi)), (Gumbel(), 0.0)]:
        assert float(family.log_survival(far, *theta)) == pytest.approx(constant - 800, rel=1e-14)
    assert float(HyperbolicSecant().log_cdf(-far, *theta)) == pytest.approx(
        math.log(2 / math.pi) - 800, rel=1e-14
    )
    for family in FAMILIES:
        for y in (far, -far):
            leaf = y.clone().requires_grad_()
            (slope,) = torch.autograd.grad(family.log_survival(leaf, *theta), leaf)
            assert not torch.isnan(slope).any()


def test_nothing_is_nan_at_extremes():
    for family in (Logistic(), HyperbolicSecant()):
        checks.never_nan(family, (0.0, 1.0), torch.tensor([0.0, 1e-300, -1e6, 1e6, 1e100], dtype=D))
    checks.never_nan(Gumbel(), (0.0, 1.0), torch.tensor([0.0, 1e-300, -1e6, 1e6, 1e100], dtype=D))
