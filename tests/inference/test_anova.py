"""Tests of terms and of nested fits: figures of R 4 (stats, car, survival, lme4), printed in the comments."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import BadArgument, BadFormula, UnknownColumn
from thetahat.inference.terms import model_terms

# R's warpbreaks without rows 1, 2, 10, 20, 21, 22, 40: unbalanced, so that the types differ
BREAKS = [
    26, 30, 54, 25, 70, 52, 51, 26, 67, 18, 21, 29, 17, 12, 18, 35, 30, 36, 36, 21, 24, 18, 10, 43, 28, 15, 26, 27, 14, 29, 19, 29, 31, 41,
    20, 44, 42, 26, 19, 16, 39, 28, 21, 39, 29, 20, 21, 24, 17, 13, 15, 15, 16, 28,
]  # fmt: skip
ALL = pd.DataFrame(
    {
        "breaks": BREAKS,
        "wool": ["A"] * 27 + ["B"] * 27,
        "tension": pd.Categorical((["L"] * 9 + ["M"] * 9 + ["H"] * 9) * 2, ["L", "M", "H"]),
    }
)
WARP = ALL.drop(index=[0, 1, 9, 19, 20, 21, 39])


def normal(formula: str) -> th.Fit:
    return th.fit(formula, WARP)


def poisson(formula: str) -> th.Fit:
    return th.fit(formula, WARP, "poisson")


@pytest.mark.parametrize(
    ("type", "squares", "statistic", "p"),
    [
        # anova(lm(breaks ~ wool * tension)); car::Anova(…, type = 2); car::Anova(…, type = 3)
        ("sequential", [700.55335, 1914.5154, 1413.3428], [6.06828, 8.29189, 6.12128], [0.01804964, 0.00094605, 0.00471804]),
        (2, [665.6842, 1914.5154, 1413.3428], [5.76624, 8.29189, 6.12128], [0.02095533, 0.00094605, 0.00471804]),
        (3, [1746.9534, 2664.6905, 1413.3428], [15.13233, 11.54094, 6.12128], [0.00036027, 0.00010568, 0.00471804]),
    ],
)  # fmt: skip
def test_an_analysis_of_variance_is_rs(type: object, squares: list, statistic: list, p: list) -> None:
    fit = normal("breaks ~ wool*tension")
    found = fit.anova(type)
    assert list(found.index) == ["wool", "tension", "wool:tension", "Residuals"]
    assert found["degrees_of_freedom"].tolist() == [1, 2, 2, 41]
    assert np.allclose(found["sum_of_squares"], [*squares, 4733.248], rtol=1e-6)
    assert np.allclose(found["statistic"][:-1], statistic, rtol=1e-6)
    assert np.allclose(found["p_value"][:-1], p, rtol=2e-6)
    wald = fit.anova(type, "wald")  # the same by the covariance s²(XᵀX)⁻¹
    assert np.allclose(wald["statistic"], found["statistic"][:-1], rtol=1e-9)
    assert (wald["error_degrees_of_freedom"] == 41).all()


@pytest.mark.parametrize(
    ("type", "test", "statistic"),
    [
        # anova(glm(…, poisson), test = "LRT"); car::Anova(…, type = 2); type = 3; type = 2, test = "Wald", epsilon = 1e-15
        ("sequential", "likelihood ratio", [23.930326, 65.227700, 37.328877]),
        (2, "likelihood ratio", [22.711000, 65.227700, 37.328877]),
        (3, "likelihood ratio", [46.181262, 75.450977, 37.328877]),
        (2, "wald", [22.36991, 65.40262, 37.01675]),
    ],
)
def test_an_analysis_of_deviance_is_rs(type: object, test: str, statistic: list) -> None:
    found = poisson("breaks ~ wool*tension").anova(type, test)
    kept = found[found["statistic"].notna()]
    assert np.allclose(kept["statistic"], statistic, rtol=3e-7)
    if type == "sequential":
        assert found.index[0] == "Intercept"
        assert np.allclose(-2 * (found["log_likelihood"] - found["log_likelihood"].iloc[-1]),
                           np.array([278.37865, 254.44833, 189.22063, 151.89175]) - 151.89175, atol=2e-5)  # fmt: skip


def test_dropped_terms_are_rs() -> None:
    """drop1(glm(breaks ~ wool + tension, poisson), test = "LRT"); drop1(lm(breaks ~ wool*tension), test = "F")."""
    found = poisson("breaks ~ wool + tension").drop1()
    assert np.allclose(found["AIC"], [437.52859, 458.23959, 498.75629], rtol=1e-7)
    assert np.allclose(found["statistic"][1:], [22.7110, 65.2277], rtol=1e-6)
    crossed = normal("breaks ~ wool*tension").drop1()
    assert list(crossed.index) == ["none", "wool:tension"]  # wool and tension are marginal to it
    assert np.allclose(crossed.loc["wool:tension", ["statistic", "p_value"]], [6.12128, 0.004718], rtol=1e-4)


def test_added_terms_are_rs() -> None:
    """add1(lm(breaks ~ wool), ~ wool*tension, test = "F"); add1(glm(breaks ~ wool, poisson), …, test = "LRT")."""
    found = normal("breaks ~ wool").add1("wool*tension")
    assert list(found.index) == ["none", "tension"]  # the interaction has a margin that is not fitted
    assert np.allclose(found.loc["tension", ["statistic", "p_value"]], [6.69673, 0.0029387], rtol=1e-5)
    counts = poisson("breaks ~ wool").add1("tension")
    assert np.allclose(counts["AIC"], [498.75629, 437.52859], rtol=1e-7)
    assert counts.loc["tension", "statistic"] == pytest.approx(65.2277, rel=1e-6)
    both = poisson("breaks ~ wool + tension").add1("tension:wool")
    assert both["statistic"].iloc[1] == pytest.approx(37.328877, rel=1e-7)


def test_cox_models_terms_are_tested_by_the_partial_likelihood() -> None:
    """Each step of anova is twice the difference of two fits' log partial likelihoods; so is what add1 adds."""
    rng = np.random.default_rng(2)
    x, g = rng.normal(size=80), rng.choice(list("abc"), 80)
    t = rng.exponential(np.exp(-0.5 * x))
    data = {"t": t, "e": (rng.uniform(size=80) < 0.8).astype(float), "x": x, "g": g}
    whole, part = (th.fit(f"Surv(t, e) ~ {f}", data, "cox") for f in ("x + g", "x"))
    expected = 2 * (whole.log_likelihood - part.log_likelihood)
    assert whole.anova().loc["g", "statistic"] == pytest.approx(expected, abs=1e-8)
    assert part.add1("g").loc["g", "statistic"] == pytest.approx(expected, abs=1e-8)
    assert whole.test("g", "likelihood_ratio").statistic == pytest.approx(expected, abs=1e-8)


