"""Calibration: what is said against what happened."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.proportion import proportion_confint

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument
from thetahat.evaluation.calibration import calibration, pit, wilson
from thetahat.evaluation.kaplan_meier import kaplan_meier
from thetahat.models import Conditional

from .models import Given, people

DATA = people()


class Said(torch.nn.Module):
    """Logits that the rows bring with them."""

    def forward(self, x):
        return x


def forecasts(p: np.ndarray, y: np.ndarray, count: np.ndarray | None = None) -> tuple[Conditional, Tensors]:
    """Probabilities of 1 that were said, and what happened."""
    x = torch.tensor(np.log(p / (1 - p)))
    tensors = {"x": x, "y": torch.tensor(y, dtype=torch.float64)}
    return Conditional(th.families.Bernoulli(), Said()), Tensors(
        tensors, count=None if count is None else torch.tensor(count)
    )


def test_wilsons_interval_is_statsmodels():
    """proportion_confint(method="wilson"), at both ends too."""
    k, n = np.array([0.0, 3.0, 17.0, 20.0]), np.array([5.0, 40.0, 20.0, 20.0])
    np.testing.assert_allclose(
        wilson(k, n, 0.9), proportion_confint(k, n, alpha=0.1, method="wilson"), atol=1e-12
    )


def test_bins_of_a_mean_are_those_of_numpy():
    """300 distinct predictions in 10 bins of 30: means, and the error of residuals within a bin."""
    fit = th.fit("normal ~ x + z", DATA)
    table = calibration(fit.model, fit.source)
    mean = fit.predict()
    for i, rows in enumerate(np.split(np.argsort(mean), 10)):
        y, m = DATA["normal"][rows], mean[rows]
        half = stats.norm.ppf(0.975) * np.std(y - m, ddof=1) / np.sqrt(30)
        expected = [m.mean(), y.mean(), y.mean() - half, y.mean() + half, 30]
        np.testing.assert_allclose(table.iloc[i], expected, rtol=1e-9)


def test_a_canonical_fit_is_calibrated_on_the_whole():
    """Score equation of the intercept: Σ n·predicted = Σ n·observed; and a category's own bins match
    exactly."""
    fit = th.fit("event ~ x + z", DATA, "bernoulli")
    table = calibration(fit.model, fit.source, bins=7)
    assert (table["n"] * table["predicted"]).sum() == pytest.approx((table["n"] * table["observed"]).sum())
    by_region = th.fit("event ~ region", DATA, "bernoulli")
    bins = calibration(by_region.model, by_region.source)
    assert len(bins) == 3  # equal predictions stay together
    np.testing.assert_allclose(bins["predicted"], bins["observed"], rtol=1e-6)
    theirs = proportion_confint(bins["n"] * bins["observed"], bins["n"], method="wilson")
    np.testing.assert_allclose(bins[["low", "high"]].T, theirs, rtol=1e-9)


def test_a_binomial_is_a_share_of_its_trials():
    rng = np.random.default_rng(0)
    m = rng.integers(1, 9, 300).astype(float)
    data = DATA | {"m": m, "won": rng.binomial(m.astype(int), 0.4).astype(float)}
    fit = th.fit("won ~ region", data, "binomial", trials="m")
    table = calibration(fit.model, fit.source)
    assert table["n"].sum() == m.sum()
    np.testing.assert_allclose(table["predicted"], table["observed"], rtol=1e-6)


def test_frequency_weights_are_rows():
    fit = th.fit("claims ~ x", DATA, "poisson", weights="weight")
    repeated = Tensors(
        {
            k: np.repeat(v.numpy(), DATA["weight"].astype(int), 0)
            for k, v in next(fit.source.batches()).tensors.items()
        }
    )
    np.testing.assert_allclose(
        calibration(fit.model, fit.source, bins=1), calibration(fit.model, repeated, bins=1), rtol=1e-10
    )


def test_rows_that_were_not_observed_take_no_part():
    p, y = np.array([0.2, 0.7, 0.9, 0.5]), np.array([0.0, 1.0, 0.0, 1.0])
    with_padding = forecasts(p, y, np.array([1.0, 1.0, 1.0, 0.0]))
    without = forecasts(p[:3], y[:3])
    np.testing.assert_allclose(calibration(*with_padding, bins=2), calibration(*without, bins=2))


# ---- PIT ---------------------------------------------------------------------------------------------------


def test_the_histogram_of_exact_quantiles_is_flat():
    """y at the (i − ½)/1000 quantiles of the model: 50 in each of 20 bins."""
    q = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    family = th.families.Gamma()
    y = family.quantile(q, torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    table = pit(Given(family, (2.0, 0.5)), Tensors({"y": y}))
    assert table["count"].tolist() == [50.0] * 20
    assert table["expected"].tolist() == [50.0] * 20
    assert (table["low"][0], table["high"][0]) == stats.binom(1000, 0.05).interval(0.95)


def test_a_spread_that_is_too_small_shows_as_a_bowl():
    """Overdispersed counts under a Poisson: both ends of the histogram leave the band; under their own family
    they do not."""
    rng = np.random.default_rng(0)
    y = torch.tensor(rng.negative_binomial(2, 0.2, 1500).astype(float))
    wrong, right = (
        pit(Given(f, p), Tensors({"y": y}), bins=10, level=0.999)
        for f, p in ((th.families.Poisson(), (8.0,)), (th.families.NegativeBinomial(), (8.0, 0.5)))
    )
    assert (wrong["count"].iloc[[0, -1]] > wrong["high"].iloc[[0, -1]]).all()
    assert ((right["count"] >= right["low"]) & (right["count"] <= right["high"])).all()


# ---- what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: calibration(f.model, f.source, bins=0), "bins=0"),
        (lambda f: calibration(f.model, f.source, level=1.0), "level=1.0"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(call, message):
    with pytest.raises(BadArgument, match=message):
        call(th.fit("claims ~ x", DATA, "poisson"))


def test_of_a_category_each_level_s_probability_stands_beside_its_share():
    """With one bin: the mean of predict's probabilities, and how often the level came."""
    fit = th.fit("choice ~ x", DATA, "categorical")
    found, wanted = calibration(fit.model, fit.source, bins=1), fit.predict(what="probabilities")
    np.testing.assert_allclose(found["predicted"], wanted.mean(), rtol=1e-12)
    shares = pd.Series(DATA["choice"]).value_counts(normalize=True)[list(found["level"])]
    np.testing.assert_allclose(found["observed"], shares, rtol=1e-12)
    low, high = wilson(shares.to_numpy() * len(wanted), np.full(len(shares), len(wanted)))
    np.testing.assert_allclose(found[["low", "high"]], np.column_stack([low, high]), rtol=1e-12)
    parts = calibration(fit.model, fit.source, bins=4)
    for level, part in parts.groupby("level"):
        rank = np.argsort(np.argsort(wanted[level].to_numpy(), kind="stable"), kind="stable")
        own = rank * 4 // len(rank)
        np.testing.assert_allclose(
            part["predicted"], wanted[level].groupby(own).mean().to_numpy(), rtol=1e-12
        )
        np.testing.assert_allclose(
            part["observed"], (pd.Series(DATA["choice"]) == level).groupby(own).mean().to_numpy(), rtol=1e-12
        )


