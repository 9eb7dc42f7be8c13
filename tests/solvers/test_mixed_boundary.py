"""A family's own constant at its boundary in a mixed model: the simpler family's mixed fit is the oracle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.models.formulas import formula_model
from thetahat.solvers import Newton, iterate
from thetahat.solvers.boundary import slope
from thetahat.solvers.variance_boundary import _inside


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Counts that vary less than Poisson ones, and a normal response with short tails."""
    r = np.random.default_rng(1)
    g = np.repeat(np.arange(30), 6)
    x, b = r.normal(size=180), r.normal(size=30)[g]
    mu = np.exp(0.5 + 0.3 * x + 0.6 * b)
    y = r.binomial(20, np.clip(mu / 20, 0, 1))
    p = 1 / (1 + np.exp(-0.5 * x - b))
    t = x + b + r.uniform(-1, 1, 180)
    rows = {"y": y, "x": x, "g": g, "h": r.integers(0, 4, 180), "n": 10, "s": np.round(10 * p), "t": t}
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("formula", "family", "simpler", "constant", "settings"),
    [
        ("y ~ x + (1 | g)", "negative_binomial", "poisson", "dispersion", {}),
        ("y ~ x + (1 | g)", "negative_binomial", "poisson", "dispersion", {"reml": True}),
        ("y ~ x + (1 | g)", "negative_binomial", "poisson", "dispersion", {"quadrature": 5}),
        ("y ~ x + (1 | g) + (1 | h)", "negative_binomial", "poisson", "dispersion", {}),
        ("y ~ s(x) + (1 | g)", "generalized_poisson", "poisson", "dispersion", {}),
        ("y ~ x + (1 | g)", "zero_inflated(poisson)", "poisson", "inflation", {}),
        ("s ~ x + (1 | g)", "beta_binomial", "binomial", "dispersion", {"trials": "n"}),
        ("t ~ x + (1 | g)", "student_t", "normal", "df", {}),
    ],
)
def test_a_constant_at_its_boundary_leaves_the_simpler_mixed_fit(
    table, formula, family, simpler, constant, settings
):
    fit = th.fit(formula, table, family, **settings)
    plain = th.fit(formula, table, simpler, **settings)
    assert fit.certificate.status == "boundary"
    assert constant in fit.certificate.boundary
    exact = (
        1e-8 if family == "negative_binomial" else 1e-7
    )  # the constant is held at e⁻²³, the degrees of freedom at e²³
    assert fit.maximised == pytest.approx(plain.maximised, abs=exact)
    assert fit.theta.numpy()[:2] == pytest.approx(plain.theta.numpy()[:2], abs=1e-6)
    assert set(fit.certificate.boundary) - {constant} == set(plain.certificate.boundary)
    assert "From the boundary the log-likelihood falls by" in fit.certificate.detail
    shown = " ".join(str(fit.summary()).split())
    assert f"{constant} at its boundary, where the model is {simpler.capitalize()}" in shown


def test_the_slope_at_the_boundary_is_the_difference_to_the_simpler_family(table):
    """ℓ(α) = ℓ(0) + α ∂ℓ/∂α: the fit is held at α = e⁻²³."""
    fit = th.fit("y ~ x + (1 | g)", table, "negative_binomial")
    plain = th.fit("y ~ x + (1 | g)", table, "poisson")
    held = fit.model.fixed["dispersion"]
    expected = (fit.log_likelihood - plain.log_likelihood) / held
    assert slope(fit.objective, "dispersion")[0] == pytest.approx(expected, rel=1e-2)


def test_where_the_likelihood_rises_from_the_boundary_the_maximum_is_inside(table):
    """Overdispersed counts, held at the boundary by hand: the slope is positive, and the run from there is the fit."""
    r = np.random.default_rng(0)
    data = table.assign(y=r.poisson(np.exp(0.5 + table["x"] * 0.3) * r.gamma(2.0, 0.5, 180)))
    fit = th.fit("y ~ x + (1 | g)", data, "negative_binomial")
    assert fit.certificate.ok
    assert "dispersion" not in fit.certificate.boundary
    model, source = formula_model("y ~ x + (1 | g)", data, th.families.get("negative_binomial"))
    free = Objective([LogLikelihood(model, source)])
    free = free.at(model.start(source))
    held = Objective([LogLikelihood(free.model.holding("dispersion", 1e-10), source)])
    held = held.at(iterate(Newton(), held).theta)
    rise, full = slope(held, "dispersion")
    assert rise > 1
    objective, _, certificate = _inside(free, full, "dispersion")
    assert certificate.ok
    assert objective.value() == pytest.approx(fit.log_likelihood, abs=1e-8)


def test_a_dispersion_with_random_effects_of_its_own_is_no_constant(table):
    model, _ = formula_model(
        "y ~ x + (1 | g)",
        table,
        th.families.get("negative_binomial"),
        parameters={"dispersion": "~ (1 | h)"},
    )
    assert [p.parameter for p in model.constant_predictors] == []


def test_a_fit_at_the_boundary_is_saved_and_predicts_as_the_simpler_one(table, tmp_path):
    fit = th.fit("y ~ x + (1 | g)", table, "negative_binomial")
    plain = th.fit("y ~ x + (1 | g)", table, "poisson")
    fit.save(tmp_path / "held.thetahat")
    again = th.load(tmp_path / "held.thetahat")
    new = table.drop(columns="y")
    assert np.array_equal(again.predict(new), fit.predict(new))
    assert fit.predict(new).to_numpy() == pytest.approx(plain.predict(new).to_numpy(), rel=1e-6)
    assert again.certificate.boundary == {"dispersion": "Poisson"}
    errors, expected = fit.standard_errors(), plain.standard_errors()
    assert errors.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5)
    table = fit.variance_components()
    assert table[["low", "high"]].to_numpy() == pytest.approx(
        plain.variance_components()[["low", "high"]].to_numpy(), rel=1e-4
    )
