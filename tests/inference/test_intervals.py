"""Intervals and profiles against closed forms, and against brute refits."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from numpy.testing import assert_allclose
from scipy.optimize import brentq
from scipy.stats import chi2, norm
from scipy.stats import t as student

import thetahat as th
from thetahat.errors import BadArgument, NotConverged
from thetahat.inference import profile
from thetahat.inference.refit import Refits

from .data import counts

DATA = counts()
C95 = float(chi2.ppf(0.95, 1))


@pytest.fixture(scope="module")
def logit():
    return th.fit("b ~ x + w + C(region)", DATA, "bernoulli")


@pytest.fixture(scope="module")
def negbin():
    return th.fit("y ~ x + w", DATA, "negative_binomial")


# ---- Wald --------------------------------------------------------------------------------------------------


def test_wald_intervals_are_statsmodels(logit):
    """statsmodels 0.15, Logit(…).fit().conf_int(): θ̂ ± z·se on the scale of the coefficients."""
    X = sm.add_constant(pd.get_dummies(DATA[["x", "w", "region"]], drop_first=True).astype(float))
    other = sm.Logit(DATA["b"], X).fit(disp=0, tol=1e-12)
    assert_allclose(logit.intervals(0.9), other.conf_int(alpha=0.1), rtol=1e-7)


def test_a_scale_s_wald_interval_is_found_on_the_logarithm_and_mapped(negbin):
    """exp(log α̂ ± z·se(log α̂)), se(log α̂) = se(α̂)/α̂: never below 0."""
    low, high = negbin.intervals(parameters="dispersion").iloc[0]
    hat, error = negbin.estimates["dispersion"], negbin.standard_errors()["dispersion"]
    z = norm.ppf(0.975)
    assert_allclose([low, high], hat * np.exp(np.array([-z, z]) * error / hat), rtol=1e-9)
    three = negbin.intervals(0.9999999, parameters="dispersion").iloc[0]
    assert three["low"] > 0


@pytest.mark.parametrize("covariance", ["expected", "sandwich", "cluster"])
def test_a_wald_interval_takes_any_covariance(negbin, covariance):
    """The half width of a coefficient's interval is z times its standard error of that kind, or t's
    quantile of G − 1 degrees of freedom."""
    by = "g" if covariance == "cluster" else None
    ends = negbin.intervals(covariance=covariance, by=by)
    half = (ends["high"] - ends["low"])[:3] / 2
    quantile = norm.ppf(0.975) if by is None else student.ppf(0.975, DATA["g"].nunique() - 1)
    assert_allclose(half, quantile * negbin.standard_errors(covariance, by=by)[:3], rtol=1e-9)


def test_the_parts_of_a_simplex_have_wald_intervals_on_their_own_scale():
    """p̂ ± z·√(p̂(1 − p̂)/n): no part is a function of one coordinate of θ."""

    @th.model(measure="mass", p=th.simplex(3))
    def shares(batch, p):
        return torch.log(p)[batch["y"].long()]

    fit = th.fit(shares, {"y": np.repeat([0.0, 1.0, 2.0], [20, 50, 30])})
    p = np.array([0.2, 0.5, 0.3])
    half = norm.ppf(0.975) * np.sqrt(p * (1 - p) / 100)
    assert_allclose(fit.intervals(), np.stack([p - half, p + half], 1), rtol=1e-7)


def test_a_decreasing_map_still_gives_low_below_high():
    """An inverse link reports 1/η: the upper end of η is the lower of the mean."""
    rng = np.random.default_rng(0)
    fit = th.fit(th.families.Exponential(link="inverse"), rng.exponential(2.0, 50))
    for kind in ("wald", "profile"):
        low, high = fit.intervals(kind=kind).iloc[0]
        assert low < fit.estimates.iloc[0] < high


# ---- profile: closed forms ---------------------------------------------------------------------------------


def test_the_profile_of_a_normal_mean_has_its_closed_form():
    """ℓ_p(μ) = −n/2·log(1 + (ȳ − μ)²/σ̂²) + const, so the ends are ȳ ± σ̂·√(exp(χ²/n) − 1): the t interval's
    likelihood twin."""
    y = DATA["z"].to_numpy()[:12]
    fit = th.fit("normal", {"y": y})
    half = y.std() * math.sqrt(math.exp(C95 / len(y)) - 1)
    assert_allclose(
        fit.intervals(kind="profile", parameters="mean").iloc[0],
        [y.mean() - half, y.mean() + half],
        rtol=1e-9,
    )


def test_the_profile_of_a_normal_scale_solves_its_equation():
    """2(ℓ̂ − ℓ_p(σ)) = n·(2 log(σ/σ̂) + σ̂²/σ² − 1)."""
    y = DATA["z"].to_numpy()[:10]
    fit = th.fit("normal", {"y": y})
    hat, n = y.std(), len(y)

    def gap(s):
        return n * (2 * math.log(s / hat) + hat**2 / s**2 - 1) - C95

    ends = fit.intervals(kind="profile", parameters="scale").iloc[0]
    assert_allclose(
        ends, [brentq(gap, hat / 5, hat, xtol=1e-14), brentq(gap, hat, 5 * hat, xtol=1e-14)], rtol=1e-9
    )


def test_the_profile_of_an_exponential_rate_solves_its_equation():
    """One parameter, no nuisance: 2n·(λ/λ̂ − 1 − log(λ/λ̂)) = χ². A model of one's own."""

    @th.model(rate=th.positive(1.0))
    def exponential(batch, rate):
        return torch.log(rate) - rate * batch["y"]

    y = np.random.default_rng(2).exponential(0.5, 7)
    fit = th.fit(exponential, {"y": y})
    hat = 1 / y.mean()

    def gap(rate):
        return 14 * (rate / hat - 1 - math.log(rate / hat)) - C95

    ends = fit.intervals(kind="profile").iloc[0]
    assert_allclose(
        ends, [brentq(gap, hat / 50, hat, xtol=1e-14), brentq(gap, hat, 50 * hat, xtol=1e-14)], rtol=1e-9
    )


