"""Selection: the rows of a frame that a fit uses, and what is computed of them put back in the user's own
order.

A row is used if it is complete in the columns that the fit reads, and its weight is not 0. Levels, knots,
centres and scales are those of these rows alone: a level that stands only in rows that were dropped would be
a column without a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd

from ..errors import BadArgument, BadWeights, EmptyData, NotFinite
from ..kernels import compiled
from ..threads import MANY, in_threads
from ..types import Plain, Settings
from .arrow import STREAM_ROWS
from .columns import numeric_column
from .frame import Frame, T
from .source import ALL_ZERO

SAMPLE = 5000  # rows of an engine that come here, to learn types and structure from, and a start


class Sometimes(Protocol):
    """Columns of which some rows need a value and others do not: the bounds of an interval, an extra of the
    family."""

    @property
    def required(self) -> tuple[str, ...]:
        """The columns."""

    def missing(self, block: pd.DataFrame, first: int = 0) -> Iterator[tuple[str, np.ndarray]]:
        """(what, the rows that need it and lack it); `first` is the place in the data of the first row."""


class Selection(Frame):
    """The rows of a frame that are complete in some columns.

    Parameters
    ----------
    frame
        all rows
    required
        the columns that must not be missing
    weights
        the column of frequency weights: a row of weight 0 is left out
    carried
        columns of weights that must not be missing
    missing
        "drop", or "raise" where a row is incomplete
    sometimes
        further columns, which some rows need
    subset
        (n,) of the rows that may be used; None: all
    """

    def __init__(
        self,
        frame: Frame,
        required: Sequence[str],
        *,
        weights: str | None = None,
        carried: Sequence[str] = (),
        missing: str = "drop",
        sometimes: Sequence[Sometimes] = (),
        subset: np.ndarray | None = None,
    ):
        if missing not in ("drop", "raise"):
            raise BadArgument(f"missing={missing!r}. Accepted: 'drop', 'raise'.")
        every = sorted({*required, *(name for each in sometimes for name in each.required)})
        frame.require(every, where="the fit")
        frame = frame.owning(every)
        super().__init__(frame)
        self.always, self.sometimes, self.required = tuple(sorted(required)), tuple(sometimes), tuple(every)
        self.weights, self.carried, self.missing = weights, tuple(carried), missing
        self.whole, self.subset = frame, subset
        self.every_row = (
            False  # whether a pass over a file has found every row complete: it is not asked again
        )
        self._held: pd.DataFrame | None = None  # in memory: the rows that are used
        self._sampled: pd.DataFrame | None = None  # of an engine: some of them
        self._found: tuple[pd.DataFrame, tuple[np.ndarray | None, int]] | None = (
            None  # of the whole, by `used`
        )

    def used(self, block: pd.DataFrame) -> tuple[np.ndarray | None, int]:
        """Which rows of a block are used (None: all), and how many are not because a value is missing."""
        if self.every_row:
            return None, 0
        if self._found is not None and block is self._found[0]:
            return self._found[1]
        found = self._used(block)
        if self.path is None and len(block) == self.size:
            self._found = (block, found)
        return found

    def lacking(self, block: pd.DataFrame) -> dict[str, int]:
        """In how many rows of a block each column lacks a value, of those that do; rows outside the subset do not count."""
        first = int(block.index[0]) if len(block) else 0
        inside = True if self.subset is None else self._inside(block)
        counts = {name: int((found & inside).sum()) for name, found in self._missing(block, first)}
        return {name: n for name, n in counts.items() if n}

    def _used(self, block: pd.DataFrame) -> tuple[np.ndarray | None, int]:
        first = int(block.index[0]) if len(block) else 0
        missing: np.ndarray | None = None
        out = None if self.subset is None else ~self._inside(block)
        for name, found in self._missing(block, first):
            found = found if out is None else found & ~out
            if not found.any():
                continue
            row = first + int(np.flatnonzero(found)[0])
            if name == self.weights or name in self.carried:
                raise BadWeights(
                    f"the weight of row {row} is missing. Weights count observations: give 0 to leave a row "
                    "out."
                )
            if self.missing == "raise":
                n = int(found.sum())
                raise NotFinite(
                    f"{name!r} is missing in row {row} ({n} row{'s' * (n != 1)} in all), and missing='raise'."
                )
            missing = found if missing is None else missing | found
        dropped = 0 if missing is None else int(missing.sum())
        if self.weights is not None:
            zero = numeric_column(block, self.weights) == 0
            if zero.any():
                missing = zero if missing is None else missing | zero
        if out is not None:
            missing = out if missing is None else missing | out
        return (None, 0) if missing is None else (~missing, dropped)

    def _inside(self, block: pd.DataFrame) -> np.ndarray:
        """Which rows of a block are of the subset. Blocks may come from the end of a file, the last row first."""
        assert self.subset is not None
        if not len(block):
            return np.zeros(0, dtype=bool)
        first, last = int(block.index[0]), int(block.index[-1])
        own: np.ndarray = self.subset[min(first, last) : max(first, last) + 1]
        return own if first <= last else own[::-1]

    def _missing(self, block: pd.DataFrame, first: int) -> Iterator[tuple[str, np.ndarray]]:
        """(what, which rows) of all that rows need and lack."""
        columns = [block[name] for name in self.always]
        numbers = [column.to_numpy() for column in columns if column.dtype == np.float64]
        whole = iter(compiled.finite(numbers))  # nearly always all are, which one pass tells
        rest = [column for column in columns if column.dtype != np.float64 or not next(whole)]
        many = block.shape[0] * len(rest) > MANY
        each_found = in_threads(lambda column: missing_rows(column, first), rest, many)
        for column, found in zip(rest, each_found, strict=True):
            if found is not None:
                yield str(column.name), found
        for each in self.sometimes:
            yield from each.missing(block, first)

    def blocks(self, names: Sequence[str], rows: int = STREAM_ROWS) -> Iterator[pd.DataFrame]:
        """At least these columns of the rows that are used, block by block."""
        if self.engine is not None or not self.streamed(self.required):
            yield self.read(names)
            return
        need = sorted({*names, *self.required})
        for block in super().blocks(need, rows):
            kept, _ = self.used(block)
            yield block if kept is None else block.loc[kept]

    def fold(
        self,
        function: Callable[[pd.DataFrame], T | None],
        combine: Callable[[T, T], T],
        names: Sequence[str],
    ) -> T | None:
        if self.engine is None:
            return super().fold(function, combine, names)

        def of_used(block: pd.DataFrame) -> T | None:
            kept, _ = self.used(block)
            own = block if kept is None else block.loc[kept]
            return function(own) if len(own) else None

        return self.engine.fold(of_used, combine, sorted({*names, *self.required}))

    def first(self, names: Sequence[str]) -> pd.DataFrame:
        return super().first(names) if self.engine is None else self.sampled()

    def sampled(self) -> pd.DataFrame:
        """Some rows of an engine, evenly spread: about `SAMPLE`, of however many."""
        if self._sampled is None:
            stride = max(1, self.size // SAMPLE)
            found = self.fold(partial(_every, stride), _stacked, self.required)
            if found is None:
                raise EmptyData(
                    f"all {self.size} rows of the {self.name} have a missing value in {', '.join(self.required)}, or "
                    "the weight 0."
                )
            self._sampled = found
        return self._sampled

    def __getstate__(self) -> Settings:
        return self.__dict__ | {"_sampled": None}  # a worker has no use for it

    def backward(self, names: Sequence[str], rows: int = STREAM_ROWS) -> Iterator[pd.DataFrame]:
        """At least these columns of the rows that are used, block by block from the end of the file."""
        need = sorted({*names, *self.required})
        for block in super().backward(need, rows):
            kept, _ = self.used(block)
            yield block if kept is None else block.loc[kept]

    def read(self, names: Sequence[str]) -> pd.DataFrame:
        """At least these columns of the rows that are used, whole."""
        if self.engine is not None:
            return super().read(names)
        if self.streamed(self.required):
            return pd.concat([block[list(names)] for block in self.blocks(names)])
        if self._held is None:
            block = super().read(self.required)
            kept, dropped = self.used(block)
            if self.subset is not None and not self.subset.any():
                raise EmptyData("subset= leaves no row.")
            if kept is not None and not kept.any():
                if dropped < len(kept):
                    raise BadWeights(ALL_ZERO)
                raise EmptyData(
                    f"all {dropped} rows of {self.name} have a missing value in {', '.join(self.required)}."
                )
            self._held = block if kept is None else block.loc[kept, list(self.required)]
        return self._held


def _every(stride: int, block: pd.DataFrame) -> pd.DataFrame:
    return block.iloc[::stride]


def _stacked(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Rows under each other. What is a category in both stays one: pandas makes text of two that differ, or numbers."""
    out = pd.concat([a, b])
    both = [
        name
        for name in a
        if isinstance(a[name].dtype, pd.CategoricalDtype)
        and not isinstance(out[name].dtype, pd.CategoricalDtype)
    ]
    return out.assign(**{str(name): out[name].astype("category") for name in both}) if both else out


