"""What every engine is, without one: rows in parts of this process, whose work goes through pickles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.data.partitions import Partitions
from thetahat.data.selection import SAMPLE

from .rows import (
    EXACT,
    MODELS,
    check_budget,
    check_frequencies,
    check_model,
    check_no_maximum,
    check_refusals,
    rows,
)

cloudpickle = pytest.importorskip("cloudpickle", reason="what Dask, Ray and Spark send functions by")


class Parts(Partitions):
    """An engine in full: columns, and work on each part, which sees nothing of this process but what it was sent."""

    name = "parts"

    def __init__(self, frame: pd.DataFrame, many: int = 5):
        size = -(-len(frame) // many)
        self.parts = [frame.iloc[at : at + size] for at in range(0, len(frame), size)]
        super().__init__()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(map(str, self.parts[0].columns))

    def run(self, work, columns) -> Iterator[bytes]:
        for k, part in enumerate(self.parts):
            yield pickle.loads(cloudpickle.dumps(work))(k, [part[list(dict.fromkeys(columns))]])


@pytest.mark.parametrize("name", MODELS)
def test_parts_are_fitted_as_the_whole_is(name):
    frame = rows()
    check_model(Parts(frame), frame, name)


def test_frequencies_and_a_prior():
    frame = rows()
    check_frequencies(Parts(frame), frame)


def test_what_comes_back_does_not_grow_with_the_rows():
    check_budget(Parts, rows(10_000), rows(80_000))


def test_what_stays_is_refused():
    check_refusals(Parts(rows(11_000)))


def test_no_maximum_is_seen_there_too():
    check_no_maximum(Parts(rows(11_000)))


@pytest.mark.parametrize(
    ("formula", "family"),
    [("y ~ x + g", "poisson"), ("t ~ x + z - 1", "normal"), ("answer ~ x", "bernoulli")],
)
def test_a_line_of_the_fit_and_its_r_squared(formula, family):
    """glance(), R² and the deviance are sums too."""
    frame = rows(11_000)
    here, there = (
        th.fit(formula, data, family, solver=None if family == "normal" else EXACT)
        for data in (frame, Parts(frame))
    )
    numbers = [fit.glance().select_dtypes("number").drop(columns="gap") for fit in (there, here)]
    np.testing.assert_allclose(*numbers, rtol=1e-9)
    for ask in ("deviance", "r_squared"):
        found, known = (getattr(fit, ask)() for fit in (there, here))
        pd.testing.assert_series_equal(found, known, rtol=1e-9)


def test_a_fit_is_saved_copied_and_reported(tmp_path):
    """Without its rows it says what it said; a pickle has no hold of the engine, and says so."""
    fit = th.fit("y ~ x + g", Parts(rows(11_000)), "poisson")
    fit.save(tmp_path / "fit.thetahat")
    pd.testing.assert_series_equal(
        th.load(tmp_path / "fit.thetahat").standard_errors(), fit.standard_errors()
    )
    assert copy.deepcopy(fit).standard_errors("HC1").gt(0).all()
    fit.report(tmp_path / "fit.html")
    assert "parts, streamed" in (tmp_path / "fit.html").read_text(encoding="utf-8")
    away = pickle.loads(pickle.dumps(fit))
    with pytest.raises(th.errors.DataError, match="of another process"):
        away.standard_errors("HC1")


def test_the_sample_is_spread_over_all_parts_and_bounded():
    frame = rows(12 * SAMPLE)
    fit = th.fit("y ~ x", Parts(frame), "poisson")
    sample = fit.source.sample
    assert SAMPLE <= len(sample) <= SAMPLE + 10
    stride = 12
    np.testing.assert_array_equal(
        sample["y"][:1000], frame["y"].iloc[: len(frame) // 5].to_numpy()[::stride][:1000]
    )


def test_a_missing_label_and_one_cluster_are_refused():
    frame = rows(300).assign(town=1.0, area=np.where(np.arange(300) == 207, np.nan, 1.0))
    fit = th.fit("y ~ x", Parts(frame), "poisson")
    with pytest.raises(th.errors.BadArgument, match="'area': the column is missing in row 207"):
        fit.standard_errors("cluster", by="area")
    with pytest.raises(th.errors.BadArgument, match="'town': the column has one value only"):
        fit.standard_errors("cluster", by="town")


def test_rows_that_change_are_refused():
    source = Parts(rows(300))
    source.parts[2] = source.parts[2].iloc[:-1]
    with pytest.raises(th.errors.DataError, match="partition 2 had 60 rows at the first pass and has 59 now"):
        th.fit("y ~ x", source, "poisson")
    source.parts.pop()
    source.parts[2] = source.parts[1]
    with pytest.raises(th.errors.DataError, match="5 partitions at the first pass and has 4 now"):
        th.fit("y ~ x", source, "poisson")


def test_stray_cells_and_levels_are_found_wherever_they_are():
    """A cell of text among numbers is named with its row, as in memory."""
    frame = rows(300)
    frame["price"] = np.arange(300).astype(str)
    frame.loc[250, "price"] = "-"
    messages = []
    for data in (frame, Parts(frame)):
        with pytest.raises(th.errors.WrongType, match="row 250") as found:
            th.fit("y ~ price", data, "poisson")
        messages.append(str(found.value))
    assert messages[0] == messages[1]
