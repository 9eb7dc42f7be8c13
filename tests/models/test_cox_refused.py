"""Cox's model: what has no maximum, and what is refused, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import (
    BadArgument,
    BadFormula,
    DataError,
    FlatDirection,
    IncomparableScores,
    NoMaximum,
    NotFinite,
    OutOfSupport,
    ThetahatError,
    UnknownColumn,
)

from .cox_data import SMALL, drawn

F = "Surv(time, status) ~ x + z"


@pytest.mark.parametrize("ties", ["efron", "breslow", "exact"])
@pytest.mark.parametrize("entry", [False, True])
def test_a_covariate_that_is_largest_at_every_event_has_no_finite_coefficient(ties: str, entry: bool) -> None:
    data = SMALL.assign(start=-1.0 * SMALL["g"], late=np.where(SMALL["status"] == 1, -SMALL["time"], -9.0))
    response = "Surv(start, time, status)" if entry else "Surv(time, status)"
    with pytest.raises(NoMaximum, match=r"largest late of those at risk.*Leave out late") as caught:
        th.fit(f"{response} ~ x + late", data, family="cox", ties=ties)
    assert caught.value.certificate.directions[0].keys() == {"late"}
    with pytest.raises(NoMaximum, match="smallest late"):
        th.fit(f"{response} ~ x + late", data.assign(late=-data["late"]), family="cox", ties=ties)
    fit = th.fit(f"{response} ~ x + late", data, family="cox", ties=ties, prior=th.priors.Normal(1.0))
    assert fit.certificate.ok


def test_a_combination_that_is_largest_at_every_event_is_named() -> None:
    rng = np.random.default_rng(1)
    hidden = np.where(SMALL["status"] == 1, -SMALL["time"], -9.0)
    a = rng.normal(size=len(SMALL))
    with pytest.raises(NoMaximum, match=r"largest.*a.*b") as caught:
        th.fit("Surv(time, status) ~ a + b", SMALL.assign(a=a, b=hidden - a), family="cox")
    direction = caught.value.certificate.directions[0]
    assert direction["a"] == pytest.approx(direction["b"], rel=1e-4)


def test_a_group_without_events_has_no_finite_coefficient_and_one_beside_it_has() -> None:
    data = drawn(200, 9).assign(arm=lambda d: (d["g"] * 0 + np.arange(200) % 4 == 0) * 1.0)
    data["event"] = data["event"] * (1 - data["arm"])
    with pytest.raises(NoMaximum, match="smallest arm"):
        th.fit("Surv(stop, event) ~ a + arm", data, family="cox")
    data.loc[(data["arm"] == 1).idxmax(), "event"] = 1.0
    assert th.fit("Surv(stop, event) ~ a + arm", data, family="cox").certificate.ok


def test_an_outlier_in_a_column_hides_no_maximum() -> None:
    """Differences of 1 are 10⁻¹¹ of this column: they decide all the same."""
    data = drawn(80, 12)
    last = data["stop"].idxmax()
    data.loc[last, ["b", "event"]] = [1e11, 0.0]
    fit = th.fit("Surv(stop, event) ~ a + b", data, family="cox", on_failure="return")
    assert fit.certificate.status != "no maximum"


def test_columns_that_say_nothing_are_flat_directions() -> None:
    for column, formula in [
        (SMALL["x"] * 0 + 3, "Surv(time, status) ~ x + q"),
        (SMALL["g"] * 2.0, "Surv(time, status) ~ x + q + strata(g)"),
        (SMALL["x"] - SMALL["z"], "Surv(time, status) ~ x + z + q"),
    ]:
        with pytest.raises(FlatDirection, match="q"):
            th.fit(formula, SMALL.assign(q=column), family="cox")


def test_no_event_anywhere_is_an_error_and_in_one_stratum_is_not() -> None:
    with pytest.raises(DataError, match="no event was seen"):
        th.fit(F, SMALL.assign(status=0), family="cox")
    some = SMALL.assign(status=SMALL["status"] * (SMALL["g"] != 1))
    left = th.fit("Surv(time, status) ~ x + strata(g)", some, family="cox")
    without = th.fit("Surv(time, status) ~ x + strata(g)", some[some["g"] != 1], family="cox")
    assert left.log_likelihood == pytest.approx(without.log_likelihood, abs=1e-12)


def test_without_predictors_there_is_the_null_log_likelihood() -> None:
    """R: coxph(…)$loglik[1]."""
    assert th.fit("Surv(time, status) ~ 1", SMALL, family="cox").log_likelihood == pytest.approx(
        -14.6401069649, abs=1e-9
    )
    assert th.fit("Surv(time, status) ~ 1", SMALL, "cox", ties="exact").log_likelihood == pytest.approx(
        -11.4620531346, abs=1e-9
    )
    assert th.fit("Surv(time, status) ~ strata(g)", SMALL, "cox").names == []


@pytest.mark.parametrize(
    ("formula", "settings", "kind", "says"),
    [
        ("time ~ x", {}, BadArgument, "which times are events"),
        ("Surv(time, later, type='interval2') ~ x", {}, BadArgument, "weibull"),
        ("Surv(time, status, type='left') ~ x", {}, BadArgument, "no risk sets"),
        ("Surv(later, time, status) ~ x", {}, OutOfSupport, "not before"),
        (F, {"ties": "average"}, BadArgument, "'efron', 'breslow', 'exact'"),
        (F, {"shape": 2.0}, BadArgument, "'shape'"),
        (F, {"family": "coxph"}, BadArgument, "Nearest: 'cox'"),
        (F, {"family": "weibull", "ties": "efron"}, BadArgument, "'ties'"),
        (f"{F} + strata(g)", {"family": "weibull"}, BadFormula, r"strata\(…\).*family='cox'"),
        ("Surv(time, status) ~ x * strata(g)", {}, BadFormula, "interaction"),
        ("Surv(time, status) ~ x + strata(g > 2)", {}, BadFormula, "not a column"),
        ("Surv(time, status) ~ x + strata()", {}, BadFormula, "not a column"),
        ("Surv(time, status) ~ x + strata(nowhere)", {}, UnknownColumn, "nowhere"),
        ("Surv(time, status) ~ x + cluster(g)", {}, BadFormula, "covariance='cluster'"),
        ("Surv(time, status) ~ x + frailty(g)", {}, BadFormula, "frailty"),
        ("Surv(time, status) ~ 1", {"log_hazard": 0.5}, BadArgument, "held"),
        (F, {"robust": "trimmed:0.8"}, BadArgument, "rows together"),
        (F, {"solver": th.Stochastic(steps=2)}, BadArgument, "rows together"),
        (F, {"ties": "exact", "weights": th.weights.Probability("w")}, BadArgument, "whole numbers"),
        ("cox", {"family": None}, BadArgument, "Surv"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(
    formula: str, settings: dict[str, object], kind: type[ThetahatError], says: str
) -> None:
    data = SMALL.assign(later=SMALL["time"] + 1)
    with pytest.raises(kind, match=says):
        th.fit(formula, data[["time"]] if formula == "cox" else data, **{"family": "cox", **settings})  # type: ignore[arg-type]


def test_a_missing_stratum_is_dropped_and_counted_or_refused() -> None:
    data = SMALL.assign(g=SMALL["g"].where(SMALL["g"] != 2))
    fit = th.fit("Surv(time, status) ~ x + strata(g)", data, family="cox")
    assert "2 rows dropped" in str(fit.summary())
    with pytest.raises(NotFinite, match="'g' is missing"):
        th.fit("Surv(time, status) ~ x + strata(g)", data, family="cox", missing="raise")


def test_what_has_no_meaning_row_by_row_is_refused() -> None:
    fit = th.fit(F, SMALL, family="cox")
    for asked in (
        lambda: fit.covariance("HC3"),
        lambda: fit.covariance("expected"),
        lambda: fit.covariance("CR2", by="g"),
        fit.influence,
        fit.sample,
        lambda: fit.predict(SMALL),
    ):
        with pytest.raises(BadArgument):
            asked()
    with pytest.raises(BadArgument, match="counts subsets"):
        th.fit(
            F,
            SMALL.assign(w=SMALL["w"] + 0.5),
            family="cox",
            ties="exact",
            weights=th.weights.Probability("w"),
        )
    with pytest.raises(BadArgument, match="no score residuals"):
        th.fit(F, SMALL, family="cox", ties="exact").covariance("HC0")


def test_a_partial_likelihood_is_compared_with_its_like_alone() -> None:
    fit = th.fit(F, SMALL, family="cox")
    assert "partial likelihood" in str(fit.summary())
    assert fit.score().measure == "partial"
    smaller = th.fit("Surv(time, status) ~ x", SMALL, family="cox")
    assert fit.compare(smaller).best == "this"
    for other in (
        th.fit(F, SMALL, family="weibull"),
        th.fit(F, SMALL, family="cox", ties="breslow"),
        th.fit(f"{F} + strata(g)", SMALL, family="cox"),
    ):
        with pytest.raises(IncomparableScores, match="partial"):
            fit.compare(other)


def test_a_saved_fit_is_the_fit(tmp_path: Path) -> None:
    fit = th.fit("Surv(time, status) ~ x + strata(g)", SMALL, family="cox", ties="breslow")
    again = th.load(fit.save(tmp_path / "cox.thetahat"))
    assert again.estimates.tolist() == fit.estimates.tolist()
    assert again.standard_errors().tolist() == fit.standard_errors().tolist()
    assert again.model.family == th.families.Cox("breslow")
    with_rows = th.load(tmp_path / "cox.thetahat", SMALL)
    assert with_rows.covariance("HC0").to_numpy() == pytest.approx(
        fit.covariance("HC0").to_numpy(), abs=1e-14
    )
    assert again.predict(pd.DataFrame({"x": [1.0], "g": [2]}), what="linear")[0] == pytest.approx(
        fit.estimates["x"]
    )


def test_the_bootstrap_counts_rows_as_repeated() -> None:
    fit = th.fit("Surv(stop, event) ~ a + b", drawn(150, 4, ties=0.01), family="cox")
    draws = fit.bootstrap(60, seed=1)
    ratio = draws.std().to_numpy() / fit.standard_errors().to_numpy()
    assert ((ratio > 0.7) & (ratio < 1.5)).all()
