"""Aalen–Johansen's incidences, against R's figures (survival 3.5-3, R 4.2), identities and the bootstrap's mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from tests.evaluation.test_nonparametric import AML
from thetahat.errors import BadArgument, OutOfSupport

ROW = np.arange(1, 24)
DATA = AML.assign(cause=np.where(AML["status"] == 0, 0, 1 + ROW % 2))


@pytest.fixture(scope="module")
def aj():
    return th.fit("Surv(time, cause) ~ x", DATA, family="aalen_johansen")


def test_incidences_errors_and_intervals_are_those_of_r(aj) -> None:
    """summary(survfit(Surv(time, factor(cause)) ~ x, d), times = c(12, 23, 45)): pstate, std.err, lower, upper, which are
    on the log scale."""
    found = aj.curves(times=[12, 23, 45], interval="log")
    first, second = (found[found["cause"] == k] for k in (1, 2))
    assert first["incidence"].to_numpy() == pytest.approx(
        [0, 0.19318181818182, 0.31590909090909, 0.25, 0.34722222222222, 0.54166666666667], abs=1e-13
    )
    assert second["incidence"].to_numpy()[[0, 2, 5]] == pytest.approx(
        [0.090909090909091, 0.315909090909091, 0.458333333333333], abs=1e-13
    )
    assert first["standard_error"].to_numpy() == pytest.approx(
        [0, 0.12323247906119, 0.15332439504676, 0.125, 0.14146908880183, 0.15071204454313], abs=1e-12
    )
    assert second["standard_error"].to_numpy() == pytest.approx(
        [0.086678417204145, 0.123232479061193, 0.153324395046756]
        + [0.107582870727984, 0.107582870727984, 0.150712044543130],
        abs=1e-12,
    )
    assert first["low"].to_numpy()[[2, 5]] == pytest.approx([0.122021698302280, 0.313975541759684], abs=1e-12)
    assert first["high"].to_numpy()[[2, 5]] == pytest.approx([0.81787546893324, 0.93447653958456], abs=1e-12)


def test_incidences_and_survival_add_up_to_one(aj) -> None:
    found = aj.curves().pivot_table(index=["group", "time"], columns="cause", values="incidence", sort=True)
    survival = aj.curves().groupby(["group", "time"])["survival"].first()
    assert (found.sum(axis=1) + survival).to_numpy() == pytest.approx(1.0, abs=1e-14)


def test_with_one_cause_the_incidence_is_one_less_the_curve_of_kaplan_and_meier() -> None:
    one = th.fit("Surv(time, status) ~ x", AML, family="aalen_johansen")
    km = th.fit("Surv(time, status) ~ x", AML, family="nonparametric")
    a, b = one.curves(), km.curves()
    assert a["incidence"].to_numpy() == pytest.approx(1 - b["survival"].to_numpy(), abs=1e-14)
    known = b["survival"] > 0
    assert a["standard_error"][known].to_numpy() == pytest.approx(
        b["standard_error"][known].to_numpy(), abs=1e-14
    )
    assert one.log_likelihood == pytest.approx(km.log_likelihood, rel=1e-13)


def test_the_log_likelihood_is_the_mass_given_to_what_was_seen(aj) -> None:
    total = 0.0
    table = aj.curves()
    for i in range(len(DATA)):
        row = DATA.iloc[i]
        own = table[table["group"] == f"x={row['x']}"]
        k = row["cause"] or 1
        part = own[own["cause"] == k]
        at = int(np.searchsorted(part["time"], row["time"]))
        jump = np.diff(part["incidence"].to_numpy(), prepend=0.0)[at]
        total += np.log(jump if row["cause"] else part["survival"].to_numpy()[at])
    assert aj.log_likelihood == pytest.approx(total, rel=1e-12)


def test_without_censoring_the_incidence_is_the_share_of_rows_and_its_error_binomial() -> None:
    rng = np.random.default_rng(1)
    t, cause = rng.integers(1, 9, 100), rng.integers(1, 4, 100)
    fit = th.fit("Surv(t, cause) ~ 1", {"t": t, "cause": cause}, family="aalen_johansen")
    assert fit.causes == (1, 2, 3)
    at = fit.curves(times=[5])
    share = np.array([((t <= 5) & (cause == k)).mean() for k in (1, 2, 3)])
    assert at["incidence"].to_numpy() == pytest.approx(share, abs=1e-13)
    assert at["standard_error"].to_numpy() == pytest.approx(np.sqrt(share * (1 - share) / 100), abs=1e-13)


def test_text_names_the_causes_whatever_its_order() -> None:
    words = DATA["cause"].map({0: "censored", 1: "b", 2: "a"})
    fit = th.fit("Surv(time, cause) ~ x", DATA.assign(cause=words), family="aalen_johansen")
    assert fit.causes == ("a", "b")
    ordered = pd.Categorical(words, categories=["b", "a", "censored"])
    again = th.fit("Surv(time, cause) ~ x", DATA.assign(cause=ordered), family="aalen_johansen")
    assert again.causes == ("b", "a")
    whole = th.fit("Surv(time, cause) ~ x", DATA, family="aalen_johansen")
    own = fit.curves().query("cause == 'b'")["incidence"].to_numpy()
    assert own == pytest.approx(whole.curves().query("cause == 1")["incidence"].to_numpy(), abs=0)
    assert fit.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-13)


def test_entries_and_weights_are_taken() -> None:
    w, start = np.resize([1, 2, 0], 23), np.floor(DATA["time"] / 3)
    data = DATA.assign(w=w, start=start)
    weighted = th.fit("Surv(start, time, cause) ~ x", data, family="aalen_johansen", weights="w")
    repeated = th.fit("Surv(start, time, cause) ~ x", data.loc[data.index.repeat(w)], family="aalen_johansen")
    pd.testing.assert_frame_equal(weighted.curves(), repeated.curves())


def test_a_missing_cause_is_dropped_and_counted() -> None:
    words = DATA["cause"].map({0: "censored", 1: "b", 2: "a"}).where(ROW != 4)
    fit = th.fit("Surv(time, cause) ~ x", DATA.assign(cause=words), family="aalen_johansen")
    assert fit.times.dropped == 1
    numbers = DATA["cause"].astype(float).where(ROW != 4)
    again = th.fit("Surv(time, cause) ~ x", DATA.assign(cause=numbers), family="aalen_johansen")
    assert fit.log_likelihood == pytest.approx(again.log_likelihood, rel=1e-13)


def test_a_cause_alone_is_an_event_of_a_regression() -> None:
    """The cause-specific hazard: rows of other causes are censored."""
    fit = th.fit("Surv(time, cause == 2) ~ 1", DATA, family="exponential")
    rate = (DATA["cause"] == 2).sum() / DATA["time"].sum()
    assert fit.predict(DATA.iloc[:1], "mean")[0] == pytest.approx(1 / rate, rel=1e-8)


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (-1, "is -1 in some row"),
        (1.5, "is 1.5 in some row"),
        (0, "no row .* has an event"),
        ("death", "none of them says that no event"),
    ],
)
def test_events_that_are_no_causes_are_refused(cause, said: str) -> None:
    with pytest.raises(OutOfSupport, match=said):
        th.fit("Surv(time, cause) ~ 1", DATA.assign(cause=cause), family="aalen_johansen")


def test_what_cannot_be_asked_is_refused(aj) -> None:
    with pytest.raises(BadArgument, match="times="):
        aj.curves(times=[-2])
    with pytest.raises(BadArgument, match="interval="):
        aj.curves(interval="wald")
    with pytest.raises(AttributeError, match="does not change"):
        aj.call = {}
    text = str(aj.summary())
    assert "Cumulative incidences" in text
    assert "certified global maximum" in text