def test_a_category_has_no_order_for_a_histogram():
    fit = th.fit("choice ~ x", DATA, "categorical")
    with pytest.raises(BadArgument, match="no cdf"):
        pit(fit.model, fit.source)


# ---- censored times ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def times():
    """Weibull times of which a third is censored, at random."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    true, end = np.exp(0.5 + 0.6 * x) * rng.weibull(1.5, 400), rng.exponential(3.0, 400)
    return {"t": np.minimum(true, end), "s": (true <= end).astype(float), "x": x}


def test_kaplan_and_meier_is_statsmodels(times):
    """statsmodels, SurvfuncRight: the estimate at every event, and Greenwood's error, by which the
    interval is exp(−exp(log(−log S) ± z·se))."""
    function = SurvfuncRight(times["t"], times["s"])
    for t, value, error in list(
        zip(function.surv_times, function.surv_prob, function.surv_prob_se, strict=True)
    )[5:200:20]:
        found, low, high = kaplan_meier(times["t"], times["s"] == 1, t)
        half = 1.959963984540054 * error / value / abs(np.log(value))
        np.testing.assert_allclose(
            [found, low, high], [value, value ** np.exp(half), value ** np.exp(-half)], rtol=1e-9
        )


def test_rows_that_enter_late_are_at_risk_from_then_on():
    """By hand: at 2 the rows at risk are those that entered before and are still there."""
    time, event, entry = (
        np.array([1.0, 2.0, 3.0, 4.0]),
        np.ones(4, dtype=bool),
        np.array([0.0, 0.0, 2.5, 0.0]),
    )
    assert kaplan_meier(time, event, 2.0, entry=entry)[0] == pytest.approx((1 - 1 / 3) * (1 - 1 / 2))


def test_censored_times_are_calibrated_by_kaplan_and_meier(times):
    """The true model: predicted shares lie within three standard errors of the observed; the mean of censored
    times, 0.9, would not."""
    fit = th.fit("Surv(t, s) ~ x", times, "weibull")
    found = fit.calibration(bins=5, level=0.997, at=1.0)
    assert ((found["low"] <= found["predicted"]) & (found["predicted"] <= found["high"])).all()
    assert found["n"].sum() == 400
    one = fit.calibration(bins=1, at=1.0)
    assert one["observed"].iloc[0] == pytest.approx(1 - kaplan_meier(times["t"], times["s"] == 1, 1.0)[0])
    scale, shape = (
        np.exp(fit.estimates["Intercept"] + fit.estimates["x"] * times["x"]),
        fit.estimates["shape"],
    )
    assert one["predicted"].iloc[0] == pytest.approx((1 - np.exp(-((1.0 / scale) ** shape))).mean())
    assert fit.calibration().attrs["at"] == np.quantile(
        times["t"][times["s"] == 1], 0.5, method="inverted_cdf"
    )


def test_rows_known_up_to_an_interval_have_no_calibration(times):
    """Kaplan and Meier's estimate is of times seen or censored to the right."""
    data = times | {
        "end": np.where(np.arange(400) < 5, times["t"] + 1, np.where(times["s"] == 1, times["t"], np.inf))
    }
    fit = th.fit('Surv(t, end, type="interval2") ~ x', data, "weibull")
    with pytest.raises(BadArgument, match="interval, or below a bound"):
        fit.calibration()
    with pytest.raises(BadArgument, match="not censored"):
        th.fit("t ~ x", times, "weibull").calibration(at=1.0)
