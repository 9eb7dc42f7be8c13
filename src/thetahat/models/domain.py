"""The domain of a regression: the θ for which every row's linear predictors lead into the ranges of its
parameters.

    C θ ≥ d,      a row of C for each row of the data and each end that its η may not pass:  x_i θ + o_i ≥ low,  x_i θ + o_i ≤ high

Where a link maps every η into the range (log for a Poisson mean) there is no such row. Where it does not
(identity), a fit begins inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.source import Source
from ..errors import DataError
from ..families.base import Parameter
from ..families.ranges import ROUNDING
from ..protocols import rows_kept
from ..types import Plain

if TYPE_CHECKING:
    from .regression import Regression

DENSE = 0.2  # share of entries of C that are not zero, above which it is kept dense
STRICT = 1e-9  # of the typical slack: a least slack below it is none


@dataclass(frozen=True)
class Domain:
    """C θ ≥ d.

    Parameters
    ----------
    C
        (m, p), dense or sparse
    d
        (m,)
    row
        (m,) the row of the data
    what
        (m,) the end, in words: "mean ≤ 1"
    closed
        (m,) whether the end itself is allowed: it belongs to the range, and the row's y is possible there
    typical
        (m,) the slack of a constant η from which a family would begin
    """

    C: Plain
    d: np.ndarray
    row: np.ndarray
    what: np.ndarray
    closed: np.ndarray
    typical: np.ndarray

    def slack(self, theta: Tensor | np.ndarray) -> np.ndarray:
        """C θ − d, (m,)."""
        out: np.ndarray = np.asarray(self.C @ np.asarray(theta)).reshape(-1) - self.d
        return out

    def contains(self, theta: Tensor | np.ndarray) -> bool:
        """Whether θ is in the domain, a closed end reached to rounding included."""
        slack = self.slack(theta)
        return bool((slack >= np.where(self.closed, -0.5 * ROUNDING, np.finfo(float).tiny)).all())

    def rows_of(self, which: np.ndarray) -> np.ndarray:
        """Those rows of C, dense."""
        return _dense(self.C[which])

    def gram(self, weight: np.ndarray) -> np.ndarray:
        """Cᵀ diag(w) C, (p, p)."""
        if isinstance(self.C, np.ndarray):
            out: np.ndarray = self.C.T @ (self.C * weight[:, None])
            return out
        return _dense(self.C.T @ self.C.multiply(weight[:, None]).tocsr())


def domain_of(model: Regression, source: Source) -> Domain | None:
    """The domain over a source's rows of positive count; None where every θ is in it.

    Raises
    ------
    DataError
        a row has a parameter outside its range whatever θ
    """
    bounded = [p for p in model.predictors if p.spec.limits.finite]
    if not bounded:
        return None
    from scipy import sparse  # takes long to load: only where it is needed

    values = dict(zip(model.family.parameters, model.begin(source), strict=True))
    C, d, row, what, closed, typical = [], [], [], [], [], []
    seen = 0
    for batch in source.batches():
        used = np.asarray(batch.count > 0) if batch.counted else np.ones(len(batch), dtype=bool)
        for p in bounded:
            X, limits = p.placed(batch, model.layout.size)[used], p.spec.limits
            offset = batch.tensors.get(f"offset{p.slot}")
            o = np.zeros(len(batch)) if offset is None else offset.numpy().astype(float)
            eta = float(p.spec.link(torch.tensor(float(values[p.parameter]), dtype=torch.float64)))
            for end, sign, k in ((limits.low, 1.0, 0), (limits.high, -1.0, 1)):
                if not np.isfinite(end):
                    continue
                C.append(sign * X)
                d.append(sign * (end - o[used]))
                row.append(seen + np.flatnonzero(used))
                what.append(np.full(int(used.sum()), _words(p.parameter, p.spec, limits.ends[k], end, sign)))
                possible = torch.full((len(batch),), limits.closed[k])
                if limits.closed[k] and limits.ends[k]:
                    place = list(model.family.parameters).index(p.parameter)
                    possible = ~model.family.impossible(
                        batch["y"], place, limits.ends[k] > 0, **model.extras(batch)
                    )
                closed.append(possible.numpy()[used])
                begin = sign * (eta - end)
                typical.append(np.full(int(used.sum()), begin if begin > 0 else 1.0))
        seen += len(batch)
    whole = sparse.vstack(C).tocsr()
    whole = whole if whole.nnz < DENSE * np.prod(whole.shape) else _dense(whole)
    found = Domain(whole, *(np.concatenate(part) for part in (d, row, what, closed, typical)))
    return _moving(found, source)


def _dense(rows: Plain) -> np.ndarray:
    return rows if isinstance(rows, np.ndarray) else np.asarray(rows.todense())


def _words(parameter: str, spec: Parameter, end: int, eta: float, sign: float) -> str:
    """An end that may not be passed, in words."""
    if end:
        return f"{parameter} {'≤' if end > 0 else '≥'} {spec.range.high if end > 0 else spec.range.low:g}"
    return f"linear predictor of {parameter} {'≥' if sign > 0 else '≤'} {eta:g}"


def _moving(domain: Domain, source: Source) -> Domain:
    """Without the constraints that no θ changes (a row whose columns are all zero), once they are seen to
    hold."""
    size = _dense(abs(domain.C).max(axis=1)).reshape(-1) if domain.C.shape[1] else np.zeros(len(domain.d))
    still = size == 0
    if not still.any():
        return domain
    lost = still & ((-domain.d < -ROUNDING) | (~domain.closed & (domain.d >= 0)))
    if lost.any():
        raise DataError(
            f"{_listed(domain, lost, source)}: no coefficient changes that row's linear predictor, and its "
            f"value breaks {domain.what[lost][0]}. "
            "Add an intercept or an offset, or choose a link that maps every linear predictor into the range."
        )
    kept = ~still
    return Domain(
        domain.C[kept],
        domain.d[kept],
        domain.row[kept],
        domain.what[kept],
        domain.closed[kept],
        domain.typical[kept],
    )


def _listed(domain: Domain, which: np.ndarray, source: Source) -> str:
    """The rows of some constraints, as the user counts them."""
    rows = np.unique(user_rows(source, domain.row[which]))
    listed = ", ".join(map(str, rows[:8])) + (f", … ({len(rows)} in all)" if len(rows) > 8 else "")
    return f"{'row' if len(rows) == 1 else 'rows'} {listed}"


def user_rows(source: Source, rows: np.ndarray) -> np.ndarray:
    """Rows of the source, counted in the user's table, of which incomplete ones were dropped."""
    kept = rows_kept(source)
    return rows if kept is None else kept.nonzero()[0][rows]


