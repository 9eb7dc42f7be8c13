"""Average marginal effects on the mean: what a coefficient means where the link bends.

    numbers      AME_x = 1/N · Σ_i c_i ∂E[y_i]/∂x_i
    categories   AME_a = 1/N · Σ_i c_i (E[y_i | every row at level a] − E[y_i | every row at the reference])

The data are encoded anew with x changed, so that x² , splines, interactions and offsets of x move with it.
Errors by the delta method: ∂AME/∂θ is the same combination of the gradients of the means, summed row by row.

References
----------
Bartus (2005), Estimation of marginal effects using margeff, Stata Journal 5; Williams (2012), Using the
margins command.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from torch import Tensor

from ..data.batch import Batch
from ..data.columns import is_categorical, numeric_column
from ..data.expressions import column as column_called
from ..data.table import Table
from ..errors import BadArgument, UnknownColumn
from ..inference.covariance import Clusters, Covariance, prepare
from ..inference.natural import own_places
from ..likelihood import Objective
from ..models.regression import Regression
from ..protocols import Steers
from ..types import Data, Level, Levels
from .fitted_values import eta_of, extras_of, free_of, natural_at, with_slopes

STEP = 1e-3  # of a standard deviation: the five-point rule then errs by STEP⁴, and rounding by 10⁻¹³
# f′(x) ≈ Σ_k w_k f(x + kh)/h, k = −2 … 2 and k = 0 … 4: Abramowitz and Stegun 25.3.6, table 25.2
CENTRAL = (1 / 12, -8 / 12, 0.0, 8 / 12, -1 / 12)
FORWARD = (-25 / 12, 4.0, -3.0, 4 / 3, -1 / 4)

Change = Callable[
    [pd.DataFrame], Iterator[tuple[pd.DataFrame, np.ndarray]]
]  # rows, encoded anew, and the weight of each


def effects(
    objective: Objective,
    theta: Tensor,
    variables: Sequence[str] | None = None,
    *,
    kind: str | Covariance = "observed",
    clusters: Clusters = None,
) -> pd.DataFrame:
    """Average marginal effects of columns on E[y].

    Parameters
    ----------
    objective, theta
        θ̂, (p,)
    variables
        columns; None: all that the formulas read, those that are offsets alone left out
    kind, clusters
        the covariance of θ̂ (`inference.covariance`)

    Returns
    -------
    pd.DataFrame
        a row an effect (a number: its name; a category: name[level], against its first level); columns
        effect, standard_error, z, p_value. z is effect / standard_error, and p that of Student's t where the
        covariance has degrees of freedom. Effects are per unit of the column, on the scale of the response as
        the formula writes it.

    Raises
    ------
    BadArgument
        the model is no regression on a table, or its family has no mean
    UnknownColumn
        a variable that no formula reads
    """
    objective = objective.at(theta)
    model = objective.model
    source = objective.terms[0].source
    if isinstance(model, Steers):
        raise BadArgument(
            "average marginal effects of a mixed model are averages over its random effects too, and are not computed. The "
            "difference of two fit.predict(data, groups='average') is an effect at random effects of 0."
        )
    if not isinstance(model, Regression) or not isinstance(source, Table) or len(objective.terms) != 1:
        raise BadArgument(
            "marginal effects are of a formula fitted to a table: a model of one's own has no columns to "
            "change."
        )
    if not model.family.has("expectation"):
        raise BadArgument(
            f"{model.family} has no mean, on which an effect would be. Compare predict(what='probabilities')."
        )
    known = _columns(model)
    for name in variables or ():
        if name not in model.encoder.predictors:
            raise UnknownColumn.named(name, known, where="effects")
    found = {}
    for name in variables or known:
        found.update(_changes(source, model, name))
    values, gradients = _averages(source, model, found)
    G = torch.zeros(len(found), objective.size, dtype=torch.float64)
    G[:, own_places(objective)] = gradients
    V = prepare(objective, kind, clusters)
    errors = V.diagonal(G).sqrt()
    z = (values / errors).numpy()
    p = 2 * student.sf(np.abs(z), V.freedom(G).numpy())
    out = {"effect": values.numpy(), "standard_error": errors.numpy(), "z": z, "p_value": p}
    return pd.DataFrame(out, index=pd.Index(list(found), name="variable"))


def _columns(model: Regression) -> list[str]:
    """The columns that the designs read, those of offsets alone left out, in the order of the formula."""
    seen: dict[str, None] = {}
    for design in model.encoder.designs:
        seen |= dict.fromkeys(design.numeric)
        if design.dense is not None:
            read = {column_called(str(v)) for v in design.dense.variables}  # functions among them
            seen |= dict.fromkeys(name for name in design.required if name in read)
        for term in design.coded:
            seen |= dict.fromkeys([*(name for name, _, _ in term.factors), *term.numeric])
    return [name for name in seen if name in model.encoder.predictors]


# ---- the changes -------------------------------------------------------------------------------------------


def _changes(source: Table, model: Regression, name: str) -> dict[str, Change]:
    """Label → how the rows are changed and weighed."""
    coded = next(
        (own for d in model.encoder.designs for t in d.coded for n, own, _ in t.factors if n == name), None
    )
    levels = coded or _levels(source, model, name)
    if levels is None:
        return {name: _derivative(source, name)}
    return {f"{name}[{level}]": _difference(name, levels[0], level) for level in levels[1:]}


def _levels(source: Table, model: Regression, name: str) -> Levels | None:
    """The levels of a column that is a category, or that a formula takes as one (C(x, contr.sum)); None:
    it is a number."""
    column = next(source.frames())[name]
    written = False
    for spec in (d.dense for d in model.encoder.designs if d.dense is not None):
        kinds = {expression: state[0].value for expression, state in spec.encoder_state.items()}
        for factor, read in spec.factor_variables.items():
            written = written or (
                kinds.get(str(factor)) == "categorical" and name in {column_called(str(v)) for v in read}
            )
    if not (written or column.dtype == bool or is_categorical(column, name)):
        return None
    seen = {v for frame in source.frames() for v in pd.unique(frame[name])}
    declared = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else sorted(seen)
    return tuple(v for v in declared if v in seen)


def _difference(name: str, reference: Data, level: Level) -> Change:
    def change(frame: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        for value, sign in ((level, 1.0), (reference, -1.0)):
            column = pd.Series([value] * len(frame), index=frame.index)
            yield frame.assign(**{name: column.astype(frame[name].dtype)}), np.full(len(frame), sign)

    return change


def _derivative(source: Table, name: str) -> Change:
    """Each row's own step: at most a quarter of |x|, so that log x and √x keep their domain, and never beyond
    the values that were fitted, where a spline is not defined: there the five points are on one side."""
    values = np.concatenate([numeric_column(frame, name) for frame in source.frames()])
    low, high = float(values.min()), float(values.max())
    spread = float(values.std()) or abs(float(values.mean())) or 1.0
    step = min(STEP * spread, (high - low) / 8 or math.inf)

    def change(frame: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        x = numeric_column(frame, name)
        h = np.where(x == 0, step, np.minimum(step, np.abs(x) / 4))
        side = np.where(low == high, 0, np.where(x - 2 * h < low, 1, np.where(x + 2 * h > high, -1, 0)))
        for k in range(5):
            place = np.where(side == 0, k - 2, np.where(side > 0, k, -k))
            weight = np.where(side == 0, CENTRAL[k], side * FORWARD[k])
            yield (
                frame.assign(**{name: np.clip(x + place * h, low, high) if low < high else x + place * h}),
                weight / h,
            )

    return change


# ---- the averages ------------------------------------------------------------------------------------------


def _averages(source: Table, model: Regression, changes: dict[str, Change]) -> tuple[Tensor, Tensor]:
    """Σ c w E[y] / N for each change, and its gradient in θ, (m,) and (m, p)."""
    values = torch.zeros(len(changes), dtype=torch.float64)
    gradients = torch.zeros(len(changes), model.layout.size, dtype=torch.float64)
    for frame in source.frames():
        count = source.encoder.encode(frame).count.to(torch.float64)
        for i, change in enumerate(changes.values()):
            for rows, weight in change(frame):
                batch = source.encoder.encode(rows, response=False)
                value, gradient = _sum_of_means(model, batch, count * torch.from_numpy(weight))
                values[i] += value
                gradients[i] += gradient
    return values / source.total, gradients / source.total


def _sum_of_means(model: Regression, batch: Batch, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Σ w E[y], and its gradient in θ, (p,)."""
    extras = extras_of(model, batch)
    eta = [e.detach() for e in eta_of(model, batch)]
    mean, slopes = with_slopes(
        lambda *e: model.family.expectation(*natural_at(model.family, e), **extras), eta
    )
    gradient = torch.zeros(model.layout.size, dtype=torch.float64)
    for predictor, s in zip(model.predictors, free_of(model, slopes), strict=True):
        predictor.pull(batch, weight * s, gradient)
    return (weight * mean).sum(), gradient
