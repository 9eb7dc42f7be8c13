"""Columns of a design that are sums of the columns before them: found, and left out.

In the order of the formula, x_j is left out where the part of it that is orthogonal to those before it is shorter than 1e−7 of x_j,
which is the rule, and the tolerance, of R's lm.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from ..errors import BadArgument
from .design import Coded, Design
from .frame import Frame

TOLERANCE = 1e-7
COLUMNS = 2000  # up to which they are orthogonalised


def without_collinear(design: Design, rows: Frame) -> Design:
    """The design without the columns that are sums of those before them; `dropped` names them.

    Raises
    ------
    BadArgument
        more columns than can be looked at, or rows that are not held in memory
    """
    size = len(design.names) - len(design.curve_names)
    if size > COLUMNS or rows.streamed(design.required):
        raise BadArgument(
            f"collinear='drop' orthogonalises up to {COLUMNS:,} columns of rows in memory; {design.formula!r} has {size:,} "
            "columns. Leave the collinear ones out of the formula."
        )
    own = replace(design, curves=())
    lost = _aliased(_columns(own, rows.read(design.required)), own.as_written)
    return _without(design, lost) if lost.any() else design


def _columns(design: Design, frame: pd.DataFrame) -> np.ndarray:
    """Every column of the design, (p, n), in the order of its names."""
    parts = [np.ones((1, len(frame)))] if design.intercept else []
    dense = design.dense_columns(frame)
    parts += [] if dense is None else [dense]
    known: dict[str, np.ndarray] = {}
    for term in design.coded:
        code, value = term.codes(frame, known), term.value(frame)
        one = code == np.arange(1, term.size + 1)[:, None]
        parts.append(one * (1.0 if value is None else value))
    return np.concatenate(parts) if parts else np.zeros((0, len(frame)))


def _aliased(columns: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(p,) of those that are sums of others before them in that order: Gram and Schmidt, twice, which is enough."""
    lost = np.zeros(len(columns), dtype=bool)
    basis = np.zeros((0, columns.shape[1]))
    for j in order.tolist():
        x = columns[j]
        rest = x - (basis @ x) @ basis
        rest -= (basis @ rest) @ basis
        length = float(np.linalg.norm(rest))
        if length <= TOLERANCE * float(np.linalg.norm(x)):
            lost[j] = True
        else:
            basis = np.concatenate([basis, rest[None] / length])
    return lost


def _without(design: Design, lost: np.ndarray) -> Design:
    own = replace(design, curves=())
    first, numeric = int(design.intercept), len(design.numeric)
    dense = numeric + len(design.dense_names)
    kept = ~lost[first:]
    coded, at = [], dense
    for term in design.coded:
        coded.append(_of_cells(term, kept[at : at + term.size]))
        at += term.size
    places = design.places
    if places:
        places = tuple(p for p, k in zip(places[:dense], kept[:dense], strict=True) if k) + places[dense:]
    return replace(
        design,
        numeric=tuple(name for name, k in zip(design.numeric, kept[:numeric], strict=True) if k),
        dense_names=tuple(n for n, k in zip(design.dense_names, kept[numeric:dense], strict=True) if k),
        dense_kept=tuple(np.flatnonzero(kept[numeric:dense]).tolist()),
        coded=tuple(coded),
        places=places,
        dropped=tuple(name for name, gone in zip(own.names, lost, strict=True) if gone),
    )


def _of_cells(term: Coded, kept: np.ndarray) -> Coded:
    if kept.all():
        return term
    return replace(
        term,
        names=tuple(name for name, k in zip(term.names, kept, strict=True) if k),
        cells=term.cells[kept],
        aliased=tuple(term.cells[~kept].tolist()),
    )
