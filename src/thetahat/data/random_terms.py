"""What of a formula is not a fixed effect: random effects (x | g), smooth terms s(x), and the levels of grouping
factors.

    (1 | g)   (x | g)   (0 + x | g)   (x || g)   (1 | a/b) = (1 | a) + (1 | a:b)   cs(0 + f | g)   ar1(0 + f | g)   diag(x | g)

Source: Bates et al. (2015), Fitting linear mixed-effects models using lme4, table 2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..errors import BadFormula
from ..types import Levels
from .columns import is_categorical, numeric_column, row_of
from .expressions import column, written
from .frame import Frame

STRUCTURED = re.compile(r"^(us|diag|cs|ar1)\s*\((.*)\)$", re.DOTALL)
SMOOTH = re.compile(r"^(s|te|ti)\s*\(", re.DOTALL)
NAME = re.compile(r"^[A-Za-z_]\w*$")
UNKNOWN = -1  # the code of a group that the fit has not seen


@dataclass(frozen=True)
class RandomCall:
    """(effects | group), as the formula has it: `effects` a right-hand side, `group` columns that are crossed."""

    text: str
    effects: str
    group: tuple[str, ...]
    structure: str


def take_apart(formula: str) -> tuple[str, list[RandomCall], list[str]]:
    """The right-hand side without its random and smooth terms, and those.

    Examples
    --------
    >>> fixed, random, smooth = take_apart("x + (x | a/b) + s(z, k=5)")
    >>> fixed, [(r.effects, r.group) for r in random], smooth
    ('x', [('x', ('a',)), ('x', ('a', 'b'))], ['s(z, k=5)'])
    """
    fixed: list[str] = []
    random: list[RandomCall] = []
    smooth: list[str] = []
    for sign, part in _parts(formula):
        inside = _random(part)
        if inside is None and not SMOOTH.match(part):
            fixed.append(f"{sign} {part}" if fixed or sign == "-" else part)
        elif sign == "-":
            raise BadFormula(f"{written(part)!r} cannot be taken away from a formula: leave it out.")
        elif inside is None:
            smooth.append(part)
        else:
            random += _calls(part, *inside)
    return " ".join(fixed) or "1", random, smooth


def _parts(formula: str) -> list[tuple[str, str]]:
    """(sign, term) of the top level."""
    out, depth, begin, sign, quote = [], 0, 0, "+", ""
    for i, c in enumerate(formula):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c in "+-" and depth == 0 and not _exponent(formula, i):
            out.append((sign, formula[begin:i].strip()))
            begin, sign = i + 1, c
    out.append((sign, formula[begin:].strip()))
    return [(s, p) for s, p in out if p]


def _exponent(formula: str, i: int) -> bool:
    """Whether the sign at i belongs to a number, 1e-3."""
    return bool(re.search(r"(^|[^\w.])\d+(\.\d*)?[eE]$", formula[:i]))


def _random(part: str) -> tuple[str, str] | None:
    """(structure, what is inside the brackets) of a random term; None: it is something else."""
    named = STRUCTURED.match(part)
    if named and _bar(named.group(2)) is not None:
        return named.group(1), named.group(2)
    if part.startswith("(") and part.endswith(")") and _bar(part[1:-1]) is not None:
        return "us", part[1:-1]
    if _bar(part) is not None:
        raise BadFormula(
            f"{written(part)!r}: a random effect is written in brackets, ({written(part.replace('|', ' | '))})."
        )
    return None


def _bar(inside: str) -> int | None:
    """Where the | of a random term is."""
    depth = 0
    for i, c in enumerate(inside):
        depth += (c in "([{") - (c in ")]}")
        if depth < 0:
            return None
        if c == "|" and depth == 0:
            return i
    return None


def _calls(part: str, structure: str, inside: str) -> list[RandomCall]:
    at = _bar(inside)
    assert at is not None
    effects, group = inside[:at].strip(), inside[at + 1 :].strip()
    if group.startswith("|"):
        group, structure = group[1:].strip(), "diag"
    text = written(part)
    if not effects:
        raise BadFormula(f"{text!r} has nothing before the |. For a random intercept write (1 | {group}).")
    if not group or "|" in group:
        raise BadFormula(f"{text!r}: after the | stands one grouping factor: (1 | g), (1 | a/b), (1 | a:b).")
    levels = [tuple(s.strip() for s in level.split(":")) for level in group.split("/")]
    names = [n for level in levels for n in level]
    bad = next((n for n in names if not NAME.match(_bare(n))), None)
    if bad is not None:
        raise BadFormula(
            f"{text!r}: the grouping factor {written(bad)!r} is not a column. Accepted: g, a:b, a/b of columns; of "
            "others make a column first."
        )
    out: list[RandomCall] = []
    before: tuple[str, ...] = ()
    for level in levels:
        before = (*before, *(_bare(n) for n in level))
        out.append(RandomCall(text, effects, tuple(column(n) for n in before), structure))
    return out


def _bare(name: str) -> str:
    found = re.match(r"^C\(\s*([A-Za-z_]\w*)\s*\)$", name)
    return found.group(1) if found else name


@dataclass(frozen=True)
class Grouping:
    """A grouping factor: the combinations of levels of its columns that were seen, and each row's code."""

    columns: tuple[str, ...]
    levels: tuple[Levels, ...] = field(repr=False)
    cells: np.ndarray = field(repr=False, compare=False)  # the product code of each group, rising

    def __deepcopy__(self, memo: dict[int, object]) -> Grouping:
        return self

    @property
    def label(self) -> str:
        return ":".join(self.columns)

    @property
    def size(self) -> int:
        return len(self.cells)

    @property
    def names(self) -> list[str]:
        """Of each group."""
        at = np.unravel_index(self.cells, [len(own) for own in self.levels])
        return [
            ":".join(str(own[i]) for own, i in zip(self.levels, each, strict=True))
            for each in zip(*at, strict=True)
        ]

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        """The group of each row, (n,); of one that was not seen `UNKNOWN`, of a second such `UNKNOWN` − 1, and so on."""
        product, unknown = np.zeros(len(frame), dtype=np.int64), np.zeros(len(frame), dtype=bool)
        for name, own in zip(self.columns, self.levels, strict=True):
            code = _codes(frame[name], own)
            unknown |= code < 0
            product = product * len(own) + np.maximum(code, 0)
        at = np.searchsorted(self.cells, product).clip(max=max(self.size - 1, 0))
        out = np.where((self.cells[at] == product) & ~unknown, at, UNKNOWN)
        lost = out == UNKNOWN
        if lost.any():
            out[lost] -= (
                frame.loc[lost, list(self.columns)].groupby(list(self.columns), observed=True).ngroup()
            )
        return out