# ---- a θ inside --------------------------------------------------------------------------------------------


def interior(domain: Domain, theta: Tensor, source: Source) -> Tensor:
    """A θ inside the domain, the given one if it is; on those constraints that no θ satisfies with slack, if
    there are any.

    By the linear programme  maximise t  subject to  Cθ − d ≥ t·typical,  t ≤ 1,  repeated with the
    constraints that hold t at 0 as equalities.

    Raises
    ------
    DataError
        no θ gives every row parameters in their ranges
    """
    if (domain.slack(theta) > 1e-6 * domain.typical).all():
        return theta
    pinned = np.zeros(len(domain.d), dtype=bool)
    while True:
        t, inside, binding = _roomiest(domain, pinned)
        if t > STRICT:
            break
        known, pinned = pinned, pinned | binding
        if t < -STRICT or not domain.closed[pinned].all():
            raise DataError(
                "no coefficients give every row parameters in their ranges: "
                f"{_listed(domain, pinned, source)} cannot all satisfy "
                f"{' and '.join(sorted(set(domain.what[pinned])))}. Add an intercept, leave out a row or an "
                "offset, or choose a link that maps "
                "every linear predictor into the range, such as log for a positive mean or logit for a "
                "probability."
            )
        if pinned.all() or (pinned == known).all():
            break
    return torch.from_numpy(inside)


def _roomiest(domain: Domain, pinned: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The largest least slack t against the typical one, the θ that has it, and the constraints that bind
    it."""
    from scipy import sparse
    from scipy.optimize import linprog

    C = sparse.csr_matrix(domain.C)
    unit = np.maximum(_dense(abs(C).max(axis=0)).reshape(-1), 1e-300)
    C = C @ sparse.diags(1 / unit)
    p, free = C.shape[1], ~pinned
    found = linprog(
        np.concatenate([np.zeros(p), [-1.0]]),
        A_ub=sparse.hstack([-C[free], sparse.csr_matrix(domain.typical[free, None])]).tocsr(),
        b_ub=-domain.d[free],
        A_eq=sparse.hstack([C[pinned], sparse.csr_matrix((int(pinned.sum()), 1))]).tocsr()
        if pinned.any()
        else None,
        b_eq=domain.d[pinned] if pinned.any() else None,
        bounds=[(None, None)] * p + [(None, 1.0)],
        method="highs",
    )
    if found.x is None:
        return -np.inf, np.zeros(p), free
    binding = np.zeros(len(domain.d), dtype=bool)
    binding[np.flatnonzero(free)[np.abs(found.ineqlin.marginals) > 1e-9]] = True
    return float(found.x[-1]), found.x[:-1] / unit, binding
