"""Response: the left-hand side of a formula, read against the data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from formulaic import ModelSpec
from formulaic.parser.types import Term
from torch import Tensor

from ..errors import BadFormula, EmptyData, OutOfSupport
from ..protocols import Categories, InOrder
from ..types import Level, Levels, Plain
from .checks import ALL, Place, finite
from .columns import is_categorical, level_codes, numeric_column, reads_as_number
from .design import evaluate, fitted, specification
from .expressions import column, unquote, written
from .formula import check, expressions, single_term, variables
from .frame import Frame
from .partitions import earlier, first_among
from .selection import Selection

if TYPE_CHECKING:
    from ..families.base import Family
    from .batch import Batch

# t = f(y), one-to-one: log |dt/dy| as a function of t. A density of t times |dt/dy| is one of y.
LOG_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda t: -t,
    "log1p": lambda t: -t,
    "log2": lambda t: -math.log(2) * t - math.log(math.log(2)),
    "log10": lambda t: -math.log(10) * t - math.log(math.log(10)),
    "sqrt": lambda t: -torch.log(t) - math.log(2),
    "exp": torch.log,
    "expm1": torch.log1p,
}
TRANSFORMED = re.compile(rf"^(?:np\.)?({'|'.join(LOG_SLOPES)})\(\s*[A-Za-z_]\w*\s*\)$")


@dataclass(frozen=True)
class Response:
    """The left-hand side: a column, or an expression of columns, and its levels if it is categorical."""

    expression: str
    required: tuple[str, ...]
    levels: Levels | None = None
    spec: ModelSpec | None = field(default=None, repr=False, compare=False)
    functions: Mapping[str, Callable[..., Plain]] = field(default_factory=dict, repr=False, compare=False)

    def values(self, frame: pd.DataFrame) -> np.ndarray:
        if self.spec is not None:
            return evaluate(self.spec, frame, self.expression, self.functions)[:, 0]
        if self.levels is not None:
            return level_codes(frame[self.required[0]], self.levels, self.required[0]).astype(np.float64)
        return numeric_column(frame, self.required[0])

    def tensors(self, frame: pd.DataFrame, place: Place = ALL) -> dict[str, Tensor]:
        """What the family reads of these rows, none of which lacks a value: y, (n,)."""
        return {"y": torch.from_numpy(finite(self.values(frame), self.expression, place))}

    def scored(self, frame: pd.DataFrame, batch: Batch) -> dict[str, Tensor]:
        """What was observed of these rows, before any one-to-one transform of it."""
        return {
            "y": batch["y"]
            if self.transform is None
            else torch.from_numpy(np.array(numeric_column(frame, self.required[0])))
        }

    @property
    def units(self) -> str:
        """What a density of y is per."""
        return self.expression

    @property
    def transform(self) -> str | None:
        """The one-to-one function of one column that the expression is ("log" of "log(y)"), or None."""
        found = TRANSFORMED.match(unquote(self.expression).strip())
        return None if self.spec is None or found is None else found.group(1)

    @property
    def observed(self) -> str:
        """What was observed: the column itself, where the expression is a column or a known one-to-one
        function of one."""
        return self.required[0] if self.spec is None or self.transform is not None else self.expression


@dataclass(frozen=True)
class Left:
    """A left-hand side that has been read, before any row has been.

    Parameters
    ----------
    expression
        as the user wrote it
    term
        formulaic's, where it is an expression; None: it is a column
    required
        the columns that it reads
    """

    expression: str
    term: Term
    required: tuple[str, ...]


def read_left(expression: str, frame: Frame, *, trusted: bool = False) -> Left:
    """Read a left-hand side against the columns that there are. Nothing in it has been evaluated.

    Parameters
    ----------
    trusted
        as of `formula.read`

    Raises
    ------
    BadFormula, UnknownColumn
    """
    text, code = written(expression).strip(), unquote(expression).strip()
    plain = column(code)
    if plain in frame.columns:
        return Left(plain, None, (plain,))
    term = single_term(code)
    if term is None:
        raise BadFormula(
            f"the response {text!r} is not one column or one function of columns. For arithmetic write "
            f"I({text})."
        )
    required = tuple(sorted(variables(term, text, frame.columns, trusted=trusted, functions=frame.functions)))
    frame.require(required or [plain])
    if not trusted:
        check(list(expressions([term])), required, frame.functions)
    return Left(text, term, required)


def read_expression(left: Left, frame: Frame) -> Response:
    """A left-hand side that is an expression of columns, for these rows."""
    columns = list(left.required)
    block = frame.first(columns)[columns].dropna()
    spec = fitted(specification([left.term], False), block.iloc[:1000], left.expression, frame.functions)
    if spec.transform_state:
        spec = fitted(
            specification([left.term], False),
            frame.read(columns)[columns].dropna(),
            left.expression,
            frame.functions,
        )
    return Response(left.expression, left.required, spec=spec, functions=frame.functions)


Seen = tuple[dict[Level, None], list[Level] | None]


def _seen(name: str, block: pd.DataFrame) -> Seen:
    """The values of a column, and its categories if they are declared."""
    values = block[name]
    declared = list(values.cat.categories) if isinstance(values.dtype, pd.CategoricalDtype) else None
    return dict.fromkeys(pd.unique(values.dropna())), declared


def _both(a: Seen, b: Seen) -> Seen:
    return a[0] | b[0], b[1]


def read_response(left: Left, rows: Selection, family: Family) -> Response:
    """The response of the rows that are used. A categorical one (or any response of a categorical family)
    becomes codes."""
    frame: Frame = rows
    expression, plain = left.expression, left.required[0]
    if left.term is not None:
        return read_expression(left, frame)
    block = frame.first([plain])
    categorical = is_categorical(block[plain], plain)
    if not (categorical or isinstance(family, Categories)):
        return Response(expression, (plain,))
    seen, declared = frame.fold(partial(_seen, plain), _both, [plain]) or ({}, None)
    if isinstance(family, InOrder):
        kind = block[plain].dtype
        said = isinstance(kind, pd.CategoricalDtype) and bool(kind.ordered)
        declared = _ordered(plain, seen, family.levels, declared if said else None)
    order = [v for v in declared if v in seen] if declared else sorted(seen)
    levels = tuple(v.item() if isinstance(v, np.generic) else v for v in order)
    if not levels:
        raise EmptyData(f"the response {plain!r} has no values: every row is missing.")
    if categorical and not isinstance(family, Categories) and (len(levels) > 2 or not family.support.binary):
        words = {v for v in levels if not reads_as_number(v)}
        if 0 < len(words) < len(levels) / 2:
            row, value = rows.whole.fold(partial(first_among, words, plain), earlier, [plain]) or (0, None)
            raise OutOfSupport(
                f"the response {plain!r} is {value!r} in row {row}, and a number elsewhere ({len(words)} of "
                f"its {len(levels)} values are "
                "words). Correct those rows, or leave them empty: empty ones are dropped and counted."
            )
        some = ", ".join(map(repr, levels[:6])) + (" …" if len(levels) > 6 else "")
        remedy = (
            "convert the column"
            if all(map(reads_as_number, levels))
            else "use family='bernoulli' (two levels), 'categorical' or 'ordinal'"
        )
        raise OutOfSupport(
            f"the response {plain!r} is text of {len(levels)} level{'s' * (len(levels) != 1)} ({some}), and "
            f"{family} describes "
            f"{family.support}: {remedy}."
        )
    return Response(expression, (plain,), levels=levels)


def _ordered(
    name: str, seen: Collection[Level], given: Levels | None, declared: list[Level] | None
) -> list[Level] | None:
    """The levels of an ordinal response, from the lowest: those given, else the column's own; None of numbers.

    Raises
    ------
    OutOfSupport
        words whose order nothing says, since the alphabet's would be another model; a value that is not one of those given
    """
    some = ", ".join(map(repr, sorted(seen, key=str)[:6])) + (" …" if len(seen) > 6 else "")
    if given is not None:
        unknown = next((v for v in seen if v not in given), None)
        if unknown is not None:
            raise OutOfSupport(
                f"the response {name!r} has the value {unknown!r}, which is not one of levels={given!r}. Its values: {some}."
            )
        return list(given)
    if declared is None and len(seen) > 2 and not all(map(reads_as_number, seen)):
        raise OutOfSupport(
            f"nothing says the order of the values of {name!r} ({some}), and the alphabet's is seldom meant. Accepted: "
            f"family=th.families.Ordinal(levels=(…)) with them from the lowest to the highest, or a column with an order, "
            "pd.Categorical(values, [lowest, …, highest], ordered=True)."
        )
    if declared is None and all(map(reads_as_number, seen)):
        return sorted(seen, key=float)  # of numbers as text too: "10" comes after "9"
    return declared
