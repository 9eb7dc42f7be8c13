"""Smooth terms of a formula: read, built on the rows fitted, and evaluated at others.

    s(x)   s(x, k=20, bs="cr")   s(x, by=z)   s(x, by=g)   s(x, z)   s(g, bs="re")   s(x, g, bs="fs")   te(x, z)   ti(x, z)

    f(x_i) = Σ_j β_j b_j(x_i),    Σ_i f(x_i) = 0 over the rows fitted (absorbed into the basis)

The sum of the penalties splits β into what it leaves free and what it shrinks: β = N a + R b. One penalty makes
b ~ N(0, τ² I), a random effect like any other, with RᵀSR = I; several make b ~ N(0, (Σ_m S_m/τ_m²)⁻¹).

bs="fs" is a curve of each group, random as a whole: `curve_of_each`.

Source: Wood (2017), Generalized Additive Models, 2nd ed., §5.4.1 (constraints), 5.6 (tensor products), 5.8 (mixed models).
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ..errors import BadFormula, UnknownLevel
from ..types import Levels as LevelNames
from .bases import Array, Basis, Cubic, Levels, Made, build_basis
from .columns import is_categorical, numeric_column
from .expressions import column, written
from .mixed_form import curve_of_each, mixed_form, without_constant

KINDS = ("cr", "cc", "ps", "tp", "re", "fs")
ARGUMENTS = ("k", "bs", "by", "m", "knots", "base")
CURVES = ("cr", "cc", "ps", "tp")  # of which bs="fs" makes one a group
DEFAULT = {"s": "tp", "te": "cr", "ti": "cr"}
DEGREES = ("constant", "linear", "quadratic")


@dataclass(frozen=True)
class SmoothCall:
    """What a call says, before a row is read.

    factor : of bs="fs" the grouping factor, whose curves are of the basis `bs`; it is not among the variables
    shared : of bs="fs" whether an earlier term gives the groups their constant, which this one then leaves out
    """

    text: str
    kind: str
    variables: tuple[str, ...]
    bs: tuple[str, ...]
    k: tuple[int, ...]
    by: str | None = None
    m: tuple[int, ...] = ()
    knots: tuple[float, ...] | None = None
    factor: str | None = None
    shared: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that its basis reads."""
        return (*self.variables, *((self.by,) if self.by is not None else ()))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, the factor's too."""
        return (*self.required, *((self.factor,) if self.factor is not None else ()))


