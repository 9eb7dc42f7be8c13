"""The columns of random and fixed effects, and their cross-products G.

    G = Σ_ab Z_aᵀ diag(w_ab) Z_b

Shapes: as in `elimination`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from ..errors import BadArgument
from ..kernels import compiled
from .blocks import Array, Pattern
from .gram import Bordered, Gram
from .sparsity import WIDEST, sparse_pattern

Weights = Mapping[tuple[int, int], Array]
Rows: TypeAlias = Any  # a sparse.csr_matrix, for which there are no types, or an Array of dense columns
ROWS = 4096  # of dense columns at a time: they stay in the cache


@dataclass(frozen=True)
class Term:
    """One term's random effects: `levels` groups of `width` effects each, in one predictor of the family.

    rows : (n, levels · width), level-major; a sparse matrix of `width` entries a row, or dense columns
    """

    predictor: int
    levels: int
    width: int
    rows: Rows

    @property
    def size(self) -> int:
        return self.levels * self.width


@dataclass(frozen=True)
class Grouped:
    """The eliminated factor: code (n,) the level of each row, z (q, n) its columns, predictor of each column."""

    code: Array
    z: Array
    predictors: tuple[int, ...]
    levels: int

    @property
    def width(self) -> int:
        return len(self.z)

    @cached_property
    def order(self) -> tuple[Array, Array]:
        """The rows sorted by level, and where each level begins."""
        counts = np.bincount(self.code, minlength=self.levels)
        return np.argsort(self.code, kind="stable"), np.concatenate([[0], np.cumsum(counts)])

    def sums(self, k: int, w: Array) -> sparse.csr_matrix:
        """(L, n): the matrix that adds up z_k · w over the rows of each level."""
        order, begin = self.order
        return sparse.csr_matrix(
            ((self.z[k] * w)[order], order, begin), shape=(self.levels, len(order)), copy=False
        )

    def added(self, values: Array) -> Array:
        """Σ over the rows of each level, (L,)."""
        return np.bincount(self.code, values, self.levels)


@dataclass(frozen=True)
class Columns:
    """All columns: the eliminated factor (or None), the further random terms, and the fixed columns.

    random : sparse terms first, dense ones after them
    fixed : of each predictor, its dense columns (n, p_j)
    whole : whether all of S⁻¹ is going to be read, so that S is dense
    """

    n: int
    grouped: Grouped | None
    random: tuple[Term, ...]
    fixed: tuple[tuple[int, Array], ...]
    whole: bool = False

    @cached_property
    def sparse_terms(self) -> list[Term]:
        return [t for t in self.random if sparse.issparse(t.rows)]

    @cached_property
    def dense_terms(self) -> list[Term]:
        fixed = [Term(a, X.shape[1], 1, X) for a, X in self.fixed]
        return [t for t in self.random if not sparse.issparse(t.rows)] + fixed

    @cached_property
    def terms(self) -> list[Term]:
        return self.sparse_terms + self.dense_terms

    @cached_property
    def runs(self) -> list[tuple[int, slice, Rows]]:
        """Neighbouring dense terms of one predictor as one block: the predictor, where its columns are, and they; sparse
        terms as they are."""
        out: list[tuple[int, slice, list[Rows]]] = []
        for t, at in zip(self.terms, self.starts, strict=False):
            before = out[-1] if out else None
            alike = before is not None and before[0] == t.predictor and not sparse.issparse(before[2][0])
            if before is not None and alike and not sparse.issparse(t.rows):
                out[-1] = (before[0], slice(before[1].start, at + t.size), [*before[2], t.rows])
            else:
                out.append((t.predictor, slice(at, at + t.size), [t.rows]))
        return [(a, own, rows[0] if len(rows) == 1 else _beside(rows)) for a, own, rows in out]

    @cached_property
    def transposes(self) -> list[Rows]:
        """Of each run."""
        return [rows.T.tocsr() if sparse.issparse(rows) else rows.T for _, _, rows in self.runs]

    @cached_property
    def starts(self) -> list[int]:
        return [0, *np.cumsum([t.size for t in self.terms]).tolist()]

    @property
    def penalised(self) -> int:
        """m, the columns of the rest that are random effects."""
        return sum(t.size for t in self.random)

    @property
    def sparse_size(self) -> int:
        return sum(t.size for t in self.sparse_terms)

    def _check_width(self) -> None:
        """Refuse dense columns that would not fit in memory.

        Raises
        ------
        BadArgument
        """
        dense = self.starts[-1] - (0 if self.gram is None else self.sparse_size)
        if dense > WIDEST:
            raise BadArgument(
                f"beside the largest grouping factor the model has {dense:,} random effects and coefficients that share one "
                f"dense matrix, and at most {WIDEST:,} are accepted. Leave a term out, or combine its groups."
            )

    @cached_property
    def gram(self) -> Gram | None:
        """Which two sparse columns meet in a level of the eliminated factor, where S is to be sparse in them; None: S is
        dense.

        Raises
        ------
        ModelError
            they are too many for a dense matrix, and too many meet for a sparse factor
        """
        if self.grouped is None or self.whole:
            return None
        sizes = [(t.levels, t.width) for t in self.sparse_terms]
        return sparse_pattern(lambda: self.pattern[0], sizes, self.grouped.levels)

    @cached_property
    def effects(self) -> list[tuple[int, int, Array]]:
        """Of each effect of the sparse terms: the term, the effect, and its column in each row, (n,)."""
        return [
            (i, k, at + t.rows.indices.reshape(-1, t.width)[:, k].astype(np.int64))
            for i, (t, at) in enumerate(zip(self.sparse_terms, self.starts, strict=False))
            for k in range(t.width)
        ]

    def meeting(self, e: int, f: int) -> Array:
        """Where the columns of two effects meet in S's pattern, of each row, (n,): kept."""
        assert self.gram is not None
        if (e, f) not in self._met:
            self._met[e, f] = self.gram.entries(self.effects[e][2], self.effects[f][2])
        return self._met[e, f]

    @cached_property
    def _met(self) -> dict[tuple[int, int], Array]:
        return {}

    # ---- Z and its transpose -------------------------------------------------------------------------------

    def times(self, b0: Array | None, rest: Array) -> dict[int, Array]:
        """Z b of each predictor, (n,): b0 (q, L), rest (m or m + p,)."""
        out: dict[int, Array] = {}
        if self.grouped is not None and b0 is not None:
            for k, a in enumerate(self.grouped.predictors):
                out[a] = out.get(a, 0.0) + self.grouped.z[k] * b0[k].take(self.grouped.code)
        for a, own, rows in self.runs:
            if own.start < len(rest):
                part = rest[own]
                columns = rows if len(part) == rows.shape[1] else rows[:, : len(part)]
                out[a] = out.get(a, 0.0) + columns @ part
        return out

    def transposed(self, h: Mapping[int, Array]) -> tuple[Array | None, Array]:
        """Zᵀ h, (q, L) and (m + p,): h_a (n,) of each predictor, those absent 0."""
        first = None
        if self.grouped is not None:
            g = self.grouped
            zero = np.zeros(g.levels)
            first = np.stack([g.added(g.z[k] * h[a]) if a in h else zero for k, a in enumerate(g.predictors)])
        parts = [
            turned @ h[a] if a in h else np.zeros(turned.shape[0])
            for (a, _, _), turned in zip(self.runs, self.transposes, strict=True)
        ]
        return first, np.concatenate(parts) if parts else np.zeros(0)

    # ---- G -------------------------------------------------------------------------------------------------

    @cached_property
    def pattern(self) -> tuple[Pattern, list[Array]]:
        """Which sparse columns each level of the eliminated factor meets; of each sparse term the entry of each row and
        effect, (n, width)."""
        g = self.grouped
        assert g is not None
        places = [
            at + t.rows.indices.reshape(-1, t.width).astype(np.int64)
            for t, at in zip(self.sparse_terms, self.starts, strict=False)
        ]
        return Pattern.of(g.code, places, (g.levels, self.sparse_size))

    def cross(self, w: Weights) -> Cross:
        """G at the rows' weights w_ab, (n,) each, a ≤ b; absent ones are 0."""
        self._check_width()
        g, zero = self.grouped, np.zeros(self.n)

        def weight(a: int, b: int) -> Array:
            return w.get((min(a, b), max(a, b)), zero)

        G00, Es, Ed = None, None, None
        if g is not None:
            q = g.width
            G00 = np.empty((q, q, g.levels))
            for k in range(q):
                for j in range(k + 1):
                    G00[k, j] = G00[j, k] = g.added(
                        g.z[k] * g.z[j] * weight(g.predictors[k], g.predictors[j])
                    )
            Es = np.zeros((q, len(self.pattern[0].columns))) if self.sparse_terms else None
            Ed = np.zeros((q, self.starts[-1] - self.sparse_size, g.levels))
            for k in range(q):
                for i, t in enumerate(self.terms):
                    own = weight(g.predictors[k], t.predictor)
                    if Es is not None and i < len(self.sparse_terms):
                        entry = self.pattern[1][i]
                        values = (g.z[k] * own)[:, None] * t.rows.data.reshape(-1, t.width)
                        Es[k] += np.bincount(entry.reshape(-1), values.reshape(-1), Es.shape[1])
                    else:
                        begin = self.starts[i] - self.sparse_size
                        Ed[k, begin : begin + t.size] = (g.sums(k, own) @ t.rows).T
        rest = self._cross_of_rest(weight) if self.gram is None else self._bordered(self.gram, weight)
        return Cross(G00, Es, Ed, rest, self)

    def _bordered(self, gram: Gram, weight: Callable[[int, int], Array]) -> Bordered:
        """G_rr, sparse in the sparse columns."""
        ms, d = self.sparse_size, self.starts[-1] - self.sparse_size
        inside = np.zeros(len(gram.columns))
        values = [t.rows.data.reshape(-1, t.width)[:, k] for t in self.sparse_terms for k in range(t.width)]
        predictors = [self.sparse_terms[i].predictor for i, _, _ in self.effects]
        for e, z in enumerate(values):
            for f in range(e + 1):
                both = z * values[f] * weight(predictors[e], predictors[f])
                part = np.bincount(self.meeting(e, f), both, len(inside))
                inside += part if e == f else part + part[gram.turned]
        side, corner = np.zeros((ms, d)), np.zeros((d, d))
        for i, (a, own, left) in enumerate(self.runs):
            for b, to, right in self.runs[i:]:
                if to.start < ms:
                    continue
                at = slice(to.start - ms, to.stop - ms)
                block = _product(left, self.transposes[i], weight(a, b), right)
                if own.start < ms:
                    side[own, at] = block
                else:
                    before = slice(own.start - ms, own.stop - ms)
                    corner[before, at] = block
                    corner[at, before] = block.T
        return Bordered(gram, inside, side, corner)

    def _cross_of_rest(self, weight: Callable[[int, int], Array]) -> Array:
        """G_rr, (m + p, m + p)."""
        G = np.zeros((self.starts[-1], self.starts[-1]))
        for i, (a, own, left) in enumerate(self.runs):
            for b, to, right in self.runs[i:]:
                G[own, to] = _product(left, self.transposes[i], weight(a, b), right)
                if right is not left:
                    G[to, own] = G[own, to].T
        return G


