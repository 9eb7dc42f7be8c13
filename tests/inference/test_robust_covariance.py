"""Covariances that hold where the model does not: of rows, of clusters, of quantiles, of surveys; and as a
property of the fit.

Figures of R 4.2.2: sandwich 3.0-2, clubSandwich 0.5.8, quantreg 5.94, on `DATA`.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose

import thetahat as th
from thetahat.errors import BadArgument, BadWeights, UnknownColumn

ROW = np.arange(40)
X = (ROW * 7) % 20 / 5.0
DATA = pd.DataFrame(
    {
        "x": X,
        "y": 1 + 0.5 * X + ((ROW * 13 + 5) % 17 - 8) / 4.0 * (1 + 0.4 * X),
        "g": np.repeat(np.arange(6), [3, 5, 8, 4, 9, 11]),
        "k": (ROW * 11) % 9 * (1 + (X > 2)),
        "b": ((ROW * 5) % 7 > 3).astype(int),
        "w": 0.5 + (ROW * 3) % 8,
        "c": np.array(list("abcdefgh"))[ROW % 8],
    }
)
SUM = {"y ~ x": "normal", "k ~ x": "poisson"}


@pytest.fixture(scope="module")
def linear():
    return th.fit("y ~ x", DATA)


# ---- rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "errors"),
    [
        ("HC0", [0.490567548947, 0.285191311584]),
        ("HC1", [0.503311685455, 0.292600111888]),
        ("HC2", [0.505401343446, 0.295085110259]),
        ("HC3", [0.520816198610, 0.305375296438]),
    ],
)
def test_leverage_corrected_errors_of_a_linear_model_are_those_of_r_s_sandwich(linear, kind, errors):
    """R, sqrt(diag(vcovHC(lm(y ~ x), type = kind))); statsmodels' OLS(…).fit(cov_type=kind)."""
    assert_allclose(linear.standard_errors(kind)[:2], errors, rtol=1e-10)
    assert_allclose(
        linear.standard_errors(kind)[:2], smf.ols("y ~ x", DATA).fit(cov_type=kind).bse, rtol=1e-10
    )


@pytest.mark.parametrize(
    ("formula", "family", "kind", "errors"),
    [
        ("k ~ x", "poisson", "HC2", [0.2258049712886, 0.0926642626037]),
        ("k ~ x", "poisson", "HC3", [0.2325885659571, 0.0963567652987]),
        ("b ~ x", th.families.Bernoulli(link="probit"), "HC2", [0.385114485820, 0.172900459485]),
        ("b ~ x", th.families.Bernoulli(link="probit"), "HC3", [0.397529572654, 0.179008762028]),
    ],
)
def test_leverage_corrected_errors_of_other_families_are_those_of_r_s_sandwich(formula, family, kind, errors):
    """R, sqrt(diag(vcovHC(glm(…), type = kind))): the expected information, of a link that is canonical
    and of one that is not."""
    assert_allclose(th.fit(formula, DATA, family).standard_errors(kind), errors, rtol=1e-6)


@pytest.mark.parametrize("kind", ["HC1", "HC2", "HC3"])
@pytest.mark.parametrize(("formula", "family"), [("y ~ x", "normal"), ("k ~ x", "negative_binomial")])
def test_a_row_that_was_counted_c_times_is_c_rows(kind, formula, family):
    """Exact: the sum over c copies of one row."""
    counted = DATA.assign(n=1.0 + ROW % 3)
    repeated = DATA.loc[DATA.index.repeat(1 + ROW % 3)]
    ours = th.fit(formula, counted, family, weights="n").covariance(kind)
    assert_allclose(ours, th.fit(formula, repeated, family).covariance(kind), rtol=1e-6, atol=1e-10)


def test_a_row_that_alone_decides_a_coefficient_adds_nothing():
    """Its residual is 0 and its leverage 1: 0/0 in HC3, which is 0; the other rows' errors are those
    without it."""
    alone = DATA.assign(one=(ROW == 7).astype(float))
    ours, without = th.fit("y ~ x + one", alone), th.fit("y ~ x", DATA.drop(7))
    assert_allclose(
        ours.standard_errors("HC3")[["Intercept", "x"]], without.standard_errors("HC3")[:2], rtol=1e-8
    )


# ---- clusters ----------------------------------------------------------------------------------------------


