"""Bradley–Terry, and the pairs that it reads."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
import torch

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import (
    BadArgument,
    DataError,
    ModelError,
    NoMaximum,
    NotFinite,
    UnknownColumn,
    UnknownLevel,
)
from thetahat.preferences import BradleyTerry, Preferences

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = np.array(  # of the row's team over the column's
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
)


def baseball() -> Preferences:
    i, j = np.nonzero(WINS)
    return Preferences(
        [TEAMS[a] for a in i], [TEAMS[b] for b in j], count=WINS[i, j], items=[*reversed(TEAMS)]
    )


def test_ratings_of_the_american_league_east_are_those_of_bradleyterry2():
    """R, BradleyTerry2::BTm on the season of 1987, Baltimore 0 (data: Agresti, 1990, Categorical Data
    Analysis, §10.6.1): estimate, error."""
    games = baseball()
    fit = th.fit(BradleyTerry(items=games.items), games)
    assert fit.certificate.status == "certified maximum"
    assert fit.certificate.concave
    printed = {
        "Milwaukee": (1.5814, 0.3433),
        "Detroit": (1.4364, 0.3396),
        "Toronto": (1.2945, 0.3367),
        "New York": (1.2476, 0.3359),
        "Boston": (1.1077, 0.3339),
        "Cleveland": (0.6839, 0.3319),
    }
    errors = fit.objective.taylor(fit.theta).information.factor().inverse_diagonal().sqrt()
    assert fit.observations == 273
    for team, (rating, error) in printed.items():
        assert fit.estimates[team] == pytest.approx(rating, abs=6e-5)
        assert float(errors[fit.names.index(team)]) == pytest.approx(error, abs=6e-5)


def test_it_is_logistic_regression_without_an_intercept_on_differences():
    """statsmodels Logit on x_winner − x_loser, in a random order of the two."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    first = rng.random(200) < 1 / (1 + np.exp(-(a - b) @ [1.0, -0.5, 0.2]))
    winner, loser = np.where(first[:, None], a, b), np.where(first[:, None], b, a)
    scorer = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    fit = th.fit(BradleyTerry(scorer), Preferences(winner, loser))
    logit = sm.Logit(first.astype(float), a - b).fit(disp=0, tol=1e-14)
    assert fit.certificate.status == "certified maximum"
    np.testing.assert_allclose(fit.estimates, logit.params, rtol=1e-8)
    assert fit.log_likelihood == pytest.approx(logit.llf, abs=1e-8)


def test_the_two_outcomes_of_a_pair_have_probabilities_that_sum_to_one():
    model = BradleyTerry(items=3)
    with torch.no_grad():
        model.ratings.copy_(torch.tensor([0.3, -1.2]))
    one, other = (
        model.probability(Batch({"winner": torch.tensor(a), "loser": torch.tensor(b)}))
        for a, b in (([0, 1], [1, 2]), ([1, 2], [0, 1]))
    )
    torch.testing.assert_close(one + other, torch.ones(2, dtype=torch.float64))


def test_an_undefeated_team_has_no_maximum():
    """Its rating may grow for ever: a b, b c, c b are a beaten, a never is."""
    games = Preferences(["a", "b", "c"], ["b", "c", "b"])
    with pytest.raises(NoMaximum):
        th.fit(BradleyTerry(items=games.items), games)


def test_a_table_of_ratings_is_a_linear_scorer_of_indicators():
    """One-hot features with the first item left out: the same likelihood, the same maximum."""
    games = baseball()
    hot = torch.eye(7, dtype=torch.float64)[:, 1:]
    batch = next(games.batches())
    features = Preferences(hot[batch["winner"]], hot[batch["loser"]], count=batch.count)
    table = th.fit(BradleyTerry(items=games.items), games)
    scored = th.fit(BradleyTerry(torch.nn.Linear(6, 1, bias=False, dtype=torch.float64)), features)
    np.testing.assert_allclose(scored.estimates.to_numpy(), table.estimates.to_numpy(), rtol=1e-7)


def test_pairs_are_read_from_the_columns_of_a_table():
    table = {
        "w": ["a", "b", "a"],
        "l": ["b", "a", "c"],
        "n": [3, 2, 1],
        "x": [1.0, 2.0, 3.0],
        "y": [0.5, 0.1, 0.2],
    }
    labels = Preferences("w", "l", "n", data=table)
    assert labels.items == ["a", "b", "c"]
    batch = next(labels.batches())
    assert (batch["winner"].tolist(), batch["loser"].tolist(), batch.total) == ([0, 1, 0], [1, 0, 2], 6.0)
    assert Preferences(["x"], ["y"], data=table).whole["winner"].tolist() == [[1.0], [2.0], [3.0]]
    assert labels.fingerprint != Preferences("l", "w", "n", data=table).fingerprint


def test_pairs_that_cannot_be_used_are_named():
    with pytest.raises(UnknownColumn, match="'wx'"):
        Preferences("wx", "l", data={"w": ["a"], "l": ["b"]})
    with pytest.raises(UnknownLevel, match="'c'"):
        Preferences(["a", "c"], ["b", "a"], items=["a", "b"])
    with pytest.raises(DataError, match="row 1 prefers 'b' to itself"):
        Preferences(["a", "b"], ["b", "b"])
    with pytest.raises(NotFinite, match="loser is missing in row 1"):
        Preferences(["a", "b"], ["b", None])
    with pytest.raises(NotFinite, match="row 0"):
        Preferences([[np.nan, 1.0]], [[0.0, 1.0]])
    with pytest.raises(DataError, match="shape"):
        Preferences(["a", "b"], ["b"])
    with pytest.raises(BadArgument, match="data="):
        Preferences("w", "l")


def test_a_model_that_cannot_be_built_is_refused():
    with pytest.raises(BadArgument, match="one of the three"):
        BradleyTerry()
    with pytest.raises(ModelError, match="one number each"):
        BradleyTerry(torch.nn.Linear(2, 3)).log_prob(
            Batch({"winner": torch.zeros(4, 2), "loser": torch.zeros(4, 2)})
        )
    with pytest.raises(ModelError, match="features"):
        BradleyTerry(items=2).log_prob(Batch({"winner": torch.zeros(4, 2), "loser": torch.zeros(4, 2)}))
