"""Proximal Newton: lasso and elastic net against closed forms, scikit-learn, and the subgradient condition
itself."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression

import thetahat as th
from thetahat.errors import BadArgument, FlatDirection, NoCurvature, NotConverged
from thetahat.solvers import choose


def columns(X, y):
    """A table of x0, x1 … and y, and its formula."""
    names = [f"x{j}" for j in range(X.shape[1])]
    return "y ~ " + " + ".join(names), pd.DataFrame(X, columns=names).assign(y=y)


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return X * np.sqrt(len(X)), y


# ---- closed forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("location", [0.0, 0.75])
def test_orthogonal_columns_have_the_soft_threshold(scale, location):
    """Tibshirani (1996), eq. 3: β̂ = m + sign(b − m)·(|b − m| − σ²/(s·Σx²))₊, b that of least squares."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 7)))[0] * 3
    y = Q @ [2.0, -1.0, 0.3, 0.0, 0.01, -4.0, 0.75] + np.random.default_rng(1).normal(size=40)
    formula, frame = columns(Q, y)
    fit = th.fit(formula + " - 1", frame, scale=1.3, prior=th.priors.Laplace(scale, location))
    b = Q.T @ y / 9
    known = location + np.sign(b - location) * np.maximum(np.abs(b - location) - 1.3**2 / (scale * 9), 0)
    np.testing.assert_allclose(fit.estimates, known, rtol=0, atol=1e-12)
    assert ((fit.estimates == location) == (known == location)).all()
    assert fit.certificate.zeros == (known == location).sum()
    assert fit.certificate.concave


def test_without_weight_on_the_kink_the_elastic_net_is_ridge_regression(diabetes):
    """Hoerl and Kennard (1970), by Newton and by the proximal method."""
    formula, frame = columns(*diabetes)
    ridge = th.fit(formula, frame, scale=50.0, prior=th.priors.Normal(7.0))
    same = th.fit(formula, frame, scale=50.0, prior=th.priors.ElasticNet(7.0, mix=0.0), solver=th.Proximal())
    np.testing.assert_allclose(same.estimates, ridge.estimates, rtol=1e-10)
    assert same.objective.value() == pytest.approx(ridge.objective.value(), rel=1e-13)


# ---- other software ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.03, 1.0, 20.0, 100.0])
def test_lasso_is_that_of_scikit_learn(diabetes, alpha):
    """‖y − Xβ‖²/2n + α‖β‖₁ is, times n/σ², minus the objective under Laplace(σ²/nα)."""
    formula, frame = columns(*diabetes)
    fit = th.fit(formula, frame, scale=54.0, prior=th.priors.Laplace(54.0**2 / (442 * alpha)))
    known = Lasso(alpha=alpha, tol=1e-13, max_iter=100_000).fit(*diabetes)
    np.testing.assert_allclose(fit.estimates.iloc[1:], known.coef_, rtol=0, atol=1e-9)
    assert fit.estimates["Intercept"] == pytest.approx(known.intercept_, rel=1e-12)
    assert fit.certificate.zeros == (known.coef_ == 0).sum()


@pytest.mark.parametrize(("alpha", "ratio"), [(0.1, 0.9), (2.0, 0.5), (10.0, 0.1)])
def test_elastic_net_is_that_of_scikit_learn(diabetes, alpha, ratio):
    """Its α·ρ·‖β‖₁ + ½α(1 − ρ)‖β‖², times n/σ²."""
    formula, frame = columns(*diabetes)
    unit = 442 / 54.0**2
    prior = th.priors.ElasticNet.of_penalty(alpha * ratio * unit, alpha * (1 - ratio) * unit)
    fit = th.fit(formula, frame, scale=54.0, prior=prior)
    known = ElasticNet(alpha=alpha, l1_ratio=ratio, tol=1e-13, max_iter=100_000).fit(*diabetes)
    np.testing.assert_allclose(fit.estimates.iloc[1:], known.coef_, rtol=0, atol=1e-9)
    assert fit.certificate.zeros == (known.coef_ == 0).sum()


