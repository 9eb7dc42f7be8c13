"""Ratings and ranks of a Bradley–Terry fit; rewards with errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import shipped
from thetahat.errors import BadArgument
from thetahat.preferences import BradleyTerry, Preferences


def pudding(items: list[str] | None = None) -> th.Fit:
    tastings = Preferences("winner", "loser", "count", tie="tie", data=shipped("pudding"), items=items)
    return th.fit(BradleyTerry(items=tastings.items, ties="davidson"), tastings)


def test_ratings_relative_to_their_mean_are_those_of_plackettluce():
    """R, PlackettLuce 0.4.3, summary(mod, ref = NULL) of Davidson's puddings: estimates, of seven
    iterations, to 3e-4; standard errors."""
    printed = {
        "brand 1": (-0.176581, 0.121949),
        "brand 2": (0.043664, 0.121818),
        "brand 3": (-0.023617, 0.126823),
        "brand 4": (-0.001295, 0.122003),
        "brand 5": (-0.042726, 0.127054),
        "brand 6": (0.200555, 0.126594),
    }
    table = th.preferences.ratings(pudding())
    for name, (estimate, error) in printed.items():
        assert table.rating[name] == pytest.approx(estimate, abs=3e-4)
        assert table.standard_error[name] == pytest.approx(error, abs=3e-5)
    assert list(table.index[:2]) == ["brand 6", "brand 2"]
    assert list(table["rank"]) == [1, 2, 3, 4, 5, 6]


def test_ratings_do_not_depend_on_which_item_is_fixed():
    one, other = (
        th.preferences.ratings(pudding([f"brand {i}" for i in order])).sort_index()
        for order in ((1, 2, 3, 4, 5, 6), (5, 3, 6, 1, 2, 4))
    )
    np.testing.assert_allclose(one.to_numpy(dtype=float), other.to_numpy(dtype=float), rtol=1e-6)


def test_four_hundred_points_of_elo_are_odds_of_ten_to_one():
    """a beats b ten times in eleven: log 10 between them, 400 points, half of them on either side of 1500;
    Var(log-odds) = 1/10 + 1/1."""
    games = Preferences(["a", "b"], ["b", "a"], [10, 1])
    table = th.preferences.ratings(th.fit(BradleyTerry(items=games.items), games))
    np.testing.assert_allclose(table.elo, [1700, 1300], rtol=1e-9)
    np.testing.assert_allclose(table.elo_error, 400 / np.log(10) * np.sqrt(1.1) / 2, rtol=1e-6)


def test_ranks_are_told_as_far_as_the_games_tell_them():
    """Between c and d nothing is known; a has beaten them a hundred times, b a hundred times."""
    rows = [
        ("a", "b", 90),
        ("b", "a", 10),
        ("b", "c", 90),
        ("c", "b", 10),
        ("b", "d", 90),
        ("d", "b", 10),
        ("c", "d", 5),
        ("d", "c", 5),
    ]
    winner, loser, count = zip(*rows, strict=True)
    games = Preferences(winner, loser, count)
    table = th.preferences.ratings(th.fit(BradleyTerry(items=games.items), games)).loc[["a", "b", "c", "d"]]
    assert table.low.tolist() == [1, 2, 3, 3]
    assert table.high.tolist() == [1, 2, 4, 4]


@pytest.mark.parametrize(
    "items", [[0.0, 0.0, 0.0, 0.0], [0.6, 0.3, 0.0, -0.9]], ids=["all alike", "different"]
)
def test_intervals_of_ranks_hold_the_true_rank_as_often_as_they_say(items):
    """60 tournaments at a level of 0.8: each item's interval has its true places in it (every place that its
    equals share)."""
    r = torch.tensor(items, dtype=torch.float64)
    a, b = torch.triu_indices(4, 4, 1)
    rng = torch.Generator().manual_seed(1)
    right = torch.zeros(4)
    for _ in range(60):
        won = torch.binomial(
            torch.full((6,), 30.0, dtype=torch.float64), torch.sigmoid(r[a] - r[b]), generator=rng
        )
        games = Preferences(
            [*a.tolist(), *b.tolist()],
            [*b.tolist(), *a.tolist()],
            torch.cat([won, 30 - won]),
            items=[0, 1, 2, 3],
        )
        table = th.preferences.ratings(th.fit(BradleyTerry(items=games.items), games), level=0.8).sort_index()
        best, worst = 1 + (r[None] > r[:, None]).sum(1), 4 - (r[None] < r[:, None]).sum(1)
        right += (torch.tensor(table.low.to_numpy()) <= best) & (torch.tensor(table.high.to_numpy()) >= worst)
    assert float(right.min()) / 60 >= 0.8 - 2 * (0.8 * 0.2 / 60) ** 0.5


def test_the_error_of_a_reward_is_that_of_the_delta_method():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    pairs = Preferences(x, y, features=["length", "please"])
    fit = th.fit(BradleyTerry(features=pairs.features), pairs)
    found = th.preferences.rewards(fit, [[2.0, -1.0]], against=[[0.5, 1.0]])
    told = fit.delta(lambda v: 1.5 * v["length"] - 2 * v["please"])
    assert found.reward[0] == pytest.approx(told.estimate.iloc[0])
    assert found.standard_error[0] == pytest.approx(told.standard_error.iloc[0])
    assert found.probability[0] == pytest.approx(1 / (1 + np.exp(-found.reward[0])))


def test_what_has_no_ratings_is_refused():
    fit = th.fit("y ~ x", {"y": [1.0, 2.0, 2.5], "x": [0.0, 1.0, 2.0]})
    with pytest.raises(BadArgument, match="not a table of rated items"):
        th.preferences.ratings(fit)
    with pytest.raises(BadArgument, match="not a linear reward"):
        th.preferences.rewards(fit, [[1.0]])
    pairs = Preferences([[1.0], [0.0], [2.0]], [[0.0], [1.0], [0.0]])
    with pytest.raises(BadArgument, match=r"shape \(1, 2\)\. Accepted: \(n, 1\)"):
        th.preferences.rewards(th.fit(BradleyTerry(features=1), pairs), [[1.0, 2.0]])


@pytest.mark.parametrize("what", ["ties", "rankings", "features"])
def test_ratings_and_rewards_are_saved_and_loaded(what, tmp_path):
    """Without their data, to the last bit: estimates, ratings and their errors; and new pairs are judged
    alike."""
    if what == "ties":
        fit = pudding()
        told = lambda f: th.preferences.ratings(f)  # noqa: E731
    elif what == "rankings":
        races = th.preferences.Rankings([[3, 1, 2], [1, 2], [2, 3, 1], [1, 3]])
        fit = th.fit(th.preferences.PlackettLuce(races.items), races)
        told = lambda f: th.preferences.ratings(f)  # noqa: E731
    else:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(2, 30, 2))
        pairs = Preferences(x, y, features=["a", "b"])
        fit = th.fit(BradleyTerry(features=pairs.features), pairs, prior=th.priors.Normal(1.0))
        told = lambda f: th.preferences.rewards(f, x, against=y)  # noqa: E731
    fit.save(tmp_path / "fit.thetahat")
    again = th.load(tmp_path / "fit.thetahat")
    assert again.estimates.equals(fit.estimates)
    assert told(again).equals(told(fit))
    assert str(again.certificate) == str(fit.certificate)
    new = fit.source if what != "features" else Preferences([[1.0, 2.0]], [[0.0, 1.0]])
    assert again.score(new).total == fit.score(new).total
