"""Λ, the scales of the random effects: b = Λu, relative to the residual scale of a normal response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .blocks import Array
from .cross_products import Columns
from .gram import Bordered, Gram, congruent


@dataclass(frozen=True)
class Scales:
    """Λ: of the eliminated factor λ0 (q, q), of each further random term its λ (width, width)."""

    first: Array | None
    rest: tuple[Array, ...]

    def right(self, M: Array, columns: Columns, *, begin: int = 0) -> Array:
        """M Λ for the columns from `begin` on of the rest; fixed ones as they are."""
        plain = self.vector(columns)
        if plain is not None:
            scaled: Array = M * plain[begin : begin + M.shape[-1]]
            return scaled
        out = M.copy()
        for i, lam in enumerate(self.rest):
            t, at = columns.terms[i], columns.starts[i] - begin
            if at < 0 or at >= M.shape[-1]:
                continue
            block = M[..., at : at + t.size]
            if lam.size == 1:
                out[..., at : at + t.size] = block * lam[0, 0]
            else:
                out[..., at : at + t.size] = (block.reshape(-1, t.width) @ lam).reshape(block.shape)
        return out

    def vector(self, columns: Columns) -> Array | None:
        """Λ's diagonal, 1 of fixed columns, where every term has one effect; else None."""
        if any(lam.size != 1 for lam in self.rest):
            return None
        out = np.ones(columns.starts[-1])
        for i, lam in enumerate(self.rest):
            out[columns.starts[i] : columns.starts[i + 1]] = lam[0, 0]
        return out

    def dense_diagonal(self, columns: Columns) -> Array | None:
        """Λ's diagonal by column, 1 of fixed columns, if Λ has no more for the dense terms; else None."""
        out = np.ones(columns.starts[-1])
        for t, at, lam in zip(columns.terms, columns.starts, self.rest, strict=False):
            if not sparse.issparse(t.rows) and np.count_nonzero(lam - np.diag(np.diag(lam))):
                return None
            out[at : at + t.size] = np.tile(np.diag(lam), t.levels)
        return out

    def congruent(self, R: Array | Bordered, columns: Columns) -> Array | Bordered:
        """ΛᵀRΛ."""
        if not isinstance(R, Bordered):
            return self.right(self.right(R, columns).T, columns)
        ms, gram, turned = columns.sparse_size, R.gram, R.gram.turned
        return Bordered(
            gram,
            self.at_gram(self.at_gram(R.inside, gram, columns)[turned], gram, columns),
            self.right(self.right(R.side, columns, begin=ms).T, columns).T,
            self.right(self.right(R.corner, columns, begin=ms).T, columns, begin=ms),
        )

    def at_gram(self, values: Array, gram: Gram, columns: Columns) -> Array:
        """A Λ of sparse columns, A at the pattern of S."""
        count = len(columns.sparse_terms)
        return congruent(values, gram, self.rest[:count], columns.starts[: count + 1])

    def at_pattern(self, values: Array, columns: Columns) -> Array:
        """E Λ of sparse columns E, by their values (q, nnz)."""
        pattern, out = columns.pattern[0], values.copy()
        for i, t in enumerate(columns.sparse_terms):
            inside = slice(columns.starts[i], columns.starts[i + 1])
            own: Array | slice = slice(None)
            if len(columns.sparse_terms) > 1:
                own = np.flatnonzero((pattern.columns >= inside.start) & (pattern.columns < inside.stop))
            block = values[:, own]  # a level meets all effects of a group or none: they lie side by side
            out[:, own] = (block.reshape(len(block), -1, t.width) @ self.rest[i]).reshape(block.shape)
        return out

    def times(self, u0: Array | None, rest: Array, columns: Columns) -> tuple[Array | None, Array]:
        """Λ u."""
        return None if u0 is None or self.first is None else self.first @ u0, self.rest_times(rest, columns)

    def back(self, v0: Array | None, rest: Array, columns: Columns) -> tuple[Array | None, Array]:
        """Λᵀ v."""
        first = None if v0 is None or self.first is None else self.first.T @ v0
        return first, self.rest_back(rest, columns)

    def rest_times(self, v: Array, columns: Columns) -> Array:
        """Λ v of the rest: (m, …), or longer, of which the columns after m are fixed ones."""
        return self._rest(v, columns, self.rest)

    def rest_back(self, v: Array, columns: Columns) -> Array:
        """Λᵀ v of the rest."""
        return self._rest(v, columns, [lam.T for lam in self.rest])

    def _rest(self, v: Array, columns: Columns, each: Sequence[Array]) -> Array:
        out = v.copy()
        for i, lam in enumerate(each):
            t, own = columns.terms[i], slice(columns.starts[i], columns.starts[i + 1])
            if lam.size == 1:
                out[own] *= lam[0, 0]
                continue
            out[own] = (lam @ v[own].reshape(t.levels, t.width, -1)).reshape(v[own].shape)
        return out
