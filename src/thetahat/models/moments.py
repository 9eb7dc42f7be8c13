"""Variances of random effects by the method of moments: where the iterations of a normal mixed model begin.

    s_k = Σ_l (z_klᵀWr)² / g_kl,     g_kl = z_klᵀWz_kl,        of each effect k, summed over its groups l
    E s_k ≈ σ² L_k + Σ_j τ_j² Σ_l Σ_m (z_klᵀWz_jm)² / g_kl,     E rᵀWr ≈ σ² n + Σ_j τ_j² Σ_m g_jm

r are the residuals of least squares, whose fixed effects are not counted. One linear equation an effect, and one for σ².

Source: Henderson (1953), Estimation of variance and covariance components, method 1; Searle, Casella and McCulloch
(1992), Variance Components, §5.3.
"""

from __future__ import annotations

import numpy as np

from .blocks import Array
from .elimination import Cross
from .gram import Bordered


def moments(cross: Cross, first: Array | None, rest: Array, yy: float, n: float) -> Array | None:
    """σ², then τ² of each effect: of the eliminated factor, then of the further terms; None where they are not determined.

    Parameters
    ----------
    first, rest
        ZᵀWr, (q, L) and (m, …)
    yy
        rᵀWr
    n
        Σ w
    """
    columns = cross.columns
    if cross.G00 is None or len(columns.random) > len(columns.sparse_terms):  # smooth terms have no groups
        return None
    places = [
        np.arange(at + k, at + t.size, t.width)
        for t, at in zip(columns.sparse_terms, columns.starts, strict=False)
        for k in range(t.width)
    ]
    g = [] if cross.G00 is None else [cross.G00[k, k] for k in range(len(cross.G00))]
    diagonal = cross.rest.diagonal()
    g += [diagonal[at] for at in places]
    z = ([] if first is None else list(first)) + [rest[at] for at in places]
    over = [np.where(d > 0, 1 / np.where(d > 0, d, 1.0), 0.0) for d in g]
    A = np.zeros((len(g) + 1, len(g) + 1))
    A[0, 0], A[0, 1:] = n, [d.sum() for d in g]
    A[1:, 0] = [(d > 0).sum() for d in g]
    A[1:, 1:] = _squares(cross, places, over)
    b = np.array([yy, *(float((v**2) @ o) for v, o in zip(z, over, strict=True))])
    if np.linalg.cond(A / np.abs(A).max(1, keepdims=True)) > 1e10:
        return None
    out: Array = np.linalg.solve(A, b)
    return out


def _squares(cross: Cross, places: list[Array], over: list[Array]) -> Array:
    """Σ_l Σ_m G_kl,jm² / g_kl of every two effects k, j."""
    q = 0 if cross.G00 is None else len(cross.G00)
    out = np.zeros((q + len(places), q + len(places)))
    for k in range(q):
        assert cross.G00 is not None
        for j in range(q):
            out[k, j] = float((cross.G00[k, j] ** 2) @ over[k])
        if cross.sparse is None:
            continue
        pattern = cross.columns.pattern[0]
        squares = cross.sparse[k] ** 2
        by_column = np.bincount(pattern.columns, squares * over[k][pattern.rows], pattern.shape[1])
        weighted = np.bincount(pattern.columns, squares, pattern.shape[1])
        for j, at in enumerate(places):
            out[k, q + j] = float(by_column[at].sum())
            out[q + j, k] = float(weighted[at] @ over[q + j])
    for i, at in enumerate(places):
        for j, to in enumerate(places):
            out[q + i, q + j] = float(over[q + i] @ _row_squares(cross.rest, at, to))
    return out


def _row_squares(rest: Array | Bordered, at: Array, to: Array) -> Array:
    """Σ over columns `to` of the squares of each row in `at`."""
    if not isinstance(rest, Bordered):
        found: Array = (rest[np.ix_(at, to)] ** 2).sum(1)
        return found
    inside = np.zeros(rest.gram.size)
    inside[to] = 1.0
    every: Array = np.bincount(rest.gram.rows, rest.inside**2 * inside[rest.gram.columns], rest.gram.size)
    found = every[at]
    return found
