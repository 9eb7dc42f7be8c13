"""The evidence: exact where the posterior is normal, close to the integral elsewhere, and refused where
there is none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

import thetahat as th
from thetahat.errors import BadArgument, FlatDirection, NoCurvature
from thetahat.inference.evidence import evidence, unheld

EVERY = ["Intercept", "x*"]


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 25),
    p=st.integers(1, 30),
    scale=st.floats(0.1, 3),
    sigma=st.floats(0.3, 3),
    location=st.floats(-1, 1),
    seed=st.integers(0, 10**6),
)
def test_the_evidence_of_a_normal_linear_model_is_exact(n, p, scale, sigma, location, seed):
    """y ~ N(Xm, s²XXᵀ + σ²I): scipy's multivariate normal. More columns than rows are no hindrance."""
    r = np.random.default_rng(seed)
    X = r.normal(size=(n, p))
    y = X @ r.normal(size=p) + r.normal(size=n)
    names = [f"x{j}" for j in range(p)]
    frame = pd.DataFrame(X, columns=names).assign(y=y)
    fit = th.fit(
        "y ~ " + " + ".join(names), frame, scale=sigma, prior=th.priors.Normal(scale, location, on=EVERY)
    )
    X1 = np.column_stack([np.ones(n), X])
    known = stats.multivariate_normal(
        X1.sum(1) * location, scale**2 * X1 @ X1.T + sigma**2 * np.eye(n)
    ).logpdf(y)
    assert fit.evidence == pytest.approx(known, rel=1e-10, abs=1e-8)


def test_two_priors_are_compared_by_their_densities():
    """A Bayes factor by the closed form, whose normalising constants count."""
    r = np.random.default_rng(0)
    x = r.normal(size=30)
    data = {"x": x, "y": 0.4 * x + r.normal(size=30)}
    narrow, wide = (
        th.fit("y ~ x - 1", data, scale=1.0, prior=th.priors.Normal(s)).evidence for s in (0.5, 50.0)
    )
    C = [np.eye(30) + s**2 * np.outer(x, x) for s in (0.5, 50.0)]
    known = [stats.multivariate_normal(np.zeros(30), c).logpdf(data["y"]) for c in C]
    assert narrow - wide == pytest.approx(known[0] - known[1], abs=1e-9)
    assert narrow - wide > 2


@pytest.mark.parametrize(
    "prior", [th.priors.Normal(1.5), th.priors.StudentT(1.5)], ids=lambda p: type(p).__name__
)
def test_elsewhere_the_error_of_the_approximation_falls_as_one_over_n(prior):
    """log ∫ p(y | β) p(β) dβ of a logistic regression of one coefficient, by quadrature."""
    errors = []
    for n in (20, 80, 320):
        r = np.random.default_rng(5)
        x = np.tile(r.normal(size=20), n // 20)
        y = np.tile((r.random(20) < 1 / (1 + np.exp(-0.8 * x[:20]))) * 1.0, n // 20)
        fit = th.fit("y ~ x - 1", {"x": x, "y": y}, "bernoulli", prior=prior)
        at = float(fit.theta[0])
        own = stats.norm(0, 1.5) if isinstance(prior, th.priors.Normal) else stats.t(4, 0, 1.5)

        def joint(b, x=x, y=y, own=own):
            return (y * x * b - np.logaddexp(0, x * b)).sum() + own.logpdf(b)

        integral = integrate.quad(
            lambda b, at=at: np.exp(joint(b) - joint(at)), at - 8, at + 8, points=[at], limit=400
        )[0]
        errors.append(abs(fit.evidence - (joint(at) + np.log(integral))))
    assert errors[0] < 0.05
    assert errors[1] < 0.4 * errors[0]
    assert errors[2] < 0.4 * errors[1]


def test_the_evidence_wants_a_prior_on_every_coordinate():
    """Without one the integral has no finite value; the message names the coordinate and how to give it
    one."""
    data = {"y": [1.0, 2.0, 2.5, 4.5], "x": [0.0, 1.0, 2.0, 3.0]}
    fit = th.fit("y ~ x", data, prior=th.priors.Normal(1.0))
    with pytest.raises(BadArgument, match=r"'Intercept', 'scale' have no prior.*on='Intercept'"):
        _ = fit.evidence
    assert unheld(fit.objective) == ["Intercept", "scale"]
    every = [th.priors.Normal(1.0), th.priors.Normal(5.0, on="Intercept"), th.priors.Normal(2.0, on="scale")]
    assert np.isfinite(th.fit("y ~ x", data, prior=every).evidence)
    assert unheld(th.fit("y ~ x", data, prior=every).objective) == []
    with pytest.raises(BadArgument, match="no prior"):
        _ = th.fit("y ~ x", data).evidence


def test_without_a_prior_the_difference_of_two_evidences_is_that_of_a_very_wide_one():
    """The constant that is left out is the same for both: log of the wide prior's density and its volume."""
    r = np.random.default_rng(1)
    x = r.normal(size=40)
    data = {"x": x, "y": 3 + 0.5 * x + r.normal(size=40)}
    flat, wide = [], []
    for s in (0.2, 2.0):
        one = th.fit("y ~ x", data, scale=1.0, prior=th.priors.Normal(s))
        flat.append(evidence(one.objective, one.theta, flat=True))
        both = th.fit(
            "y ~ x", data, scale=1.0, prior=[th.priors.Normal(s), th.priors.Normal(1e5, on="Intercept")]
        )
        wide.append(both.evidence)
    assert flat[0] - flat[1] == pytest.approx(wide[0] - wide[1], abs=1e-6)


def test_a_weighting_and_a_kink_have_no_evidence():
    data = {"y": [1.0, 2.0, 2.5, 4.5], "x": [0.0, 1.0, 2.0, 3.0]}
    with pytest.raises(NoCurvature, match="held out"):
        _ = th.fit("y ~ x - 1", data, scale=1.0, prior=th.priors.Laplace(1.0)).evidence
    model, source = th.models.formulas.regression(
        "y ~ x - 1", data | {"y": [1, 2, 2, 4]}, th.families.Poisson()
    )
    fit = th.maximize(
        th.LogLikelihood(model, source, lambda batch, log_prob: 0.5 * batch.count)
        + th.LogPrior(th.priors.Normal(1.0), model)
    )
    with pytest.raises(BadArgument, match="weighted"):
        _ = fit.evidence


def test_a_robust_fit_has_no_evidence():
    data = {"y": [1.0, 2.0, 2.5, 40.0], "x": [0.0, 1.0, 2.0, 3.0]}
    fit = th.fit("y ~ x - 1", data, scale=1.0, prior=th.priors.Normal(1.0), robust=th.DensityPower(0.5))
    with pytest.raises(BadArgument, match="robust"):
        evidence(fit.objective, fit.theta)


def test_a_saddle_has_no_volume():
    """Student's t around 0 and data beyond: between the two maxima the information is negative."""
    data = {"y": [0.0] * 3, "x": [1.0] * 3}
    fit = th.fit(
        "y ~ x - 1", data, scale=40.0, prior=th.priors.StudentT(0.1, 60.0, df=1.0), on_failure="return"
    )
    with pytest.raises(FlatDirection, match="volume"):
        evidence(fit.objective, fit.theta * 0 + 59.0)
