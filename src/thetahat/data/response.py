"""Response: the left-hand side of a formula, read against the data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from formulaic import Formula, ModelSpec
from torch import Tensor

from ..errors import BadFormula, EmptyData, OutOfSupport
from .design import _fitted_spec, evaluate, is_categorical, level_codes, numeric_column, single_term, variables
from .frame import Frame

if TYPE_CHECKING:
    from ..families.base import Family

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
    levels: tuple[Any, ...] | None = None
    spec: ModelSpec | None = field(default=None, repr=False, compare=False)

    def values(self, frame: pd.DataFrame) -> np.ndarray:
        if self.spec is not None:
            return evaluate(self.spec, frame, self.expression)[:, 0]
        column = frame[self.required[0]]
        if self.levels is not None:
            return level_codes(column, self.levels, self.required[0]).astype(np.float64)
        return numeric_column(frame, self.required[0])

    @property
    def transform(self) -> str | None:
        """The one-to-one function of one column that the expression is ("log" of "log(y)"), or None."""
        found = TRANSFORMED.match(self.expression)
        return None if self.spec is None or found is None else found.group(1)

    @property
    def observed(self) -> str:
        """What was observed: the column itself, where the expression is a column or a known one-to-one function of one."""
        return self.required[0] if self.spec is None or self.transform is not None else self.expression


def _rows(frame: Frame, column: str) -> Iterator[tuple[int, Any]]:
    """(row, value) of a column, in order."""
    row = 0
    for block in frame.blocks([column]):
        yield from enumerate(block[column], row)
        row += len(block)


def read_response(expression: str, frame: Frame, family: Family) -> Response:
    """Read a left-hand side against the data. A categorical response (or any response of a categorical family) becomes codes."""
    expression = expression.strip()
    plain = expression.strip("`")
    if plain not in frame.columns:
        term = single_term(expression)
        if term is None:
            raise BadFormula(
                f"the response {expression!r} is not one column or one function of columns. For arithmetic write I({expression})."
            )
        required = tuple(sorted(variables(term, expression, frame.columns)))
        frame.require(required or [plain])
        block = next(iter(frame.blocks(list(required))))[list(required)].dropna()
        spec = ModelSpec(formula=Formula(f"0 + {expression}"), output="numpy", na_action="ignore")
        return Response(expression, required, spec=_fitted_spec(spec, block.iloc[:1000], expression))
    block = next(iter(frame.blocks([plain])))
    categorical = is_categorical(block[plain], plain)
    if not (categorical or hasattr(family, "probabilities")):
        return Response(expression, (plain,))
    seen: dict[Any, None] = {}
    declared: list[Any] | None = None
    for block in frame.blocks([plain]):
        column = block[plain]
        seen.update(dict.fromkeys(pd.unique(column.dropna())))
        declared = list(column.cat.categories) if isinstance(column.dtype, pd.CategoricalDtype) else None
    order = [v for v in declared if v in seen] if declared else sorted(seen)
    levels = tuple(v.item() if isinstance(v, np.generic) else v for v in order)
    if not levels:
        raise EmptyData(f"the response {plain!r} has no values: every row is missing.")
    if categorical and not hasattr(family, "probabilities") and (len(levels) > 2 or family.support.name != "{0, 1}"):
        words = {v for v in levels if not _reads_as_number(v)}
        if 0 < len(words) < len(levels) / 2:
            row, value = next(found for found in _rows(frame, plain) if found[1] in words)
            raise OutOfSupport(
                f"the response {plain!r} is {value!r} in row {row}, and a number elsewhere ({len(words)} of its {len(levels)} values are "
                "words). Mend those rows, or leave them empty: empty ones are dropped and counted."
            )
        shown = ", ".join(map(repr, levels[:6])) + (" …" if len(levels) > 6 else "")
        remedy = (
            "convert the column"
            if all(map(_reads_as_number, levels))
            else "use family='bernoulli' (two levels), 'categorical' or 'ordinal'"
        )
        raise OutOfSupport(
            f"the response {plain!r} is text of {len(levels)} level{'s' * (len(levels) != 1)} ({shown}), and {family} describes "
            f"{family.support}: {remedy}."
        )
    return Response(expression, (plain,), levels=levels)


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
