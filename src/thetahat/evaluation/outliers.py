"""The rows that a fit finds least probable, and what they weighed in it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.selection import Alignment
from ..errors import BadArgument
from ..likelihood import LogLikelihood, Objective
from ..likelihood.robust import RobustTerm, TrimmedTerm, log_probs
from ..models.regression import Regression
from ..protocols import HasAlignment
from ..types import SourceLike


def outliers(objective: Objective, theta: Tensor, most: int | None = 10) -> pd.DataFrame:
    """The rows of largest surprise −log p(x_i | θ̂), worst first.

    Parameters
    ----------
    objective, theta
        θ̂, (p,)
    most
        how many rows; None: all

    Returns
    -------
    pd.DataFrame
        a row each, under its label in the index of a pandas table, else its number in the data from 0: weight
        (in the fit: of the density power p^β over the largest, of a trimmed fit 1 or 0, else the row's own),
        surprise (nats), and of a regression observed and expected, y and E[y]

    Raises
    ------
    BadArgument
        `most` is not a positive number, or the model's terms are not rows

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ 1", {"y": [1.0, 2.0, 3.0, 2.0, 50.0]}, robust=th.DensityPower(0.5))
    >>> outliers(fit.objective, fit.theta, 1).round(2)
       weight  surprise  observed  expected
    4     0.0   1683.13      50.0       2.0
    """
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise BadArgument(f"most={most!r}: how many rows, a whole number of at least 1; None: all.")
    objective = objective.at(theta)
    term = objective.terms[0]
    with torch.no_grad():
        surprise = -log_probs(term).numpy()
        columns = {"weight": _weights(term), "surprise": surprise}
        if isinstance(term.model, Regression) and "y" in next(iter(term.source.batches(term.model))):
            columns["observed"] = np.concatenate([b["y"].numpy() for b in term.source.batches(term.model)])
            try:
                expected = [
                    term.model.mean(b).expand(len(b)).numpy() for b in term.source.batches(term.model)
                ]
                columns["expected"] = np.concatenate(expected)
            except BadArgument:  # the family has no mean
                pass
    index = rows_of(term)
    if {len(c) for c in columns.values()} != {len(index)}:
        raise BadArgument(
            f"the terms of a {type(term.model).__name__} are not rows: outliers cannot be named."
        )
    table = pd.DataFrame(columns, index=index)
    return table.sort_values("surprise", ascending=False, kind="stable").head(
        len(table) if most is None else most
    )


def kept(objective: Objective, theta: Tensor) -> np.ndarray:
    """The rows that a trimmed fit kept: their labels in the index of a pandas table, else their numbers from
    0.

    Raises
    ------
    BadArgument
        the fit was not trimmed
    """
    objective = objective.at(theta)
    term = objective.terms[0]
    if not isinstance(term, TrimmedTerm):
        raise BadArgument(
            "every row was kept: robust=th.Trimmed(keep) leaves some out. How much each weighs: "
            "fit.outliers(None)."
        )
    return rows_of(term)[term.kept().numpy()].to_numpy()


def alignment_of(source: SourceLike) -> Alignment:
    """Where the rows of a source stand among those that were given; of another source than a table, its
    rows are those."""
    own = source.alignment if isinstance(source, HasAlignment) else None
    return own if own is not None else Alignment(source.size or 0)


def rows_of(term: LogLikelihood) -> pd.Index:
    """The label of each row that was fitted: of a pandas table's index, else its number in the data from
    0."""
    alignment = alignment_of(term.source)
    if alignment.size:
        return alignment.rows
    return pd.RangeIndex(sum(len(batch) for batch in term.source.batches(term.model)))


def _weights(term: LogLikelihood) -> np.ndarray:
    if isinstance(term, RobustTerm):
        return term.row_weights().numpy()
    parts = [(term.weight(b), len(b)) for b in term.source.batches(term.model)]
    return torch.cat(
        [
            torch.ones(n, dtype=torch.float64) if w is None else w.to(torch.float64).reshape(-1)
            for w, n in parts
        ]
    ).numpy()
