"""th.data.Spark with two workers: the fit of a Spark data frame is that of its rows in memory."""

from __future__ import annotations

import os
import shutil
import sys

import pandas as pd
import pytest

import thetahat as th

from .rows import (
    check_budget,
    check_frequencies,
    check_killed,
    check_model,
    check_no_maximum,
    check_refusals,
    rows,
)

pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'thetahat[spark]'")
pytestmark = [
    pytest.mark.filterwarnings("default"),  # Spark's own
    pytest.mark.skipif(
        shutil.which("java") is None and "JAVA_HOME" not in os.environ,
        reason="Spark needs a Java runtime, and there is none",
    ),
]


@pytest.fixture(scope="module")
def session():
    """Two workers, each task tried up to four times."""
    from pyspark.sql import SparkSession

    patch = pytest.MonkeyPatch()
    patch.setenv("PYSPARK_PYTHON", sys.executable)
    found = (
        SparkSession.builder.master("local[2,4]")
        .config("spark.sql.files.minPartitionNum", "2")  # a file each
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .getOrCreate()
    )
    found.sparkContext.setLogLevel("OFF")
    yield found
    found.stop()
    patch.undo()


@pytest.fixture
def partitions(session, tmp_path):
    """frame → its rows in two files, a partition each, read by Spark."""

    def of(frame: pd.DataFrame) -> th.data.Spark:
        folder = tmp_path / f"rows-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        size = -(-len(frame) // 2)
        for i in range(2):
            frame.iloc[i * size : (i + 1) * size].to_parquet(folder / f"{i}.parquet")
        return th.data.Spark(session.read.parquet(str(folder)))

    return of


@pytest.mark.parametrize("name", ["normal", "two parameters"])  # a pass takes Spark a second
def test_a_spark_frame_is_fitted_as_its_rows_are(name, partitions):
    frame = rows()
    check_model(partitions(frame), frame, name)


def test_frequencies_and_a_prior(partitions):
    frame = rows()
    check_frequencies(partitions(frame), frame)


def test_the_sum_is_in_the_order_of_the_partitions(partitions):
    """The same bits twice; some partitions may be empty."""
    source = partitions(rows())
    a, b = (th.fit("y ~ x + g", source, "poisson").theta for _ in range(2))
    assert bool((a == b).all())
    one = th.data.Spark(source._frame.where("g = 'a'").repartition(5, "h"))
    assert 0 in one.sizes
    assert len(one.sizes) == 5
    th.fit("y ~ x", one, "poisson")


def test_what_comes_back_does_not_grow_with_the_rows(partitions):
    check_budget(partitions, rows(10_000), rows(80_000))


def test_what_stays_in_the_frame_is_refused(partitions):
    check_refusals(partitions(rows(11_000)))


def test_no_maximum_is_seen_there_too(partitions):
    check_no_maximum(partitions(rows(11_000)))


def test_a_worker_that_is_killed_changes_nothing(partitions, tmp_path):
    (tmp_path / "busy").mkdir()
    check_killed(partitions, tmp_path / "busy")


def test_what_is_not_a_frame_of_spark_is_refused():
    with pytest.raises(th.errors.BadArgument, match="received DataFrame"):
        th.data.Spark(rows(10))
