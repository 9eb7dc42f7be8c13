"""Newton's shortcuts change nothing: a thinned start, kept information and sums in float32 end where a plain
float64 Newton ends.

The oracle is Newton's method in numpy, a dozen lines, every row at every step.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, FitError


def plain(family, X, y):
    """β̂, standard errors and ℓ of a canonical GLM, by Newton's method in float64."""
    b = np.zeros(X.shape[1])
    if family == "poisson":
        b[0] = np.log(y.mean())
    for _ in range(60):
        eta = X @ b
        mean = 1 / (1 + np.exp(-eta)) if family == "bernoulli" else np.exp(eta)
        weight = mean * (1 - mean) if family == "bernoulli" else mean
        J = X.T @ (X * weight[:, None])
        step = np.linalg.solve(J, X.T @ (y - mean))
        b = b + step
        if step @ J @ step < 1e-24:
            break
    eta = X @ b
    if family == "bernoulli":
        value = (y * eta - np.logaddexp(0, eta)).sum()
    else:
        from scipy.special import gammaln

        value = (y * eta - np.exp(eta) - gammaln(y + 1)).sum()
    return b, np.sqrt(np.linalg.inv(J).diagonal()), value


def table(family, n, seed=0):
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, 3)) * [1.0, 100.0, 0.01]
    X = np.column_stack([np.ones(n), Z])
    eta = X @ [-0.3, 0.5, -0.004, 30.0]
    y = rng.random(n) < 1 / (1 + np.exp(-eta)) if family == "bernoulli" else rng.poisson(np.exp(eta))
    return X, y.astype(float), {"y": y.astype(float)} | {f"z{j}": Z[:, j] for j in range(3)}


SETTINGS = {
    "plain": {"thin_above": 10**9, "keep_above": 10**9, "float32_above": 10**9},
    "thinned": {"thin_above": 400, "keep_above": 10**9, "float32_above": 10**9},
    "kept": {"thin_above": 10**9, "keep_above": 100, "float32_above": 10**9},
    "float32": {"thin_above": 10**9, "keep_above": 10**9, "float32_above": 100},
    "all": {"thin_above": 400, "keep_above": 100, "float32_above": 100},
}


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
@pytest.mark.parametrize("how", SETTINGS)
def test_shortcuts_end_at_the_plain_maximum(family, how):
    X, y, data = table(family, 3000)
    b, errors, value = plain(family, X, y)
    fit = th.fit("y ~ z0 + z1 + z2", data, family, solver=th.Newton(**SETTINGS[how]))
    assert fit.certificate.status == "certified maximum"
    assert (np.abs(fit.estimates.to_numpy() - b) < 1e-6 * errors).all()
    np.testing.assert_allclose(fit.standard_errors(), errors, rtol=1e-6)
    assert fit.log_likelihood == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_the_defaults_on_many_rows_end_at_the_plain_maximum(family):
    """60,000 rows: beyond every limit at which a shortcut begins."""
    X, y, data = table(family, 60_000, seed=1)
    b, errors, value = plain(family, X, y)
    fit = th.fit("y ~ z0 + z1 + z2", data, family)
    assert (np.abs(fit.estimates.to_numpy() - b) < 1e-6 * errors).all()
    np.testing.assert_allclose(fit.standard_errors(), errors, rtol=1e-6)
    assert fit.log_likelihood == pytest.approx(value, rel=1e-12)


def test_columns_that_float32_cannot_tell_apart_are_told_apart():
    """x and x + 10⁻⁵ noise: the information of float32 sums is singular, that of float64 is not; the
    maximum is the plain one."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=2000)
    w = x + 1e-4 * rng.normal(size=2000)
    y = rng.poisson(np.exp(0.2 + 0.3 * x)).astype(float)
    b, errors, value = plain("poisson", np.column_stack([np.ones(2000), x, w]), y)
    fit = th.fit("y ~ x + w", {"y": y, "x": x, "w": w}, "poisson", solver=th.Newton(float32_above=100))
    assert (np.abs(fit.estimates.to_numpy() - b) < 1e-5 * errors).all()
    assert fit.log_likelihood == pytest.approx(value, rel=1e-12)


def test_a_subsample_without_a_maximum_is_no_obstacle():
    """Every 2nd row separates, all of them do not: the thinned start is given up, and the maximum is the
    plain one."""
    x = np.tile([0.0, 1.0], 1500)
    y = np.where(np.arange(3000) % 4 == 0, 1.0, np.where(np.arange(3000) % 4 == 1, 1.0, 0.0))
    y[::2] = 0.0
    y[0:40:2] = 1.0
    b, errors, value = plain("bernoulli", np.column_stack([np.ones(3000), x]), y)
    fit = th.fit("y ~ x", {"y": y, "x": x}, "bernoulli", solver=th.Newton(thin_above=200))
    assert (np.abs(fit.estimates.to_numpy() - b) < 1e-6 * errors).all()
    assert fit.log_likelihood == pytest.approx(value, rel=1e-12)


def test_it_begins_where_it_is_told():
    X, y, data = table("poisson", 500, seed=3)
    b, _, _ = plain("poisson", X, y)
    fit = th.fit("y ~ z0 + z1 + z2", data, "poisson", solver=th.Newton(begin=torch.tensor(b)))
    assert len(fit.trace) <= 2
    with pytest.raises((BadArgument, FitError, RuntimeError)):
        th.fit("y ~ z0", data, "poisson", solver=th.Newton(begin=torch.zeros(7, dtype=torch.float64)))
