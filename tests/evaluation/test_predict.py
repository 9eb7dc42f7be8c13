"""Predictions and their intervals against closed forms and statsmodels 0.15."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from numpy.testing import assert_allclose
from scipy import stats
from torch import nn

import thetahat as th
from thetahat.data.frame import Frame
from thetahat.errors import BadArgument, UnknownLevel, WrongType
from thetahat.models import Conditional

from .models import people

DATA = people()
NEW = {k: v[:7] for k, v in people(seed=5).items()}


def columns(data: dict[str, np.ndarray]) -> np.ndarray:
    return np.column_stack([np.ones(len(data["x"])), data["x"], data["z"]])


# ---- confidence --------------------------------------------------------------------------------------------


def test_the_interval_of_a_poisson_mean_is_statsmodels():
    """GLM.get_prediction with an offset: on the log scale, mapped back."""
    fit = th.fit("claims ~ x + z + offset(log(exposure))", DATA, "poisson")
    glm = sm.GLM(
        DATA["claims"], columns(DATA), family=sm.families.Poisson(), offset=np.log(DATA["exposure"])
    ).fit(tol=1e-12)
    theirs = glm.get_prediction(columns(NEW), offset=np.log(NEW["exposure"])).summary_frame(alpha=0.1)
    ours = fit.predict(NEW, level=0.9)
    np.testing.assert_allclose(
        ours.to_numpy(), theirs[["mean", "mean_ci_lower", "mean_ci_upper"]].to_numpy(), rtol=1e-6
    )
    np.testing.assert_allclose(fit.predict(NEW, "linear"), np.log(theirs["mean"]), rtol=1e-6)


def test_the_interval_of_a_probability_is_statsmodels():
    """Logit.get_prediction: on the logit scale, mapped back, so inside (0, 1)."""
    fit = th.fit("event ~ x + z", DATA, "bernoulli")
    glm = sm.GLM(DATA["event"], columns(DATA), family=sm.families.Binomial()).fit(tol=1e-12)
    theirs = glm.get_prediction(columns(NEW)).summary_frame(alpha=0.05)
    ours = fit.predict(NEW, level=0.95)
    np.testing.assert_allclose(
        ours.to_numpy(), theirs[["mean", "mean_ci_lower", "mean_ci_upper"]].to_numpy(), rtol=1e-6
    )


def test_the_interval_of_a_normal_mean_has_its_closed_form():
    """x'β̂ ± t·s·√(x'(X'X)⁻¹x), s² = RSS/(n − 3), t of n − 3 degrees of freedom."""
    fit = th.fit("normal ~ x + z", DATA)
    X, new = columns(DATA), columns(NEW)
    n = len(X)
    sigma = fit.estimates["scale"] * np.sqrt(n / (n - 3))
    half = (
        stats.t.ppf(0.975, n - 3)
        * sigma
        * np.sqrt(np.einsum("ij,jk,ik->i", new, np.linalg.inv(X.T @ X), new))
    )
    ours = fit.predict(NEW, level=0.95)
    np.testing.assert_allclose(ours["high"] - ours["value"], half, rtol=1e-8)
    np.testing.assert_allclose(ours["value"] - ours["low"], half, rtol=1e-8)


def test_the_mean_of_a_lognormal_has_coxs_interval():
    """log E[y] = μ + σ²/2 has variance x'Vx + σ⁴/(2n)·…: Cox's method, by the delta method on the log
    scale."""
    fit = th.fit("positive ~ x + z", DATA, "lognormal")
    V, sigma, n = fit.covariance().to_numpy(), fit.estimates["scale"], 300
    new = columns(NEW)
    assert V[3, 3] == pytest.approx(sigma**2 / (2 * n), rel=1e-6)
    variance = np.einsum("ij,jk,ik->i", new, V[:3, :3], new) + sigma**2 * V[3, 3]
    ours = fit.predict(NEW, level=0.8)
    np.testing.assert_allclose(
        np.log(ours["high"] / ours["value"]), stats.norm.ppf(0.9) * np.sqrt(variance), rtol=1e-6
    )
    np.testing.assert_allclose(ours["value"], np.exp(new @ fit.estimates[:3] + sigma**2 / 2), rtol=1e-10)


def test_the_interval_of_a_further_parameter_is_on_its_own_link():
    """A scale with predictors: log σ = x'γ̂, its interval exp of that of x'γ̂."""
    fit = th.fit("normal ~ x", DATA, scale="~ x")
    V, new = fit.covariance().to_numpy()[2:, 2:], columns(NEW)[:, :2]
    eta, error = new @ fit.estimates[2:], np.sqrt(np.einsum("ij,jk,ik->i", new, V, new))
    ours = fit.predict(NEW, "scale", level=0.95)
    z = stats.norm.ppf(0.975)
    np.testing.assert_allclose(
        ours.to_numpy(), np.exp(np.column_stack([eta, eta - z * error, eta + z * error])), rtol=1e-8
    )


def test_a_binomial_mean_is_trials_times_a_share():
    """The interval of the count is the trials times that of p, which is that of statsmodels."""
    rng = np.random.default_rng(0)
    m = rng.integers(3, 12, 300).astype(float)
    data = DATA | {"m": m, "won": rng.binomial(m.astype(int), 0.4).astype(float)}
    fit = th.fit("won ~ x + z", data, "binomial", trials="m")
    glm = sm.GLM(
        np.column_stack([data["won"], m - data["won"]]), columns(DATA), family=sm.families.Binomial()
    ).fit(tol=1e-12)
    theirs = (
        glm.get_prediction(columns(NEW))
        .summary_frame()[["mean", "mean_ci_lower", "mean_ci_upper"]]
        .to_numpy()
    )
    ours = fit.predict(NEW | {"m": np.full(7, 5.0)}, level=0.95)
    np.testing.assert_allclose(ours.to_numpy(), 5 * theirs, rtol=1e-6)
    with pytest.raises(BadArgument, match="trials for these rows: the column 'm'"):
        fit.predict(NEW)


def test_a_wide_category_changes_nothing():
    """90 levels are eliminated from J; the interval is that of the dense inverse."""
    rng = np.random.default_rng(0)
    group = np.repeat([f"g{i}" for i in range(90)], 6)
    data = {"group": group, "x": rng.normal(size=540), "y": rng.poisson(2.0, size=540) + 1.0}
    fit = th.fit("y ~ x + group", data, "poisson")
    J = fit.objective.taylor(order=2).information
    assert J.eliminated is not None
    V = np.linalg.inv(J.dense().numpy())
    new = {"group": np.array(["g0", "g3", "g88"]), "x": np.array([0.3, -1.0, 2.0])}
    X = np.zeros((3, 91))
    X[:, 0], X[:, 1] = 1.0, new["x"]
    for i, level in enumerate(new["group"]):
        if level != "g0":
            X[i, fit.names.index(f"group[T.{level}]")] = 1.0
    half = stats.norm.ppf(0.95) * np.sqrt(np.einsum("ij,jk,ik->i", X, V, X))
    ours = fit.predict(new, "linear", level=0.9)
    np.testing.assert_allclose(ours["high"] - ours["value"], half, rtol=1e-8)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + group"])
def test_the_root_of_the_inverse_information_is_a_root(formula):
    """R Rᵀ = J⁻¹, with and without an eliminated category: what draws of θ stand on."""
    rng = np.random.default_rng(0)
    data = {
        "group": np.repeat([f"g{i}" for i in range(70)], 5),
        "x": rng.normal(size=350),
        "y": rng.poisson(2.0, size=350) + 1.0,
    }
    J = th.fit(formula, data, "poisson").objective.taylor(order=2).information
    R = J.factor().root(torch.eye(J.size, dtype=torch.float64))
    np.testing.assert_allclose(R @ R.T, torch.linalg.inv(J.dense()), rtol=1e-7, atol=1e-10)


def test_an_interval_that_leaves_the_link_ends_where_the_parameter_does():
    """A gamma by its inverse link: η may reach 0, where the mean is ∞; and a Poisson by the identity,
    where it may reach 0."""
    rng = np.random.default_rng(1)
    data = {"x": np.linspace(0, 1, 12), "y": rng.gamma(2.0, 1.0, 12)}
    wide = th.fit("y ~ x", data, th.families.Gamma(link="inverse")).predict(
        {"x": np.array([0.5, 30.0, -2.0])}, level=0.9999
    )
    assert (wide["high"] == np.inf).any()
    assert (wide["low"] > 0).all()
    counts = {"x": np.linspace(0, 1, 8), "y": np.array([0.0, 1, 0, 1, 1, 0, 2, 1])}
    narrow = th.fit("y ~ x", counts, th.families.Poisson(link="identity"), on_failure="return").predict(
        {"x": np.array([0.0])}, level=0.9999
    )
    assert narrow["low"].tolist() == [0.0]


def test_the_mean_of_a_zero_inflated_count_is_a_function_of_both_parameters():
    """log((1 − π)μ): the gradient by finite differences of the fitted formula."""
    rng = np.random.default_rng(0)
    data = DATA | {"n": np.where(rng.random(300) < 0.3, 0.0, rng.poisson(np.exp(1 + 0.3 * DATA["x"])))}
    fit = th.fit("n ~ x", data, "zero_inflated(poisson)")
    V, t = None, fit.theta.numpy()
    V = np.linalg.inv(fit.objective.taylor(order=2).information.dense().numpy())

    def log_mean(theta, x):
        return theta[0] + theta[1] * x - np.log1p(np.exp(theta[2]))

    x, h = 0.7, 1e-5
    g = np.array([(log_mean(t + h * e, x) - log_mean(t - h * e, x)) / (2 * h) for e in np.eye(3)])
    ours = fit.predict({"x": np.array([x])}, level=0.95)
    assert np.log(ours["high"] / ours["value"])[0] == pytest.approx(
        stats.norm.ppf(0.975) * np.sqrt(g @ V @ g), rel=1e-6
    )


def test_a_network_has_intervals_by_the_same_road():
    """A linear layer in float64 is a regression: the same values and intervals."""
    X = np.column_stack([DATA["x"], DATA["z"]])
    net = Conditional(th.families.Poisson(), nn.Linear(2, 1, dtype=torch.float64))
    fit = th.fit(net, {"x": torch.tensor(X), "y": torch.tensor(DATA["claims"])}, solver=th.Newton())
    formula = th.fit("claims ~ x + z", DATA, "poisson")
    ours = fit.predict({"x": torch.tensor(X)}, level=0.9)
    np.testing.assert_allclose(ours, formula.predict(level=0.9), rtol=1e-6)


def test_a_density_has_intervals_by_the_same_road():
    """A gamma fitted to y alone: its mean is ȳ, log ȳ has variance φ/n."""
    model, source = th.models.density.density(th.families.Gamma(), DATA["positive"])
    fit = th.fit(model, source)
    ours = fit.predict(level=0.95)
    half = stats.norm.ppf(0.975) * np.sqrt(fit.estimates["dispersion"] / 300)
    assert ours["value"][0] == pytest.approx(DATA["positive"].mean(), rel=1e-8)
    assert np.log(ours["high"] / ours["value"])[0] == pytest.approx(half, rel=1e-6)


# ---- of a new y --------------------------------------------------------------------------------------------


def test_a_plug_in_interval_is_the_familys_own_quantiles():
    """scipy's Poisson quantiles at the fitted means; and a new quantile by name."""
    fit = th.fit("claims ~ x", DATA, "poisson")
    mean, ours = fit.predict(NEW), fit.predict(NEW, level=0.9, kind="plug-in")
    np.testing.assert_array_equal(ours["low"], stats.poisson(mean).ppf(0.05))
    np.testing.assert_array_equal(ours["high"], stats.poisson(mean).ppf(0.95))
    np.testing.assert_array_equal(fit.predict(NEW, "quantile", level=0.9), stats.poisson(mean).ppf(0.9))


def test_a_prediction_interval_has_the_noise_and_the_doubt():
    """Few rows, so that x'(X'X)⁻¹x counts. Of a log-normal, whose errors are the observed information's: the
    quantiles of N(0, 1)·exp(N(0, ½n)) + N(0, h), by 10⁶ draws of numpy; ours are of 2000. Of a normal the
    formula: x'β̂ ± t·s·√(1 + h)."""
    rng = np.random.default_rng(2)
    data = {"x": rng.normal(size=12), "y": rng.normal(size=12)}
    X, new = np.column_stack([np.ones(12), data["x"]]), np.array([1.0, 3.0])
    normal = th.fit("y ~ x", data)
    half = (
        stats.t.ppf(0.95, 10)
        * normal.estimates["scale"]
        * np.sqrt(1.2 * (1 + new @ np.linalg.inv(X.T @ X) @ new))
    )
    exact = normal.predict({"x": np.array([3.0])}, level=0.9, kind="prediction").iloc[0]
    assert_allclose(exact, new @ normal.estimates[:2] + np.array([0, -half, half]), rtol=1e-9)
    fit = th.fit("t ~ x", data | {"t": np.exp(data["y"])}, "lognormal")
    h = new @ np.linalg.inv(X.T @ X) @ new
    big = fit.estimates["scale"] * (
        rng.normal(size=10**6) * np.exp(rng.normal(size=10**6) / np.sqrt(24))
        + np.sqrt(h) * rng.normal(size=10**6)
    )
    ours = np.log(fit.predict({"x": np.array([3.0])}, level=0.9, kind="prediction").iloc[0])
    plug_in = np.log(fit.predict({"x": np.array([3.0])}, level=0.9, kind="plug-in").iloc[0])
    centre = new @ fit.estimates[:2]
    error = 4 * np.sqrt(0.05 * 0.95 / 2000) / (stats.norm.pdf(1.645) / big.std())
    assert ours["low"] == pytest.approx(centre + np.quantile(big, 0.05), abs=error)
    assert ours["high"] == pytest.approx(centre + np.quantile(big, 0.95), abs=error)
    assert ours["high"] - ours["low"] > 1.2 * (plug_in["high"] - plug_in["low"])


def test_extras_and_every_parameter_are_drawn_with():
    """A beta-binomial count stays within its trials, and its interval is wider than that of a binomial."""
    rng = np.random.default_rng(0)
    m = rng.integers(5, 12, 300).astype(float)
    p = rng.beta(2.0, 3.0, 300)
    data = DATA | {"m": m, "won": rng.binomial(m.astype(int), p).astype(float)}
    new = {"x": np.zeros(2), "m": np.array([4.0, 200.0])}
    wide, narrow = (
        th.fit("won ~ x", data, f, trials="m").predict(new, level=0.9, kind="prediction")
        for f in ("beta_binomial", "binomial")
    )
    assert (wide["high"] <= new["m"]).all()
    assert wide["high"][1] - wide["low"][1] > 2 * (narrow["high"][1] - narrow["low"][1])


def test_the_model_is_left_at_its_maximum():
    """Draws of θ are written into the model, and taken out again."""
    fit = th.fit("claims ~ x", DATA, "negative_binomial_1", on_failure="return")
    before = fit.theta.clone()
    fit.predict(NEW, level=0.9, kind="prediction")
    assert torch.equal(fit.objective.theta, before)
    with pytest.raises(BadArgument):
        fit.predict(NEW, level=0.9, kind="guess")
    assert torch.equal(fit.objective.theta, before)


def test_an_ordered_category_has_a_prediction_interval_of_levels():
    fit = th.fit("grade ~ x", DATA, th.families.Ordinal(levels=("a", "b", "c")))
    ours = fit.predict(NEW, level=0.9, kind="plug-in")
    assert set(ours["low"]) | set(ours["high"]) <= {"a", "b", "c"}
    assert (ours["low"] <= ours["value"]).all()
    p = fit.predict(NEW, "probabilities").to_numpy()
    np.testing.assert_array_equal(ours["high"], np.array(list("abc"))[(p.cumsum(1) < 0.95).sum(1)])
    assert set(fit.predict(NEW, level=0.9, kind="prediction")["value"]) <= {"a", "b", "c"}


# ---- categories --------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_multinomial_logistic_regression():
    """MNLogit.predict, a column a level."""
    fit = th.fit("choice ~ x + z", DATA, "categorical")
    codes = pd.Categorical(DATA["choice"]).codes
    theirs = sm.MNLogit(codes, columns(DATA)).fit(disp=0, tol=1e-12).predict(columns(NEW))
    ours = fit.predict(NEW, "probabilities")
    assert list(ours.columns) == ["bus", "car", "walk"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(ours.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fit.predict(NEW, "car"), np.log(ours["car"] / ours["bus"]), rtol=1e-9)


def test_two_categories_are_a_probability_and_its_complement():
    """The interval of the one mirrors that of the other; as a bernoulli and as a categorical, the same."""
    a = th.fit("smokes ~ x", DATA, "bernoulli").predict(NEW, "probabilities", level=0.9)
    b = th.fit("smokes ~ x", DATA, "categorical").predict(NEW, "probabilities", level=0.9)
    np.testing.assert_allclose(a["no", "low"], 1 - a["yes", "high"], rtol=1e-9)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(
        a["yes", "value"], th.fit("smokes ~ x", DATA, "bernoulli").predict(NEW), rtol=1e-12
    )


# ---- draws -------------------------------------------------------------------------------------------------


def test_draws_have_the_moments_of_the_model():
    """Mean of 4000 draws of each row within five standard errors; one draw a row without n."""
    fit = th.fit("claims ~ x", DATA, "poisson")
    drawn, mean = fit.sample(4000, NEW), fit.predict(NEW)
    assert drawn.shape == (4000, 7)
    assert (np.abs(drawn.mean(0) - mean) < 5 * np.sqrt(mean / 4000)).all()
    assert fit.sample().shape == (300,)
    np.testing.assert_array_equal(fit.sample(3, NEW, seed=1), fit.sample(3, NEW, seed=1))
    assert (fit.sample(3, NEW, seed=1) != fit.sample(3, NEW, seed=2)).any()


def test_drawn_categories_are_levels():
    fit = th.fit("choice ~ x", DATA, "categorical")
    drawn = fit.sample(500, NEW)
    assert set(drawn.ravel()) == {"bus", "car", "walk"}
    share, p = (drawn == "car").mean(0), fit.predict(NEW, "probabilities")["car"]
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / 500)).all()


