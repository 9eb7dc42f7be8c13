"""Harrell's C, against R's figures (survival 3.5-3, R 4.2), pairs counted one by one, and repeated rows."""

from __future__ import annotations

import numpy as np
import pytest

import thetahat as th
from tests.evaluation.test_nonparametric import AML
from thetahat.errors import BadArgument
from thetahat.evaluation.concordance import concordance

ROW = np.arange(1, 24)
TIME, EVENT = AML["time"].to_numpy(float), AML["status"].to_numpy()
Z, G, W = (ROW * 7) % 5, ROW % 3, np.resize([1, 2, 3], 23)
ENTRY = np.where(ROW % 2 == 0, np.floor(TIME / 3), 0.0)


@pytest.mark.parametrize(
    ("given", "C", "error", "pairs", "same"),
    [
        ({}, 0.473809523809524, 0.078475529884009, (82, 93, 35), 3),
        ({"strata": G}, 0.60606060606061, 0.11753812987491, (37, 23, 6), 0),
        ({"entry": ENTRY}, 0.491525423728814, 0.070008080546918, (73, 76, 28), 3),
        ({"event": np.ones(23)}, 0.459677419354839, 0.071894210806048, (93, 113, 42), 5),
    ],
)
def test_it_is_that_of_r(given, C: float, error: float, pairs: tuple[int, int, int], same: int) -> None:
    """concordance(Surv(time, status) ~ z), + strata(g), Surv(entry, time, status) ~ z, time ~ z."""
    found = concordance(
        TIME, given.get("event", EVENT), Z, **{k: v for k, v in given.items() if k != "event"}
    )
    assert (found.value, found.standard_error) == pytest.approx((C, error), abs=1e-13)
    assert (found.concordant, found.discordant, found.tied) == pytest.approx(pairs)
    assert found.tied_times == pytest.approx(same)


def test_weights_are_repeated_rows_as_in_r() -> None:
    """concordance(Surv(time, status) ~ z, d[rep(1:23, w), ])."""
    found = concordance(TIME, EVENT, Z, weight=W)
    assert (found.value, found.standard_error) == pytest.approx(
        (0.475167785234899, 0.065904648327959), abs=1e-13
    )
    assert (found.concordant, found.discordant, found.tied) == pytest.approx((296, 333, 116))


def test_it_is_the_count_of_pairs_one_by_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        n = 40
        t, e, x = rng.integers(3, 12, n) * 1.0, rng.integers(0, 2, n), rng.integers(0, 5, n) * 1.0
        s, w, g = t - rng.integers(1, 9, n), rng.integers(0, 4, n) * 1.0, rng.integers(0, 3, n)
        A, B = np.zeros(n), np.zeros(n)
        for i in range(n):
            for j in range(n):
                later = t[j] > t[i] or (t[j] == t[i] and not e[j])
                if i != j and g[i] == g[j] and e[i] and later and s[j] < t[i]:
                    a = 1.0 if x[j] > x[i] else 0.5 if x[j] == x[i] else 0.0
                    A[i], A[j], B[i], B[j] = A[i] + w[j] * a, A[j] + w[i] * a, B[i] + w[j], B[j] + w[i]
        C = (w @ A) / (w @ B)
        found = concordance(t, e, x, entry=s, weight=w, strata=g)
        assert found.value == pytest.approx(C, abs=1e-12)
        assert found.standard_error == pytest.approx(np.sqrt(w @ (2 * (A - C * B) / (w @ B)) ** 2), abs=1e-12)


def test_a_risk_is_the_reverse_of_a_time() -> None:
    a, b = concordance(TIME, EVENT, Z), concordance(TIME, EVENT, -Z, reverse=True)
    assert a == b
    assert concordance(TIME, EVENT, Z, reverse=True).value == pytest.approx(1 - a.value, abs=1e-14)
    assert concordance(TIME, EVENT, np.exp(Z / 3)).value == a.value


