"""The sum of squared scores: what a sandwich has on its inside, by rows, by the groups of a batch, or by
clusters.

    K = Σ_u s_u s_uᵀ,      s_u = Σ_{i in unit u} c_i w_i s_i

c is the count (an observation seen c times is c units), w the weighting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..likelihood import Information, LogLikelihood, Objective, total
from ..models.information import Factor
from ..models.regression import Regression
from ..models.sparse_rows import row_dots
from ..protocols import Together
from ..types import Level
from .bread import Inverse
from .cluster_scores import sharing, sums_there, unit_scores
from .clusters import ClusterColumn, Labels, held


def meat(objective: Objective) -> Information:
    """K = Σ c w² s sᵀ over independent units: rows, or the groups that the batches name.

    Terms over one source share its rows, so their scores add before they are squared.
    """
    out: Information | None = None
    for terms in sharing(objective):
        term = terms[0]
        by_row = isinstance(term.scored, Regression) and not isinstance(term.scored, Together)
        outer = term.scored.outer if by_row else None
        first = next(iter(term.source.batches(term.model)))
        if first.grouped:
            U = _sums(
                objective, terms, lambda batch, start: batch.group.reshape(len(batch), -1)[:, 0].numpy()
            )
            part = Information(U.T @ U)
        elif outer is not None and len(terms) == 1 and len(first.shape) == 1:
            part = total(_squared(term, outer), term.source, term.model)
            part = _spread(objective, part, objective.positions(term.model))
        else:
            units = unit_scores(objective, terms)
            part = Information(total(partial(_outer, units), term.source, term.model))
        out = part if out is None else out + part
    assert out is not None
    return out


def _spread(objective: Objective, part: Information, at: Tensor) -> Information:
    """A model's own K among the coordinates of the objective's θ."""
    if len(at) == objective.size and bool((at == torch.arange(len(at))).all()):
        return part
    A = torch.zeros(objective.size, objective.size, dtype=torch.float64)
    A[at[:, None], at] = part.dense()
    return Information(A)


def _squared(
    term: LogLikelihood, outer: Callable[[Batch, Tensor | None], Information]
) -> Callable[[Batch], Information]:
    return lambda batch: outer(batch, _meat_weight(term, batch))


def _meat_weight(term: LogLikelihood, batch: Batch) -> Tensor | None:
    """c · w²."""
    weight = term.weight(batch)
    return (
        weight
        if weight is None or term.weights is None
        else torch.where(batch.count > 0, weight**2 / batch.count, 0.0)
    )


def _outer(units: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    s = units(batch)
    if batch.counted and len(batch.shape) == 1:  # a row counted c times is c units, not one of weight c
        count = batch.count.to(torch.float64)
        return s.T @ (s * torch.where(count > 0, 1 / count, 0.0)[:, None])
    return s.T @ s


def _sums(
    objective: Objective, terms: list[LogLikelihood], label: Callable[[Batch, int], np.ndarray]
) -> Tensor:
    """u_g = Σ_{i in g} c w s, a row a group. `label(batch, first row)` names the group of each row."""
    found: dict[Level, int] = {}
    parts: list[tuple[Tensor, Tensor]] = []
    units = unit_scores(objective, terms)
    for start, batch in numbered(objective, terms[0]):
        own = label(batch, start)
        codes = torch.tensor([found.setdefault(g, len(found)) for g in own.tolist()], dtype=torch.long)
        here, back = torch.unique(codes, return_inverse=True)
        s = units(batch)
        parts.append((here, torch.zeros(len(here), s.shape[1], dtype=s.dtype).index_add_(0, back, s)))
    out = torch.zeros(len(found), objective.size, dtype=torch.float64)
    for here, sums in parts:
        out.index_add_(0, here, sums)
    return out


def numbered(objective: Objective, term: LogLikelihood) -> Iterator[tuple[int, Batch]]:
    """Batches, cut so that their scores (n, p) stay small, and the number of their first row."""
    start, step = 0, max(256, 2**24 // max(objective.size, 1))
    if isinstance(term.model, Together):  # a part of the rows has other scores
        step = max(1, term.source.size or 1)
    for batch in term.source.batches(term.model):
        for at in range(0, len(batch), step):
            yield start + at, batch[at : at + step]
        start += len(batch)


def cluster_sums(objective: Objective, clusters: Sequence[Labels], p: int) -> list[tuple[float, Tensor]]:
    """(f, U), U (G, p) the score of each cluster: K = Σ f UᵀU. By two columns K_A + K_B − K_{A∩B}, each with
    its own f.

    f = G/(G − 1) · (n − 1)/(n − p), n = Σ c
    """
    names = [c.name for c in clusters if isinstance(c, ClusterColumn)]
    found = sums_there(objective, names) if names else list(_sums_here(objective, clusters))
    n = objective.observations
    if n <= p:
        raise BadArgument(
            f"{n:g} observations and {p} coefficients leave no degree of freedom for the cluster's "
            "small-sample factor."
        )
    out = []
    for i, U in enumerate(found):
        groups = len(U)
        out.append(((-1.0 if i == 2 else 1.0) * (groups / (groups - 1)) * ((n - 1) / (n - p)), U))
    return out


def _sums_here(objective: Objective, clusters: Sequence[Labels]) -> Iterator[Tensor]:
    """U of each column of labels, and of two that of their combinations."""
    labels = [codes_of(objective, c) for c in held(clusters, "by") or ()]
    if len(labels) == 2:
        labels.append(np.unique(np.stack(labels), axis=1, return_inverse=True)[1].reshape(-1))
    for codes in labels:
        U = torch.zeros(int(codes.max()) + 1, objective.size, dtype=torch.float64)
        for terms in sharing(objective):
            units = unit_scores(objective, terms)
            for start, batch in numbered(objective, terms[0]):
                U.index_add_(0, torch.from_numpy(codes[start : start + len(batch)]), units(batch))
        yield U


def codes_of(objective: Objective, labels: np.ndarray) -> np.ndarray:
    """Cluster labels as codes 0 … G − 1, one a row of every source.

    Raises
    ------
    BadArgument
        not one label a row, a missing label, or fewer than two clusters
    """
    labels = np.asarray(labels).reshape(-1)
    rows = {t[0].source.size for t in sharing(objective)}
    if rows != {len(labels)}:
        raise BadArgument(
            f"by has {len(labels)} labels, and the fit {', '.join(map(str, rows))} rows: one label a row."
        )
    codes, seen = pd.factorize(labels)
    if (codes < 0).any():
        raise BadArgument(
            f"by is missing in row {int(np.flatnonzero(codes < 0)[0])} of those that were fitted. Every row "
            "needs a cluster."
        )
    if len(seen) < 2:
        raise BadArgument(f"by has one value only ({seen[0]!r}): a covariance needs several clusters.")
    return codes


def sandwich_diagonal(factor: Factor | Inverse, K: Information) -> Tensor:
    """diag J⁻¹ K J⁻¹ by the blocks of both.

    With R = E D⁻¹ and S the Schur complement, J⁻¹ = F + Pᵀ S⁻¹ P, F = diag(0, D⁻¹), P = [I, −Rᵀ]. K has the
    same zero pattern as J (two levels of a category never meet in a row), so every product below is (L, m) or
    smaller.
    """
    inner = reduced(factor, K)
    if inner is None:
        B = factor.inverse()
        return ((B @ K.dense()) * B).sum(1)
    assert isinstance(factor, Factor)
    J, R = factor.information, factor.ratio
    assert J.D is not None
    assert K.D is not None
    assert K.E is not None
    assert R is not None
    small = factor._solve_small(torch.eye(len(factor.L), dtype=factor.L.dtype))  # S⁻¹
    middle = small @ inner @ small
    out = J.A.new_empty(J.size)
    out[J.kept()] = middle.diagonal()
    own = K.E - R * K.D[:, None]  # type: ignore[operator]
    out[J.eliminated] = K.D / J.D**2 - 2 * row_dots(own, small, R) / J.D + row_dots(R, middle, R)
    return out


def reduced(factor: Factor | Inverse, K: Information) -> Tensor | None:
    """P K Pᵀ, (m, m), with P = [I, −Rᵀ], R = E D⁻¹; None where nothing is eliminated."""
    if (
        isinstance(factor, Inverse)
        or factor.ratio is None
        or K.D is None
        or K.E is None
        or K.eliminated != factor.information.eliminated
    ):
        return None
    R = factor.ratio
    return K.A - R.T @ K.E - K.E.T @ R + R.T @ (R * K.D[:, None])  # type: ignore[operator]