def test_the_cluster_factor_is_stata_s_in_which_a_scale_is_no_coefficient(linear):
    """R, sqrt(diag(vcovCL(lm(y ~ x), ~ g, type = "HC1"))), whose factor G/(G − 1)·(n − 1)/(n − 2) is
    Stata's for regress, vce(cluster g)."""
    assert_allclose(
        linear.standard_errors("cluster", by="g")[:2], [0.393106490302, 0.207468301910], rtol=1e-10
    )
    assert_allclose(linear.degrees_of_freedom(by="g"), 5)


@pytest.mark.parametrize(
    ("kind", "errors", "freedom"),
    [
        ("CR2", [0.3818113515, 0.2008284057], [4.021156151, 4.133293616]),
        ("CR3", [0.4125855445, 0.2171441503], [3.805724624, 3.936142997]),
    ],
)
def test_leverage_corrected_clusters_are_those_of_r_s_clubsandwich(linear, kind, errors, freedom):
    """R, coef_test(lm(y ~ x), vcov = vcovCR(…, cluster = g, type = kind), test = "Satterthwaite")."""
    assert_allclose(linear.standard_errors(kind, by="g")[:2], errors, rtol=1e-9)
    assert_allclose(linear.degrees_of_freedom(kind, by="g")[:2], freedom, rtol=1e-8)


def test_cr3_is_one_newton_step_of_the_jackknife():
    """V = Σ_g (I − I_g)⁻¹ s_g s_gᵀ (I − I_g)⁻¹, written out in numpy for Poisson's canonical link."""
    fit = th.fit("k ~ x", DATA, "poisson")
    design = sm.add_constant(DATA[["x"]].to_numpy())
    mean = np.exp(design @ fit.estimates)
    score, whole = design * (DATA["k"].to_numpy() - mean)[:, None], design.T @ (design * mean[:, None])
    V = np.zeros((2, 2))
    for g in range(6):
        rows = (DATA["g"] == g).to_numpy()
        left = whole - design[rows].T @ (design[rows] * mean[rows, None])
        step = np.linalg.solve(left, score[rows].sum(0))
        V += np.outer(step, step)
    assert_allclose(fit.covariance("CR3", by="g"), V, rtol=1e-7)


def test_clusters_of_one_row_are_rows(linear):
    """CR2 and CR3 with a cluster for each row are HC2 and HC3."""
    data = DATA.assign(row=ROW)
    fit = th.fit("y ~ x", data)
    for cluster, row in (("CR2", "HC2"), ("CR3", "HC3")):
        assert_allclose(fit.covariance(cluster, by="row"), linear.covariance(row), rtol=1e-9, atol=1e-12)


# ---- the normal linear model -------------------------------------------------------------------------------


def test_a_normal_linear_model_has_the_exact_inference_of_least_squares(linear):
    """statsmodels, OLS: bse, conf_int, p values, F tests, intervals of the mean and of a new y."""
    other = smf.ols("y ~ x", DATA).fit()
    assert linear.covariance_chosen == ("ols", None)
    assert_allclose(linear.standard_errors()[:2], other.bse, rtol=1e-10)
    assert_allclose(linear.intervals(0.9)[:2], other.conf_int(0.1), rtol=1e-10)
    test = linear.test(["Intercept = 0", "x = 0"])
    theirs = other.f_test(np.eye(2))
    assert_allclose(
        [test.statistic, test.p_value, test.df_error], [theirs.fvalue, theirs.pvalue, 38], rtol=1e-9
    )
    assert "F(1, 38)" in str(linear.test("x = 0"))
    new = pd.DataFrame({"x": [0.3, 9.0]})
    frame = other.get_prediction(new).summary_frame(0.1)
    assert_allclose(
        linear.predict(new, level=0.9)[["low", "high"]], frame[["mean_ci_lower", "mean_ci_upper"]], rtol=1e-10
    )
    ours = linear.predict(new, level=0.9, kind="prediction")
    assert_allclose(ours[["low", "high"]], frame[["obs_ci_lower", "obs_ci_upper"]], rtol=1e-10)
    assert_allclose(linear.effects().loc["x", "p_value"], other.pvalues["x"], rtol=1e-8)
    assert "t, 38 degrees of freedom" in " ".join(str(linear.summary()).split())


def test_the_scale_s_interval_is_exact(linear):
    """Σ r²/σ² is χ² with n − p degrees of freedom: R, sqrt(deviance(lm)/qchisq(c(.975, .025), 38))."""
    from scipy.stats import chi2

    squares = smf.ols("y ~ x", DATA).fit().ssr
    assert_allclose(
        linear.intervals().loc["scale"], np.sqrt(squares / chi2.ppf([0.975, 0.025], 38)), rtol=1e-12
    )


