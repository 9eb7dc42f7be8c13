"""Density ratios, weights, the two-sample test: known ratios, known optima, exact size."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import BadArgument, BadWeights, DataError, NoMaximum, UnknownColumn
from thetahat.evaluation.shift import density_ratio, two_sample
from thetahat.likelihood.weights import Importance


def table(mean: float, scale: float, n: int, seed: int) -> dict[str, np.ndarray]:
    """x ~ N(mean, scale²), y = x² + noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(mean, scale, n)
    return {"x": x, "y": x**2 + 0.3 * rng.normal(size=n)}


@pytest.fixture(scope="module")
def tables() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return table(0.0, 1.0, 6000, 1), table(1.0, 0.5, 4000, 2)


def test_the_ratio_of_two_normals_is_a_logistic_regression(tables):
    """log N(x | 1, ½²)/N(x | 0, 1) = log 2 − 2 + 4x − 1.5x², each coefficient within four of its standard
    errors."""
    ratio = density_ratio(*tables, "x + I(x**2)")
    found, truth = np.array(list(ratio.coefficients.values())), np.array([math.log(2) - 2, 4.0, -1.5])
    pooled = {"x": np.concatenate([t["x"] for t in tables]), "new": np.repeat([0.0, 1.0], [6000, 4000])}
    logistic = th.fit("new ~ x + I(x**2)", pooled, family="bernoulli")
    np.testing.assert_allclose(found[1:], logistic.estimates.to_numpy()[1:], rtol=1e-8)
    assert np.abs((found - truth) / logistic.standard_errors().to_numpy()).max() < 4
    np.testing.assert_allclose(ratio.log_ratio({"x": [0.0, 1.0]}), [found[0], found.sum()], rtol=1e-10)


def test_weights_have_mean_one_and_a_known_effective_size(tables):
    """n_eff/n → (E w)²/E w² = 0.3768…: E w² is the integral of p_new²/p_ref, on a grid."""
    ratio = density_ratio(*tables, "x + I(x**2)")
    assert ratio.weights.mean() == pytest.approx(1.0, abs=1e-12)
    assert ratio.log_mean == pytest.approx(0.0, abs=0.05)
    grid = np.linspace(-8, 8, 40_001)
    new, ref = (
        np.exp(-0.5 * ((grid - m) / s) ** 2) / s / math.sqrt(2 * math.pi) for m, s in ((1, 0.5), (0, 1))
    )
    assert ratio.n_eff / 6000 == pytest.approx(1 / (np.sum(new**2 / ref) * (grid[1] - grid[0])), rel=0.05)
    np.testing.assert_allclose(ratio.weigh(tables[0]), ratio.weights, rtol=1e-10)


def test_weighted_reference_rows_have_the_moments_of_the_new(tables):
    """E_ref[w x] = E_new[x]: the mean of x and of x² by weights, within four errors of 1 and 1.25."""
    ratio = density_ratio(*tables, "x + I(x**2)")
    for power, truth in ((1, 1.0), (2, 1.25)):
        mean, error = ratio.mean(tables[0]["x"] ** power)
        assert abs(mean - truth) < 4 * error + 4 * tables[1]["x"].std() / math.sqrt(4000)
        assert error == pytest.approx(tables[1]["x"].std() / math.sqrt(ratio.n_eff), rel=0.9)


def test_the_weighted_line_is_better_on_new_rows(tables):
    """y = x² fitted by a line: weighted by the estimated ratio it is within 0.1 of the optimum at the new
    rows, −0.75 + 2x, scores there what the ratio promised from reference rows alone, and beats the
    unweighted line by many errors; at the reference rows it is the other way round."""
    ratio = density_ratio(*tables, "x + I(x**2)")
    plain = th.fit("y ~ x", tables[0])
    weighted = th.fit("y ~ x", tables[0], weights=Importance(ratio))
    assert np.abs(weighted.estimates.to_numpy()[:2] - [-0.75, 2.0]).max() < 0.1
    assert abs(plain.estimates["x"]) < 0.1
    fresh = [table(0.0, 1.0, 2000, 3), table(1.0, 0.5, 2000, 4)]
    assert (
        th.compare({"weighted": weighted, "plain": plain}, fresh[1]).pair("weighted", "plain").better
        == "weighted"
    )
    assert th.compare({"weighted": weighted, "plain": plain}, fresh[1]).pair("weighted", "plain").z > 10
    assert (
        th.compare({"weighted": weighted, "plain": plain}, fresh[0]).pair("weighted", "plain").better
        == "plain"
    )
    promised, error = ratio.mean(plain.score(tables[0]).per_observation)
    assert abs(promised - plain.score(fresh[1]).mean) < 4 * error


