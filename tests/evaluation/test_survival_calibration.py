"""Mean survival curves beside Kaplan and Meier's: against each row's own curve, and the estimate at one time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.evaluation.kaplan_meier import kaplan_meier

rng = np.random.default_rng(4)
n = 300
x = rng.normal(size=n)
arm = rng.choice(list("ab"), n)
site = rng.integers(0, 15, n)
true = np.exp(0.4 - 0.6 * x + 0.3 * (arm == "b") + 0.4 * rng.normal(size=15)[site]) * rng.weibull(1.3, n)
end = rng.exponential(3.0, n)
TIMES = pd.DataFrame(
    {
        "t": np.minimum(true, end),
        "s": (true <= end).astype(float),
        "x": x,
        "arm": arm,
        "site": site,
        "many": rng.integers(1, 3, n),
    }
)
AT = [0.3, 0.9, 1.7]


@pytest.mark.parametrize(
    ("formula", "settings"),
    [
        ("Surv(t, s) ~ x + arm", {"family": "weibull"}),
        ("Surv(t, s) ~ x + arm", {"family": "weibull", "weights": "many"}),
        ("Surv(t, s) ~ x + arm", {"family": "cox"}),
        ("Surv(t, s) ~ x + strata(arm)", {"family": "cox"}),
        ("Surv(t, s) ~ x + (1 | site)", {"family": "cox"}),
    ],
)
def test_the_mean_of_the_rows_curves_stands_beside_kaplan_and_meier(formula: str, settings: dict) -> None:
    fit = th.fit(formula, TIMES, **settings)
    found = fit.survival_calibration(3, AT)
    t0 = found.attrs["at"]
    own = fit.predict(None, "survival", times=[t0, *AT]).pivot(index="row", columns="time", values="value")
    w = TIMES["many"].to_numpy() if "weights" in settings else np.ones(n)
    assert found["n"].sum() == pytest.approx(3 * w.sum())
    order = np.argsort(-own[t0].to_numpy(), kind="stable")
    middle = np.cumsum(w[order]) - w[order] / 2
    group = np.empty(n, dtype=int)
    group[order] = np.minimum(3 * middle / w.sum(), 2).astype(int)
    for g, part in found.groupby("group"):
        here = group == g
        for t, row in part.set_index("time").iterrows():
            wanted = np.average(own[t][here], weights=w[here])
            assert row["predicted"] == pytest.approx(wanted, rel=1e-9)
            value, low, high = kaplan_meier(
                TIMES["t"].to_numpy()[here], TIMES["s"].to_numpy()[here] == 1, t, count=w[here]
            )
            np.testing.assert_allclose(
                row[["observed", "low", "high"]].astype(float), [value, low, high], rtol=1e-9
            )


def test_cox_s_calibration_is_that_of_its_curves() -> None:
    fit = th.fit("Surv(t, s) ~ x + strata(arm)", TIMES, family="cox")
    found = fit.calibration(bins=4, at=0.9)
    risk = 1 - fit.predict(None, "survival", times=[0.9])["value"].to_numpy()
    bin_ = np.argsort(np.argsort(risk, kind="stable"), kind="stable") * 4 // n
    np.testing.assert_allclose(found["predicted"], [risk[bin_ == b].mean() for b in range(4)], rtol=1e-9)
    wanted = [
        1 - kaplan_meier(TIMES["t"].to_numpy()[bin_ == b], TIMES["s"].to_numpy()[bin_ == b] == 1, 0.9)[0]
        for b in range(4)
    ]
    np.testing.assert_allclose(found["observed"], wanted, rtol=1e-12)
    assert found.attrs["at"] == 0.9
    half = TIMES.head(150)
    new = fit.calibration(half, bins=1, at=0.9)
    wanted = 1 - fit.predict(half, "survival", times=[0.9])["value"].mean()
    assert new["predicted"].iloc[0] == pytest.approx(wanted, rel=1e-9)


def test_cox_snell_residuals_are_the_cumulative_hazards_at_the_rows_own_times() -> None:
    fit = th.fit("Surv(t, s) ~ x + arm", TIMES, family="cox")
    found = fit.residuals("cox-snell")
    for i in (0, 17, 202):
        row = TIMES.iloc[[i]]
        wanted = fit.predict(row, "cumulative_hazard", times=[row["t"].item()])["value"].item()
        assert found[i] == pytest.approx(wanted, rel=1e-9)
    assert found.sum() == pytest.approx(TIMES["s"].sum(), rel=1e-9)


def test_nothing_is_said_of_a_group_after_its_last_time() -> None:
    fit = th.fit("Surv(t, s) ~ x", TIMES, family="weibull")
    found = fit.survival_calibration(2, [50.0])
    assert found["observed"].isna().all()
    assert (found["predicted"] < 1e-3).all()


def test_what_has_no_such_curves_is_refused() -> None:
    refused = th.errors.BadArgument
    with pytest.raises(refused, match=r"Surv\(time, event\)"):
        th.fit("t ~ x", TIMES, "gamma").survival_calibration()
    cox = th.fit("Surv(t, s) ~ x", TIMES, family="cox")
    with pytest.raises(refused, match="earlier time"):
        cox.calibration(at=1e6)
    with pytest.raises(refused, match="bins=0"):
        cox.survival_calibration(0)
    none = TIMES.assign(s=0.0)
    with pytest.raises(refused, match="every time is censored"):
        th.fit("Surv(t, s) ~ 1", TIMES, family="exponential").calibration(none)
