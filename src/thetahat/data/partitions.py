"""Partitions: rows that lie in an engine (Dask, Ray, Spark, DuckDB), and stay there.

    Σ_rows f = Σ_k Σ_{rows of partition k} f

A function goes to the workers; each gives one partial result for its partition, as bytes; these are put together in the
order of the partitions, whatever the order in which they were ready, so that the answer repeats. A partition is work that
depends on nothing else: where a worker is lost, the engine gives it to another.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn, Self, TypeVar

import pandas as pd
import pyarrow as pa

from ..errors import DataError, MissingExtra, ThetahatError
from ..types import Level
from .arrow import STREAM_ROWS, arrow_to_pandas

T = TypeVar("T")
Part = Any  # a table of pandas or Arrow, or a batch of Arrow's
Work = Callable[[int, Iterable[Part]], bytes]


SAME = "Rows must be the same, in the same order, at each pass: persist them, or write them to a file."


class Partitions(ABC):
    """Rows in partitions 0, 1 … that do not change from one pass to the next. An engine is the three members below.

    `bytes_returned` counts what has come back to this process, over all passes: it depends on the number of partitions
    and of parameters, not of rows.
    """

    extra = ""  # that brings the package, and its name
    name = ""

    def __init__(self) -> None:
        self.bytes_returned = 0
        twice = {c for c in self.columns if self.columns.count(c) > 1}
        if twice:
            raise DataError(
                f"the column {min(twice)!r} appears twice in the {self.name}. Rename one of them."
            )
        self.sizes = tuple(self._passed(_counted, self.columns[:1], None))

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""

    @abstractmethod
    def run(self, work: Work, columns: Sequence[str]) -> Iterable[bytes]:
        """work(k, rows of partition k), for each partition, in order. `rows` are tables that have at least these columns."""

    @classmethod
    def package(cls, module: str) -> ModuleType:
        """The engine's own package, imported when it is used."""
        try:
            return import_module(module)
        except ImportError as error:
            raise MissingExtra.named(module.partition(".")[0], cls.extra) from error

    def fold(
        self,
        function: Callable[[pd.DataFrame], T | None],
        combine: Callable[[T, T], T],
        columns: Sequence[str],
    ) -> T | None:
        """combine(… combine(function(rows 0), function(rows 1)) …): on the workers within a partition, here from one
        partition to the next. A function gives None of rows of which there is nothing to say.

        Raises
        ------
        ThetahatError
            what the function raises; of several partitions, the first one's
        DataError
            a partition has another number of rows than it had
        """
        own = list(columns) or list(self.columns[:1])
        found = self._passed(partial(_folded, function, combine), own, self.sizes)
        return reduced(combine, found)

    def _passed(self, function: Callable[..., Any], columns: Sequence[str], sizes: Any) -> Iterator[Any]:
        work, many = partial(_work, function, tuple(columns), sizes), 0
        for each in self.run(work, columns):
            many += 1
            self.bytes_returned += len(each)
            value = pickle.loads(each)
            if isinstance(value, ThetahatError):
                raise value
            yield value
        if sizes is not None and many != len(sizes):
            raise DataError(
                f"the {self.name} had {len(sizes)} partitions at the first pass and has {many} now. {SAME}"
            )

    def refuse(self, what: str) -> NoReturn:
        """Say that rows would have to come to this process."""
        raise DataError(
            f"{what} reads the rows themselves, and they stay in the {self.name}. Accepted there: a formula of fixed "
            "effects, its standard errors ('observed', 'expected', 'sandwich', 'HC0', 'HC1', 'cluster'), tests and "
            "criteria. For anything else give rows that fit into memory, or the path of a Parquet file."
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:  # what goes to a worker must not take the engine along
        return Away, (self.name, self.columns, self.sizes)


class Away(Partitions):
    """What a worker, or a pickle, has in the place of the engine: names and sizes, and no rows."""

    def __init__(self, name: str, columns: tuple[str, ...], sizes: tuple[int, ...]):
        self.name, self._columns, self.sizes, self.bytes_returned = name, columns, sizes, 0

    @property
    def columns(self) -> tuple[str, ...]:
        return self._columns

    def run(self, work: Work, columns: Sequence[str]) -> Iterable[bytes]:
        raise DataError(f"the rows are in the {self.name} of another process. Fit them there.")


# ---- on the worker -----------------------------------------------------------------------------------------


def _work(
    function: Callable[..., Any], columns: Sequence[str], sizes: Any, k: int, parts: Iterable[Part]
) -> bytes:
    """The pickled result of partition k; of an error of this library, the error."""
    try:
        value = function(_blocks(parts, columns, k, sizes))
    except ThetahatError as error:
        value = error
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _blocks(parts: Iterable[Part], columns: Sequence[str], k: int, sizes: Any) -> Iterator[pd.DataFrame]:
    """The rows of partition k as blocks, numbered from that of its first row among all."""
    first = start = 0 if sizes is None else sum(sizes[:k])
    for part in parts:
        whole = part if isinstance(part, pd.DataFrame) else _from_arrow(part)
        for at in range(0, len(whole), STREAM_ROWS):
            block = whole[list(columns)].iloc[at : at + STREAM_ROWS].copy(deep=False)
            block.index = pd.RangeIndex(first, first + len(block))
            first += len(block)
            yield block
    known = None if sizes is None else sizes[k] if k < len(sizes) else 0
    if known is not None and first - start != known:
        raise DataError(
            f"partition {k} had {known} rows at the first pass and has {first - start} now. {SAME}"
        )


def _from_arrow(part: pa.Table | pa.RecordBatch) -> pd.DataFrame:
    return arrow_to_pandas(pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part)


def _counted(blocks: Iterator[pd.DataFrame]) -> int:
    return sum(map(len, blocks))


def _folded(
    function: Callable[[pd.DataFrame], T | None],
    combine: Callable[[T, T], T],
    blocks: Iterator[pd.DataFrame],
) -> T | None:
    """Of a partition; None where it has no rows that the function makes something of."""
    found = (function(block) for block in blocks if len(block))
    return reduced(combine, found)


def reduced(combine: Callable[[T, T], T], parts: Iterable[T | None]) -> T | None:
    """combine(combine(a, b), c) … of the parts that are not None; None where there is none.

    Examples
    --------
    >>> reduced(max, [None, 3, 5]), reduced(max, [])
    (5, None)
    """
    out: T | None = None
    for each in parts:
        if each is not None:
            out = each if out is None else combine(out, each)
    return out


def first_among(values: Collection[Level], name: str, block: pd.DataFrame) -> tuple[int, Level] | None:
    """(row, value) of the first cell of a column that is one of these; None: none is."""
    return next(((int(row), v) for row, v in zip(block.index, block[name], strict=True) if v in values), None)


def earlier(a: T, b: T) -> T:
    """Of two, the one of the earlier rows."""
    return a