def test_drawn_vectors_keep_their_shape():
    y = np.random.default_rng(0).normal(size=(60, 2))
    fit = th.fit(th.families.MultivariateNormal(2), y)
    assert fit.sample(5).shape == (5, 60, 2)
    assert fit.predict().shape == (60, 2)
    with pytest.raises(BadArgument, match="vector"):
        fit.predict(level=0.9)


# ---- sources -----------------------------------------------------------------------------------------------


def test_a_file_read_block_by_block_is_predicted_as_in_memory(tmp_path):
    rows = pd.DataFrame({"x": np.random.default_rng(0).normal(size=200_000)})
    rows["y"] = np.random.default_rng(1).poisson(np.exp(0.2 * rows["x"]))
    rows.to_parquet(tmp_path / "rows.parquet")
    a = th.fit("y ~ x", Frame(tmp_path / "rows.parquet", memory=1), "poisson")
    assert a.source.streamed
    b = th.fit("y ~ x", rows, "poisson")
    np.testing.assert_allclose(a.predict(level=0.9), b.predict(level=0.9), rtol=1e-6)
    assert len(a.predict()) == 200_000


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"what": "median"},
            "no what='median'. Accepted: 'mean', 'linear', 'quantile', 'scale'; with times=",
        ),
        ({"what": "quantile"}, "needs level"),
        ({"what": "probabilities"}, "no probabilities"),
        ({"level": 1.5}, "level=1.5"),
        ({"level": 0.9, "kind": "credible"}, "'credible'. Accepted: 'confidence', 'prediction', 'plug-in'"),
        ({"what": "scale", "level": 0.9, "kind": "prediction"}, "interval of a new y; received what='scale'"),
    ],
)
def test_what_cannot_be_predicted_is_refused(given, message):
    with pytest.raises(BadArgument) as error:
        th.fit("normal ~ x", DATA).predict(NEW, **given)
    assert message in str(error.value)