@pytest.mark.parametrize("C", [0.003, 0.02, 0.3])
def test_logistic_lasso_is_that_of_scikit_learn(diabetes, C):
    """Its C is the prior's scale. It stops by its own test, at 10⁻⁷: the objective says whose answer is the
    higher."""
    X, y = diabetes
    y = (y > 150).astype(float)
    formula, frame = columns(X, y)
    fit = th.fit(formula, frame, "bernoulli", prior=th.priors.Laplace(C))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the name of the penalty
        known = LogisticRegression(
            penalty="elasticnet", l1_ratio=1, C=C, solver="saga", tol=1e-10, max_iter=20_000
        ).fit(X, y)
    np.testing.assert_allclose(fit.estimates.iloc[1:], known.coef_[0], rtol=0, atol=1e-6)
    assert fit.certificate.zeros == (known.coef_ == 0).sum()
    theirs = torch.tensor([known.intercept_[0], *known.coef_[0]])
    assert fit.objective.value(fit.theta) >= fit.objective.value(theirs) - 1e-12


# ---- the subgradient condition -----------------------------------------------------------------------------

FAMILIES = {
    "poisson": lambda eta, r: r.poisson(np.exp(0.3 * eta.clip(-6, 6))),
    "bernoulli": lambda eta, r: 1.0 * (r.random(len(eta)) < 0.5),
}
FAMILIES["normal"] = lambda eta, r: eta + r.normal(size=len(eta))
FAMILIES["student_t"] = lambda eta, r: eta + r.standard_t(3, size=len(eta))


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    n=st.integers(8, 60),
    p=st.integers(1, 12),
    scale=st.floats(0.02, 3.0),
    mix=st.sampled_from([0.2, 0.9, 1.0]),
    seed=st.integers(0, 10**6),
)
@example(family="student_t", n=8, p=8, scale=0.1875, mix=1.0, seed=0)  # a curvature of the wrong sign at 0
@example(family="student_t", n=8, p=7, scale=0.25, mix=0.9, seed=1)  # and the rest still converge
def test_a_certified_maximum_satisfies_the_subgradient_condition(family, n, p, scale, mix, seed):
    """g_j = λ sign(θ_j) where θ_j ≠ 0, |g_j| ≤ λ where θ_j = 0, g the gradient of the rest: to a rounding, on
    random problems, wide ones too."""
    r = np.random.default_rng(seed)
    X = r.normal(size=(n, p)) + r.normal(size=(n, 1)) * r.integers(0, 3)
    formula, frame = columns(X, FAMILIES[family](X @ r.normal(size=p), r))
    held = {"scale": 1.0} if family in ("normal", "student_t") else {}
    prior = th.priors.ElasticNet(scale, mix=mix)
    fit = th.fit(formula, frame, family, prior=prior, on_failure="return", **held)
    if not fit.certificate.ok:
        assert fit.certificate.status in ("flat direction", "no maximum", "stationary point", "not converged")
        assert family == "student_t" or p >= n - 1 or len(set(frame["y"])) == 1, fit.certificate
        return
    theta = fit.theta[1 : p + 1].numpy()
    whole = fit.objective.taylor(fit.theta, order=2)
    g = whole.gradient[1 : p + 1].numpy() + prior.kink / scale * np.sign(theta)
    error = 1e-7 * np.sqrt(whole.information.dense().diagonal()[1 : p + 1].abs().numpy())
    miss = np.where(
        theta != 0,
        np.abs(g - prior.kink / scale * np.sign(theta)),
        np.maximum(np.abs(g) - prior.kink / scale, 0),
    )
    assert (miss <= error).all()
    assert fit.certificate.zeros == (theta == 0).sum()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.05, 2.0))
def test_no_other_theta_is_higher(seed, scale):
    """The objective of a concave model at its certified maximum exceeds that at any other θ, and by less
    than it says at its start."""
    r = np.random.default_rng(seed)
    X = r.normal(size=(30, 5))
    formula, frame = columns(X, r.poisson(np.exp(X[:, 0] * 0.7)))
    fit = th.fit(formula, frame, "poisson", prior=th.priors.Laplace(scale))
    top = fit.objective.value(fit.theta)
    for size in (1e-6, 1e-3, 1e-1, 1.0):
        other = fit.theta + size * torch.tensor(r.normal(size=6))
        assert fit.objective.value(other) < top + 1e-12 * abs(top)


