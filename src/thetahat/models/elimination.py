"""Random effects' normal equations, factored by eliminating the widest grouping factor.

    H = P + Λᵀ G Λ,     G = Σ_ab Z_aᵀ diag(w_ab) Z_b,     P = I for random effects, 0 for fixed columns

Two levels of one factor never meet in a row, so that the widest factor's block of H is block-diagonal, one small
block a level. It is eliminated; what is left of the other factors, the smooth terms and the fixed columns is one
dense Schur complement S:

    H = [ D   E ]        D = L_D L_Dᵀ, level by level;      C = L_D⁻¹ E, sparse;      S = H_rr − CᵀC = L Lᵀ
        [ Eᵀ  H_rr ]

    log det H = 2 Σ log diag L_D + 2 Σ log diag L

Of H⁻¹ only those parts are made that are read: Takahashi's selected inverse. With K = L_D⁻ᵀ C and T = K S⁻¹:

    (H⁻¹)_rr = S⁻¹,     (H⁻¹)_0r = −T,     (H⁻¹)_00 of one level = D⁻¹ + T Kᵀ

Shapes: n rows; L levels of the eliminated factor, each of q effects (k = 1 … q); m further columns (sparse ones
first, dense ones after them, fixed ones last). Arrays of the eliminated factor are (q, …, L): a level a column.

Source: Bates, Mächler, Bolker and Walker (2015), Fitting linear mixed-effects models using lme4, §3; Henderson
(1953), for the equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve, lapack

from ..errors import BadArgument

Array = np.ndarray
Weights = Mapping[tuple[int, int], Array]
Rows: TypeAlias = Any  # a sparse.csr_matrix, for which there are no types, or an Array of dense columns
WIDEST = 12_000  # columns of the dense Schur complement: 1.2 GB


_CACHED = ("log_determinant", "inverse", "T", "_K", "_Kd", "first")


class NotPositiveDefinite(Exception):
    """H has no Cholesky factor at this point."""


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

    @cached_property
    def transposed(self) -> Rows:
        return self.rows.T.tocsr() if sparse.issparse(self.rows) else self.rows.T

    def weighted(self, w: Array) -> Rows:
        """diag(w) Z."""
        if not sparse.issparse(self.rows):
            return self.rows * w[:, None]
        data = self.rows.data * np.repeat(w, np.diff(self.rows.indptr))
        return sparse.csr_matrix((data, self.rows.indices, self.rows.indptr), shape=self.rows.shape)


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
        """Refuse a dense Schur complement that would not fit in memory.

        Raises
        ------
        BadArgument
        """
        if self.starts[-1] > WIDEST:
            raise BadArgument(
                f"beside the largest grouping factor the model has {self.starts[-1]:,} random effects and coefficients, and "
                f"at most {WIDEST:,} are accepted: they share one dense matrix. Leave a grouping factor out, or combine its "
                "groups."
            )

    # ---- Z and its transpose -------------------------------------------------------------------------------

    def times(self, b0: Array | None, rest: Array) -> dict[int, Array]:
        """Z b of each predictor, (n,): b0 (q, L), rest (m or m + p,)."""
        out: dict[int, Array] = {}
        if self.grouped is not None and b0 is not None:
            for k, a in enumerate(self.grouped.predictors):
                out[a] = out.get(a, 0.0) + self.grouped.z[k] * b0[k].take(self.grouped.code)
        for t, at in zip(self.terms, self.starts, strict=False):
            if at < len(rest):
                out[t.predictor] = out.get(t.predictor, 0.0) + t.rows @ rest[at : at + t.size]
        return out

    def transposed(self, h: Mapping[int, Array]) -> tuple[Array | None, Array]:
        """Zᵀ h, (q, L) and (m + p,): h_a (n,) of each predictor, those absent 0."""
        first = None
        if self.grouped is not None:
            g = self.grouped
            zero = np.zeros(g.levels)
            first = np.stack([g.added(g.z[k] * h[a]) if a in h else zero for k, a in enumerate(g.predictors)])
        parts = [t.transposed @ h[t.predictor] if t.predictor in h else np.zeros(t.size) for t in self.terms]
        return first, np.concatenate(parts) if parts else np.zeros(0)

    # ---- G -------------------------------------------------------------------------------------------------

    def cross(self, w: Weights) -> Cross:
        """G at the rows' weights w_ab, (n,) each, a ≤ b; absent ones are 0."""
        self._check_width()
        g, zero = self.grouped, np.zeros(self.n)

        def weight(a: int, b: int) -> Array:
            return w.get((min(a, b), max(a, b)), zero)

        G00, Es, Ed = None, [], None
        if g is not None:
            q = g.width
            G00 = np.empty((q, q, g.levels))
            for k in range(q):
                for j in range(k + 1):
                    G00[k, j] = G00[j, k] = g.added(
                        g.z[k] * g.z[j] * weight(g.predictors[k], g.predictors[j])
                    )
            Ed = np.zeros((q, g.levels, self.starts[-1] - self.sparse_size))
            for k in range(q):
                parts = []
                for t, at in zip(self.terms, self.starts, strict=False):
                    S = g.sums(k, weight(g.predictors[k], t.predictor))
                    if sparse.issparse(t.rows):
                        parts.append(S @ t.rows)
                    else:
                        begin = at - self.sparse_size
                        Ed[k, :, begin : begin + t.size] = S @ t.rows
                Es.append(sparse.hstack(parts).tocsr() if len(parts) != 1 else parts[0]) if parts else None
        G = np.zeros((self.starts[-1], self.starts[-1]))
        for i, left in enumerate(self.terms):
            own = slice(self.starts[i], self.starts[i + 1])
            for j in range(i, len(self.terms)):
                to = slice(self.starts[j], self.starts[j + 1])
                right = self.terms[j].weighted(weight(left.predictor, self.terms[j].predictor))
                block = left.transposed @ right
                G[own, to] = block.toarray() if sparse.issparse(block) else block
                if j > i:
                    G[to, own] = G[own, to].T
        return Cross(G00, Es, Ed, G, self)


