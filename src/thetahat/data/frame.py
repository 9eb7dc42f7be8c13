"""Frame: rows and columns from wherever they are, as pandas blocks.

A dict of columns, a pandas, polars or Arrow table, a CSV or a Parquet file. What is in memory is one block; a Parquet file larger
than `memory` is read block by block, again at each pass, and never held.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import BadArgument, DataError, EmptyData, MalformedFile, UnknownColumn, WrongType
from ..files import usable

MEMORY = 2**30  # bytes of a Parquet file's wanted columns, above which it is streamed
STREAM_ROWS = 131072


class Frame:
    """Columns by name, rows by block.

    Parameters
    ----------
    data : dict of columns, pandas / polars / Arrow table, or the path of a .csv, .csv.gz or .parquet file
    memory : a Parquet file whose columns need more bytes than this is streamed
    """

    def __init__(self, data: Any, *, memory: int = MEMORY):
        self.memory = memory
        self.name: str
        self._columns: tuple[str, ...]
        self._size: int
        self.path: Path | None = None
        self.pandas: pd.DataFrame | None = None
        if isinstance(data, Frame):
            self.path, self.pandas, self.name, self.memory = data.path, data.pandas, data.name, data.memory
            self._columns, self._size = data._columns, data._size
            return
        if isinstance(data, (str, Path)):
            self.name = str(data)
            self._open(usable(data))
        else:
            module = type(data).__module__.split(".")[0]
            self.name = type(data).__name__ if module == "builtins" else f"{module} {type(data).__name__}"
            self.pandas = _to_pandas(data)
        if self.pandas is not None:
            twice = self.pandas.columns[self.pandas.columns.duplicated()]
            if len(twice):
                raise DataError(f"the column {twice[0]!r} stands twice in the data. Rename one of them.")
            self._columns, self._size = tuple(str(c) for c in self.pandas.columns), len(self.pandas)
            if list(self._columns) != list(self.pandas.columns):
                self.pandas = self.pandas.set_axis(list(self._columns), axis=1)
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

    def streamed(self, names: Sequence[str]) -> bool:
        """Whether the columns are too large to be held."""
        if self.path is None:
            return False
        return 8 * len(names) * self._size > self.memory

    def read(self, names: Sequence[str]) -> pd.DataFrame:
        """At least these columns, whole: what is in memory is handed out as it is, since a selection would be a copy."""
        if self.pandas is not None:
            return self.pandas
        try:
            return _arrow_to_pandas(pa.parquet.read_table(self.path, columns=list(names), page_checksum_verification=True))
        except (pa.ArrowException, OSError) as error:
            raise MalformedFile(f"{self.name} cannot be read to its end: {error}") from error

    def blocks(self, names: Sequence[str], rows: int = STREAM_ROWS) -> Iterator[pd.DataFrame]:
        """At least these columns, block by block: one block if they are in memory."""
        if not self.streamed(names):
            yield self.read(names)
            return
        try:
            with pa.parquet.ParquetFile(self.path, memory_map=False, pre_buffer=False, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=rows, columns=list(names)):
                    yield _arrow_to_pandas(pa.Table.from_batches([batch]))
        except (pa.ArrowException, OSError) as error:
            raise MalformedFile(f"{self.name} cannot be read to its end: {error}") from error

    def _open(self, path: Path) -> None:
        if not path.is_file():
            raise MalformedFile(f"{path} is a folder, not a file." if path.is_dir() else f"there is no file {path}.")
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
                self.pandas = _arrow_to_pandas(table)
            else:
                raise BadArgument(
                    f"{path}: a file of type {kind or 'unknown'} cannot be read. Accepted: .csv, .csv.gz, .tsv, .parquet."
                )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise MalformedFile(f"{path} cannot be read: {error}") from error


def _delimiter(path: Path) -> str:
    with gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open(errors="replace") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _to_pandas(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pa.Table):
        return _arrow_to_pandas(data)
    if isinstance(data, Mapping):
        try:
            return pd.DataFrame({k: _detach(v) for k, v in data.items()})
        except ValueError as error:
            raise DataError(f"the columns of the dict do not make a table: {error}") from error
    try:
        native = nw.from_native(data, eager_only=True)
    except TypeError as error:
        lazy = " Collect it first: data.collect()." if hasattr(data, "collect") else ""
        raise WrongType(
            f"{type(data).__name__} is not a table.{lazy} "
            "Accepted: a dict of columns, a pandas, polars or Arrow table, the path of a CSV or Parquet file."
        ) from error
    return _arrow_to_pandas(native.to_arrow())


def _detach(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _arrow_to_pandas(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(split_blocks=True, self_destruct=False, strings_to_categorical=False)
