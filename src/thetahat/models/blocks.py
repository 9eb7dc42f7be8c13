"""Small factors of every level at once, and products of a sparse matrix whose pattern stays the same.

    _k (q, q, L): a q × q matrix a level.      A Pattern: which columns each level meets, found once.

Products by a dense matrix are taken at the pattern alone, entry by entry, where rows are short; where they are long the
dense product is cheaper, and is taken block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

Array = np.ndarray
CELLS = 2**22  # numbers held at once
SHORT = 0.09  # of the columns: rows with fewer entries are cheaper by their entries than by a dense product


class NotPositiveDefinite(Exception):
    """H has no Cholesky factor at this point."""


@dataclass(frozen=True)
class Pattern:
    """Entries (row, column) of a sparse (L, m) matrix, sorted by row; values are (q, nnz), of q such matrices.

    Parameters
    ----------
    shape : (L, m)
    begin : (L + 1,) where each row begins
    columns : (nnz,)
    """

    shape: tuple[int, int]
    begin: Array
    columns: Array

    @staticmethod
    def of(code: Array, places: list[Array], shape: tuple[int, int]) -> tuple[Pattern, list[Array]]:
        """The pattern of rows in which level `code` (n,) meets columns `places`, (n, w) each; and the entry of each."""
        keys = np.concatenate([(code[:, None] * shape[1] + at).reshape(-1) for at in places])
        found, entry = np.unique(keys, return_inverse=True)
        begin = np.searchsorted(found, np.arange(shape[0] + 1) * shape[1])
        parts = np.split(entry.reshape(-1), np.cumsum([at.size for at in places])[:-1])
        entries = [part.reshape(at.shape) for part, at in zip(parts, places, strict=True)]
        return Pattern(shape, begin, found % shape[1]), entries

    @cached_property
    def rows(self) -> Array:
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.begin))

    @cached_property
    def _by_length(self) -> list[Array]:
        """Entries of the rows of one length, (rows, length), at most CELLS of their pairs in each."""
        length, out = np.diff(self.begin), []
        for k in np.unique(length[length > 0]).tolist():
            at = self.begin[:-1][length == k][:, None] + np.arange(k)
            wide = self.shape[1] if k > SHORT * self.shape[1] else k * k
            step = max(1, CELLS // wide)
            out += [at[i : i + step] for i in range(0, len(at), step)]
        return out

    def matrices(self, values: Array) -> list[sparse.csr_matrix]:
        """One sparse matrix of each row of values."""
        return [sparse.csr_matrix((v, self.columns, self.begin), shape=self.shape) for v in values]

    def summed(self, values: Array) -> Array:
        """Σ over the entries of each row, (…, L): values (…, nnz)."""
        flat = values.reshape(-1, values.shape[-1])
        out = np.stack([np.bincount(self.rows, v, self.shape[0]) for v in flat])
        return out.reshape(*values.shape[:-1], self.shape[0])

    def gram(self, values: Array) -> Array:
        """Σ_k M_kᵀ M_k, (m, m)."""
        return self.product(values, values)

    def product(self, left: Array, right: Array) -> Array:
        """Σ_k A_kᵀ B_k, (m, m)."""
        length = np.diff(self.begin).astype(float)
        if float(length @ length) > SHORT**2 * self.shape[0] * self.shape[1] ** 2:
            total = np.zeros((self.shape[1], self.shape[1]))
            for A, B in zip(self.matrices(left), self.matrices(right), strict=True):
                for own in self._stripes():
                    total += A[own].toarray().T @ B[own].toarray()
            return total
        out = sum(A.T @ B for A, B in zip(self.matrices(left), self.matrices(right), strict=True))
        dense: Array = out.toarray()
        return dense

    def _stripes(self) -> Iterator[slice]:
        step = max(1, CELLS // self.shape[1])
        return (slice(i, i + step) for i in range(0, self.shape[0], step))

    def times(self, values: Array, A: Array) -> Array:
        """M_k A at the pattern's own entries, (q, nnz): A (m, m), or larger, of which the first m are read."""
        out, m, stride = np.empty_like(values), self.shape[1], A.shape[1]
        flat = np.ascontiguousarray(A).reshape(-1)
        for at in self._by_length:
            columns = self.columns[at]
            if at.shape[1] > SHORT * m:
                wide = np.zeros((len(values), len(at), m))
                np.put_along_axis(wide, np.broadcast_to(columns, (len(values), *at.shape)), values[:, at], 2)
                out[:, at] = np.take_along_axis(wide @ A[:m, :m], columns[None], 2)
            else:
                block = flat.take(
                    columns[:, :, None] * stride + columns[:, None, :]
                )  # (rows, length, length)
                out[:, at] = (values[:, at].transpose(1, 0, 2) @ block).transpose(1, 0, 2)
        return out


