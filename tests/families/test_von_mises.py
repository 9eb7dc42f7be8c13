"""The von Mises distribution against scipy, mpmath, Normal and the uniform distribution on the circle."""

import math

import mpmath
import pytest
import scipy.stats
import torch

from thetahat.families import Normal, VonMises

from . import checks
from .checks import D

CONCENTRATIONS = [1e-3, 0.7, 5.0, 29.0, 31.0, 1e4]


def angles(concentration):
    return 0.3 + torch.tensor([-1.0, -0.9, -0.3, 1e-9, 0.1, 0.5, 0.999], dtype=D) * min(
        math.pi, 8 / math.sqrt(concentration)
    )


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_von_mises_is_scipys(concentration):
    y = angles(concentration)[1:]
    theta = checks.tensors((0.3, concentration))
    frozen = scipy.stats.vonmises(concentration, 0.3)
    torch.testing.assert_close(
        VonMises().log_prob(y, *theta), torch.tensor(frozen.logpdf(y.numpy())), rtol=1e-11, atol=0.0
    )
    if concentration < 50:  # beyond, scipy's cdf is a normal approximation
        torch.testing.assert_close(
            VonMises().cdf(y, *theta), torch.tensor(frozen.cdf(y.numpy())), rtol=1e-9, atol=1e-13
        )


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_von_mises_agrees_with_itself(concentration):
    checks.derivatives_agree(VonMises(), (0.3, concentration), angles(concentration))
    checks.cdf_agrees(VonMises(), (0.3, concentration), angles(concentration)[1:])
    # near μ − π an angle of size 3 cannot say how close it is: its own rounding is 1e-16
    checks.quantile_inverts(VonMises(), (0.3, concentration), least=1e-5, rtol=1e-9)
    checks.samples_follow(VonMises(), (0.3, concentration))


@pytest.mark.parametrize("concentration", [0.01, 2.0, 60.0])
def test_density_integrates_to_one_over_any_turn(concentration):
    theta = checks.tensors((0.3, concentration))
    for start in (-math.pi, 17.0):
        y = (
            start + 2 * math.pi * torch.arange(400, dtype=D) / 400
        )  # the trapezoidal rule is exact for such a periodic function
        assert float(torch.exp(VonMises().log_prob(y, *theta)).sum() * 2 * math.pi / 400) == pytest.approx(
            1, rel=1e-13
        )
        torch.testing.assert_close(
            VonMises().cdf(y, *theta), VonMises().cdf(y + 2 * math.pi, *theta), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("concentration", [1e-6, 1.0, 29.9, 30.1, 1e3, 1e8])
def test_derivatives_in_the_concentration_keep_their_digits(concentration):
    """mpmath, 60 digits: log p, and its first and second derivative in log κ, at the mean direction and one
    deviation off."""
    y = 0.3 + torch.tensor([0.0, 1.0], dtype=D) / math.sqrt(max(concentration, 1))
    eta = checks.linear_predictors(VonMises(), (0.3, concentration))
    value, score, curvature = VonMises().derivatives(y, eta)
    with mpmath.workdps(60):
        kappa = mpmath.exp(mpmath.mpf(float(eta[1])))
        i0, i1 = (mpmath.besseli(k, kappa) for k in (0, 1))
        ratio = i1 / i0
        slope = 1 - ratio / kappa - ratio**2  # dA/dκ of A = I₁/I₀
        exact = []
        for v in y.tolist():
            cosine = mpmath.cos(mpmath.mpf(v) - mpmath.mpf(0.3))
            first = kappa * (cosine - ratio)
            exact.append(
                [
                    float(kappa * cosine - mpmath.log(2 * mpmath.pi * i0)),
                    float(first),
                    float(first - kappa**2 * slope),
                ]
            )
    ours = torch.stack([value, score[1], curvature[1, 1]], dim=1)
    torch.testing.assert_close(ours, torch.tensor(exact, dtype=D), rtol=1e-11, atol=1e-11)


def test_no_concentration_is_the_uniform_distribution():
    y = torch.tensor([-3.0, 0.0, 1.0], dtype=D)
    theta = checks.tensors((0.0, 1e-12))
    torch.testing.assert_close(
        VonMises().log_prob(y, *theta),
        torch.full((3,), -math.log(2 * math.pi), dtype=D),
        rtol=1e-11,
        atol=0.0,
    )
    torch.testing.assert_close(VonMises().cdf(y, *theta), 0.5 + y / (2 * math.pi), rtol=1e-11, atol=0.0)
    assert float(VonMises().variance(*theta)) == pytest.approx(math.pi**2 / 3, rel=1e-11)


def test_much_concentration_is_the_normal():
    kappa = 1e10
    y = torch.tensor([-3.0, 0.0, 1.0], dtype=D) / math.sqrt(kappa)
    normal = checks.tensors((0.0, 1 / math.sqrt(kappa)))
    theta = checks.tensors((0.0, kappa))
    torch.testing.assert_close(
        VonMises().log_prob(y, *theta), Normal().log_prob(y, *normal), rtol=1e-9, atol=0.0
    )
    torch.testing.assert_close(VonMises().cdf(y, *theta), Normal().cdf(y, *normal), rtol=1e-8, atol=0.0)
    torch.testing.assert_close(VonMises().variance(*theta), Normal().variance(*normal), rtol=1e-9, atol=0.0)


def test_nothing_is_nan_at_extremes():
    for concentration in (1e-300, 1.0, 1e12, 1e100):
        checks.never_nan(
            VonMises(), (0.0, concentration), torch.tensor([0.0, math.pi, -1e6, 1e-300], dtype=D)
        )
    for y in ([3.0], [0.0, 0.0], [1e6, -2.0, 0.5], [0.0, math.pi]):
        location, concentration = VonMises().start(torch.tensor(y, dtype=D), torch.ones(len(y), dtype=D))
        assert math.isfinite(location)
        assert 0 < concentration < 1e4
