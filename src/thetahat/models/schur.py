"""The Schur complement S of the eliminated factor, factored: dense, or sparse in the columns of the other factors.

    S = [ S_ss  S_sd ]      s the sparse columns, d the dense ones: smooth terms, and the fixed columns last
        [ S_ds  S_dd ]

    Y = S_ss⁻¹ S_sd,   C = S_dd − S_ds Y = L Lᵀ,   log det S = log det S_ss + log det C
    (S⁻¹)_dd = C⁻¹,   (S⁻¹)_sd = −Y C⁻¹,   (S⁻¹)_ss = S_ss⁻¹ + Y C⁻¹ Yᵀ, at S_ss's pattern alone

That is all that is read of S⁻¹: a level of the eliminated factor and a row of the table meet columns that are on the pattern.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .blocks import Array, Pattern, dense_cholesky, dense_inverse, dense_solve
from .gram import Bordered, Gram
from .multifrontal import SparseCholesky


class DenseSchur:
    """S, factored.

    Parameters
    ----------
    S
        (size, size), overwritten
    random
        how many of its columns are random effects: the fixed ones are last

    Raises
    ------
    NotPositiveDefinite
    """

    def __init__(self, S: Array, random: int):
        self.random, self.L = random, dense_cholesky(S)

    def leading(self) -> DenseSchur:
        """Without the fixed columns."""
        out: DenseSchur = object.__new__(DenseSchur)
        out.random, out.L = self.random, np.asfortranarray(self.L[: self.random, : self.random])
        return out

    @property
    def fixed_factor(self) -> Array:
        """The lower factor of the fixed columns' own Schur complement."""
        return self.L[self.random :, self.random :]

    @cached_property
    def log_determinant(self) -> tuple[float, float]:
        """Of the random effects' block, and of what the fixed columns add."""
        d = np.log(np.diag(self.L))
        return 2 * float(d[: self.random].sum()), 2 * float(d[self.random :].sum())

    def solve(self, b: Array) -> Array:
        """S⁻¹ b, (size, r)."""
        return dense_solve(self.L, b)

    @cached_property
    def inverse(self) -> Array:
        """S⁻¹."""
        return dense_inverse(self.L)

    def freedom(self, m: int) -> tuple[Array, Array]:
        """The diagonal of S⁻¹, and Σ of the squares of each row over the first m columns, (size,)."""
        return np.diagonal(self.inverse), (self.inverse[:, :m] ** 2).sum(1)

    def times(self, pattern: Pattern | None, E: Array | None, Ed: Array) -> tuple[Array | None, Array]:
        """E S⁻¹: of sparse columns, values E (q, nnz), at the pattern's entries alone; of dense ones Ed (q, d, L)."""
        Si = self.inverse
        ms = len(Si) - Ed.shape[1]
        dense = np.tensordot(Ed, Si[ms:, ms:], (1, 0)).swapaxes(1, 2) if Ed.shape[1] else Ed
        if E is None or pattern is None:
            return None, dense
        at = pattern.times(E, Si)
        if Ed.shape[1]:
            dense = dense + np.stack([(M @ Si[:ms, ms:]).T for M in pattern.matrices(E)])
            for i in range(Ed.shape[1]):
                at += Ed[:, i].take(pattern.rows, 1) * Si[ms + i].take(pattern.columns)
        return at, dense


class SparseSchur:
    """S, factored.

    Parameters
    ----------
    S
        sparse in some columns
    random
        how many of the dense columns are random effects: the fixed ones are last

    Raises
    ------
    NotPositiveDefinite
    """

    def __init__(self, S: Bordered, random: int):
        self.gram, self.random = S.gram, random
        self.low = SparseCholesky(S.gram.fronts, S.inside)
        self.side = S.side
        self.Y = self.low.solve(S.side) if S.side.shape[1] else S.side
        self.L = dense_cholesky(np.array(S.corner - S.side.T @ self.Y, order="C"))

    def leading(self) -> SparseSchur:
        """Without the fixed columns."""
        out: SparseSchur = object.__new__(SparseSchur)
        out.gram, out.random, out.low = self.gram, self.random, self.low
        out.side, out.Y = self.side[:, : self.random], self.Y[:, : self.random]
        out.L = np.asfortranarray(self.L[: self.random, : self.random])
        return out

    @property
    def fixed_factor(self) -> Array:
        """The lower factor of the fixed columns' own Schur complement."""
        return self.L[self.random :, self.random :]

    @cached_property
    def log_determinant(self) -> tuple[float, float]:
        """Of the random effects' block, and of what the fixed columns add."""
        d = np.log(np.diag(self.L))
        return self.low.log_determinant + 2 * float(d[: self.random].sum()), 2 * float(d[self.random :].sum())

    def solve(self, b: Array) -> Array:
        """S⁻¹ b, (m + d, r)."""
        m = self.gram.size
        first = self.low.solve(b[:m])
        last = dense_solve(self.L, b[m:] - self.side.T @ first)
        return np.concatenate([first - self.Y @ last, last])

    # ---- parts of S⁻¹ --------------------------------------------------------------------------------------

    @cached_property
    def inverse(self) -> Bordered:
        """S⁻¹ at the pattern and beside it."""
        corner = dense_inverse(np.array(self.L, order="F"))
        side = -(self.Y @ corner)
        inside = self.low.inverse.copy()
        g = self.gram
        for i in range(side.shape[1]):
            inside -= side[g.rows, i] * self.Y[g.columns, i]
        return Bordered(g, inside, side, corner)

    def freedom(self, m: int) -> tuple[Array, Array]:
        """The diagonal of S⁻¹, and Σ of the squares of each row over the first m columns, (size,): of a sparse column's row
        not known, and NaN."""
        Z, size = self.inverse, self.gram.size
        known = (Z.side**2).sum(0) + (Z.corner[:, : m - size] ** 2).sum(1)
        return Z.diagonal(), np.concatenate([np.full(size, np.nan), known])

    def times(self, pattern: Pattern | None, E: Array | None, Ed: Array) -> tuple[Array | None, Array]:
        """E S⁻¹, of the sparse columns at the pattern's entries alone."""
        assert pattern is not None
        assert E is not None
        Z = self.inverse
        at = self.gram.times(E, Z.inside)
        dense = np.tensordot(Ed, Z.corner, (1, 0)).swapaxes(1, 2)
        dense = dense + np.stack([(M @ Z.side).T for M in pattern.matrices(E)])
        for i in range(Ed.shape[1]):
            at += Ed[:, i].take(pattern.rows, 1) * Z.side[:, i].take(pattern.columns)
        return at, dense


def level_products(gram: Gram, left: Array, right: Array, own: slice, width: int) -> Array:
    """Σ over the levels of a term of A_l B_lᵀ, (width, width): its rows `own` of A and B at the pattern, `width` a level,
    which all meet the same columns."""
    length = np.diff(gram.begin)
    out = np.empty((width, width))
    for a in range(width):
        rows = np.arange(own.start + a, own.stop, width)
        count = length[rows]
        at = np.repeat(gram.begin[:-1][rows] - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
        at += np.arange(len(at))
        for b in range(width):
            out[a, b] = left[at] @ right[at + (b - a) * np.repeat(count, count)]
    return out
