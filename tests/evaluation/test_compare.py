"""Scores are compared by paired differences, or refused with the reason."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import thetahat as th
from thetahat.errors import BadArgument, IncomparableScores
from thetahat.evaluation.compare import compare
from thetahat.evaluation.score import Score, score

from .models import Noisy, people, values


def of(*rows: float, **other: object) -> Score:
    return Score(torch.tensor(rows, dtype=torch.float64), **({"fingerprint": "f"} | other))  # type: ignore[arg-type]


def test_the_difference_is_paired():
    """Σ d and √n·sd(d) of the differences by numpy, not of the values."""
    rng = np.random.default_rng(0)
    hard = -10 * rng.exponential(size=200)
    a, b = hard + 0.1 * rng.normal(size=200), hard - 0.05 + 0.1 * rng.normal(size=200)
    pair = compare({"a": of(*a), "b": of(*b)}).pair("a", "b")
    d = a - b
    assert pair.difference == pytest.approx(d.sum())
    assert pair.standard_error == pytest.approx(math.sqrt(200) * d.std(ddof=1))
    assert pair.z == pytest.approx(d.sum() / (math.sqrt(200) * d.std(ddof=1)))
    assert pair.standard_error < 0.05 * math.sqrt(200) * a.std()  # what is hard for both has cancelled


def test_a_row_counted_c_times_is_compared_c_times():
    """Frequency weights against repeated rows."""
    a, b, c = np.array([-1.0, -2.0, -4.0]), np.array([-1.5, -1.5, -5.0]), [2, 1, 3]
    counted = compare({"a": of(*a, count=torch.tensor(c)), "b": of(*b, count=torch.tensor(c))}).pair("a", "b")
    repeated = compare({"a": of(*np.repeat(a, c)), "b": of(*np.repeat(b, c))}).pair("a", "b")
    assert (counted.difference, counted.standard_error) == pytest.approx(
        (repeated.difference, repeated.standard_error)
    )


def test_a_gamma_and_a_normal_of_the_logarithm_stand_in_one_table():
    """Both in units of y: the difference is that of the log-likelihoods, the second with its Jacobian −Σ
    log y."""
    data = people()
    gamma, log = th.fit("positive ~ x + z", data, "gamma"), th.fit("log(positive) ~ x + z", data)
    table = compare({"gamma": gamma, "log": log}).table
    expected = gamma.log_likelihood - (log.log_likelihood - np.log(data["positive"]).sum())
    assert abs(table["difference"].iloc[1]) == pytest.approx(abs(expected), rel=1e-9)
    assert table.index[0] == ("gamma" if expected > 0 else "log")


def test_a_model_of_ones_own_stands_beside_a_formula():
    """The same likelihood in ten lines and as a formula: no difference in any row."""
    data = {k: v for k, v in people().items() if k in ("x", "normal")}

    @th.model(a=0.0, b=0.0, sigma=th.positive(1.0), target="normal")
    def line(batch, a, b, sigma):
        return th.families.Normal().log_prob(batch["normal"], a + b * batch["x"], sigma)

    pair = compare({"own": th.fit(line, data), "formula": th.fit("normal ~ x", data)}, data).pairs[0]
    assert pair.difference == pytest.approx(0.0, abs=1e-7)


def test_nested_fits_differ_by_half_the_deviance():
    """2·difference is the likelihood-ratio statistic; the larger model wins on the data that were fitted, and
    the note says why."""
    data = people()
    c = compare(
        {"small": th.fit("claims ~ x", data, "poisson"), "large": th.fit("claims ~ x + z", data, "poisson")}
    )
    assert list(c.scores) == ["large", "small"]
    assert c.pairs[0].difference == pytest.approx(c.scores["large"].total - c.scores["small"].total)
    assert "larger model gains" in str(c)
    assert "larger model gains" not in str(compare(dict(c.scores)))


def test_held_out_data_are_scored_as_each_fit_encodes_them():
    data, other = people(), people(seed=1)
    fits = {
        "poisson": th.fit("claims ~ x", data, "poisson"),
        "geometric": th.fit("claims ~ x", data, "geometric"),
    }
    c = compare(fits, other)
    assert c.scores["poisson"].total == pytest.approx(fits["poisson"].score(other).total)
    assert c.note == ""


def test_fit_compare_is_compare():
    data = people()
    a, b = th.fit("claims ~ x", data, "poisson"), th.fit("claims ~ x + z", data, "poisson")
    c = a.compare(b)
    assert list(c.scores) == ["other", "this"]
    assert c.note


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 5), st.floats(-50, 5), st.floats(-50, 5)), min_size=2, max_size=8))
def test_the_order_of_arguments_changes_nothing(rows):
    """Differences add around a triangle, and the best stands first whichever was named first."""
    a, b, c = (of(*column) for column in zip(*rows, strict=True))
    one, two = compare({"a": a, "b": b, "c": c}), compare({"c": c, "b": b, "a": a})
    totals = [s.total for s in one.scores.values()]
    assert totals == sorted(totals, reverse=True)
    for x, y in (("a", "b"), ("b", "c"), ("a", "c")):
        assert one.pair(x, y).difference == pytest.approx(two.pair(x, y).difference, abs=1e-9)
    first, second, third = one.scores
    around = one.pair(first, second).difference + one.pair(second, third).difference
    assert one.pair(first, third).difference == pytest.approx(around, abs=1e-8)


# ---- bounds and estimates ----------------------------------------------------------------------------------


def test_a_bound_below_an_exact_value_proves_nothing():
    """It is marked, not ranked as worse: either may be the first."""
    c = compare({"exact": of(-1.0, -2.0), "bound": of(-2.0, -2.5, kind="lower bound", K=5)})
    pair = c.pair("exact", "bound")
    assert pair.relation == "?"
    assert math.isnan(pair.z)
    assert "undecided" in str(pair)
    assert c.rank("exact") == c.rank("bound") == (1, 2)
    assert "lower bound (K = 5)" in str(c)
    assert "undecided" in str(c)


def test_a_bound_above_an_exact_value_proves_its_model_better():
    c = compare({"exact": of(-3.0, -2.9), "bound": of(-2.0, -2.5, kind="lower bound")})
    pair = c.pair("exact", "bound")
    assert (pair.better, pair.relation) == ("bound", "≥")
    assert "better by at least 1.4" in str(pair)
    assert (c.rank("bound"), c.rank("exact")) == ((1, 1), (2, 2))
    assert c.table.loc["exact", "relation"] == "≤"


def test_no_order_of_two_bounds_is_proven():
    c = compare(
        {
            "a": of(-1.0, -1.5, kind="lower bound"),
            "b": of(-2.0, -2.5, kind="lower bound"),
            "exact": of(-3.0, -3.5),
        }
    )
    assert c.pair("a", "b").relation == "?"
    assert [c.rank(n) for n in ("a", "b", "exact")] == [(1, 2), (1, 2), (3, 3)]


def test_the_noise_of_an_estimate_is_in_the_error():
    """An unbiased estimate of the same log p: its difference is within its error, which is that of the
    noise."""
    rows = -np.random.default_rng(0).exponential(size=3000)
    exact = of(*rows, fingerprint=values(*rows).fingerprint)
    noisy = score(Noisy("estimate", noise=0.4), values(*rows), generator=torch.Generator().manual_seed(0))
    pair = compare({"exact": exact, "noisy": noisy}).pairs[0]
    assert pair.standard_error == pytest.approx(0.4 * math.sqrt(3000 / 2), rel=0.05)
    assert pair.z < 4


# ---- impossible data ---------------------------------------------------------------------------------------


def test_a_model_that_forbids_what_happened_is_infinitely_worse():
    c = compare({"forbids": of(-0.1, -math.inf), "allows": of(-5.0, -5.0)})
    assert c.best == "allows"
    assert c.pairs[0].difference == math.inf
    assert "forbids gives probability zero to 1 rows" in str(c)


def test_models_that_forbid_the_same_rows_are_compared_on_the_others():
    c = compare({"a": of(-1.0, -math.inf, -1.0), "b": of(-2.0, -math.inf, -1.5)})
    assert (c.best, c.pairs[0].difference) == ("a", 1.5)


def test_models_that_forbid_different_rows_are_undecided():
    c = compare({"a": of(-1.0, -math.inf), "b": of(-math.inf, -1.0)})
    assert c.pairs[0].relation == "?"
    assert "Each gives probability zero" in str(c.pairs[0])


# ---- refusals ----------------------------------------------------------------------------------------------


def refused(a: Score, b: Score) -> str:
    with pytest.raises(IncomparableScores) as error:
        compare({"a": a, "b": b})
    return str(error.value)


def test_a_density_and_a_mass_have_no_difference():
    """Counts by a Poisson, and by a normal, which gives them a density."""
    data = people()
    message = refused(th.fit("claims ~ x", data, "poisson").score(), th.fit("claims ~ x", data).score())
    assert "'a' and 'b' cannot be compared: one is a mass and the other a density of claims" in message


def test_other_units_are_refused():
    data = people()
    message = refused(th.fit("positive ~ x", data).score(), th.fit("I(2 * positive) ~ x", data).score())
    assert "per unit of positive, the other of I(2 * positive)" in message


def test_other_data_are_refused():
    data = people()
    shuffled = {k: v[::-1] for k, v in data.items()}
    fit = th.fit("claims ~ x", data, "poisson")
    message = refused(fit.score(), fit.score(shuffled))
    assert "other data, or of the same rows in another order" in message
    assert fit.score().fingerprint in message


def test_rows_that_were_dropped_are_named_as_the_reason():
    """x is missing once: the fits have 300 and 299 rows."""
    data = people()
    data["x"][3] = np.nan
    message = refused(
        th.fit("claims ~ z", data, "poisson").score(), th.fit("claims ~ x", data, "poisson").score()
    )
    assert "300 and 299 terms" in message
    assert "missing" in message


def test_other_counts_are_refused():
    assert "counted otherwise" in refused(of(-1.0, -2.0), of(-1.0, -2.0, count=torch.tensor([1.0, 2.0])))
    data = people()
    message = refused(
        th.fit("claims ~ x", data, "poisson").score(),
        th.fit("claims ~ x", data, "poisson", weights="weight").score(),
    )
    assert "fingerprints" in message


def test_other_dimensions_are_refused():
    assert "holds 1 numbers in one and 3 in the other" in refused(of(-1.0), of(-1.0, dimensions=3))


def test_an_atom_is_not_a_density():
    """A gamma with a hurdle has a mass at 0; a normal has a density there. Without zeros, they can be
    compared."""
    data = people()
    data["spent"] = np.where(np.arange(300) % 5 == 2, 0.0, data["positive"])
    message = refused(th.fit("spent ~ x", data, "hurdle(gamma)").score(), th.fit("spent ~ x", data).score())
    assert "row 2 has a mass in one and a density in the other (60 such rows)" in message
    positive = {k: v[data["spent"] > 0] for k, v in data.items()}
    a = th.fit("spent ~ x", data, "hurdle(gamma)").score(positive)
    assert compare({"a": a, "b": th.fit("spent ~ x", data).score(positive)}).best == "a"


def test_a_mixed_measure_that_does_not_name_its_atoms_is_refused():
    a = of(-1.0, measure="mixed")
    assert "does not say which of the rows" in refused(a, of(-1.0))
    assert compare({"a": a, "b": dataclasses.replace(a)}).pairs[0].z == 0.0


@pytest.mark.parametrize("given", [{}, {"a": of(-1.0)}, [], [of(-1.0)]])
def test_it_takes_two_to_compare(given):
    with pytest.raises(BadArgument, match="two or more"):
        compare(given)


def test_only_what_has_a_score_is_compared():
    with pytest.raises(BadArgument, match="'b' is a int"):
        compare({"a": of(-1.0), "b": 3})
    with pytest.raises(BadArgument, match="not a pair"):
        compare({"a": of(-1.0), "b": of(-2.0)}).pair("a", "z")


def test_a_comparison_prints_itself():
    """The table in plain text, for a notebook, and as plain values."""
    import json

    c = compare({"first": of(-1.0, -2.0), "second": of(-1.5, -2.25)})
    text = str(c)
    assert text.splitlines()[0].startswith("Log density of y, 2 observations")
    assert "−0.750" in text
    assert "<table" in c._repr_html_()
    assert json.loads(json.dumps(c.to_dict()))["best"] == "first"


def test_one_unit_has_no_spread_and_no_z() -> None:
    """A mixed model's value is of all rows together: how the difference varies from data to data is not known."""
    table = {
        "y": [1.0, 2.0, 4.0, 3.0, 6.0, 5.0],
        "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "g": [0, 0, 1, 1, 2, 2],
    }
    one, two = (th.fit(f"y ~ {x} + (1 | g)", table) for x in ("1", "x"))
    (pair,) = one.compare(two).pairs
    assert np.isnan(pair.standard_error)
    assert np.isnan(pair.z)
