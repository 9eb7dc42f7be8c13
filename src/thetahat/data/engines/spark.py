"""Rows in a Spark data frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from ...errors import BadArgument
from ...types import Data
from ..partitions import Part, Partitions, Work


class Spark(Partitions):
    """The rows of a Spark data frame, as data for `th.fit`: each partition is worked on by a Python worker of an executor,
    through `mapInArrow`.

    A task whose worker is lost is run again by Spark: the result is the same. Executors need this package, as any that a
    Python function of Spark's uses.

    Parameters
    ----------
    frame
        a data frame of `pyspark.sql`, classic or of Spark Connect. After a join or a group, whose partitions may differ from
        one pass to the next, `frame.persist()` it or write it to a file

    Examples
    --------
    >>> import thetahat as th
    >>> frame = spark.read.parquet("visits/")  # doctest: +SKIP
    >>> th.fit("y ~ x", th.data.Spark(frame), "poisson")  # doctest: +SKIP
    """

    extra, name = "spark", "Spark data frame"

    def __init__(self, frame: Data):
        sql = self.package("pyspark.sql")
        if not isinstance(frame, sql.DataFrame):
            raise BadArgument(f"Spark reads a data frame of pyspark.sql; received {type(frame).__name__}.")
        self._frame = frame
        super().__init__()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._frame.columns)

    def run(self, work: Work, columns: Sequence[str]) -> Iterable[bytes]:
        quoted = ["`" + name.replace("`", "``") + "`" for name in dict.fromkeys(columns)]
        found = self._frame.select(*quoted).mapInArrow(_on_worker(work), "k int, value binary").collect()
        return [bytes(row.value) for row in sorted(found, key=lambda row: int(row.k))]


class _on_worker:
    """What `mapInArrow` calls: batches of a partition → one batch of one row, its number and the result."""

    def __init__(self, work: Work):
        self.work = work

    def __call__(self, batches: Iterator[Part]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        k = TaskContext.get().partitionId()
        value = self.work(k, batches)
        yield pa.RecordBatch.from_pydict(
            {"k": pa.array([k], pa.int32()), "value": pa.array([value], pa.binary())}
        )