def test_the_default_errors_of_a_category_of_many_levels_are_least_squares_too():
    """The eliminated levels of a wide category are multiplied like the others: statsmodels, OLS with a
    dummy a level."""
    rng = np.random.default_rng(0)
    g = np.concatenate([np.tile(np.arange(80), 2), rng.integers(0, 80, 40)])
    data = pd.DataFrame({"y": rng.normal(size=200), "x": rng.normal(size=200), "g": [f"l{k:02d}" for k in g]})
    ours, other = th.fit("y ~ x + C(g)", data), smf.ols("y ~ x + C(g)", data).fit()
    assert_allclose(ours.standard_errors()["x"], other.bse["x"], rtol=1e-9)
    assert_allclose(
        ours.standard_errors("HC2")["x"],
        smf.ols("y ~ x + C(g)", data).fit(cov_type="HC2").bse["x"],
        rtol=1e-8,
    )


# ---- quantiles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "errors"),
    [(0.5, [0.8921128209, 0.5295645679]), (0.9, [0.3432758817, 0.3053791843])],
    ids=["median", "0.9"],
)
def test_quantile_regression_has_hendricks_and_koenker_s_errors(level, errors):
    """R, summary(rq(y ~ x, tau = level), se = "nid", hs = TRUE)."""
    fit = th.fit("y ~ x", DATA, th.families.AsymmetricLaplace(level))
    assert fit.covariance_chosen == ("sparsity", None)
    assert_allclose(fit.standard_errors()[:2], errors, rtol=1e-6)
    assert "Hendricks and Koenker" in str(fit.summary())


def test_the_median_has_the_same_errors_by_either_family():
    """Laplace is AsymmetricLaplace(0.5) with another scale."""
    one, other = (th.fit("y ~ x", DATA, f) for f in ("laplace", th.families.AsymmetricLaplace(0.5)))
    assert_allclose(one.covariance().iloc[:2, :2], other.covariance().iloc[:2, :2], rtol=1e-9)
    assert_allclose(one.standard_errors("sandwich")[:2], other.standard_errors("sandwich")[:2], rtol=1e-9)


def test_quantile_regression_is_refitted_by_the_linear_programme():
    """A resample's counts are repeated rows: every draw is the maximum of the same programme on the rows
    written out."""
    from scipy.optimize import linprog

    fit = th.fit("y ~ x", DATA, "laplace")
    found = fit.bootstrap(20, seed=3)
    assert found.notna().all().all()
    rng = np.random.default_rng(np.random.SeedSequence(entropy=3, spawn_key=(0,)))
    drawn = rng.multinomial(40, np.full(40, 1 / 40))
    Z, y = np.repeat(sm.add_constant(X), drawn, 0), np.repeat(DATA["y"].to_numpy(), drawn)
    least = linprog(
        np.ones(82)[2:].tolist() + [0, 0, 0, 0],
        A_eq=np.hstack([np.eye(40), -np.eye(40), Z, -Z]),
        b_eq=y,
        bounds=(0, None),
    ).fun
    assert_allclose(np.abs(y - Z @ found.iloc[0, :2].to_numpy()).sum(), least, rtol=1e-9)


def test_quantile_regression_has_no_chi2_of_its_kinked_likelihood():
    """The likelihood ratio of Laplace is χ² only if the errors are Laplace (Koenker and Machado 1999):
    refused, with what to use."""
    fit = th.fit("y ~ x", DATA, "laplace")
    for call in (
        lambda: fit.intervals(kind="profile"),
        lambda: fit.test("x = 0", "likelihood_ratio"),
        lambda: fit.test("x = 0", "score"),
    ):
        with pytest.raises(BadArgument, match="kink"):
            call()
    assert "χ²(1)" in str(fit.test("x = 0"))