def _beside(parts: Sequence[Array]) -> Array:
    """Dense columns beside each other, (n, k), each in one piece of memory."""
    out = np.empty((sum(part.shape[1] for part in parts), len(parts[0])))
    np.concatenate([part.T for part in parts], out=out)
    return out.T


def _product(left: Rows, transposed: Rows, w: Array, right: Rows) -> Array:
    """leftᵀ diag(w) right, dense: of dense columns some rows at a time, so that none is written out whole."""
    if sparse.issparse(left) or sparse.issparse(right):
        if sparse.issparse(right):
            data = right.data * np.repeat(w, np.diff(right.indptr))
            block = transposed @ sparse.csr_matrix((data, right.indices, right.indptr), shape=right.shape)
        else:
            block = transposed @ (right * w[:, None])
        out: Array = block.toarray() if sparse.issparse(block) else block
        return out
    if compiled.available() and max(left.shape[1], right.shape[1]) <= compiled.MOST_COLUMNS:
        return compiled.weighted_products(left, right, w)
    out = np.zeros((left.shape[1], right.shape[1]))
    root = np.sqrt(w) if left is right and bool((w >= 0).all()) else None
    for begin in range(0, len(w), ROWS):
        own = slice(begin, begin + ROWS)
        if root is not None:
            part = left[own] * root[own, None]
            out += part.T @ part
        else:
            out += left[own].T @ (right[own] * w[own, None])
    return out


