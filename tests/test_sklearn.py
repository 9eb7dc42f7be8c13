"""The estimators are scikit-learn's in manner, and maximum likelihood's in numbers."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import thetahat as th
from thetahat.errors import BadArgument, BadWeights, FlatDirection, MissingExtra, NoMaximum, OutOfSupport
from thetahat.sklearn import Classifier, Regressor

ESTIMATORS = [Regressor(), Regressor("gamma"), Classifier(), Classifier("bernoulli")]


# the checks' data hold aliased columns, separated classes and exact fits, of which the estimators warn
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_own_checks_hold(estimator, check):
    """sklearn.utils.estimator_checks, all of them, none expected to fail."""
    check(estimator)


@pytest.fixture
def data():
    r = np.random.default_rng(0)
    X = r.normal(size=(200, 3))
    return X, X @ [1.0, -0.5, 0.0] + 0.3, r


def test_a_normal_regressor_is_least_squares(data):
    """scikit-learn's LinearRegression: coefficients, predictions and R²; log p at its residuals' variance."""
    X, eta, r = data
    y = eta + r.normal(size=200)
    ours, theirs = Regressor().fit(X, y), LinearRegression().fit(X, y)
    assert ours.coef_ == pytest.approx(theirs.coef_, rel=1e-10)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, rel=1e-10)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), rel=1e-12)
    variance = np.mean((y - theirs.predict(X)) ** 2)
    assert ours.log_score(X, y) == pytest.approx(-0.5 * np.log(2 * np.pi * np.e * variance), rel=1e-10)
    assert ours.certificate_.status == "certified maximum"


def test_a_poisson_regressor_is_that_of_statsmodels(data):
    """statsmodels' GLM with frequency weights."""
    import statsmodels.api as sm

    X, eta, r = data
    y, weight = r.poisson(np.exp(0.5 * eta)), r.integers(1, 4, 200)
    ours = Regressor("poisson").fit(X, y, sample_weight=weight)
    theirs = sm.GLM(y, sm.add_constant(X), family=sm.families.Poisson(), freq_weights=weight).fit(tol=1e-12)
    assert [ours.intercept_, *ours.coef_] == pytest.approx(theirs.params, rel=1e-8)
    assert ours.predict(X) == pytest.approx(theirs.predict(sm.add_constant(X)), rel=1e-8)
    assert ours.log_score(X, y, weight) * weight.sum() == pytest.approx(theirs.llf, rel=1e-10)
    assert ours.fit_.standard_errors().to_numpy() == pytest.approx(theirs.bse, rel=1e-7)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "student_t", "laplace", "gamma"])
def test_an_estimator_is_the_formulas_fit(data, family):
    """th.fit with the formula y ~ x0 + x1 + x2: the same estimates, names and certificate."""
    X, eta, r = data
    y = (
        r.poisson(np.exp(0.3 * eta))
        if family in ("poisson", "negative_binomial")
        else r.gamma(2.0, np.exp(eta))
    )
    ours = Regressor(family).fit(X, y)
    fit = th.fit("y ~ x0 + x1 + x2", {"y": y, **{f"x{j}": X[:, j].copy() for j in range(3)}}, family)
    assert ours.fit_.names == fit.names
    assert ours.fit_.estimates.to_numpy() == pytest.approx(fit.estimates.to_numpy(), rel=1e-6, abs=1e-9)
    assert ours.certificate_.status == fit.certificate.status
    assert ours.log_score(X, y) * 200 == pytest.approx(fit.log_likelihood, rel=1e-9)


@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0])
def test_a_classifier_with_a_normal_prior_is_the_ridge_of_scikit_learn(data, scale):
    """LogisticRegression minimises Σ −log p + ‖β‖²/2C: a Normal prior of variance C."""
    X, eta, r = data
    y = np.where(r.uniform(size=200) < 1 / (1 + np.exp(-eta)), "yes", "no")
    ours = Classifier(prior=scale).fit(X, y)
    theirs = LogisticRegression(C=scale**2, tol=1e-12, max_iter=10_000).fit(X, y)
    assert ours.coef_ == pytest.approx(theirs.coef_, rel=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, rel=1e-6)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(X), rel=1e-6)
    assert ours.decision_function(X) == pytest.approx(theirs.decision_function(X), abs=1e-6)
    assert (ours.predict(X) == theirs.predict(X)).all()
    assert list(ours.classes_) == ["no", "yes"]