def test_a_term_is_tested_by_its_name() -> None:
    fit = poisson("breaks ~ wool + tension")
    one = fit.test("tension")
    named = fit.test(["tension[T.M] = 0", "tension[T.H] = 0"])
    assert (one.statistic, one.df) == (named.statistic, 2)
    assert str(one).startswith("tension = 0: wald, χ²(2)")
    with pytest.raises(BadArgument, match="tensio"):
        fit.test("tensio")


def test_every_coefficient_but_the_intercept_is_in_one_term() -> None:
    """Of numeric columns, functions, categories and interactions with and without their margins."""
    rng = np.random.default_rng(0)
    data = {"y": rng.normal(size=60), "x": rng.normal(size=60), "z": rng.uniform(1, 2, 60),
            "a b": rng.choice(list("uv"), 60), "g": rng.choice(list("pqr"), 60)}  # fmt: skip
    for formula in ("x + log(z) + `a b`*g", "x:g + `a b`", "x*g + poly(z, 2)", "0 + g + x:z", "x"):
        fit = th.fit(f"y ~ {formula}", data)
        terms = model_terms(fit.objective)
        places = sorted(i for term in terms for i in term.places)
        first = int("Intercept" in fit.names)
        assert places == list(range(first, len(fit.names) - 1)), formula
    named = {t.name: [fit.names[i] for i in t.places] for t in model_terms(th.fit("y ~ x + log(z) + `a b`*g", data).objective)
             for fit in [th.fit("y ~ x + log(z) + `a b`*g", data)]}  # fmt: skip
    assert named["log(z)"] == ["log(z)"]
    assert all("a b[T.v]" in name and "g[" in name for name in named["a b:g"])


