"""Scores of units, and their sums by cluster where the rows stay in an engine, or are streamed in an order of their own.

    u_g = Σ_{i in cluster g} c_i w_i s_i

Each partition (each block) gives the sums of its own clusters, and a cluster whose rows lie in several is added up of them:
what comes back is as large as the clusters are many, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.ordered import OrderedTable
from ..data.partitioned import PartitionedTable
from ..errors import BadArgument
from ..likelihood import LogLikelihood, Objective
from ..models.taylor import scores
from ..protocols import ScoresInOrder, Together

Sums = list[pd.DataFrame]  # of each kind of cluster: a row a cluster, (G, p), under its label


def sharing(objective: Objective) -> list[list[LogLikelihood]]:
    """The terms, those over one source together."""
    groups: dict[int, list[LogLikelihood]] = {}
    for term in objective.terms:
        groups.setdefault(id(term.source), []).append(term)
    return list(groups.values())


def unit_scores(objective: Objective, terms: list[LogLikelihood]) -> Callable[[Batch], Tensor]:
    """c · w · s of each entry of a batch's first index, (n, p), summed over the terms and over the further indices of a term
    (time). Of a model that reads batches in order (`ScoresInOrder`) it is to be called with each of them in turn."""
    passes = [
        term.scored.score_pass(term.source, term.weight) if isinstance(term.scored, ScoresInOrder) else None
        for term in terms
    ]

    def of(batch: Batch) -> Tensor:
        out = torch.zeros(len(batch), objective.size, dtype=torch.float64)
        for term, own in zip(terms, passes, strict=True):
            weight = term.weight(batch)
            s = scores(term.scored, batch, weight) if own is None else own(batch, weight)
            s = s.to(torch.float64)
            if weight is not None:
                s = s * weight.reshape(-1, 1)
            each = len(s) // max(len(batch), 1)  # said, as a model without parameters leaves it open
            out[:, objective.positions(term.model)] += s.reshape(len(batch), each, s.shape[-1]).sum(1)
        return out

    return of


def sums_there(objective: Objective, names: Sequence[str]) -> list[Tensor]:
    """U of each column, and of two that of their combinations.

    Raises
    ------
    BadArgument
        a missing label, or fewer than two clusters
    """
    every = sharing(objective)
    source = every[0][0].source
    if len(every) > 1 or not isinstance(source, PartitionedTable | OrderedTable):
        raise BadArgument("by names a column of rows in an engine, and the objective has other rows besides.")
    keys = [[name] for name in names] + ([list(names)] if len(names) == 2 else [])
    step = max(256, 2**24 // max(objective.size, 1))
    together = isinstance(every[0][0].model, Together)  # a part of a batch has other scores
    scores_of = unit_scores(objective, every[0])

    def of(batch: Batch, beside: pd.DataFrame) -> Sums:
        _refuse_missing(beside)
        own = len(batch) if together else step
        s = np.concatenate([scores_of(batch[a : a + own]).numpy() for a in range(0, len(batch), own)])
        return [_by_label(pd.DataFrame(s, index=_index(beside, key))) for key in keys]

    found = source.fold_beside(names, of, _joined)
    for name, sums in zip(names, found, strict=False):
        if len(sums) < 2:
            raise BadArgument(
                f"by={name!r}: the column has one value only, and errors need several clusters."
            )
    return [torch.from_numpy(sums.to_numpy(dtype=np.float64, copy=True)) for sums in found]


def _index(beside: pd.DataFrame, key: list[str]) -> pd.Index:
    columns = [beside[name].astype(object) for name in key]
    return pd.Index(columns[0]) if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)


def _by_label(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby(level=list(range(rows.index.nlevels)), sort=False).sum()


def _joined(a: Sums, b: Sums) -> Sums:
    return [_by_label(pd.concat([one, other])) for one, other in zip(a, b, strict=True)]


def _refuse_missing(beside: pd.DataFrame) -> None:
    for name in beside:
        missing = np.flatnonzero(beside[name].isna())
        if len(missing):
            raise BadArgument(
                f"by={name!r}: the column is missing in row {beside.index[missing[0]]}, which was fitted. Every row needs "
                "a cluster."
            )
