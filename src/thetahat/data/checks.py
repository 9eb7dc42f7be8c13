"""Values of a block of rows, checked: where a row stands in the data, and that every value is finite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import NotFinite


@dataclass(frozen=True)
class Place:
    """Which rows of the data a block's rows are: those of `kept` (None: all), counted from `first`."""

    first: int = 0
    kept: np.ndarray | None = None

    def row(self, i: int) -> int:
        return self.first + (i if self.kept is None else int(np.flatnonzero(self.kept)[i]))


ALL = Place()  # the rows of a block that is the whole of the data


def finite(values: np.ndarray, what: str, place: Place) -> np.ndarray:
    """The values, which torch may write to, once all of them are finite.

    Raises
    ------
    NotFinite
        the first row that is not, by its place in the data
    """
    with np.errstate(all="ignore"):
        if values.size and not np.isfinite(values.sum()):
            bad = ~np.isfinite(values)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise NotFinite(
                    f"{what} is {values[row]} in row {place.row(row)}. Every value must be finite "
                    f"({int(bad.sum())} are not)."
                )
    return values if values.flags.writeable else values.copy()
