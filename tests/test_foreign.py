"""What once ended in another library's traceback, or in a certified wrong answer, ends in an exception that
names what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, FitError, ThetahatError, UnknownLevel, WrongType
from thetahat.report.reproduce import command, python


@pytest.mark.parametrize("y", [[2.0], [0.0], [0.0, 0.0]])
def test_a_tweedie_of_hardly_any_rows_is_not_certified(y):
    """By hand: with y = μ throughout the density grows as φ^(−n/2), and zeros alone are certain as μ → 0."""
    with pytest.raises(FitError):
        th.fit("y ~ 1", {"y": y}, "tweedie")


@pytest.mark.parametrize(
    "family",
    ["negative_binomial", "negative_binomial_1", "poisson", "gamma", "generalized_poisson", "normal"],
)
def test_numbers_whose_squares_overflow_are_refused_or_fitted(family):
    try:
        fit = th.fit("y ~ 1", {"y": [1e160, 2e160, 3.0]}, family)
    except ThetahatError:
        return
    assert np.isfinite(fit.log_likelihood)


@pytest.mark.parametrize("prior", [th.priors.Laplace(1.0), th.priors.Normal(1.0), None])
def test_a_formula_without_predictors_is_fitted_with_a_prior_or_without(prior):
    """σ̂² = Σ y²/n, whatever prior there would be on coefficients."""
    fit = th.fit("y ~ 0", {"y": [1.0, 2.0, 3.0]}, prior=prior)
    assert fit.estimates["scale"] == pytest.approx(np.sqrt(14 / 3), rel=1e-7)


def test_a_kinked_likelihood_takes_no_kinked_prior():
    with pytest.raises(BadArgument, match="student_t"):
        th.fit("y ~ x", {"y": [1.0, 2, 4, 3], "x": [1.0, 2, 3, 5]}, "laplace", prior=th.priors.Laplace(1.0))


def test_names_nested_thousands_deep_are_refused():
    with pytest.raises(BadArgument, match="nested"):
        th.fit("y ~ 1", {"y": [1.0]}, "truncated(" * 3000 + "poisson" + ")" * 3000)


@pytest.mark.parametrize("shape", [(50, 1), (50, 2)])
def test_a_mixture_of_single_numbers_takes_one_column(shape):
    with pytest.raises(BadArgument, match="one number a row"):
        th.fit(th.models.Mixture("normal", 2), np.random.default_rng(0).normal(size=shape))


def test_complex_numbers_are_refused_at_the_fit_and_at_new_rows():
    fit = th.fit("y ~ x", {"y": [1.0, 2, 3, 5], "x": [1.0, 2, 3, 5.5]})
    with pytest.raises(WrongType, match="complex"):
        fit.predict({"x": [1 + 2j]})


def test_a_network_is_made_without_numbers_where_that_is_asked_for():
    """Under torch's meta device a Transformer has its shapes, those of one with numbers."""
    with torch.device("meta"):
        empty = th.networks.Transformer(20, width=8, layers=1, heads=1)
    full = th.networks.Transformer(20, width=8, layers=1, heads=1)
    assert [p.shape for p in empty.parameters()] == [p.shape for p in full.parameters()]


def test_a_combination_of_known_levels_that_was_not_fitted_is_not_predicted():
    """a × b without (w, r): that cell has no coefficient, and 0 for it would be a number out of nowhere.
    Cells at a reference are sums."""
    rng = np.random.default_rng(0)
    a, b = (np.array(list(levels))[rng.integers(0, 3, 200)] for levels in ("uvw", "pqr"))
    kept = ~((a == "w") & (b == "r"))
    y = rng.normal(size=kept.sum())
    fit = th.fit("y ~ a*b", {"a": a[kept], "b": b[kept], "y": y})
    cell = (a[kept] == "u") & (b[kept] == "r")
    assert fit.predict({"a": ["u"], "b": ["r"]})[0] == pytest.approx(
        y[cell].mean(), rel=1e-9
    )  # saturated: the cell's own mean
    with pytest.raises(UnknownLevel, match=r"row 1: .*a = 'w', b = 'r'"):
        fit.predict({"a": ["u", "w"], "b": ["r", "r"]})


def test_the_call_that_is_told_again_has_its_robust_setting():
    data = {"y": [1.0, 2.0, 2.5, 4.1, 30.0, 6.0], "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    fit = th.fit("y ~ x", data, robust=th.DensityPower(0.3))
    assert "robust=th.DensityPower(beta=0.3)" in python(fit)
    assert command(fit) == ""
