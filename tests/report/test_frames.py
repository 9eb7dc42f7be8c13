"""Tables of results print with every column, and are pandas data frames in all else; texts hold no colours."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.report.frames import whole


@pytest.fixture(scope="module")
def ships() -> th.Fit:
    return th.fit("incidents ~ type + period + offset(log(service))", th.data.shipped("ships"), "poisson")


@pytest.mark.parametrize("ask", ["anova", "drop1", "tidy", "glance"])
def test_every_column_is_printed_within_80_characters(ships: th.Fit, ask: str) -> None:
    table = getattr(ships, ask)()
    text = str(table)
    assert isinstance(table, pd.DataFrame)
    assert all(str(name) in text for name in table.columns)
    assert max(map(len, text.splitlines())) <= 80


def test_margins_frame_and_variance_components_print_whole(ships: th.Fit) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 6)
    data = {"y": rng.normal(size=48) + rng.normal(size=8)[groups], "g": groups, "x": rng.normal(size=48)}
    fit = th.fit("y ~ x + (1 | g)", data)
    for table in (ships.slopes().frame, fit.variance_components()):
        assert all(str(name) in str(table) for name in table.columns)


def test_what_is_made_of_such_a_table_is_plain_pandas() -> None:
    plain = pd.DataFrame({f"a_name_of_a_column_{i}": [0.5, 1.5] for i in range(9)})
    table = whole(plain)
    for made in (table.round(1), table.copy(), table[table.columns[:2]], pickle.loads(pickle.dumps(table))):
        assert type(made) is pd.DataFrame
    pd.testing.assert_frame_equal(plain, table)
    pd.testing.assert_frame_equal(table, plain)


def test_a_comparison_as_text_has_no_colours_where_colour_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR makes rich write escape sequences even into what is captured; so does a notebook."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    data = {"y": [1.0, 2.0, 4.0, 3.0], "x": [1.0, 2.0, 3.0, 4.0]}
    found = th.compare({"line": th.fit("y ~ x", data), "mean": th.fit("y ~ 1", data)})
    assert "\x1b" not in str(found)
    assert "line" in str(found)


def test_a_large_ratio_leaves_the_columns_of_others_in_line() -> None:
    """exp of the intercept is 2e8 ± 3e8: a power of ten, and the points of the other rows below one another."""
    rng = np.random.default_rng(0)
    x, z = 200 + rng.normal(size=300), rng.normal(size=300)
    data = {"y": rng.poisson(np.exp(20 + 0.3 * z - 0.08 * x)), "x": x, "z": z}
    text = str(th.fit("y ~ x + z", data, "poisson").summary(exponentiate=True)).splitlines()
    rows = {line.split()[0]: line for line in text if line.startswith("  ")}
    assert "e+0" in rows["Intercept"].split()[1]
    assert rows["x"].index(".") == rows["z"].index(".")
    assert max(map(len, text)) <= 80
