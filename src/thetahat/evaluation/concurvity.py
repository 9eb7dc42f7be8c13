"""Concurvity: how far the curve of one term could be made of those of others, as columns can be collinear.

    of a term with columns X and curve f = Xβ̂, P the projection on the columns of the others:

    worst      max_b |PXb|² / |Xb|²          observed   |Pf|² / |f|²          estimate   |PX|² / |X|²  (Frobenius)

0: nothing of it; 1: all of it, so that the terms cannot be told apart.

Source: Wood (2017), Generalized Additive Models, 2nd ed.; concurvity() of R's mgcv, whose figures of smooth terms
these are. Its "para" is the intercept alone; here it is every column outside smooth terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import BadArgument
from ..likelihood import Objective
from ..models.mixed import predictor_columns
from .known_groups import Known, known
from .modes import rows_of, whole
from .smooth_terms import terms_of

MEASURES = ("worst", "observed", "estimate")
PARAMETRIC = "parametric"
RANK = 1e-10  # of the largest singular value: below it a column is made of the others


def concurvity(objective: Objective, full: bool = True, parameter: str | None = None) -> pd.DataFrame:
    """Of each smooth term, and of the parametric columns together.

    Parameters
    ----------
    full
        with all the other terms: a row a term, columns worst, observed, estimate. False: with each other term alone, a row
        (measure, other term) and a column a term
    parameter
        of the family, whose terms they are; None: its first

    Raises
    ------
    BadArgument
        that parameter has no smooth terms
    """
    given, _ = known(objective)
    model = given.model
    assert isinstance(model, Known)
    parameter = model.mixed.regression.predictors[0].parameter if parameter is None else parameter
    terms = [term for term in terms_of(model) if term.random.parameter == parameter]
    if not terms:
        having = ", ".join(dict.fromkeys(term.random.parameter for term in terms_of(model)))
        raise BadArgument(f"parameter={parameter!r} has no smooth terms. Accepted: {having}.")
    frame, theta = rows_of(objective.terms[0].source), model.all.detach().numpy()
    p = next(q for q in model.mixed.regression.predictors if q.parameter == parameter)
    free = np.concatenate([term.places[: len(term.curve.names)] for term in terms]).astype(int)
    kept = np.setdiff1d(np.arange(p.start, p.start + p.size), free)
    names, columns, curves = [], [], []
    if len(kept):
        names, columns = [PARAMETRIC], [predictor_columns(p, whole(objective))[:, kept - p.start]]
        curves = [columns[0] @ theta[kept]]
    for term in terms:
        names.append(term.label)
        columns.append(term.columns(frame))
        curves.append(columns[-1] @ term.coefficients(theta))
    if full:
        rows = [
            _measures(X, f, [other for j, other in enumerate(columns) if j != i])
            for i, (X, f) in enumerate(zip(columns, curves, strict=True))
        ]
        return pd.DataFrame(rows, index=pd.Index(names, name="term"), columns=list(MEASURES))
    found = np.ones((len(MEASURES), len(names), len(names)))
    for i, other in enumerate(columns):
        for j, (X, f) in enumerate(zip(columns, curves, strict=True)):
            if i != j:
                found[:, i, j] = _measures(X, f, [other])
    parts = [pd.DataFrame(table, index=names, columns=names) for table in found]
    return pd.concat(parts, keys=MEASURES, names=["measure", "with"])


def _measures(X: np.ndarray, f: np.ndarray, others: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Worst, observed and estimate; 0 where there is nothing else."""
    if not others:
        return 0.0, 0.0, 0.0
    Q = _orthonormal(np.hstack(others))
    worst = float(np.linalg.svd(Q.T @ _orthonormal(X), compute_uv=False)[0] ** 2)
    size = float(f @ f)
    observed = float(((Q.T @ f) ** 2).sum()) / size if size > 0 else np.nan
    return min(worst, 1.0), observed, float(((Q.T @ X) ** 2).sum() / (X**2).sum())


def _orthonormal(X: np.ndarray) -> np.ndarray:
    U, d, _ = np.linalg.svd(X, full_matrices=False)
    return np.asarray(U[:, d > RANK * d[0]])
