"""Quantile regression as a linear programme: statsmodels' iterations, the sample's own quantiles, and the
subgradient are the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

import thetahat as th


def table(n=80, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.normal(size=n)
    return {"y": 1 + 2 * x - z + rng.standard_t(3, n) * (1 + 0.3 * np.abs(x)), "x": x, "z": z}


def check_loss(r, q):
    return (r * (q - (r < 0))).sum()


def primal(X, y, q):
    """min Σ q u + (1 − q) v over y = Xβ + u − v: the textbook's primal, where the library solves the dual."""
    n, p = X.shape
    A = np.hstack([X, -X, np.eye(n), -np.eye(n)])
    c = np.r_[np.zeros(2 * p), np.full(n, q), np.full(n, 1 - q)]
    found = linprog(c, A_eq=A, b_eq=y, bounds=(0, None), method="highs")
    return found.x[:p] - found.x[p : 2 * p], found.fun


@pytest.mark.parametrize("q", [0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_minimum_of_the_check_loss(q, seed):
    data = table(seed=seed)
    X = np.column_stack([np.ones(80), data["x"], data["z"]])
    b, loss = primal(X, data["y"], q)
    fit = th.fit("y ~ x + z", data, th.families.AsymmetricLaplace(q))
    at = fit.estimates[["Intercept", "x", "z"]].to_numpy()
    assert check_loss(data["y"] - X @ at, q) == pytest.approx(loss, rel=1e-9)
    np.testing.assert_allclose(at, b, atol=1e-6)
    assert fit.estimates["scale"] == pytest.approx(loss / 80, rel=1e-9)
    assert fit.certificate.status == "certified maximum"


@pytest.mark.parametrize("n", [7, 8])
def test_a_constant_is_the_samples_own_quantile(n):
    y = np.random.default_rng(n).normal(size=n)
    at = th.fit("y ~ 1", {"y": y}, "laplace").estimates["Intercept"]
    assert np.sort(y)[(n - 1) // 2] - 1e-9 <= at <= np.sort(y)[n // 2] + 1e-9


def test_frequency_weights_are_rows():
    data = table(n=30, seed=5)
    w = np.random.default_rng(6).integers(0, 4, 30)
    long = {name: np.repeat(v, w) for name, v in data.items()}
    weighted = th.fit("y ~ x", data | {"w": w.astype(float)}, "laplace", weights="w")
    assert weighted.log_likelihood == pytest.approx(
        th.fit("y ~ x", long, "laplace").log_likelihood, rel=1e-10
    )


def test_an_offset_is_taken_off():
    data = table(seed=7)
    a = th.fit("y ~ x + offset(z)", data, "laplace")
    b = th.fit("d ~ x", {"d": data["y"] - data["z"], "x": data["x"]}, "laplace")
    np.testing.assert_allclose(a.estimates, b.estimates, rtol=1e-8)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["plain", "weights", "ties", "misleading"])
def test_most_rows_left_out_of_the_programme_change_nothing(level, kind):
    """The maximum of all rows in one programme, where the solver takes the signs of most for sure: of a sample that
    misleads, those are found wrong and taken in."""
    from thetahat.solvers import quantile

    rng = np.random.default_rng(0)
    n, p = 9000, 4
    Z = np.column_stack([np.ones(n), rng.uniform(-1, 1, (n, p - 1))])
    y = Z @ rng.normal(size=p) + rng.standard_t(3, size=n) * (1 + Z[:, 1] ** 2)
    w = rng.uniform(0.5, 2, n) if kind == "weights" else np.ones(n)
    if kind == "ties":
        y = np.round(y)
    if kind == "misleading":  # the rows that are looked at first are of another line
        many = int((np.sqrt(p) * n) ** (2 / 3))
        y[:: n // many] += 4 * Z[:: n // many, 2]
    found = quantile._programme(Z, y, w, level)
    want = quantile._whole(Z, y, w, level, (1 - level) * (Z.T @ w))
    assert found is not None
    assert want is not None

    def loss(beta):
        r = y - Z @ beta
        return w @ (r * (level - (r < 0)))

    beta, a = found
    assert loss(beta) == pytest.approx(loss(want[0]), rel=1e-12)
    if kind != "ties":
        np.testing.assert_allclose(beta, want[0], rtol=1e-8, atol=1e-9)
    assert (a >= 0).all()
    assert (a <= w).all()
    np.testing.assert_allclose(Z.T @ a, (1 - level) * (Z.T @ w), rtol=1e-9, atol=1e-7)
    assert y @ a - (1 - level) * (w @ y) == pytest.approx(
        loss(beta), rel=1e-10
    )  # no gap: it proves the maximum