def test_a_hundred_thousand_rows_of_chance_are_concordant_half_the_time() -> None:
    """Five standard errors; of all pairs, 10¹⁰, there would be no end."""
    rng = np.random.default_rng(1)
    n = 100_000
    t, e, x = rng.exponential(size=n), rng.integers(0, 2, n), rng.normal(size=n)
    found = concordance(t, e, x)
    assert abs(found.value - 0.5) < 5 * found.standard_error


def test_of_a_fit_it_is_that_of_r() -> None:
    """concordance(survreg(Surv(time, status) ~ z + x, d))."""
    fit = th.fit("Surv(time, status) ~ z + x", AML.assign(z=Z), family="weibull")
    found = fit.concordance()
    assert (found.value, found.standard_error) == pytest.approx(
        (0.602380952380952, 0.073522296253868), abs=1e-12
    )
    assert found.interval() == pytest.approx((0.4535, 0.7343), abs=1e-3)
    again = fit.concordance(AML.assign(z=Z).iloc[::-1])
    assert again.value == pytest.approx(found.value)


def test_of_times_that_were_all_seen() -> None:
    """concordance(time ~ z): of a linear model."""
    fit = th.fit("time ~ z", {"time": TIME, "z": -Z.astype(float)})
    slope = np.sign(fit.estimates["z"])
    own = concordance(TIME, np.ones(23), -slope * Z)
    assert fit.concordance().value == pytest.approx(own.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1.0, 2.0], [1, 1], [1.0]), "prediction has the shape"),
        (([1.0, 2.0], [1, 1], [1.0, np.nan]), "prediction of row 1 is nan"),
        (([1.0, 2.0], [0, 0], [1.0, 2.0]), "no pair"),
        (([1.0, 1.0], [1, 1], [1.0, 2.0]), "no pair"),
    ],
)
def test_what_has_no_pairs_is_refused(arguments, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        concordance(*map(np.array, arguments))


def test_levels_and_weights_are_checked() -> None:
    with pytest.raises(BadArgument, match="level"):
        concordance(TIME, EVENT, Z).interval(2.0)
    with pytest.raises(BadArgument, match="row 0 is negative"):
        concordance(TIME, EVENT, Z, weight=-np.ones(23))
    assert all(np.isnan(concordance(np.arange(5.0), np.ones(5), np.arange(5.0)).interval()))


def test_a_fit_without_an_order_of_times_is_refused() -> None:
    data = {"y": list("abc") * 4, "x": np.arange(12.0) % 5}
    with pytest.raises(BadArgument, match="without an order"):
        th.fit("y ~ x", data, family="categorical").concordance()
    a, b = np.array([1.0, 2, 3, 4, 1, 2]), np.array([2.0, 4, 3, np.inf, 2, 5])
    fit = th.fit('Surv(a, b, type="interval2") ~ 1', {"a": a, "b": b}, family="weibull")
    with pytest.raises(BadArgument, match="interval"):
        fit.concordance()


def test_of_coxs_model_it_is_that_of_r_with_strata_too() -> None:
    """concordance(coxph(Surv(t, e) ~ x)): 0.4217 (0.06519); with strata(s): 0.3783 (0.0701)."""
    rng = np.random.default_rng(0)
    table = {
        "t": rng.integers(1, 9, 60), "e": rng.integers(0, 2, 60), "x": rng.normal(size=60), "s": rng.choice(list("ab"), 60)
    }  # fmt: skip
    for formula, C, error in (
        ("Surv(t, e) ~ x", 0.4217, 0.06519),
        ("Surv(t, e) ~ x + strata(s)", 0.3783, 0.0701),
    ):
        found = th.fit(formula, table, "cox").concordance()
        assert found.value == pytest.approx(C, abs=5e-5)
        assert found.standard_error == pytest.approx(error, abs=5e-5)


def test_exact_ties_have_a_summary_without_tic() -> None:
    rng = np.random.default_rng(0)
    table = {"t": rng.integers(1, 9, 60), "e": rng.integers(0, 2, 60), "x": rng.normal(size=60)}
    fit = th.fit("Surv(t, e) ~ x", table, "cox", ties="exact")
    assert "TIC" not in fit.criteria
    assert "AIC" in str(fit.summary())
