"""One column of a table: whether it is a number or a category, its values as float64, the codes of its
levels.

Numbers and booleans are float64 before anything is computed with them: int8 would wrap at 128, and two
booleans would add up to "or". A column that is neither a number nor a category (a date, a list, a complex
number) is refused by its name.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import UnknownLevel, WrongType
from ..types import Level, Plain

LARGEST = 2**53  # beyond it float64 skips whole numbers
_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating, decimal.Decimal, fractions.Fraction)
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
# a number that people write and Python does not read: 1,100   5%   $3.50   1.234,5   3 000
_WRITTEN = re.compile(
    r"[-+(]?\s*[$€£¥]?\s*[-+]?(\d{1,3}([,.'\s]\d{3})+([.,]\d+)?|\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?\s*[%$€£¥]?\s*\)?"
)
_EMPTY = frozenset(
    {
        "",
        "-",
        "--",
        "–",
        "—",
        ".",
        "..",
        "?",
        "*",
        "na",
        "n/a",
        "n.a.",
        "nan",
        "null",
        "none",
        "missing",
        "inf",
        "-inf",
    }
)


def is_categorical(column: pd.Series, name: str) -> bool:
    """Whether a column is a category (text, pandas category) rather than a number (0 and 1 for bool).

    Raises
    ------
    WrongType
        it is neither; the message names the column, and a cell
    """
    dtype = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    if dtype == np.dtype(object):
        return _object_is_categorical(column, name)
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype):
        return True
    if isinstance(dtype, pd.ArrowDtype):
        kind = str(dtype.pyarrow_dtype)
        if kind.startswith(("dictionary", "string", "large_string", "null")):
            return True
        if kind.startswith(("int", "uint", "float", "double", "halffloat", "bool", "decimal")):
            return False
    elif pd.api.types.is_bool_dtype(dtype) or (
        pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)
    ):
        return False
    raise _neither(name, str(dtype))


def _object_is_categorical(column: pd.Series, name: str) -> bool:
    values = column.dropna()
    kinds = set(map(type, values))
    if all(issubclass(kind, str) for kind in kinds):
        return True
    if all(issubclass(kind, _NUMBERS) for kind in kinds):
        return False
    shown = ", ".join(sorted(kind.__name__ for kind in kinds)[:4])
    if any(issubclass(kind, (*_TIMES, complex, np.complexfloating)) for kind in kinds):
        raise _neither(name, f"object, of {shown}")
    row = next(i for i, v in enumerate(column) if not isinstance(v, _NUMBERS) and not _missing(v))
    raise WrongType(
        f"column {name!r} is of type object and holds {shown}; row {row_of(column, row)} is "
        f"{column.iloc[row]!r}. "
        "Make it numbers throughout, or text throughout."
    )


def _missing(value: Plain) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _neither(name: str, kind: str) -> WrongType:
    advice = "Convert it first."
    if re.search(r"date|time|duration|period", kind):
        advice = f"For a number, count from a date: (data[{name!r}] - start).dt.days; for a category, make it text."
    elif "complex" in kind:
        advice = "Give its real and imaginary parts as two columns."
    return WrongType(f"column {name!r} is of type {kind}, which is neither a number nor a category. {advice}")


def numeric_column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """The column as float64, without a copy where it already is; missing values become NaN.

    Raises
    ------
    WrongType
        a cell is not a number, or a whole number beyond 2**53 of which float64 would lose digits
    """
    column = frame[name]
    if column.dtype == np.float64:
        return column.to_numpy()
    if is_categorical(column, name):
        return _text_as_numbers(column, name)
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.dtype.kind != "f" or column.dtype == np.dtype(object):
        _check_digits(column, values, name)
    return values


def _check_digits(column: pd.Series, values: np.ndarray, name: str) -> None:
    """Refuse whole numbers that float64 cannot hold."""
    for row in np.flatnonzero(np.abs(values) >= LARGEST).tolist():
        value = column.iloc[row]
        if np.isfinite(values[row]) and value != int(values[row]):
            raise WrongType(
                f"column {name!r} is {value} in row {row_of(column, row)}, a whole number that float64 would "
                f"round to {int(values[row])}: "
                f"beyond 2**53 digits are lost. If it is a label, write C({name}) or make it text; if it is "
                "a quantity, subtract a "
                "constant from it first."
            )


def _text_as_numbers(column: pd.Series, name: str) -> np.ndarray:
    values = column.astype(object).to_numpy()
    out = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if _missing(value):
            continue
        try:
            if isinstance(value, (*_TIMES, complex)):
                raise TypeError
            out[row] = float(value)
        except (TypeError, ValueError):
            raise WrongType(
                f"column {name!r} is {value!r} in row {row_of(column, row)}, and a number is needed there "
                f"(the column is of type {column.dtype})."
            ) from None
    return out


def level_codes(column: pd.Series, levels: Sequence[Level], name: str) -> np.ndarray:
    """The position of each row's level among `levels`; a level that is not among them is an error."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        own, codes = column.cat.categories, column.cat.codes.to_numpy()
        where = pd.Index(levels).get_indexer(own)
        codes = np.append(where, -1)[codes]
    else:
        codes = pd.Index(levels).get_indexer(pd.Index(column))
    unknown = codes < 0
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        value, *seen = (v.item() if isinstance(v, np.generic) else v for v in (column.iloc[row], *levels[:8]))
        shown = ", ".join(map(repr, seen)) + (" …" if len(levels) > 8 else "")
        raise UnknownLevel(
            f"column {name!r} has the level {value!r} (row {row_of(column, row)}), which the fit has not "
            f"seen. Seen: {shown}."
        )
    return codes


def category_positions(column: pd.Series, levels: Sequence[Level]) -> np.ndarray | None:
    """The position of each of a column's categories among `levels`; None: it has no categories, more of them than rows, or rows
    without one of the levels, which `level_codes` refuses."""
    if not isinstance(column.dtype, pd.CategoricalDtype) or len(column.cat.categories) > len(column):
        return None
    own, codes = column.cat.categories, column.cat.codes
    if len(codes) and codes.min() < 0:
        return None
    if len(own) == len(levels) and own.tolist() == list(levels):
        return np.arange(len(own))
    where: np.ndarray = pd.Index(levels).get_indexer(own)
    absent = np.flatnonzero(where < 0)
    if len(absent) and np.isin(codes.to_numpy(), absent).any():
        return None
    return where.clip(min=0)


def row_of(column: pd.Series, i: int) -> int:
    """The number of a row in the data: frames number their rows, and a selection of them keeps the
    numbers."""
    return int(column.index[i]) if pd.api.types.is_integer_dtype(column.index.dtype) else i


def stray_cells(levels: Sequence[Level]) -> set[str]:
    """Of the different values of a column of text that is mostly numbers, those that are none ("-", "1,100",
    "5%").

    Examples
    --------
    >>> stray_cells(["1.5", "2", "-", "3"]), stray_cells(["1", "2", "3"]), stray_cells(["a", "b", "1"])
    ({'-'}, set(), set())
    >>> sorted(stray_cells(["5%", "7%", "12%"]))
    ['12%', '5%', '7%']
    """
    text = [v for v in levels if isinstance(v, str)]
    odd = {v for v in text if not reads_as_number(v)}
    empty = {v for v in odd if v.strip().lower() in _EMPTY}
    words = {v for v in odd - empty if not _WRITTEN.fullmatch(v.strip())}
    if len(text) < len(levels) or 2 * len(words) >= len(text) - len(empty):
        return set()
    return odd


def reads_as_number(value: Plain) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
