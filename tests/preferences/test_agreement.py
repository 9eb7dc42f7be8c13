"""How well pairs are judged: accuracy, nats, calibration, and what their intervals are worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.evaluation.calibration import wilson
from thetahat.evaluation.calibration_error import calibration_error
from thetahat.preferences import BradleyTerry, Preferences
from thetahat.preferences.agreement import judge


def model(beta: float = 1.0) -> BradleyTerry:
    out = BradleyTerry(features=1)
    th.models.base.set_theta(out, torch.tensor([beta], dtype=torch.float64))
    return out


def drawn(n: int, beta: float = 1.0, seed: int = 0, group: object = None) -> Preferences:
    """Pairs whose preferences follow the model with coefficient beta."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, 1))
    first = rng.random((n, 1)) < 1 / (1 + np.exp(-beta * (a - b)))
    return Preferences(np.where(first, a, b), np.where(first, b, a), group=group)


def test_accuracy_counts_pairs_and_half_of_those_with_equal_odds():
    pairs = Preferences([[2.0], [0.0], [1.0], [1.0]], [[1.0], [1.0], [1.0], [0.0]], [4, 2, 2, 2])
    found = judge(model(), pairs)
    assert (found.pairs, found.accuracy) == (10.0, pytest.approx((4 + 0.5 * 2 + 2) / 10))
    assert found.score.mean == pytest.approx(
        sum(n * -math.log1p(math.exp(-d)) for n, d in ((4, 1), (2, -1), (2, 0), (2, 1))) / 10
    )


def test_the_interval_of_independent_pairs_is_wilsons():
    """The effective number a(1 − a)/se² is n − 1 where the error is the sample's."""
    found = judge(model(), drawn(300))
    low, high = wilson(np.array([found.accuracy * 299]), np.array([299.0]))
    assert (found.low, found.high) == (pytest.approx(low[0]), pytest.approx(high[0]))


def test_pairs_of_one_prompt_are_one_unit():
    """Each pair twice under one prompt: the same accuracy, and the interval of half as many."""
    once = drawn(200)
    x, y = (np.repeat(once.whole[w].numpy(), 2, 0) for w in ("winner", "loser"))
    found, plain = judge(model(), Preferences(x, y, group=np.repeat(np.arange(200), 2))), judge(model(), once)
    assert found.units == plain.units == 200
    assert (found.low, found.high) == (pytest.approx(plain.low), pytest.approx(plain.high))
    assert found.score.standard_error == pytest.approx(plain.score.standard_error)


def test_true_odds_are_calibrated_and_doubled_ones_are_not():
    """2000 pairs of β = 1: 0 is in the interval at β = 1, and not at β = 3."""
    pairs = drawn(2000)
    assert calibration_error(model(), pairs).low == 0
    wrong = calibration_error(model(3.0), pairs)
    assert wrong.low > 0.05
    assert wrong.of == "the most probable category"


def test_a_model_without_an_opinion_is_calibrated_and_half_right():
    found = judge(model(0.0), drawn(100))
    assert found.accuracy == 0.5
    assert found.score.mean == pytest.approx(-math.log(2))
    assert found.calibration.value == 0


def test_the_judgement_prints_what_was_found():
    text = str(judge(model(), drawn(50, group=np.arange(50) // 2)))
    assert text.startswith("50 pairs of 25 groups, 95 % intervals\naccuracy            0.")
    assert "a coin's -0.6931" in text


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(BadArgument, match="Accepted: BradleyTerry"):
        judge(th.fit("y ~ 1", {"y": [1.0, 2.0]}).model, drawn(5))
    with pytest.raises(BadArgument, match="every pair is a tie"):
        judge(BradleyTerry(items=2, ties="davidson"), Preferences(["a"], ["b"], tie=[1]))
    with pytest.raises(BadArgument, match="no order of their own"):
        calibration_error(model(), drawn(5), of="classes")
