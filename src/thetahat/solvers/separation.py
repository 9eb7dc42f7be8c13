"""Separation: directions of θ along which no row ever becomes less probable, found by linear programming.

For each row the family names a cone of η-directions along which log p(y | η) never falls (y = 0 of a Poisson:
η ↓; y > 0: none). With η = Xθ the directions δ of θ that lie in every row's cone are

    { δ : A_i X_i δ ≥ 0,  and = 0 where the row is pinned }

If one of them makes some row strictly more probable, the likelihood has no maximum: every multiple of δ is
better. The linear programme

    maximise Σ t_i   subject to   A_i X_i δ ≥ t_i,   0 ≤ t_i ≤ 1

has t_i = 1 exactly on the rows that *any* such direction separates: the set is found whole, at once.

References
----------
Albert and Anderson (1984), On the existence of maximum likelihood estimates in logistic regression models;
Correia, Guimarães and Zylkin (2019), Verifying the existence of maximum likelihood estimates for generalized
linear models; Konis (2007), Linear programming algorithms for detecting separated data in binary logistic
regression models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..models.regression import Predictor, Regression

WORKING = 20_000  # inequalities in one linear programme; more are added as they are violated
TINY = 1e-9


@dataclass(frozen=True)
class Separation:
    """The direction δ, (p,), and the rows that it separates, counted among the rows that the fit used."""

    direction: np.ndarray
    rows: np.ndarray
    complete: bool  # every row separated: complete separation


def separation(model: Regression, source: Source, held: np.ndarray | None = None) -> Separation | None:
    """The separated rows, or None: then the likelihood of a concave family has a maximum.

    Only families that know their recession cones (`Family.recession`) are examined. `held`, (p,), are
    coordinates of θ along which no direction goes, since a prior holds them.
    """
    inequality, owner, equality = [], [], []
    seen = counted = 0
    for batch in source.batches():
        cone = model.family.recession(batch["y"], **model.extras(batch))
        if cone is None:
            return None
        A, pinned = _on_links(model, *cone)
        used = np.asarray(batch.count > 0) if batch.counted else np.ones(len(batch), dtype=bool)
        for m in range(A.shape[1]):
            rows = sparse.csr_matrix((len(batch), model.layout.size))
            for j, p in _free(model):
                if bool((A[:, m, j] != 0).any()):
                    rows = rows + sparse.diags(A[:, m, j].numpy()) @ p.placed(batch, model.layout.size)
            fixed = pinned[:, m].numpy()
            inequality.append(rows[used & ~fixed])
            owner.append(seen + np.flatnonzero(used & ~fixed))
            equality.append(rows[used & fixed])
        seen += len(batch)
        counted += int(used.sum())
    if model.family.recession(batch["y"], **model.extras(batch)) is None:
        return None
    if held is not None and held.any():
        equality.append(sparse.eye(model.layout.size).tocsr()[np.flatnonzero(held)])
    return _solve(
        sparse.vstack(inequality).tocsr(),
        np.concatenate(owner),
        _distinct(sparse.vstack(equality).tocsr()),
        counted,
    )


def levels_separated(model: Regression, source: Source, held: np.ndarray) -> Separation | None:
    """Of the separated rows those of whole levels of a category (all y = 0 of a Poisson's), found by a sum over the rows of
    each: what is looked for where a linear programme of all coordinates would be too large.

    A level is separated along its own coordinate; the reference level along the constant, and every other level against it.
    """
    parts: list[_Cone] = []
    for batch in source.batches():
        cone = model.family.recession(batch["y"], **model.extras(batch))
        if cone is None:
            return None
        A, pinned = _on_links(model, *cone)
        used = batch.count.numpy() > 0 if batch.counted else np.ones(len(batch), dtype=bool)
        parts.append(_Cone(batch, A.numpy(), pinned.numpy(), used))
    direction, found = (
        np.zeros(model.layout.size),
        np.zeros(sum(len(part.used) for part in parts), dtype=bool),
    )
    for j, p in _free(model):
        for term, first, levels in p.terms:
            own = slice(first, first + levels)
            if not levels or p.design.coded[term].numeric or held[own].any():
                continue
            code = f"code{p.slot}.{term}"
            for sign in (-1.0, 1.0):
                harmed, helped = np.sum([part.counts(code, levels, j, sign) for part in parts], axis=0)
                apart = (harmed == 0) & (helped > 0)
                apart[0] &= p.design.intercept and not held[p.start]
                if apart.any():
                    direction[own] += sign * (apart[1:] - float(apart[0]))
                    direction[p.start] += sign * float(apart[0])
                    found |= np.concatenate([apart[part.batch[code].numpy()] & part.used for part in parts])
    if not found.any():
        return None
    every = bool(found[np.concatenate([part.used for part in parts])].all())
    return Separation(direction, np.flatnonzero(found), complete=every)


@dataclass(frozen=True)
class _Cone:
    """Rows, and of each the directions of its η along which it never becomes less probable: A (n, m, k), pinned (n, m)."""

    batch: Batch
    A: np.ndarray
    pinned: np.ndarray
    used: np.ndarray

    def counts(self, code: str, levels: int, j: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
        """How many rows of each level, (1 + levels,), become less probable as η_j rises (falls, of sign −1); and how many
        more, if none of their conditions is broken."""
        along, codes = sign * self.A[:, :, j], self.batch[code].numpy()
        worse = np.any((along < 0) | (self.pinned & (along != 0)), axis=1)
        better = np.any(along > 0, axis=1)
        return (
            np.bincount(codes, worse & self.used, levels + 1),
            np.bincount(codes, better & self.used, levels + 1),
        )


def _free(model: Regression) -> list[tuple[int, Predictor]]:
    """(position among the family's parameters, predictor) of those that are estimated."""
    place = {name: j for j, name in enumerate(model.family.parameters)}
    return [(place[p.parameter], p) for p in model.predictors]


def _on_links(model: Regression, A: Tensor, pinned: Tensor) -> tuple[Tensor, Tensor]:
    """The cones of the means' directions as those of η: turned where a link falls, and closed towards an end
    that η may not pass."""
    A, pinned = A.clone(), pinned.clone()
    for j, p in _free(model):
        limits = p.spec.limits
        A[:, :, j] *= 1.0 if p.spec.link.increasing else -1.0
        if math.isfinite(limits.low):
            pinned |= A[:, :, j] < 0
        if math.isfinite(limits.high):
            pinned |= A[:, :, j] > 0
    return A, pinned


def _distinct(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Equal rows once: a pinned row says the same however often it occurs."""
    if rows.shape[0] == 0:
        return rows
    rows.sort_indices()
    keys = {
        (tuple(rows.indices[a:b]), tuple(rows.data[a:b])): i
        for i, (a, b) in enumerate(zip(rows.indptr, rows.indptr[1:], strict=False))
    }
    return rows[sorted(keys.values())]


def _solve(Z: sparse.csr_matrix, owner: np.ndarray, pinned: sparse.csr_matrix, n: int) -> Separation | None:
    """Grow the set of inequalities in the programme until its solution violates none."""
    norm = np.maximum(_longest(Z), 1e-300)
    Z = sparse.diags(1 / norm) @ Z
    if pinned.shape[0]:
        pinned = sparse.diags(1 / np.maximum(_longest(pinned), 1e-300)) @ pinned
    rng = np.random.default_rng(0)
    working = (
        np.arange(Z.shape[0])
        if Z.shape[0] <= WORKING
        else np.sort(rng.choice(Z.shape[0], WORKING // 2, replace=False))
    )
    for _ in range(100):
        delta = _programme(Z[working], pinned)
        along = Z @ delta
        tolerance = TINY * max(float(np.abs(delta).max()), 1.0)
        violated = np.flatnonzero(along < -1e3 * tolerance)
        violated = np.setdiff1d(violated, working)
        if len(violated) == 0:
            break
        worst = violated[np.argsort(along[violated])[: WORKING // 2]]
        working = np.union1d(working, worst)
    up = along > 1e-6 * max(float(np.abs(delta).max()), 1e-300)
    if not up.any() or not np.abs(delta).max() > 0:
        return None
    rows = np.unique(owner[up])
    return Separation(delta, rows, complete=len(rows) == n)


def _longest(rows: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(abs(rows).max(axis=1).todense()).reshape(-1) if rows.shape[0] else np.zeros(0)


def _programme(Z: sparse.csr_matrix, pinned: sparse.csr_matrix) -> np.ndarray:
    """maximise Σ t,  Zδ ≥ t,  pinned δ = 0,  0 ≤ t ≤ 1: δ."""
    m, p = Z.shape
    left = sparse.hstack([-Z, sparse.eye(m)]).tocsr()
    equal = (
        sparse.hstack([pinned, sparse.csr_matrix((pinned.shape[0], m))]).tocsr() if pinned.shape[0] else None
    )
    found = linprog(
        np.concatenate([np.zeros(p), -np.ones(m)]),
        A_ub=left,
        b_ub=np.zeros(m),
        A_eq=equal,
        b_eq=None if equal is None else np.zeros(equal.shape[0]),
        bounds=[(None, None)] * p + [(0, 1)] * m,
        method="highs",
    )
    if found.x is None:
        return np.zeros(p)
    delta = found.x[:p]
    delta[np.abs(delta) < 1e-9 * max(np.abs(delta).max(), 1e-300)] = 0.0
    out: np.ndarray = delta
    return out
