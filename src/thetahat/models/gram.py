"""The pattern of MᵀM: which two sparse columns meet in a level of the eliminated factor; and matrices on it.

    A = [ A_ss  A_sd ]      A_ss (m, m) at the pattern alone,   d dense columns beside it
        [ A_ds  A_dd ]

Every two entries of M in one row are listed once, with the place in MᵀM where they meet, so that products are sums over
that list, whose entries never move with θ. Its length is that of the pattern or more: Σ over the levels of the squared
number of columns that a level meets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from .blocks import Array, Pattern
from .fronts import Fronts, TooFilled

PAIRS = 2**22  # of entries of one level, taken at once


@dataclass(frozen=True, eq=False)
class Gram:
    """The pattern of MᵀM, where M has the pattern `of` (L, m): both triangles, sorted by row and column.

    begin (m + 1,), columns (nnz,) : as of a csr matrix
    """

    of: Pattern
    begin: Array
    columns: Array
    fronts: Fronts

    @staticmethod
    def made(of: Pattern, terms: Sequence[tuple[int, int]], most: float) -> Gram:
        """With its tree; `terms` the levels and the width of each term of M's columns.

        Raises
        ------
        TooFilled
            the pattern, or a factor on it, would hold more than `most` numbers
        """
        length = np.diff(of.begin).astype(float)
        if 3 * float(length @ length) > most:
            raise TooFilled(3 * int(length @ length))
        ones = sparse.csr_matrix((np.ones(len(of.columns)), of.columns, of.begin), shape=of.shape)
        own = sparse.block_diag([sparse.kron(sparse.identity(n), np.ones((w, w))) for n, w in terms])
        found = (ones.T @ ones + own).tocsr()  # a group without rows has its own block alone
        found.sort_indices()
        begin, columns = found.indptr.astype(np.int64), found.indices.astype(np.int64)
        return Gram(of, begin, columns, Fronts.of(begin, columns, most))

    @property
    def size(self) -> int:
        return self.of.shape[1]

    @cached_property
    def rows(self) -> Array:
        out: Array = np.repeat(np.arange(self.size), np.diff(self.begin))
        return out

    @cached_property
    def _keys(self) -> Array:
        out: Array = self.rows * self.size + self.columns
        return out

    @cached_property
    def turned(self) -> Array:
        """The entry (j, i) of each entry (i, j)."""
        out: Array = np.argsort(self.columns * self.size + self.rows, kind="stable")
        return out

    @cached_property
    def diagonal(self) -> Array:
        """The entry (i, i) of each column."""
        at = np.arange(self.size)
        return self.entries(at, at)

    def entries(self, i: Array, j: Array) -> Array:
        """Where (i, j) is, of columns that meet."""
        out: Array = np.searchsorted(self._keys, i * self.size + j)
        return out

    @cached_property
    def _pairs(self) -> list[tuple[Array, Array, Array]]:
        """Every two entries of M in one row, and where in MᵀM they meet: in parts."""
        return list(self._parts())

    def _parts(self) -> Iterator[tuple[Array, Array, Array]]:
        length = np.diff(self.of.begin)
        for w in np.unique(length[length > 0]).tolist():
            at = self.of.begin[:-1][length == w][:, None] + np.arange(w)
            step = max(1, PAIRS // (w * w))
            for own in (at[i : i + step] for i in range(0, len(at), step)):
                left = np.repeat(own, w, axis=1).reshape(-1)
                right = np.tile(own, w).reshape(-1)
                yield left, right, self.entries(self.of.columns[left], self.of.columns[right])

    def product(self, left: Array, right: Array) -> Array:
        """Σ_k A_kᵀ B_k, whose values are (q, nnz of M) each, at the pattern: symmetric in A and B."""
        out = np.zeros(len(self.columns))
        for a, b, at in self._pairs:
            both = np.einsum("kx,kx->x", left[:, a], right[:, b])
            out += np.bincount(at, both, len(out))
        return out

    def times(self, values: Array, A: Array) -> Array:
        """M_k A at M's own entries, (q, nnz of M): A at the pattern."""
        out = np.zeros_like(values)
        for a, b, at in self._pairs:
            inner = A[at]
            for k in range(len(values)):
                out[k] += np.bincount(a, values[k, b] * inner, out.shape[1])
        return out


@dataclass(frozen=True, eq=False)
class Bordered:
    """A symmetric matrix: inside (nnz,) its sparse columns at the pattern, side (m, d), corner (d, d)."""

    gram: Gram
    inside: Array
    side: Array
    corner: Array

    def __sub__(self, other: Bordered) -> Bordered:
        return Bordered(
            self.gram, self.inside - other.inside, self.side - other.side, self.corner - other.corner
        )

    def leading(self, size: int) -> Bordered:
        """Its first columns, all sparse ones among them."""
        d = size - self.gram.size
        return Bordered(self.gram, self.inside, self.side[:, :d], self.corner[:d, :d])

    @cached_property
    def _matrix(self) -> sparse.csr_matrix:
        g = self.gram
        return sparse.csr_matrix((self.inside, g.columns, g.begin), shape=(g.size, g.size))

    def __matmul__(self, v: Array) -> Array:
        m = self.gram.size
        return np.concatenate(
            [self._matrix @ v[:m] + self.side @ v[m:], self.side.T @ v[:m] + self.corner @ v[m:]]
        )

    def diagonal(self) -> Array:
        return np.concatenate([self.inside[self.gram.diagonal], np.diagonal(self.corner)])

    def with_identity(self, size: int) -> Bordered:
        """1 added to the diagonal of its first columns."""
        inside, corner, m = self.inside.copy(), self.corner.copy(), self.gram.size
        inside[self.gram.diagonal] += 1.0
        at = np.arange(size - m)
        corner[at, at] += 1.0
        return Bordered(self.gram, inside, self.side, corner)


def congruent(values: Array, gram: Gram, lambdas: Sequence[Array], starts: Sequence[int]) -> Array:
    """A Λ at the pattern: of one term after another its columns times λ (width, width).

    A column meets all effects of a group or none, so that they lie side by side.
    """
    out = values.copy()
    for lam, begin, end in zip(lambdas, starts[:-1], starts[1:], strict=True):
        own: Array | slice = slice(None)
        if len(lambdas) > 1:
            own = np.flatnonzero((gram.columns >= begin) & (gram.columns < end))
        block = values[own]
        out[own] = (block.reshape(-1, len(lam)) @ lam).reshape(-1)
    return out