def test_more_columns_than_rows_are_chosen_among():
    """30 rows and 200 columns, of which three matter: the lasso of scikit-learn, and a certified maximum."""
    r = np.random.default_rng(4)
    X = r.normal(size=(30, 200))
    y = X[:, :3] @ [3.0, -2.0, 1.5] + 0.3 * r.normal(size=30)
    formula, frame = columns(X, y)
    fit = th.fit(
        formula,
        frame,
        scale=1.0,
        prior=th.priors.Laplace(1 / (30 * 0.1)),
        solver=th.Proximal(tolerance=1e-11),
    )
    known = Lasso(alpha=0.1, tol=1e-16, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(fit.estimates.iloc[1:], known.coef_, rtol=0, atol=1e-9)
    assert fit.certificate.concave
    assert fit.certificate.rank == 1 + (known.coef_ != 0).sum()


def test_the_scale_of_the_errors_is_estimated_along():
    """At the maximum σ̂² is the mean square of the residuals, whatever the prior on the coefficients; and
    it is not called global."""
    X, y = load_diabetes(return_X_y=True)
    formula, frame = columns(X * 21, y)
    fit = th.fit(formula, frame, prior=th.priors.Laplace(2.0))
    assert fit.estimates["scale"] == pytest.approx(np.sqrt(np.mean((y - fit.predict()) ** 2)), rel=1e-9)
    assert fit.certificate.ok
    assert not fit.certificate.concave
    assert 0 < fit.certificate.zeros < 10


def test_a_large_enough_penalty_leaves_the_intercept_alone(diabetes):
    """All coefficients are zero from λ = max |∂ℓ/∂β_j| at zero on, and not before."""
    X, y = diabetes
    formula, frame = columns(X, y)
    edge = np.abs((X - X.mean(0)).T @ (y - y.mean())).max() / 54.0**2
    for factor, zeros in ((1 + 1e-9, 10), (1 - 1e-6, 9)):
        fit = th.fit(formula, frame, scale=54.0, prior=th.priors.Laplace(1 / (factor * edge)))
        assert fit.certificate.zeros == zeros
    assert fit.estimates["Intercept"] == pytest.approx(y.mean(), rel=1e-5)


def test_levels_of_a_wide_category_are_chosen_among():
    """80 levels, whose block of the information is kept apart for Newton: the lasso of their dummies, by
    scikit-learn."""
    r = np.random.default_rng(6)
    g = r.integers(0, 80, 800)
    frame = pd.DataFrame({"g": np.char.add("g", np.char.zfill(g.astype(str), 2)), "x": r.normal(size=800)})
    frame["y"] = 0.5 * frame["x"] + 2.0 * (g == 7) - 3.0 * (g == 33) + r.normal(size=800)
    fit = th.fit("y ~ x + g", frame, scale=1.0, prior=th.priors.Laplace(1 / (800 * 0.005)))
    dummies = pd.get_dummies(frame[["g"]], drop_first=True).to_numpy(float)
    known = Lasso(alpha=0.005, tol=1e-14, max_iter=100_000).fit(
        np.column_stack([frame["x"], dummies]), frame["y"]
    )
    np.testing.assert_allclose(fit.estimates.iloc[1:], known.coef_, rtol=0, atol=1e-9)
    assert fit.certificate.zeros == (known.coef_ == 0).sum() > 40


def test_two_models_in_one_objective_have_the_lassos_that_each_has_alone(diabetes):
    """Terms without a parameter in common are maximised together; each model's prior is on its own
    coefficients."""
    X, y = diabetes
    formula, frame = columns(X, y)
    other = frame.assign(y=(y > 150) * 1.0)
    parts = [
        (
            th.models.formulas.regression(formula, frame, th.families.Normal(), parameters={"scale": 54.0}),
            th.priors.Laplace(2.0),
        ),
        (
            th.models.formulas.regression(formula, other, th.families.Bernoulli()),
            th.priors.ElasticNet(0.05, mix=0.8),
        ),
    ]
    objective = th.Objective([])
    for (model, source), prior in parts:
        objective = objective + th.LogLikelihood(model, source) + th.LogPrior(prior, model)
    both = th.maximize(objective)
    alone = [
        th.fit(formula, frame, scale=54.0, prior=parts[0][1]).theta,
        th.fit(formula, other, "bernoulli", prior=parts[1][1]).theta,
    ]
    np.testing.assert_allclose(both.theta, torch.cat(alone), rtol=1e-8, atol=1e-9)
    assert both.certificate.zeros == sum(int((theta == 0).sum()) for theta in alone)


# ---- what is refused, and said -----------------------------------------------------------------------------


def test_columns_that_are_the_same_have_no_single_lasso(diabetes):
    """Tibshirani (2013): the maximum is one point if the columns of the equicorrelation set are independent.
    ElasticNet decides."""
    X, y = diabetes
    formula, frame = columns(X[:, [2, 3, 2]], y)
    for held in ({"scale": 54.0}, {}):
        with pytest.raises(FlatDirection, match=r"along 1·x0 − 1·x2 .*ElasticNet") as caught:
            th.fit(formula, frame, prior=th.priors.Laplace(1.0), **held)
        direction = caught.value.certificate.directions[0]
        assert direction["x0"] == pytest.approx(-direction["x2"], abs=1e-6)
    fit = th.fit(formula, frame, scale=54.0, prior=th.priors.ElasticNet(1.0))
    assert fit.estimates["x0"] == pytest.approx(fit.estimates["x2"], rel=1e-9)


def test_separated_rows_without_a_prior_on_the_separating_column_have_no_maximum():
    data = {"y": [0.0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6], "z": [1.0, 0, 1, 0, 1, 0]}
    fit = th.fit("y ~ x + z", data, "bernoulli", prior=th.priors.Laplace(1.0))
    assert fit.certificate.ok
    fit = th.fit("y ~ x + z", data, "bernoulli", prior=th.priors.Laplace(1.0, on="z"), on_failure="return")
    assert fit.certificate.status == "no maximum"
    for seed in range(20):
        r = np.random.default_rng(seed)
        x, scale = r.normal(size=30), 10 ** r.uniform(-2, 1)
        data = {"y": 1.0 * (x > r.normal()), "x": x * 10 ** r.uniform(-3, 3), "z": r.normal(size=30)}
        prior = th.priors.Laplace(scale, on="z")
        with pytest.raises(th.errors.NoMaximum, match="separated"):
            th.fit("y ~ x + z", data, "bernoulli", prior=prior)


@pytest.mark.parametrize("solver", [th.Newton(), th.LBFGS(), th.EM()], ids=lambda s: type(s).__name__)
def test_solvers_that_go_by_curvature_refuse_a_kink(diabetes, solver):
    formula, frame = columns(*diabetes)
    with pytest.raises(BadArgument, match=rf"{type(solver).__name__}.*Proximal"):
        th.fit(formula, frame, prior=th.priors.Laplace(1.0), solver=solver)


def test_the_proximal_method_is_chosen_for_a_kink_and_not_otherwise(diabetes):
    formula, frame = columns(*diabetes)
    fits = {
        prior: th.fit(formula, frame, prior=prior).solver
        for prior in (th.priors.Laplace(9.0), th.priors.Normal(9.0))
    }
    assert [type(solver) for solver in fits.values()] == [th.Proximal, th.Newton]
    with pytest.raises(BadArgument, match="mixture"):
        th.fit(th.models.Mixture("normal", 2), diabetes[1], prior=th.priors.Laplace(1.0))
    wide = th.models.Conditional(th.families.Normal(), th.networks.mlp(1, (3000,), 2, dtype=torch.float64))
    term = th.LogLikelihood(wide, th.data.Tensors({"x": torch.zeros(2, 1), "y": torch.zeros(2)}))
    with pytest.raises(BadArgument, match=r"12002 parameters.*Stochastic"):
        choose(term + th.LogPrior(th.priors.Laplace(1.0), wide))


def test_stochastic_ascent_says_that_it_finds_no_zeros(diabetes):
    X, y = diabetes
    formula, frame = columns(X, y / y.std())
    fit = th.fit(formula, frame, prior=th.priors.Laplace(0.1), solver=th.Stochastic(steps=20))
    assert "no coefficient is exactly zero" in fit.certificate.detail
    assert (fit.estimates != 0).all()


def test_a_climb_cut_short_is_not_certified(diabetes):
    X, y = diabetes
    formula, frame = columns(X, (y > 150) * 1.0)
    with pytest.raises(NotConverged, match="Stopped after 1 step"):
        th.fit(formula, frame, "bernoulli", prior=th.priors.Laplace(1.0), solver=th.Proximal(steps=1))


ASKED = {
    "standard_errors": lambda fit: fit.standard_errors(),
    "covariance, sandwich": lambda fit: fit.covariance("sandwich"),
    "intervals, wald": lambda fit: fit.intervals(),
    "intervals, profile": lambda fit: fit.intervals(kind="profile", parameters="x2"),
    "profile": lambda fit: fit.profile("x2"),
    "test": lambda fit: fit.test("x2 = 0"),
    "test, likelihood ratio": lambda fit: fit.test("x2 = 0", "likelihood_ratio"),
    "test, score": lambda fit: fit.test("x2 = 0", "score"),
    "delta": lambda fit: fit.delta(lambda v: v["x2"]),
    "effects": lambda fit: fit.effects(),
    "influence": lambda fit: fit.influence(),
    "predict, with its interval": lambda fit: fit.predict(level=0.9),
    "criteria": lambda fit: fit.criteria,
    "evidence": lambda fit: fit.evidence,
}


@pytest.fixture(scope="module")
def lasso(diabetes):
    formula, frame = columns(*diabetes)
    return th.fit(formula, frame, prior=th.priors.Laplace(2.0))


@pytest.mark.parametrize("what", ASKED)
def test_what_needs_curvature_is_refused_with_the_reason(lasso, what):
    with pytest.raises(NoCurvature, match="kink"):
        ASKED[what](lasso)


def test_the_summary_shows_estimates_zeros_and_why_there_are_no_errors(lasso, tmp_path):
    text = str(lasso.summary())
    assert "No standard errors: under a prior with a kink" in text
    assert f"{lasso.certificate.zeros} of 10 penalised coefficients are exactly 0" in text
    assert "AIC" not in text
    page = lasso.report(tmp_path / "lasso.html").read_text(encoding="utf-8")
    assert "The prior has a kink" in page


def test_a_saved_lasso_is_the_same(lasso, tmp_path):
    again = th.load(lasso.save(tmp_path / "lasso.thetahat"))
    assert (again.estimates == lasso.estimates).all()
    assert again.certificate == lasso.certificate
    assert again.solver == lasso.solver
    with pytest.raises(NoCurvature):
        again.standard_errors()


def test_a_bootstrap_of_a_lasso_refits_lassos(diabetes):
    """Percentiles of refits whose zeros are exact; each refit of counts is the fit to the repeated rows."""
    X, y = diabetes
    formula, frame = columns(X[:60, :4], y[:60])
    fit = th.fit(formula, frame, scale=54.0, prior=th.priors.Laplace(2.0))
    draws = fit.bootstrap(12, seed=3)
    assert ((draws == 0).any()).any()
    assert draws.notna().all().all()
    rng = np.random.default_rng(np.random.SeedSequence(entropy=3, spawn_key=(0,)))
    count = rng.multinomial(60, np.full(60, 1 / 60))
    repeated = th.fit(formula, frame.loc[frame.index.repeat(count)], scale=54.0, prior=th.priors.Laplace(2.0))
    np.testing.assert_allclose(draws.iloc[0], repeated.estimates, rtol=1e-6, atol=1e-6)


def test_an_estimator_of_scikit_learns_interface_is_a_lasso(diabetes):
    """The same zeros and coefficients as LogisticRegression's; of columns that are the same it warns, and
    predicts all the same."""
    from sklearn.exceptions import ConvergenceWarning

    from thetahat.sklearn import Classifier, Regressor

    X, y = diabetes
    found = Classifier(prior=th.priors.Laplace(0.02)).fit(X, y > 150)
    formula, frame = columns(X, (y > 150) * 1.0)
    known = th.fit(formula, frame, "bernoulli", prior=th.priors.Laplace(0.02))
    np.testing.assert_allclose(found.coef_.ravel(), known.estimates.iloc[1:], atol=1e-10)
    twice = np.column_stack([X[:, 2], X[:, 3], X[:, 2]])
    with pytest.warns(ConvergenceWarning, match="not one point"):
        alike = Regressor(prior=th.priors.Laplace(5.0)).fit(twice, y)
    single = Regressor(prior=th.priors.Laplace(5.0)).fit(X[:, 2:4], y)
    np.testing.assert_allclose(alike.predict(twice), single.predict(X[:, 2:4]), rtol=1e-6)
