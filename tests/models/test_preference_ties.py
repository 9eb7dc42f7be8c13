"""Bradley–Terry with ties, margins and an advantage of the first; ratings that do not exist; linear
rewards."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
import torch

import thetahat as th
from thetahat.data import Batch, shipped
from thetahat.errors import DataError, FlatDirection, ModelError, NoMaximum, UnknownLevel
from thetahat.models.taylor import taylor
from thetahat.preferences import BradleyTerry, Preferences

# Agresti (2002), Categorical Data Analysis, 2nd ed., table 10.10: wins of the home team and of the visitors,
# season of 1987
HOME = {
    "Milwaukee": "Detroit 4-3, Toronto 4-2, New York 4-3, Boston 6-1, Cleveland 4-2, Baltimore 6-0",
    "Detroit": "Milwaukee 3-3, Toronto 4-2, New York 4-3, Boston 6-0, Cleveland 6-1, Baltimore 4-3",
    "Toronto": "Milwaukee 2-5, Detroit 4-3, New York 2-4, Boston 4-3, Cleveland 4-2, Baltimore 6-0",
    "New York": "Milwaukee 3-3, Detroit 5-1, Toronto 2-5, Boston 4-3, Cleveland 4-2, Baltimore 6-1",
    "Boston": "Milwaukee 5-1, Detroit 2-5, Toronto 3-3, New York 4-2, Cleveland 5-2, Baltimore 6-0",
    "Cleveland": "Milwaukee 2-5, Detroit 3-3, Toronto 3-4, New York 4-3, Boston 4-2, Baltimore 2-4",
    "Baltimore": "Milwaukee 2-5, Detroit 1-5, Toronto 1-6, New York 2-4, Boston 1-6, Cleveland 3-4",
}


def at_home() -> Preferences:
    rows = []
    for home, games in HOME.items():
        for game in games.split(", "):
            visitor, score = game.rsplit(" ", 1)
            won, lost = map(int, score.split("-"))
            rows += [(home, visitor, 1, won), (home, visitor, 0, lost)]
    home, away, result, count = zip(*rows, strict=True)
    return Preferences.games(home, away, result, count)


def pudding() -> Preferences:
    return Preferences("winner", "loser", "count", tie="tie", data=shipped("pudding"))


def test_ratings_and_ties_of_puddings_are_those_of_plackettluce():
    """R, PlackettLuce 0.4.3, summary(PlackettLuce(R, weights = w, npseudo = 0, maxit = 7)) on Davidson's
    (1970) example 2: estimates, standard errors, and the residual deviance, which counts each of the 745
    tastings. It warns that seven iterations have not converged: 3e-4."""
    tastings = pudding()
    fit = th.fit(BradleyTerry(items=tastings.items, ties="davidson"), tastings)
    assert fit.certificate.status == "certified maximum"
    assert fit.certificate.concave
    printed = {
        "brand 2": (0.2202, 0.1872),
        "brand 3": (0.1530, 0.1935),
        "brand 4": (0.1753, 0.1882),
        "brand 5": (0.1339, 0.1927),
        "brand 6": (0.3771, 0.1924),
        "log_ties": (-0.2919, 0.0825),
    }
    errors = fit.standard_errors()
    for name, (estimate, error) in printed.items():
        assert fit.estimates[name] == pytest.approx(estimate, abs=3e-4)
        assert errors[name] == pytest.approx(error, abs=6e-5)
    assert -2 * fit.log_likelihood == pytest.approx(1619.4, abs=0.05)


def test_ties_are_a_log_linear_model():
    """statsmodels: Davidson's model is the Poisson regression of the 45 counts on half-differences of
    ratings, on "tie", and on a constant a pair (Fienberg and Larntz, 1976, Log linear representation for
    paired and multiple comparisons models)."""
    tastings = pudding()
    batch = tastings.whole
    hot = np.eye(6)
    half = np.where(batch["tie"][:, None], 0.0, (hot[batch["winner"]] - hot[batch["loser"]]) / 2)[:, 1:]
    pair = np.sort(np.stack([batch["winner"], batch["loser"]], 1), 1) @ [6, 1]
    X = np.column_stack([half, batch["tie"].numpy(), pair[:, None] == np.unique(pair)]).astype(float)
    poisson = sm.GLM(batch.count.numpy(), X, family=sm.families.Poisson()).fit(tol=1e-14)
    fit = th.fit(BradleyTerry(items=tastings.items, ties="davidson"), tastings)
    np.testing.assert_allclose(fit.estimates, poisson.params[:6], atol=1e-9)
    np.testing.assert_allclose(fit.standard_errors(), poisson.bse[:6], rtol=1e-7)


def test_the_advantage_of_the_home_team_is_that_of_bradleyterry2():
    """R, BradleyTerry2's own test of the baseball data (Agresti, 2002, table 10.11, column 5): at.home 0.302;
    abilities as shares."""
    games = at_home()
    fit = th.fit(BradleyTerry(items=games.items, first=True), games)
    assert fit.observations == 273
    assert fit.estimates["first"] == pytest.approx(0.302, abs=5e-4)
    share = torch.exp(fit.model.every_rating().detach())
    found = np.sort((share / share.sum()).numpy())
    np.testing.assert_allclose(found, [0.044, 0.088, 0.137, 0.157, 0.164, 0.190, 0.220], atol=5e-4)


@pytest.mark.parametrize("ties", [None, "davidson", "rao_kupper"])
def test_the_outcomes_of_a_pair_have_probabilities_that_sum_to_one(ties):
    """Σ over a ≻ b, a ~ b, b ≻ a, each by log_prob of its own, out to differences at which naive forms
    overflow."""
    model = BradleyTerry(features=1, ties=ties, first=True)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.7)
        x = torch.tensor([[0.0], [0.3], [-2.0], [40.0], [-900.0]], dtype=torch.float64)
        h, none, all_ = torch.ones(5), torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
        batch = {"winner": x, "loser": 0 * x, "first": h, "tie": none}
        swapped = {"winner": 0 * x, "loser": x, "first": -h, "tie": none}
        log_p = [model.log_prob(Batch(b)) for b in (batch, swapped)]
        log_p += [] if ties is None else [model.log_prob(Batch(batch | {"tie": all_}))]
    assert all(bool(torch.isfinite(v).all()) for v in log_p)
    torch.testing.assert_close(
        torch.logsumexp(torch.stack(log_p), 0), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert torch.allclose(model.probabilities(Batch(batch)).sum(-1), torch.ones(5, dtype=torch.float64))
    if ties is not None:
        tied = model.log_prob(Batch(swapped | {"tie": all_}))
        torch.testing.assert_close(
            tied, log_p[2], msg="a tie has no winner: it is the same whoever is called so"
        )


def test_rao_and_kupper_are_as_printed():
    """Rao and Kupper (1967), eq. 2.5: π_a/(π_a + θπ_b), and (θ² − 1)π_aπ_b / ((π_a + θπ_b)(θπ_a + π_b)),
    at π = 3 and 2, θ = 1.5."""
    model = BradleyTerry(items=2, ties="rao_kupper")
    with torch.no_grad():
        model.ratings.fill_(np.log(3 / 2))
        model.log_ties.fill_(np.log(np.log(1.5)))
    batch = Batch({"winner": torch.tensor([1, 0]), "loser": torch.tensor([0, 1])})
    win, tie, loss = model.probabilities(batch)[0].tolist()
    assert win == pytest.approx(3 / (3 + 1.5 * 2), abs=1e-14)
    assert loss == pytest.approx(2 / (2 + 1.5 * 3), abs=1e-14)
    assert tie == pytest.approx((1.5**2 - 1) * 6 / ((3 + 3) * (4.5 + 2)), abs=1e-14)


def test_both_models_of_ties_agree_where_all_items_are_alike():
    """Then the share of ties is all that there is: ν = 2T/(N − T) and tanh(m/2) = T/N."""
    N, T = 40, 12
    pairs = Preferences(["a", "b", "a"], ["b", "a", "b"], [14, 14, T], tie=[0, 0, 1])
    davidson, rao = (th.fit(BradleyTerry(items=2, ties=ties), pairs) for ties in ("davidson", "rao_kupper"))
    assert np.exp(davidson.estimates["log_ties"]) == pytest.approx(2 * T / (N - T))
    assert np.tanh(np.exp(rao.estimates["log_threshold"]) / 2) == pytest.approx(T / N)
    assert davidson.log_likelihood == pytest.approx(rao.log_likelihood, abs=1e-9)
    assert davidson.log_likelihood == pytest.approx(28 * np.log(14 / N) + T * np.log(T / N), abs=1e-9)


def test_a_margin_asks_for_a_larger_difference():
    """Llama 2's log σ(r_a − r_b − m); with one item a pair and one m it is σ(d − m) = the share of wins."""
    pairs = Preferences(["a", "b"], ["b", "a"], [30, 10], margin=[0.5, 0.5])
    one = pairs.whole["winner"] == 1
    model = BradleyTerry(items=2)
    with torch.no_grad():
        model.ratings.fill_(0.4)
        d = torch.where(one, 0.4, -0.4)
        torch.testing.assert_close(model.log_prob(pairs.whole), -torch.log1p(torch.exp(-(d - 0.5))).double())
    with pytest.raises(ModelError, match="margins"):
        BradleyTerry(items=2, ties="davidson").log_prob(pairs.whole)


