"""Charts of nonparametric curves hold the curves."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.test_nonparametric import AML

import thetahat as th
from thetahat.errors import BadArgument


def layers(chart) -> list[dict]:
    found = chart.to_dict()
    return [
        {
            "mark": layer["mark"]["type"],
            "data": found["datasets"][layer.get("data", found.get("data"))["name"]],
        }
        for layer in found["layer"]
    ]


def test_the_steps_bands_and_censoring_marks_are_those_of_the_table() -> None:
    fit = th.fit("Surv(time, status) ~ x", AML, family="nonparametric")
    table = fit.curves(level=0.9)
    found = {layer["mark"]: layer["data"] for layer in layers(fit.plot(level=0.9))}
    assert set(found) == {"area", "line", "tick"}
    line = [row for row in found["line"] if row["time"] > 0]
    assert [row["value"] for row in line] == pytest.approx(table["survival"].to_list())
    assert sum(row["value"] for row in found["line"] if row["time"] == 0) == 2
    assert [row["high"] for row in found["area"]] == pytest.approx(table["high"].dropna().to_list())
    assert len(found["tick"]) == int((table["censored"] > 0).sum())


def test_incidences_have_a_panel_a_cause() -> None:
    data = AML.assign(cause=np.where(AML["status"] == 0, 0, 1 + np.arange(1, 24) % 2))
    fit = th.fit("Surv(time, cause) ~ x", data, family="aalen_johansen")
    assert len(fit.plot("incidence").to_dict()["concat"]) == 2


def test_masses_of_intervals_are_steps_without_bands() -> None:
    data = {"a": [0.0, 1.0, 3.0, 2.0], "b": [2.0, 4.0, np.inf, 3.0]}
    fit = th.fit('Surv(a, b, type="interval2") ~ 1', data, family="nonparametric")
    assert [layer["mark"] for layer in layers(fit.plot())] == ["line"]


def test_unknown_charts_and_too_many_groups_are_refused() -> None:
    fit = th.fit("Surv(time, status) ~ x", AML, family="nonparametric")
    with pytest.raises(BadArgument, match="'survival'"):
        fit.plot("calibration")
    many = AML.assign(g=[f"g{i % 7}" for i in range(len(AML))])
    with pytest.raises(BadArgument, match="7 groups"):
        th.fit("Surv(time, status) ~ g", many, family="nonparametric").plot()


def test_a_legend_has_no_more_columns_than_its_names_leave_room_for() -> None:
    """The third name of one row lay beyond the chart, and over the next one."""
    names = np.array(["the first of three arms", "the second of three arms", "the third of three arms"])
    data = AML.assign(arm=names[np.arange(len(AML)) % 3])
    drawn = th.fit("Surv(time, status) ~ arm", data, family="nonparametric").plot().to_dict()
    colour = drawn["layer"][0]["encoding"]["color"]["legend"]
    assert colour["columns"] == 1
    assert colour["labelLimit"] >= 7 * len("arm=the second of three arms")
