"""th.data.DuckDB: the fit of a query is that of its rows in memory."""

from __future__ import annotations

import numpy as np
import pytest

import thetahat as th
from thetahat.data.arrow import STREAM_ROWS

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

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'thetahat[duckdb]'")


def query(frame):
    """The rows in a table of a database, and all of them as a query."""
    connection = duckdb.connect()
    connection.register("given", frame)
    connection.execute("CREATE TABLE rows AS SELECT * FROM given")
    return th.data.DuckDB("SELECT * FROM rows", connection)


@pytest.mark.parametrize("name", MODELS)
def test_a_query_is_fitted_as_its_rows_are(name):
    frame = rows()
    check_model(query(frame), frame, name)


def test_frequencies_and_a_prior():
    frame = rows()
    check_frequencies(query(frame), frame)


def test_rows_of_several_blocks_of_a_file(tmp_path):
    """More rows than one block, from Parquet, in the order of the file; a relation does as well as text."""
    frame = rows(2 * STREAM_ROWS + 17)
    frame.to_parquet(tmp_path / "rows.parquet")
    here = th.fit("y ~ x + g", frame, "poisson", solver=EXACT)
    for given in (
        f"SELECT * FROM '{tmp_path}/rows.parquet'",
        duckdb.read_parquet(f"{tmp_path}/rows.parquet"),
    ):
        there = th.fit("y ~ x + g", th.data.DuckDB(given), "poisson", solver=EXACT)
        np.testing.assert_allclose(there.theta, here.theta, rtol=1e-10)
        np.testing.assert_allclose(
            there.standard_errors("cluster", by="id"), here.standard_errors("cluster", by="id"), rtol=1e-10
        )


def test_the_same_fit_twice_is_the_same_to_the_bit():
    source = query(rows())
    a, b = (th.fit("y ~ x + g", source, "poisson") for _ in range(2))
    assert bool((a.theta == b.theta).all())
    assert a.source.fingerprint == b.source.fingerprint


def test_what_comes_back_does_not_grow_with_the_rows():
    check_budget(query, rows(10_000), rows(80_000))


def test_what_stays_in_the_query_is_refused():
    check_refusals(query(rows(11_000)))


def test_no_maximum_is_seen_there_too():
    check_no_maximum(query(rows(11_000)))


def test_rows_that_change_between_passes_are_refused():
    connection = duckdb.connect()
    connection.execute("CREATE TABLE rows AS SELECT i % 3 AS y, i / 100 AS x FROM range(100) t(i)")
    source = th.data.DuckDB("SELECT * FROM rows", connection)
    connection.execute("INSERT INTO rows VALUES (1, 0.5)")
    with pytest.raises(th.errors.DataError, match="100 rows at the first pass and has 101 now"):
        th.fit("y ~ x", source, "poisson")


def test_what_is_not_a_query_is_refused():
    with pytest.raises(th.errors.BadArgument, match="received dict"):
        th.data.DuckDB({"x": [1.0]})
    with pytest.raises(th.errors.EmptyData, match="no rows"):
        th.fit("x ~ 1", th.data.DuckDB("SELECT 1.0 AS x WHERE false"))
    with pytest.raises(th.errors.EmptyData, match="missing value in x"):
        th.fit("x ~ 1", th.data.DuckDB("SELECT NULL::DOUBLE AS x FROM range(5)"))
