"""Surv(…) on the left of a formula: what was seen of a time, in the conventions of R's package survival.

    Surv(time, event)                            event 1 (or True): it happened at time; 0: not by then. Also coded 1 and 2, as R takes it
    Surv(start, stop, event)                     seen from start on only (delayed entry, left truncation)
    Surv(time, event, type="left")               event 0: it had happened before time (a limit of detection)
    Surv(lower, upper, type="interval2")         lower < true time ≤ upper; equal: exact; NaN or ±inf: no bound on that side
    Surv(time, time2, event, type="interval")    event 0 right-censored, 1 exact, 2 left-censored, 3 between time and time2

An argument is a column or an expression of columns, `status == 2`. Source: Therneau (2024), A package for
survival analysis in R, ?Surv.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import BadFormula, OutOfSupport, WrongType
from ..types import Level, Levels, Plain
from .batch import Batch
from .checks import ALL, Place, finite
from .columns import is_categorical
from .expressions import column, written
from .frame import Frame
from .response import TRANSFORMED, Response, read_expression, read_left

ROLES = {
    "right": ("time", "event"),
    "left": ("time", "event"),
    "counting": ("start", "stop", "event"),
    "interval": ("time", "time2", "event"),
    "interval2": ("lower", "upper"),
}
ALIASES = {  # the names that R has for them
    "counting": {"time": "start", "time2": "stop"},
    "interval2": {"time": "lower", "time2": "upper"},
}
CALL = re.compile(r"^Surv\s*\(", re.DOTALL)
FORMS = 'Surv(time, event), Surv(start, stop, event), Surv(lower, upper, type="interval2"), Surv(time, event, type="left")'
RIGHT, EXACT, LEFT, BETWEEN = 0.0, 1.0, 2.0, 3.0  # R's codes, and those of families.Censored
CENSORED = ("censored", "censor", "0")  # the levels that say of a text column of causes: none was seen


@dataclass(frozen=True)
class Surv(Response):
    """What was seen of a time: the columns or expressions of Surv's arguments, and how they are read.

    kind : one of `ROLES`
    parts : the arguments, in the order of ROLES[kind]
    first : what the event's column has where it did not happen: 0, or 1 where it is coded 1 and 2
    causes : of competing risks, the levels of the event's column that are causes, None: there is one event
    """

    kind: str = "right"
    parts: tuple[Response, ...] = ()
    first: float = 0.0
    causes: Levels | None = None

    @property
    def time(self) -> Response:
        """The argument that is a time and that y is, or is bounded by."""
        return self.parts[1] if self.kind == "counting" else self.parts[0]

    @property
    def times(self) -> list[Response]:
        return [p for role, p in zip(ROLES[self.kind], self.parts, strict=True) if role != "event"]

    @property
    def units(self) -> str:
        return self.time.expression

    @property
    def observed(self) -> str:
        return self.time.observed

    @property
    def transform(self) -> str | None:
        """The one-to-one function that every time of it is."""
        found = {part.transform for part in self.times}
        return found.pop() if len(found) == 1 else None

    def missing(self, block: pd.DataFrame, first: int = 0) -> Iterator[tuple[str, np.ndarray]]:
        """(what, the rows that say nothing): a bound that is not needed may be missing."""
        a, b, event = self._columns(block)
        if self.kind == "interval2":
            lost = ~np.isfinite(a) & ~np.isfinite(b) & ~((a == np.inf) | (b == -np.inf))
        else:
            lost = np.isnan(a) | np.isnan(event)
        if self.kind in ("counting", "interval"):
            lost |= np.isnan(b) & ((self.kind == "counting") | (event == BETWEEN))
        if lost.any():
            yield self.expression, lost

    def tensors(self, frame: pd.DataFrame, place: Place = ALL) -> dict[str, Tensor]:
        """y, event and, where the kind has them, upper and entry, (n,) each, as `families.Censored` reads
        them."""
        a, b, event = self._columns(frame)
        self._check_event(event, place)
        if self.kind == "interval2":
            a, b = np.where(np.isnan(a), -np.inf, a), np.where(np.isnan(b), np.inf, b)
            self._check_order(a > b, a, b, place)
            event = np.where(
                a == b, EXACT, np.where(a == -np.inf, LEFT, np.where(b == np.inf, RIGHT, BETWEEN))
            )
            found = {
                "y": np.where(event == LEFT, b, a),
                "event": event,
                "upper": np.where(event == BETWEEN, b, np.nan),
            }
        elif self.kind == "counting":
            self._check_order(a >= b, a, b, place)
            found = {"y": b, "event": event, "entry": a}
        else:
            found = {"y": a, "event": np.where(event == RIGHT, LEFT, event) if self.kind == "left" else event}
            found |= {"upper": np.where(event == BETWEEN, b, np.nan)} if self.kind == "interval" else {}
        finite(found["y"], self.expression, place)
        return {name: torch.from_numpy(np.array(values)) for name, values in found.items()}

    def scored(self, frame: pd.DataFrame, batch: Batch) -> dict[str, Tensor]:
        own = {name: batch[name] for name in ("y", "event", "upper", "entry") if name in batch}
        if self.transform is not None:
            plain = tuple(Response(p.required[0], p.required) if p in self.times else p for p in self.parts)
            own = replace(self, parts=plain).tensors(frame)
        return {name: tensor.nan_to_num(0.0) for name, tensor in own.items()}

    def _columns(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and second time (NaN: the kind has none) and the event, 0 and 1 (of "interval" 0 … 3)."""
        nothing = np.full(len(frame), np.nan)
        own = {
            role: _values(part, frame) if role != "event" or self.causes is None else self._cause(frame)
            for role, part in zip(ROLES[self.kind], self.parts, strict=True)
        }
        event = own.pop("event", nothing) - self.first
        first, second = [*own.values(), nothing][:2]
        return first, second, event

    def _cause(self, frame: pd.DataFrame) -> np.ndarray:
        """k for the k-th cause, 0 where none was seen, NaN where the column is missing."""
        values = _levels_seen(self.parts[-1], frame)
        assert self.causes is not None  # by its caller
        code = 1.0 + pd.Index(list(self.causes)).get_indexer(pd.Index(values))
        return np.where(pd.isna(values), np.nan, code)

    def _check_event(self, event: np.ndarray, place: Place) -> None:
        if self.kind == "interval2" or self.causes is not None:
            return
        bad = np.logical_and.reduce([event != code for code in _codes(self.kind)])
        if bad.any():
            raise _bad_event(self, place.row(int(np.flatnonzero(bad)[0])), float(event[bad][0] + self.first))

    def _check_order(self, bad: np.ndarray, a: np.ndarray, b: np.ndarray, place: Place) -> None:
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            names = [part.expression for part in self.parts[:2]]
            wanted = "before" if self.kind == "counting" else "at most"
            raise OutOfSupport(
                f"row {place.row(at)} of {self.expression}: {names[0]} = {a[at]:g} is not {wanted} "
                f"{names[1]} = {b[at]:g} "
                f"({int(bad.sum())} such rows)."
            )


