"""Deviances, R² and variance inflation: figures of R 4 (glm with epsilon = 1e-15, MASS::glm.nb, car::vif)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from tests.inference.test_anova import WARP
from thetahat.errors import BadArgument

DATA = WARP.assign(x=np.arange(1, 48) / 20, e=([1.0, 2, 3] * 16)[:47], b=(WARP["breaks"] > 26) * 1.0)
WHOLE = "breaks ~ wool*tension + x"


@pytest.mark.parametrize(
    ("formula", "family", "expected"),
    [
        # m$deviance, m$df.residual, m$null.deviance, m$df.null, X² = sum(residuals(m, "pearson")^2), X²/m$df.residual
        (WHOLE, "poisson", [146.957198205, 40, 278.378654998, 46, 140.63973415, 3.51599335375]),
        ("breaks ~ wool + offset(log(e))", "poisson", [625.447143886, 45, 646.001439724, 46, 805.371081852, 17.8971351523]),
        (WHOLE, "gamma", [5.32756772894, 40, 9.60453505831, 46, 4.72852963244, 0.118213240811]),
        (WHOLE, "inverse_gaussian", [0.21654201024, 40, 0.360474283568, 46, 0.171202659726, 0.00428006649316]),
        (WHOLE, "normal", [4595.33118221, 40, 8761.65957447, 46, 4595.33118221, 114.883279555]),
        (WHOLE, "negative_binomial", [47.1191869553, 40, 87.0190083728, 46, 43.2217085425, 1.08054271356]),
        ("b ~ wool + tension + x", "bernoulli", [57.5427546945, 42, 65.1345567713, 46, 46.7932915166, 1.11412598849]),
    ],
)  # fmt: skip
def test_a_deviance_is_rs(formula: str, family: str, expected: list[float]) -> None:
    found = th.fit(formula, DATA, family).deviance()
    assert list(found.index) == ["deviance", "degrees_of_freedom", "null_deviance", "null_degrees_of_freedom", "pearson",
                                 "dispersion"]  # fmt: skip
    assert np.allclose(found, expected, rtol=2e-8)


def test_r_squared_of_a_normal_linear_model_is_rs() -> None:
    """summary(lm(…))$r.squared, $adj.r.squared; without an intercept R compares with a mean of 0, and so do we."""
    assert np.allclose(th.fit(WHOLE, DATA).r_squared(), [0.475518177447, 0.396845904064], rtol=1e-9)
    assert np.allclose(
        th.fit("breaks ~ 0 + x", DATA).r_squared(), [0.485907523031, 0.474731599618], rtol=1e-9
    )


def test_pseudo_r_squared_by_their_formulas_in_r() -> None:
    """From logLik and fitted of R's glm, by the definitions."""
    found = th.fit("b ~ wool + tension + x", DATA, "bernoulli").r_squared()
    expected = {"McFadden": 0.116555672644, "Cox–Snell": 0.149157040412, "Nagelkerke": 0.198906077442,
                "Efron": 0.152165482602, "Tjur": 0.152820416193}  # fmt: skip
    assert found.index.tolist() == list(expected)
    assert np.allclose(found, list(expected.values()), rtol=1e-9)
    flat = th.fit("b ~ 1", DATA, "bernoulli").r_squared()
    assert np.allclose(flat, 0, atol=1e-12)
    assert (
        "McFadden" not in th.fit(WHOLE, DATA, "gamma").r_squared()
    )  # a density's ratio depends on the unit of y


def test_variance_inflation_is_that_of_car() -> None:
    """car::vif of lm, of glm(binomial) and of glm(poisson): GVIF, Df, GVIF^(1/(2*Df))."""
    line = th.fit("breaks ~ wool + tension + x", DATA).vif()
    assert np.allclose(line["gvif"], [24.78067998881, 8.60099159302, 33.08945893512], rtol=1e-9)
    assert line["degrees_of_freedom"].tolist() == [1, 2, 1]
    assert np.allclose(line["gvif^(1/2df)"], [4.97801968546, 1.71252583048, 5.75234377755], rtol=1e-9)
    logit = th.fit("b ~ wool + tension + x", DATA, "bernoulli").vif()
    assert np.allclose(logit["gvif"], [25.41023324536, 8.85659079058, 32.16139846882], rtol=1e-7)
    counts = th.fit("breaks ~ wool + tension + x", DATA, "poisson").vif()
    assert np.allclose(counts["gvif"], [25.2493125943, 8.3880256503, 33.4204765796], rtol=1e-7)


def test_counts_are_rows() -> None:
    twice = pd.concat([DATA, DATA.iloc[:10]])
    weighted = DATA.assign(n=[2.0] * 10 + [1.0] * 37)
    a, b = th.fit(WHOLE, twice, "poisson"), th.fit(WHOLE, weighted, "poisson", weights="n")
    assert np.allclose(a.deviance(), b.deviance(), rtol=1e-9)
    assert np.allclose(a.r_squared(), b.r_squared(), rtol=1e-9)


def test_what_has_none_is_refused_by_name() -> None:
    with pytest.raises(BadArgument, match="Two or more"):
        th.fit("breaks ~ x", DATA).vif()
    with pytest.raises(BadArgument, match="prior"):
        th.fit("breaks ~ x", DATA, prior=th.priors.Normal(1.0)).deviance()
    with pytest.raises(BadArgument, match="robust"):
        th.fit("breaks ~ x", DATA, robust="density_power:0.3").r_squared()
    with pytest.raises(BadArgument, match="Mixed"):
        th.fit("breaks ~ x + (1 | tension)", DATA, on_failure="return").deviance()
