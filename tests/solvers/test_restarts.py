"""Robust fits have several maxima: Restarts (density power) and FastTrimmed (trimmed) keep the highest that
scipy or a full search finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

import thetahat as th


def outliers(n=40, bad=8, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 10, n)
    y = 1 + 0.5 * x + rng.normal(0, 0.4, n)
    y[:bad] = 12 + rng.normal(0, 0.3, bad)
    return x, y


def power_objective(p, x, y, beta):
    """Σ H_β, Basu et al. (1998): Σ [(f(y_i)^β − 1)/β … ] written out for the normal family, less what does
    not depend on θ."""
    s = np.exp(p[2])
    f = stats.norm.pdf(y, p[0] + p[1] * x, s)
    integral = (2 * np.pi * s**2) ** (-beta / 2) / np.sqrt(1 + beta)
    return ((1 + beta) / beta * f**beta).sum() - len(y) * integral


@pytest.mark.parametrize("beta", [0.3, 0.5, 1.0])
def test_no_start_of_scipy_ends_higher_in_the_density_power_divergence(beta):
    x, y = outliers()
    fit = th.fit("y ~ x", {"x": x, "y": y}, robust=th.DensityPower(beta))
    at = np.r_[fit.estimates[["Intercept", "x"]], np.log(fit.estimates["scale"])]
    mine = power_objective(at, x, y, beta)
    rng = np.random.default_rng(1)
    for _ in range(12):
        begin = [rng.normal(3, 4), rng.normal(0, 1), rng.normal(0, 1)]
        other = minimize(lambda p: -power_objective(p, x, y, beta), begin, method="BFGS")
        if other.x[2] > np.log(0.02):  # not the singularity on few rows
            assert -other.fun <= mine + 1e-5
    assert fit.estimates["x"] == pytest.approx(0.5, abs=0.1)


def test_a_trimmed_fit_is_the_best_of_all_subsets():
    """Twelve rows, nine kept: all 220 subsets by least squares; the trimmed likelihood's maximum is the
    one of least σ̂."""
    x, y = outliers(n=12, bad=3, seed=2)
    D = np.column_stack([np.ones(12), x])
    best = np.inf
    for kept in itertools.combinations(range(12), 9):
        k = list(kept)
        r = y[k] - D[k] @ np.linalg.lstsq(D[k], y[k], rcond=None)[0]
        best = min(best, np.sqrt((r**2).mean()))
    fit = th.fit("y ~ x", {"x": x, "y": y}, robust=th.Trimmed(0.75))
    assert len(fit.kept) == 9
    assert fit.estimates["scale"] == pytest.approx(best, rel=1e-9)
