"""Random effects' normal equations, factored by eliminating the widest grouping factor.

    H = P + Λᵀ G Λ,     G = Σ_ab Z_aᵀ diag(w_ab) Z_b,     P = I for random effects, 0 for fixed columns

Two levels of one factor never meet in a row, so that the widest factor's block of H is block-diagonal, one small
block a level. It is eliminated; what is left of the other factors, the smooth terms and the fixed columns is the Schur
complement S: one dense matrix, or, where the other factors are wide and few of their groups meet, sparse in their columns
(`schur`; `SPARSE` says from what size):

    H = [ D      Λ0ᵀE ]      D = I + Λ0ᵀG_00Λ0 = L_D L_Dᵀ, level by level;      E = G_0r Λ
        [ EᵀΛ0   H_rr ]      F = L_D⁻¹ Λ0ᵀG_0r, sparse;   R = G_rr − FᵀF;   S = P + ΛᵀRΛ = L Lᵀ

    log det H = 2 Σ log diag L_D + 2 Σ log diag L

Of H⁻¹ only those parts are made that are read: Takahashi's selected inverse. With X = Λ0 D⁻¹ and B the blocks of E S⁻¹Eᵀ:

    (H⁻¹)_rr = S⁻¹,     (H⁻¹)_0r = −XᵀES⁻¹ =: −T,     (H⁻¹)_00 of one level = D⁻¹ + XᵀBX

and T where E has entries is all that B, the slopes and the rows' variances read.

Shapes: n rows; L levels of the eliminated factor, each of q effects (k = 1 … q); m further columns (sparse ones
first, dense ones after them, fixed ones last). Arrays of the eliminated factor are (q, …, L): a level a column.

Source: Bates, Mächler, Bolker and Walker (2015), Fitting linear mixed-effects models using lme4, §3; Henderson
(1953), for the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from ..errors import BadArgument, ModelError
from ..memory import free
from .blocks import (
    Array as Array,
)
from .blocks import (
    NotPositiveDefinite as NotPositiveDefinite,
)
from .blocks import (
    Pattern,
    cholesky,
    inverse_lower,
    multiplied,
    transposed,
)
from .fronts import TooFilled
from .gram import Bordered, Gram, congruent
from .schur import DenseSchur, SparseSchur, level_products

Parts = tuple[Array | None, Array]  # of the sparse columns (q, nnz), of the dense ones (q, size − m_s, L)
Weights = Mapping[tuple[int, int], Array]
Rows: TypeAlias = Any  # a sparse.csr_matrix, for which there are no types, or an Array of dense columns
ROWS = 4096  # of dense columns at a time: they stay in the cache
WIDEST = 12_000  # columns of the dense Schur complement, or of the dense ones of a sparse one: 1.2 GB
SPARSE = 200  # sparse columns, from which on a sparse factor is considered
SHARE = 0.25  # of the dense matrix, that it may fill
DEARER, OF_GROUP = 4.0, 4e6  # its multiplications, and a group of its nodes, in multiplications of a dense factor
MOST = 5e12  # multiplications of a factor: minutes for each


_CACHED = ("inverse", "scaled", "_V", "T", "B", "first", "_random")


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
    """

    n: int
    grouped: Grouped | None
    random: tuple[Term, ...]
    fixed: tuple[tuple[int, Array], ...]

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
        return [(a, own, rows[0] if len(rows) == 1 else np.hstack(rows)) for a, own, rows in out]

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
        m = self.sparse_size
        if self.grouped is None or m < SPARSE:
            return None
        room = (free() or np.inf) / 8  # numbers
        only = m > WIDEST
        try:
            pattern = self.pattern[0]
            found = Gram.made(
                pattern, [(t.levels, t.width) for t in self.sparse_terms], room if only else SHARE * m**2
            )
        except TooFilled as error:
            if only:
                raise self._too_filled(f"at least {8e-9 * error.least:,.1f} GB of memory") from error
            return None
        if only and (found.fronts.held > room or found.fronts.products > MOST):
            raise self._too_filled(
                f"about {8e-9 * found.fronts.held:,.1f} GB of memory and {found.fronts.products:.1e} multiplications an evaluation"
            )
        cost = DEARER * found.fronts.products + OF_GROUP * len(found.fronts.groups)
        return found if only or cost < float(m) ** 3 else None

    def _too_filled(self, needs: str) -> ModelError:
        labels = ", ".join(f"{t.levels:,} groups of {t.width}" for t in self.sparse_terms)
        many = "effect" if all(t.width == 1 for t in self.sparse_terms) else "effects"
        g = self.grouped
        wide = 0 if g is None else g.levels
        return ModelError(
            f"beside the grouping factor of {wide:,} groups there are others of {labels} {many} each, and so many of them meet in "
            f"common groups that the factor of their equations fills up: it needs {needs}, and {(free() or 0) / 1e9:,.1f} GB are free "
            f"({MOST:.0e} multiplications are accepted). Leave a grouping factor out, combine its groups, or take it as nested."
        )

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


