"""What stopped a new user in ten analyses of real data, from the documentation alone: each is answered, or refused with the
way on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th


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
