"""What stopped a new user in ten analyses of real data, from the documentation alone: each is answered, or refused with the
way on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th

TABLES = Path(__file__).parent / "evaluation" / "tables"


@pytest.fixture(scope="module")
def wine() -> pd.DataFrame:
    """Ratings 1 to 3 of nine bottles by eight judges, drawn from a cumulative logit."""
    rng = np.random.default_rng(3)
    judge = np.repeat(np.arange(8), 9)
    warm = np.tile(np.arange(9) % 2, 8)
    latent = 1.5 * warm + rng.normal(size=8)[judge] + rng.logistic(size=72)
    return pd.DataFrame({"judge": judge, "warm": warm, "rating": 1 + np.digitize(latent, [-0.5, 1.5])})


# ---- ordinal responses ---------------------------------------------------------------------------------------


def test_probabilities_of_a_mixed_ordinal_fit_are_named_by_the_ratings(wine):
    """As those of the fit without random effects are, and as `predictions` names them."""
    fit = th.fit("rating ~ warm + (1 | judge)", wine, "ordinal")
    found = fit.predict(wine.head(2), "probabilities")
    assert list(found.columns) == [1, 2, 3]
    plain = th.fit("rating ~ warm", wine, "ordinal").predict(wine.head(2), "probabilities")
    assert list(plain.columns) == list(found.columns)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    ends = fit.predict(wine.head(2), "probabilities", level=0.9)
    assert list(ends.columns.get_level_values(0).unique()) == [1, 2, 3]
    assert set(np.unique(fit.predict(wine, "quantile", level=0.5))) <= {1, 2, 3}


def test_the_summary_of_an_ordinal_fit_has_its_grades_in_order(wine):
    text = str(th.fit("rating ~ warm + (1 | judge)", wine, "ordinal").summary())
    assert "rating: 1 < 2 < 3" in text
    assert "(Laplace estimate of the mass of rating" in text


# ---- terms by their names ------------------------------------------------------------------------------------


def test_a_term_with_an_equals_sign_in_its_name_is_tested_by_it():
    """ns(x, df=3) has three coefficients, whose joint hypothesis can be written out too."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 3, 80)
    fit = th.fit("y ~ ns(x, df=3)", {"x": x, "y": np.sin(x) + 0.3 * rng.normal(size=80)})
    written = fit.test([f"ns(x, df=3)[{k}] = 0" for k in (1, 2, 3)])
    for text in ("ns(x, df=3)", "ns(x, df=3) = 0", "ns(x,df=3)=0"):
        found = fit.test(text)
        assert found.df == 3
        assert found.statistic == pytest.approx(written.statistic, rel=1e-12)
        assert str(found).startswith("ns(x, df=3) = 0: ")


def test_a_term_of_a_further_parameter_is_tested_by_its_prefixed_name():
    rng = np.random.default_rng(1)
    g = rng.choice(list("abc"), 300)
    y = np.where(rng.random(300) < np.where(g == "a", 0.5, 0.2), 0, rng.poisson(3.0, 300))
    fit = th.fit("y ~ g", {"g": g, "y": y}, "zero_inflated(poisson)", inflation="~ g")
    written = fit.test(["inflation: g[T.b] = 0", "inflation: g[T.c] = 0"])
    for text in ("inflation: g", "inflation:g = 0"):
        found = fit.test(text)
        assert found.statistic == pytest.approx(written.statistic, rel=1e-12)
        assert str(found).startswith("inflation: g = 0: ")
    assert fit.test("g = 0").statistic == pytest.approx(fit.test("g").statistic, rel=1e-12)
    with pytest.raises(th.errors.BadArgument, match="inflation: h"):
        fit.test("inflation: h")


# ---- tables in 80 columns ------------------------------------------------------------------------------------


def test_tables_of_results_print_every_column_in_80_columns(wine):
    """pandas leaves columns out of what a terminal prints; an anova without its p-value answers nothing."""
    small, large = (th.fit(f"rating ~ warm{more}", wine, "ordinal") for more in ("", " + (1 | judge)"))
    wide = large.predict(wine.head(2), "probabilities", level=0.9)
    for found, last in (
        (th.anova(small, large), "reference"),
        (wide, "high"),
        (large.augment(), "quantile_residual"),
    ):
        assert max(map(len, str(found).splitlines())) <= 80
        assert last in str(found)
        assert "..." not in str(found).split("[")[0].splitlines()[0]


def test_anova_tells_fits_of_one_formula_apart_by_their_families():
    counts = {"y": [0, 1, 0, 3, 9, 0, 2, 14], "x": [0.0, 1, 0, 1, 0, 1, 0, 1]}
    fits = [th.fit("y ~ x", counts, family) for family in ("poisson", "negative_binomial")]
    assert [label.split("(")[0] for label in th.anova(*fits).index] == ["Poisson", "NegativeBinomial"]
    other = th.fit("y ~ 1", counts, "poisson")
    assert [label.split("(")[0] for label in th.anova(other, fits[1]).index] == [
        "1, Poisson",
        "x, NegativeBinomial",
    ]


