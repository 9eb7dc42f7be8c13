"""Frame: rows and columns from wherever they are, as pandas blocks.

A dict of columns, a pandas, polars or Arrow table, a CSV or a Parquet file. What is in memory is one block; a
Parquet file larger than `memory` is read block by block, again at each pass, and never held.
"""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import BadArgument, DataError, EmptyData, MalformedFile, UnknownColumn, WrongType
from ..files import usable
from ..threads import MANY, in_threads
from ..types import Data, Level, Plain
from .arrow import STREAM_ROWS, arrow_to_pandas
from .ownership import private_columns
from .partitions import Partitions, reduced

MEMORY = 2**30  # bytes of a Parquet file's wanted columns, above which it is streamed
SPARE = (
    2**30
)  # bytes of columns that a fit does not read, up to which they are copied with those that it does
BUFFER = 1 << 20  # bytes of a column that are read at a time; without it, those of a whole row group
T = TypeVar("T")
_QUADRUPLE = {np.dtype(np.longdouble)} - {
    np.dtype(np.float64)
}  # which pandas holds but does not compute with


class Frame:
    """Columns by name, rows by block.

    Inside, rows are numbered from 0, whatever the user's own index is; that is `index`, of a pandas table,
    else None.

    Parameters
    ----------
    data
        dict of columns, pandas / polars / Arrow table, a lazy frame of polars or a relation of DuckDB (which
        are collected), the path of a .csv, .csv.gz or .parquet file, or rows that stay in an engine (`data.Dask` …)
    memory
        a Parquet file whose columns need more bytes than this is streamed
    """

    def __init__(self, data: Data, *, memory: int = MEMORY):
        self.memory = memory
        self.name: str
        self._columns: tuple[str, ...]
        self._size: int
        self.path: Path | None = None
        self.pandas: pd.DataFrame | None = None
        self.index: pd.Index | None = None
        self.functions: Mapping[
            str, Callable[..., Plain]
        ] = {}  # of the user's own, which formulas of these data may call
        self.polars = False  # whether the user's own table is one of polars
        self._own: pd.DataFrame | None = None
        self.engine: Partitions | None = None  # where the rows stay
        if isinstance(data, Frame):
            self.__dict__ |= data.__dict__
            return
        if isinstance(data, Partitions):
            self.engine, self.name = data, data.name
            self._columns, self._size = data.columns, sum(data.sizes)
        elif isinstance(data, (str, Path)):
            self.name = str(data)
            self._open(usable(data))
        else:
            module = type(data).__module__.split(".")[0]
            self.name = type(data).__name__ if module == "builtins" else f"{module} {type(data).__name__}"
            self.pandas = _to_pandas(data)
            self.polars = module == "polars"
            self.index = self.pandas.index if isinstance(data, (pd.DataFrame, pd.Series)) else None
        if self.pandas is not None:
            twice = self.pandas.columns[self.pandas.columns.duplicated()]
            if len(twice):
                raise DataError(f"the column {twice[0]!r} appears twice in the data. Rename one of them.")
            self._columns, self._size = tuple(str(c) for c in self.pandas.columns), len(self.pandas)
            repeated = pd.Index(self._columns)[pd.Index(self._columns).duplicated()]
            if len(repeated):
                raise DataError(
                    f"two columns of the data are called {repeated[0]!r} as text. Rename one of them."
                )
            # a shallow copy: what is done to the user's own frame later is not seen here
            self.pandas = self.pandas.copy(deep=False)
            quadruple = [
                n for n, t in zip(self.pandas.columns, self.pandas.dtypes, strict=True) if t in _QUADRUPLE
            ]
            self.pandas = (
                self.pandas.astype(dict.fromkeys(quadruple, np.float64)) if quadruple else self.pandas
            )
            self.pandas.columns = pd.Index(list(self._columns))
            self.pandas.index = pd.RangeIndex(self._size)
        if self._size == 0:
            raise EmptyData(f"{self.name} has no rows.")

    @property
    def columns(self) -> tuple[str, ...]:
        return self._columns

    @property
    def size(self) -> int:
        return self._size

    def require(self, names: Sequence[str], where: str = "the formula") -> None:
        for name in names:
            if name not in self._columns:
                raise UnknownColumn.named(name, self._columns, where)

    def with_column(self, name: str, values: Data, argument: str) -> Frame:
        """The same rows with one number a row beside them, given as `argument`.

        Raises
        ------
        DataError
            not one number a row; a pandas Series whose index is not that of the data; a file, which has no rows here
        """
        if self.pandas is None:
            raise DataError(
                f"{argument} is an array, and {self.name} is read block by block. Give the name of a column."
            )
        if isinstance(values, pd.Series) and self.index is not None and not values.index.equals(self.index):
            raise DataError(
                f"{argument} is a Series whose index is not that of the data. Give it in the data's order: {argument}.to_numpy()."
            )
        array = np.asarray(_detach(values))
        if array.shape != (self.size,):
            raise DataError(
                f"{argument} has the shape {array.shape}; the data have {self.size} rows. Accepted: one value a row."
            )
        if name in self.columns:
            raise DataError(
                f"the data have a column {name!r}, which is the name of the array {argument}. Rename the column."
            )
        out = Frame(self)
        out.pandas = self.pandas.assign(**{name: array})
        out._columns, out._own = (*self.columns, name), None
        return out

    def with_functions(self, functions: Mapping[str, Callable[..., Plain]]) -> Frame:
        """The same rows, whose formulas may call these functions."""
        out = Frame(self)
        out.functions = dict(functions)
        return out

    def dates(self, names: Sequence[str]) -> dict[str, str]:
        """Of these columns those that are dates or times, and the first of each: from it they are counted in days."""
        out: dict[str, str] = {}
        if self.pandas is None:
            return out
        for name in names:
            column = _as_times(self.pandas[name])
            if column is not None and column.notna().any():
                out[name] = column.min().isoformat()
        return out

    def dated(self, origins: Mapping[str, str]) -> Frame:
        """The same rows with dates as days since an origin, float64; missing ones NaN. Dates may be text, as in ISO 8601.

        Raises
        ------
        WrongType
            a column that was of dates is not
        """
        if not origins or self.pandas is None:
            return self
        made = {}
        for name in origins:
            if name not in self.columns:
                continue
            column = _as_times(self.pandas[name])
            if column is None:
                column = _written_times(self.pandas[name])
            if column is None:
                raise WrongType(
                    f"column {name!r} is of type {self.pandas[name].dtype}; the fit has it as a date, in days since {origins[name]}. "
                    "Accepted: dates, or text such as '2024-03-01'."
                )
            origin = pd.Timestamp(origins[name])
            if (column.dt.tz is None) != (origin.tz is None):
                raise WrongType(
                    f"column {name!r} is of dates {'without' if column.dt.tz is None else 'with'} a time zone, and the fit has it "
                    f"as days since {origins[name]}."
                )
            made[name] = (column - origin) / pd.Timedelta(days=1)
        out = Frame(self)
        out.pandas, out._own = self.pandas.assign(**made), None
        return out

    def like(self, table: pd.DataFrame) -> Data:
        """A table of answers as the user's own are: of polars, where the data are; else of pandas."""
        if not self.polars:
            return table
        plain = table.reset_index(drop=True)
        return nw.from_arrow(pa.Table.from_pandas(plain, preserve_index=False), backend="polars").to_native()

    def streamed(self, names: Sequence[str]) -> bool:
        """Whether the columns are too large to be held, or stay in an engine."""
        if self.engine is not None:
            return True
        if self.path is None:
            return False
        return 8 * len(names) * self._size > self.memory

    def owning(self, names: Sequence[str]) -> Frame:
        """The same rows, these columns copied: nothing that is done to the user's arrays later changes
        them."""
        out = Frame(self)
        if self.pandas is not None and self.path is None and self._own is None:
            out._own = _copied(self.pandas, names)
            rest = {name: self.pandas[name] for name in self.columns if name not in set(names)}
            # clusters are named later; beyond it pandas' copy-on-write has to do
            if sum(column.memory_usage(index=False) for column in rest.values()) <= SPARE:
                out.pandas = out._own.copy(deep=False)
                for name, column in rest.items():
                    out.pandas[name] = column.copy()
        return out

    def read(self, names: Sequence[str]) -> pd.DataFrame:
        """At least these columns, whole: what is in memory is handed out as it is, since a selection would
        be a copy."""
        if self.engine is not None:
            self.engine.refuse(f"a pass over {', '.join(map(repr, names))}")
        if self._own is not None and all(name in self._own for name in names):
            return self._own
        if self.pandas is not None:
            return self.pandas
        try:
            return arrow_to_pandas(
                pa.parquet.read_table(self.path, columns=list(names), page_checksum_verification=True)
            )
        except (pa.ArrowException, OSError) as error:
            raise MalformedFile(f"{self.name} cannot be read to its end: {error}") from error

    def blocks(self, names: Sequence[str], rows: int = STREAM_ROWS) -> Iterator[pd.DataFrame]:
        """At least these columns, block by block: one block if they are in memory."""
        if self.engine is not None or not self.streamed(names):
            yield self.read(names)
            return
        try:
            with pa.parquet.ParquetFile(
                self.path,
                memory_map=False,
                buffer_size=BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,
            ) as file:
                first = 0
                for batch in _read_ahead(
                    file.iter_batches(batch_size=rows, columns=list(names), use_threads=pa.cpu_count() > 2)
                ):
                    block = arrow_to_pandas(pa.Table.from_batches([batch]))
                    block.index = pd.RangeIndex(first, first + len(block))
                    first += len(block)
                    yield block
        except (pa.ArrowException, OSError) as error:
            raise MalformedFile(f"{self.name} cannot be read to its end: {error}") from error

    def fold(
        self,
        function: Callable[[pd.DataFrame], T | None],
        combine: Callable[[T, T], T],
        names: Sequence[str],
    ) -> T | None:
        """combine(… combine(function(block 0), function(block 1)) …) over the blocks of these columns: where the rows are, so
        that of rows in an engine no more than this comes here."""
        if self.engine is not None:
            return self.engine.fold(function, combine, names)
        return reduced(combine, map(function, self.blocks(names)))

    def first(self, names: Sequence[str]) -> pd.DataFrame:
        """The first block: enough to learn types and structure from."""
        return next(iter(self.blocks(names)))

    def backward(self, names: Sequence[str], rows: int = STREAM_ROWS) -> Iterator[pd.DataFrame]:
        """At least these columns of a streamed file, block by block from its end, the last row first. A row group is
        held at a time."""
        try:
            with pa.parquet.ParquetFile(
                self.path, memory_map=False, pre_buffer=False, page_checksum_verification=True
            ) as file:
                end = self._size
                for group in reversed(range(file.num_row_groups)):
                    table = file.read_row_group(group, columns=list(names))
                    for stop in range(table.num_rows, 0, -rows):
                        places = np.arange(max(0, stop - rows), stop)[::-1]
                        block = arrow_to_pandas(table.take(pa.array(places)))
                        block.index = pd.RangeIndex(end - 1, end - 1 - len(places), -1)
                        end -= len(places)
                        yield block
        except (pa.ArrowException, OSError) as error:
            raise MalformedFile(f"{self.name} cannot be read to its end: {error}") from error

    def _open(self, path: Path) -> None:
        if not path.is_file():
            raise MalformedFile(
                f"{path} is a folder, not a file." if path.is_dir() else f"there is no file {path}."
            )
        kind = "".join(path.suffixes[-2:]).lower()
        try:
            if kind.endswith((".parquet", ".pq")):
                with pa.parquet.ParquetFile(path) as file:
                    self._columns, self._size = tuple(file.schema_arrow.names), file.metadata.num_rows
                self.path = path
            elif kind.endswith((".csv", ".csv.gz", ".tsv", ".txt")):
                if path.stat().st_size == 0:
                    raise EmptyData(f"{path} is empty.")
                delimiter = "\t" if kind.endswith(".tsv") else _delimiter(path)
                table = pa.csv.read_csv(
                    path,
                    parse_options=pa.csv.ParseOptions(delimiter=delimiter),
                    convert_options=pa.csv.ConvertOptions(strings_can_be_null=True),
                )
                self.pandas = arrow_to_pandas(table)
            else:
                raise BadArgument(
                    f"{path}: a file of type {kind or 'unknown'} cannot be read. Accepted: .csv, .csv.gz, "
                    ".tsv, .parquet."
                )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise MalformedFile(f"{path} cannot be read: {error}") from error


