"""Variance components and their tests against lme4 1.1-31 (R 4.2.2), and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

import thetahat as th

# Dyestuff and Dyestuff2 of lme4
DYESTUFF = pd.DataFrame(
    {
        "Batch": np.repeat(list("ABCDEF"), 5),
        "Yield": [
            *(1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560),
            *(1445, 1440, 1595, 1465, 1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445),
        ],
    }
)


def test_profile_intervals_are_those_of_confint():
    """confint(lmer(Yield ~ 1 + (1 | Batch), Dyestuff, REML = FALSE)): sd 12.198535, 84.063047; sigma 38.229985, 67.657696."""
    table = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF).variance_components()
    assert table["sd"][0] == pytest.approx(37.260345443277, rel=1e-6)
    assert np.allclose(table["low"], [12.198535, 38.229985], rtol=3e-4)
    assert np.allclose(table["high"], [84.063047, 67.657696], rtol=3e-5)


def test_an_interval_end_has_the_likelihood_ratio_of_its_level():
    """2(ℓ̂ − ℓ_p(c)) = χ²: ℓ_p(c) with σ and s moved together along sd = c, by a search."""
    from scipy.optimize import minimize_scalar

    fit = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF)
    row = fit.variance_components(level=0.9).iloc[0]
    theta = fit.theta
    for c in (row["low"], row["high"]):

        def worse(log_sigma, c=c):
            t = theta.clone()
            t[1], t[2] = log_sigma, c / math.exp(log_sigma)
            return -fit.objective.value(t)

        best = -minimize_scalar(worse, bounds=(3.0, 5.5), method="bounded", options={"xatol": 1e-10}).fun
        assert 2 * (fit.log_likelihood - best) == pytest.approx(chi2.ppf(0.9, 1), abs=1e-4)


def test_satterthwaite_of_balanced_groups_is_their_number_less_one():
    """REML of a balanced one-way layout: 5 degrees of freedom for the mean of 6 batches, and its classical error."""
    fit = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF, reml=True)
    assert fit.degrees_of_freedom()["Intercept"] == pytest.approx(5.0, abs=1e-6)
    means = DYESTUFF.groupby("Batch")["Yield"].mean()
    assert fit.standard_errors()["Intercept"] == pytest.approx(means.std(ddof=1) / math.sqrt(6), rel=1e-6)


# R 4.2.2: set.seed(1); 7 groups of 1, 2, 3, 4, 6, 9 and 14 rows
UNBALANCED = pd.DataFrame(
    {
        "g": np.repeat(np.arange(1, 8), [1, 2, 3, 4, 6, 9, 14]),
        "x": [
            -0.293120477409,
            0.850309990889,
            -0.168961945743,
            2.59528080214,
            1.32950777182,
            0.179531615882,
            1.82076238576,
            2.07165803846,
            1.90911468499,
            1.02794494618,
            3.17844783512,
            2.05650990308,
            1.04542608612,
            -0.548033220511,
            2.79159758481,
            1.62173305765,
            1.9838097369,
            2.94383621069,
            2.8212211951,
            2.59390132122,
            2.91897737161,
            2.78213630073,
            2.07456498337,
            0.0106483041366,
            2.61982574789,
            2.2772045938,
            2.17753782663,
            0.862580949434,
            1.85518327822,
            2.75127489353,
            3.69201288486,
            2.23054560599,
            2.72100494489,
            2.27952829275,
            0.956273776505,
            1.91833877003,
            1.93904337962,
            2.27401993662,
            3.43335870532,
        ],
        "y": [
            1.21622510741,
            1.37205752102,
            -0.528093552274,
            3.09634600839,
            1.34757113198,
            -0.812537297574,
            3.20732714029,
            1.98774000549,
            4.38758344979,
            4.05378990779,
            3.64622115666,
            1.84737007477,
            2.45014051158,
            0.151906973619,
            6.02821014333,
            2.41748785293,
            1.64041555753,
            1.93870482764,
            1.04481444439,
            1.74956007891,
            0.0808852008929,
            3.21455762047,
            1.19468477975,
            1.15012643267,
            2.06220173497,
            0.506015427439,
            1.72702144467,
            -1.13275941765,
            -0.459692857458,
            1.98147839361,
            2.1874782762,
            1.17040822218,
            1.7341035336,
            0.628764611119,
            -0.673637691757,
            0.721917419467,
            2.05588764075,
            -0.310789599251,
            2.9660621575,
        ],
    }
)


@pytest.mark.parametrize(("reml", "df"), [(True, [11.77498, 36.17357]), (False, [14.90994, 37.87186])])
def test_satterthwaite_of_unbalanced_groups(reml, df):
    """lmerTest's algorithm written out on lme4's deviance function, its Hessian by numDeriv."""
    fit = th.fit("y ~ x + (1 | g)", UNBALANCED, reml=reml)
    assert np.allclose(fit.degrees_of_freedom()[["Intercept", "x"]], df, rtol=2e-5)


def test_a_correlation_that_is_not_excluded_reaches_one():
    """A profile that never falls below the cut ends at the end of the range, and loses no other row."""
    g = np.random.default_rng(3)
    code, x = np.repeat(np.arange(6), 8), np.tile(np.linspace(-1, 1, 8), 6)
    a = g.normal(size=6)
    b = 0.8 * a + 0.5 * g.normal(size=6)
    data = {"y": a[code] + b[code] * x + 0.7 * g.normal(size=48), "x": x, "g": code}
    table = th.fit("y ~ x + (x | g)", data).variance_components()
    row = table[table["correlation"].notna()].iloc[0]
    assert row["low"] < row["correlation"] <= row["high"] <= 1.0
    assert table.loc[table["sd"].notna(), "high"].notna().all()


def test_a_variance_of_zero_has_the_interval_from_zero_and_p_one():
    g = np.random.default_rng(0)
    within = g.normal(size=(6, 5))
    data = {
        "y": (within - 0.9 * within.mean(1, keepdims=True)).reshape(-1),
        "g": np.repeat(list("abcdef"), 5),
    }
    fit = th.fit("y ~ 1 + (1 | g)", data)
    row = fit.variance_components().iloc[0]
    assert (row["sd"], row["low"]) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert 0 < row["high"] < 1
    assert fit.test_random("g").p_value == 1.0
    assert "sd(Intercept | g)" in fit.certificate.boundary


def test_a_single_variance_is_tested_by_half_a_chi_square():
    fit = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF)
    test = fit.test_random("(1 | Batch)")
    alone = th.fit("Yield ~ 1", DYESTUFF)
    assert test.statistic == pytest.approx(2 * (fit.log_likelihood - alone.log_likelihood), abs=1e-8)
    assert test.p_value == pytest.approx(chi2.sf(test.statistic, 1) / 2)
    assert "0.5·χ²(0) + 0.5·χ²(1)" in str(test)


def test_r_squared_of_a_random_intercept_is_its_share():
    fit = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF)
    found = fit.r_squared()
    share = 1388.33334255236 / (1388.33334255236 + 2451.24999717685)
    assert found["icc"] == pytest.approx(share, rel=1e-5)
    assert found["conditional"] == pytest.approx(share, rel=1e-5)
    assert found["marginal"] == pytest.approx(0.0, abs=1e-12)


def test_the_modes_are_shrunken_means():
    """b̂_g = n s²/(n s² + σ²) · (mean of the group − mean)."""
    fit = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF)
    s2, e2 = fit.estimates["sd(Intercept | Batch)"] ** 2, fit.estimates["scale"] ** 2
    deviation = DYESTUFF.groupby("Batch")["Yield"].mean() - DYESTUFF["Yield"].mean()
    table = fit.random_effects("Batch")
    assert np.allclose(table["mode"], 5 * s2 / (5 * s2 + e2) * deviation, rtol=1e-8)
    assert np.allclose(table["standard_error"], math.sqrt(s2 * e2 / (5 * s2 + e2)))


def test_restricted_likelihoods_of_other_fixed_effects_are_not_compared():
    data = DYESTUFF.assign(x=np.arange(30.0))
    one, other = (th.fit(f"Yield ~ {f} + (1 | Batch)", data, reml=True) for f in ("1", "x"))
    with pytest.raises(th.errors.IncomparableScores, match="reml=False"):
        one.compare(other)
    th.fit("Yield ~ 1 + (1 | Batch)", data).compare(th.fit("Yield ~ x + (1 | Batch)", data))


def test_quadrature_is_the_integral():
    """A Poisson with a random intercept, against adaptive integration, group by group."""
    from scipy.integrate import quad
    from scipy.stats import norm, poisson

    g = np.random.default_rng(4)
    code = np.repeat(np.arange(8), 4)
    y = g.poisson(np.exp(0.3 + 0.8 * g.normal(size=8)[code]))
    data = {"y": y, "g": [f"g{i}" for i in code]}
    fit = th.fit("y ~ 1 + (1 | g)", data, "poisson", quadrature=30)
    mean, sd = fit.estimates["Intercept"], fit.estimates["sd(Intercept | g)"]
    total = sum(
        math.log(
            quad(
                lambda b, k=k: np.prod(poisson.pmf(y[code == k], np.exp(mean + b))) * norm.pdf(b, 0, sd),
                -8,
                8,
                epsabs=1e-14,
            )[0]
        )
        for k in range(8)
    )
    assert fit.log_likelihood == pytest.approx(total, abs=1e-8)
    assert str(fit.score()).endswith("quadrature of the log mass of y")
    assert fit.certificate.ok
    one = th.fit("y ~ 1 + (1 | g)", data, "poisson")
    assert one.model.kind == "Laplace estimate"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda d: th.fit("y ~ (1 | g) + (1 | h)", d, quadrature=5), "one grouping factor"),
        (lambda d: th.fit("y ~ (1 | g)", d, quadrature=0), "whole number of nodes"),
        (lambda d: th.fit("y ~ (1 | g)", d, quadrature=5, reml=True), "cannot be given together"),
        (lambda d: th.fit("y ~ (1 | g)", d, solver=th.Stochastic(steps=3)), "share what is not observed"),
        (lambda d: th.fit("y ~ (1 | g)", d, robust="trimmed:0.8"), "share what is not observed"),
        (lambda d: th.fit("y ~ (1 | g)", d, prior=th.priors.Laplace(1.0)), "a kink has none"),
        (lambda d: th.fit("y ~ (1 | g)", d).standard_errors("sandwich"), "each row's own score"),
        (lambda d: th.fit("y ~ (1 | g)", d).score(d), "which was fitted"),
        (lambda d: th.fit("y ~ (1 | g)", d).test_random("(1 | k)"), "no random or smooth term"),
        (lambda d: th.fit("y ~ (1 | g)", d).variance_components(intervals="exact"), "intervals='exact'"),
        (lambda d: th.fit("y ~ (1 | g)", d).random_effects("h"), "no random effects are grouped by"),
        (lambda d: th.fit("y ~ (1 | g)", d).bootstrap(3), "resamples rows"),
        (lambda d: th.fit("y ~ (1 | g)", d).effects(), "no column moves the mean"),
        (lambda d: th.fit("y ~ (1 | g)", d).influence(), "share random effects"),
        (lambda d: th.fit("y ~ h", d).variance_components(), "no random effects"),
        (lambda d: th.fit("y ~ h", d).random_effects(), "no random effects"),
        (lambda d: th.fit("y ~ h", d).baseline(), "a baseline hazard is of a fit"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(call, says):
    g = np.random.default_rng(0)
    data = pd.DataFrame(
        {"y": g.normal(size=40), "g": np.repeat(list("abcdefgh"), 5), "h": np.tile(list("uvwxy"), 8)}
    )
    with pytest.raises(th.errors.BadArgument, match=says.replace("|", r"\|")):
        call(data)


def test_draws_hold_new_random_effects():
    """Over draws the variance of a row is s² + σ², and rows of one group have the covariance s²."""
    fit = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF)
    draws = fit.sample(4000, seed=1)
    s2, e2 = fit.estimates["sd(Intercept | Batch)"] ** 2, fit.estimates["scale"] ** 2
    assert draws[:, 0].var() == pytest.approx(s2 + e2, rel=0.1)
    assert np.cov(draws[:, 0], draws[:, 1])[0, 1] == pytest.approx(s2, rel=0.15)
    assert abs(np.cov(draws[:, 0], draws[:, 6])[0, 1]) < 0.1 * s2 + 100


SLOPES = np.random.default_rng(7)
GROUPED = pd.DataFrame({"g": np.repeat(np.arange(10), 8), "x": np.tile(np.linspace(-1, 1, 8), 10)})
GROUPED["y"] = (
    SLOPES.normal(size=10)[GROUPED["g"]] + 0.6 * SLOPES.normal(size=10)[GROUPED["g"]] * GROUPED["x"]
    + 0.7 * SLOPES.normal(size=80)
)  # fmt: skip


def test_one_effect_is_tested_by_stram_and_lees_mixture():
    """2Δℓ against the fit of the formula without that effect, referred to ½χ²(1) + ½χ²(2); uncorrelated to ½χ²(0) + ½χ²(1)."""
    fit = th.fit("y ~ x + (x | g)", GROUPED)
    for effect, rest in (("x", "(1 | g)"), ("Intercept", "(0 + x | g)")):
        test = fit.test_random(f"{effect} | g")
        left = th.fit(f"y ~ x + {rest}", GROUPED)
        assert test.statistic == pytest.approx(2 * (fit.log_likelihood - left.log_likelihood), abs=1e-6)
        assert test.p_value == pytest.approx((chi2.sf(test.statistic, 1) + chi2.sf(test.statistic, 2)) / 2)
        assert not test.bound
    alone = th.fit("y ~ x + (x || g)", GROUPED).test_random("sd(x | g)")
    assert alone.weights == {0: 0.5, 1: 0.5}


def test_every_end_of_an_interval_is_found_or_that_of_the_range():
    """Small variances: 0 is inside, and with it every correlation; a correlation estimated at 1 has its lower end."""
    g = np.random.default_rng(3)
    a = g.normal(size=6)
    code, x = np.repeat(np.arange(6), 8), np.tile(np.linspace(-1, 1, 8), 6)
    one = {"y": a[code] + 0.9 * a[code] * x + 0.7 * g.normal(size=48), "x": x, "g": code}
    row = th.fit("y ~ x + (x | g)", one).variance_components().iloc[2]
    assert row["correlation"] == pytest.approx(1.0)
    assert 0.5 < row["low"] < row["high"] == 1.0
    g = np.random.default_rng(0)
    weak = one | {"y": 0.25 * g.normal(size=6)[code] + 0.7 * g.normal(size=48)}
    table = th.fit("y ~ x + (x | g)", weak, on_failure="return").variance_components()
    assert table[["low", "high"]].notna().all().all()
    assert table["low"][0] == 0.0
    assert (table["low"][2], table["high"][2]) == (-1.0, 1.0)


def test_each_grouping_factor_has_its_share():
    data = GROUPED.assign(h=np.tile(np.arange(8), 10))
    found = th.fit("y ~ x + (1 | g) + (1 | h)", data).r_squared()
    assert found["icc(g)"] + found["icc(h)"] == pytest.approx(found["icc"])


def test_draws_of_several_new_groups_are_independent():
    """Rows of one new group have the covariance s², rows of two none."""
    fit = th.fit("Yield ~ 1 + (1 | Batch)", DYESTUFF)
    draws = fit.sample(4000, {"Batch": ["X", "Y", "X"]}, seed=1)
    s2 = fit.estimates["sd(Intercept | Batch)"] ** 2
    V = np.cov(draws.T)
    assert V[0, 2] == pytest.approx(s2, rel=0.15)
    assert abs(V[0, 1]) < 0.1 * s2 + 100
