"""The bootstrap: its draws are refits, seeded, whatever the workers; its spread is that of theory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

import thetahat as th
from thetahat.errors import BadArgument, NotConverged
from thetahat.inference import covariance
from thetahat.inference.bootstrap import bootstrap

from .data import counts

DATA = counts()


@pytest.fixture(scope="module")
def poisson():
    return th.fit("z ~ x", DATA)


def test_a_draw_of_pairs_is_a_fit_to_the_rows_drawn():
    """Draw d has the counts of Multinomial(n, 1/n) from the seed (seed, d): the same rows, repeated and
    fitted anew."""
    fit = th.fit("y ~ x + w", DATA, "poisson")
    draws = fit.bootstrap(3, seed=11)
    for d in range(3):
        rng = np.random.default_rng(np.random.SeedSequence(entropy=11, spawn_key=(d,)))
        count = rng.multinomial(len(DATA), np.full(len(DATA), 1 / len(DATA)))
        again = th.fit("y ~ x + w", DATA.loc[DATA.index.repeat(count)], "poisson")
        assert_allclose(draws.iloc[d], again.estimates, rtol=1e-6)


def test_a_draw_of_clusters_is_a_fit_to_whole_clusters():
    """Each cluster's rows come all together, as often as the cluster was drawn."""
    fit = th.fit("y ~ x", DATA, "poisson")
    draws = fit.bootstrap(2, "cluster", by="g", seed=5)
    codes, seen = pd.factorize(DATA["g"])
    for d in range(2):
        rng = np.random.default_rng(np.random.SeedSequence(entropy=5, spawn_key=(d,)))
        count = rng.multinomial(len(seen), np.full(len(seen), 1 / len(seen)))[codes]
        again = th.fit("y ~ x", DATA.loc[DATA.index.repeat(count)], "poisson")
        assert_allclose(draws.iloc[d], again.estimates, rtol=1e-6)