def test_columns_of_any_name_are_margins() -> None:
    rng = np.random.default_rng(1)
    data = {"y": rng.normal(size=50), "x": rng.normal(size=50), "a b": rng.normal(size=50)}
    fit, larger = (th.fit(f"y ~ {f}", data) for f in ("x + `a b`", "x*`a b`"))
    added, expected = fit.add1("`a b`:x"), larger.anova().loc["x:a b", "statistic"]
    assert added["statistic"].iloc[1] == pytest.approx(expected, rel=1e-9)
    assert larger.drop1().index.tolist() == ["none", "x:a b"]
    assert larger.test("`a b`").statistic == larger.test("a b").statistic


def test_a_term_of_another_parameter_and_of_logits() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=200)
    data = {"y": x + np.exp(0.3 * x) * rng.normal(size=200), "x": x, "k": rng.choice(list("abc"), 200)}
    fit = th.fit("y ~ x", data, scale="~ x")
    part = th.fit("y ~ x", data)
    expected = 2 * (fit.log_likelihood - part.log_likelihood)
    assert fit.anova(2, parameter="scale").loc["x", "statistic"] == pytest.approx(expected, abs=1e-7)
    logits = th.fit("k ~ x", data, "categorical")
    row = logits.anova(3).loc["x"]
    expected = 2 * (logits.log_likelihood - th.fit("k ~ 1", data, "categorical").log_likelihood)
    assert (row["degrees_of_freedom"], row["statistic"]) == (2, pytest.approx(expected, abs=1e-7))


# ---- nested fits -------------------------------------------------------------------------------------------


def test_nested_fits_by_their_columns_and_not_by_their_formulas() -> None:
    small, large, same = (
        poisson(f"breaks ~ {f}") for f in ("wool + tension", "wool*tension", "tension:wool")
    )
    found = th.anova(large, small)
    assert found["statistic"].iloc[1] == pytest.approx(37.328877, rel=1e-7)
    assert th.anova(small, same)["statistic"].iloc[1] == pytest.approx(37.328877, rel=1e-7)
    with pytest.raises(BadArgument, match="same model"):
        th.anova(large, same)
    with pytest.raises(BadArgument, match=r"not nested: 'wool\[T.B\]' of mean"):
        th.anova(poisson("breaks ~ wool"), poisson("breaks ~ tension"))


def test_an_offset_is_a_column_whose_coefficient_is_held() -> None:
    data = WARP.assign(x=np.arange(len(WARP)) / 20.0)
    free, held, half = (th.fit(f"breaks ~ {f}", data, "poisson") for f in ("x", "offset(x)", "offset(0.5*x)"))
    assert th.anova(held, free)["degrees_of_freedom"].iloc[1] == 1
    assert th.anova(half, free)["statistic"].iloc[1] == pytest.approx(
        2 * (free.log_likelihood - half.log_likelihood)
    )
    with pytest.raises(BadArgument, match="offset"):
        th.anova(held, th.fit("breaks ~ wool", data, "poisson"))


def test_a_held_parameter_is_nested_in_a_free_one() -> None:
    free = th.fit("breaks ~ wool", WARP, "negative_binomial")
    held = th.fit("breaks ~ wool", WARP, "negative_binomial", dispersion=0.3)
    assert th.anova(free, held)["degrees_of_freedom"].iloc[1] == 1


