"""A prior chosen by rows held out or by the evidence: each number of the table is that of the fits made
one by one."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import thetahat as th
from thetahat.errors import BadArgument, UnknownColumn

from ..models.cox_data import definition, drawn

Normal, Laplace = th.priors.Normal, th.priors.Laplace


@pytest.fixture(scope="module")
def frame():
    """60 rows, 12 columns, of which two matter."""
    r = np.random.default_rng(0)
    X = r.normal(size=(60, 12))
    return pd.DataFrame(X, columns=[f"x{j}" for j in range(12)]).assign(
        y=1 + X[:, 0] - 0.7 * X[:, 1] + r.normal(size=60)
    )


FORMULA = "y ~ " + " + ".join(f"x{j}" for j in range(12))
CANDIDATES = [None, Normal(0.05), Normal(0.3), Normal(30.0), Laplace(0.02), Laplace(0.1), Laplace(50.0)]


@pytest.fixture(scope="module")
def choice(frame):
    return th.fit(FORMULA, frame).choose_prior(CANDIDATES, folds=4, seed=1)


def test_held_out_nats_are_those_of_fits_to_the_other_parts(frame, choice):
    """Each part scored by `Fit.score` of a fit to the others, one by one; errors of a mean, and of a paired
    difference."""
    part = np.random.default_rng(1).permutation(60) % 4
    values = np.empty((len(CANDIDATES), 60))
    for i, prior in enumerate(CANDIDATES):
        for k in range(4):
            fit = th.fit(FORMULA, frame[part != k], prior=prior)
            values[i, part == k] = fit.score(frame[part == k]).per_observation
    np.testing.assert_allclose(choice.table["held_out"], values.mean(1), rtol=1e-8)
    np.testing.assert_allclose(choice.table["error"], values.std(1, ddof=1) / np.sqrt(60), rtol=1e-7)
    apart = values - values[values.mean(1).argmax()]
    np.testing.assert_allclose(choice.table["difference"], apart.mean(1), rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(
        choice.table["difference_error"], apart.std(1, ddof=1) / np.sqrt(60), rtol=1e-6, atol=1e-10
    )
    assert choice.best == values.mean(1).argmax()


def test_the_chosen_fit_is_that_of_the_chosen_prior(frame, choice):
    known = th.fit(FORMULA, frame, prior=CANDIDATES[choice.best])
    np.testing.assert_allclose(choice.fit.estimates, known.estimates, rtol=1e-9)
    assert choice.prior == (CANDIDATES[choice.best],)
    assert choice.scale == CANDIDATES[choice.best].scale
    assert choice.fit.call["formula"] == FORMULA


def test_zeros_are_those_of_the_fits_to_all_rows(frame, choice):
    for i in (4, 5, 6):
        assert choice.table["zeros"].iloc[i] == th.fit(FORMULA, frame, prior=CANDIDATES[i]).certificate.zeros
    assert choice.table["zeros"].iloc[:4].isna().all()
    assert choice.table["zeros"].iloc[4] > choice.table["zeros"].iloc[6]


def test_a_fit_is_left_as_it_was(frame):
    fit = th.fit(FORMULA, frame)
    before, score = fit.estimates, fit.score(frame).total
    fit.choose_prior([Normal(0.1), Laplace(0.1)], folds=3)
    assert (fit.estimates == before).all()
    assert fit.score(frame).total == score
    assert not fit.objective.priors


def test_the_evidence_chooses_the_scale_that_makes_the_data_most_probable(frame):
    """With σ known, y ~ N(0, s²XXᵀ + σ²I): the maximum over the same scales of scipy's density."""
    scales = np.geomspace(0.01, 10, 9)
    fit = th.fit(FORMULA + " - 1", frame, scale=1.0)
    choice = fit.choose_prior([Normal(s) for s in scales], by="evidence", folds=2)
    X = frame[[f"x{j}" for j in range(12)]].to_numpy()
    known = [
        stats.multivariate_normal(np.zeros(60), s**2 * X @ X.T + np.eye(60)).logpdf(frame["y"])
        for s in scales
    ]
    np.testing.assert_allclose(choice.table["evidence"], known, rtol=1e-10)
    assert choice.scale == scales[np.argmax(known)]
    assert not choice.flat


def test_the_evidence_compares_only_priors_that_leave_the_same_coordinates_free(frame, choice):
    """No prior at all, and a prior on one column alone, have no place in the column; nor has a kink."""
    assert choice.table["evidence"].notna().tolist() == [False, True, True, True, False, False, False]
    assert choice.flat == ("Intercept", "scale")
    assert "No prior is on Intercept, scale" in str(choice)
    mixed = th.fit(FORMULA, frame).choose_prior(
        [Normal(1.0), Normal(1.0, on="x1"), [Normal(1.0), Normal(9.0, on="Intercept")]], folds=2
    )
    assert mixed.table["evidence"].notna().tolist() == [False, False, True]
    assert mixed.flat == ("scale",)


def test_one_standard_error_takes_the_least_scale_that_is_as_good(frame, choice):
    """Breiman et al. (1984): by the paired error, and among priors of the best one's kind."""
    scales = [0.1, 0.15, 0.2, 0.25, 0.3, 0.4]
    fit = th.fit(FORMULA, frame)
    best, least = (
        fit.choose_prior([*map(Normal, scales), Laplace(1e-3)], by=by, folds=4)
        for by in ("held out", "one standard error")
    )
    table = best.table.iloc[:6]
    near = table["difference"] >= -table["difference_error"]
    assert 1 < near.sum() < 6
    assert least.scale == scales[int(near.to_numpy().argmax())] < best.scale
    assert isinstance(least.prior[0], Normal)
    assert "within one standard error" in str(least)