def test_a_tie_is_refused_by_a_model_without_ties():
    with pytest.raises(ModelError, match=r"row 30? ?is a tie|row \d+ of the batch is a tie"):
        th.fit(BradleyTerry(items=6), pudding())


def test_an_unbeaten_item_is_named_and_a_prior_rates_it():
    """a beats b, b and c beat each other: r_a has no maximum; a normal prior gives it one."""
    games = Preferences(["a", "b", "c"], ["b", "c", "b"], items=["b", "a", "c"])
    with pytest.raises(NoMaximum, match="'a' never lost") as found:
        th.fit(BradleyTerry(items=games.items), games)
    assert found.value.certificate.directions == ({"a": 1.0},)
    fit = th.fit(BradleyTerry(items=games.items), games, prior=th.priors.Normal(2.0))
    assert fit.certificate.status == "certified maximum"
    assert 0 < fit.estimates["a"] < 4
    games = Preferences(["a", "a", "c", "c"], ["b", "c", "a", "b"])
    with pytest.raises(NoMaximum, match="'b' never won"):
        th.fit(BradleyTerry(items=games.items), games)
    games = Preferences(["a", "b", "a", "c", "d"], ["b", "a", "c", "d", "c"])
    with pytest.raises(NoMaximum, match="'a', 'b' never lost to the others"):
        th.fit(BradleyTerry(items=games.items), games)


