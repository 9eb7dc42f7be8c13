"""The derivative of a design in one column x, row by row: what a linear predictor gains as x moves.

    η_j = o(x) + Σ_t β_t c_t(x)      ⇒      ∂η_j/∂x = o′(x) + Σ_t β_t c_t′(x)

c_t′ is exact where c_t is a product of columns, an expression of known functions (`data.expression_slopes`), a smooth
term of one variable, or a product of those; of anything else (a user's function, bs(x)) by the five-point rule, whose
error is that of rounding for polynomials up to the fourth degree.

    f′(x) ≈ Σ_k w_k f(x + kh)/h,      k = −2 … 2, and k = 0 … 4 at the edge of what was fitted

Source: Abramowitz and Stegun (1964), 25.3.6 and table 25.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from formulaic import ModelSpec
from formulaic.materializers.types import EvaluatedFactor, FactorValues
from formulaic.parser.types import Factor, Term
from torch import Tensor

from ..data.batch import Batch
from ..data.columns import numeric_column
from ..data.design import Coded, Design, evaluate
from ..data.expression_slopes import slope
from ..data.expressions import FUNCTIONS, Columns
from ..data.formula import variables as formula_columns
from ..data.smooths import Curve, Smooth
from ..data.table import Encoder

STEP = 1e-3  # of a standard deviation: the five-point rule then errs by STEP⁴, and rounding by 10⁻¹³
CENTRAL = (1 / 12, -8 / 12, 0.0, 8 / 12, -1 / 12)
FORWARD = (-25 / 12, 4.0, -3.0, 4 / 3, -1 / 4)

Array = np.ndarray
Made = Callable[[pd.DataFrame], Array]


@dataclass(frozen=True)
class Steps:
    """The five points of each row: a step of at most a quarter of |x|, so that log x and √x keep their domain, and never
    beyond the values that were fitted, where a spline is not defined: there the points are on one side.

    Parameters
    ----------
    name
        the column
    low, high, spread
        of the values that were fitted
    """

    name: str
    low: float
    high: float
    spread: float

    def points(self, frame: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, Array]]:
        """The rows with x at each of the points, and the weight of each."""
        x = numeric_column(frame, self.name)
        low, high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        step = min(STEP * self.spread, (high - low) / 8 or math.inf)
        h = np.where(x == 0, step, np.minimum(step, np.abs(x) / 4))
        side = np.where(low == high, 0, np.where(x - 2 * h < low, 1, np.where(x + 2 * h > high, -1, 0)))
        for k in range(5):
            place = np.where(side == 0, k - 2, np.where(side > 0, k, -k))
            weight = np.where(side == 0, CENTRAL[k], side * FORWARD[k])
            moved = x + place * h
            yield (
                frame.assign(**{self.name: np.clip(moved, low, high) if low < high else moved}),
                weight / h,
            )

    def slope(self, made: Made, frame: pd.DataFrame) -> Array:
        """The derivative of (n, …) columns."""
        parts = [w.reshape(-1, *[1] * (out.ndim - 1)) * out
                 for moved, w in self.points(frame) for out in [made(moved)]]  # fmt: skip
        return np.asarray(sum(parts))


def steps_of(values: Array, name: str) -> Steps:
    """From the values that were fitted."""
    spread = float(values.std()) or abs(float(values.mean())) or 1.0
    return Steps(name, float(values.min()), float(values.max()), spread)


def slope_batches(encoder: Encoder, batch: Batch, frame: pd.DataFrame, steps: Steps) -> tuple[Batch, Batch]:
    """Two batches B′ and B₀ with ∂η/∂x = η(B′) − η(B₀): the derivatives of all columns, and nothing (but for the
    intercept, which η adds to both).

    Parameters
    ----------
    batch
        the encoded rows
    frame
        the rows
    """
    slopes, nothing = dict(batch.tensors), dict(batch.tensors)
    curves = {curve: _curve_slopes(curve, frame, steps) for curve in encoder.smooths}
    zero = np.zeros(len(frame))
    for slot, design in enumerate(encoder.designs):
        if design.columns:
            slopes[f"x{slot}"] = torch.from_numpy(_dense(design, frame, steps, curves)).T
            nothing[f"x{slot}"] = torch.zeros_like(slopes[f"x{slot}"])
        for j, term in enumerate(design.coded):
            code, value = f"code{slot}.{j}", f"value{slot}.{j}"
            nothing[code] = torch.zeros_like(batch[code])
            slopes[code], moved = _coded(term, batch[code], frame, steps.name)
            if moved is not None:
                slopes[value] = moved
        if design.offset is not None:
            own = _made(design.offset, frame, design, steps).sum(axis=1)
            slopes[f"offset{slot}"] = torch.from_numpy(own)
            nothing[f"offset{slot}"] = torch.from_numpy(zero)
    for i, (_, shrunk) in enumerate(curves.values()):
        slopes[f"smooth{i}"] = torch.from_numpy(shrunk)
        nothing[f"smooth{i}"] = torch.zeros_like(slopes[f"smooth{i}"])
    return Batch(slopes), Batch(nothing)


def _coded(term: Coded, code: Tensor, frame: pd.DataFrame, name: str) -> tuple[Tensor, Tensor | None]:
    """A category's code times the derivative of the columns that it interacts with."""
    if name not in term.numeric:
        return torch.zeros_like(code), None
    rest = list(term.numeric)
    rest.remove(name)
    out = np.ones(len(frame))
    for other in rest:
        out = out * numeric_column(frame, other)
    return code, torch.from_numpy(out)