# ---- small factors, a level each -------------------------------------------------------------------------------


def multiplied(X: Array, Y: Array) -> Array:
    """X Y of each level: (q, q, L) and (q, r, L); either may be (q, q), the same for all."""
    if X.ndim == 2:
        out: Array = (X @ Y.reshape(len(Y), -1)).reshape(len(X), *Y.shape[1:])
        return out
    if Y.ndim == 2:
        return transposed(multiplied(Y.T, transposed(X)))
    out = X[:, 0][:, None] * Y[0]
    for k in range(1, len(Y)):
        for a in range(len(X)):
            out[a] += X[a, k] * Y[k]
    return out


def transposed(X: Array) -> Array:
    """Xᵀ of each level, contiguous."""
    return np.ascontiguousarray(X.swapaxes(0, 1))


def cholesky(D: Array) -> Array:
    """Lower Cholesky factors of D (q, q, L), all levels at once."""
    q = len(D)
    L = np.zeros_like(D)
    for k in range(q):
        pivot = D[k, k] - np.einsum("jx,jx->x", L[k, :k], L[k, :k])
        if not bool((pivot > 1e-13 * np.abs(D[k, k])).all()):
            raise NotPositiveDefinite
        L[k, k] = np.sqrt(pivot)
        for i in range(k + 1, q):
            L[i, k] = (D[i, k] - np.einsum("jx,jx->x", L[i, :k], L[k, :k])) / L[k, k]
    return L


def inverse_lower(L: Array) -> Array:
    """Inverses of lower triangular L (q, q, levels)."""
    q = len(L)
    out = np.zeros_like(L)
    for k in range(q):
        out[k, k] = 1 / L[k, k]
        for i in range(k + 1, q):
            out[i, k] = -sum(L[i, j] * out[j, k] for j in range(k, i)) / L[i, i]
    return out


# ---- one dense factor ------------------------------------------------------------------------------------------


def dense_cholesky(S: Array) -> Array:
    """The lower factor of a symmetric S, which is overwritten: column by column in memory."""
    if not len(S):
        return S
    L: Array
    L, info = lapack.dpotrf(S.T, lower=1, clean=1, overwrite_a=1)
    if info != 0 or not bool(np.isfinite(np.diag(L)).all()):
        raise NotPositiveDefinite
    return L


def dense_inverse(L: Array) -> Array:
    """(L Lᵀ)⁻¹, both triangles."""
    if not len(L):
        return L
    low, info = lapack.dpotri(L, lower=1)  # above the diagonal L is 0, and stays so
    if info != 0:
        raise NotPositiveDefinite
    out: Array = low.T
    for i in range(0, len(out), 64):  # mirrored in blocks that stay in the cache
        own = slice(i, i + 64)
        out[own, :i] = out[:i, own].T
        out[own, own] += np.triu(out[own, own], 1).T
    return out


def dense_solve(L: Array, b: Array) -> Array:
    """(L Lᵀ)⁻¹ b, (m, r)."""
    if not len(L):
        return b
    out: Array = lapack.dpotrs(L, b, lower=1)[0]
    return out
