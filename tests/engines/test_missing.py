"""An engine whose package is not installed names the extra that brings it."""

from __future__ import annotations

import sys

import pytest

import thetahat as th


@pytest.mark.parametrize(
    ("engine", "package"), [("DuckDB", "duckdb"), ("Dask", "dask"), ("Ray", "ray"), ("Spark", "pyspark")]
)
def test_the_extra_is_named(engine, package, monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        th.errors.MissingExtra, match=rf"{package}, which is not installed.*thetahat\[{engine.lower()}\]"
    ):
        getattr(th.data, engine)("SELECT 1")