@pytest.mark.parametrize("kind", ["pairs", "parametric", "cluster"])
def test_the_numbers_do_not_depend_on_the_workers(kind):
    """Bit for bit: a draw has a seed of its own, and one thread."""
    fit = th.fit("y ~ x + w", DATA, "negative_binomial")
    by = "g" if kind == "cluster" else None
    one, two = (fit.bootstrap(12, kind, by=by, seed=1, workers=k) for k in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    more = fit.bootstrap(15, kind, by=by, seed=1)
    pd.testing.assert_frame_equal(one, more.iloc[:12], check_exact=True)
    assert not one.equals(fit.bootstrap(12, kind, by=by, seed=2))


@pytest.mark.parametrize("kind", ["pairs", "parametric"])
def test_the_spread_of_the_draws_is_the_standard_error(kind):
    """Efron (1979): on data from the model itself both estimate the same thing. 400 draws have a standard
    error of 3.5%."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=400)
    fit = th.fit("y ~ x", {"y": rng.poisson(np.exp(0.7 + 0.4 * x)).astype(float), "x": x}, "poisson")
    draws = fit.bootstrap(400, kind, seed=2)
    assert_allclose(draws.std(), fit.standard_errors(), rtol=0.15)
    assert_allclose(draws.mean(), fit.estimates, atol=3 * fit.standard_errors().max() / 20 + 0.01)


def test_the_bootstrap_covariance_is_the_draws(monkeypatch):
    """covariance("bootstrap") is the covariance of pairs drawn with seed 0; a delta method takes that of θ's
    draws."""
    monkeypatch.setattr(covariance, "DRAWS", 25)
    fit = th.fit("z ~ x", DATA)
    draws = fit.bootstrap(25)
    assert_allclose(fit.covariance("bootstrap"), draws.cov(), rtol=1e-9)
    assert_allclose(fit.standard_errors("bootstrap"), draws.std(), rtol=1e-9)
    sums = fit.delta(lambda v: v["Intercept"] + v["x"], covariance="bootstrap")
    assert_allclose(sums["standard_error"].iloc[0], (draws["Intercept"] + draws["x"]).std(), rtol=1e-9)
    clusters = fit.bootstrap(25, "cluster", by="g")
    assert_allclose(fit.covariance("bootstrap", by="g"), clusters.cov(), rtol=1e-9)


def test_frequency_weights_are_drawn_as_observations():
    """n = Σ c observations are drawn among the rows with probability c/n: the spread is that of the repeated
    rows."""
    rows = DATA.head(120)
    weighted = th.fit("y ~ x", rows, "poisson", weights="c")
    repeated = th.fit("y ~ x", rows.loc[rows.index.repeat(rows["c"].astype(int))], "poisson")
    assert_allclose(weighted.bootstrap(120).std(), repeated.bootstrap(120, seed=9).std(), rtol=0.3)
    assert_allclose(weighted.bootstrap(80, "parametric").std(), weighted.standard_errors(), rtol=0.3)


def test_a_model_of_one_s_own_is_bootstrapped_as_it_is():
    """The same draws as the regression that it is."""

    @th.model(mean=0.0, scale=th.positive(1.0))
    def normal(batch, mean, scale):
        return th.families.Normal().log_prob(batch["y"], mean, scale)

    own = th.fit(normal, {"y": DATA["z"].to_numpy().copy()})
    same = th.fit("z ~ 1", DATA)
    assert_allclose(own.bootstrap(5, workers=2), same.bootstrap(5), rtol=1e-6)
    with pytest.raises(BadArgument, match="has no sample"):
        own.bootstrap(5, "parametric")


def test_a_resample_without_a_maximum_is_a_row_of_nan_and_counted():
    """Few rows, nearly separated: many resamples are separated, and none of them is dropped in silence."""
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    y = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    fit = th.fit("y ~ x", {"y": y, "x": x}, "bernoulli")
    with pytest.warns(UserWarning, match="have no maximum"):
        draws = fit.bootstrap(40, seed=0)
    failed = draws.attrs["failed"]
    assert 5 < failed < 40
    assert int(draws.isna().all(axis=1).sum()) == failed
    assert len(draws) == 40
    assert np.isfinite(draws.dropna()).all().all()


def test_a_resample_at_the_boundary_is_an_estimate():
    """A resample that is not overdispersed asks for dispersion 0, the Poisson model: kept, and counted
    apart."""
    rng = np.random.default_rng(26)
    fit = th.fit("y ~ 1", {"y": rng.negative_binomial(8, 0.6, 60).astype(float)}, "negative_binomial")
    draws = fit.bootstrap(40, seed=0)
    assert draws.attrs["failed"] == 0
    assert draws.attrs["boundary"] > 0
    assert (draws["dispersion"] < 1e-3).sum() >= draws.attrs["boundary"]


def test_nothing_is_left_moved():
    """θ and torch's threads are as they were."""
    fit = th.fit("y ~ x", DATA, "poisson")
    threads = torch.get_num_threads()
    fit.bootstrap(4, workers=2)
    assert torch.equal(fit.objective.theta, fit.theta)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "block"}, "Accepted: 'pairs'"),
        ({"draws": 1}, "at least 2"),
        ({"workers": 0}, "at least 1"),
        ({"kind": "cluster"}, "needs by"),
        ({"kind": "pairs", "clusters": [np.zeros(300)]}, "takes no by"),
        ({"kind": "cluster", "clusters": [np.arange(10)]}, "one label a row"),
    ],
)
def test_a_bootstrap_that_cannot_be_is_refused_with_its_reason(poisson, arguments, message):
    """Each names the argument and what is accepted."""
    settings = {"draws": 5, **arguments}
    with pytest.raises(BadArgument, match=message):
        bootstrap(poisson.objective, poisson.theta, **settings)


def test_a_censored_family_and_weights_that_are_no_whole_numbers_draw_no_data():
    """There is nothing to say when a row is censored, nor what half an observation is."""
    data = {"t": [1.0, 2.0, 0.5, 3.0, 1.5], "s": [0.0, 1.0, 0.0, 0.0, 1.0], "c": [0.5, 1.0, 1.0, 1.0, 1.0]}
    with pytest.raises(BadArgument, match="censored"):
        th.fit("Surv(t, s) ~ 1", data, "exponential").bootstrap(3, "parametric")
    with pytest.warns(UserWarning, match="whole numbers"):
        halves = th.fit("t ~ 1", data, "exponential", weights="c")
    with pytest.raises(BadArgument, match="whole numbers"):
        halves.bootstrap(3, "parametric")


def test_a_bootstrap_of_which_no_draw_has_a_maximum_says_so():
    """Four rows: most resamples are separated, and with this seed all of them."""
    fit = th.fit("y ~ x", {"y": [0.0, 1.0, 0.0, 1.0], "x": [0.0, 1.0, 2.0, 3.0]}, "bernoulli")
    with pytest.raises(NotConverged, match="none of the 4"):
        fit.bootstrap(4, seed=7)
