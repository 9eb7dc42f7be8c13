"""Student's t against scipy, mpmath, Cauchy, Normal, and its own automatic derivatives."""

import math

import mpmath
import pytest
import scipy.stats
import torch

from thetahat.families import Family, Normal, StudentT
from thetahat.families.special import log_gamma_half_step

from . import checks
from .checks import RESIDUALS, D

REGIONS = [(0.3, 1.7, 4.0), (-4.0, 0.2, 0.7), (1.0, 3.0, 0.1), (0.0, 1.0, 19.0), (0.0, 1.0, 150.0)]


@pytest.mark.parametrize("parameters", REGIONS, ids=str)
def test_student_t_is_scipys(parameters):
    location, scale, df = parameters
    y = location + scale * RESIDUALS
    theta = checks.tensors(parameters)
    frozen = scipy.stats.t(df, location, scale)
    for ours, theirs in [(StudentT().log_prob, frozen.logpdf), (StudentT().cdf, frozen.cdf)]:
        torch.testing.assert_close(ours(y, *theta), torch.tensor(theirs(y.numpy())), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(
        StudentT().log_survival(y, *theta), torch.tensor(frozen.logsf(y.numpy())), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("parameters", REGIONS, ids=str)
def test_student_t_agrees_with_itself(parameters):
    location, scale, df = parameters
    y = location + scale * RESIDUALS
    if df > 0.2:
        checks.integrates_to_one(StudentT(), parameters)
    checks.derivatives_agree(StudentT(), parameters, y)
    checks.cdf_agrees(StudentT(), parameters, y)
    checks.quantile_inverts(StudentT(), parameters)
    checks.samples_follow(StudentT(), parameters)


@pytest.mark.parametrize("df", [0.05, 2.0, 19.9, 20.1, 99.0, 1e3, 1e6, 1e10])
def test_derivatives_in_the_degrees_of_freedom_keep_their_digits(df):
    """mpmath, 90 digits, central differences of step 1e-20 in log ν: by hand and automatically, to 1e-12."""
    y = torch.tensor([-20.0, -0.5, 0.3, 0.30001, 1.0, 4.0], dtype=D)
    eta = checks.linear_predictors(StudentT(), (0.3, 1.2, df))
    with mpmath.workdps(90):
        location, log_scale, log_df = (mpmath.mpf(float(e)) for e in eta)

        def log_prob(y, t):
            nu, z = mpmath.exp(t), (mpmath.mpf(y) - location) / mpmath.exp(log_scale)
            ratio = mpmath.loggamma((nu + 1) / 2) - mpmath.loggamma(nu / 2) - mpmath.log(nu * mpmath.pi) / 2
            return ratio - log_scale - (nu + 1) / 2 * mpmath.log1p(z * z / nu)

        h = mpmath.mpf(10) ** -20
        rows = [[log_prob(v, log_df + k * h) for k in (-1, 0, 1)] for v in y.tolist()]
        exact = [[float(b), float((c - a) / (2 * h)), float((c - 2 * b + a) / h**2)] for a, b, c in rows]
    exact = torch.tensor(exact, dtype=D).T
    for value, score, curvature in (StudentT().derivatives(y, eta), Family.derivatives(StudentT(), y, eta)):
        torch.testing.assert_close(
            torch.stack([value, score[2], curvature[2, 2]]), exact, rtol=1e-12, atol=0.0
        )


def test_the_step_of_log_gamma_is_exact_at_every_size():
    """mpmath, 60 digits."""
    a = torch.tensor([1e-8, 0.3, 2.0, 9.999, 10.001, 50.0, 1e6, 1e12], dtype=D)
    with mpmath.workdps(60):
        exact = [
            float(mpmath.loggamma(v + mpmath.mpf(0.5)) - mpmath.loggamma(v) - mpmath.log(v) / 2)
            for v in map(mpmath.mpf, a.tolist())
        ]
    torch.testing.assert_close(log_gamma_half_step(a), torch.tensor(exact, dtype=D), rtol=1e-13, atol=0.0)


def test_many_degrees_of_freedom_are_the_normal():
    y = 5 * RESIDUALS / 30
    location, scale, df = checks.tensors((0.3, 1.7, 1e14))
    torch.testing.assert_close(
        StudentT().log_prob(y, location, scale, df),
        Normal().log_prob(y, location, scale),
        rtol=1e-12,
        atol=0.0,
    )
    torch.testing.assert_close(
        StudentT().log_cdf(y, location, scale, df), Normal().log_cdf(y, location, scale), rtol=1e-12, atol=0.0
    )
    eta = checks.linear_predictors(StudentT(), (0.3, 1.7, 1e14))
    _, score, curvature = StudentT().derivatives(y, eta)
    _, normal_score, normal_curvature = Normal().derivatives(y, eta[:2])
    torch.testing.assert_close(torch.stack(score[:2]), torch.stack(normal_score), rtol=1e-12, atol=1e-12)
    for key, value in normal_curvature.items():
        torch.testing.assert_close(curvature[key], value, rtol=1e-10, atol=1e-10)


def test_one_degree_of_freedom_is_cauchy_far_into_its_tail():
    y = torch.tensor([-1e30, -1e8], dtype=D)
    theta = checks.tensors((0.0, 1.0, 1.0))
    torch.testing.assert_close(
        StudentT().log_cdf(y, *theta), -torch.log(math.pi * y.abs()), rtol=1e-13, atol=0.0
    )


def test_moments_exist_where_they_do():
    for df, mean, variance in [
        (0.9, math.nan, math.nan),
        (1.5, 0.3, math.inf),
        (2.0, 0.3, math.inf),
        (4.0, 0.3, 2 * 1.7**2),
    ]:
        theta = checks.tensors((0.3, 1.7, df))
        assert float(StudentT().expectation(*theta)) == pytest.approx(mean, nan_ok=True)
        assert float(StudentT().variance(*theta)) == pytest.approx(variance, nan_ok=True)


def test_nothing_is_nan_at_extremes():
    y = torch.tensor([0.0, 1e-300, -1e6, 1e100, 1e200], dtype=D)
    for df in (1e-3, 1.0, 1e12, 1e200):
        checks.never_nan(StudentT(), (0.0, 1.0, df), y)
    checks.never_nan(StudentT(), (0.0, 1e-100, 3.0), y)
    checks.starts_inside(StudentT())


def test_another_link_takes_the_automatic_road():
    y = torch.tensor([0.5, 2.0], dtype=D)
    family = StudentT(link="log")
    eta = checks.linear_predictors(family, (0.3, 1.7, 4.0))
    torch.testing.assert_close(
        family.derivatives(y, eta)[0], StudentT().log_prob(y, *checks.tensors((0.3, 1.7, 4.0)))
    )
