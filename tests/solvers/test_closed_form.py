"""Least squares by QR is the maximum of the normal likelihood: scipy's and numpy's own least squares are the
oracle."""

from __future__ import annotations

import numpy as np
import pytest

import thetahat as th
from thetahat.errors import BadArgument, FlatDirection


def design(n, p, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * np.logspace(-scale, scale, p)
    return X, X @ rng.normal(size=p) + rng.normal(size=n)


@pytest.mark.parametrize(("n", "p", "scale"), [(30, 3, 1.0), (200, 20, 4.0), (500, 60, 1.0), (12, 11, 0.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_least_squares(n, p, scale, weighted):
    """β̂ = lstsq(√w X, √w y), σ̂² = Σ w r² / Σ w."""
    X, y = design(n, p, seed=n + p, scale=scale)
    w = np.random.default_rng(1).integers(1, 4, n).astype(float) if weighted else np.ones(n)
    root = np.sqrt(w)[:, None]
    b = np.linalg.lstsq(root * X, root[:, 0] * y, rcond=None)[0]
    sigma = np.sqrt((w * (y - X @ b) ** 2).sum() / w.sum())
    data = {"y": y, "w": w} | {f"x{j}": X[:, j] for j in range(p)}
    formula = "y ~ 0 + " + " + ".join(f"x{j}" for j in range(p))
    fit = th.fit(formula, data, weights="w" if weighted else None, solver=th.ClosedForm())
    np.testing.assert_allclose(fit.estimates[[f"x{j}" for j in range(p)]], b, rtol=1e-8)
    assert fit.estimates["scale"] == pytest.approx(sigma, rel=1e-10)
    newton = th.fit(formula, data, weights="w" if weighted else None, solver=th.Newton())
    assert newton.log_likelihood == pytest.approx(fit.log_likelihood, rel=1e-11)


def test_collinear_columns_are_named():
    X, y = design(20, 2, seed=3)
    with pytest.raises(FlatDirection) as error:
        th.fit(
            "y ~ a + b + c",
            {"y": y, "a": X[:, 0], "b": X[:, 1], "c": X[:, 0] - 2 * X[:, 1]},
            solver=th.ClosedForm(),
        )
    assert set(error.value.certificate.directions[0]) == {"a", "b", "c"}


def test_the_digits_of_a_nearly_collinear_polynomial_are_kept():
    """y = 1 + x + … + x⁵ at x = 0 … 20, exactly (NIST's Wampler1): every coefficient is 1."""
    x = np.arange(21.0)
    noise = np.where(np.arange(21) % 2 == 0, 1.0, -1.0) * 1e-3
    data = {f"x{k}": x**k for k in range(1, 6)} | {"y": sum(x**k for k in range(6)) + noise}
    b = np.linalg.lstsq(
        np.column_stack([x**k for k in range(6)]).astype(np.longdouble).astype(float), data["y"], rcond=None
    )[0]
    fit = th.fit("y ~ x1 + x2 + x3 + x4 + x5", data, solver=th.ClosedForm())
    np.testing.assert_allclose(fit.estimates.to_numpy()[:6], 1.0, atol=2e-3)
    np.testing.assert_allclose(fit.estimates.to_numpy()[:6], b, rtol=1e-6)


def test_it_refuses_what_has_no_closed_form():
    with pytest.raises(BadArgument):
        th.fit("y ~ x", {"y": [0.0, 1, 2, 4], "x": [1.0, 2, 3, 4]}, "poisson", solver=th.ClosedForm())


@pytest.mark.parametrize("wide", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_information_where_newton_begins_is_that_of_the_rows(wide, weighted):
    """What is known of σ² alone, and what all rows sum to, on columns written out: XᵀWX/σ̂², Xᵀ W r/σ̂² · 2, 2 Σ w r²/σ̂²."""
    rng = np.random.default_rng(0)
    n = 3_000
    data = {
        "x": rng.normal(size=n),
        "g": rng.permutation(np.arange(n) % 150).astype(str),
        "h": rng.permutation(np.arange(n) % 90).astype(str),
        "w": rng.integers(1, 4, n) if weighted else np.ones(n, dtype=int),
    }
    data["y"] = data["x"] + rng.normal(size=150)[data["g"].astype(int)] + rng.normal(size=n)
    effects = "C(g)" if wide == 1 else "C(g) + C(h)"
    fit = th.fit(f"y ~ x + {effects}", data, weights="w" if weighted else None)
    columns = [np.ones(n), data["x"]]
    for name in ("g", "h")[:wide]:
        columns += [data[name] == level for level in sorted(set(data[name]))[1:]]
    X, w = np.column_stack(columns).astype(float), np.asarray(data["w"], dtype=float)
    theta = fit.theta.numpy()
    r, variance = data["y"] - X @ theta[:-1], np.exp(2 * theta[-1])
    J = fit.objective.taylor(fit.theta).information.dense().numpy()
    scale = np.abs(X.T @ X / variance).max()
    np.testing.assert_allclose(J[:-1, :-1], X.T @ (w[:, None] * X) / variance, atol=1e-12 * scale)
    np.testing.assert_allclose(J[-1, :-1], 2 * X.T @ (w * r) / variance, atol=1e-9)
    assert J[-1, -1] == pytest.approx(2 * (w * r**2).sum() / variance, rel=1e-12)
    assert variance == pytest.approx((w * r**2).sum() / w.sum(), rel=1e-12)