def _read_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same, each read in a thread of its own while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _delimiter(path: Path) -> str:
    with (
        gzip.open(path, "rt", errors="replace")
        if path.suffix == ".gz"
        else path.open(errors="replace") as file
    ):
        header = file.readline()
    return max(",;\t", key=header.count)


def _as_times(column: pd.Series) -> pd.Series | None:
    """A column of dates or times as pandas' own type; None: it is of something else."""
    dtype = column.dtype
    if dtype == np.dtype(object):
        values = column.dropna()
        if not len(values) or not all(isinstance(v, datetime.date) for v in values):
            return None
    elif isinstance(dtype, pd.ArrowDtype):
        if not str(dtype.pyarrow_dtype).startswith(("date", "timestamp")):
            return None
        column = column.astype(object)
    elif not pd.api.types.is_datetime64_any_dtype(dtype):
        return None
    return pd.to_datetime(column)


def _written_times(column: pd.Series) -> pd.Series | None:
    """A column of text in which every cell is a date by ISO 8601, or missing; None: it is of something else."""
    values = column.dropna()
    if not len(values) or not all(isinstance(v, str) for v in values):
        return None
    try:
        return pd.to_datetime(column.astype(object), format="ISO8601")
    except ValueError:
        return None


def _to_pandas(data: Data) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):  # one row of a table: frame.iloc[0]
        return data.to_frame().T.infer_objects()
    if isinstance(data, pa.Table):
        return arrow_to_pandas(data)
    if isinstance(data, Mapping):
        return _from_dict(data)
    try:
        found = nw.from_native(data)
    except TypeError as error:
        raise WrongType(
            f"{type(data).__name__} is not a table. Accepted: a dict of columns, a pandas, polars or Arrow table, a lazy frame, "
            "a DuckDB relation, the path of a CSV or Parquet file."
        ) from error
    native = found.collect() if isinstance(found, nw.LazyFrame) else found
    # the categories of a polars column are in the order of a cache of the process: they have no order that
    # could be meant
    unordered = [name for name, dtype in native.schema.items() if dtype == nw.Categorical]
    native = native.with_columns(*[nw.col(name).cast(nw.String) for name in unordered])
    try:
        frame = arrow_to_pandas(native.to_arrow())
    except pa.ArrowException as error:
        raise WrongType(
            f"column {_unreadable(native)} cannot be read as numbers or text: {error}. Convert it first."
        ) from error
    return (
        frame.assign(**{name: frame[name].astype("category") for name in unordered}) if unordered else frame
    )