def test_a_term_of_random_effects_is_tested_without_its_brackets(wine):
    fit = th.fit("rating ~ warm + (1 | judge)", wine, "ordinal")
    found = [fit.test_random(name).statistic for name in ("(1 | judge)", "1|judge", "1 | judge", "judge")]
    assert len(set(found)) == 1


# ---- profiles and pictures -----------------------------------------------------------------------------------


def test_profile_intervals_of_random_effects_are_those_of_confint():
    """R, lme4 1.1-31: confint(lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE)) prints 14.3813 37.7160,
    −0.4815 0.6850, 3.8012 8.7533, 22.8983 28.8580, 237.6807 265.1295, 7.3587 13.5759."""
    fit = th.fit("Reaction ~ Days + (Days | Subject)", pd.read_csv(TABLES / "sleepstudy.csv"))
    found = fit.intervals(kind="profile")
    wanted = {
        "Intercept": (237.6807, 265.1295),
        "Days": (7.3587, 13.5759),
        "scale": (22.8983, 28.8580),
        "sd(Intercept | Subject)": (14.3814, 37.7160),
        "sd(Days | Subject)": (3.8012, 8.7534),
        "corr(Intercept, Days | Subject)": (-0.4815, 0.6850),
    }
    for name, ends in wanted.items():
        np.testing.assert_allclose(found.loc[name], ends, atol=2e-4)
    curve = fit.profile("sd(Days | Subject)")
    assert len(curve) == 21
    assert curve["value"].is_monotonic_increasing
    at = np.interp([-1.959964, 1.959964], curve["root"], curve["value"])
    np.testing.assert_allclose(at, wanted["sd(Days | Subject)"], rtol=2e-3)


def test_a_profile_that_is_not_found_leaves_the_others(wine, monkeypatch):
    """The chart has its name, and the words in its place."""
    from thetahat.report import plots

    fit = th.fit("rating ~ warm + (1 | judge)", wine, "ordinal")
    own = plots.profile_of

    def refused(fit, line):
        if line.name == "warm":
            raise th.errors.NotConverged("not found", fit.certificate, None)
        return own(fit, line)

    monkeypatch.setattr(plots, "profile_of", refused)
    drawn = str(fit.plot("profile").to_dict())
    assert "not found" in drawn
    assert "sd(Intercept | judge)" in drawn


def test_residuals_without_a_mean_are_drawn_against_the_linear_predictor(wine, lung):
    drawn = str(th.fit("rating ~ warm + (1 | judge)", wine, "ordinal").plot("residuals").to_dict())
    assert "linear predictor" in drawn
    assert "fitted mean" not in drawn
    cox = th.fit("Surv(time, dead) ~ age + sex", lung, "cox")
    drawn = str(cox.plot("residuals").to_dict())
    assert "deviance residual" in drawn
    assert "linear predictor" in drawn


# ---- Cox's model ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lung() -> pd.DataFrame:
    """Survival that is longer for women, drawn from exponentials."""
    rng = np.random.default_rng(5)
    sex = rng.choice(["female", "male"], 120)
    time = rng.exponential(np.where(sex == "male", 300.0, 600.0))
    age = rng.uniform(40, 80, 120).round()
    return pd.DataFrame(
        {"time": np.minimum(time, 700).round(1) + 0.1, "dead": time < 700, "age": age, "sex": sex}
    )


def test_the_report_of_coxs_model_opens_with_hazard_ratios(lung, tmp_path):
    """exp of the coefficients and of their intervals, in sentences; then the test of proportional hazards."""
    fit = th.fit("Surv(time, dead) ~ age + sex", lung, "cox")
    text = fit.report(tmp_path / "report.html").read_text()
    ratio = np.exp(fit.estimates["sex[T.male]"])
    low, high = np.exp(fit.intervals().loc["sex[T.male]"])
    assert f"sex = male goes with a hazard {ratio:.3g} times that of sex = female" in text
    assert f"interval {low:.3g} to {high:.3g}" in text
    assert "One more unit of age goes with a hazard" in text
    assert "Proportional hazards (score test): χ²(2) = " in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "its y is a category" not in text


# ---- messages that say the way on ----------------------------------------------------------------------------


def test_a_likelihood_of_ones_own_says_which_column_it_lacks_and_how_to_name_it():
    @th.model(mu=0.0, sigma=th.positive(1.0))
    def own(batch, mu, sigma):
        return th.families.Normal().at(mu + 0 * batch["age"], sigma)

    data = {"age": [1.0, 2.0, 3.0], "height": [70.0, 80.0, 91.0]}
    with pytest.raises(th.errors.UnknownColumn, match=r"column 'y', which the data lack\..*target='"):
        th.fit(own, data)
    named = th.model(mu=0.0, sigma=th.positive(1.0), target="height")(own.function)
    assert th.fit(named, data).estimates["mu"] == pytest.approx(np.mean(data["height"]))


