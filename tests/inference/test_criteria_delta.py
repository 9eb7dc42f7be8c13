"""Information criteria and the delta method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from numpy.testing import assert_allclose

import thetahat as th
from tests.evaluation.test_nonparametric import AML
from thetahat.errors import BadArgument

from .data import counts

DATA = counts()


def test_aic_and_bic_are_statsmodels():
    """statsmodels 0.15, GLM Poisson: aic, bic_llf."""
    fit = th.fit("y ~ x + w", DATA, "poisson")
    other = sm.GLM(DATA["y"], sm.add_constant(DATA[["x", "w"]]), family=sm.families.Poisson()).fit(tol=1e-12)
    assert_allclose(fit.criteria["AIC"], other.aic, rtol=1e-10)
    assert_allclose(fit.criteria["BIC"], other.bic_llf, rtol=1e-10)
    assert_allclose(fit.criteria["AICc"], other.aic + 2 * 3 * 4 / (300 - 4), rtol=1e-10)


def test_tic_of_a_normal_has_its_closed_form():
    """tr(J⁻¹K) of (μ, σ): 1 + (κ − 1)/2, κ the fourth standardised moment: 2 where the data are normal (κ
    = 3)."""
    z = DATA["z"].to_numpy()
    fit = th.fit("normal", {"y": z})
    kurtosis = np.mean(((z - z.mean()) / z.std()) ** 4)
    assert_allclose(fit.criteria["TIC"], -2 * fit.log_likelihood + 2 * (1 + (kurtosis - 1) / 2), rtol=1e-9)


def test_tic_counts_the_overdispersion_that_a_poisson_ignores():
    """Var y = φμ makes tr(J⁻¹K) ≈ φp: more than AIC's p where counts are overdispersed."""
    fit = th.fit("y ~ x + w", DATA, "poisson")
    assert fit.criteria["TIC"] > fit.criteria["AIC"] + 2


def test_aicc_is_infinite_where_there_are_as_many_parameters_as_rows():
    """n − p − 1 = 0."""
    fit = th.fit("y ~ x", {"y": [1.0, 2.0, 5.0], "x": [0.0, 1.0, 2.0]}, "poisson")
    assert fit.criteria["AICc"] == math.inf


def test_the_delta_method_of_a_ratio_has_its_closed_form():
    """Var(a/b) ≈ (V_aa − 2(a/b)V_ab + (a/b)²V_bb)/b² (Fieller's first order)."""
    fit = th.fit("z ~ x + w", DATA)
    a, b = fit.estimates["x"], fit.estimates["w"]
    V = fit.covariance()
    out = fit.delta(lambda v: {"ratio": v["x"] / v["w"], "both": torch.stack([v["x"], v["scale"] ** 2])})
    exact = math.sqrt((V.loc["x", "x"] - 2 * a / b * V.loc["x", "w"] + (a / b) ** 2 * V.loc["w", "w"]) / b**2)
    assert_allclose(out.loc["ratio"], [a / b, exact], rtol=1e-9)
    scale, error = fit.estimates["scale"], fit.standard_errors()["scale"]
    assert_allclose(out.loc["both[1]"], [scale**2, 2 * scale * error], rtol=1e-9)
    assert_allclose(out.loc["both[0]"], [a, math.sqrt(V.loc["x", "x"])], rtol=1e-9)


def test_the_delta_method_takes_any_covariance_and_any_model():
    """A linear function has the sandwich's own variance; a simplex's entropy that of the multinomial."""
    fit = th.fit("y ~ x + w", DATA, "poisson")
    V = fit.covariance("sandwich").to_numpy()
    c = np.array([0.0, 1.0, 2.0])
    out = fit.delta(lambda v: v["x"] + 2 * v["w"], covariance="sandwich")
    assert_allclose(out.loc["value", "standard_error"], math.sqrt(c @ V @ c), rtol=1e-9)

    @th.model(measure="mass", p=th.simplex(3))
    def shares(batch, p):
        return torch.log(p)[batch["y"].long()]

    own = th.fit(shares, {"y": np.repeat([0.0, 1.0, 2.0], [20, 50, 30])})
    p = np.array([0.2, 0.5, 0.3])
    out = own.delta(lambda v: -sum(v[f"p[{k}]"] * torch.log(v[f"p[{k}]"]) for k in range(3)))
    entropy = -(p * np.log(p)).sum()
    assert_allclose(
        out.iloc[0], [entropy, math.sqrt(((p * np.log(p) ** 2).sum() - entropy**2) / 100)], rtol=1e-7
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda v: v["xx"], "Nearest: 'x'"),
        (lambda v: 1.0, "Accepted: a tensor"),
        (lambda v: {}, "returned nothing"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused(function, message):
    """A name that no estimate has; something that is no tensor; nothing."""
    with pytest.raises(BadArgument, match=message):
        th.fit("z ~ x", DATA).delta(function)


def test_cox_s_bic_counts_the_events_as_r_s() -> None:
    """R 4, survival: f <- coxph(Surv(time, status) ~ x, aml); AIC(f); BIC(f); nobs(f) is 18, of 23 rows."""
    fit = th.fit("Surv(time, status) ~ x", AML, "cox")
    assert fit.criteria["AIC"] == pytest.approx(84.0652311929, rel=1e-9)
    assert fit.criteria["BIC"] == pytest.approx(84.9556029508, rel=1e-9)
    assert fit.criteria["BIC"] == pytest.approx(-2 * fit.log_likelihood + np.log(18), rel=1e-12)
    assert "count the events" in str(fit.summary())


def test_a_working_likelihood_and_a_restricted_one_say_so() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    data = {"y": x + rng.normal(size=60), "x": x}
    fits = [th.fit(f, data, "asymmetric_laplace(level=0.9)") for f in ("y ~ 1", "y ~ x")]
    said = "working likelihood: its maximum is the quantile of level 0.9"
    for text in (
        th.compare(fits).note,
        fits[1].check(draws=19).note,
        " ".join(str(fits[1].summary()).split()),
    ):
        assert said in text
    assert said not in th.compare([th.fit("y ~ x", data, "laplace"), th.fit("y ~ x", data)]).note
    smooth = th.fit("y ~ s(x, k=5)", data, reml=True)
    assert "BIC are of the restricted likelihood" in str(smooth.summary())
