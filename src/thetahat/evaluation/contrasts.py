"""What is compared with what: of a column, a lower and a higher version of each row.

numbers      x → x + 1 (or + k);   "sd": mean ∓ sd/2;   "iqr": first → third quartile;   "minmax";   (a, b)
categories   "reference": each level against the first;   "sequential";   "pairwise";   (a, b)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..data.columns import numeric_column
from ..errors import BadArgument, UnknownLevel
from ..types import Data, Level, Levels
from .margin_estimates import PAIRS, differences
from .margin_rows import Observed, assigned, levels_of
from .row_functions import Setting

Spec = str | Sequence[str] | Mapping[str, object] | None
OF_NUMBERS = ("sd", "iqr", "minmax")
Change = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Contrast:
    """A column's two values.

    Parameters
    ----------
    name
        the column
    label
        "+1", "b - a"
    low, high
        the rows with it at each
    both
        whether both values are the same for all rows, whatever the column is
    """

    name: str
    label: str
    low: Change
    high: Change
    both: bool = True


def named(of: Spec, known: Sequence[str]) -> dict[str, object]:
    """Column → what is compared; None: the default of its kind."""
    if of is None:
        if not known:
            raise BadArgument("no column moves the mean: there is nothing to compare.")
        return dict.fromkeys(known)
    if isinstance(of, str):
        return {of: None}
    out = dict(of) if isinstance(of, Mapping) else dict.fromkeys(of)
    if not out:
        raise BadArgument("comparisons() names no column. Accepted: a column, several, or None for all.")
    return out


def contrasts(setting: Setting, name: str, spec: object, data: Data, sign: str) -> list[Contrast]:
    """Of one column.

    Parameters
    ----------
    spec
        a step, a pair of values, or one of `OF_NUMBERS` or `PAIRS`; None: + 1 of a number (1 against 0 where it has
        no other values), "reference" of a category
    sign
        between the two values in the label

    Raises
    ------
    BadArgument
        what the column's kind does not have
    UnknownLevel
        a level that was not fitted
    """
    levels = levels_of(setting, name)
    if levels is not None:
        return _of_levels(name, levels, spec, sign)
    if spec is None or (isinstance(spec, str) and spec in OF_NUMBERS):
        frame, weight = Observed(setting, data).whole()
        x = numeric_column(frame, name)
        if spec is None and set(np.unique(x)) == {0.0, 1.0}:
            return [_fixed(name, 0.0, 1.0, f"1 {sign} 0")]
        if spec is not None:
            return [_of_spread(name, str(spec), x, weight)]
        spec = 1
    if isinstance(spec, (int, float)) and not isinstance(spec, bool):
        step = float(spec)
        if not math.isfinite(step) or step == 0:
            raise BadArgument(f"comparisons({{{name!r}: {spec!r}}}): a step is a finite number other than 0.")
        return [_moved(name, 0.0, step, f"{step:+g}")]
    if isinstance(spec, (tuple, list)) and len(spec) == 2:
        a, b = (_number(name, v) for v in spec)
        return [_fixed(name, a, b, f"{b:g} {sign} {a:g}")]
    raise BadArgument(
        f"comparisons({{{name!r}: {spec!r}}}): the column is a number. Accepted: a step such as 10, two values (a, b), "
        f"{', '.join(map(repr, OF_NUMBERS))}. Of levels: C({name}) in the formula, or text."
    )


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise BadArgument(
            f"comparisons: column {name!r} is a number, and {value!r} is not one that is finite."
        )
    return float(value)


def _of_spread(name: str, spec: str, x: np.ndarray, w: np.ndarray) -> Contrast:
    if spec == "minmax":
        return _fixed(name, float(x.min()), float(x.max()), "max - min")
    if spec == "sd":
        mean = (w * x).sum() / w.sum()
        sd = math.sqrt((w * (x - mean) ** 2).sum() / (w.sum() - 1))
        return _fixed(name, mean - sd / 2, mean + sd / 2, "sd")
    whole = bool((w == np.round(w)).all())
    repeated = np.repeat(x, w.astype(np.int64)) if whole else x
    low, high = np.quantile(repeated, [0.25, 0.75])
    return _fixed(name, float(low), float(high), "Q3 - Q1")


def _of_levels(name: str, levels: Levels, spec: object, sign: str) -> list[Contrast]:
    spec = "reference" if spec is None else spec
    if isinstance(spec, str) and spec in PAIRS:
        if len(levels) < 2:
            raise BadArgument(
                f"the column {name!r} has one level, {levels[0]!r}: there is nothing to compare."
            )
        _, first, second = differences(len(levels), spec)
        pairs = [(levels[j], levels[i]) for i, j in zip(first, second, strict=True)]
        if spec == "pairwise":  # later less earlier
            pairs = [(high, low) for low, high in pairs]
    elif isinstance(spec, (tuple, list)) and len(spec) == 2:
        unknown = next((v for v in spec if v not in levels), None)
        if unknown is not None:
            raise UnknownLevel(
                f"comparisons: column {name!r} has no level {unknown!r} among the rows that were fitted. Accepted: "
                f"{', '.join(map(repr, levels[:8]))}{' …' if len(levels) > 8 else ''}."
            )
        pairs = [(spec[0], spec[1])]
    else:
        raise BadArgument(
            f"comparisons({{{name!r}: {spec!r}}}): the column is a category. Accepted: two levels (a, b), "
            f"{', '.join(map(repr, PAIRS))}."
        )
    return [
        Contrast(name, f"{high} {sign} {low}", _level(name, low, levels), _level(name, high, levels))
        for low, high in pairs
    ]


def _level(name: str, value: Level, levels: Levels) -> Change:
    return lambda frame: assigned(frame, name, value, levels)


def _fixed(name: str, low: float, high: float, label: str) -> Contrast:
    return Contrast(
        name,
        label,
        lambda frame: assigned(frame, name, low, None),
        lambda frame: assigned(frame, name, high, None),
    )


def _moved(name: str, low: float, high: float, label: str) -> Contrast:
    def by(step: float) -> Change:
        return lambda frame: frame.assign(**{name: numeric_column(frame, name) + step})

    return Contrast(name, label, by(low), by(high), both=False)
