"""th.data.Ray on a cluster of two workers: the fit of a Ray dataset is that of its rows in memory."""

from __future__ import annotations

import pandas as pd
import pytest

import thetahat as th

from .rows import (
    MODELS,
    check_budget,
    check_frequencies,
    check_killed,
    check_model,
    check_no_maximum,
    check_refusals,
    rows,
)

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'thetahat[ray]'")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

BLOCKS = 5


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two workers, each a process."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    yield
    ray.shutdown()


def blocks(frame: pd.DataFrame) -> th.data.Ray:
    size = -(-len(frame) // BLOCKS)
    parts = [frame.iloc[at : at + size] for at in range(0, len(frame), size)]
    return th.data.Ray(ray.data.from_pandas(parts))


@pytest.mark.parametrize("name", MODELS)
def test_a_ray_dataset_is_fitted_as_its_rows_are(name):
    frame = rows()
    check_model(blocks(frame), frame, name)


def test_frequencies_and_a_prior():
    frame = rows()
    check_frequencies(blocks(frame), frame)


def test_the_sum_is_in_the_order_of_the_blocks():
    """The same bits twice, whichever task is ready first."""
    source = blocks(rows())
    assert len(source.sizes) == BLOCKS
    a, b = (th.fit("y ~ x + g", source, "poisson").theta for _ in range(2))
    assert bool((a == b).all())


def test_what_comes_back_does_not_grow_with_the_rows():
    check_budget(blocks, rows(10_000), rows(80_000))


def test_what_stays_in_the_dataset_is_refused():
    check_refusals(blocks(rows(11_000)))


def test_no_maximum_is_seen_there_too():
    check_no_maximum(blocks(rows(11_000)))


def test_a_worker_that_is_killed_changes_nothing(tmp_path):
    check_killed(blocks, tmp_path)


def test_what_is_not_a_dataset_is_refused():
    with pytest.raises(th.errors.BadArgument, match="received DataFrame"):
        th.data.Ray(rows(10))
