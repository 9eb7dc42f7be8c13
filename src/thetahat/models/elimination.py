"""Random effects' normal equations, factored by eliminating the widest grouping factor.

    H = P + Λᵀ G Λ,     G = Σ_ab Z_aᵀ diag(w_ab) Z_b,     P = I for random effects, 0 for fixed columns

Two levels of one factor never meet in a row, so that the widest factor's block of H is block-diagonal, one small
block a level. It is eliminated; what is left of the other factors, the smooth terms and the fixed columns is the Schur
complement S: one dense matrix, or, where the other factors are wide and few of their groups meet, sparse in their columns
(`schur`; `sparsity` says from what size):

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

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy import sparse

from .blocks import (
    Array as Array,
)
from .blocks import (
    NotPositiveDefinite as NotPositiveDefinite,
)
from .blocks import (
    cholesky,
    inverse_lower,
    multiplied,
    transposed,
)
from .cross_products import Columns as Columns
from .cross_products import Cross as Cross
from .cross_products import Grouped as Grouped
from .cross_products import Term as Term
from .gram import Bordered
from .relative_scales import Scales as Scales
from .row_variances import RowParts
from .schur import DenseSchur, SparseSchur, level_products

Parts = tuple[Array | None, Array]  # of the sparse columns (q, nnz), of the dense ones (q, size − m_s, L)
_CACHED = ("scaled", "_V", "T", "B", "first", "_random")


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
        """(H⁻¹)_rr = S⁻¹, (size, size), of a dense S."""
        found = self.schur.inverse
        assert not isinstance(
            found, Bordered
        )  # who reads it all says so in `Columns.whole`, or asks for `Columns.gram`
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
            assert not isinstance(W, Bordered)
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
        rows = {a: RowParts(self, a) for a in {a for pair in pairs for a in pair}}
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
