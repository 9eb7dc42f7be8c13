"""Tables of Arrow as tables of pandas, and how many rows of them are held at a time."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

STREAM_ROWS = 65_536


def arrow_to_pandas(table: pa.Table) -> pd.DataFrame:
    """Whole numbers with nulls stay whole: as floats they would lose digits beyond 2**53."""
    whole = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
    nulls = any(c.type in whole and c.null_count for c in table.columns)
    out: pd.DataFrame = table.to_pandas(
        split_blocks=True,
        self_destruct=False,
        strings_to_categorical=False,
        types_mapper=whole.get if nulls else None,
    )
    return out