def _dense(
    design: Design, frame: pd.DataFrame, steps: Steps, curves: Mapping[Curve, tuple[Array, Array]]
) -> Array:
    """(columns, n), as `Design.dense_columns`."""
    n = len(frame)
    parts = [np.full((1, n), float(name == steps.name)) for name in design.numeric]
    if design.dense is not None:
        made = _made(design.dense, frame, design, steps)
        parts.append(made[:, 1:].T if design.dense_has_intercept else made.T)
    parts += [curves[curve][0].T for curve in design.curves if curve.names]
    return np.ascontiguousarray(np.concatenate(parts))


# ---- terms of formulas -------------------------------------------------------------------------------------


def factors_of(spec: ModelSpec, design: Design) -> Iterator[tuple[Factor, set[str]]]:
    """Each factor of a specification, and the columns that it reads; a loaded one does not remember those."""
    for factor in dict.fromkeys(f for term in spec.formula for f in term.factors):
        yield factor, formula_columns(Term([factor]), design.formula, design.required, trusted=True)


def _made(spec: ModelSpec, frame: pd.DataFrame, design: Design, steps: Steps) -> Array:
    """∂/∂x of formulaic's columns, (n, q): by each factor of a term in turn, the others as they are."""
    formula = design.formula
    moving = {str(f.expr) for f, read in factors_of(spec, design) if steps.name in read}
    value = evaluate(spec, frame, formula)
    out = np.zeros_like(value)
    known: dict[str, Array | None] = {}
    unknown = np.zeros(value.shape[1], dtype=bool)
    for term, place in spec.term_slices.items():
        for factor in term.factors:
            text = str(factor.expr)
            if text not in moving:
                continue
            if text not in known:
                own = _factor_slope(factor, frame, steps.name)
                known[text] = None if own is None else _replaced(spec, frame, factor, own)
            moved = known[text]
            if moved is None:
                unknown[place] = True
            else:
                out[:, place] += moved[:, place]
    if unknown.any():
        out[:, unknown] = steps.slope(lambda rows: evaluate(spec, rows, formula)[:, unknown], frame)
    return out


def _factor_slope(factor: Factor, frame: pd.DataFrame, name: str) -> Array | None:
    if factor.eval_method is Factor.EvalMethod.LOOKUP:
        return np.ones(len(frame))
    return slope(str(factor.expr), frame, name)


def _replaced(spec: ModelSpec, frame: pd.DataFrame, factor: Factor, own: Array) -> Array:
    """The columns with other values of one factor."""
    made = Columns(frame, context=FUNCTIONS)
    values = FactorValues(
        pd.Series(own, index=frame.index), kind=Factor.Kind.NUMERICAL, spans_intercept=False
    )
    made.factor_cache[factor.expr] = EvaluatedFactor(factor=factor, values=values, variables=None)
    with np.errstate(all="ignore"):
        return np.asarray(made.get_model_matrix(spec), dtype=np.float64)


# ---- smooth terms ------------------------------------------------------------------------------------------


def _curve_slopes(curve: Curve, frame: pd.DataFrame, steps: Steps) -> tuple[Array, Array]:
    """∂/∂x of a smooth term's fixed and random columns."""
    X = _smooth_slope(curve.smooth, frame, steps)
    return np.asarray(X @ curve.N), np.ascontiguousarray(X @ curve.R)


def _smooth_slope(smooth: Smooth, frame: pd.DataFrame, steps: Steps) -> Array:
    """(n, k), by the product rule: f(x) z moves with x, and with z."""
    out = np.zeros((len(frame), smooth.size))
    name = steps.name
    if name in smooth.call.variables and not smooth.levels:
        if len(smooth.call.variables) == 1:
            out = out + smooth.derivative(frame)
        elif smooth.call.kind == "s":
            out = out + steps.slope(smooth.matrix, frame)
        else:
            out = out + _tensor(smooth, frame, name)
    if name == smooth.by and smooth.level is None:
        out = out + replace(smooth, by=None).matrix(frame)
    return out


def _tensor(smooth: Smooth, frame: pd.DataFrame, name: str) -> Array:
    """Of a product of curves: that of x by its slope, the others as they are."""
    out: Array | None = None
    for own, basis, moved in zip(smooth.call.variables, smooth.margins, smooth.maps, strict=True):
        part = basis.at(numeric_column(frame, own), int(own == name))
        part = part if moved is None else part @ moved
        out = part if out is None else (out[:, :, None] * part[:, None, :]).reshape(len(part), -1)
    assert out is not None
    out = out if smooth.constraint is None else out @ smooth.constraint
    if smooth.by is None:
        return np.asarray(out)
    factor = numeric_column(frame, smooth.by) if smooth.level is None else (frame[smooth.by] == smooth.level)
    return np.asarray(out * np.asarray(factor, dtype=np.float64)[:, None])
