"""Turnbull's masses: against EM written out, the closed form, and the duality gap computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

import thetahat as th
from thetahat.errors import BadArgument, BadFormula, NotConverged
from thetahat.solvers.turnbull import innermost, turnbull

INF = np.inf
# lower < t ≤ upper, equal: seen; of every kind
LOW = np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 8, 10, -INF, 2, 7])
HIGH = np.array([2, 5, 7, 4, 6, 9, INF, 8, 10, INF, 10, 3, 2, INF])


def covers(low: np.ndarray, high: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n, m): whether (left, right] lies in (low, high]; seen times are points."""
    point = left == right
    begins = np.where(point, low[:, None] < left, low[:, None] <= left) | (
        (low[:, None] == high[:, None]) & point & (low[:, None] == left)
    )
    return begins & (right <= high[:, None])


def em(A: np.ndarray, w: np.ndarray, steps: int) -> np.ndarray:
    p = np.full(A.shape[1], 1 / A.shape[1])
    for _ in range(steps):
        p = p * (A.T @ (w / (A @ p))) / w.sum()
    return p


def drawn(n: int, seed: int, exact: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Times seen at two visits; some of them exactly."""
    rng = np.random.default_rng(seed)
    t, u = rng.weibull(1.5, n) * 10, rng.uniform(0, 8, n).round(1)
    v = u + rng.exponential(5, n).round(1) + 0.1
    low = np.where(t <= u, -INF, np.where(t <= v, u, v))
    high = np.where(t <= u, u, np.where(t <= v, v, INF))
    seen = rng.uniform(size=n) < exact
    return np.where(seen, t, low), np.where(seen, t, high)


@pytest.mark.parametrize("data", [(LOW, HIGH), drawn(60, 0), drawn(60, 1, 0.4)])
def test_no_masses_have_a_higher_likelihood_and_em_comes_to_the_same(data) -> None:
    low, high = data
    found = turnbull(low, high)
    A = covers(low, high, found.where.left, found.where.right).astype(float)
    P = A @ found.mass
    assert found.log_likelihood == pytest.approx(np.log(P).sum(), rel=1e-12)
    gap = (A.T @ (1 / P)).max() - len(low)
    assert gap <= 1e-8
    assert found.certificate.nats == pytest.approx(max(gap, 0.0), abs=1e-10)
    by_em = em(A, np.ones(len(low)), 20000)
    assert found.log_likelihood >= np.log(A @ by_em).sum() - 1e-9
    assert np.cumsum(found.mass) == pytest.approx(np.cumsum(by_em), abs=2e-3)
    assert found.mass.sum() == pytest.approx(1.0, abs=1e-14)


def test_the_likelihood_is_above_that_of_r() -> None:
    """survfit(Surv(lo, hi, type = "interval2") ~ 1), R 4.2, survival 3.5-3, which stops where no value of the curve moves
    by more than 5e-5: at 2, 6, 8 and after. Its curve is close, and its likelihood lower."""
    fit = th.fit('Surv(lo, hi, type="interval2") ~ 1', {"lo": LOW, "hi": HIGH}, "nonparametric")
    S = fit.curves(times=[2, 6, 8])["survival"].to_numpy()
    R = np.array([0.6007654482719, 0.3549986107664, 0.3002650905982])
    assert pytest.approx(R, abs=3e-3) == S
    where = innermost(LOW, HIGH, np.ones(len(LOW)))
    A = covers(LOW, HIGH, where.left, where.right).astype(float)
    of_r = {2.0: 1 - R[0], 6.0: R[0] - R[1], 8.0: R[1] - R[2], 10.0: R[2]}
    p = np.array(
        [of_r.get(v, 0.0) if u >= 5 or u == v else 0.0 for u, v in zip(where.left, where.right, strict=True)]
    )
    assert p.sum() == pytest.approx(1.0)
    assert np.log(A @ p).sum() < fit.log_likelihood


def test_innermost_intervals_are_those_by_hand() -> None:
    """An exact time that is an upper end lies inside, one that is a lower end does not."""
    found = innermost(np.array([1.0, 3.0, 3.0]), np.array([3.0, 3.0, 5.0]), np.ones(3))
    assert list(zip(found.left, found.right, strict=True)) == [(3.0, 3.0), (3.0, 5.0)]
    assert (found.first.tolist(), found.last.tolist(), found.weight.tolist()) == ([0, 1], [1, 2], [2.0, 1.0])


def test_of_right_censored_times_it_is_the_curve_of_kaplan_and_meier() -> None:
    rng = np.random.default_rng(3)
    t, s = rng.integers(1, 15, 80).astype(float), rng.integers(0, 2, 80)
    masses = turnbull(t, np.where(s == 1, t, INF))
    km = th.fit("Surv(t, s) ~ 1", {"t": t, "s": s}, "nonparametric")
    S = km.curves(times=masses.where.right[np.isfinite(masses.where.right)])["survival"].to_numpy()
    assert 1 - np.cumsum(masses.mass)[: len(S)] == pytest.approx(S, abs=1e-8)
    assert masses.log_likelihood == pytest.approx(km.log_likelihood, abs=1e-8)
    both = th.fit(
        'Surv(a, b, type="interval2") ~ 1', {"a": t, "b": np.where(s == 1, t, np.nan)}, "nonparametric"
    )
    assert both.curves()["survival"].to_numpy() == pytest.approx(
        km.curves()["survival"].to_numpy(), abs=1e-12
    )


def test_weights_are_repeated_rows() -> None:
    low, high = drawn(80, 5)
    w = np.resize([1, 2, 0, 3], 80)
    weighted, repeated = turnbull(low, high, w.astype(float)), turnbull(low.repeat(w), high.repeat(w))
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-7)
    assert weighted.where.right.tolist() == repeated.where.right.tolist()


def test_times_below_a_limit_of_detection() -> None:
    """Surv(time, event, type = "left"): the mass of the others by the curve reversed, which is Kaplan–Meier's of −t."""
    rng = np.random.default_rng(4)
    t, s = rng.permutation(np.arange(1.0, 25.0)), rng.integers(0, 2, 24)
    fit = th.fit('Surv(t, s, type="left") ~ 1', {"t": t, "s": s}, "nonparametric")
    back = th.fit("Surv(u, s) ~ 1", {"u": 30 - t, "s": s}, "nonparametric").curves()
    seen = fit.curves().query("after == time")
    F_before = 1 - seen["survival"] - seen["mass"]
    own = back.set_index("time")["survival"]
    assert F_before.to_numpy() == pytest.approx(own[30 - seen["time"]].to_numpy(), abs=1e-7)


def test_many_rows_are_certified() -> None:
    found = turnbull(*drawn(20000, 7))
    assert found.certificate.ok
    assert found.certificate.nats is not None
    assert found.certificate.nats <= 1e-8
    assert found.certificate.concave


def test_the_masses_are_unique() -> None:
    """The matrix of rows by innermost intervals has full column rank, whatever the rows."""
    for seed in range(20):
        low, high = drawn(25, seed, 0.2)
        where = innermost(low, high, np.ones(25))
        A = covers(low, high, where.left, where.right)
        assert np.linalg.matrix_rank(A.astype(float)) == A.shape[1]


def test_what_does_not_converge_says_so_and_is_refused(monkeypatch) -> None:
    low, high = drawn(300, 2)
    stopped = turnbull(low, high, steps=1)
    assert stopped.certificate.status == "not converged"
    assert "1 iterations" in stopped.certificate.detail
    from thetahat.nonparametric import survival

    monkeypatch.setattr(survival, "turnbull", lambda *a: turnbull(*a, steps=1))
    data = {"a": low, "b": high}
    with pytest.raises(NotConverged) as caught:
        th.fit('Surv(a, b, type="interval2") ~ 1', data, "nonparametric")
    assert not caught.value.certificate.ok
    kept = th.fit('Surv(a, b, type="interval2") ~ 1', data, "nonparametric", on_failure="return")
    assert kept.certificate.status == "not converged"


def test_groups_have_masses_of_their_own_and_no_medians_or_log_rank_tests() -> None:
    low, high = drawn(60, 8)
    data = {"a": low, "b": high, "x": np.resize(["u", "v"], 60)}
    fit = th.fit('Surv(a, b, type="interval2") ~ x', data, "nonparametric")
    parts = [turnbull(low[k::2], high[k::2]) for k in (0, 1)]
    assert fit.log_likelihood == pytest.approx(sum(p.log_likelihood for p in parts), rel=1e-12)
    table = fit.curves()
    assert table.groupby("group")["mass"].sum().tolist() == pytest.approx([1.0, 1.0])
    assert np.isnan(fit.curves(times=[float(table["after"][1] + table["time"][1]) / 2])["survival"][0])
    for ask in (fit.median, fit.restricted_mean, fit.log_rank):
        with pytest.raises(BadArgument, match="interval"):
            ask()
    assert "intervals with mass" in str(fit.summary())


def test_competing_causes_are_not_read_from_intervals() -> None:
    with pytest.raises(BadFormula, match="competing causes"):
        th.fit('Surv(a, b, type="interval2") ~ 1', {"a": LOW, "b": HIGH}, "aalen_johansen")
