"""Rows that DuckDB reads: of a file larger than memory, a database, a query over both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...errors import BadArgument
from ...types import Data, Plain
from ..arrow import STREAM_ROWS
from ..partitions import Partitions, Work


class DuckDB(Partitions):
    """The rows of a query, as data for `th.fit`. DuckDB runs it again at each pass, with the columns that are read and no
    others, and gives its rows block by block: none is kept.

    Parameters
    ----------
    query
        SQL, or a relation of DuckDB. A query that joins or groups needs an ORDER BY, so that its rows come in the same
        order at each pass
    connection
        of SQL: a connection of DuckDB; None: a database of its own, which reads files by their name

    Examples
    --------
    >>> import thetahat as th
    >>> rows = th.data.DuckDB("SELECT i / 100 AS x, 1 + i % 3 AS y FROM range(100) t(i)")  # doctest: +SKIP
    >>> th.fit("y ~ x", rows, "poisson").certificate.status  # doctest: +SKIP
    'certified maximum'
    """

    extra, name = "duckdb", "DuckDB query"

    def __init__(self, query: str | Data, connection: Plain = None):
        duckdb = self.package("duckdb")
        if isinstance(query, str):
            own = duckdb.connect() if connection is None else connection
            query = own.sql(query)
        if not isinstance(query, duckdb.DuckDBPyRelation):
            raise BadArgument(
                f"DuckDB reads SQL that gives rows, or a relation; received {type(query).__name__}."
            )
        self._relation = query
        super().__init__()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._relation.columns)

    def run(self, work: Work, columns: Sequence[str]) -> Iterable[bytes]:
        yield work(0, self._blocks(columns))

    def _blocks(self, columns: Sequence[str]) -> Iterator[Data]:
        """Blocks of Arrow, in the order of the query."""
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        yield from self._relation.select(quoted).to_arrow_reader(STREAM_ROWS)
