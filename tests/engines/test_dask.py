"""th.data.Dask on a cluster of two workers: the fit of a Dask data frame is that of its rows in memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th

from .rows import (
    EXACT,
    MODELS,
    check_budget,
    check_frequencies,
    check_killed,
    check_model,
    check_no_maximum,
    check_refusals,
    rows,
)

pytest.importorskip("distributed", reason="dask is not installed: pip install 'thetahat[dask]'")
dd = pytest.importorskip("dask.dataframe", reason="dask is not installed: pip install 'thetahat[dask]'")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's and tornado's own

PARTITIONS = 5


def partitioned(frame: pd.DataFrame) -> th.data.Dask:
    return th.data.Dask(dd.from_pandas(frame, npartitions=PARTITIONS, sort=False))


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process of its own, which a nanny starts again."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=None) as local,
        Client(local) as client,
    ):
        yield client


@pytest.mark.parametrize("name", MODELS)
def test_a_dask_frame_is_fitted_as_its_rows_are(name, cluster):
    frame = rows()
    check_model(partitioned(frame), frame, name)


def test_frequencies_and_a_prior(cluster):
    frame = rows()
    check_frequencies(partitioned(frame), frame)


def test_categories_that_differ_from_one_partition_to_the_next(cluster):
    """Levels, declared categories and missing groups of which no partition has all; one partition is empty."""
    frame = rows().sort_values("g", ignore_index=True)
    frame["g"] = frame["g"].astype("category")
    parts = [frame.iloc[:0], frame.iloc[:1000], frame.iloc[1000:1100], frame.iloc[1100:]]
    parts = [part.assign(g=part["g"].cat.remove_unused_categories()) for part in parts]
    meta = frame.iloc[:0].assign(g=dd.utils.clear_known_categories(frame.iloc[:0]["g"]))
    source = th.data.Dask(dd.from_map(lambda i: parts[i], range(4), meta=meta))
    for formula in ("y ~ x + g * h", "y ~ x + C(g, contr.sum):h"):
        here, there = (th.fit(formula, data, "poisson", solver=EXACT) for data in (frame, source))
        assert there.names == here.names
        np.testing.assert_allclose(there.theta, here.theta, rtol=1e-9)


def test_the_sum_is_in_the_order_of_the_partitions(cluster):
    """The same bits twice, whichever worker is ready first; and without a cluster."""
    source = partitioned(rows())
    a, b = (th.fit("y ~ x + g", source, "poisson").theta for _ in range(2))
    assert bool((a == b).all())
    import dask

    with dask.config.set(scheduler="synchronous"):
        alone = th.fit("y ~ x + g", source, "poisson").theta
    assert bool((a == alone).all())


def test_what_comes_back_does_not_grow_with_the_rows(cluster):
    check_budget(partitioned, rows(10_000), rows(80_000))


def test_what_stays_in_the_frame_is_refused(cluster):
    check_refusals(partitioned(rows(11_000)))


def test_no_maximum_is_seen_there_too(cluster):
    check_no_maximum(partitioned(rows(11_000)))


def test_a_worker_that_is_killed_changes_nothing(cluster, tmp_path):
    check_killed(partitioned, tmp_path)


def test_what_is_not_a_frame_of_dask_is_refused():
    with pytest.raises(th.errors.BadArgument, match="received DataFrame"):
        th.data.Dask(rows(10))
    with pytest.raises(th.errors.BadArgument, match="column 0 is not named by text"):
        th.data.Dask(dd.from_pandas(pd.DataFrame({0: [1.0]}), npartitions=1))
