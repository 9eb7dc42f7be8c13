"""Data frames of results that print whole: every column, in lines of at most 80 characters.

pandas leaves columns out of what a narrow terminal prints, and an anova without its p-value answers nothing.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

WIDTH = 80
ROWS, ENDS = 60, 10  # of a longer table as many at its two ends together, as pandas does


class _Kind(type):
    """Every data frame passes for one of these: how it prints is all that differs (`pandas.testing` compares types)."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, pd.DataFrame)


class WholeFrame(pd.DataFrame, metaclass=_Kind):
    """A pandas data frame in all but how it prints. What is made of it is a plain data frame.

    Examples
    --------
    >>> frame = WholeFrame({f"a_long_name_{i}": [0.5] for i in range(6)})
    >>> "a_long_name_5" in str(frame), max(map(len, str(frame).splitlines())) <= 80
    (True, True)
    >>> type(frame.round(1)).__name__
    'DataFrame'
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        few = ENDS if len(self) > ROWS else None
        return self.to_string(line_width=WIDTH, max_rows=ROWS, min_rows=few, show_dimensions=len(self) > ROWS)

    def __reduce__(self) -> str | tuple[Any, ...]:  # a file of results is read without this library
        return pd.DataFrame(self).__reduce__()


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame, printed with all its columns."""
    return WholeFrame(frame)