@dataclass(frozen=True)
class Alignment:
    """Where the rows that were used stand among those that were given.

    Parameters
    ----------
    size
        how many rows were given
    kept
        which of them were used, (size,), None: all
    index
        the index of a pandas table; None: there was none
    """

    size: int
    kept: np.ndarray | None = None
    index: pd.Index | None = None

    @property
    def numbers(self) -> np.ndarray:
        """The number, from 0, of each row that was used."""
        return np.arange(self.size) if self.kept is None else np.flatnonzero(self.kept)

    @property
    def rows(self) -> pd.Index:
        """The label of each row that was used: of the user's index, else its number from 0."""
        own = pd.RangeIndex(self.size) if self.index is None else self.index
        return own if self.kept is None else own[self.kept]

    def __call__(self, found: Plain) -> Plain:
        """One value (or one row of a frame) for each row that was given, NaN where it was not used.

        An array stays an array; of a pandas table it becomes a Series with the table's index. A frame has
        that index, else row numbers.
        """
        if self.kept is None and self.index is None:
            return found
        if isinstance(found, pd.DataFrame):
            out = (
                found
                if self.kept is None
                else found.set_axis(np.flatnonzero(self.kept)).reindex(pd.RangeIndex(self.size))
            )
            out = out.set_axis(pd.RangeIndex(self.size) if self.index is None else self.index)
            out.attrs |= found.attrs
            return out
        if self.kept is not None:
            kind = (
                found.dtype
                if found.dtype.kind == "f"
                else np.float64
                if found.dtype.kind in "iub"
                else object
            )
            whole = np.full((self.size, *found.shape[1:]), np.nan, dtype=kind)
            whole[self.kept] = found
            found = whole
        return found if self.index is None or found.ndim != 1 else pd.Series(found, index=self.index)


def missing_rows(column: pd.Series, first: int = 0) -> np.ndarray | None:
    """Which rows are missing (NaN or null), or None if none is. Infinity is not missing: it is refused."""
    if column.dtype == np.float64:
        values = column.to_numpy()
        if compiled.finite([values])[0]:
            return None
        found = np.isnan(values)
        bad = np.isinf(values)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise NotFinite(
                f"column {column.name!r} is {values[row]} in row {first + row}. Every value must be finite "
                f"({int(bad.sum())} are not)."
            )
    elif isinstance(column.dtype, np.dtype) and column.dtype.kind in "iub":
        return None
    else:
        found = column.isna().to_numpy()
    return found if found.any() else None
