"""The logistic rounded to levels: a mass in two numbers, whatever the levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from thetahat.errors import BadArgument
from thetahat.families import Categorical, DiscretisedLogistic, MixtureOf

F64 = torch.float64
PLACES = [(0.0, 0.1), (-3.0, 0.01), (0.3, 1e-4), (2.0, 5.0), (0.5, 1e3), (0.0, 1e-8)]


@pytest.mark.parametrize("levels", [2, 17, 256, 65536])
@pytest.mark.parametrize("place", PLACES)
def test_the_mass_of_all_levels_sums_to_one(levels, place):
    """Σ_y P(y) telescopes to s(∞) − s(−∞) = 1, in float64."""
    at = [torch.tensor(v, dtype=F64) for v in place]
    log_p = DiscretisedLogistic(levels).log_prob(torch.arange(levels, dtype=F64), *at)
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-11)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("place", [(0.0, 0.1), (-0.9, 0.03), (0.4, 1.5)])
def test_it_is_a_difference_of_scipys_logistic(levels, place):
    """stats.logistic (scipy) at the edges of the cells, in numpy; what lies beyond the ends is counted to
    them."""
    edges = (2 * np.arange(levels - 1) + 1) / (levels - 1) - 1
    below = np.concatenate([[0.0], stats.logistic(*place).cdf(edges), [1.0]])
    family, at = DiscretisedLogistic(levels), [torch.tensor(v, dtype=F64) for v in place]
    y = np.arange(levels)
    np.testing.assert_allclose(
        family.log_prob(torch.tensor(y, dtype=F64), *at).exp(), np.diff(below), atol=1e-14
    )
    mean = (y * np.diff(below)).sum()
    assert float(family.expectation(*at)) == pytest.approx(mean, rel=1e-10)
    assert float(family.variance(*at)) == pytest.approx((np.diff(below) * (y - mean) ** 2).sum(), rel=1e-9)


def test_its_slopes_are_those_of_differences():
    """torch's gradcheck of log p in both linear predictors, ends and middle, narrow and wide."""
    y = torch.tensor([0.0, 1.0, 100.0, 254.0, 255.0], dtype=F64)
    for location, log_scale in [(0.3, -2.0), (-0.8, -5.0), (0.0, 3.0)]:
        eta = torch.tensor([location, log_scale], dtype=F64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda e: DiscretisedLogistic(256).log_prob_eta(y, e[0], e[1]), eta)


def test_a_mixture_of_them_sums_to_one_and_both_slopes_are_finite_far_out():
    """256 levels, three components at random parameters, in float32 too; scales of e^±60 and locations far
    outside."""
    family, g = MixtureOf(DiscretisedLogistic(256), 3), torch.Generator().manual_seed(0)
    eta = torch.randn(8, 100, generator=g, dtype=F64) * 2
    y = torch.arange(256, dtype=F64)[:, None]
    assert float((family.log_prob_eta(y, *eta).exp().sum(0) - 1).abs().max()) < 1e-12
    out = torch.tensor([0.0, -60.0, 5.0, 60.0, -30.0, 0.0, 0.0, 0.0], requires_grad=True)
    log_p = family.log_prob_eta(torch.tensor([0.0, 128.0, 255.0]), *out)
    log_p.sum().backward()
    assert bool(torch.isfinite(log_p).all())
    assert bool(torch.isfinite(out.grad).all())


def test_what_is_no_level_is_impossible():
    zero = torch.zeros((), dtype=F64)
    log_p = DiscretisedLogistic(17).log_prob(torch.tensor([-1.0, 16.0, 17.0, 0.5], dtype=F64), zero, zero + 1)
    assert torch.isneginf(log_p).tolist() == [True, False, True, True]
    with pytest.raises(BadArgument, match="levels=1"):
        DiscretisedLogistic(1)


def test_two_levels_are_one_trial():
    """P(1) = s(μ/σ): a Bernoulli or Categorical(2) of that log-odds."""
    y, location, scale = (
        torch.tensor([0.0, 1.0], dtype=F64),
        torch.tensor(0.7, dtype=F64),
        torch.tensor(0.4, dtype=F64),
    )
    mine = DiscretisedLogistic(2).log_prob(y, location, scale)
    torch.testing.assert_close(mine, Categorical(2).log_prob(y, location / scale), rtol=0, atol=1e-14)
