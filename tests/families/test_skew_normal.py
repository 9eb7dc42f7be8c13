"""The skew-normal against scipy and mpmath; log Φ and the quadrature of tails, on which it rests."""

import math

import mpmath
import pytest
import scipy.stats
import torch

from thetahat.families import Normal, SkewNormal
from thetahat.families.special import log_ndtr, log_tail

from . import checks
from .checks import RESIDUALS, D

REGIONS = [(0.3, 1.7, shape) for shape in (-5.0, -0.3, 0.0, 1.0, 30.0)]


@pytest.mark.parametrize("parameters", REGIONS, ids=str)
def test_skew_normal_is_scipys(parameters):
    location, scale, shape = parameters
    frozen = scipy.stats.skewnorm(shape, location, scale)
    y, theta = location + scale * RESIDUALS[1:-2], checks.tensors(parameters)
    torch.testing.assert_close(
        SkewNormal().log_prob(y, *theta), torch.tensor(frozen.logpdf(y.numpy())), rtol=1e-12, atol=0.0
    )
    torch.testing.assert_close(
        SkewNormal().cdf(y, *theta), torch.tensor(frozen.cdf(y.numpy())), rtol=1e-9, atol=1e-14
    )
    assert float(SkewNormal().expectation(*theta)) == pytest.approx(frozen.mean(), rel=1e-12)
    assert float(SkewNormal().variance(*theta)) == pytest.approx(frozen.var(), rel=1e-12)


@pytest.mark.parametrize("parameters", REGIONS, ids=str)
def test_skew_normal_agrees_with_itself(parameters):
    location, scale, _ = parameters
    y = location + scale * RESIDUALS[1:-1]
    checks.integrates_to_one(SkewNormal(), parameters)
    checks.derivatives_agree(SkewNormal(), parameters, y)
    checks.cdf_agrees(SkewNormal(), parameters, y[:-1])
    checks.quantile_inverts(SkewNormal(), parameters)
    checks.samples_follow(SkewNormal(), parameters)


def exact_tail(z, shape):
    """P(Z > z), z ≥ 0, by mpmath's quadrature with 30 digits, in pieces that suit its scale."""
    width = 1 / (mpmath.sqrt(1 + shape**2) + z * (1 + shape**2)) if shape < 0 else 1 / (1 + mpmath.mpf(z))
    ends = [
        z + width * k for k in (0, mpmath.mpf(10) ** -4, 1e-3, 0.01, 0.05, 0.2, 0.5, 1, 2, 4, 8, 16, 32, 64)
    ]
    return mpmath.quad(lambda t: 2 * mpmath.npdf(t) * mpmath.ncdf(shape * t), ends)


@pytest.mark.parametrize("shape", [-1000.0, -5.0, -0.5, 0.0, 5.0, 1000.0])
@pytest.mark.parametrize("z", [-8.0, -0.01, 0.0, 0.3, 8.0])
def test_both_tails_keep_their_digits(shape, z):
    with mpmath.workdps(30):
        exact = mpmath.log(exact_tail(z, shape)) if z >= 0 else mpmath.log1p(-exact_tail(-z, -shape))
    theta, at = checks.tensors((0.0, 1.0, shape)), torch.tensor([z], dtype=D)
    log_survival = SkewNormal().log_survival(at, *theta)
    assert float(log_survival) == pytest.approx(float(exact), rel=1e-11)
    assert torch.equal(SkewNormal().log_cdf(-at, theta[0], theta[1], -theta[2]), log_survival)


def test_no_shape_is_the_normal():
    y, theta = RESIDUALS, checks.tensors((0.3, 1.7))
    shape = torch.zeros(1, dtype=D)
    for method in ("log_prob", "log_cdf", "log_survival"):
        ours = getattr(SkewNormal(), method)(y, *theta, shape)
        torch.testing.assert_close(ours, getattr(Normal(), method)(y, *theta), rtol=1e-12, atol=1e-14)


def test_nothing_is_nan_at_extremes():
    for shape in (-1e8, 0.0, 1e8):
        checks.never_nan(
            SkewNormal(), (0.0, 1.0, shape), torch.tensor([0.0, 1e-300, -1e6, 1e6, 1e60], dtype=D)
        )
    checks.starts_inside(SkewNormal())


def test_log_ndtr_and_its_two_derivatives_keep_their_digits():
    """mpmath, 40 digits: log Φ, φ/Φ, and −φ/Φ·(x + φ/Φ)."""
    x = torch.tensor([-1e8, -1e4, -100.0, -15.1, -14.9, -3.0, -1e-9, 0.0, 2.0, 10.0, 37.0, 100.0], dtype=D)
    leaf = x.clone().requires_grad_()
    value = log_ndtr(leaf)
    (first,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), leaf)
    with mpmath.workdps(40):
        exact = []
        for v in map(mpmath.mpf, x.tolist()):
            if v < -1000:  # by the asymptotic series: mpmath's erfc underflows no digits, but takes its time
                t = 1 / v**2
                mills = mpmath.nsum(lambda k, t=t: (-t) ** k * mpmath.fac2(2 * k - 1), [0, 6])
                log_cdf = -(v**2) / 2 - mpmath.log(-v) - mpmath.log(2 * mpmath.pi) / 2 + mpmath.log(mills)
                hazard = -v / mills
            else:
                log_cdf = (
                    mpmath.log1p(-mpmath.erfc(v / mpmath.sqrt(2)) / 2)
                    if v > 0
                    else mpmath.log(mpmath.erfc(-v / mpmath.sqrt(2)) / 2)
                )
                hazard = mpmath.exp(-(v**2) / 2 - mpmath.log(2 * mpmath.pi) / 2 - log_cdf)
            exact.append([float(log_cdf), float(hazard), float(-hazard * (v + hazard))])
    ours = torch.stack([value.detach(), first.detach(), second], dim=1)
    torch.testing.assert_close(ours, torch.tensor(exact, dtype=D), rtol=1e-12, atol=1e-300)


def test_a_tail_by_quadrature_is_the_integral():
    rate = torch.tensor([1e-3, 1.0, 50.0, 1e6], dtype=D)
    torch.testing.assert_close(
        log_tail(lambda x: -rate[:, None] * x, 1 / rate), -torch.log(rate), rtol=1e-13, atol=1e-13
    )
    normal = log_tail(lambda x: -0.5 * (rate[:, None] * x) ** 2, 1 / rate)
    torch.testing.assert_close(normal, 0.5 * math.log(math.pi / 2) - torch.log(rate), rtol=1e-13, atol=1e-13)