@dataclass(frozen=True)
class Cross:
    """G: of the eliminated factor G00 (q, q, L), with the sparse columns q matrices (L, m_s), with the dense ones
    (q, L, m_d + p), and of the rest (m + p, m + p)."""

    G00: Array | None
    sparse: Sequence[sparse.csr_matrix]
    dense: Array | None
    rest: Array
    columns: Columns

    def times(self, v0: Array | None, rest: Array) -> tuple[Array | None, Array]:
        """G v: v0 (q, L) or None, rest (m + p,)."""
        ms = self.columns.sparse_size
        out = self.rest @ rest
        if v0 is None or self.G00 is None or self.dense is None:
            return None, out
        first = np.einsum("klx,lx->kx", self.G00, v0) + self.dense @ rest[ms:]
        for k in range(len(v0)):
            out[ms:] += self.dense[k].T @ v0[k]
            if len(self.sparse):
                first[k] += self.sparse[k] @ rest[:ms]
                out[:ms] += self.sparse[k].T @ v0[k]
        return first, out


@dataclass(frozen=True)
class Scales:
    """Λ: of the eliminated factor λ0 (q, q), of each further random term its λ (width, width)."""

    first: Array | None
    rest: tuple[Array, ...]

    def right(self, M: Array, columns: Columns, *, begin: int = 0) -> Array:
        """M Λ for the columns from `begin` on of the rest; fixed ones as they are."""
        plain = self._vector(columns)
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
                shaped = block.reshape(*block.shape[:-1], t.levels, t.width)
                out[..., at : at + t.size] = (shaped @ lam).reshape(block.shape)
        return out

    def _vector(self, columns: Columns) -> Array | None:
        """Λ's diagonal, 1 of fixed columns, where every term has one effect; else None."""
        if any(lam.size != 1 for lam in self.rest):
            return None
        out = np.ones(columns.starts[-1])
        for i, lam in enumerate(self.rest):
            out[columns.starts[i] : columns.starts[i + 1]] = lam[0, 0]
        return out

    def block(self, columns: Columns) -> sparse.csr_matrix:
        """Λ of the sparse terms, (m_s, m_s)."""
        parts = [
            sparse.kron(sparse.identity(t.levels), self.rest[i]) for i, t in enumerate(columns.sparse_terms)
        ]
        return sparse.block_diag(parts, format="csr")

    def times(self, u0: Array | None, rest: Array, columns: Columns) -> tuple[Array | None, Array]:
        """Λ u."""
        return None if u0 is None or self.first is None else self.first @ u0, self._rest(rest, columns, False)

    def back(self, v0: Array | None, rest: Array, columns: Columns) -> tuple[Array | None, Array]:
        """Λᵀ v."""
        first = None if v0 is None or self.first is None else self.first.T @ v0
        return first, self._rest(rest, columns, True)

    def _rest(self, v: Array, columns: Columns, transpose: bool) -> Array:
        out = v.copy()
        for i, lam in enumerate(self.rest):
            t, at = columns.terms[i], columns.starts[i]
            shaped = v[at : at + t.size].reshape(t.levels, t.width)
            out[at : at + t.size] = (shaped @ (lam if transpose else lam.T)).reshape(-1)
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
        self.C: list[sparse.csr_matrix] = []
        self.Cd: Array | None = None
        ms = self.columns.sparse_size
        P = np.zeros(self.size)
        P[: self.m] = 1.0
        inner = cross.rest[: self.size, : self.size]
        S = scales.right(scales.right(inner, self.columns).T, self.columns) + np.diag(P)
        self.first_determinant = 0.0
        if cross.G00 is not None and scales.first is not None and cross.dense is not None:
            q, lam = len(cross.G00), scales.first
            D = np.einsum("ka,klx,lb->abx", lam, cross.G00, lam, optimize=True)
            D[np.arange(q), np.arange(q)] += 1.0
            LD = _cholesky(D)
            self.first_determinant = 2 * float(np.log(LD[np.arange(q), np.arange(q)]).sum())
            self.Linv = _inverse_lower(LD)
            E = self._scaled_sparse(cross.sparse, lam)
            Ed = np.einsum("ka,klx->alx", lam, scales.right(cross.dense, self.columns, begin=ms))[
                ..., : self.size - ms
            ]
            self.C = [_combined(self.Linv[k], E, range(k + 1)) for k in range(q)] if E else []
            self.Cd = np.stack(
                [sum(self.Linv[k, j][:, None] * Ed[j] for j in range(k + 1)) for k in range(q)]
            )
            for k in range(q):
                if self.C:
                    S[:ms, :ms] -= (self.C[k].T @ self.C[k]).toarray()
                    block = self.C[k].T @ self.Cd[k]
                    S[:ms, ms:] -= block
                    S[ms:, :ms] -= block.T
                S[ms:, ms:] -= self.Cd[k].T @ self.Cd[k]
        self.L = _dense_cholesky(S)

    def _scaled_sparse(self, E: Sequence[sparse.csr_matrix], lam: Array) -> list[sparse.csr_matrix]:
        """Λ0ᵀ E Λ of the sparse columns."""
        if not len(E):
            return []
        block = self.scales.block(self.columns)
        moved = [e @ block for e in E]
        return [
            sum((lam[j, k] * moved[j] for j in range(len(E)) if lam[j, k]), 0 * moved[0])
            for k in range(len(E))
        ]

    def without_fixed(self) -> Factored:
        """The factor of the random effects' block alone."""
        out: Factored = object.__new__(Factored)
        out.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _CACHED})
        out.size, out.L = self.m, self.L[: self.m, : self.m]
        out.Cd = None if self.Cd is None else self.Cd[..., : self.m - self.columns.sparse_size]
        return out

    @property
    def fixed_information(self) -> Array:
        """The Schur complement of the fixed columns, (p, p): their information once the random effects are
        eliminated."""
        low = self.L[self.m :, self.m :]
        out: Array = low @ low.T
        return out

    @cached_property
    def log_determinant(self) -> tuple[float, float]:
        """log det of the random effects' block, and of what the fixed columns add."""
        d = np.log(np.diag(self.L))
        return self.first_determinant + 2 * float(d[: self.m].sum()), 2 * float(d[self.m :].sum())

    # ---- H⁻¹ b ---------------------------------------------------------------------------------------------

    def solve(self, b0: Array | None, rest: Array) -> tuple[Array | None, Array]:
        """H⁻¹ b: b0 (q, L, r) or None, rest (size, r)."""
        if b0 is None or self.Linv is None:
            return None, _solve(self.L, rest)
        q = len(b0)
        t = np.stack([sum(self.Linv[k, j][:, None] * b0[j] for j in range(k + 1)) for k in range(q)])
        x = _solve(self.L, rest - sum((self._back(k, t[k]) for k in range(q)), np.zeros_like(rest)))
        y = np.stack([t[k] - self._times(k, x) for k in range(q)])
        return np.stack([sum(self.Linv[j, k][:, None] * y[j] for j in range(k, q)) for k in range(q)]), x

    def _times(self, k: int, x: Array) -> Array:
        """C_k x."""
        assert self.Cd is not None
        ms = self.columns.sparse_size
        out: Array = self.Cd[k] @ x[ms:]
        if self.C:
            out += self.C[k] @ x[:ms]
        return out

    def _back(self, k: int, t: Array) -> Array:
        """C_kᵀ t."""
        assert self.Cd is not None
        dense = self.Cd[k].T @ t
        return np.concatenate([self.C[k].T @ t, dense]) if self.C else dense

    # ---- parts of H⁻¹ --------------------------------------------------------------------------------------

    @cached_property
    def inverse(self) -> Array:
        """(H⁻¹)_rr = S⁻¹, (size, size)."""
        if not len(self.L):
            return self.L
        low, info = lapack.dpotri(self.L, lower=1)  # above the diagonal L is 0, and stays so
        if info != 0:
            raise NotPositiveDefinite
        out: Array = low + low.T
        out[np.diag_indices(len(out))] *= 0.5
        return out

    @cached_property
    def T(self) -> Array:
        """K S⁻¹ = −(H⁻¹)_0r, (q, L, size)."""
        ms, Si = self.columns.sparse_size, self.inverse
        out = [K @ Si[:ms] for K in self._K] if self._K else [np.zeros((0, 0))] * 0
        dense = [Kd @ Si[ms:] for Kd in self._Kd]
        return np.stack([a + b for a, b in zip(out, dense, strict=True)] if out else dense)

    @cached_property
    def _K(self) -> list[sparse.csr_matrix]:
        assert self.Linv is not None
        q = len(self.Linv)
        return [_combined(self.Linv[:, k], self.C, range(k, q)) for k in range(q)] if self.C else []

    @cached_property
    def _Kd(self) -> Array:
        assert self.Linv is not None
        assert self.Cd is not None
        q = len(self.Linv)
        return np.stack([sum(self.Linv[j, k][:, None] * self.Cd[j] for j in range(k, q)) for k in range(q)])

    @cached_property
    def first(self) -> Array:
        """(H⁻¹)_00, the block of each level, (q, q, L)."""
        assert self.Linv is not None
        q, ms = len(self.Linv), self.columns.sparse_size
        out: Array = np.einsum("jax,jbx->abx", self.Linv, self.Linv)
        if self.size:
            for a in range(q):
                for b in range(q):
                    out[a, b] += np.einsum("lj,lj->l", self.T[a][:, ms:], self._Kd[b])
                    if self._K:
                        K, rows = self._K[b], _rows_of(self._K[b])
                        out[a, b] += np.bincount(rows, K.data * self.T[a][rows, K.indices], K.shape[0])
        return out

    def slopes(self) -> tuple[Array | None, list[Array]]:
        """Q with ½ d log det H = Σ Q ∘ dΛ: of the eliminated factor (q, q), of each further term (width, width).

        Q is the sum over levels of the diagonal blocks of G Λ H⁻¹.
        """
        cross, scales, columns, ms = self.cross, self.scales, self.columns, self.columns.sparse_size
        first = None
        GL = scales.right(cross.rest[: self.size, : self.size], columns)
        moved = None
        if cross.G00 is not None and scales.first is not None and cross.dense is not None:
            q, lam = len(cross.G00), scales.first
            first = np.einsum("klx,la,abx->kb", cross.G00, lam, self.first, optimize=True)
            if self.size:
                dense = scales.right(cross.dense, columns, begin=ms)[..., : self.size - ms]
                first -= np.einsum("klj,blj->kb", dense, self.T[..., ms:])
                if len(cross.sparse):
                    block = scales.block(columns)
                    for k in range(q):
                        E = cross.sparse[k] @ block
                        rows = _rows_of(E)
                        first[k] -= [float(E.data @ self.T[b][rows, E.indices]) for b in range(q)]
                moved = lam[0, 0] * self.T if q == 1 else np.einsum("ka,alj->klj", lam, self.T)  # Λ0 T
        out = []
        for i in range(len(columns.random)):
            t, at = columns.terms[i], columns.starts[i]
            own = slice(at, at + t.size)
            left = GL[own].reshape(t.levels, t.width, self.size)
            right = self.inverse[own].reshape(t.levels, t.width, self.size)
            Q = (
                np.tensordot(left, right, axes=((0, 2), (0, 2)))
                if t.width > 1
                else np.vdot(left, right).reshape(1, 1)
            )
            if moved is not None:
                for k in range(t.width):
                    for p in range(t.width):
                        Q[k, p] -= self._paired(moved, own, k, p, t.width)
            out.append(Q)
        return first, out

    def _paired(self, moved: Array, own: slice, k: int, p: int, width: int) -> float:
        """Σ over the levels of a further term of Σ_l G_0r[l, (level, k)] (Λ0 T)[l, (level, p)]."""
        assert self.cross.dense is not None
        ms, total = self.columns.sparse_size, 0.0
        at, to = np.arange(own.start + k, own.stop, width), np.arange(own.start + p, own.stop, width)
        for a in range(len(moved)):
            if own.start < ms:
                E = self.cross.sparse[a]
                rows, mine = _rows_of(E), (E.indices >= own.start) & (E.indices < own.stop)
                if width > 1:
                    mine &= (E.indices - own.start) % width == k
                if not mine.all():
                    total += float(E.data[mine] @ moved[a][rows[mine], E.indices[mine] - k + p])
                else:
                    total += float(E.data @ moved[a][rows, E.indices])
            else:
                total += float(np.einsum("lj,lj->", self.cross.dense[a][:, at - ms], moved[a][:, to]))
        return total

    # ---- Z Λ H⁻¹ Λᵀ Zᵀ, row by row -------------------------------------------------------------------------

    def row_variances(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Array]:
        """z_aᵀ Λ H⁻¹ Λᵀ z_b of each row, (n,), of each pair of predictors a ≤ b; fixed columns included where
        they are part of H."""
        rows = {a: _RowParts(self, a) for a in {a for pair in pairs for a in pair}}
        return {(a, b): rows[a].with_(rows[b]) for a, b in pairs}


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
        self.at: list[tuple[Array, Array]] = []  # (column of each row, value) of sparse terms
        self.dense: list[tuple[slice, Array]] = []
        for i, t in enumerate(columns.terms):
            begin = columns.starts[i]
            if t.predictor != a or begin >= factored.size:
                continue
            lamda = factored.scales.rest[i] if i < len(factored.scales.rest) else None
            if sparse.issparse(t.rows):
                assert lamda is not None
                z = t.rows.data.reshape(-1, t.width) @ lamda
                place = (
                    t.rows.indices.reshape(-1, t.width)[:, :1]
                    - t.rows.indices.reshape(-1, t.width)[:, :1] % t.width
                )
                for k in range(t.width):
                    self.at.append((begin + place[:, 0] + k, z[:, k]))
            else:
                rows = t.rows
                if lamda is not None:
                    rows = (t.rows.reshape(-1, t.levels, t.width) @ lamda).reshape(t.rows.shape)
                self.dense.append((slice(begin, begin + t.size), rows))

    def with_(self, other: _RowParts) -> Array:
        f, out = self.f, np.zeros(self.f.columns.n)
        if self.first is not None and other.first is not None:
            for k in range(len(self.first)):
                for j in range(len(other.first)):
                    out += self.first[k] * f.first[k, j].take(self.code) * other.first[j]
        for left, right in ((self, other), (other, self)):
            if left.first is not None:
                for k in range(len(left.first)):
                    for at, value in right.at:
                        out -= left.first[k] * f.T[k][left.code, at] * value
                    for own, rows in right.dense:
                        out -= left.first[k] * np.einsum("ij,ij->i", f.T[k][:, own][left.code], rows)
        for at, value in self.at:
            for to, times in other.at:
                out += value * f.inverse[at, to] * times
            for own, rows in other.dense:
                out += value * np.einsum("ij,ij->i", f.inverse[:, own][at], rows)
        for own, rows in self.dense:
            for to, times in other.at:
                out += times * np.einsum("ij,ij->i", f.inverse[:, own][to], rows)
            for right_own, right_rows in other.dense:
                out += np.einsum("ij,ij->i", rows @ f.inverse[own, right_own], right_rows)
        return out