def read_call(text: str, columns: Collection[str]) -> SmoothCall:
    """A call of s, te or ti.

    Raises
    ------
    BadFormula
        it names no column, or an argument that is not known or not a value of its kind

    Examples
    --------
    >>> read_call("s(x, k=20, bs='cr')", ["x"]).k
    (20,)
    """
    shown = written(text)
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise BadFormula(f"the smooth term {shown!r} cannot be read: {error.msg}.") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise BadFormula(
            f"{shown!r} is not one smooth term: write s(x) + s(z), and te(x, z) for an interaction."
        )
    kind = call.func.id
    variables = tuple(_name(node, shown, columns) for node in call.args)
    if not variables:
        raise BadFormula(f"{shown!r} names no column: {kind}(x).")
    if len(set(variables)) < len(variables):
        raise BadFormula(f"{shown!r} names a column twice.")
    if kind in ("te", "ti") and len(variables) < 2:
        raise BadFormula(
            f"{shown!r}: a tensor product has at least two columns. Of one write s({variables[0]})."
        )
    given = {str(word.arg): word.value for word in call.keywords}
    bad = next((name for name in given if name not in ARGUMENTS), None)
    if bad is not None:
        near = difflib.get_close_matches(bad, ARGUMENTS, 1)
        hint = f" Nearest: {near[0]}=." if near else ""
        raise BadFormula(f"{shown!r} has no argument {bad!r}.{hint} Accepted: {', '.join(ARGUMENTS)}.")
    margins = len(variables) if kind != "s" else 1
    bs = _each(given.get("bs"), str, margins, DEFAULT[kind], "bs", shown)
    unknown = next((b for b in bs if b not in KINDS), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, KINDS, 1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        raise BadFormula(
            f"{shown!r}: bs={unknown!r} is not known.{hint} Accepted: {', '.join(map(repr, KINDS))}."
        )
    each = "fs" in bs
    if each:
        _check_each(kind, variables, given, shown)
        variables, factor = variables[:1], variables[1]
        bs = _each(given.get("base"), str, 1, DEFAULT[kind], "base", shown)
    elif "base" in given:
        raise BadFormula(f"{shown!r}: base= is the basis of bs='fs', one curve a group. Otherwise write bs=.")
    if each and bs[0] not in CURVES:
        raise BadFormula(f"{shown!r}: base={bs[0]!r}. Accepted: {', '.join(map(repr, CURVES))}.")
    if kind == "s" and len(variables) > 1 and bs[0] not in ("tp", "re"):
        raise BadFormula(
            f"{shown!r}: bs={bs[0]!r} is of one column. Accepted for several: bs='tp', or te({', '.join(variables)})."
        )
    size = 5 if kind != "s" else 10 if len(variables) == 1 else 10 * 3 ** (len(variables) - 1)
    k = _each(given.get("k"), int, margins, size, "k", shown)
    by = _name(given["by"], shown, columns) if "by" in given else None
    m = tuple(int(v) for v in _literal(given["m"], "m", shown, list)) if "m" in given else ()
    knots = (
        tuple(float(v) for v in _literal(given["knots"], "knots", shown, list)) if "knots" in given else None
    )
    if knots is not None and kind != "s":
        raise BadFormula(f"{shown!r}: knots are given to s(…) of one column.")
    return SmoothCall(shown, kind, variables, bs, k, by, m, knots, factor if each else None)


def _check_each(kind: str, variables: Sequence[str], given: Collection[str], shown: str) -> None:
    """Refuse a curve of each group that is of something else.

    Raises
    ------
    BadFormula
    """
    if kind != "s" or len(variables) != 2:
        raise BadFormula(
            f"{shown!r}: bs='fs' is a curve of one column for each group of another: s(x, g, bs='fs')."
        )
    if "by" in given:
        raise BadFormula(
            f"{shown!r}: bs='fs' takes no by=. A curve for each level of a column, each with its own bend: "
            f"s({variables[0]}, by={variables[1]})."
        )


def _name(node: ast.expr, shown: str, columns: Collection[str]) -> str:
    if not isinstance(node, ast.Name):
        raise BadFormula(
            f"{shown!r}: a smooth term takes columns. Of an expression make a column first; options have names (k=…)."
        )
    return column(node.id)


def _literal(node: ast.expr, name: str, shown: str, kind: type) -> Sequence[float]:
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise BadFormula(f"{shown!r}: {name}= is a value written out, such as {name}=[1, 2].") from error
    if isinstance(value, (int, float)):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, (int, float)) for v in value):
        raise BadFormula(f"{shown!r}: {name}= is a list of numbers; received {value!r}.")
    return list(value)


def _each(node: ast.expr | None, kind: type, margins: int, default, name: str, shown: str):  # type: ignore[no-untyped-def]
    """One value a margin."""
    if node is None:
        return (default,) * margins
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise BadFormula(f"{shown!r}: {name}= is a value written out.") from error
    values = list(value) if isinstance(value, (list, tuple)) else [value] * margins
    if not all(isinstance(v, kind) and not isinstance(v, bool) for v in values) or len(values) != margins:
        what = "whole number" if kind is int else "name"
        raise BadFormula(
            f"{shown!r}: {name}={value!r}. Accepted: a {what}"
            + (f", or a list of {margins}." if margins > 1 else ".")
        )
    return tuple(values)