def test_a_median_with_a_wide_category_uses_every_level():
    """The median within each level, of a category that is too wide to be written out elsewhere."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=210), "g": np.repeat([f"l{k:02d}" for k in range(70)], 3)})
    fit = th.fit("y ~ 0 + C(g)", data, "laplace")
    assert_allclose(fit.predict(), data.groupby("g")["y"].transform("median"), rtol=1e-6, atol=1e-8)


def test_a_weighted_median_is_weighted():
    """Weights that are not counts enter the programme: the minimum of Σ w |y − m| is at the weighted
    median."""
    data = {"y": [0.0, 1.0, 2.0, 3.0, 10.0], "w": [1.0, 1.0, 1.0, 1.0, 9.0]}
    assert_allclose(
        th.fit("y ~ 1", data, "laplace", weights=th.weights.Probability("w")).estimates["Intercept"],
        10.0,
        rtol=1e-7,
    )


# ---- weights -----------------------------------------------------------------------------------------------


def test_probability_weights_have_the_survey_s_errors():
    """J⁻¹ (Σ w² s sᵀ) J⁻¹: statsmodels, WLS(…, weights = w) with HC0; whatever the weights' scale."""
    other = smf.wls("y ~ x", DATA, weights=DATA["w"]).fit(cov_type="HC0")
    for data in (DATA, DATA.assign(w=1000 * DATA["w"])):
        ours = th.fit("y ~ x", data, weights=th.weights.Probability("w"))
        assert_allclose(ours.estimates[:2], other.params, rtol=1e-8)
        assert_allclose(ours.standard_errors()[:2], other.bse, rtol=1e-8)
    assert "probability: column w" in str(ours.summary())
    with pytest.raises(BadArgument, match="not counts"):
        ours.standard_errors("observed")
    with pytest.raises(BadWeights, match="-1"):
        th.fit("y ~ x", DATA.assign(w=-1.0), weights=th.weights.Probability("w"))


def test_variance_weights_are_weighted_least_squares():
    """statsmodels, WLS(…, weights = w): estimates, errors, intervals; and the log-likelihood of N(xβ,
    σ²/w)."""
    ours = th.fit("y ~ x", DATA, weights=th.weights.Variance("w"))
    other = smf.wls("y ~ x", DATA, weights=DATA["w"]).fit()
    assert_allclose(ours.estimates[:2], other.params, rtol=1e-8)
    assert_allclose(ours.intervals()[:2], other.conf_int(), rtol=1e-7)
    assert_allclose(ours.log_likelihood, other.llf, rtol=1e-10)


def test_variance_weights_of_a_gamma_are_prior_weights():
    """statsmodels, GLM(…, Gamma(log), var_weights = w): the same estimating equation of the mean."""
    data = DATA.assign(t=1 + np.abs(DATA["y"]))
    ours = th.fit("t ~ x", data, "gamma", weights=th.weights.Variance("w"))
    family = sm.families.Gamma(sm.families.links.Log())
    other = smf.glm("t ~ x", data, family=family, var_weights=data["w"]).fit(tol=1e-12)
    assert_allclose(ours.estimates[:2], other.params, rtol=1e-6)
    with pytest.raises(BadArgument, match="Poisson"):
        th.fit("k ~ x", DATA, "poisson", weights=th.weights.Variance("w"))


def test_frequency_weights_that_are_not_whole_numbers_are_warned_of():
    """A weight of ½ is half an observation, of which no data consist."""
    with pytest.warns(UserWarning, match=r"'w' are not whole numbers.*Probability\('w'\)"):
        th.fit("y ~ x", DATA, weights="w")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        th.fit("y ~ x", DATA.assign(w=2.0), weights="w")


# ---- a property of the fit ---------------------------------------------------------------------------------

KINDS = [("HC3", None), ("cluster", "g"), ("CR2", "g"), ("cluster", ["g", "c"])]


def _ratio(v):
    return v["x"] / v["Intercept"]


@pytest.mark.parametrize(("kind", "by"), KINDS, ids=str)
@pytest.mark.parametrize("formula", SUM)
def test_every_answer_of_a_fit_honours_its_covariance(kind, by, formula, tmp_path):
    """The same call with the kind written out, on the fit without one: errors, intervals, tests, predictions,
    effects, delta, summary."""
    plain = th.fit(formula, DATA, SUM[formula])
    robust = th.fit(formula, DATA, SUM[formula], covariance=kind, by=by)
    asked = {"covariance": kind, "by": by}
    assert_allclose(robust.standard_errors(), plain.standard_errors(kind, by=by), rtol=1e-12)
    assert_allclose(robust.covariance(), plain.covariance(kind, by=by), rtol=1e-12)
    assert_allclose(robust.intervals(), plain.intervals(**asked), rtol=1e-12)
    assert robust.test("x = 0").p_value == pytest.approx(plain.test("x = 0", **asked).p_value, rel=1e-12)
    assert_allclose(robust.predict(level=0.95), plain.predict(level=0.95, **asked), rtol=1e-12)
    assert_allclose(robust.effects(), plain.effects(**asked), rtol=1e-12)
    assert_allclose(robust.delta(_ratio), plain.delta(_ratio, **asked), rtol=1e-12)
    assert str(robust.summary()) == str(plain.summary(**asked))
    text = robust.report(tmp_path / "r.html").read_text()
    assert f'covariance="{kind}"' in text.replace("&#34;", '"')
    shown = next(line.split() for line in str(robust.summary()).splitlines() if line.startswith("  x "))
    assert all(figure in text for figure in shown[1:])
    assert not np.allclose(robust.standard_errors(), plain.standard_errors(), rtol=1e-3)