def test_the_profile_of_a_part_of_a_simplex_is_the_binomial_s():
    """Profiling p_1 of a multinomial leaves 2n·KL(p̂ ‖ p) of a binomial: a constraint that is not linear
    in θ."""

    @th.model(measure="mass", p=th.simplex(4))
    def shares(batch, p):
        return torch.log(p)[batch["y"].long()]

    fit = th.fit(shares, {"y": np.repeat([0.0, 1.0, 2.0, 3.0], [6, 12, 9, 13])})
    n, hat = 40, 12 / 40

    def gap(p):
        return 2 * n * (hat * math.log(hat / p) + (1 - hat) * math.log((1 - hat) / (1 - p))) - C95

    ends = fit.intervals(kind="profile", parameters="p[1]").iloc[0]
    assert_allclose(ends, [brentq(gap, 1e-3, hat, xtol=1e-14), brentq(gap, hat, 0.99, xtol=1e-14)], rtol=1e-8)


# ---- profile: against refits -------------------------------------------------------------------------------


def brute(fit, index, level=0.95):
    """The endpoints by Brent's root of fully refitted profiles."""
    j, error = index, float(fit.standard_errors().iloc[index]) if fit.model.elementwise else 1.0
    theta, top = fit.theta, fit.objective.value(fit.theta)
    target = top - chi2.ppf(level, 1) / 2
    error = math.sqrt(float(torch.linalg.inv(fit.objective.taylor(theta).information.dense())[j, j]))
    refits = Refits(fit.objective, j, theta, top, error)
    ends = []
    for sign in (-1, 1):
        far = float(theta[j]) + sign * 4 * error
        ends.append(brentq(lambda psi: refits.at(psi)[1] - target, float(theta[j]), far, xtol=1e-12 * error))
    moved = []
    for end in ends:
        at = theta.clone()
        at[j] = end
        moved.append(float(fit.model.natural(at)[j]))
    return sorted(moved)