def is_surv(expression: str) -> bool:
    return CALL.match(expression.strip()) is not None


def read_surv(expression: str, frame: Frame, *, trusted: bool = False, causes: bool = False) -> Surv:
    """Read Surv(…) against the data.

    Parameters
    ----------
    expression
        the left-hand side, quoted columns under their aliases
    trusted
        as of `formula.read`
    causes
        whether the event's column holds competing causes

    Raises
    ------
    BadFormula
        arguments that Surv does not take
    WrongType, OutOfSupport
        an event that is text, or has other values than its codes
    """
    kind, texts = _arguments(expression.strip())
    parts = tuple(_part(text, frame, trusted) for text in texts)
    expression = written(expression).strip()
    required = tuple(sorted({name for part in parts for name in part.required}))
    found = Surv(expression, required, kind=kind, parts=parts)
    if causes:
        return replace(found, causes=_causes(found, frame))
    if kind == "interval2":
        return found
    event = parts[-1]
    for block in frame.blocks(list(event.required)):
        if event.spec is None and is_categorical(block[event.required[0]], event.required[0]):
            level = block[event.required[0]].dropna().iloc[-1]
            raise WrongType(
                f"the event of {expression} is the column {event.required[0]!r}, which is text ({level!r} "
                "…). Say which level means that "
                f"it happened: {event.expression} == {level!r}."
            )
    values = {
        float(v)
        for block in frame.blocks(list(event.required))
        for v in np.unique(_values(event, block))
        if v == v
    }
    if kind != "interval" and 2.0 in values and values <= {1.0, 2.0}:
        return replace(found, first=1.0)
    for value in sorted(values - set(_codes(kind))):
        row, at = 0, -1
        for block in frame.blocks(list(event.required)):
            here = np.flatnonzero(_values(event, block) == value)
            if len(here):
                at = row + int(here[0])
                break
            row += len(block)
        raise _bad_event(found, at, value)
    return found