# ---- small and dense factors -------------------------------------------------------------------------------


def _rows_of(M: sparse.csr_matrix) -> Array:
    """The row of each entry."""
    return np.repeat(np.arange(M.shape[0]), np.diff(M.indptr))


def _combined(scale: Array, matrices: Sequence[sparse.csr_matrix], which: range) -> sparse.csr_matrix:
    """Σ_j diag(scale_j) M_j."""
    out = None
    for j in which:
        part = matrices[j].copy()
        part.data = part.data * np.repeat(scale[j], np.diff(part.indptr))
        out = part if out is None else out + part
    assert out is not None
    return out.tocsr()


def _cholesky(D: Array) -> Array:
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


def _inverse_lower(L: Array) -> Array:
    """Inverses of lower triangular L (q, q, levels)."""
    q = len(L)
    out = np.zeros_like(L)
    for k in range(q):
        out[k, k] = 1 / L[k, k]
        for i in range(k + 1, q):
            out[i, k] = -sum(L[i, j] * out[j, k] for j in range(k, i)) / L[i, i]
    return out


def _dense_cholesky(S: Array) -> Array:
    if not len(S):
        return S
    L: Array
    L, info = lapack.dpotrf(S, lower=1, clean=1)
    if info != 0 or not bool(np.isfinite(L).all()):
        raise NotPositiveDefinite
    return L


def _solve(L: Array, b: Array) -> Array:
    out: Array = cho_solve((L, True), b) if len(L) else b
    return out