def test_the_direction_of_an_unbeaten_item_makes_the_data_more_probable():
    """Along the named direction ℓ rises for ever: its supremum is that of the games among the others."""
    games = Preferences(["a", "b", "c"], ["b", "c", "b"])
    model = BradleyTerry(items=games.items)  # the reference is a itself: all the others fall
    status, direction, _ = model.recession(games)
    assert (status, direction) == ("no maximum", {"b": -1.0, "c": -1.0})
    far = []
    for t in (0.0, 5.0, 50.0):
        th.models.base.set_theta(model, torch.tensor([-t, -t], dtype=torch.float64))
        far.append(float(model.log_prob(games.whole).detach().sum()))
    assert far[0] < far[1] < far[2] <= 2 * np.log(0.5) + 1e-12


def test_a_tie_connects_what_no_win_does():
    """b lost to a and drew with it; a and c each won a game. Without the tie b would fall for ever; without a
    and c, ν would rise with r_a."""
    games = Preferences(["a", "a", "a", "c"], ["b", "b", "c", "a"], tie=[0, 1, 0, 0])
    fit = th.fit(BradleyTerry(items=games.items, ties="davidson"), games)
    assert fit.certificate.status == "certified maximum"
    with pytest.raises(NoMaximum, match="along"):
        th.fit(BradleyTerry(items=2, ties="davidson"), Preferences(["a", "a"], ["b", "b"], tie=[0, 1]))


def test_items_that_never_met_are_not_rated_against_each_other():
    games = Preferences(["a", "b", "c", "d"], ["b", "a", "d", "c"])
    with pytest.raises(FlatDirection, match="no pair compares 'c', 'd' with the others"):
        th.fit(BradleyTerry(items=games.items), games)


def test_ties_that_never_or_always_occur_are_said():
    games = Preferences(["a", "b"], ["b", "a"])
    with pytest.raises(NoMaximum, match="no pair is a tie"):
        th.fit(BradleyTerry(items=2, ties="davidson"), games)
    with pytest.raises(NoMaximum, match="every pair is a tie"):
        th.fit(BradleyTerry(items=2, ties="rao_kupper"), Preferences(["a"], ["b"], tie=[1]))


def test_ratings_without_a_reference_are_symmetric_under_a_prior():
    """Whatever the order of the items, the ratings are the same, and their mean is 0: a normal prior on all
    prefers no item."""
    tastings = [
        Preferences("winner", "loser", "count", tie="tie", data=shipped("pudding"), items=items)
        for items in _orders()
    ]
    fits = [
        th.fit(BradleyTerry(items=t.items, ties="davidson", reference=False), t, prior=th.priors.Normal(0.5))
        for t in tastings
    ]
    assert abs(fits[0].estimates.drop("log_ties").sum()) < 1e-8
    assert (fits[0].estimates - fits[1].estimates).abs().max() < 1e-8
    with pytest.raises(FlatDirection, match="up to a constant"):
        th.fit(BradleyTerry(items=tastings[0].items, ties="davidson", reference=False), tastings[0])


