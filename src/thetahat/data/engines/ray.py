"""Rows in a dataset of Ray Data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...errors import BadArgument
from ...types import Data, Plain
from ..partitions import Part, Partitions, Work


class Ray(Partitions):
    """The rows of a dataset of Ray Data, as data for `th.fit`: each block is worked on by a task of Ray.

    The dataset is computed once, and its blocks stay in Ray's object store (which spills to disk) for as long as this lives.
    A task whose worker is lost is run again by Ray: the result is the same.

    Parameters
    ----------
    dataset
        a `ray.data.Dataset`

    Examples
    --------
    >>> import thetahat as th
    >>> import ray  # doctest: +SKIP
    >>> th.fit("y ~ x", th.data.Ray(ray.data.read_parquet("visits/")), "poisson")  # doctest: +SKIP
    """

    extra, name = "ray", "Ray dataset"

    def __init__(self, dataset: Data):
        data = self.package("ray.data")
        if not isinstance(dataset, data.Dataset):
            raise BadArgument(f"Ray reads a dataset of ray.data; received {type(dataset).__name__}.")
        schema = dataset.schema()
        if schema is None:
            raise BadArgument("the Ray dataset has no columns.")
        self._columns = tuple(schema.names)
        self._blocks: list[Plain] = dataset.to_arrow_refs()
        super().__init__()

    @property
    def columns(self) -> tuple[str, ...]:
        return self._columns

    def run(self, work: Work, columns: Sequence[str]) -> Iterator[bytes]:
        ray = self.package("ray")
        task, shared, names = ray.remote(_worked), ray.put(work), list(dict.fromkeys(columns))
        found: Iterable[Plain] = [
            task.remote(shared, k, names, block) for k, block in enumerate(self._blocks)
        ]
        for each in found:
            yield ray.get(each)


def _worked(work: Work, k: int, columns: Sequence[str], block: Part) -> bytes:
    return work(k, [block.select(columns)] if block.num_rows else [])
