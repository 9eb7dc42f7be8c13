"""Tests of hypotheses against statsmodels, identities and closed forms; and how they are read."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from numpy.testing import assert_allclose
from scipy.stats import chi2, norm

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.inference import tests as inference
from thetahat.inference.hypotheses import parse

from .data import counts

DATA = counts()
X = sm.add_constant(DATA[["x", "w"]])
NAMES = ["Intercept", "x", "x:z", "C(region)[T.b]", "g[T.b c]", "xx", "inflation: x", "2nd"]


# ---- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("x = 0", {"x": 1}, 0),
        ("x == 0", {"x": 1}, 0),
        ("x:z = 1.5", {"x:z": 1}, 1.5),
        ("xx=x", {"xx": 1, "x": -1}, 0),
        ("C(region)[T.b] = g[T.b c]", {"C(region)[T.b]": 1, "g[T.b c]": -1}, 0),
        ("2*x + 3 = x:z - 1", {"x": 2, "x:z": -1}, -4),
        ("-(x - 2*`xx`)/2 = 1e-3", {"x": -0.5, "xx": 1}, 1e-3),
        ("inflation: x = .5", {"inflation: x": 1}, 0.5),
        ("`2nd` - 2 = 0", {"2nd": 1}, 2),
        ("x*2 = -3", {"x": 2}, -3),
        ("0 = Intercept", {"Intercept": -1}, 0),
    ],
)
def test_a_hypothesis_is_read_as_a_row_and_a_value(text, row, value):
    """By hand: names are those of the estimates, the longest first, whatever brackets and colons they
    have."""
    found = parse(text, NAMES)
    assert_allclose(found.R, [[row.get(n, 0) for n in NAMES]])
    assert_allclose(found.r, [value])


@pytest.mark.parametrize("text", ["x = xx = 0", "x = 0, xx = x", ["xx = x", "xx = 0"]])
def test_several_restrictions_are_rows(text):
    """A chain, a comma and a list say the same."""
    found = parse(text, NAMES)
    assert np.linalg.matrix_rank(found.R) == 2
    assert_allclose(np.linalg.lstsq(found.R, found.r, rcond=None)[0], 0, atol=1e-15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y = 0", "no estimate is called 'y'"),
        ("xy = 0", "no estimate is called 'xy'"),
        ("`x z` = 0", "Nearest: 'x:z'"),
        ("x", "needs '='"),
        ("x * xx = 1", "not linear"),
        ("1/x = 1", "division"),
        ("(x = 1", "bracket"),
        ("x = 1 1", "not expected"),
        ("x =", "too early"),
        ("`x = 1", "backtick"),
        ("1 = 1", "no estimate enters"),
        ("x = 0, 2*x = 1", "contradict"),
        ("x = 1, 2*x = 2", "repeat"),
        ([], "is text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(text, message):
    """The message quotes the hypothesis or the name."""
    with pytest.raises(BadArgument, match=message):
        parse(text, NAMES)


# ---- Wald, likelihood ratio, score -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poisson():
    return th.fit("y ~ x + w", DATA, "poisson")


@pytest.fixture(scope="module")
def negbin():
    return th.fit("y ~ x + w", DATA, "negative_binomial")


@pytest.mark.parametrize("hypothesis", ["x = 0", "x + w = 0.2", "x = 0.5, w = -0.3", "x = w = 0"])
def test_wald_is_statsmodels(poisson, hypothesis):
    """statsmodels 0.15, GLM(…).fit().wald_test(…, use_f=False), also with HC0."""
    for kind, cov in (("observed", "nonrobust"), ("sandwich", "HC0")):
        other = sm.GLM(DATA["y"], X, family=sm.families.Poisson()).fit(tol=1e-12, cov_type=cov)
        theirs = other.wald_test(hypothesis, use_f=False, scalar=True)
        ours = poisson.test(hypothesis, covariance=kind)
        assert_allclose([ours.statistic, ours.p_value], [theirs.statistic, theirs.pvalue], rtol=1e-6)
        assert ours.df == int(theirs.df_denom)


def test_the_likelihood_ratio_is_that_of_two_fits(poisson, negbin):
    """2(ℓ̂ − ℓ̃), the restricted model fitted by its own formula."""
    for fit, family in ((poisson, "poisson"), (negbin, "negative_binomial")):
        small = th.fit("y ~ w", DATA, family)
        ours = fit.test("x = 0", "likelihood_ratio")
        statistic = 2 * (fit.log_likelihood - small.log_likelihood)
        assert_allclose([ours.statistic, ours.p_value], [statistic, chi2.sf(statistic, 1)], rtol=1e-8)


def test_a_restriction_across_coefficients_is_a_fit_to_their_sum(negbin):
    """β_x = β_w is the model with x + w as one column."""
    small = th.fit("y ~ s", DATA.assign(s=DATA["x"] + DATA["w"]), "negative_binomial")
    ours = negbin.test("x = w", "likelihood_ratio")
    assert_allclose(ours.statistic, 2 * (negbin.log_likelihood - small.log_likelihood), rtol=1e-8)


def test_the_score_test_is_statsmodels(poisson):
    """statsmodels 0.15, GLM(y ~ w).fit().score_test(exog_extra=x): S = gᵀ I⁻¹ g at the restricted fit."""
    other = sm.GLM(DATA["y"], X[["const", "w"]], family=sm.families.Poisson()).fit(tol=1e-12)
    theirs = other.score_test(exog_extra=DATA[["x"]].to_numpy())
    ours = poisson.test("x = 0", "score")
    assert_allclose(
        [ours.statistic, ours.p_value], [np.ravel(theirs.statistic)[0], np.ravel(theirs.pvalue)[0]], rtol=1e-6
    )


def test_pearson_s_chi2_is_a_score_test():
    """Two binomials: Σ (O − E)²/E is the score statistic of equal probabilities (Rao 1948); 2Σ O log O/E the
    likelihood ratio."""
    y, g = np.repeat([1.0, 0.0, 1.0, 0.0], [18, 22, 9, 31]), np.repeat([0.0, 1.0], [40, 40])
    fit = th.fit("y ~ g", {"y": y, "g": g}, "bernoulli")
    O, E = np.array([18, 22, 9, 31]), np.array([13.5, 26.5, 13.5, 26.5])
    assert_allclose(fit.test("g = 0", "score").statistic, ((O - E) ** 2 / E).sum(), rtol=1e-9)
    assert_allclose(fit.test("g = 0", "likelihood_ratio").statistic, 2 * (O * np.log(O / E)).sum(), rtol=1e-9)


def test_the_three_tests_of_a_normal_mean_with_unknown_scale_are_ordered():
    """W = n·F, LR = n·log(1 + F), S = n·F/(1 + F) with F = r²/(1 − r²) of the slope: W ≥ LR ≥ S (Berndt and
    Savin 1977). By default the slope's F statistic itself, (n − 2)·F."""
    fit = th.fit("z ~ x", DATA)
    n, r2 = len(DATA), np.corrcoef(DATA["z"], DATA["x"])[0, 1] ** 2
    F = r2 / (1 - r2)
    assert_allclose(fit.test("x = 0").statistic, (n - 2) * F, rtol=1e-8)
    assert_allclose(fit.test("x = 0", covariance="observed").statistic, n * F, rtol=1e-8)
    assert_allclose(fit.test("x = 0", "likelihood_ratio").statistic, n * np.log1p(F), rtol=1e-8)
    assert_allclose(fit.test("x = 0", "score", covariance="expected").statistic, n * F / (1 + F), rtol=1e-8)


