"""Tweedie against the series of Dunn and Smyth in 40 digits, its own moments, and its limits."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch

from thetahat.families import Family, Gamma, Tweedie

from . import checks, positive_checks
from .checks import D

F = Tweedie()


def series(y, mu, phi, p):
    """Dunn and Smyth (2005), eq. 4 and 5, in mpmath's precision: log{Σ_j W_j / y} + (y·θ − κ)/φ."""
    a = (2 - p) / (p - 1)
    log_z = a * mpmath.log(y / (p - 1)) - (1 + a) * mpmath.log(phi) - mpmath.log(2 - p)
    peak = y ** (2 - p) / (phi * (2 - p))
    width = 14 * mpmath.sqrt(peak / (1 + a))
    terms = [
        j * log_z - mpmath.loggamma(j + 1) - mpmath.loggamma(j * a)
        for j in range(max(1, int(peak - width - 5)), int(peak + width + 60))
    ]
    top = max(terms)
    log_sum = top + mpmath.log(mpmath.fsum(mpmath.exp(t - top) for t in terms))
    return log_sum - mpmath.log(y) + (y * mu ** (1 - p) / (1 - p) - mu ** (2 - p) / (2 - p)) / phi


ROWS = [
    (1.3, 2.0, 0.5, 1.5),
    (0.01, 2.0, 0.5, 1.5),
    (10.0, 2.0, 0.5, 1.5),
    (1.3, 2.0, 0.5, 1.02),
    (1.3, 2.0, 0.5, 1.98),
    (100.0, 90.0, 0.1, 1.1),
    (100.0, 90.0, 0.1, 1.9),
    (1e-6, 1.0, 1.0, 1.7),
    (5.0, 1.0, 100.0, 1.2),
    (30.0, 30.0, 1.0, 1.05),
    (1e4, 9e3, 1.0, 1.5),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_density_and_its_derivatives_are_those_of_the_series(row):
    """mpmath, 40 digits; derivatives by central differences in (log μ, log φ, logit(p − 1)). To 1e-12,
    1e-11 and 1e-8 of their size."""
    y, *theta = row
    eta = checks.linear_predictors(F, theta)
    with mpmath.workdps(40):
        exact_eta = [mpmath.mpf(float(e)) for e in eta]

        def value(*e):
            return series(mpmath.mpf(y), mpmath.exp(e[0]), mpmath.exp(e[1]), 1 + 1 / (1 + mpmath.exp(-e[2])))

        def moved(a, b, s, t, h):
            return value(*(e + h * (s * (j == a) + t * (j == b)) for j, e in enumerate(exact_eta)))

        h, k = mpmath.mpf(10) ** -12, mpmath.mpf(10) ** -9
        centre = value(*exact_eta)
        slopes = [float((moved(a, a, 1, 0, h) - moved(a, a, -1, 0, h)) / (2 * h)) for a in range(3)]
        bend = float((moved(2, 2, 1, 0, k) - 2 * centre + moved(2, 2, -1, 0, k)) / k**2)
        twist = float(
            (moved(1, 2, 1, 1, k) - moved(1, 2, 1, -1, k) - moved(1, 2, -1, 1, k) + moved(1, 2, -1, -1, k))
            / (4 * k * k)
        )
    found, score, curvature = F.derivatives(torch.tensor([y], dtype=D), eta)
    assert found.item() == pytest.approx(float(centre), rel=1e-12, abs=1e-13)
    assert [s.item() for s in score] == pytest.approx(slopes, rel=1e-11, abs=1e-11)
    assert [curvature[2, 2].item(), curvature[1, 2].item()] == pytest.approx(
        [bend, twist], rel=1e-8, abs=1e-9
    )


def test_rows_of_every_length_of_series_may_stand_in_one_batch():
    rows = torch.tensor(ROWS, dtype=D).T
    together = F.log_prob(*rows)
    apart = torch.cat([F.log_prob(*rows[:, i : i + 1]) for i in range(len(ROWS))])
    torch.testing.assert_close(together, apart, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "parameters", [(2.0, 0.7, 1.5), (0.3, 2.0, 1.8), (9.0, 0.3, 1.2), (500.0, 0.05, 1.5)], ids=str
)
def test_the_cdf_is_the_atom_and_the_integral_of_the_density(parameters):
    """Gauss–Legendre in log y, in 40 panels; both tails of the cdf, from 1e-6 of the mean to where the
    rest is 1e-15."""
    theta = checks.tensors(parameters)
    assert F.cdf(torch.zeros(1, dtype=D), *theta).item() == pytest.approx(
        math.exp(F.log_prob(torch.zeros(1, dtype=D), *theta).item())
    )
    high = F.quantile(torch.tensor([1 - 1e-15], dtype=D), *theta)
    ends = torch.linspace(math.log(parameters[0] * 1e-6), math.log(high.item()), 41, dtype=D)
    node, weight = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(40))
    half = (ends[1:] - ends[:-1])[:, None] / 2
    y = torch.exp(ends[:-1, None] + half * (1 + node))
    mass = (torch.exp(F.log_prob(y.reshape(-1), *theta)).reshape(y.shape) * y * half * weight).sum(1)
    cdf, survival = (torch.exp(tail(torch.exp(ends), *theta)) for tail in (F.log_cdf, F.log_survival))
    torch.testing.assert_close(cdf[1:] - cdf[:1], mass.cumsum(0), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(
        survival[:-1] - survival[-1:], mass.flip(0).cumsum(0).flip(0), rtol=1e-9, atol=1e-15
    )
    torch.testing.assert_close(cdf + survival, torch.ones_like(cdf), rtol=1e-12, atol=0)


@pytest.mark.parametrize("parameters", [(2.0, 0.7, 1.5), (9.0, 0.3, 1.2)], ids=str)
def test_tweedie_agrees_with_itself(parameters):
    theta = checks.tensors(parameters)
    atom = F.cdf(torch.zeros(1, dtype=D), *theta).item()
    q = torch.tensor([atom / 2, atom * 1.001, 0.5, 0.9, 0.9999], dtype=D)
    y = F.quantile(q, *theta)
    assert y[0] == 0
    torch.testing.assert_close(F.cdf(y[1:], *theta), q[1:], rtol=1e-11, atol=0)
    checks.derivatives_agree(F, parameters, torch.cat([y, y.max()[None] * 2]), rtol=1e-9)
    checks.cdf_agrees(F, parameters, y[1:])


@pytest.mark.parametrize("parameters", [(2.0, 0.7, 1.5), (0.3, 2.0, 1.8), (9.0, 0.3, 1.2)], ids=str)
def test_samples_have_the_moments_and_the_atom(parameters):
    n = 40_000
    theta = [t.expand(n) for t in checks.tensors(parameters)]
    y = F.sample(*theta, generator=torch.Generator().manual_seed(3))
    mean, variance = F.expectation(*theta)[0].item(), F.variance(*theta)[0].item()
    assert variance == pytest.approx(parameters[1] * parameters[0] ** parameters[2])
    assert abs(y.mean().item() - mean) < 5 * math.sqrt(variance / n)
    square = (y - mean) ** 2
    assert abs(square.mean().item() - variance) < 5 * square.std().item() / math.sqrt(n)
    atom = F.cdf(torch.zeros(1, dtype=D), *checks.tensors(parameters)).item()
    assert abs((y == 0).double().mean().item() - atom) < 5 * math.sqrt(atom * (1 - atom) / n)
    u = F.cdf(y[y > 0][:500], *checks.tensors(parameters))
    assert scipy.stats.kstest((u.numpy() - atom) / (1 - atom), "uniform").pvalue > 1e-6


def test_power_two_is_the_gamma():
    """As p → 2 at fixed y > 0, with an error of the order of 2 − p."""
    y = torch.tensor([0.3, 2.0, 9.0], dtype=D)
    expected = Gamma().log_prob(y, *checks.tensors((2.5, 0.3)))
    for gap in (1e-3, 1e-4, 1e-5):
        torch.testing.assert_close(
            F.log_prob(y, *checks.tensors((2.5, 0.3, 2 - gap))), expected, rtol=0, atol=10 * gap
        )
    power = F.parameters["power"]
    assert (power.boundary, power.limit) == (2.0, "Gamma")


def test_far_parameters_and_amounts_give_no_nan():
    y = torch.tensor([0.0, 1e-30, 1e-5, 1.0, 1e3], dtype=D)
    for parameters in (
        (1e-20, 0.5, 1.5),
        (1e20, 1e3, 1.5),
        (1.0, 1e8, 1.5),
        (1.0, 0.5, 1 + 1e-6),
        (1.0, 0.5, 2 - 1e-5),
    ):
        checks.never_nan(F, parameters, y)
    eta = [torch.zeros(5, dtype=D), torch.zeros(5, dtype=D), torch.zeros(5, dtype=D)]
    assert all(torch.isfinite(s).all() for s in Family.derivatives(F, y, eta)[1])


def test_impossible_amounts_and_starts():
    positive_checks.impossible_outside(F, (2.5, 0.3, 1.5), -1.0)
    positive_checks.starts_inside(
        F, [3.0], [0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 1e-3, 2.0, 40.0], [1e6, 1e-6, 5.0]
    )