def test_three_classes_without_a_prior_are_the_unpenalised_multinomial(data):
    """LogisticRegression(C=∞): probabilities are unique, coefficients up to a shift that the first class's 0
    fixes."""
    X, eta, r = data
    y = np.digitize(eta + r.logistic(size=200), [-0.5, 1.0])
    ours = Classifier(prior=None).fit(X, y)
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(X, y)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(X), abs=1e-7)
    assert ours.coef_ == pytest.approx(theirs.coef_ - theirs.coef_[0], abs=1e-6)
    assert ours.decision_function(X) == pytest.approx(X @ ours.coef_.T + ours.intercept_, abs=1e-12)
    assert ours.log_score(X, y) == pytest.approx(
        theirs.predict_log_proba(X)[np.arange(200), y].mean(), rel=1e-9
    )


def test_log_probabilities_are_exact_where_probabilities_round_to_one():
    """log(1 − σ(η)) = −log(1 + e^η): at η = 50 the probability itself is 1."""
    model = Classifier().fit([[-1.0], [0.0], [1.0], [2.0]], [0, 1, 0, 1])
    x = np.array([[1e3]])
    eta = model.decision_function(x)[0]
    assert model.predict_proba(x)[0, 1] == 1.0
    assert model.predict_log_proba(x)[0] == pytest.approx([-eta, -np.exp(-eta)], rel=1e-12)


def test_separated_classes_have_a_maximum_under_the_prior_and_none_without():
    """Albert and Anderson (1984): a separating point, so the likelihood alone grows for ever."""
    X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
    assert Classifier().fit(X, y).certificate_.status == "certified maximum"
    with pytest.warns(ConvergenceWarning, match="separated"):
        assert Classifier(prior=None).fit(X, y).certificate_.status == "no maximum"
    with pytest.raises(NoMaximum):
        Classifier(prior=None, on_failure="raise").fit(X, y)


def test_aliased_columns_warn_and_predict_as_if_one_were_dropped(data):
    """Every maximum has the same linear predictor."""
    X, eta, r = data
    y = eta + r.normal(size=200)
    twice = np.column_stack([X, X[:, 0]])
    with pytest.warns(ConvergenceWarning, match="constant along"):
        model = Regressor().fit(twice, y)
    assert model.certificate_.status == "flat direction"
    assert model.predict(twice) == pytest.approx(Regressor().fit(X, y).predict(X), rel=1e-8)
    with pytest.raises(FlatDirection):
        Regressor(on_failure="raise").fit(twice, y)


def test_the_estimators_stand_in_pipelines_and_searches(data):
    X, eta, r = data
    y = r.poisson(np.exp(0.5 * eta))
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Regressor("poisson")), {"regressor__prior": [None, 0.1]}, cv=3
    )
    assert search.fit(X, y).best_params_ == {"regressor__prior": None}
    assert cross_val_score(Classifier(), X, y > 1, cv=3).min() > 0.6


def test_names_of_columns_reach_the_summary_and_the_saved_fit(data, tmp_path):
    X, eta, _ = data
    frame = pd.DataFrame(X, columns=["age", "a b", "C(x)"])
    model = Regressor("laplace").fit(frame, eta + np.sin(np.arange(200)))
    assert list(model.feature_names_in_) == ["age", "a b", "C(x)"]
    assert model.fit_.names == ["Intercept", "age", "a b", "C(x)", "scale"]
    again = th.load(model.fit_.save(tmp_path / "a.thetahat"))
    assert np.array_equal(again.estimates, model.fit_.estimates)
    assert np.array_equal(again.standard_errors(), model.fit_.standard_errors())


