"""The rows at which effects are asked: those that were fitted, typical ones, a grid, or each row with other values.

observed          every row that was fitted (or `data`), with its frequency weight
"mean", "median"  one row: numbers at their mean or median, categories at the most frequent level
"balanced"        every combination of the levels of all categories (and of numbers that have two values), other
                  numbers at their means: emmeans' reference grid
{"x": [1, 2]}     every combination of these values, other columns typical
counterfactual    every row once for each combination of these values
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..data.columns import is_categorical, numeric_column
from ..errors import BadArgument, UnknownColumn, UnknownLevel
from ..protocols import encoder_of
from ..types import Data, Levels, Named
from .margin_rows import At, By, Observed, Rows, assigned, levels_of, variables
from .row_functions import LABEL, Setting

LARGEST = 2**20  # rows of a grid


def typical(setting: Setting, frame: pd.DataFrame, weight: np.ndarray, how: str) -> pd.DataFrame:
    """One row: numbers at their mean (or median), categories at the most frequent level."""
    out = {}
    for name in frame.columns:
        column = frame[name]
        if name == LABEL:
            continue
        if is_categorical(column, name) or column.dtype == bool or levels_of_known(setting, name):
            counts = pd.Series(weight).groupby(column.to_numpy(), sort=True).sum()
            out[name] = pd.Series([counts.idxmax()]).astype(column.dtype)
        else:
            x = numeric_column(frame, name)
            out[name] = pd.Series([_mean(x, weight) if how == "mean" else _median(x, weight)])
    return pd.DataFrame(out)


def levels_of_known(setting: Setting, name: str) -> bool:
    encoder = encoder_of(setting.reader)
    return encoder is not None and name in encoder.predictors and levels_of(setting, name) is not None


def _mean(x: np.ndarray, w: np.ndarray) -> float:
    return float((w * x).sum() / w.sum())


def _median(x: np.ndarray, w: np.ndarray) -> float:
    """Of the rows, each so often as it counts."""
    order = np.argsort(x, kind="stable")
    cumulated, half = np.cumsum(w[order]), w.sum() / 2
    low = x[order][np.searchsorted(cumulated, half * (1 - 1e-12))]
    high = x[order][min(np.searchsorted(cumulated, half * (1 + 1e-12)), len(x) - 1)]
    return float((low + high) / 2)


def chosen(setting: Setting, at: Named, frame: pd.DataFrame) -> dict[str, list[object]]:
    """The values of a grid, checked."""
    known = [n for n in frame.columns if n != LABEL]
    out: dict[str, list[object]] = {}
    for name, given in at.items():
        if name not in known:
            raise UnknownColumn.named(name, known, where="at")
        plain = isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, np.ndarray, pd.Series))
        values = [given] if plain else list(given)
        if not values:
            raise BadArgument(f"at={{{name!r}: []}} names no value.")
        levels = levels_of(setting, name) if levels_of_known(setting, name) else None
        if levels is not None:
            bad = next((v for v in values if v not in levels), None)
            if bad is not None:
                raise UnknownLevel(
                    f"at: column {name!r} has no level {bad!r} among the rows that were fitted. Accepted: "
                    f"{', '.join(map(repr, levels[:8]))}{' …' if len(levels) > 8 else ''}."
                )
        elif not is_categorical(frame[name], name):
            encoder = encoder_of(setting.reader)
            origin = None if encoder is None else encoder.dates.get(name)
            values = [_number(name, v) if origin is None else _day(name, v, origin) for v in values]
        out[name] = values
    return out


def _day(name: str, value: object, origin: str) -> float:
    """A date, or a number of days, as days since the first that was fitted."""
    if isinstance(value, (int, float, np.number)):
        return _number(name, value)
    try:
        return float((pd.Timestamp(value) - pd.Timestamp(origin)) / pd.Timedelta(days=1))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise BadArgument(
            f"at: column {name!r} is of dates, and {value!r} is not one. Accepted: '2024-12-31', a date, or days since {origin}."
        ) from error


def _number(name: str, value: object) -> float:
    try:
        out = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        out = np.nan
    if not np.isfinite(out):
        raise BadArgument(f"at: column {name!r} is a number, and {value!r} is not. Accepted: finite numbers.")
    return out


def grid(setting: Setting, base: pd.DataFrame, values: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    """Every combination of the values, the first slowest; other columns as in `base`, one row."""
    size = math.prod(len(own) for own in values.values())
    if size > LARGEST:
        raise BadArgument(
            f"the grid of {', '.join(values)} has {size:,} combinations ({LARGEST:,} are accepted). Say the values of "
            "some columns, at={'x': …}, or average over the rows that were fitted."
        )
    combinations = list(itertools.product(*values.values()))
    out = base.iloc[np.zeros(len(combinations), dtype=np.int64)].reset_index(drop=True)
    for j, name in enumerate(values):
        own = np.empty(len(combinations), dtype=object)
        own[:] = [c[j] for c in combinations]
        category = is_categorical(base[name], name) or levels_of_known(setting, name)
        column = pd.Series(own)
        out[name] = column.astype(base[name].dtype) if category else column.astype(np.float64)
    return out


def balanced(
    setting: Setting, at: Mapping[str, Sequence[object]], frame: pd.DataFrame
) -> dict[str, Sequence[object]]:
    """The levels of every category that moves the mean, and the values of a number that has two, but for those that `at`
    names."""
    out: dict[str, Sequence[object]] = {}
    for name in variables(setting):
        levels = two_or_levels(setting, name, frame)
        if name in at:
            out[name] = at[name]
        elif levels is not None:
            out[name] = levels
    return {**out, **at}


def two_or_levels(setting: Setting, name: str, frame: pd.DataFrame) -> Levels | None:
    """The levels of a category, or the values of a number that has two (an indicator, as emmeans takes it)."""
    levels = levels_of(setting, name)
    if levels is not None:
        return levels
    different = np.unique(numeric_column(frame, name))
    return tuple(different.tolist()) if len(different) == 2 else None


def columns_of(by: By) -> tuple[str, ...]:
    if by is None or isinstance(by, bool):
        return ()
    return (by,) if isinstance(by, str) else tuple(by)


def rows_at(
    setting: Setting,
    at: At,
    by: By,
    data: Data,
    counterfactual: bool,
    *,
    averaged: bool,
    focal: str | None = None,
) -> tuple[Rows, str]:
    """The rows that are meant, and what they are in words.

    Parameters
    ----------
    averaged
        whether observed rows are averaged where by=None
    focal
        the category that is compared, over whose levels a balanced grid does not go
    """
    groups = columns_of(by)
    if counterfactual and not isinstance(at, Mapping):
        raise BadArgument(
            f"counterfactual=True needs the values that every row shall have; at={at!r}. Accepted: at={{'x': [1, 2]}}."
        )
    observed = Observed(setting, data, groups)
    each = by is False or (by is None and not averaged)
    if at is None:
        if by is None or isinstance(by, bool):
            return Rows(observed, None if each else (), (LABEL,)), "each row" if each else "average over rows"
        return Rows(observed, groups), f"average over rows by {', '.join(groups)}"
    frame, weight = observed.whole()
    if isinstance(at, Mapping):
        values = chosen(setting, at, frame)
        if counterfactual:
            made = [(_with(setting, frame, values, c), weight) for c in itertools.product(*values.values())]
            cells = () if by is True else (*values, *(g for g in groups if g not in values))
            words = f"every row with each value of {', '.join(values)}"
            return Rows(made, None if by is False else cells, (*values, LABEL)), words
        rows = grid(setting, typical(setting, frame, weight, "mean"), values)
        shown, words = tuple(values), f"at values of {', '.join(values)}, others typical"
    elif at in ("mean", "median"):
        rows, shown, words = typical(setting, frame, weight, at), (), f"at the {at}"
    elif at == "balanced":
        own = {name: v for name, v in balanced(setting, {}, frame).items() if name != focal}
        rows = grid(setting, typical(setting, frame, weight, "mean"), own)
        shown, words = tuple(own), "balanced grid"
    else:
        raise BadArgument(
            f"at={at!r} is not known. Accepted: None (the rows that were fitted), 'mean', 'median', 'balanced', or values, "
            "{'x': [1, 2]}."
        )
    if groups or by is True:
        missing = next((g for g in groups if g not in rows), None)
        if missing is not None:
            raise UnknownColumn.named(missing, list(map(str, rows)), where="by")
        return Rows([(rows, np.ones(len(rows)))], groups, shown), f"{words}, averaged"
    return Rows([(rows, np.ones(len(rows)))], None, shown), words


def _with(
    setting: Setting,
    frame: pd.DataFrame,
    values: Mapping[str, Sequence[object]],
    combination: Sequence[object],
) -> pd.DataFrame:
    for name, value in zip(values, combination, strict=True):
        category = is_categorical(frame[name], name) or levels_of_known(setting, name)
        frame = assigned(frame, name, value, () if category else None)
    return frame
