"""The facts of a fit with its coefficients as ratios: exp(β), of odds, rates, hazards or times.

    exp(β̂),   standard error exp(β̂)·s.e.(β̂),   interval exp of β's;   z and p are those of β = 0

Constants (a scale, a dispersion) and variances of random effects, which are no coefficients, stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadArgument
from ..inference.natural import linear
from ..models.mixed import Mixed
from ..models.regression import Regression
from .facts import Block, Facts, Fold, Joint, Line

if TYPE_CHECKING:
    from ..result import Fit

NOTE = "exp(β)"


def coefficients(fit: Fit) -> list[str]:
    """The names of the coefficients of linear predictors.

    Raises
    ------
    BadArgument
        the model has none
    """
    if not isinstance(fit.model, (Regression, Mixed)):
        raise BadArgument(
            f"exponentiate=True is of the coefficients of a formula, and a {type(fit.model).__name__} has none. "
            "Functions of the estimates: fit.delta."
        )
    return [name for name, own in zip(fit.names, linear(fit.objective), strict=True) if own]


def exponentiated(facts: Facts, names: Collection[str]) -> Facts:
    """The facts with the lines of these names exponentiated."""
    blocks = tuple(_block(block, names) for block in facts.blocks)
    lines = tuple(_line(line, names) for line in facts.lines)
    return replace(facts, blocks=blocks, lines=lines)


def _block(block: Block, names: Collection[str]) -> Block:
    whole = {line.name for line in block.items if isinstance(line, Line)}
    folds = block.tested and any(isinstance(item, Fold) for item in block.items)
    if not folds and not whole & set(names):
        return block
    items = tuple(_item(item, names, block.tested) for item in block.items)
    note = f"{block.note}, {NOTE}" if block.note else NOTE
    return replace(block, note=note, items=items)


def _item(item: Line | Fold | Joint, names: Collection[str], tested: bool) -> Line | Fold | Joint:
    if isinstance(item, Line):
        return _line(item, names)
    if isinstance(item, Fold) and tested:
        return replace(item, low=_exp(item.low), high=_exp(item.high))
    return item


def _line(line: Line, names: Collection[str]) -> Line:
    return exponential(line) if line.name in names else line


def exponential(line: Line) -> Line:
    """exp(β̂), its error exp(β̂)·s.e., the interval's own ends; the test stays that of β = 0."""
    value = _exp(line.estimate)
    return replace(
        line,
        estimate=value,
        standard_error=None if line.standard_error is None else value * line.standard_error,
        low=None if line.low is None else _exp(line.low),
        high=None if line.high is None else _exp(line.high),
    )


def _exp(x: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(x)) if not math.isnan(x) else math.nan