def test_a_category_has_no_mean_and_no_interval():
    fit = th.fit("choice ~ x", DATA, "categorical")
    with pytest.raises(BadArgument, match="no mean"):
        fit.predict(NEW)
    with pytest.raises(BadArgument, match="without an order"):
        fit.predict(NEW, level=0.9, kind="prediction")
    with pytest.raises(BadArgument, match="no quantiles"):
        fit.predict(NEW, "quantile", level=0.9)
    with pytest.raises(BadArgument, match="a probability is not one"):
        fit.predict(NEW, "probabilities", level=0.9, kind="plug-in")


def test_a_likelihood_of_ones_own_says_log_p_alone():
    @th.model(m=0.0)
    def own(batch, m):
        return th.families.Normal().log_prob(batch["y"], m, torch.tensor(1.0, dtype=torch.float64))

    fit = th.fit(own, {"y": DATA["normal"]})
    with pytest.raises(BadArgument, match="no distribution of y"):
        fit.predict()
    with pytest.raises(BadArgument, match="no sample"):
        fit.sample()


def test_a_level_that_the_fit_never_saw_is_refused():
    with pytest.raises(UnknownLevel, match="'mars'"):
        th.fit("normal ~ region", DATA).predict({"region": np.array(["north", "mars"])})


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_the_number_of_draws_is_a_whole_number(n):
    with pytest.raises(BadArgument, match="whole number"):
        th.fit("normal ~ x", DATA).sample(n)


