"""A score knows what kind of number it is, in which units, on which data."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, EmptyData, NotFinite
from thetahat.evaluation.score import Score, score
from thetahat.likelihood.total import spread
from thetahat.models import Conditional

from .models import Given, Noisy, Read, people, values

TRANSFORMS = {
    "log": (np.log, lambda y: -np.log(y)),
    "log1p": (np.log1p, lambda y: -np.log1p(y)),
    "log2": (np.log2, lambda y: -np.log(y * np.log(2))),
    "log10": (np.log10, lambda y: -np.log(y * np.log(10))),
    "sqrt": (np.sqrt, lambda y: -np.log(2 * np.sqrt(y))),
    "exp": (np.exp, lambda y: y),
    "expm1": (np.expm1, lambda y: y),
}


def test_the_score_of_fitted_data_is_the_maximised_log_likelihood():
    """fit.log_likelihood, and scipy's density row by row."""
    data = people()
    fit = th.fit("normal ~ x + z", data)
    s = fit.score()
    assert s.total == pytest.approx(fit.log_likelihood, rel=1e-12)
    mean, scale = fit.predict(), fit.estimates["scale"]
    np.testing.assert_allclose(s.per_observation, stats.norm(mean, scale).logpdf(data["normal"]), rtol=1e-10)
    assert (s.kind, s.measure, s.units, s.dimensions, s.n) == ("exact", "density", "normal", 1, 300)


def test_mean_error_and_bits_are_those_of_the_rows():
    """numpy's mean and standard error of the mean; 1 nat is 1/log 2 bits."""
    rows = np.array([-1.0, -2.5, -0.5, -4.0])
    s = score(Read(), values(*rows))
    assert s.mean == pytest.approx(rows.mean())
    assert s.standard_error == pytest.approx(stats.sem(rows))
    assert s.bits == pytest.approx(-rows.mean() / math.log(2))
    assert s.total == pytest.approx(rows.sum())


def test_a_row_counted_c_times_is_c_rows():
    """Mean, total and standard error of repeated rows."""
    rows, count = [-1.0, -2.5, -0.5], torch.tensor([2.0, 1.0, 3.0])
    a = score(Read(), values(*rows, count=count))
    b = score(Read(), values(*np.repeat(rows, [2, 1, 3])))
    assert (a.total, a.mean, a.n) == pytest.approx((b.total, b.mean, b.n))
    assert a.standard_error == pytest.approx(b.standard_error)


def test_rows_that_were_not_observed_say_nothing():
    """A count of 0 is padding, even where log p is −∞ or NaN."""
    s = score(Read(), values(-1.0, -math.inf, math.nan, -3.0, count=torch.tensor([1.0, 0.0, 0.0, 1.0])))
    assert (s.total, s.n, s.impossible) == (-4.0, 2.0, 0)
    assert s.standard_error == pytest.approx(1.0)


def test_blocks_change_nothing():
    """Every cut of the data into batches gives the same rows and the same fingerprint."""
    rows = -np.random.default_rng(0).exponential(size=50)
    whole, cut = score(Read(), values(*rows)), score(Read(), values(*rows, block=7))
    assert torch.equal(whole.per_observation, cut.per_observation)
    assert whole.fingerprint == cut.fingerprint


def test_the_error_is_over_independent_units():
    """Rows of a group are one unit: Σ of squared group sums, G/(G − 1), by hand."""
    v, group = torch.tensor([1.0, 2.0, 4.0, 7.0, 7.0]), torch.tensor([0, 0, 5, 5, 9])
    d = v - v.mean()
    sums = [float(d[:2].sum()), float(d[2:4].sum()), float(d[4])]
    assert spread(v, torch.ones(5), group) == pytest.approx(math.sqrt(3 / 2 * sum(s * s for s in sums)))
    batch = Batch({"log_p": v, "y": v}, group=group)
    assert score(Read(), Tensors(batch)).standard_error == pytest.approx(spread(v, torch.ones(5), group) / 5)


def test_the_terms_of_a_sequence_are_one_unit():
    """(B, T) terms: a sequence is the independent unit, padding counts 0."""
    log_p = -torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
    batch = Batch({"log_p": log_p, "y": log_p}, count=torch.tensor([[1.0, 1, 1], [1, 1, 0]]), dims=2)
    s = score(Read(), Tensors(batch))
    assert (s.total, s.n, s.dimensions) == (-15.0, 5.0, 1)
    assert s.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert s.standard_error == pytest.approx(
        math.sqrt(2 * (3.0**2 + 3.0**2)) / 5
    )  # group sums −6 + 9 and −9 + 6


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transformed_response_is_scored_in_units_of_the_column(name):
    """log p(y) = log p(f(y)) + log |f′(y)|, f′ by hand; the fingerprint is the column's own."""
    data = people() | {"y": people()["positive"]}
    function, slope = TRANSFORMS[name]
    a, b = th.fit(f"{name}(y) ~ x", data), th.fit("t ~ x", data | {"t": function(data["y"])})
    raw = th.fit("y ~ x", data)
    s = a.score()
    np.testing.assert_allclose(
        s.per_observation, b.score().per_observation.numpy() + slope(data["y"]), rtol=1e-12, atol=1e-12
    )
    assert s.log_determinant == pytest.approx(slope(data["y"]).sum(), rel=1e-10)
    assert (s.units, s.fingerprint) == ("y", raw.score().fingerprint)
    assert a.source.units == f"{name}(y)"
    assert th.fit(f"np.{name}(y) ~ x", data).score().units == "y"