def test_what_is_refused_says_what_is_to_be_asked_instead(wine, lung):
    cox = th.fit("Surv(time, dead) ~ age + sex", lung, "cox")
    mixed = th.fit("rating ~ warm + (1 | judge)", wine, "ordinal")
    line = th.fit("time ~ age", lung, robust=th.DensityPower(0.5))
    kinked = th.fit("time ~ age", lung, th.families.AsymmetricLaplace(0.5))
    for ask, words in (
        (lambda: cox.comparisons("sex"), "Ratios of hazards: comparisons.*exponentiate=True"),
        (cox.check, "fit.proportional_hazards()"),
        (lambda: cox.predict(lung, level=0.9), r"no mean\. Accepted: 'linear', 'log_hazard'"),
        (lambda: mixed.predict({"warm": [1]}, "probabilities"), "groups='average'"),
        (line.check, r"fit\.outliers\(\), fit\.plot\('residuals'\)"),
        (kinked.anova, "test= of anova"),
        (lambda: th.fit("time ~ age", lung, scale=200.0).prior_path(th.priors.Laplace), "the lasso"),
        (lambda: th.fit("time ~ age", lung, "gamma").predict(lung, "median"), "level=0.5"),
    ):
        with pytest.raises(
            th.errors.BadArgument if "groups" not in words else th.errors.UnknownColumn, match=words
        ):
            ask()


def test_an_anova_names_the_term_without_which_there_is_no_maximum():
    """Group a has 4 % of zeros and mean 4, more than Poisson's 2 %; with one mean for both groups, below 3, fewer: the inflation
    of a runs to 0, and the smaller model has no maximum."""
    rng = np.random.default_rng(2)
    g = np.repeat(["a", "b"], 200)
    y = np.where(
        g == "a", np.maximum(rng.poisson(4.0, 400), 1), rng.poisson(1.0, 400) * (rng.random(400) < 0.6)
    )
    y[:8] = 0
    data = {"g": g, "y": y, "x": rng.normal(size=400)}
    fit = th.fit("y ~ g + x", data, "zero_inflated(poisson)", inflation="~ g")
    with pytest.raises(
        th.errors.NotConverged, match=r"the likelihood ratio of 'g': .* test='wald'"
    ) as caught:
        fit.anova(2)
    assert ".." not in str(caught.value)
    assert fit.anova(2, "wald").loc["g", "p_value"] < 1e-6


# ---- quantile regression -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def food() -> pd.DataFrame:
    """Spending that spreads as income rises."""
    rng = np.random.default_rng(7)
    income = rng.uniform(3, 12, 200)
    return pd.DataFrame({"income": income, "spent": 1 + 0.5 * income + 0.2 * income * rng.normal(size=200)})


def test_a_quantile_regression_predicts_its_quantile(food):
    """x·β̂ is the level's quantile of y; the mean of the working density, x·β̂ + σ(1 − 2q)/(q(1 − q)), is nobody's question."""
    fit = th.fit("spent ~ income", food, th.families.AsymmetricLaplace(0.9))
    new = {"income": [5.0, 9.0]}
    line = fit.estimates["Intercept"] + fit.estimates["income"] * np.array(new["income"])
    np.testing.assert_allclose(fit.predict(new), line, rtol=1e-12)
    found = fit.predictions(at=new).frame
    np.testing.assert_allclose(found["estimate"], line, rtol=1e-12)
    ends = fit.predict(new, level=0.95)
    np.testing.assert_allclose(ends[["value", "low", "high"]], found[["estimate", "low", "high"]], rtol=1e-10)
    V = fit.covariance().loc[["Intercept", "income"], ["Intercept", "income"]].to_numpy()
    half = 1.959964 * np.sqrt(np.einsum("i,ij,j", [1.0, 5.0], V, [1.0, 5.0]))
    assert ends["high"].iloc[0] - line[0] == pytest.approx(half, rel=1e-5)
    below = (food["spent"] <= fit.predict()).mean()
    assert 0.85 < below < 0.95
    np.testing.assert_allclose(fit.residuals("response"), food["spent"] - fit.predict(), rtol=1e-10)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda fit, data: fit.predict(data, level=0.95, kind="prediction"), "two fitted quantiles"),
        (lambda fit, data: fit.r_squared(), "R²: The asymmetric Laplace"),
        (lambda fit, data: fit.calibration(), "compares means"),
        (lambda fit, data: fit.residuals("pearson"), "no Pearson residual"),
    ],
    ids=["prediction", "r_squared", "calibration", "pearson"],
)
def test_what_a_working_density_does_not_say_is_refused(food, ask, words):
    fit = th.fit("spent ~ income", food, th.families.AsymmetricLaplace(0.5))
    with pytest.raises(th.errors.BadArgument, match=words):
        ask(fit, food.head(2))
