"""Plackett–Luce, and the rankings that it reads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from statsmodels.duration.hazard_regression import PHReg

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, DataError, EmptyData, NoMaximum, UnknownLevel
from thetahat.preferences import BradleyTerry, PlackettLuce, Preferences, Rankings


def drawn(n: int = 80, seed: int = 0) -> list[list[str]]:
    """Rankings of two to five of five items, by ratings plus Gumbel noise, of which the order is
    Plackett–Luce's."""
    rng = np.random.default_rng(seed)
    worth = dict(zip("abcde", (1.0, 0.5, 0.0, 0.0, -1.0), strict=True))
    out = []
    for _ in range(n):
        items = rng.choice(list("abcde"), rng.integers(2, 6), replace=False)
        out.append(sorted(items, key=lambda item: -(worth[item] + rng.gumbel())))
    return out


def test_all_orders_of_the_items_have_probabilities_that_sum_to_one():
    model = PlackettLuce(5)
    th.models.base.set_theta(model, torch.tensor([0.3, -50.0, 40.0, 1.0], dtype=torch.float64))
    orders = torch.tensor(list(itertools.permutations(range(5))))
    log_p = model.log_prob(Batch({"order": orders, "places": torch.full((120,), 5)}))
    torch.testing.assert_close(
        torch.logsumexp(log_p, 0), torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_a_ranking_is_a_stratified_cox_regression():
    """statsmodels PHReg: a ranking is a race that the best leaves first; each is a stratum of its own
    (Allison and Christakis, 1994, Logit models for sets of ranked items)."""
    orders = drawn()
    races = Rankings(orders)
    fit = th.fit(PlackettLuce(races.items), races)
    rows = [(place, item, race) for race, order in enumerate(orders) for place, item in enumerate(order)]
    time, item, stratum = zip(*rows, strict=True)
    X = (np.array(item)[:, None] == np.array(list("bcde"))).astype(float)
    cox = PHReg(np.array(time), X, strata=np.array(stratum)).fit(disp=0)
    assert fit.certificate.status == "certified maximum"
    assert fit.certificate.concave
    np.testing.assert_allclose(fit.estimates, cox.params, atol=1e-6)
    np.testing.assert_allclose(fit.standard_errors(), cox.bse, rtol=1e-5)
    assert fit.log_likelihood == pytest.approx(cox.llf, abs=1e-8)


def test_rankings_of_two_are_pairs():
    """R, PlackettLuce 0.4.3, its introduction: A > B, C > A, B > A, B > C: B 0.8392 (1.3596), C 0.4196
    (1.5973), deviance 5.1356."""
    orders = [["A", "B"], ["C", "A"], ["B", "A"], ["B", "C"]]
    races = Rankings(orders)
    fit = th.fit(PlackettLuce(races.items), races)
    assert fit.estimates.round(4).to_dict() == {"B": 0.8392, "C": 0.4196}
    assert fit.standard_errors().round(4).to_dict() == {"B": 1.3596, "C": 1.5973}
    assert -2 * fit.log_likelihood == pytest.approx(5.1356, abs=5e-5)
    pairs = Preferences(*zip(*orders, strict=True))
    same = th.fit(BradleyTerry(items=pairs.items), pairs)
    np.testing.assert_allclose(fit.theta, same.theta, atol=1e-9)
    assert list(th.preferences.ratings(fit).index) == ["B", "C", "A"]
    assert th.preferences.judge(fit, pairs).accuracy == th.preferences.judge(same).accuracy


def test_padding_and_batches_change_nothing():
    races = Rankings(drawn())
    model = PlackettLuce(races.items)
    th.models.base.set_theta(model, torch.tensor([0.3, -1.0, 0.5, 1.0], dtype=torch.float64))
    padded = Batch(
        {
            "order": torch.nn.functional.pad(races.whole["order"], (0, 3), value=2),
            "places": races.whole["places"],
        }
    )
    torch.testing.assert_close(model.log_prob(padded), model.log_prob(races.whole))
    alone = torch.cat([model.log_prob(races.whole[i : i + 1]) for i in range(len(races.whole))])
    torch.testing.assert_close(alone, model.log_prob(races.whole))


def test_an_item_that_was_always_last_is_named():
    """R's introduction to PlackettLuce: with A > B > D too, D has no rating."""
    races = Rankings([["A", "B", "D"], ["C", "A"], ["A", "D"], ["B", "A"], ["B", "C"]])
    with pytest.raises(NoMaximum, match="'D' never won"):
        th.fit(PlackettLuce(races.items), races)
    fit = th.fit(PlackettLuce(races.items, reference=False), races, prior=th.priors.Normal(1.0))
    assert th.preferences.ratings(fit).index[-1] == "D"


def test_rankings_that_cannot_be_used_are_named():
    with pytest.raises(DataError, match="ranking 1 names 'a' twice"):
        Rankings([["a", "b"], ["a", "b", "a"]])
    with pytest.raises(DataError, match="ranking 0 is of 1 items"):
        Rankings([["a"]])
    with pytest.raises(UnknownLevel, match="'c' is in ranking 0"):
        Rankings([["a", "c"]], items=["a", "b"])
    with pytest.raises(EmptyData, match="no rankings"):
        Rankings([])
    with pytest.raises(BadArgument, match="names an item twice"):
        Rankings([["a", "b"]], items=["a", "b", "a"])
