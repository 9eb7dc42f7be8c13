"""The clusters of cluster-robust standard errors: the columns that identify them, a label for each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..data import Source
from ..errors import BadArgument


def key(by: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """What can be remembered by."""
    return by if by is None or isinstance(by, str) else tuple(by)


def labels(by: str | Sequence[str] | None, source: Source) -> list[np.ndarray] | None:
    """The columns that identify clusters, one label a row that was fitted."""
    if by is None:
        return None
    import pandas as pd

    from ..data.table import Table
    from ..models.sequences import Sequences

    columns = [by] if isinstance(by, str) else list(by)
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


def check_clusters(kind: str, by: str | Sequence[str] | None, source: Source) -> None:
    """Refuse a kind of covariance, or clusters, that a fit of this source could not have."""
    from . import covariance

    covariance.check(kind, labels(by, source))