def test_a_lognormal_fit_and_a_normal_fit_of_the_logarithm_have_the_same_score():
    """The same density, row by row, to 1e-12."""
    data = people()
    a, b = (
        th.fit("positive ~ x + z", data, "lognormal").score(),
        th.fit("log(positive) ~ x + z", data).score(),
    )
    np.testing.assert_allclose(a.per_observation, b.per_observation, rtol=1e-12, atol=1e-12)
    assert (a.units, a.fingerprint, a.measure) == (b.units, b.fingerprint, b.measure)


def test_a_censored_row_is_a_probability_and_has_no_units():
    """Survival times: log(time) under a censored normal is time under a censored lognormal, the censored rows
    too."""
    data = people()
    data["seen"] = (np.arange(300) % 4 != 0).astype(float)
    a = th.fit("Surv(positive, seen) ~ x", data, "lognormal").score()
    b = th.fit("Surv(log(positive), seen) ~ x", data, "normal").score()
    np.testing.assert_allclose(a.per_observation, b.per_observation, rtol=1e-10, atol=1e-10)
    assert a.measure == "mixed"
    assert a.atoms.sum() == 300 - data["seen"].sum()
    assert a.fingerprint == b.fingerprint != th.fit("positive ~ x", data, "gamma").score().fingerprint


def test_other_expressions_keep_their_own_units():
    """2·y is in no list: its density is per unit of 2·y."""
    s = th.fit("I(2 * positive) ~ x", people()).score()
    assert s.units == "I(2 * positive)"
    assert s.log_determinant == 0.0


def test_the_same_numbers_have_one_fingerprint_wherever_they_are(tmp_path):
    """A dict, a data frame, a tensor, integers, and a file read block by block."""
    data = {"y": np.arange(1.0, 200_001.0), "x": np.arange(200_000.0) % 7}
    path = tmp_path / "rows.parquet"
    pd.DataFrame(data).to_parquet(path)
    from thetahat.data.frame import Frame

    fit = th.fit("y ~ x", data)
    streamed = th.fit("log(y) ~ x", Frame(path, memory=1))
    assert streamed.source.streamed
    found = {
        fit.score().fingerprint,
        streamed.score().fingerprint,
        th.fit("y ~ x", pd.DataFrame(data).astype(int)).score().fingerprint,
    }
    found.add(Tensors({"y": data["y"]}).fingerprint)
    assert len(found) == 1
    data["y"][17] += 1e-9
    assert th.fit("y ~ x", data).score().fingerprint not in found


def test_impossible_rows_are_reported():
    """A count beyond the support: −∞, its number and its place."""
    s = score(Given(th.families.Poisson(), (2.0,)), Tensors({"y": torch.tensor([1.0, 2.5, 3.0, -1.0])}))
    assert (s.total, s.impossible) == (-math.inf, 2)
    assert math.isnan(s.standard_error)
    assert "2 with probability zero, the first in row 1" in str(s)
    assert s.to_dict()["total"] is None


def test_no_log_probability_is_nan_or_infinite():
    with pytest.raises(NotFinite, match="term 3 is nan"):
        score(Read(), values(-1.0, -2.0, -1.0, math.nan, block=2))
    with pytest.raises(NotFinite, match="term 0 is inf"):
        score(Read(), values(math.inf))


def test_there_must_be_something_to_score():
    batch = Batch({"log_p": torch.tensor([-1.0])}, count=torch.tensor([0.0]))
    with pytest.raises(EmptyData, match="every count is 0"):
        score(Read(), Tensors(batch))


@pytest.mark.parametrize(("field", "value"), [("kind", "guess"), ("measure", "volume")])
def test_kinds_and_measures_are_named(field, value):
    with pytest.raises(BadArgument, match=value):
        Score(torch.zeros(2), **{field: value})


def test_a_model_that_draws_says_how_sure_it_is():
    """Noise of standard deviation σ a row, two draws: the total errs by σ·√(n/2), and the error says so."""
    rows = np.zeros(4000)
    s = score(Noisy("estimate", noise=0.5), values(*rows), generator=torch.Generator().manual_seed(1))
    assert s.error == pytest.approx(0.5 * math.sqrt(4000 / 2), rel=0.05)
    assert abs(s.total) < 4 * s.error
    assert "the model's own noise" in str(s)
    assert score(Read(), values(*rows)).error == 0.0


def test_draws_are_common_to_two_models_that_are_given_one_generator():
    """Same seed, same noise: the difference of two bounds is that of their gaps."""
    a, b = (
        score(
            Noisy("lower bound", gap=g, K=8), values(-1.0, -2.0), generator=torch.Generator().manual_seed(3)
        )
        for g in (0.5, 0.7)
    )
    np.testing.assert_allclose(a.per_observation - b.per_observation, 0.2, rtol=1e-12)
    assert "lower bound (K = 8) of the log density of y" in str(a)


def test_dropout_takes_no_part_in_a_score():
    """The network is scored as it is used, and left as it was."""
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1))
    model = Conditional(th.families.Poisson(), net).train()
    source = Tensors({"x": torch.ones(50, 1), "y": torch.ones(50)})
    a, b = score(model, source), score(model, source)
    assert torch.equal(a.per_observation, b.per_observation)
    assert a.per_observation.unique().numel() == 1
    assert net.training


def test_a_vector_has_dimensions():
    """Bits per dimension of a normal in d dimensions: those of one."""
    y = torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = th.fit(th.families.MultivariateNormal(3), y).score()
    assert s.dimensions == 3
    assert s.per_dimension == pytest.approx(s.mean / 3)
    assert s.bits_per_dimension == pytest.approx(-s.mean / 3 / math.log(2))


def test_plain_values_can_be_written_as_json():
    import json

    d = json.loads(json.dumps(th.fit("claims ~ x", people(), "poisson").score().to_dict(), allow_nan=False))
    assert (d["measure"], d["kind"], d["n"]) == ("mass", "exact", 300)