# ---- dates, and rows of which nothing is known ------------------------------------------------------------------


def _days() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    day = pd.date_range("2020-01-01", periods=60)
    return pd.DataFrame(
        {"day": day, "g": list("ab") * 30, "k": list("uvw") * 20, "x": rng.normal(size=60)}
    ).assign(y=np.sin(np.arange(60) / 10) + 0.1 * rng.normal(size=60))


@pytest.mark.parametrize("formula", ["y ~ day", "y ~ s(day, k=6)"])
def test_a_date_is_days_since_the_first_in_lines_and_curves_and_text_is_read_as_dates(formula):
    """The same fit as to the numbers of days."""
    data = _days()
    fit = th.fit(formula, data)
    plain = th.fit(formula, data.assign(day=np.arange(60.0)))
    expected = plain.predict({"day": [10.0, 31.0]})
    for day in (pd.to_datetime(["2020-01-11", "2020-02-01"]), ["2020-01-11", "2020-02-01"]):
        np.testing.assert_allclose(fit.predict({"day": day}), expected, rtol=1e-8)
    with pytest.raises(WrongType, match="such as '2024-03-01'"):
        fit.predict({"day": ["1 March", "2020-02-01"]})


def test_rows_that_all_have_levels_never_seen_are_nan_in_every_answer():
    data = _days()
    new = pd.DataFrame({"g": ["q", "z"], "x": [0.0, 1.0]}, index=[5, 6])
    fit = th.fit("y ~ g + x", data)
    for asked in ({}, {"level": 0.9}, {"level": 0.9, "kind": "prediction"}):
        found = fit.predict(new, unseen="nan", **asked)
        assert list(found.index) == [5, 6]
        assert np.isnan(found.to_numpy()).all()
    shares = th.fit("k ~ g", data, "categorical").predict(new, "probabilities", unseen="nan")
    assert shares.shape == (2, 3)
    assert shares.isna().all().all()
    assert np.isnan(th.fit("y ~ s(x, k=5) + g", data).predict(new, unseen="nan")).all()
    with pytest.raises(UnknownLevel):
        fit.predict(new)