def test_groups_are_held_out_whole():
    r = np.random.default_rng(2)
    x, group = r.normal(size=(40, 1)), np.repeat(np.arange(8), 5)
    y = r.integers(0, 2, 40)
    rows = th.data.Batch({"x": torch.tensor(x), "y": torch.tensor(y)}, group=torch.tensor(group))
    model = th.models.Conditional(th.families.Categorical(2), torch.nn.Linear(1, 1).double())
    choice = th.fit(model, rows, prior=Normal(1.0)).choose_prior([Normal(0.3), Normal(3.0)], folds=4, seed=5)
    part = (np.random.default_rng(5).permutation(8) % 4)[group]
    values = np.empty(40)
    for k in range(4):
        inside, outside = (torch.from_numpy(np.flatnonzero(m)) for m in (part != k, part == k))
        own = th.models.Conditional(th.families.Categorical(2), torch.nn.Linear(1, 1).double())
        values[part == k] = th.fit(own, rows[inside], prior=Normal(0.3)).score(rows[outside]).per_observation
    assert choice.table["held_out"].iloc[0] == pytest.approx(values.mean(), rel=1e-8)
    sums = np.array([(values - values.mean())[group == g].sum() for g in range(8)])
    assert choice.table["error"].iloc[0] == pytest.approx(np.sqrt(8 / 7 * (sums**2).sum()) / 40, rel=1e-6)


def test_a_transformed_response_is_scored_in_its_own_units(frame):
    """log p(y) = log p(log y) − log y, as `Fit.score` has it."""
    data = frame.assign(y=np.exp(frame["y"])).iloc[:8]
    found = th.fit("log(y) ~ x0", data).choose_prior([Normal(1.0)], folds=8).table["held_out"].iloc[0]
    one = [
        th.fit("log(y) ~ x0", data.drop(i), prior=Normal(1.0)).score(data.iloc[[i]]).total for i in range(8)
    ]
    assert found == pytest.approx(np.mean(one), rel=1e-8)


def test_a_candidate_without_a_maximum_is_shown_and_not_chosen():
    """Separated rows have no maximum without a prior."""
    data = {"y": [0.0] * 6 + [1.0] * 6, "x": list(range(12))}
    fit = th.fit("y ~ x", data, "bernoulli", prior=Normal(1.0))
    choice = fit.choose_prior([None, Normal(0.5), Normal(5.0)], folds=3)
    assert choice.table["maximum"].tolist() == ["no maximum", "certified maximum", "certified maximum"]
    assert np.isnan(choice.table["held_out"].iloc[0])
    assert choice.best > 0
    with pytest.raises(BadArgument, match="no candidate has a certified maximum"):
        fit.choose_prior([None], folds=3)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        ({"candidates": [Normal(1.0)], "by": "luck"}, BadArgument, "by='luck'.*'evidence'"),
        ({"candidates": Normal(1.0)}, BadArgument, "a list of priors"),
        ({"candidates": []}, BadArgument, "a list of priors"),
        ({"candidates": [0.5]}, BadArgument, r"candidates hold 0\.5"),
        ({"candidates": [Normal(1.0, on="nowhere")]}, UnknownColumn, "nowhere"),
        ({"candidates": [Normal(1.0)], "folds": 1}, BadArgument, "folds=1"),
        ({"candidates": [Normal(1.0)], "folds": 61}, BadArgument, "folds=61"),
        (
            {"candidates": [Laplace(1.0)], "by": "evidence", "folds": 2},
            BadArgument,
            "no candidate has an evidence",
        ),
    ],
)
def test_what_cannot_be_chosen_among_is_refused(frame, call, error, match):
    with pytest.raises(error, match=match):
        th.fit(FORMULA, frame).choose_prior(**call)


def test_no_prior_has_no_scale(frame):
    choice = th.fit(FORMULA, frame).choose_prior([None], folds=2)
    with pytest.raises(BadArgument, match="not a prior at all"):
        _ = choice.scale
    assert "none" in str(choice)


def test_of_coxs_model_the_held_out_nats_are_the_cross_validated_partial_likelihood():
    """Σ_k ℓ(all rows) − ℓ(all but part k), at the lasso's θ̂ of all but part k, with ℓ as it is defined."""
    d = drawn(40, 8).assign(c=np.cos(np.arange(40.0)))
    formula, prior = "Surv(stop, event) ~ a + b + c", th.priors.Laplace(0.3)

    def partial(beta, rows):
        return definition(beta, rows[["a", "b", "c"]].to_numpy(), rows.stop.to_numpy(), rows.event.to_numpy())

    total = 0.0
    part = np.random.default_rng(4).permutation(40) % 4
    for k in range(4):
        left = d[part != k]
        beta = th.fit(formula, left, family="cox", prior=prior).estimates.to_numpy()
        total += partial(beta, d) - partial(beta, left)
    chosen = th.fit(formula, d, family="cox").choose_prior([th.priors.Laplace(0.01), prior], folds=4, seed=4)
    assert chosen.table["held_out"].iloc[1] == pytest.approx(total / 40, abs=1e-9)
    assert chosen.table["zeros"].iloc[0] == 3
    assert chosen.fit.certificate.ok
