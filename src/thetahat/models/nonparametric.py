"""Times in groups, as a nonparametric fit reads them: a curve for each combination of the categories on the
right-hand side of the formula.

    Surv(time, event) ~ x             a group for each level of x
    Surv(time, event) ~ x + z         a group for each combination of levels that the rows hold; x:z and x*z are the same
    Surv(time, event) ~ 1             one group
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..data.checks import Place
from ..data.columns import is_categorical, numeric_column
from ..data.expressions import written
from ..data.formula import column_of, read
from ..data.frame import Frame
from ..data.selection import Selection
from ..data.source import ALL_ZERO, check_count
from ..data.surv import BETWEEN, FORMS, LEFT, Surv, is_surv, read_surv
from ..errors import BadArgument, BadFormula, BadWeights, EmptyData, OutOfSupport
from ..types import Data, Level, Levels
from .formulas import _sides

ALL = "all"  # the name of the one group of a formula without categories


@dataclass(frozen=True)
class Times:
    """What was seen of each row's time, and the row's group.

    Parameters
    ----------
    formula, response
        as they were written
    columns
        the categorical columns whose combinations the groups are
    groups
        the name of each: "x=a", "x=a, z=b", or "all"
    group
        of each row, (n,), 0 … G − 1
    entry
        since when the row was watched, (n,); −∞: from the beginning
    time
        when the event was, or until when the row was watched, (n,); for event 3 the lower bound
    event
        (n,): 0 right-censored, 1 exact, 2 before `time`, 3 between `time` and `upper`; where there are causes
        k ≥ 1 is the k-th
    upper
        (n,), NaN but for event 3
    weight
        how often each row was observed, (n,)
    causes
        of competing risks, their levels; empty: there is one event
    rows
        of the data: those that were used
    dropped
        how many were left out because a value is missing
    """

    formula: str
    response: str
    columns: tuple[str, ...]
    groups: tuple[str, ...]
    group: np.ndarray
    entry: np.ndarray
    time: np.ndarray
    event: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    causes: Levels
    rows: Selection
    dropped: int
    weights: str | None = None

    @property
    def fractional(self) -> int:
        """Rows whose frequency weight is not a whole number."""
        return int((self.weight != np.round(self.weight)).sum())

    @property
    def in_intervals(self) -> bool:
        """Whether some rows are known only to lie between two times, or below one."""
        return not self.causes and bool(np.isin(self.event, (LEFT, BETWEEN)).any())

    def of(self, group: int) -> Times:
        """The rows of one group."""
        mine = self.group == group
        cut = {name: getattr(self, name)[mine] for name in ("group", "entry", "time", "event", "upper")}
        return replace(self, **cut, weight=self.weight[mine])

    def levels_of(self, columns: Sequence[str]) -> np.ndarray:
        """Which combination of the levels of these columns each row has, (n,), 0 … (strata).

        Raises
        ------
        UnknownColumn
            a column that the data lack
        BadArgument
            a column is missing in a row that was used
        """
        whole = self.rows.whole
        whole.require(columns, where="strata=")
        block = whole.read(list(columns))[list(columns)]
        block = block.iloc[np.flatnonzero(self.kept)]
        for name in columns:
            lost = block[name].isna().to_numpy()
            if lost.any():
                row = int(block.index[np.flatnonzero(lost)[0]])
                raise BadArgument(
                    f"strata={name!r}: the column is missing in row {row} ({int(lost.sum())} in all). Leave "
                    "those rows out of the fit, or give them a level of their own."
                )
        return np.asarray(block.groupby(list(columns), observed=True, sort=True).ngroup().to_numpy())

    @property
    def kept(self) -> np.ndarray:
        """Which rows of the data were used."""
        kept, _ = self.rows.used(self.rows.whole.read(self.rows.required))
        return np.ones(self.rows.size, dtype=bool) if kept is None else kept


def read_times(
    formula: str,
    data: Data,
    *,
    causes: bool = False,
    weights: str | None = None,
    missing: str = "drop",
    trusted: bool = False,
) -> Times:
    """Read a formula whose response is Surv(…) and whose right-hand side names groups.

    Parameters
    ----------
    causes
        whether the event's column holds causes: 0 (or "censored") where none was seen, any other level is one
    weights
        a column of frequency weights; a row of weight 0 is left out
    missing, trusted
        as of `th.fit`

    Raises
    ------
    BadFormula
        a response that is not Surv(…), a numeric column on the right, an offset
    OutOfSupport
        a time below 0, an entry that is not before its time, an event that is not a code
    """
    left, right = _sides(formula)
    if not is_surv(left):
        raise BadFormula(
            f"the response {written(left)!r} is not a time with what was seen of it. Accepted: {FORMS}."
        )
    frame = Frame(data)
    surv = read_surv(left, frame, trusted=trusted, causes=causes)
    columns = _categories(right, frame)
    always = {*columns, *([weights] if weights else [])}
    rows = Selection(frame, sorted(always), weights=weights, missing=missing, sometimes=[surv])
    block = Frame.read(rows, rows.required)
    kept, dropped = rows.used(block)
    complete = block if kept is None else block.loc[kept]
    if not len(complete):
        if dropped < frame.size:
            raise BadWeights(ALL_ZERO)
        raise EmptyData(
            f"all {dropped} rows of {frame.name} have a missing value in {', '.join(rows.required)}."
        )
    place = Place(0, kept)
    seen = {name: tensor.numpy() for name, tensor in surv.tensors(complete, place).items()}
    n = len(complete)
    time, entry = seen["y"], seen.get("entry", np.full(n, -np.inf))
    _check_times(time, entry, surv, place)
    count = None if weights is None else check_count(numeric_column(complete, weights).copy(), place.row)
    groups, group = _groups(complete, columns)
    return Times(
        formula=written(formula),
        response=surv.expression,
        columns=columns,
        groups=groups,
        group=group,
        entry=entry,
        time=time,
        event=seen["event"],
        upper=seen.get("upper", np.full(n, np.nan)),
        weight=np.ones(n) if count is None else count.numpy(),
        causes=() if surv.causes is None else surv.causes,
        rows=rows,
        dropped=dropped,
        weights=weights,
    )


def _categories(right: str, frame: Frame) -> tuple[str, ...]:
    """The categorical columns of a right-hand side, in their order."""
    predictors = read(right, frame)
    if predictors.offsets:
        raise BadFormula(
            f"a nonparametric curve takes no offset: {written(right)!r}. Name the columns whose categories are the "
            "groups."
        )
    found: dict[str, None] = {}
    for term in predictors.terms:
        for factor in term.factors:
            name, explicit = column_of(factor)
            if name is None:
                raise BadFormula(
                    f"{written(str(factor.expr))!r} is not a column. A curve is estimated for each category: put "
                    "the categories into a column first, and name that."
                )
            if not explicit and not _has_levels(frame, name):
                raise BadFormula(
                    f"{name!r} is a numeric column, and a curve is estimated for each category. If its values are "
                    f"categories write C({name}); if it is a quantity, cut it into classes first (pandas.cut), or "
                    "fit a regression (family='weibull')."
                )
            found[name] = None
    return tuple(found)


def _has_levels(frame: Frame, name: str) -> bool:
    column = next(iter(frame.blocks([name])))[name]
    return pd.api.types.is_bool_dtype(column.dtype) or is_categorical(column, name)


def _groups(block: pd.DataFrame, columns: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The name of each combination of levels that the rows hold, and which each row has."""
    if not columns:
        return (ALL,), np.zeros(len(block), dtype=np.int64)
    by = block.groupby(list(columns), observed=True, sort=True)
    code = np.asarray(by.ngroup().to_numpy(), dtype=np.int64)
    first = np.unique(code, return_index=True)[1]
    cells = block[list(columns)].iloc[first]
    names = tuple(
        ", ".join(f"{c}={_shown(v)}" for c, v in zip(columns, row, strict=True))
        for row in cells.itertuples(index=False, name=None)
    )
    return names, code


def _shown(level: Level) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)


def _check_times(time: np.ndarray, entry: np.ndarray, surv: Surv, place: Place) -> None:
    for values, what in ((time, "time"), (np.where(entry == -np.inf, 0.0, entry), "entry")):
        bad = values < 0
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise OutOfSupport(
                f"row {place.row(at)} of {surv.expression}: the {what} is {values[at]:g} "
                f"({int(bad.sum())} such rows). Times are counted from 0."
            )
