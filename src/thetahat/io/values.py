"""Values as strict JSON, and back, to the last bit: what JSON lacks is written as {"~": type, …}.

    1.5, "a", true, null, [1, 2], {"a": 1}          as they are
    (1, 2), {0: 1.5}, inf, nan                      {"~": "tuple" | "map" | "float", "v": …}
    numpy arrays, dates, timestamps, intervals      {"~": "array" | "date" | "timestamp" | "interval", …}

A float is written with as many digits as give it back exactly. Nothing else is written, and reading builds
nothing else.
"""

from __future__ import annotations

import datetime
import math
from typing import get_type_hints

import numpy as np
import pandas as pd
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from ..errors import BadArgument, BadSave
from ..types import Plain, Settings

TAG = "~"
_DTYPES = ("float64", "float32", "int64", "int32", "bool")


def plain(value: Plain, where: str = "a value") -> Plain:
    """The value as JSON can write it.

    Raises
    ------
    BadArgument
        for any type that is not in the list above; `where` names what it belongs to

    Examples
    --------
    >>> plain({"knots": (0.0, math.inf)})
    {'knots': {'~': 'tuple', 'v': [0.0, {'~': 'float', 'v': 'inf'}]}}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)) or type(value) is str:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {TAG: "float", "v": str(value)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [plain(v, where) for v in value]
    if isinstance(value, tuple):
        return {TAG: "tuple", "v": [plain(v, where) for v in value]}
    if isinstance(value, dict):
        if all(isinstance(k, str) for k in value) and TAG not in value:
            return {k: plain(v, where) for k, v in value.items()}
        return {TAG: "map", "v": [[plain(k, where), plain(v, where)] for k, v in value.items()]}
    if isinstance(value, np.ndarray) and str(value.dtype) in _DTYPES:
        return {
            TAG: "array",
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "v": [plain(v) for v in value.ravel().tolist()],
        }
    if isinstance(value, pd.Timestamp):
        return {TAG: "timestamp", "v": value.isoformat(), "unit": value.unit}
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return {TAG: "date", "v": value.isoformat()}
    if isinstance(value, pd.Interval):
        return {
            TAG: "interval",
            "v": [plain(value.left, where), plain(value.right, where)],
            "closed": value.closed,
        }
    raise BadArgument(
        f"{where} is of type {type(value).__name__}, which cannot be saved. Saved are numbers, text, dates, "
        "intervals, and lists of them."
    )


def rich(value: Plain) -> Plain:
    """The value that `plain` wrote.

    Raises
    ------
    BadSave
        for anything that `plain` does not write

    Examples
    --------
    >>> rich(plain({"knots": (0.0, math.inf)}))
    {'knots': (0.0, inf)}
    """
    if isinstance(value, list):
        return [rich(v) for v in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {k: rich(v) for k, v in value.items()}
    try:
        return _read(value)
    except (KeyError, TypeError, ValueError) as error:
        raise BadSave(
            f"the file holds {str(value)[:80]!r}, which is not a value that this library writes: {error}."
        ) from error


def _read(value: Settings) -> Plain:
    kind, content = value[TAG], value["v"]
    if kind == "float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "tuple":
        return tuple(rich(v) for v in content)
    if kind == "map":
        return {rich(k): rich(v) for k, v in content}
    if kind == "array" and value["dtype"] in _DTYPES:
        return np.array([rich(v) for v in content], dtype=value["dtype"]).reshape(value["shape"])
    if kind == "timestamp":
        return pd.Timestamp(content).as_unit(value["unit"])
    if kind == "date":
        return datetime.date.fromisoformat(content)
    if kind == "interval":
        return pd.Interval(rich(content[0]), rich(content[1]), closed=value["closed"])
    raise ValueError(f"unknown type {kind!r}")


# ---- read as what it should be -----------------------------------------------------------------------------


def checked(kind: type, values: Settings) -> Plain:
    """The dataclass of these values, once each is of the type that its field has.

    Raises
    ------
    BadSave
        names the field
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        try:
            check_type(value, hints[name], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except (KeyError, TypeCheckError) as error:
            what = (
                f"{str(value)[:60]!r}, which is not of the type {hints[name]}"
                if name in hints
                else "a field that is not known"
            )
            raise BadSave(f"the file holds {kind.__name__}.{name}: {what}.") from error
    return kind(**values)


def number(value: Plain, where: str) -> float:
    """A number of a file; `where` names its field."""
    if type(value) not in (int, float):
        raise BadSave(f"the file holds {str(value)[:60]!r} at {where}, which is not a number.")
    return float(value)