@dataclass(frozen=True, eq=False)
class Smooth:
    """A basis built on the rows fitted, with its constraint absorbed.

    Parameters
    ----------
    label
        "s(x)", "te(x,z)", "s(x):ga" for a level of a factor
    margins
        one basis, or one a variable of a tensor product
    maps
        what each margin's columns are multiplied by first (the centring of ti, values at even points)
    constraint
        (K, k), what the columns are multiplied by last; None: nothing
    penalties
        (k, k) each, in the coefficients that are left
    by, level
        a column that multiplies; with a level, whether a row has it
    limits
        of each variable among the rows fitted
    made
        of s(…), the basis at the rows that it was built on, for the first time that it is asked for
    """

    label: str
    call: SmoothCall
    margins: tuple[Basis, ...]
    maps: tuple[Array | None, ...]
    constraint: Array | None
    penalties: tuple[Array, ...]
    by: str | None = None
    level: object = None
    limits: tuple[tuple[float, float], ...] = ()
    levels: tuple[LevelNames, ...] = field(default=(), repr=False)
    made: Made | None = field(default=None, repr=False)

    def __deepcopy__(self, memo: dict[int, object]) -> Smooth:
        return self

    @property
    def required(self) -> tuple[str, ...]:
        return self.call.required

    @property
    def of_what(self) -> tuple[str, ...]:
        """What each penalty measures."""
        if self.call.kind == "s":
            return ("the penalty",)
        return tuple(f"the penalty in {name}" for name in self.call.variables)

    @property
    def size(self) -> int:
        return len(self.penalties[0])

    def matrix(self, frame: pd.DataFrame) -> Array:
        """(n, k), times `by`."""
        return self._scaled(self._columns(frame, 0), frame)

    def derivative(self, frame: pd.DataFrame) -> Array:
        """(n, k): of the basis functions of one variable.

        Raises
        ------
        BadFormula
            several variables
        """
        if len(self.call.variables) > 1 or self.levels:
            raise BadFormula(f"{self.label} has no one derivative: it is not a curve of one number.")
        return self._scaled(self._columns(frame, 1), frame)

    def outside(self, frame: pd.DataFrame) -> Array:
        """(n,), whether a row lies beyond the rows fitted in some variable."""
        out = np.zeros(len(frame), dtype=bool)
        for name, (low, high) in zip(self.call.variables, self.limits, strict=False):
            x = numeric_column(frame, name)
            out |= (x < low) | (x > high)
        return out

    def _columns(self, frame: pd.DataFrame, derivative: int) -> Array:
        if self.levels:
            return self.margins[0].at(_codes(frame, self.call.variables, self.levels, self.label))
        x = [numeric_column(frame, name) for name in self.call.variables]
        out: Array | None = None
        if self.call.kind == "s":
            own = x[0] if len(x) == 1 else np.column_stack(x)
            if self.made is not None and not derivative:
                out = self.made.taken(own)
            out = self.margins[0].at(own, derivative) if out is None else out
        else:
            for own, basis, moved in zip(x, self.margins, self.maps, strict=True):
                part = basis.at(own) if moved is None else basis.at(own) @ moved
                out = part if out is None else (out[:, :, None] * part[:, None, :]).reshape(len(part), -1)
        assert out is not None
        return np.asarray(out if self.constraint is None else out @ self.constraint)

    def _scaled(self, out: Array, frame: pd.DataFrame) -> Array:
        if self.by is None:
            return out
        if self.level is None:
            return np.asarray(out * numeric_column(frame, self.by)[:, None])
        return np.asarray(out * (frame[self.by] == self.level).to_numpy(dtype=np.float64)[:, None])