def test_three_tests_agree_where_the_likelihood_is_quadratic():
    """A normal mean with known scale: W = LR = S = n(ȳ − μ₀)²/σ²."""
    fit = th.fit("z ~ 1", DATA, scale=2.0)
    exact = len(DATA) * (DATA["z"].mean() - 1.3) ** 2 / 4
    for kind in ("wald", "likelihood_ratio", "score"):
        assert_allclose(fit.test("Intercept = 1.3", kind).statistic, exact, rtol=1e-8)


def test_a_joint_test_of_everything_needs_no_climb():
    """Every coordinate held: the restricted maximum is the point itself."""
    fit = th.fit("z ~ 1", DATA, scale=2.0)
    ours = fit.test("Intercept = 1", "likelihood_ratio")
    assert_allclose(ours.statistic, len(DATA) * (DATA["z"].mean() - 1) ** 2 / 4, rtol=1e-9)


def test_estimates_stand_where_they_were_after_a_test(negbin):
    """A restricted refit moves the model, and puts it back."""
    negbin.test("x = 0", "score")
    assert torch.equal(negbin.objective.theta, negbin.theta)


# ---- constants on their own scale --------------------------------------------------------------------------


def test_a_scale_is_tested_on_its_link():
    """scale = 1 is log scale = 0: Wald (log σ̂)²·2n, likelihood ratio n(σ̂² − 1 − log σ̂²)."""
    y = DATA["z"].to_numpy()
    fit, n, hat = th.fit("normal", {"y": y}), len(y), y.std()
    assert_allclose(fit.test("scale = 1").statistic, 2 * n * np.log(hat) ** 2, rtol=1e-7)
    assert_allclose(fit.test("2*scale = 2").statistic, 2 * n * np.log(hat) ** 2, rtol=1e-7)
    assert_allclose(
        fit.test("scale = 1", "likelihood_ratio").statistic, n * (hat**2 - 1 - np.log(hat**2)), rtol=1e-7
    )
    joint = fit.test(["scale = 1", "mean = 1"], "likelihood_ratio")
    exact = n * (np.mean((y - 1) ** 2) - 1 - np.log(hat**2))
    assert_allclose(joint.statistic, exact, rtol=1e-7)