@dataclass(frozen=True)
class Cross:
    """G: of the eliminated factor G00 (q, q, L), with the sparse columns (q, nnz), the values at the pattern's entries, with
    the dense ones (q, m_d + p, L), and of the rest (m + p, m + p), or sparse in the sparse columns."""

    G00: Array | None
    sparse: Array | None
    dense: Array | None
    rest: Array | Bordered
    columns: Columns

    @property
    def fixed(self) -> Array:
        """Of the fixed columns, (p, p)."""
        m = self.columns.penalised
        if isinstance(self.rest, Bordered):
            begin = m - self.columns.sparse_size
            return self.rest.corner[begin:, begin:]
        return self.rest[m:, m:]

    @cached_property
    def matrices(self) -> list[Rows]:
        """The sparse part, q matrices (L, m_s)."""
        return [] if self.sparse is None else self.columns.pattern[0].matrices(self.sparse)

    def times(self, v0: Array | None, rest: Array) -> tuple[Array | None, Array]:
        """G v: v0 (q, L) or None, rest (m + p,)."""
        ms = self.columns.sparse_size
        out = self.rest @ rest
        if v0 is None or self.G00 is None or self.dense is None:
            return None, out
        first = np.einsum("klx,lx->kx", self.G00, v0)
        for k in range(len(v0)):
            first[k] += rest[ms:] @ self.dense[k]
            out[ms:] += self.dense[k] @ v0[k]
            if self.matrices:
                first[k] += self.matrices[k] @ rest[:ms]
                out[:ms] += self.matrices[k].T @ v0[k]
        return first, out