def test_with_covariance_returns_another_fit_and_leaves_the_first(linear):
    """A fit does not change; the default can be had again."""
    before = linear.standard_errors()
    other = linear.with_covariance("HC3")
    assert_allclose(linear.standard_errors(), before, rtol=0)
    assert other.covariance_chosen == ("HC3", None)
    assert_allclose(other.with_covariance().standard_errors(), before, rtol=0)
    assert linear.with_covariance(by="g").covariance_chosen == ("cluster", "g")


@pytest.mark.parametrize(
    ("kind", "by", "error", "match"),
    [
        ("hc3", None, BadArgument, "Nearest: 'HC3'"),
        ("CR2", None, BadArgument, "needs by"),
        ("HC3", "g", BadArgument, "takes 'cluster', 'CR2', 'CR3'"),
        ("CR2", ["g", "c"], BadArgument, "at most 1"),
        ("cluster", "firm", UnknownColumn, "firm"),
        ("sparsity", None, BadArgument, "quantile"),
    ],
)
def test_a_covariance_that_cannot_be_is_refused(linear, kind, by, error, match):
    """Before the fit where it can be known, with what is accepted."""
    with pytest.raises(error, match=match):
        linear.with_covariance(kind, by=by).standard_errors()
    with pytest.raises(error, match=match):
        th.fit("y ~ x", DATA, covariance=kind, by=by).standard_errors()


def test_a_factor_with_more_levels_than_clusters_leaves_its_line_of_the_summary_empty():
    """Eight levels, six clusters: a joint test of seven restrictions has a singular covariance; all else
    of the summary stands."""
    fit = th.fit("y ~ x + c", DATA, by="g")
    text = str(fit.summary())
    assert "(joint Wald test): not available" in text
    assert f"{fit.standard_errors()['x']:.3f}" in text
    assert fit.summary().to_dict()["tests"][0]["p"] is None
    with pytest.raises(BadArgument, match="singular"):
        fit.test([f"c[T.{level}] = 0" for level in "bcdefgh"])


@pytest.mark.parametrize(("kind", "by"), [(None, None), *KINDS[:3]], ids=str)
@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_a_saved_fit_keeps_its_covariance(kind, by, family, tmp_path):
    """Without its rows it says what it said with them, to the last digit of the summary."""
    if family == "laplace" and kind in ("HC3", "CR2"):
        pytest.skip("of smooth families")
    fit = th.fit("y ~ x", DATA, family, covariance=kind, by=by)
    path = fit.save(tmp_path / "fit.thetahat")
    for again in (th.load(path), th.load(path, data=DATA)):
        assert str(again.summary()) == str(fit.summary())
        assert_allclose(again.intervals(), fit.intervals(), rtol=1e-9)
        assert again.covariance_chosen == fit.covariance_chosen


# ---- criteria under a prior --------------------------------------------------------------------------------


def test_criteria_under_a_prior_count_the_effective_parameters():
    """Ridge: tr((XᵀX/σ² + P)⁻¹ XᵀX/σ²) with P = diag(0, 1/τ²) for the slope, and 1 for a Poisson has no
    scale; → p as τ → ∞."""
    fit = th.fit("k ~ x", DATA, "poisson", prior=th.priors.Normal(0.05))
    design = sm.add_constant(DATA[["x"]].to_numpy())
    J = design.T @ (design * np.exp(design @ fit.estimates.to_numpy())[:, None])
    effective = np.trace(np.linalg.solve(J + np.diag([0, 1 / 0.05**2]), J))
    assert_allclose(fit.effective_parameters, effective, rtol=1e-8)
    assert_allclose(fit.criteria["AIC"], -2 * fit.log_likelihood + 2 * effective, rtol=1e-10)
    assert_allclose(fit.criteria["BIC"], -2 * fit.log_likelihood + effective * np.log(40), rtol=1e-10)
    assert f"count {effective:.4g}"[:10] in str(fit.summary())
    wide = th.fit("k ~ x", DATA, "poisson", prior=th.priors.Normal(1e4))
    assert_allclose(wide.criteria["AIC"], th.fit("k ~ x", DATA, "poisson").criteria["AIC"], rtol=1e-6)