@pytest.mark.parametrize(
    "family", ["negative_binomial", "poisson", "gamma", "student_t", "weibull", "zero_inflated(poisson)"]
)
def test_joint_endpoints_are_those_of_refits(family):
    """Two roads to one root: Newton on θ and the level together; Brent on ψ with a refit at each."""
    response = "t" if family in ("gamma", "weibull") else "y"
    fit = th.fit(f"{response} ~ x + w", DATA.assign(t=DATA["y"] + np.abs(DATA["z"]) + 0.1), family)
    if family == "student_t":
        fit = th.fit("z ~ x + w", DATA, "student_t", df=5)
    ours = fit.intervals(kind="profile")
    for index in range(len(fit.theta)):
        assert_allclose(ours.iloc[index], brute(fit, index), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("family", ["ordinal", "categorical"])
def test_profiles_of_categorical_responses_are_those_of_refits(family):
    """As above, with thresholds that may not cross, and with two predictors of one row."""
    three = np.digitize(DATA["z"], [0.3, 1.6]).astype(float)
    fit = th.fit("k ~ x + w", DATA.assign(k=three), family)
    ours = fit.intervals(kind="profile")
    for index in (0, 2, 3):
        assert_allclose(ours.iloc[index], brute(fit, index), rtol=1e-7, atol=1e-9)


def test_an_endpoint_takes_a_handful_of_passes(logit):
    """Newton on θ and the level together is quadratic from the Wald point: no more than 6 passes an end."""
    found = profile.endpoints(logit.objective, logit.theta)
    ends = [end for pair in found.values() for end in pair]
    assert all(end.status == "solved" for end in ends)
    assert max(end.passes for end in ends) <= 6
    assert max(end.error for end in ends) < 1e-9
    assert torch.equal(logit.objective.theta, logit.theta)


def test_at_an_endpoint_the_likelihood_is_at_its_level(logit):
    """ℓ(θ_end) = ℓ̂ − χ²/2, and the gradient vanishes in every other direction."""
    low, high = profile.endpoints(logit.objective, logit.theta, parameters="x")["x"]
    top, j = logit.objective.value(logit.theta), logit.names.index("x")
    for end in (low, high):
        t = logit.objective.taylor(end.theta, order=1)
        assert_allclose(float(t.value), top - C95 / 2, atol=1e-8)
        g = t.gradient.clone()
        g[j] = 0
        assert float(g.abs().max()) < 1e-5


def test_the_refits_find_the_same_endpoint_alone(logit):
    """The bracketing road, which is taken where the joint solution fails."""
    (peak,) = profile._peaks(logit.objective, logit.theta, [1])
    joint = profile.endpoints(logit.objective, logit.theta, parameters="x")["x"]
    root = math.sqrt(C95)
    high, low = (profile._refitted(peak, sign * root, None) for sign in (1, -1))
    assert_allclose([low.value, high.value], [end.value for end in joint], rtol=1e-7)
    assert low.status == "bracketed"


# ---- profile: where the likelihood has no end --------------------------------------------------------------


def test_a_dispersion_that_may_be_zero_has_an_interval_from_zero():
    """α → 0 is the Poisson model, whose likelihood is within χ²/2 of the maximum's: the interval begins at
    the end of the range."""
    y = np.random.default_rng(26).negative_binomial(8, 0.6, 60).astype(float)
    fit, limit = th.fit("y ~ 1", {"y": y}, "negative_binomial"), th.fit("y ~ 1", {"y": y}, "poisson")
    assert 0.3 < 2 * (fit.log_likelihood - limit.log_likelihood) < C95
    ends = fit.intervals(kind="profile", parameters="dispersion")
    assert ends["low"].iloc[0] == 0.0
    assert ends.attrs["endpoints"]["dispersion"] == ("unbounded", "solved")
    assert fit.estimates["dispersion"] < ends["high"].iloc[0] < 1


def test_student_s_degrees_of_freedom_have_no_upper_end_where_the_data_are_nearly_normal():
    """df → ∞ is the normal distribution, whose likelihood is within χ²/2 of the maximum's."""
    y = np.random.default_rng(2).standard_t(6, 80)
    fit = th.fit("student_t", {"y": y})
    normal = th.fit("normal", {"y": y})
    assert 2 * (fit.log_likelihood - normal.log_likelihood) < C95
    ends = fit.intervals(kind="profile", parameters="df")
    assert ends["high"].iloc[0] == math.inf
    assert 0 < ends["low"].iloc[0] < fit.estimates["df"]


def test_a_higher_maximum_met_on_the_way_is_reported():
    """Two modes of a Cauchy location: a fit that stands at the lower one is told of the higher, not given an
    interval."""

    @th.model(location=4.0)
    def cauchy(batch, location):
        return -torch.log1p((batch["y"] - location) ** 2) - math.log(math.pi)

    y = torch.tensor([-4.0, -4.1, -3.9, -4.05, 4.0, 4.1, 3.95], dtype=torch.float64)
    fit = th.fit(cauchy, {"y": y})
    assert fit.estimates["location"] > 3
    with pytest.raises(NotConverged, match="local maximum"):
        fit.intervals(0.9999999, kind="profile")


# ---- curves ------------------------------------------------------------------------------------------------


def test_the_curve_of_a_normal_mean_is_its_closed_form():
    """ℓ_p(μ) − ℓ̂ = −n/2·log(1 + (ȳ − μ)²/σ̂²), at equal steps of the signed root."""
    y = DATA["z"].to_numpy()[:12]
    fit = th.fit("normal", {"y": y})
    curve = fit.profile("mean", points=11, level=0.99)
    assert_allclose(
        curve["log_likelihood"], -len(y) / 2 * np.log1p((y.mean() - curve["value"]) ** 2 / y.var()), atol=1e-9
    )
    assert_allclose(curve["root"], np.linspace(-1, 1, 11) * math.sqrt(chi2.ppf(0.99, 1)), atol=1e-12)
    assert curve["value"].is_monotonic_increasing


def test_the_ends_of_a_curve_are_the_interval_s(negbin):
    """Two functions, one curve."""
    for name in negbin.names:
        curve = negbin.profile(name, points=7, level=0.95)
        assert_allclose(
            [curve["value"].iloc[0], curve["value"].iloc[-1]],
            negbin.intervals(kind="profile", parameters=name).iloc[0],
            rtol=1e-7,
        )


def test_a_curve_without_an_end_is_followed_by_refits():
    """The side on which ℓ_p stays above the level has points all the same, and each is at most 0."""
    fit = th.fit("student_t", {"y": np.random.default_rng(2).standard_t(6, 80)})
    curve = fit.profile("df", points=9, level=0.95)
    assert (curve["log_likelihood"] <= 1e-9).all()
    assert curve["value"].is_monotonic_increasing
    assert (
        np.sign(curve["root"]) == np.sign(curve["value"] - fit.estimates["df"]).where(curve["root"] != 0, 0)
    ).all()
    assert (curve["value"] > fit.estimates["df"]).sum() >= 3


# ---- bootstrap and refusals --------------------------------------------------------------------------------


def test_bootstrap_intervals_are_the_quantiles_of_the_draws(logit):
    """Efron's percentile interval, from the same seeded draws."""
    draws = logit.bootstrap(60, seed=3)
    ours = logit.intervals(0.8, kind="bootstrap", draws=60, seed=3)
    assert_allclose(ours, draws.quantile([0.1, 0.9]).T, rtol=1e-12)
    assert ours.attrs["failed"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "exact"}, "Accepted: 'wald'"),
        ({"level": 95}, "between 0 and 1"),
        ({"parameters": "xx"}, "Nearest: 'x'"),
        ({"kind": "profile", "covariance": "sandwich"}, "takes none"),
        ({"kind": "profile", "by": "g"}, "takes none"),
    ],
)
def test_an_interval_that_cannot_be_is_refused_with_its_reason(logit, arguments, message):
    """Each names the argument and what is accepted."""
    with pytest.raises(BadArgument, match=message):
        logit.intervals(**arguments)


def test_a_weighted_log_likelihood_has_no_profile():
    """Weights that are no counts break the χ² of the likelihood ratio."""

    @th.model(mu=0.0)
    def mean(batch, mu):
        return -0.5 * (batch["y"] - mu) ** 2

    fit = th.fit(
        mean, {"y": torch.arange(6.0), "w": torch.ones(6)}, weights=lambda batch, log_prob: batch["w"]
    )
    with pytest.raises(BadArgument, match="sandwich"):
        fit.intervals(kind="profile")
