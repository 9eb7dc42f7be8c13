"""The clusters of cluster-robust standard errors: the columns that identify them, a label for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data import Source
from ..errors import BadArgument


@dataclass(frozen=True)
class ClusterColumn:
    """The labels of rows that stay in an engine, or are streamed in an order that is not the file's: the column that has
    them there."""

    name: str


Labels = np.ndarray | ClusterColumn


def held(clusters: Sequence[Labels] | None, what: str) -> list[np.ndarray] | None:
    """The labels themselves, for what reads all rows of a cluster at once.

    Raises
    ------
    BadArgument
        they are of rows in an engine, or of a file that is streamed in order of time
    """
    out = None if clusters is None else [c for c in clusters if isinstance(c, np.ndarray)]
    if clusters is not None and out is not None and len(out) < len(clusters):
        raise BadArgument(
            f"{what} reads all rows of a cluster at once, and they stay in an engine, or in a file that is streamed in order of "
            "time. Accepted there: covariance='cluster'."
        )
    return out


def key(by: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """What can be remembered by."""
    return by if by is None or isinstance(by, str) else tuple(by)


def labels(by: str | Sequence[str] | None, source: Source) -> Sequence[Labels] | None:
    """The columns that identify clusters, one label a row that was fitted; of rows in an engine the columns' names."""
    if by is None:
        return None
    import pandas as pd

    from ..data.ordered import OrderedTable
    from ..data.partitioned import PartitionedTable
    from ..data.table import Table
    from ..models.sequences import Sequences

    columns = [by] if isinstance(by, str) else list(by)
    if isinstance(source, PartitionedTable | OrderedTable):
        source.frame.whole.require(columns, where="by")
        return [ClusterColumn(name) for name in columns]
    if not isinstance(source, Table) and not (isinstance(source, Sequences) and source.frame is not None):
        return [torch.cat([b[c] for b in source.batches()]).numpy() for c in columns]
    found = [source.column(c) for c in columns]
    for name, cells in zip(columns, found, strict=True):
        missing = np.flatnonzero(pd.isna(cells))
        if len(missing):
            row = source.alignment.numbers[missing[0]]
            raise BadArgument(
                f"by={name!r}: the column is missing in row {row}, which was fitted. Every row needs a "
                "cluster."
            )
        if len(pd.unique(cells)) < 2:
            raise BadArgument(
                f"by={name!r}: the column has one value only ({pd.Series(cells).tolist()[0]!r}), and errors "
                "need several clusters."
            )
    return found