def _causes(surv: Surv, frame: Frame) -> Levels:
    """The levels of the event's column that are causes, in order."""
    if surv.kind not in ("right", "counting"):
        raise BadFormula(
            f"the response {surv.expression!r}: competing causes are of times that were seen or censored to the "
            "right. Accepted: Surv(time, cause), Surv(start, stop, cause)."
        )
    event = surv.parts[-1]
    found: dict[Level, None] = {}
    declared: dict[Level, None] = {}
    for block in frame.blocks(list(event.required)):
        values = _levels_seen(event, block)
        found.update(dict.fromkeys(v for v in pd.unique(values) if not pd.isna(v)))
        dtype = block[event.required[0]].dtype
        if isinstance(dtype, pd.CategoricalDtype):
            declared.update(dict.fromkeys(dtype.categories))
    text = [v for v in found if isinstance(v, str)]
    if not text:
        for value in sorted(found):
            if value < 0 or value != int(value):
                raise OutOfSupport(
                    f"the event of {surv.expression} is {value:g} in some row. Accepted: 0 (none was seen) and 1, 2, "
                    "… (the causes), or text."
                )
        causes: Levels = tuple(int(v) for v in sorted(found) if v != 0)
    else:
        if not any(v in CENSORED for v in (*found, *declared)):
            some = ", ".join(map(repr, sorted(text)[:6])) + (" …" if len(text) > 6 else "")
            raise OutOfSupport(
                f"the event of {surv.expression} has the levels {some}, and none of them says that no event was "
                "seen. Call that level 'censored', or code the events 0 (none was seen), 1, 2, …"
            )
        order = [v for v in declared if v in found] if declared else sorted(text)
        causes = tuple(v for v in order if v not in CENSORED)
    if not causes:
        raise OutOfSupport(f"no row of {surv.expression} has an event: there is no cause to estimate.")
    return causes


def _levels_seen(event: Response, block: pd.DataFrame) -> np.ndarray:
    """The levels of the event's column of each row: numbers as floats, text as it is; missing ones stay so."""
    name = event.required[0]
    if event.spec is None and is_categorical(block[name], name):
        return block[name].astype(object).to_numpy()
    return _values(event, block)


def _codes(kind: str) -> tuple[float, ...]:
    return (RIGHT, EXACT, LEFT, BETWEEN) if kind == "interval" else (RIGHT, EXACT)


def _bad_event(surv: Surv, row: int, value: float) -> OutOfSupport:
    accepted = {
        "interval": "0 (right-censored), 1 (exact), 2 (left-censored) and 3 (between the two times)",
        "left": "1 (or True: it was measured) and 0 (it is below the time)",
    }.get(surv.kind, "1 (or True: it happened) and 0 (not by then); or 2 and 1 throughout, as R takes them")
    name = surv.parts[-1].expression
    return OutOfSupport(
        f"the event of {surv.expression} is {value:g} in row {row}. Accepted: {accepted}. For one of several "
        "codes write "
        f"{name} == {value:g}."
    )


def _values(part: Response, frame: pd.DataFrame) -> np.ndarray:
    """An argument as float64, NaN where a column that it reads is missing: NaN == 2 would be False, and a row
    censored."""
    values = part.values(frame)
    if part.spec is None:
        return values
    lost = np.logical_or.reduce([frame[name].isna().to_numpy() for name in part.required])
    return np.where(lost, np.nan, values)


def _part(text: str, frame: Frame, trusted: bool) -> Response:
    if column(text) in frame.columns:
        return Response(column(text), (column(text),))
    if text.isidentifier():
        frame.require([column(text)])
    left = read_left(text if TRANSFORMED.match(text) else f"I({text})", frame, trusted=trusted)
    if not left.required:
        raise BadFormula(f"{written(text)} in Surv(…) names no column.")
    return replace(read_expression(left, frame), expression=written(text))


def _arguments(expression: str) -> tuple[str, list[str]]:
    """The kind, and the text of its arguments in the order of ROLES[kind]."""
    shown = written(expression)
    try:
        call = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadFormula(f"the response {shown!r} cannot be read. Accepted: {FORMS}.") from error
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Surv"):
        raise BadFormula(f"the response {shown!r} is not Surv(…) alone. Accepted: {FORMS}.")

    named = {str(k.arg): k.value for k in call.keywords}
    kind = _kind(named.pop("type", None), len(call.args), set(named), shown)
    named = {ALIASES.get(kind, {}).get(name, name): node for name, node in named.items()}
    free = [role for role in ROLES[kind] if role not in named]
    named |= dict(zip(free, call.args, strict=False))
    if set(named) != set(ROLES[kind]) or len(call.args) != len(free):
        hint = (
            " Without an event every time was observed: leave Surv out."
            if len(call.args) + len(call.keywords) == 1
            else ""
        )
        raise BadFormula(
            f"the response {shown!r} has other arguments than {', '.join(ROLES[kind])}. Accepted: "
            f"{FORMS}.{hint}"
        )
    return kind, [(ast.get_source_segment(expression, named[role]) or "").strip() for role in ROLES[kind]]


def _kind(given: Plain, positional: int, named: set[str], shown: str) -> str:
    if given is None:
        return "counting" if named & {"time2", "start", "stop"} or positional + len(named) == 3 else "right"
    kind = given.value if isinstance(given, ast.Constant) else None
    if kind not in ROLES:
        raise BadFormula(
            f"the response {shown!r} has an unknown type. Accepted: {', '.join(map(repr, ROLES))}."
        )
    return str(kind)
