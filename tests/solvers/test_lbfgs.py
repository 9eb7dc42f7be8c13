"""L-BFGS reaches what scipy's own L-BFGS-B and Newton reach, with a memory of few pairs, on badly scaled
columns, and says when it has not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

import thetahat as th


def table(n=400, p=12, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    y = (rng.random(n) < expit(X @ rng.normal(size=p) * 0.4)).astype(float)
    return (
        X,
        y,
        {"y": y} | {f"x{j}": X[:, j] for j in range(p)},
        "y ~ " + " + ".join(f"x{j}" for j in range(p)),
    )


@pytest.mark.parametrize("memory", [3, 10, 30])
def test_it_is_scipys_maximum(memory):
    X, y, data, formula = table()
    D = np.column_stack([np.ones(len(y)), X])
    best = minimize(
        lambda b: (np.logaddexp(0, D @ b).sum() - y @ (D @ b), D.T @ (expit(D @ b) - y)),
        np.zeros(D.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9},
    )
    fit = th.fit(formula, data, "bernoulli", solver=th.LBFGS(memory=memory))
    assert fit.certificate.ok
    np.testing.assert_allclose(fit.estimates, best.x, atol=1e-5)
    assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-8)


def test_units_of_columns_do_not_keep_it_from_the_maximum():
    """The same likelihood with columns of 10⁻³ to 10³ times the unit."""
    _, _, data, formula = table(p=5)
    units = np.logspace(-3, 3, 5)
    scaled = {name: v * units[int(name[1:])] if name != "y" else v for name, v in data.items()}
    one, other = (th.fit(formula, d, "bernoulli", solver=th.LBFGS()) for d in (data, scaled))
    assert other.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-6)


def test_steps_that_are_used_up_are_no_maximum():
    _, _, data, formula = table()
    fit = th.fit(formula, data, "bernoulli", solver=th.LBFGS(steps=2), on_failure="return")
    assert fit.certificate.status == "not converged"