def build_grouping(columns: Sequence[str], rows: Frame, text: str) -> Grouping:
    """The groups of the rows that are fitted.

    Raises
    ------
    BadFormula
        there is one group only
    """
    frame = rows.read(list(columns))
    levels, product = [], np.zeros(len(frame), dtype=np.int64)
    for name in columns:
        own = frame[name]
        if not is_categorical(own, name):
            numeric = numeric_column(frame, name)
            fraction = np.flatnonzero(numeric != np.round(numeric))
            if len(fraction):
                at = int(fraction[0])
                raise BadFormula(
                    f"{text!r} groups by column {name!r}, which is {numeric[at]:g} in row {row_of(own, at)}: a grouping "
                    "factor is text, a category or whole numbers. A number with a fraction is a predictor."
                )
        if isinstance(own.dtype, pd.CategoricalDtype):
            present = np.unique(own.cat.codes.to_numpy())
            found = tuple(own.cat.categories[present[present >= 0]])
        else:
            found = tuple(sorted(pd.unique(own.dropna()).tolist()))
        levels.append(tuple(v.item() if isinstance(v, np.generic) else v for v in found))
        product = product * len(found) + _codes(own, levels[-1])
    cells = np.unique(product)
    if len(cells) < 2:
        raise BadFormula(
            f"{text!r}: the grouping factor {':'.join(columns)} has one group only: its variance cannot be estimated. "
            "Leave the term out."
        )
    return Grouping(tuple(columns), tuple(levels), cells)


def _codes(own: pd.Series, levels: Levels) -> np.ndarray:
    if isinstance(own.dtype, pd.CategoricalDtype):
        where = pd.Index(levels).get_indexer(own.cat.categories)
        return np.append(where, -1)[own.cat.codes.to_numpy()]
    return np.asarray(pd.Index(levels).get_indexer(pd.Index(own)))