def sleep() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    b = rng.multivariate_normal([0, 0], [[0.5, 0.1], [0.1, 0.3]], 25)
    day = np.tile(np.arange(6.0), 25)
    group = np.repeat(np.arange(25), 6)
    y = 1 + 0.5 * day + b[group, 0] + b[group, 1] * day + rng.normal(size=150)
    return pd.DataFrame({"y": y, "day": day, "g": [f"g{i}" for i in group]})


def test_random_effects_are_referred_to_the_mixture_of_the_boundary() -> None:
    """The same statistic and p-value as `test_random`, by two fits; lme4::anova's statistic is of the same ratio."""
    data = sleep()
    none, one, two, apart = (
        th.fit(f"y ~ day{r}", data) for r in ("", " + (1 | g)", " + (day | g)", " + (day || g)")
    )
    found = th.anova(none, one, two)
    assert found["reference"].tolist()[1:] == ["0.5·χ²(0) + 0.5·χ²(1)", "0.5·χ²(1) + 0.5·χ²(2)"]
    expected = two.test_random("day | g")
    assert found["statistic"].iloc[2] == pytest.approx(expected.statistic, abs=1e-6)
    assert found["p_value"].iloc[2] == pytest.approx(expected.p_value, rel=1e-5)
    assert th.anova(apart, two)["reference"].iloc[1] == "χ²(1)"  # a correlation of 0 is no boundary
    flat = th.fit("y ~ 1 + (day | g)", data)
    assert th.anova(flat, two)["reference"].iloc[1] == "χ²(1)"
    both = th.anova(th.fit("y ~ 1 + (1 | g)", data), two)
    assert both["reference"].iloc[1] == "0.5·χ²(2) + 0.5·χ²(3)"


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    data = sleep()
    reml = [th.fit(f"y ~ {f} + (1 | g)", data, reml=True) for f in ("1", "day")]
    with pytest.raises(BadArgument, match="reml=True"):
        th.anova(*reml)
    with pytest.raises(BadArgument, match="reml=True"):
        reml[1].anova()
    assert reml[1].anova(test="wald")["p_value"].iloc[0] < 1e-3
    fit = normal("breaks ~ wool")
    with pytest.raises(BadArgument, match="rows"):
        th.anova(fit, th.fit("breaks ~ wool + tension", ALL))
    with pytest.raises(BadArgument, match="one family"):
        th.anova(poisson("breaks ~ wool"), th.fit("breaks ~ wool + tension", WARP, "gamma"))
    with pytest.raises(BadArgument, match="two or more"):
        th.anova(fit)
    with pytest.raises(BadArgument, match="type=1"):
        fit.anova(1)
    with pytest.raises(BadArgument, match="F"):
        poisson("breaks ~ wool").anova(test="F")
    with pytest.raises(BadArgument, match="prior"):
        th.fit("breaks ~ wool", WARP, "poisson", prior=th.priors.Normal(1.0)).anova()
    with pytest.raises(BadArgument, match="no term to add"):
        fit.add1("wool")
    with pytest.raises((UnknownColumn, BadFormula)):
        fit.add1("wol")
    with pytest.raises(BadArgument, match="x' is missing in 2 of the 47 rows"):
        th.fit("breaks ~ wool", WARP.assign(x=[np.nan, np.nan, *range(45)])).add1("x")
    with pytest.raises(BadArgument, match="robust"):
        th.fit("breaks ~ wool", WARP, robust="density_power:0.3").drop1()


def test_a_robust_fit_and_a_sandwich_test_terms_by_wald() -> None:
    fit = th.fit("breaks ~ wool + tension", WARP, robust="density_power:0.3")
    row = fit.anova(3, "wald").loc["tension"]
    assert row["statistic"] == pytest.approx(fit.test("tension").statistic)
    robust = poisson("breaks ~ wool + tension").anova(3, "wald", covariance="HC3").loc["tension"]
    assert robust["statistic"] == pytest.approx(
        poisson("breaks ~ wool + tension").test("tension", covariance="HC3").statistic
    )