def build_smooths(call: SmoothCall, frame: pd.DataFrame, counts: Array | None = None) -> tuple[Smooth, ...]:
    """The bases on these rows: several where `by` is a factor. `counts` : frequency weights, (n,).

    Raises
    ------
    BadFormula
        columns that make no curve
    """
    if call.bs[0] == "re":
        return _random(call, frame)
    _check_by(call, frame)
    x = []
    for name in call.variables:
        if is_categorical(frame[name], name) and call.factor is not None:
            raise BadFormula(
                f"{call.text}: column {name!r} is text, and a curve is of numbers. The number is written first, the grouping "
                f"factor last: s({call.factor}, {name}, bs='fs')."
            )
        if is_categorical(frame[name], name):
            raise BadFormula(
                f"{call.text}: column {name!r} is text, and a curve is of numbers. A curve for each level: by={name}; one "
                f"random effect a level: (1 | {name}), or s({name}, bs='re')."
            )
        x.append(numeric_column(frame, name))
    limits = tuple((float(v.min()), float(v.max())) for v in x)
    knots = None if call.knots is None else np.asarray(call.knots)
    if call.kind == "s":
        at = x[0] if len(x) == 1 else np.column_stack(x)
        basis = build_basis(call.bs[0], at, call.k[0], call.text, call.m, knots)
        margins: tuple[Basis, ...] = (basis,)
        maps: tuple[Array | None, ...] = (None,)
        X, penalties = basis.at(at), basis.penalties
        made: Made | None = Made(at, X)
    else:
        margins, maps, X, penalties = _tensor(call, x)
        made = None
    label = f"{call.kind}({','.join(call.variables)})"
    by = None if call.by is None else frame[call.by]
    if call.factor is not None:
        turn, parts = curve_of_each(X, penalties[0], x[0], counts)
        if call.shared:
            turn, parts = without_constant(turn, parts)
        label = f"s({call.variables[0]},{call.factor})"
        return (Smooth(label, call, margins, maps, turn, parts, limits=limits, made=made),)
    if by is not None and not is_categorical(by, str(call.by)):
        # a number that varies tells the curve's level apart from the intercept: no constraint
        return (
            Smooth(
                f"{label}:{call.by}", call, margins, maps, None, penalties, call.by, None, limits, (), made
            ),
        )
    Z, own = (None, penalties) if call.kind == "ti" else _centred(X, penalties)
    if by is None:
        return (Smooth(label, call, margins, maps, Z, own, None, None, limits, (), made),)
    found = by.cat.categories if isinstance(by.dtype, pd.CategoricalDtype) else sorted(by.dropna().unique())
    present = [v for v in found if bool((by == v).any())]
    if len(present) < 2:
        raise BadFormula(f"{call.text}: the column {call.by!r} of by= has one level only. Leave by= out.")
    return tuple(
        Smooth(f"{label}:{call.by}{v}", call, margins, maps, Z, own, str(call.by), v, limits) for v in present
    )


def _check_by(call: SmoothCall, frame: pd.DataFrame) -> None:
    """Refuse a number of by= that is the same in every row: the curve times a constant, whose level is the intercept's.

    Raises
    ------
    BadFormula
    """
    if call.by is None or is_categorical(frame[call.by], call.by):
        return
    z = numeric_column(frame, call.by)
    if bool((z == z[0]).all()):
        raise BadFormula(
            f"{call.text}: the column {call.by!r} of by= is {z[0]:g} in every row, so that the term is a multiple of one "
            "curve, and its level cannot be told from the intercept. Leave by= out."
        )


def _tensor(
    call: SmoothCall, x: Sequence[Array]
) -> tuple[tuple[Basis, ...], tuple[Array | None, ...], Array, tuple[Array, ...]]:
    """Row-wise products of the margins' columns; a penalty a margin."""
    margins, maps, parts, own = [], [], [], []
    for bs, k, each in zip(call.bs, call.k, x, strict=True):
        basis = build_basis(bs, each, k, call.text)
        moved: Array | None = None
        if call.kind == "ti":
            moved = _nullspace(basis.at(each).sum(0))
        if not isinstance(basis, Cubic):
            # coefficients that are the curve's values at even points, as cr has them: the penalty of a product depends on it
            base = np.eye(basis.size) if moved is None else moved
            at = np.linspace(each.min(), each.max(), base.shape[1])
            moved = base @ np.linalg.pinv(basis.at(at) @ base)
        S = basis.penalties[0] if moved is None else moved.T @ basis.penalties[0] @ moved
        margins.append(basis)
        maps.append(moved)
        parts.append(basis.at(each) if moved is None else basis.at(each) @ moved)
        own.append(S / np.linalg.eigvalsh(S)[-1])
    sizes = [p.shape[1] for p in parts]
    out = parts[0]
    for part in parts[1:]:
        out = (out[:, :, None] * part[:, None, :]).reshape(len(part), -1)
    penalties = []
    for j, S in enumerate(own):
        left, right = math.prod(sizes[:j]), math.prod(sizes[j + 1 :])
        penalties.append(np.kron(np.kron(np.eye(left), S), np.eye(right)))
    return tuple(margins), tuple(maps), out, tuple(penalties)