def _copied(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """These columns, in memory that nobody else writes into. Columns that are private already are not copied; those of
    float64 that are not private are copied once, beside each other: pandas copies a selection, and then again where it joins its
    blocks."""
    private = private_columns(frame)
    dtypes, asked = frame.dtypes, set(names)
    # in the frame's order, which most formulas have: what lies evenly spaced is read where it lies (`design.stack`)
    floats = [n for n in frame.columns if n in asked and dtypes[n] == np.float64 and n not in private]
    block = np.empty((len(floats), len(frame)))
    pairs = [(row, frame[name].to_numpy()) for row, name in zip(block, floats, strict=True)]
    in_threads(lambda pair: np.copyto(*pair), pairs, block.size > MANY)
    made = dict(zip(floats, block, strict=True))
    if not private & set(names):
        out = pd.DataFrame(block.T, columns=floats, index=frame.index, copy=False)
        rest = {name: frame[name].copy() for name in names if name not in floats}
        for name, column in rest.items():
            out[name] = column
        return out
    out = frame.copy(deep=False)
    for name in names:
        if name not in private:
            out[name] = (
                pd.Series(made[name], index=frame.index, copy=False) if name in made else frame[name].copy()
            )
    return out


def _unreadable(native: Data) -> str:
    """The first column that Arrow cannot hold, and its type."""
    for name, dtype in native.schema.items():
        try:
            native.select(name).to_arrow()
        except pa.ArrowException:
            return f"{name!r} of type {dtype}"
    return "of the data"


def _from_dict(data: Mapping[Level, Data]) -> pd.DataFrame:
    """A dict of columns; a dict of single values is one row."""
    columns = {name: _detach(value) for name, value in data.items()}
    single = [name for name, value in columns.items() if _dimensions(value) == 0]
    if single and len(single) < len(columns):
        long = next(name for name in columns if name not in single)
        raise DataError(
            f"column {single[0]!r} of the dict is one value ({columns[single[0]]!r}) and {long!r} is a list "
            "of them. Give one value a row, or "
            "one value of every column for a single row."
        )
    deep = next((name for name, value in columns.items() if _dimensions(value) > 1), None)
    if deep is not None:
        raise DataError(
            f"column {deep!r} of the dict has the shape {np.shape(columns[deep])}: a column is one value a "
            "row."
        )
    try:
        return pd.DataFrame({name: [value] for name, value in columns.items()} if single else columns)
    except (ValueError, TypeError) as error:
        raise DataError(f"the columns of the dict do not make a table: {error}") from error


def _dimensions(value: Plain) -> int:
    if hasattr(value, "ndim"):
        return int(value.ndim)
    return 0 if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) else 1


def _detach(value: Plain) -> Plain:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
