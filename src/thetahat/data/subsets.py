"""subset=: which rows of the data are fitted, as an array of booleans or as an expression of columns."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import BadArgument, DataError
from ..types import Data
from .design import evaluate, expression_term, specification
from .expressions import columns_read, unquote
from .formula import check
from .frame import Frame


def rows_of(subset: Data, frame: Frame, *, trusted: bool = False) -> np.ndarray:
    """(n,) booleans: the rows that are kept. Where an expression reads a missing value its row is not kept, as in R.

    Raises
    ------
    BadArgument, DataError
        not one boolean a row
    BadFormula, UnknownColumn
        an expression that cannot be evaluated

    Examples
    --------
    >>> frame = Frame({"x": [1.0, 5.0, None], "g": ["a", "b", "b"]})
    >>> rows_of("x > 2", frame), rows_of("(x > 0) & (g == 'a')", frame)
    (array([False,  True, False]), array([ True, False, False]))
    """
    if frame.engine is not None:
        raise BadArgument(
            f"subset= of rows that stay in the {frame.name}. Filter them there, before they are given."
        )
    if isinstance(subset, str):
        return _evaluated(subset, frame, trusted)
    if isinstance(subset, pd.Series) and frame.index is not None and not subset.index.equals(frame.index):
        raise DataError(
            "subset is a Series whose index is not that of the data. Give it in the data's order: subset.to_numpy()."
        )
    found = np.asarray(subset)
    if found.dtype.kind == "O" and all(isinstance(v, (bool, np.bool_)) for v in found.ravel()):
        found = found.astype(bool)
    if found.dtype.kind != "b" or found.shape != (frame.size,):
        raise BadArgument(
            f"subset is an array of {found.dtype} of the shape {found.shape}. Accepted: one boolean a row, {frame.size} of "
            "them, or an expression of columns such as 'age > 30'."
        )
    return found.copy()


def _evaluated(text: str, frame: Frame, trusted: bool) -> np.ndarray:
    code = unquote(text)
    names = sorted(columns_read(code, text, frame.columns, trusted=trusted, functions=frame.functions))
    frame.require(names, where="subset")
    if not trusted:
        check([code], names, frame.functions)
    spec = specification([expression_term(f"I({code})")], False)
    parts = []
    for block in frame.blocks(names):
        complete = block[names].notna().all(axis=1).to_numpy()
        values = (
            evaluate(spec, block.loc[complete, names], text, frame.functions)
            if complete.any()
            else np.zeros((0, 1))
        )
        wrong = values[(values != 0) & (values != 1)]
        if values.shape[1] != 1 or len(wrong):
            raise BadArgument(
                f"subset={text!r} is {wrong[0] if len(wrong) else 'no number'} for some row. Accepted: a comparison, such as "
                "'age > 30'."
            )
        kept = np.zeros(len(block), dtype=bool)
        kept[complete] = values[:, 0] == 1
        parts.append(kept)
    return np.concatenate(parts)