class Factored:
    """H = P + ΛᵀGΛ, factored.

    Parameters
    ----------
    cross, scales
        G and Λ
    fixed
        whether the fixed columns are part of H (with nothing added to their block), or left out

    Raises
    ------
    NotPositiveDefinite
    """

    def __init__(self, cross: Cross, scales: Scales, *, fixed: bool):
        self.cross, self.scales, self.columns = cross, scales, cross.columns
        self.m = self.columns.penalised
        self.size = self.columns.starts[-1] if fixed else self.m
        self.Linv: Array | None = None
        self.F: Array | None = None  # (q, nnz)
        self.Fd: Array | None = None  # (q, size − m_s, L)
        self.R = _leading(cross.rest, self.size)
        self.first_determinant = 0.0
        if cross.G00 is not None and scales.first is not None and cross.dense is not None:
            q, lam = len(cross.G00), scales.first
            D = multiplied(lam.T, multiplied(cross.G00, lam))
            D[np.arange(q), np.arange(q)] += 1.0
            LD = cholesky(D)
            self.first_determinant = 2 * float(np.log(LD[np.arange(q), np.arange(q)]).sum())
            self.Linv = inverse_lower(LD)
            self._eliminate(cross.sparse, cross.dense[:, : self.size - self.columns.sparse_size], lam)
        S = scales.congruent(self.R, self.columns)
        self.schur: DenseSchur | SparseSchur
        if isinstance(S, Bordered):
            self.schur = SparseSchur(S.with_identity(self.m), self.m - self.columns.sparse_size)
        else:
            S[np.arange(self.m), np.arange(self.m)] += 1.0
            self.schur = DenseSchur(S, self.m)

    def _eliminate(self, E: Array | None, Ed: Array, lam: Array) -> None:
        """F = L_D⁻¹ Λ0ᵀ G_0r, and R = G_rr − FᵀF: nothing of either depends on the other factors' Λ."""
        assert self.Linv is not None
        self.Fd = multiplied(self.Linv, multiplied(lam.T, Ed))
        if E is not None:
            at_rows = self.Linv[:, :, self.columns.pattern[0].rows]
            self.F = multiplied(at_rows, (lam.T @ E)[:, None])[:, 0]
        self.R = _less(self.R, self.inner((self.F, self.Fd), (self.F, self.Fd)))

    def inner(self, left: Parts, right: Parts) -> Array | Bordered:
        """Σ_k l_kᵀ r_k of two symmetric to each other, (size, size)."""
        gram = self.columns.gram
        if gram is not None and left[0] is not None and right[0] is not None:
            lefts = self.columns.pattern[0].matrices(left[0])
            side = sum(M.T @ d.T for M, d in zip(lefts, right[1], strict=True))
            corner = sum(a @ b.T for a, b in zip(left[1], right[1], strict=True))
            return Bordered(gram, gram.product(left[0], right[0]), side, np.asarray(corner))
        ms, out = self.columns.sparse_size, np.zeros((self.size, self.size))
        if left[0] is not None and right[0] is not None:
            pattern = self.columns.pattern[0]
            out[:ms, :ms] = pattern.product(left[0], right[0])
            if len(out) > ms:
                out[:ms, ms:] = sum(
                    M.T @ d.T for M, d in zip(pattern.matrices(left[0]), right[1], strict=True)
                )
                out[ms:, :ms] = out[:ms, ms:].T
        if len(out) > ms:
            out[ms:, ms:] = sum(a @ b.T for a, b in zip(left[1], right[1], strict=True))
        return out

    @cached_property
    def _matrices(self) -> list[sparse.csr_matrix]:
        return [] if self.F is None else self.columns.pattern[0].matrices(self.F)

    def beside(self, random: Factored) -> Factored:
        """With another factor of the random effects' block."""
        out: Factored = object.__new__(Factored)
        out.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _CACHED})
        out.__dict__["_random"] = random
        return out

    def without_fixed(self) -> Factored:
        """The factor of the random effects' block alone."""
        return self if self.size == self.m else self._random

    @cached_property
    def _random(self) -> Factored:
        out: Factored = object.__new__(Factored)
        out.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _CACHED})
        out.size, out.schur = self.m, self.schur.leading()
        out.R = _leading(self.R, self.m)
        out.Fd = None if self.Fd is None else self.Fd[:, : self.m - self.columns.sparse_size]
        return out

    @property
    def fixed_information(self) -> Array:
        """The Schur complement of the fixed columns, (p, p): their information once the random effects are
        eliminated."""
        low = self.schur.fixed_factor
        out: Array = low @ low.T
        return out

    @property
    def log_determinant(self) -> tuple[float, float]:
        """log det of the random effects' block, and of what the fixed columns add."""
        random, fixed = self.schur.log_determinant
        return self.first_determinant + random, fixed

    # ---- H⁻¹ b ---------------------------------------------------------------------------------------------

    def solve(self, b0: Array | None, rest: Array) -> tuple[Array | None, Array]:
        """H⁻¹ b: b0 (q, L, r) or None, rest (size, r)."""
        if b0 is None or self.Linv is None:
            return None, self.schur.solve(rest)
        q = len(b0)
        t = np.stack([sum(self.Linv[k, j][:, None] * b0[j] for j in range(k + 1)) for k in range(q)])
        back = sum((self._back(k, t[k]) for k in range(q)), np.zeros_like(rest))
        x = self.schur.solve(rest - self.scales.rest_back(back, self.columns))
        moved = self.scales.rest_times(x, self.columns)
        y = np.stack([t[k] - self._times(k, moved) for k in range(q)])
        return np.stack([sum(self.Linv[j, k][:, None] * y[j] for j in range(k, q)) for k in range(q)]), x

    def _times(self, k: int, x: Array) -> Array:
        """F_k x."""
        assert self.Fd is not None
        ms = self.columns.sparse_size
        out: Array = self.Fd[k].T @ x[ms:]
        if self._matrices:
            out += self._matrices[k] @ x[:ms]
        return out

    def _back(self, k: int, t: Array) -> Array:
        """F_kᵀ t."""
        assert self.Fd is not None
        dense = self.Fd[k] @ t
        return np.concatenate([self._matrices[k].T @ t, dense]) if self._matrices else dense

    # ---- parts of H⁻¹ --------------------------------------------------------------------------------------

    @property
    def inverse(self) -> Array:
        """(H⁻¹)_rr = S⁻¹, (size, size), of a dense S.

        Raises
        ------
        ModelError
            S is sparse: its inverse is never whole
        """
        found = self.schur.inverse
        if isinstance(found, Bordered):
            raise ModelError(
                f"the inverse of {self.size:,} equations is needed whole, and the factor of a model with so many random effects "
                "knows only a part of it. Leave the curves of each group out, or a grouping factor."
            )
        return found

    def diagonal_blocks(self, i: int) -> Array:
        """(H⁻¹) of each level of a further term, (levels, width, width)."""
        t, begin = self.columns.terms[i], self.columns.starts[i]
        at = np.arange(begin, begin + t.size).reshape(t.levels, t.width)
        found, ms = self.schur.inverse, self.columns.sparse_size
        rows, columns = at[:, :, None], at[:, None, :]
        if not isinstance(found, Bordered):
            out: Array = found[rows, columns]
        elif begin >= ms:
            out = found.corner[rows - ms, columns - ms]
        else:
            out = found.inside[found.gram.entries(*np.broadcast_arrays(rows, columns))]
        return out

    @cached_property
    def scaled(self) -> Parts:
        """E = G_0r Λ: of the sparse columns its values (q, nnz), and of the dense ones (q, size − m_s, L)."""
        ms, columns, cross = self.columns.sparse_size, self.columns, self.cross
        assert cross.dense is not None
        E = None if cross.sparse is None else self.scales.at_pattern(cross.sparse, columns)
        dense = self.scales.right(cross.dense.swapaxes(1, 2), columns, begin=ms).swapaxes(1, 2)
        return E, dense[:, : self.size - ms]

    @cached_property
    def _V(self) -> Parts:
        """E S⁻¹, in the same parts: of the sparse columns at the pattern's entries alone."""
        return self.schur.times(
            self.columns.pattern[0] if self.cross.sparse is not None else None, *self.scaled
        )

    @cached_property
    def T(self) -> Parts:
        """−(H⁻¹)_0r = D⁻¹ Λ0ᵀ E S⁻¹, in those parts."""
        at, dense = self._V
        X = transposed(self.X)
        if at is not None:
            at = multiplied(X[:, :, self.columns.pattern[0].rows], at[:, None])[:, 0]
        return at, multiplied(X, dense)

    @cached_property
    def X(self) -> Array:
        """Λ0 D⁻¹, (q, q, L)."""
        assert self.Linv is not None
        assert self.scales.first is not None
        return multiplied(self.scales.first, multiplied(transposed(self.Linv), self.Linv))

    @cached_property
    def B(self) -> Array:
        """E S⁻¹ Eᵀ, the block of each level, (q, q, L)."""
        assert self.Linv is not None
        E, Ed = self.scaled
        at, dense = self._V
        q = len(self.Linv)
        out = np.zeros_like(self.Linv)
        for k in range(q):
            for j in range(k + 1):
                if E is not None and at is not None:
                    out[k, j] = self.columns.pattern[0].summed(at[k] * E[j])
                out[k, j] += np.einsum("jx,jx->x", dense[k], Ed[j])
                out[j, k] = out[k, j]
        return out

    @cached_property
    def first(self) -> Array:
        """(H⁻¹)_00, the block of each level, (q, q, L): D⁻¹ + Xᵀ B X."""
        assert self.Linv is not None
        out = multiplied(transposed(self.Linv), self.Linv)
        return out + multiplied(transposed(self.X), multiplied(self.B, self.X)) if self.size else out

    def eliminated_squares(self) -> list[Array]:
        """FᵀF of each effect k of the eliminated factor, (size, size): F = D⁻¹ Λ0ᵀ E of that effect in every level.

        (H⁻¹)_0r = −F S⁻¹, so that sums of squares over all levels need no more.
        """
        if self.Linv is None or self.Fd is None:
            return []
        up, out = transposed(self.Linv), []
        dense = multiplied(up, self.Fd)
        at = None
        if self.F is not None:
            at = multiplied(up[:, :, self.columns.pattern[0].rows], self.F[:, None])[:, 0]
        for k in range(len(up)):
            part = (None if at is None else at[k : k + 1], dense[k : k + 1])
            W = self.scales.congruent(self.inner(part, part), self.columns)
            assert not isinstance(W, Bordered)  # `inverse` has refused it
            out.append(W)
        return out

    def slopes(self) -> tuple[Array | None, list[Array]]:
        """Q with ½ d log det H = Σ Q ∘ dΛ: of the eliminated factor (q, q), of each further term (width, width).

        Q is the sum over levels of the diagonal blocks of G Λ H⁻¹; of a further term those of R Λ S⁻¹.
        """
        first = None
        if self.scales.first is not None and self.cross.G00 is not None:
            inner = multiplied(self.scales.first, self.first)
            first = np.einsum("klx,lbx->kb", self.cross.G00, inner)
            if self.size:
                first -= np.einsum("klx,lbx->kb", self.B, self.X)
        return first, self._slopes_of_rest()

    def _slopes_of_rest(self) -> list[Array]:
        columns, random, R = self.columns, range(len(self.columns.random)), self.R
        if isinstance(R, Bordered):
            return self._slopes_of_bordered(R)
        plain = self.scales.vector(columns)
        if plain is not None:
            rows = (R * self.inverse) @ plain[: self.size]
            return [rows[columns.starts[i] : columns.starts[i + 1]].sum().reshape(1, 1) for i in random]
        out = []
        for i in random:
            t, own = columns.terms[i], slice(columns.starts[i], columns.starts[i + 1])
            left = self.scales.right(R[own], columns).reshape(t.levels, t.width, self.size)
            right = self.inverse[own].reshape(t.levels, t.width, self.size)
            out.append(np.tensordot(left, right, axes=((0, 2), (0, 2))))
        return out

    def _slopes_of_bordered(self, R: Bordered) -> list[Array]:
        columns, scales, ms = self.columns, self.scales, self.columns.sparse_size
        inverse = self.schur.inverse
        assert isinstance(inverse, Bordered)
        inside = scales.at_gram(R.inside, R.gram, columns)
        side, corner = (scales.right(part, columns, begin=ms) for part in (R.side, R.corner))
        below = scales.right(R.side.T, columns)
        out = []
        for i in range(len(columns.random)):
            t, own = columns.terms[i], slice(columns.starts[i], columns.starts[i + 1])
            shape = (t.levels, t.width, -1)
            if own.start < ms:
                found = level_products(R.gram, inside, inverse.inside, own, t.width)
                pairs = [(side[own], inverse.side[own])]
            else:
                at, found = slice(own.start - ms, own.stop - ms), np.zeros((t.width, t.width))
                pairs = [(below[at], inverse.side.T[at]), (corner[at], inverse.corner[at])]
            for left, right in pairs:
                if left.shape[1]:
                    found = found + np.tensordot(
                        left.reshape(shape), right.reshape(shape), axes=((0, 2), (0, 2))
                    )
            out.append(found)
        return out

    # ---- Z Λ H⁻¹ Λᵀ Zᵀ, row by row -------------------------------------------------------------------------

    def row_variances(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Array]:
        """z_aᵀ Λ H⁻¹ Λᵀ z_b of each row, (n,), of each pair of predictors a ≤ b; fixed columns included where
        they are part of H."""
        rows = {a: _RowParts(self, a) for a in {a for pair in pairs for a in pair}}
        return {(a, b): rows[a].with_(rows[b]) for a, b in pairs}

    def between(self, e: int, g: int, at: Array, to: Array) -> Array:
        """(H⁻¹) between two effects of sparse terms in each row, (n,), and their columns."""
        found = self.schur.inverse
        out: Array = (
            found.inside[self.columns.meeting(e, g)] if isinstance(found, Bordered) else found[at, to]
        )
        return out

    def beside_sparse(self, own: slice) -> Array:
        """(H⁻¹) of the sparse columns and some dense ones."""
        found, ms = self.schur.inverse, self.columns.sparse_size
        if isinstance(found, Bordered):
            return found.side[:, own.start - ms : own.stop - ms]
        return found[:ms, own]

    def of_dense(self, own: slice, to: slice) -> Array:
        """(H⁻¹) of some dense columns and others."""
        found, ms = self.schur.inverse, self.columns.sparse_size
        if isinstance(found, Bordered):
            return found.corner[own.start - ms : own.stop - ms, to.start - ms : to.stop - ms]
        return found[own, to]