def test_all_shared_columns_are_read_where_none_are_named():
    """Numbers as they are, text as categories; a column of one table alone has no part in it."""
    rng = np.random.default_rng(0)
    old = pd.DataFrame({"a b": rng.normal(size=80), "kind": rng.choice(["u", "v"], 80), "only": 1.0})
    new = pd.DataFrame({"a b": rng.normal(0.3, 1, 70), "kind": rng.choice(["u", "v"], 70, p=[0.3, 0.7])})
    ratio = density_ratio(old, new)
    assert ratio.predictors == "`a b` + kind"
    assert list(ratio.coefficients) == ["Intercept", "a b", "kind[T.v]"]
    assert ratio.to_dict()["reference"] == 80


def test_tables_that_do_not_overlap_have_no_ratio():
    with pytest.raises(NoMaximum, match="too easily distinguished from the reference rows"):
        density_ratio(table(0, 1, 50, 0), table(9, 1, 50, 1), "x")


def test_too_few_effective_rows_are_refused():
    """50 rows that weigh like fewer than ten; a prior shrinks the ratio until they do not."""
    old, new = table(0, 1, 50, 0), table(2.5, 1, 50, 1)
    with pytest.raises(BadWeights, match=r"weigh like \d\.\d of them, and 10 are wanted"):
        density_ratio(old, new, "x")
    assert density_ratio(old, new, "x", prior=th.priors.Normal(0.3)).n_eff > 10


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: density_ratio({"x": [1.0, 2.0]}, {"z": [1.0]}), BadArgument, "share no column"),
        (lambda: density_ratio(table(0, 1, 9, 0), table(0, 1, 9, 1), "z"), UnknownColumn, "'z'"),
        (
            lambda: density_ratio(table(0, 1, 99, 0), table(0, 1, 99, 1), "x - 1"),
            BadArgument,
            "leaves the intercept out",
        ),
        (lambda: density_ratio({"x": [1.0, None] * 9}, {"x": [1.0, 2.0] * 9}), DataError, "missing in row 1"),
        (lambda: two_sample(table(0, 1, 9, 0), table(0, 1, 9, 1), folds=1), BadArgument, "2 folds or more"),
        (
            lambda: density_ratio(table(0, 1, 99, 0), table(0, 1, 99, 1), "x").mean([1.0]),
            BadArgument,
            "99 rows",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- the test ----------------------------------------------------------------------------------------------


def test_the_two_sample_test_finds_a_shift_and_a_spread():
    """A shift of one standard deviation by x; twice the spread by x² alone, of which a line in x knows
    nothing."""
    old, new, wide = (table(m, s, 60, k) for m, s, k in ((0, 1, 0), (1, 1, 1), (0, 2, 2)))
    assert two_sample(old, new, "x", permutations=39).p_value == 1 / 40
    assert two_sample(old, wide, "I(x**2)", permutations=39).p_value == 1 / 40
    found = two_sample(old, wide, "x", permutations=39)
    assert found.p_value > 0.1
    assert found.gain < 0.02


def test_the_two_sample_test_has_its_size():
    """Of 14 pairs of samples of one population, at 1/10, where 9 permutations are exact: at most 4 (P =
    0.991); p is spread over (0, 1]."""
    rng = np.random.default_rng(5)
    p = np.array(
        [
            two_sample({"x": rng.normal(size=25)}, {"x": rng.normal(size=15)}, permutations=9, seed=k).p_value
            for k in range(14)
        ]
    )
    assert (p <= 0.1).sum() <= 4
    assert 0.3 < p.mean() < 0.8


def test_tables_that_are_told_apart_completely_have_the_smallest_p():
    """The prior keeps the classifier finite; nearly all rows are named rightly."""
    found = two_sample(table(0, 1, 40, 0), table(9, 1, 30, 1), "x", permutations=19)
    assert found.p_value == 1 / 20
    assert found.accuracy > 0.95
    assert "p = 0.05 (19 permutations)" in str(found)
    assert found.to_dict()["new"] == 30