def test_a_dispersion_of_zero_is_tested_at_the_boundary(negbin, poisson):
    """Self and Liang (1987), case 5: ½χ²₀ + ½χ²₁; the restricted model is Poisson."""
    ours = negbin.test("dispersion = 0", "likelihood_ratio")
    statistic = 2 * (negbin.log_likelihood - poisson.log_likelihood)
    assert_allclose(ours.statistic, statistic, rtol=1e-6)
    assert_allclose(ours.p_value, chi2.sf(statistic, 1) / 2, rtol=1e-4)
    assert "Poisson" in ours.note
    assert "½χ²(0) + ½χ²(1)" in str(ours)
    both = negbin.test("dispersion = 0, x = 0", "likelihood_ratio")
    small = th.fit("y ~ w", DATA, "poisson")
    assert_allclose(both.statistic, 2 * (negbin.log_likelihood - small.log_likelihood), rtol=1e-6)
    assert_allclose(both.p_value, (chi2.sf(both.statistic, 1) + chi2.sf(both.statistic, 2)) / 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("hypothesis", "kind", "message"),
    [
        ("dispersion = x", "wald", "no linear restriction"),
        ("dispersion + x = 1", "wald", "fit.delta"),
        ("dispersion = -1", "wald", "outside the range"),
        ("dispersion = 0", "wald", "likelihood_ratio"),
        ("dispersion = 0", "score", "likelihood_ratio"),
        ("dispersion = inf", "likelihood_ratio", "no limit"),
        ("x = inf", "wald", "infinity"),
        ("x = 0", "lm", "Accepted: 'wald'"),
    ],
)
def test_a_test_that_cannot_be_is_refused_with_its_reason(negbin, hypothesis, kind, message):
    """Restrictions that are not linear in θ, values outside the range, kinds that do not apply."""
    with pytest.raises(BadArgument, match=message):
        negbin.test(hypothesis, kind)


def test_a_covariance_that_a_test_does_not_take_is_refused(negbin):
    """The likelihood ratio takes none, the score the model's own."""
    with pytest.raises(BadArgument, match="takes no covariance"):
        negbin.test("x = 0", "likelihood_ratio", covariance="sandwich")
    with pytest.raises(BadArgument, match="'observed' or 'expected'"):
        negbin.test("x = 0", "score", covariance="sandwich")
    with pytest.raises(BadArgument, match="needs by"):
        negbin.test("x = 0", covariance="cluster")