def test_a_thousand_columns_need_no_formula():
    """numpy's lstsq."""
    r = np.random.default_rng(0)
    X = r.normal(size=(1300, 1000))
    y = X[:, 0] + r.normal(size=1300)
    model = Regressor(fit_intercept=False).fit(X, y)
    assert model.certificate_.status == "certified maximum"
    assert model.coef_ == pytest.approx(np.linalg.lstsq(X, y)[0], abs=1e-9)


@pytest.mark.parametrize(
    ("estimator", "y", "error", "words"),
    [
        (
            Regressor("poisson"),
            [0.5, 1.0, 2.0],
            OutOfSupport,
            r"y\[0\] = 0.5, to which Poisson\(\) gives probability zero",
        ),
        (Regressor("binomial"), [0.0, 1.0, 2.0], BadArgument, "cannot carry what Binomial.. needs besides"),
        (Regressor("categorical"), [0, 1, 2], BadArgument, "describes categories: use Classifier"),
        (Regressor(on_failure="return"), [0, 1, 2], BadArgument, "Accepted: 'warn', 'raise'"),
        (Classifier("poisson"), [0, 1, 0], BadArgument, "Accepted: None, bernoulli, categorical"),
        (Classifier(), [1, 1, 1], BadArgument, "one class only"),
        (Classifier(prior=-1.0), [0, 1, 0], BadArgument, "a positive number.*; received -1"),
    ],
)
def test_bad_input_is_named(estimator, y, error, words):
    with pytest.raises(error, match=words):
        estimator.fit([[0.0], [1.0], [3.0]], y)


def test_negative_weights_are_refused():
    with pytest.raises(BadWeights, match="row 1 is -1"):
        Regressor().fit([[0.0], [1.0], [3.0]], [0.0, 1.0, 1.0], sample_weight=[1.0, -1.0, 1.0])


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "thetahat.sklearn")
    with pytest.raises(MissingExtra, match=r"pip install 'thetahat\[sklearn\]'"):
        th.__getattr__("sklearn")


def test_an_offset_is_that_of_the_formula_and_a_sparse_X_is_read():
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2)) * (rng.random((50, 2)) > 0.5)
    exposure = np.log(rng.random(50) + 0.5)
    y = rng.poisson(np.exp(exposure + X[:, 0]))
    model = Regressor("poisson").fit(csr_array(X), y, offset=exposure)
    formula = th.fit("y ~ a + b", {"a": X[:, 0], "b": X[:, 1], "y": y}, "poisson", offset=exposure)
    np.testing.assert_allclose([model.intercept_, *model.coef_], formula.estimates, rtol=1e-8)
    np.testing.assert_allclose(model.predict(csr_array(X), offset=exposure), formula.predict(), rtol=1e-8)
    assert model.log_score(X, y, offset=exposure) == pytest.approx(formula.score().mean, rel=1e-10)
    with pytest.raises(BadArgument, match="fitted with an offset"):
        model.predict(X)
    with pytest.raises(th.errors.UnknownColumn, match="offset"):
        model.fit_.predict({"x0": [0.0], "x1": [1.0]})
    with pytest.raises(BadArgument, match="fitted without an offset"):
        Regressor("poisson").fit(X, y).predict(X, offset=exposure)
    with pytest.raises(BadArgument, match="one finite number a row, 50"):
        Regressor("poisson").fit(X, y, offset=[1.0])


def test_names_of_a_column_transformer_reach_the_summary():
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame({"age": np.linspace(0, 1, 30), "site": list("abc") * 10})
    parts = [
        ("scaled", StandardScaler(), ["age"]),
        ("one", OneHotEncoder(drop="first", sparse_output=False), ["site"]),
    ]
    columns = ColumnTransformer(parts).set_output(transform="pandas")
    found = make_pipeline(columns, Regressor()).fit(frame, np.sin(np.arange(30)))
    names = ["Intercept", *columns.get_feature_names_out(), "scale"]
    assert found[-1].fit_.names == names
    assert all(name in str(found[-1].fit_.summary()) for name in names)