def test_rows_of_known_precision_are_rs_weights() -> None:
    """car::Anova(lm(breaks ~ wool*tension, weights = e)): Sum Sq 1376.6447, 3622.1275, 1540.7597, 9970.9181."""
    data = WARP.assign(e=([1.0, 2, 3] * 16)[:47])
    found = th.fit("breaks ~ wool*tension", data, weights=th.weights.Variance("e")).anova(2)
    assert np.allclose(found["sum_of_squares"], [1376.6447, 3622.1275, 1540.7597, 9970.9181], rtol=1e-7)
    assert np.allclose(found["statistic"][:3], [5.66071, 7.44702, 3.16777], rtol=1e-6)


def test_wide_categories_and_logits_stay_eliminated() -> None:
    """A term of 300 levels, its sum of squares that of the difference of two fits."""
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=2000),
        "g": rng.integers(0, 300, 2000).astype(str),
        "v": rng.normal(size=2000),
    }
    found = th.fit("v ~ x + g", data).anova(2)
    squares = [len(data["v"]) * th.fit(f, data).estimates["scale"] ** 2 for f in ("v ~ x", "v ~ x + g")]
    assert found.loc["g", "sum_of_squares"] == pytest.approx(squares[0] - squares[1], rel=1e-8)
    assert found.loc["g", "degrees_of_freedom"] == len(set(data["g"])) - 1


def test_strata_trials_and_ties_are_the_same_in_nested_fits() -> None:
    """Else the two likelihoods are not of one thing, whatever the columns are."""
    rng = np.random.default_rng(0)
    n = 120
    data = pd.DataFrame({"x": rng.normal(size=n), "g": rng.choice(list("abc"), n), "c": rng.choice(list("pq"), n),
                         "t": rng.exponential(size=n).round(1) + 0.1, "e": 1.0, "k": rng.binomial(5, 0.4, n) * 1.0,
                         "m": 5.0, "more": 6.0, "r": rng.integers(0, 4, n) * 1.0})  # fmt: skip

    def cox(formula: str, **settings: str) -> th.Fit:
        return th.fit(f"Surv(t, e) ~ {formula}", data, "cox", **settings)

    same = th.anova(cox("x + strata(c)"), cox("x + g + strata(c)"))
    assert same["degrees_of_freedom"].iloc[1] == 2
    added = cox("x + strata(c)").add1("g")
    assert added.loc["g", "statistic"] == pytest.approx(same["statistic"].iloc[1], abs=1e-8)
    for other in ("x + g", "x + r + strata(g)"):
        with pytest.raises(BadArgument, match="not the same strata"):
            th.anova(cox("x + strata(c)"), cox(other))
    with pytest.raises(BadArgument, match="one family"):
        th.anova(cox("x"), cox("x + g", ties="breslow"))
    five, six = (th.fit(f"k ~ {f}", data, "binomial", trials=m) for f, m in (("1", "m"), ("x", "more")))
    with pytest.raises(BadArgument, match="not the same trials="):
        th.anova(five, six)
    ordinal = [th.fit(f"r ~ {f}", data, "ordinal") for f in ("1", "x")]  # whose intercepts are its thresholds
    assert th.anova(*ordinal)["degrees_of_freedom"].iloc[1] == 1


def test_wide_fits_are_compared_without_their_columns_written_out() -> None:
    """Nested by name and number; another way of writing a column needs them all, and is refused where they are too many."""
    rng = np.random.default_rng(3)
    n = 120_000
    data = pd.DataFrame(
        {"x": rng.normal(size=n), "g": rng.integers(0, 2000, n).astype(str), "y": rng.normal(size=n)}
    )
    small, large, other = (th.fit(f"y ~ {f}", data) for f in ("g", "x + g", "I(x * 2)"))
    expected = 2 * (large.log_likelihood - small.log_likelihood)
    assert th.anova(small, large)["statistic"].iloc[1] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(BadArgument, match="too many to see whether"):
        th.anova(other, large)
