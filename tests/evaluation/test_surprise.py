"""Conformal p-values are uniform without a shift, flags are false as seldom as promised, and what is
shifted is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import thetahat as th
from thetahat.errors import BadArgument, BadWeights, IncomparableScores
from thetahat.evaluation.score import Score
from thetahat.evaluation.surprise import benjamini_hochberg, surprise


def scores(values: np.ndarray, **settings: object) -> Score:
    return Score(torch.as_tensor(values, dtype=torch.float64), **settings)  # type: ignore[arg-type]


def test_p_values_are_uniform_without_a_shift():
    """P(p = k/(n + 1)) = 1/(n + 1) for every k, for any continuous score: χ² of 1200 p-values over the 10
    values that 9 rows can give."""
    rng = np.random.default_rng(0)
    p = [
        surprise(None, scores(rng.standard_t(1, 9)), scores(rng.standard_t(1, 1))).p_values[0]
        for _ in range(1200)
    ]
    seen = np.bincount(np.round(np.array(p) * 10).astype(int), minlength=11)[1:]
    assert stats.chisquare(seen).pvalue > 0.01


def test_p_values_by_hand():
    """(1 + how many reference rows are at most so probable)/(1 + n)."""
    found = surprise(
        None, scores(np.array([-1.0, -2.0, -2.0, -5.0])), scores(np.array([-6.0, -2.0, 0.0, -math.inf]))
    )
    np.testing.assert_allclose(found.p_values, [0.2, 0.8, 1.0, 0.2])


def test_flags_are_false_as_seldom_as_promised():
    """Of 200 sets of 50 rows, 10 of them outliers by 4, at 0.1: the mean share of false flags is at most 0.1,
    and most outliers are flagged."""
    rng = np.random.default_rng(1)
    false, found = [], []
    for _ in range(200):
        x = rng.normal(size=50)
        x[:10] += 4
        flagged = surprise(None, scores(-(rng.normal(size=500) ** 2)), scores(-(x**2)), level=0.1).flagged
        false.append((flagged >= 10).mean() if len(flagged) else 0.0)
        found.append((flagged < 10).sum())
    assert np.mean(false) <= 0.1
    assert np.mean(found) > 7


def test_benjamini_and_hochberg_is_scipys():
    """scipy.stats.false_discovery_control: rejected are those whose adjusted p-value is at most the level."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        p = rng.uniform(size=30) ** 3
        assert set(benjamini_hochberg(p, 0.1)) == set(np.flatnonzero(stats.false_discovery_control(p) <= 0.1))


def test_the_shift_is_told_in_nats():
    """Reference N(0, 1), new N(1, 1), scored by N(0, 1): ½ nat a row less, within four errors. Mann and
    Whitney's p is scipy's of the scores."""
    rng = np.random.default_rng(3)
    fit = th.fit("normal", rng.normal(size=2000))
    old, new = rng.normal(size=800), rng.normal(1, 1, 600)
    found = fit.surprise({"y": new}, {"y": old})
    assert abs(found.difference + 0.5) < 4 * found.standard_error + 0.05
    log_p = [fit.score({"y": y}).per_observation.numpy() for y in (new, old)]
    test = stats.mannwhitneyu(*log_p, alternative="less")
    assert found.p_shift == pytest.approx(test.pvalue, rel=1e-9)
    assert found.more_surprising == pytest.approx(1 - test.statistic / (800 * 600), rel=1e-12)
    assert found.z < -5


def test_a_regression_knows_when_y_given_x_has_moved():
    """x moves and y given x does not: no shift of log p(y | x). y given x moves: a shift."""
    rng = np.random.default_rng(4)

    def rows(m: float, a: float, n: int = 400) -> dict[str, np.ndarray]:
        x = rng.normal(m, 1, n)
        return {"x": x, "y": a + x + rng.normal(size=n)}

    fit = th.fit("y ~ x", rows(0, 0))
    assert fit.surprise(rows(1, 0), rows(0, 0)).p_shift > 0.05
    assert fit.surprise(rows(0, 1), rows(0, 0)).p_shift < 1e-6


def test_documents_are_rows():
    """Terms of a group are one row, at its mean."""
    a = scores(np.array([-1.0, -3.0, -4.0]), group=torch.tensor([0, 0, 7]))
    found = surprise(None, a, scores(np.array([-2.5, -2.5]), group=torch.tensor([1, 1])))
    np.testing.assert_allclose(found.reference, [-2.0, -4.0])
    np.testing.assert_allclose(found.p_values, [2 / 3])


def test_padding_is_no_row():
    found = surprise(
        None, scores(np.arange(5.0)), scores(np.array([1.0, 0.0]), count=torch.tensor([1.0, 0.0]))
    )
    assert len(found.new) == 1


def test_rows_that_were_fitted_are_said_to_be():
    """A reference that the fit has seen is flattered, and the result says so."""
    data = {"y": np.random.default_rng(0).normal(size=60)}
    fit = th.fit("y ~ 1", data)
    assert "Keep rows aside" in str(fit.surprise({"y": [0.3, 9.0]}, data))
    assert fit.surprise({"y": [0.3, 9.0]}, {"y": data["y"] + 0.1}).note == ""


def test_it_prints_what_was_found():
    rng = np.random.default_rng(0)
    fit = th.fit("normal", rng.normal(size=300))
    text = str(fit.surprise({"y": [0.1, 8.0, -0.4]}, {"y": rng.normal(size=200)}))
    assert "1 of 3 rows flagged at a false discovery rate of 10%" in text
    assert "exact log density of y" in text
    few = str(fit.surprise({"y": rng.normal(size=50)}, {"y": rng.normal(size=20)}))
    assert "20 reference rows can give a p-value of 0.048 at least" in few
    plain = fit.surprise({"y": [0.1, 8.0, -0.4]}, {"y": rng.normal(size=200)}).to_dict()
    assert plain["flagged"] == [1]
    assert len(plain["p_values"]) == 3


@pytest.mark.parametrize(
    ("reference", "new", "level", "error", "message"),
    [
        ({}, {}, 1.5, BadArgument, "level=1.5"),
        ({}, {"measure": "mass"}, 0.1, IncomparableScores, "differ in measure: density and mass"),
        ({}, {"kind": "lower bound"}, 0.1, IncomparableScores, "differ in kind"),
        ({"count": torch.tensor([2.0, 1.0])}, {}, 0.1, BadWeights, "reference rows count otherwise"),
    ],
)
def test_what_cannot_be_ranked_is_refused(reference, new, level, error, message):
    with pytest.raises(error, match=message):
        surprise(None, scores(np.zeros(2), **reference), scores(np.zeros(2), **new), level=level)
