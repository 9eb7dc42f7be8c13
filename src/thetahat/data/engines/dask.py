"""Rows in a Dask data frame."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence

from ...errors import BadArgument
from ...types import Data
from ..partitions import Part, Partitions, Work


class Dask(Partitions):
    """The rows of a Dask data frame, as data for `th.fit`: each partition is worked on where it is, by the cluster of the
    current client; without one in this process.

    A worker that is lost is replaced by Dask, which computes its partitions again: the result is the same.

    Parameters
    ----------
    frame
        a `dask.dataframe` data frame; `frame.persist()` keeps it in the workers' memory from one pass to the next

    Examples
    --------
    >>> import thetahat as th
    >>> import dask.dataframe as dd  # doctest: +SKIP
    >>> th.fit("y ~ x", th.data.Dask(dd.read_parquet("visits/")), "poisson")  # doctest: +SKIP
    """

    extra, name = "dask", "Dask data frame"

    def __init__(self, frame: Data):
        dd = self.package("dask.dataframe")
        if not isinstance(frame, dd.DataFrame):
            raise BadArgument(f"Dask reads a data frame of dask.dataframe; received {type(frame).__name__}.")
        odd = next((c for c in frame.columns if not isinstance(c, str)), None)
        if odd is not None:
            raise BadArgument(f"the column {odd!r} is not named by text. Rename it.")
        self._frame = frame
        super().__init__()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._frame.columns)

    def run(self, work: Work, columns: Sequence[str]) -> Iterable[bytes]:
        dask, cloudpickle = self.package("dask"), self.package("cloudpickle")
        # once for all partitions: as bytes, so that Dask looks into nothing
        task = dask.delayed(cloudpickle.dumps(work))
        parts = self._frame[list(dict.fromkeys(columns))].to_delayed()
        one = dask.delayed(_unpacked, pure=False)
        found: tuple[bytes, ...] = dask.compute(*(one(task, k, part) for k, part in enumerate(parts)))
        return found


def _unpacked(task: bytes, k: int, part: Part) -> bytes:
    work: Work = pickle.loads(task)
    return work(k, [part])