def _orders() -> list[list[str]]:
    names = [f"brand {i}" for i in range(1, 7)]
    return [names, names[::-1]]


@pytest.mark.parametrize("ties", [None, "davidson", "rao_kupper"])
def test_the_expansion_of_linear_rewards_is_that_of_automatic_differentiation(ties):
    """Value, gradient and information of BradleyTerry(features=…) beside those of the same model with a
    linear scorer."""
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    batch = {"winner": x, "loser": y, "first": torch.sign(torch.randn(50, generator=rng))}
    batch |= {} if ties is None else {"tie": torch.rand(50, generator=rng) < 0.3}
    count = torch.rand(50, generator=rng, dtype=torch.float64)
    linear = BradleyTerry(features=3, ties=ties, first=True)
    deep = BradleyTerry(torch.nn.Linear(3, 1, bias=False, dtype=torch.float64), ties=ties, first=True)
    theta = torch.tensor([0.3, -0.4, 1.0, 0.5, *([] if ties is None else [-0.7])], dtype=torch.float64)
    order = [*range(3, len(theta)), 0, 1, 2]  # a scorer's own parameters come last
    th.models.base.set_theta(linear, theta)
    th.models.base.set_theta(deep, theta[order])
    own, automatic = (taylor(m, Batch(batch), count) for m in (linear, deep))
    torch.testing.assert_close(own.value, automatic.value)
    torch.testing.assert_close(own.gradient[order], automatic.gradient)
    torch.testing.assert_close(own.information.dense()[order][:, order], automatic.information.dense())
    assert deep.taylor is None


def test_linear_rewards_have_the_names_of_their_features():
    table = {"a_length": [1.0, 2.0, 0.5, 0.0], "b_length": [0.0, 1.0, 1.5, 1.0], "who": ["x", "y", "x", "y"]}
    pairs = Preferences(["a_length"], ["b_length"], data=table, features=["length"], group="who")
    assert pairs.whole.group.tolist() == [0, 1, 0, 1]
    fit = th.fit(BradleyTerry(features=pairs.features), pairs)
    assert fit.names == ["length"]
    assert fit.estimates["length"] == pytest.approx(0.0, abs=1e-9)  # two for it, two against it
    assert fit.test("length = 0", "likelihood_ratio").p_value == pytest.approx(1.0)


def test_games_are_read_by_who_was_first_and_the_result():
    table = {"white": ["a", "b", "c"], "black": ["b", "c", "a"], "points": ["1-0", "0-1", "1/2-1/2"]}
    games = Preferences.games("white", "black", "points", data=table)
    batch = games.whole
    names = [[games.items[i] for i in batch[w].tolist()] for w in ("winner", "loser")]
    assert names == [["a", "c", "c"], ["b", "b", "a"]]
    assert batch["first"].tolist() == [1.0, -1.0, 1.0]
    assert batch["tie"].tolist() == [False, False, True]
    with pytest.raises(DataError, match="result of row 1 is '2-1'"):
        Preferences.games(["a", "b"], ["b", "a"], ["1-0", "2-1"])


def test_columns_of_pairs_that_cannot_be_used_are_named():
    with pytest.raises(DataError, match=r"tie is 2 in row 1"):
        Preferences(["a", "b"], ["b", "a"], tie=[0, 2])
    with pytest.raises(UnknownLevel, match="first is 'c' in row 0, a pair of 'a' and 'b'"):
        Preferences(["a"], ["b"], first=["c"])
    with pytest.raises(DataError, match="margin has the shape"):
        Preferences(["a"], ["b"], margin=[1.0, 2.0])
    with pytest.raises(ModelError, match="which item was first"):
        BradleyTerry(items=2, first=True).log_prob(Preferences(["a"], ["b"]).whole)


def test_robust_errors_are_of_independent_prompts():
    """Each pair twice under one prompt: the sandwich is that of the pairs once, where the inverse information
    claims √2 less."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60, 2))
    once = Preferences(x, y)
    twice = Preferences(np.repeat(x, 2, 0), np.repeat(y, 2, 0), group=np.repeat(np.arange(60), 2))
    one, other = (th.fit(BradleyTerry(features=2), pairs) for pairs in (once, twice))
    np.testing.assert_allclose(other.estimates, one.estimates, rtol=1e-8)
    np.testing.assert_allclose(other.standard_errors("sandwich"), one.standard_errors("sandwich"), rtol=1e-8)
    np.testing.assert_allclose(other.standard_errors(), one.standard_errors() / np.sqrt(2), rtol=1e-8)
