"""What is asked of mixed models and smooth terms beyond their own tests: each answer against another road to it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th

RNG = np.random.default_rng(5)
N = 240
DATA = pd.DataFrame(
    {"x": RNG.random(N), "z": RNG.random(N), "g": RNG.integers(0, 12, N), "h": RNG.integers(0, 5, N)}
)
DATA["y"] = np.sin(5 * DATA["x"]) + RNG.normal(size=12)[DATA["g"]] + 0.4 * RNG.normal(size=N)
DATA["k"] = RNG.poisson(np.exp(0.3 + 0.5 * RNG.normal(size=12)[DATA["g"]]))
DATA["b"] = (RNG.random(N) < 0.3 + 0.4 * DATA["x"]).astype(int)


@pytest.fixture(scope="module")
def normal():
    return th.fit("y ~ x + (x | g) + (1 | h)", DATA)


def test_a_new_value_is_less_certain_than_its_mean(normal):
    mean, new = normal.predict(level=0.9), normal.predict(level=0.9, kind="prediction")
    assert ((new["high"] - new["low"]) > (mean["high"] - mean["low"])).all()


def test_every_factor_has_its_effects(normal):
    table = normal.random_effects()
    assert table.groupby("factor").size().to_dict() == {"g": 24, "h": 5}
    assert (table["standard_error"] > 0).all()


def test_wald_intervals_of_components_hold_the_estimate(normal):
    table = normal.variance_components(intervals="wald")
    inside = table[table["sd"].notna() & table["low"].gt(0)]
    assert ((inside["low"] < inside["sd"]) & (inside["sd"] < inside["high"])).all()
    assert normal.variance_components(intervals=None)["low"].isna().all()


def test_several_terms_are_tested_one_by_one(normal):
    """A term of two effects gives a bound, one of one effect the mixture itself."""
    assert normal.test_random("g").bound
    assert not normal.test_random("(1 | h)").bound


def test_a_restricted_fit_is_tested_against_its_own_null():
    fit = th.fit("y ~ x + (1 | g)", DATA, reml=True)
    line = th.fit("y ~ x", DATA)
    n, p, rss = N, 2, float((line.residuals("response") ** 2).sum())
    X = np.column_stack([np.ones(N), DATA["x"]])
    s2 = rss / (n - p)
    null = -0.5 * ((n - p) * (np.log(2 * np.pi * s2) + 1) + np.linalg.slogdet(X.T @ X)[1])
    assert fit.test_random("g").statistic == pytest.approx(2 * (fit.maximised - null), abs=1e-6)


@pytest.mark.parametrize(("response", "family"), [("k", "poisson"), ("b", "bernoulli")])
def test_r_squared_of_counts_and_of_events(response, family):
    found = th.fit(f"{response} ~ x + (1 | g)", DATA, family).r_squared()
    assert 0 <= found["marginal"] <= found["conditional"] < 1


def test_a_family_without_a_residual_variance_has_no_r_squared():
    with pytest.raises(th.errors.BadArgument, match="residual variance"):
        th.fit("k ~ x + (1 | g)", DATA, "negative_binomial", on_failure="return").r_squared()


def test_a_random_effect_is_a_smooth_term_of_levels():
    """s(g, bs = "re") and (1 | g) are one model."""
    text = DATA.assign(g=DATA["g"].astype(str))
    one, other = th.fit("y ~ x + (1 | g)", text), th.fit("y ~ x + s(g, bs='re')", text)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-8)
    assert np.allclose(one.predict(), other.predict(), atol=1e-6)


def test_a_surface_of_products_follows_a_product():
    data = DATA.assign(y=np.sin(4 * DATA["x"]) * np.cos(4 * DATA["z"]) + 0.1 * RNG.normal(size=N))
    fit = th.fit("y ~ te(x, z)", data, reml=True)
    at = pd.DataFrame({"x": [0.3, 0.6], "z": [0.5, 0.7]})
    assert np.allclose(fit.predict(at), np.sin(4 * at["x"]) * np.cos(4 * at["z"]), atol=0.15)
    with pytest.raises(th.errors.BadArgument, match="say at which rows"):
        fit.curve("te(x,z)")
    found = fit.curve("te(x,z)", at)
    assert (found["standard_error"] > 0).all()
    with pytest.raises(th.errors.BadFormula, match="no one derivative"):
        fit.curve("te(x,z)", at, derivative=True)


def test_a_band_of_the_whole_curve_is_wider_than_one_of_each_point():
    fit = th.fit("y ~ s(x) + (1 | g)", DATA, reml=True)
    each, whole = fit.curve("s(x)"), fit.curve("s(x)", simultaneous=True)
    assert ((whole["high"] - whole["low"]) > (each["high"] - each["low"])).all()
    assert np.allclose(each["value"], whole["value"])
    with pytest.raises(th.errors.BadArgument, match=r"level=1\.5"):
        fit.curve("s(x)", level=1.5)


def test_the_report_of_a_mixed_model_is_written(tmp_path):
    fit = th.fit("y ~ x + (1 | g)", DATA)  # of one component: a report profiles each of them
    text = fit.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h2>Random effects</h2>" in text
    assert "Intercept | g" in text
