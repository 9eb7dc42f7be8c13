"""Functions of formulas that R has and formulaic has not: ns(x, df), cut(x, breaks), factor(x).

They remember what they learnt of the rows that were fitted (knots, edges), and take new rows by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.transforms.contrasts import C
from formulaic.utils.stateful_transforms import stateful_transform

from ..errors import BadArgument, OutOfSupport, UnknownLevel

ORDER = 4  # of a cubic spline: its degree and one


@stateful_transform  # type: ignore[untyped-decorator]
def ns(
    x: Any,
    df: int | None = None,
    knots: Sequence[float] | None = None,
    include_intercept: bool = False,
    lower_bound: float | None = None,
    upper_bound: float | None = None,
    _state: dict[str, Any] | None = None,
) -> FactorValues[dict[int, np.ndarray]]:
    """A natural cubic spline: cubic between its knots, linear beyond the outer ones; R's splines::ns, column by column.

        B(x)·Q₂,   Q = [Q₁ Q₂] of the QR decomposition of B″(lower bound), B″(upper bound), which Q₂ᵀ leaves 0

    Parameters
    ----------
    df
        columns: knots at the quantiles of x, df − 1 of them (less one with an intercept). None: 1, a line
    knots
        inner knots, in the place of df
    lower_bound, upper_bound
        the outer knots; None: the range of x

    Source: Hastie (1992), Generalized additive models, in Statistical Models in S; de Boor (1978), A Practical Guide to
    Splines.
    """
    assert _state is not None
    x = np.asarray(x, dtype=np.float64)
    if "knots" not in _state:
        low, high = _bounds(x, lower_bound, upper_bound)
        inner = _inner_knots(x[(x >= low) & (x <= high)], df, knots, include_intercept)
        if any(not low < k < high for k in inner):
            raise BadArgument(f"ns: a knot is outside its bounds {low:g} and {high:g}: {inner}.")
        _state.update(knots=inner, lower=low, upper=high)
    low, high = _state["lower"], _state["upper"]
    t = np.array([low] * ORDER + list(_state["knots"]) + [high] * ORDER)
    columns = slice(None) if include_intercept else slice(1, None)
    from scipy.interpolate import BSpline  # takes long to load: only where it is needed

    basis = BSpline(t, np.eye(len(t) - ORDER), ORDER - 1)
    curvature = basis(np.array([low, high]), 2)[:, columns]
    made = basis(np.clip(x, low, high))[:, columns]
    for end, outside in ((low, x < low), (high, x > high)):  # the tangent
        made[outside] += (x[outside] - end)[:, None] * basis(np.array([end]), 1)[:, columns]
    free = np.linalg.qr(curvature.T, mode="complete")[0][:, 2:]
    return FactorValues(
        {j + 1: column for j, column in enumerate((made @ free).T)},
        kind="numerical",
        spans_intercept=False,
        format="{name}[{field}]",
        encoded=False,
    )


def _bounds(x: np.ndarray, low: float | None, high: float | None) -> tuple[float, float]:
    if not len(x):
        raise BadArgument("ns: there are no rows.")
    low, high = float(x.min()) if low is None else float(low), float(x.max()) if high is None else float(high)
    if not low < high:
        raise BadArgument(
            f"ns: its bounds are {low:g} and {high:g}; the column must take two different values."
        )
    return low, high


def _inner_knots(
    x: np.ndarray, df: int | None, knots: Sequence[float] | None, intercept: bool
) -> list[float]:
    if knots is not None:
        if df is not None:
            raise BadArgument("ns: df and knots are both given. Accepted: one of them.")
        return sorted(float(k) for k in knots)
    least = 1 + intercept
    many = least if df is None else df
    if isinstance(many, bool) or many != int(many) or many < least:
        raise BadArgument(f"ns: df={df!r}. Accepted: a whole number of at least {least}.")
    at = np.linspace(0, 1, int(many) - least + 2)[1:-1]
    return [float(k) for k in np.quantile(x, at)]


@stateful_transform  # type: ignore[untyped-decorator]
def cut(
    x: Any,
    breaks: int | Sequence[float],
    right: bool = True,
    include_lowest: bool = False,
    _state: dict[str, Any] | None = None,
) -> FactorValues[pd.Series]:
    """Intervals of a number as a category, as R's cut: (a,b], named by their ends.

    Parameters
    ----------
    breaks
        the ends, rising; or how many intervals of equal width
    right
        whether intervals are closed on the right
    include_lowest
        whether the first (the last, with right=False) takes its outer end

    Raises
    ------
    OutOfSupport
        a row outside the breaks, which has no interval
    UnknownLevel
        a new row in an interval in which no row was fitted
    """
    assert _state is not None
    index = x.index if isinstance(x, pd.Series) else None
    x = np.asarray(x, dtype=np.float64)
    if "edges" not in _state:
        _state["edges"] = _edges(x, breaks)
    edges = np.array(_state["edges"])
    code = np.searchsorted(edges, x, side="left" if right else "right") - 1
    if include_lowest:
        code[x == (edges[0] if right else edges[-1])] = 0 if right else len(edges) - 2
    outside = (code < 0) | (code > len(edges) - 2)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        lowest = " include_lowest=True takes the outermost end." if x[row] in (edges[0], edges[-1]) else ""
        raise OutOfSupport(
            f"cut: {x[row]:g} is in none of the intervals of {', '.join(f'{e:g}' for e in edges)} "
            f"({int(outside.sum())} such values).{lowest} Give breaks that hold every row."
        )
    names = np.array(_interval_names(edges, right, include_lowest))
    seen = _state.setdefault("seen", sorted({int(c) for c in code}))
    new = np.flatnonzero(~np.isin(code, seen))
    if len(new):
        raise UnknownLevel(
            f"cut: {x[new[0]]:g} is in {names[code[new[0]]]}, in which the fit has seen no row ({len(new)} such values)."
        )
    return C(pd.Series(pd.Categorical(names[code], categories=list(names[seen])), index=index))


def _edges(x: np.ndarray, breaks: int | Sequence[float]) -> list[float]:
    """The ends of the intervals; of a number of them the range in equal parts, widened by a thousandth so that no row lies on
    its end."""
    if np.ndim(breaks) == 0:
        many = int(breaks)  # type: ignore[arg-type]
        if many != breaks or many < 2:
            raise BadArgument(
                f"cut: breaks={breaks!r}. Accepted: a whole number of at least 2, or a list of rising numbers."
            )
        low, high = float(x.min()), float(x.max())
        if not low < high:
            raise BadArgument(f"cut: every value is {low:g}, which has no intervals of equal width.")
        edges = np.linspace(low, high, many + 1)
        edges[0], edges[-1] = low - (high - low) / 1000, high + (high - low) / 1000
        return [float(e) for e in edges]
    edges = np.asarray(breaks, dtype=np.float64)
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise BadArgument(f"cut: breaks={list(breaks)!r} are not two or more rising numbers.")  # type: ignore[arg-type]
    return [float(e) for e in edges]


def _interval_names(edges: np.ndarray, right: bool, include_lowest: bool) -> list[str]:
    """To as many digits as tell the ends apart, at least three."""
    digits = next((d for d in range(3, 17) if len({f"{e:.{d}g}" for e in edges}) == len(edges)), 17)
    ends = [f"{e:.{digits}g}" for e in edges]
    left, close = ("(", "]") if right else ("[", ")")
    names = [f"{left}{a},{b}{close}" for a, b in pairwise(ends)]
    if include_lowest and right:
        names[0] = "[" + names[0][1:]
    elif include_lowest:
        names[-1] = names[-1][:-1] + "]"
    return names


def factor(x: Any, *arguments: Any, **settings: Any) -> FactorValues[pd.Series]:
    """C(x) under R's name."""
    return C(x, *arguments, **settings)