def test_names_with_brackets_are_tested_as_they_stand():
    """Wald of one coefficient is z², of all levels the joint test of statsmodels."""
    fit = th.fit("y ~ x + C(region)", DATA, "poisson")
    z = fit.estimates / fit.standard_errors()
    name = next(n for n in fit.names if "b" in n and "region" in n)
    assert_allclose(fit.test(f"{name} = 0").statistic, z[name] ** 2, rtol=1e-9)
    levels = [n for n in fit.names if "region" in n]
    small = th.fit("y ~ x", DATA, "poisson")
    ours = fit.test(" = ".join([*levels, "0"]), "likelihood_ratio")
    assert ours.df == 2
    assert_allclose(ours.statistic, 2 * (fit.log_likelihood - small.log_likelihood), rtol=1e-8)


def test_the_parts_of_a_simplex_are_tested_by_wald_alone():
    """H: p_0 = p_2 of a multinomial: (n_0 − n_2)²/(n_0 + n_2 − (n_0 − n_2)²/n)."""

    @th.model(measure="mass", p=th.simplex(3))
    def shares(batch, p):
        return torch.log(p)[batch["y"].long()]

    fit = th.fit(shares, {"y": np.repeat([0.0, 1.0, 2.0], [20, 50, 30])})
    assert_allclose(fit.test("p[0] = p[2]").statistic, 100 / (50 - 1), rtol=1e-7)
    with pytest.raises(BadArgument, match="kind='wald'"):
        fit.test("p[0] = p[2]", "likelihood_ratio")


def test_a_model_of_one_s_own_is_tested_like_any_other():
    """rate = 2 of an exponential: 2n(ȳ·2 − 1 − log 2ȳ)."""

    @th.model(rate=th.positive(1.0))
    def exponential(batch, rate):
        return torch.log(rate) - rate * batch["y"]

    y = np.random.default_rng(0).exponential(1.0, 30)
    m = 2 * y.mean()
    ours = th.fit(exponential, {"y": y}).test("rate = 2", "likelihood_ratio")
    assert_allclose(ours.statistic, 60 * (m - 1 - np.log(m)), rtol=1e-8)


def test_a_test_is_plain_values(poisson):
    """Frozen, and JSON without loss."""
    ours = poisson.test("x = 0")
    assert json.loads(json.dumps(ours.to_dict())) == dataclasses.asdict(ours)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ours.statistic = 0.0
    assert "χ²(1)" in str(ours)


# ---- Vuong -------------------------------------------------------------------------------------------------


def test_vuong_s_statistic_is_its_formula():
    """z = √n·mean(m)/sd(m) (Vuong 1989, eq. 5.6), a paired z test of the log densities; counts are repeated
    rows."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=80), rng.normal(size=80)
    m = a - b
    ours = inference.vuong(a, b)
    z = np.sqrt(80) * m.mean() / m.std()
    assert_allclose([ours.statistic, ours.p_value], [z, 2 * norm.sf(abs(z))], rtol=1e-12)
    c = rng.integers(0, 4, 80)
    counted = inference.vuong(torch.from_numpy(a), torch.from_numpy(b), count=c)
    assert_allclose(counted.statistic, inference.vuong(a.repeat(c), b.repeat(c)).statistic, rtol=1e-10)
    bic = inference.vuong(a, b, sizes=(3, 1), correction="bic")
    assert_allclose(bic.statistic, (m.sum() - np.log(80)) / (m.std() * np.sqrt(80)), rtol=1e-10)
    assert_allclose(inference.vuong(b, a).statistic, -ours.statistic, rtol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "settings", "message"),
    [
        ([1.0, 2.0], [1.0], {}, "of the same rows"),
        ([1.0, 2.0], [0.0, 1.0], {}, "same amount"),
        ([1.0, -np.inf], [0.0, 1.0], {}, "not finite"),
        ([1.0, 2.0], [0.0, 3.0], {"correction": "aic"}, "sizes"),
        ([1.0, 2.0], [0.0, 3.0], {"correction": "x"}, "Accepted"),
    ],
)
def test_vuong_refuses_what_it_cannot_compare(a, b, settings, message):
    """Rows that do not pair, impossible rows, models that agree."""
    with pytest.raises(BadArgument, match=message):
        inference.vuong(np.array(a), np.array(b), **settings)


def test_one_data_frame_column_is_left_as_it_was():
    """Nothing here writes to the user's data."""
    before = DATA.copy()
    th.fit("y ~ x", DATA, "poisson").test("x = 0", "likelihood_ratio")
    pd.testing.assert_frame_equal(before, DATA)
