"""Average marginal effects against statsmodels 0.15 and derivatives by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch

import thetahat as th
from thetahat.data.frame import Frame
from thetahat.errors import BadArgument, UnknownColumn

from .models import people

DATA = people()
X = np.column_stack([np.ones(300), DATA["x"], DATA["z"]])


def summary(margins) -> np.ndarray:
    return np.column_stack([margins.margeff, margins.margeff_se])


@pytest.mark.parametrize(
    ("response", "family", "theirs"), [("event", "bernoulli", sm.Logit), ("claims", "poisson", sm.Poisson)]
)
def test_effects_are_statsmodels(response, family, theirs):
    """get_margeff(): average of derivatives, errors by the delta method."""
    ours = th.fit(f"{response} ~ x + z", DATA, family).effects()
    margins = theirs(DATA[response], X).fit(disp=0, tol=1e-13, method="newton").get_margeff()
    assert list(ours.index) == ["x", "z"]
    np.testing.assert_allclose(ours[["effect", "standard_error"]], summary(margins), rtol=1e-6)
    np.testing.assert_allclose(ours["p_value"], margins.pvalues, rtol=1e-5)


def test_the_effect_of_a_category_is_the_difference_from_its_reference():
    """get_margeff(dummy=True): the mean with every row at 1 less that with every row at 0."""
    ours = th.fit("event ~ x + smokes", DATA, "bernoulli").effects(["smokes"])
    design = np.column_stack([np.ones(300), DATA["x"], DATA["smokes"] == "yes"])
    margins = sm.Logit(DATA["event"], design).fit(disp=0, tol=1e-13, method="newton").get_margeff(dummy=True)
    assert list(ours.index) == ["smokes[yes]"]
    np.testing.assert_allclose(ours[["effect", "standard_error"]], summary(margins)[1:], rtol=1e-6)


def test_effects_of_a_linear_mean_are_its_coefficients():
    """Identity link: estimates and standard errors themselves, categories too."""
    fit = th.fit("normal ~ x + region", DATA)
    ours, theirs = fit.effects(), fit.standard_errors()
    np.testing.assert_allclose(ours["effect"], fit.estimates[1:4], rtol=1e-9)
    np.testing.assert_allclose(ours["standard_error"], theirs[1:4], rtol=1e-8)
    assert list(ours.index) == ["x", "region[south]", "region[west]"]


def test_every_term_of_a_variable_moves_with_it():
    """E[y] = exp(a + b·log z + c·z² + d·z·x): its derivative by hand, averaged."""
    fit = th.fit("claims ~ log(z) + I(z**2) + z:x", DATA, "poisson")
    e, z, x = fit.estimates, DATA["z"], DATA["x"]
    slope = fit.predict() * (e["log(z)"] / z + 2 * e["I(z ** 2)"] * z + e["z:x"] * x)
    ours = fit.effects()
    assert ours.loc["z", "effect"] == pytest.approx(slope.mean(), rel=1e-9)
    assert ours.loc["x", "effect"] == pytest.approx((fit.predict() * e["z:x"] * z).mean(), rel=1e-9)


def test_an_effect_goes_through_every_parameter():
    """A lognormal's mean exp(μ + σ²/2) with x in μ and in log σ: the derivative by hand, its error by finite
    differences of θ."""
    fit = th.fit("positive ~ x", DATA, "lognormal", scale="~ x")
    x, theta = DATA["x"], fit.theta.numpy()

    def effect(t):
        sigma2 = np.exp(2 * (t[2] + t[3] * x))
        return (np.exp(t[0] + t[1] * x + sigma2 / 2) * (t[1] + sigma2 * t[3])).mean()

    g = np.array([(effect(theta + 1e-6 * e) - effect(theta - 1e-6 * e)) / 2e-6 for e in np.eye(4)])
    ours = fit.effects().loc["x"]
    assert ours["effect"] == pytest.approx(effect(theta), rel=1e-9)
    assert ours["standard_error"] == pytest.approx(np.sqrt(g @ fit.covariance().to_numpy() @ g), rel=1e-5)


def test_an_offset_is_no_variable_of_its_own_accord():
    """Left out unless it is asked for; E[y] is proportional to the exposure, so that its effect is the
    mean of E[y]/exposure."""
    fit = th.fit("claims ~ x + offset(log(exposure))", DATA, "poisson")
    assert list(fit.effects().index) == ["x"]
    ours = fit.effects(["exposure"]).loc["exposure", "effect"]
    assert ours == pytest.approx((fit.predict() / DATA["exposure"]).mean(), rel=1e-9)


@pytest.mark.parametrize(
    "formula", ["claims ~ x + C(code)", "claims ~ x + C(code, contr.sum)", "claims ~ x + C(code):x + C(code)"]
)
def test_a_number_that_the_formula_calls_a_category_is_one(formula):
    """Coded by treatment, by sums, with an interaction: the means with every row at each level."""
    data = DATA | {"code": np.arange(300) % 3}
    fit = th.fit(formula, data, "poisson")
    means = [fit.predict(data | {"code": np.full(300, level)}).mean() for level in range(3)]
    ours = fit.effects(["code"])
    assert list(ours.index) == ["code[1]", "code[2]"]
    np.testing.assert_allclose(ours["effect"], np.subtract(means[1:], means[0]), rtol=1e-9, atol=1e-12)


def test_the_declared_first_level_is_the_reference():
    frame = pd.DataFrame(DATA)
    frame["region"] = pd.Categorical(frame["region"], ["west", "north", "south"])
    fit = th.fit("normal ~ region*x", frame)
    assert list(fit.effects(["region"]).index) == ["region[north]", "region[south]"]


def test_true_and_false_are_a_category():
    data = DATA | {"old": DATA["z"] > 1}
    fit = th.fit("claims ~ x + old", data, "poisson")
    means = [fit.predict(data | {"old": np.full(300, v)}).mean() for v in (False, True)]
    assert fit.effects().loc["old[True]", "effect"] == pytest.approx(means[1] - means[0], rel=1e-9)


def test_a_row_counted_c_times_counts_c_times():
    fit = th.fit("claims ~ x + smokes", DATA, "poisson", weights="weight")
    repeated = {k: np.repeat(v, DATA["weight"].astype(int)) for k, v in DATA.items()}
    np.testing.assert_allclose(
        fit.effects(), th.fit("claims ~ x + smokes", repeated, "poisson").effects(), rtol=1e-6
    )


def test_robust_errors_are_asked_for_by_name():
    """A linear mean's are the sandwich's own."""
    fit = th.fit("normal ~ x", DATA)
    ours = fit.effects(covariance="sandwich")
    assert ours.loc["x", "standard_error"] == pytest.approx(fit.standard_errors("sandwich")["x"], rel=1e-8)


def test_a_file_read_block_by_block_has_the_same_effects(tmp_path):
    rows = pd.DataFrame({k: np.tile(v, 500) for k, v in DATA.items() if k in ("x", "smokes", "claims")})
    rows.to_parquet(tmp_path / "rows.parquet")
    a = th.fit("claims ~ x + smokes", Frame(tmp_path / "rows.parquet", memory=1), "poisson")
    assert a.source.streamed
    np.testing.assert_allclose(
        a.effects(), th.fit("claims ~ x + smokes", rows, "poisson").effects(), rtol=1e-6
    )


def test_what_has_no_effects_says_so():
    with pytest.raises(UnknownColumn, match="slopes names 'age'"):
        th.fit("claims ~ x", DATA, "poisson").effects(["age"])
    with pytest.raises(BadArgument, match="an effect on each category"):
        th.fit("choice ~ x", DATA, "categorical").effects()

    @th.model(m=0.0)
    def own(batch, m):
        return th.families.Normal().log_prob(batch["y"], m, torch.tensor(1.0, dtype=torch.float64))

    with pytest.raises(BadArgument, match="has a log_prob alone"):
        th.fit(own, {"y": DATA["normal"]}).effects()


@pytest.mark.parametrize("formula", ["y ~ bs(x, df=5)", "y ~ bs(x, df=6, degree=2)", "y ~ cs(x, df=4) - 1"])
def test_a_spline_has_effects_up_to_its_boundary_knots(formula):
    """At the least and the greatest x the derivative is from one side. Oracle: differences of the fitted
    curve, one-sided at the ends, averaged over the rows."""
    rng = np.random.default_rng(0)
    x = np.concatenate([[0.0, 3.0], rng.uniform(0, 3, 98)])
    fit = th.fit(formula, {"x": x, "y": np.sin(x) + 0.1 * rng.normal(size=100)})
    step = 1e-4
    low, high = np.maximum(x - step, 0.0), np.minimum(x + step, 3.0)
    slope = (fit.predict({"x": high}) - fit.predict({"x": low})) / (high - low)
    np.testing.assert_allclose(fit.effects().loc["x", "effect"], slope.mean(), rtol=1e-4, atol=1e-4)


def _average_slope(mean, theta, x, step=1e-5):
    """The average of ∂ mean / ∂x by central differences, and its gradient in θ likewise."""

    def of(theta):
        return ((mean(x + step, theta) - mean(x - step, theta)) / (2 * step)).mean()

    h = 1e-4
    gradient = np.array([(of(theta + h * e) - of(theta - h * e)) / (2 * h) for e in np.eye(len(theta))])
    return of(theta), gradient


def test_slopes_of_a_hurdle_are_those_of_its_mean():
    """E[y] = (1 − π) λ / (1 − e^−λ), log λ = a + b x: the closed form, differentiated by differences."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    fit = th.fit("k ~ x", {"x": x, "k": rng.poisson(np.exp(x / 3))}, "hurdle_poisson")

    def mean(x, theta):
        rate = np.exp(theta[0] + theta[1] * x)
        return (1 - theta[2]) * rate / (1 - np.exp(-rate))

    value, gradient = _average_slope(mean, fit.estimates.to_numpy(), x)
    found = fit.slopes().table.iloc[0]
    assert found["estimate"] == pytest.approx(value, rel=1e-6)
    error = np.sqrt(gradient @ np.asarray(fit.covariance()) @ gradient)
    assert found["standard_error"] == pytest.approx(error, rel=1e-5)


def test_slopes_of_a_truncated_normal_are_those_of_its_mean():
    """E[y] = μ + σ φ(a) / (1 − Φ(a)), a = −μ / σ."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    data = {"x": x, "t": np.abs(x + 2 + rng.normal(size=300)) + 0.01}
    fit = th.fit("t ~ x", data, th.families.Truncated(th.families.Normal(), low=0.0))

    def mean(x, theta):
        location = theta[0] + theta[1] * x
        return location + theta[2] * norm.pdf(location / theta[2]) / norm.cdf(location / theta[2])

    value, gradient = _average_slope(mean, fit.estimates.to_numpy(), x)
    found = fit.slopes().table.iloc[0]
    assert found["estimate"] == pytest.approx(value, rel=1e-6)
    error = np.sqrt(gradient @ np.asarray(fit.covariance()) @ gradient)
    assert found["standard_error"] == pytest.approx(error, rel=1e-5)