def _centred(X: Array, penalties: Sequence[Array]) -> tuple[Array, tuple[Array, ...]]:
    """Z with Σ_i (XZ)_ij = 0, orthonormal, and the penalties of what is left."""
    Z = _nullspace(X.sum(0))
    return Z, tuple(Z.T @ S @ Z for S in penalties)


def _nullspace(c: Array) -> Array:
    return np.asarray(np.linalg.qr(c[:, None], mode="complete")[0][:, 1:])


def _random(call: SmoothCall, frame: pd.DataFrame) -> tuple[Smooth, ...]:
    levels = []
    for name in call.variables:
        own = frame[name]
        if not is_categorical(own, name):
            raise BadFormula(
                f"{call.text}: column {name!r} is a number. A random slope is written ({name} | g)."
            )
        found = (
            own.cat.categories
            if isinstance(own.dtype, pd.CategoricalDtype)
            else sorted(own.dropna().unique())
        )
        levels.append(tuple(v for v in found if bool((own == v).any())))
    size = math.prod(len(own) for own in levels)
    basis = Levels(size)
    label = f"s({','.join(call.variables)})"
    return (Smooth(label, call, (basis,), (None,), None, basis.penalties, call.by, None, (), tuple(levels)),)


def _codes(frame: pd.DataFrame, names: Sequence[str], levels: Sequence[LevelNames], label: str) -> Array:
    out = np.zeros(len(frame), dtype=np.int64)
    for name, own in zip(names, levels, strict=True):
        code = pd.Index(own).get_indexer(pd.Index(frame[name]))
        if bool((code < 0).any()):
            value = frame[name].iloc[int(np.flatnonzero(code < 0)[0])]
            raise UnknownLevel(
                f"{label}: column {name!r} has the level {value!r}, which the fit has not seen."
            )
        out = out * len(own) + code
    return out


@dataclass(frozen=True, eq=False)
class Curve:
    """A smooth term in the form of a mixed model: fixed columns X N, and random ones X R.

    N, R, penalties : of `mixed_form`
    """

    smooth: Smooth
    N: Array
    R: Array
    penalties: tuple[Array, ...]

    def __deepcopy__(self, memo: dict[int, object]) -> Curve:
        return self

    @property
    def label(self) -> str:
        return self.smooth.label

    @property
    def required(self) -> tuple[str, ...]:
        return self.smooth.required

    @property
    def parts(self) -> list[str]:
        """Of a curve of each group: what each penalty is of."""
        first = int(self.smooth.call.shared)
        degrees = range(first, first + len(self.penalties) - 1)
        return ["bend", *(DEGREES[m] if m < len(DEGREES) else f"degree {m}" for m in degrees)]

    @property
    def names(self) -> list[str]:
        """Of the fixed columns."""
        k = self.N.shape[1]
        return [self.label] if k == 1 else [f"{self.label}.{j + 1}" for j in range(k)]

    def columns(self, frame: pd.DataFrame) -> tuple[Array, Array]:
        """The fixed columns, (n, k₀), and the random ones, (n, k − k₀)."""
        X = self.smooth.matrix(frame)
        return np.asarray(X @ self.N), np.asarray(X @ self.R)


def build_curves(call: SmoothCall, frame: pd.DataFrame, counts: Array | None = None) -> tuple[Curve, ...]:
    """The smooth terms of a call, as parts of a mixed model. `counts` : frequency weights, (n,)."""
    out = []
    for smooth in build_smooths(call, frame, counts):
        smooth = replace(smooth, maps=_rowwise(smooth.maps), constraint=_rowwise([smooth.constraint])[0])
        if call.factor is not None:  # in its own coordinates already, of which none is free
            k = smooth.size
            out.append(Curve(smooth, np.zeros((k, 0)), np.eye(k), smooth.penalties))
            continue
        N, R, penalties = mixed_form(smooth.penalties)
        N, R = _rowwise([N, R])
        out.append(Curve(smooth, N, R, _rowwise(penalties)))
    return tuple(out)


def _rowwise(arrays: Sequence[Array | None]) -> tuple[Any, ...]:
    """Each row by row in memory, as a saved fit gives it back: products of the same numbers in another order of memory
    round otherwise."""
    return tuple(None if a is None else np.ascontiguousarray(a) for a in arrays)