class _RowParts:
    """The rows of ZΛ of one predictor, in the parts in which they are sparse."""

    def __init__(self, factored: Factored, a: int):
        self.f, columns = factored, factored.columns
        g, lam = columns.grouped, factored.scales.first
        self.code = None if g is None else g.code
        self.first: Array | None = None  # (q, n)
        if g is not None and lam is not None and a in g.predictors:
            own = [k for k, p in enumerate(g.predictors) if p == a]
            self.first = lam[own].T @ g.z[own]
        self.at: list[
            tuple[int, Array, Array, Array]
        ] = []  # (effect, column of each row, its value, entry) of sparse terms
        self.dense: list[tuple[slice, Array, Array]] = []  # where, the columns, and Λ's diagonal there
        for number, (i, k, place) in enumerate(columns.effects):
            t = columns.sparse_terms[i]
            if t.predictor == a:
                z = t.rows.data.reshape(-1, t.width) @ factored.scales.rest[i][:, k]
                entry = place if g is None else columns.pattern[1][i][:, k]
                self.at.append((number, place, z, entry))
        diagonal = factored.scales.dense_diagonal(columns)
        if diagonal is None:  # Λ of a series: its columns times it, term by term
            for i, (t, begin) in enumerate(zip(columns.terms, columns.starts, strict=False)):
                if t.predictor == a and not sparse.issparse(t.rows) and begin < factored.size:
                    rows = t.rows
                    if i < len(factored.scales.rest):
                        rows = (rows.reshape(-1, t.width) @ factored.scales.rest[i]).reshape(rows.shape)
                    self.dense.append((slice(begin, begin + t.size), rows, np.ones(t.size)))
            return
        for predictor, at, rows in columns.runs:
            if predictor == a and not sparse.issparse(rows) and at.start < factored.size:
                inside = slice(at.start, min(at.stop, factored.size))
                self.dense.append((inside, rows[:, : inside.stop - inside.start], diagonal[inside]))

    def with_(self, other: _RowParts) -> Array:
        f, ms, out = self.f, self.f.columns.sparse_size, np.zeros(self.f.columns.n)
        if self.first is not None and other.first is not None:
            for k in range(len(self.first)):
                for j in range(len(other.first)):
                    out += self.first[k] * f.first[k, j].take(self.code) * other.first[j]
        for left, right in ((self, other), (other, self)):
            if left.first is not None:
                at_entries, dense = f.T
                for k in range(len(left.first)):
                    for _, _, value, entry in right.at:
                        assert at_entries is not None
                        out -= left.first[k] * at_entries[k].take(entry) * value
                    for own, rows, d in right.dense:
                        part = dense[k, own.start - ms : own.stop - ms] * d[:, None]
                        out -= left.first[k] * np.einsum("ij,ij->i", part.T[left.code], rows)
        for e, at, value, _ in self.at:
            for other_e, to, times, _ in other.at:
                out += value * f.between(e, other_e, at, to) * times
            for own, rows, d in other.dense:
                out += value * np.einsum("ij,ij->i", (f.beside_sparse(own) * d)[at], rows)
        for own, rows, d in self.dense:
            for _, to, times, _ in other.at:
                out += times * np.einsum("ij,ij->i", (f.beside_sparse(own) * d)[to], rows)
            for right_own, right_rows, right_d in other.dense:
                inner = d[:, None] * f.of_dense(own, right_own) * right_d
                for begin in range(0, len(out), ROWS):
                    some = slice(begin, begin + ROWS)
                    out[some] += np.einsum("ij,ij->i", rows[some] @ inner, right_rows[some])
        return out


def _leading(R: Array | Bordered, size: int) -> Array | Bordered:
    """Its first columns."""
    if isinstance(R, Bordered):
        return R.leading(size)
    out: Array = R[:size, :size]
    return out


def _less(R: Array | Bordered, other: Array | Bordered) -> Array | Bordered:
    """R − other, of one kind."""
    if isinstance(R, Bordered):
        assert isinstance(other, Bordered)
        return R - other
    assert not isinstance(other, Bordered)
    out: Array = R - other
    return out
