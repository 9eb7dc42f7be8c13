"""Arrays that are given to a formula beside its data: weights= and offset=. Each becomes a column of its argument's name in
brackets, which no formula of the user's names by accident."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch

from ..data.expressions import check_functions, unquote, written
from ..data.frame import Frame
from ..errors import BadArgument
from ..types import Data, Plain

WEIGHTS, OFFSET = "(weights)", "(offset)"


def is_array(given: Plain) -> bool:
    """Whether an argument is one value a row, rather than the name of a column or a weighting."""
    if isinstance(given, (np.ndarray, torch.Tensor, list, tuple)):
        return True
    return type(given).__name__ == "Series" and hasattr(type(given), "to_numpy")


def with_functions(data: Data, functions: Mapping[str, Callable[..., Plain]]) -> Frame:
    """The data, whose formulas may call these functions."""
    check_functions(functions)
    return Frame(data).with_functions(functions)


def with_weights(data: Data, weights: Plain) -> tuple[Data, Plain]:
    """The data with an array of frequency weights as a column, and its name."""
    if not is_array(weights):
        return data, weights
    return Frame(data).with_column(WEIGHTS, weights, "weights"), WEIGHTS


def with_offset(formula: str, data: Data, offset: Plain) -> tuple[str, Data]:
    """The formula with an offset more.

    Examples
    --------
    >>> with_offset("y ~ x", {"x": [1.0], "log e": [2.0]}, "log e")[0], with_offset("y ~ x", {"e": [1.0]}, "log(e)")[0]
    ('y ~ x + offset(`log e`)', 'y ~ x + offset(log(e))')
    """
    if offset is None:
        return formula, data
    frame = Frame(data)
    if is_array(offset):
        frame, offset = frame.with_column(OFFSET, offset, "offset"), OFFSET
    if not isinstance(offset, str):
        raise BadArgument(
            f"offset={offset!r}. Accepted: a column's name, an expression of columns, or one number a row."
        )
    text = f"`{offset}`" if offset in frame.columns and not re.fullmatch(r"[A-Za-z_]\w*", offset) else offset
    return f"{formula} + offset({written(unquote(text))})", frame


def shown_given(value: Plain) -> str | None:
    """An argument as the call records it: its text; None for an array."""
    return value if isinstance(value, str) else None
