"""Information: minus the Hessian of a log-likelihood, kept in the form in which it can be solved.

    J = [ A   Eᵀ ]      A (m, m) dense;  D (L,) the diagonal block of one categorical term of L levels;  E (L, m)
        [ E   D  ]

Two levels of one category never meet in a row, so their block of J is diagonal: it is eliminated by its Schur
complement S = A − Eᵀ D⁻¹ E, and a category of thousands of levels costs O(L·m), not O(L³). Without such a
term, J = A. Beside other wide categories E is sparse.

The coordinates of D are `eliminated`, a slice of θ; A holds the others in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .sparse_rows import SparseRows, row_dots, written_out

LARGE = 500  # coordinates of a matrix of which LAPACK's inverse is faster than torch's


@dataclass
class Information:
    """J, (p, p), of the sum so far. Adding two adds their parts."""

    A: Tensor
    E: Tensor | SparseRows | None = None
    D: Tensor | None = None
    eliminated: slice | None = None
    known: Factor | None = field(default=None, repr=False, compare=False)  # where it was found on the way

    @property
    def size(self) -> int:
        return len(self.A) + (0 if self.D is None else len(self.D))

    def __add__(self, other: Information) -> Information:
        if self.eliminated != other.eliminated:
            return Information(self.dense() + other.dense())
        if self.E is None or self.D is None or other.E is None or other.D is None:
            return Information(self.A + other.A)
        if isinstance(self.E, SparseRows) != isinstance(other.E, SparseRows):
            return Information(
                self.A + other.A,
                written_out(self.E) + written_out(other.E),
                self.D + other.D,
                self.eliminated,
            )
        return Information(self.A + other.A, self.E + other.E, self.D + other.D, self.eliminated)  # type: ignore[operator]

    def accumulate(self, other: Information) -> Information:
        """self + other, in the memory of self."""
        if self.eliminated != other.eliminated or isinstance(self.E, SparseRows):
            return self + other
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine += theirs
        self.known = None
        return self

    def tensors(self) -> list[Tensor]:
        """Its numbers, where they are dense: what a sum over processes adds."""
        return [t for t in (self.A, self.E, self.D) if isinstance(t, Tensor)]

    def kept(self) -> Tensor:
        """The coordinates of A among those of θ."""
        index = torch.arange(self.size, device=self.A.device)
        return (
            index
            if self.eliminated is None
            else torch.cat([index[: self.eliminated.start], index[self.eliminated.stop :]])
        )

    def dense(self) -> Tensor:
        """J written out, (p, p)."""
        if self.eliminated is None or self.D is None or self.E is None:
            return self.A
        out = self.A.new_zeros(self.size, self.size)
        kept = self.kept()
        out[kept[:, None], kept] = self.A
        E = written_out(self.E)
        out[self.eliminated, kept] = E
        out[kept, self.eliminated] = E.T
        out[self.eliminated, self.eliminated] = torch.diag(self.D)
        return out

    def diagonal(self) -> Tensor:
        out = self.A.new_empty(self.size)
        out[self.kept()] = self.A.diagonal()
        if self.eliminated is not None and self.D is not None:
            out[self.eliminated] = self.D
        return out

    def times(self, factor: float) -> Information:
        """factor · J."""
        E = None if self.E is None else self.E * factor
        return Information(self.A * factor, E, None if self.D is None else self.D * factor, self.eliminated)

    def plus_diagonal(self, extra: Tensor) -> Information:
        """J + diag(extra): a prior's curvature, a trust region's."""
        A = self.A + torch.diag(extra[self.kept()])
        D = None if self.D is None else self.D + extra[self.eliminated]
        return Information(A, self.E, D, self.eliminated)

    def with_diagonal(self, at: int, value: float) -> Information:
        """J with another J_at,at, of a coordinate that is not eliminated."""
        A, place = self.A.clone(), int((self.kept() == at).nonzero())
        A[place, place] = value
        return Information(A, self.E, self.D, self.eliminated)

    def restrict(self, free: Tensor) -> Information:
        """The block of the coordinates `free` (ascending), eliminated ones still eliminated."""
        if self.eliminated is None or self.D is None or self.E is None:
            return Information(self.A[free[:, None], free])
        start, stop = self.eliminated.start, self.eliminated.stop
        inside = (free >= start) & (free < stop)
        gone = free[inside] - start
        position = torch.full((self.size,), -1, dtype=torch.long)
        position[self.kept()] = torch.arange(len(self.A))
        kept = position[free[~inside]]
        first = int((free < start).sum())
        return Information(
            self.A[kept[:, None], kept],
            self.E.restricted(gone, kept) if isinstance(self.E, SparseRows) else self.E[gone[:, None], kept],
            self.D[gone],
            slice(first, first + len(gone)),
        )

    def multiply(self, v: Tensor) -> Tensor:
        """J v."""
        if self.eliminated is None or self.D is None or self.E is None:
            return self.A @ v
        kept = self.kept()
        small, large = v[kept], v[self.eliminated]
        out = torch.empty_like(v)
        out[kept] = self.A @ small + self.E.T @ large
        out[self.eliminated] = self.E @ small + self.D * large
        return out

    def factor(self) -> Factor | None:
        """A Cholesky factor, or None where J is not safely positive definite."""
        if self.known is not None:
            return self.known
        if not all(bool(torch.isfinite(t).all()) for t in self.tensors()):
            return None
        S: Tensor = self.A
        ratio: Tensor | SparseRows | None = None
        if self.D is not None and self.E is not None:
            if not bool((self.D > 0).all()):
                return None
            ratio = self.E * (1 / self.D)[:, None]
            if isinstance(self.E, SparseRows):
                if not self.E.isfinite():
                    return None
                S = self.E.schur(self.A, self.D)
            else:
                S = self.A - self.E.T @ ratio  # type: ignore[operator]
        scale = self.A.diagonal().clamp(min=0).sqrt()
        if not bool((scale > 0).all()):
            return None
        L, info = torch.linalg.cholesky_ex(S / scale[:, None] / scale)
        pivots = L.diagonal()
        if int(info) != 0 or (len(pivots) and not bool(torch.isfinite(pivots).all())):
            return None
        return Factor(self, L, scale, ratio)


@dataclass
class Factor:
    """The Cholesky factor L of the scaled Schur complement; `pivot` is its smallest squared pivot: 0 is exact
    collinearity."""

    information: Information
    L: Tensor
    scale: Tensor
    ratio: Tensor | SparseRows | None

    @property
    def pivot(self) -> float:
        return float(self.L.diagonal().min() ** 2) if len(self.L) else 1.0

    def _solve_small(self, b: Tensor) -> Tensor:
        return torch.cholesky_solve((b / self.scale[:, None]), self.L) / self.scale[:, None]

    def solve(self, b: Tensor) -> Tensor:
        """J⁻¹ b for b of (p,) or (p, r)."""
        flat = b[:, None] if b.ndim == 1 else b
        J = self.information
        if J.eliminated is None or J.D is None or self.ratio is None:
            out = self._solve_small(flat)
        else:
            kept = J.kept()
            small = self._solve_small(flat[kept] - self.ratio.T @ flat[J.eliminated])
            out = torch.empty_like(flat)
            out[kept] = small
            out[J.eliminated] = flat[J.eliminated] / J.D[:, None] - self.ratio @ small
        return out[:, 0] if b.ndim == 1 else out

    def rescaled(self, J: Information) -> Factor:
        """The factor of J, where J differs from what was factored by a factor of all, and of rows and columns of A that
        are zero off the diagonal."""
        return Factor(replace(J, known=None), self.L, J.A.diagonal().sqrt(), self.ratio)

    def forms(self, X: Tensor) -> Tensor:
        """diag XᵀJ⁻¹X, (r,), of X (p, r) that is zero where coordinates are eliminated."""
        kept = X[self.information.kept()] / self.scale[:, None]
        out: Tensor = torch.linalg.solve_triangular(self.L, kept, upper=False).square().sum(0)
        return out

    def root(self, z: Tensor) -> Tensor:
        """R z with R Rᵀ = J⁻¹, for z of (p, r): independent standard normal z become draws of N(0, J⁻¹)."""
        J = self.information
        kept = J.kept()
        small = torch.linalg.solve_triangular(self.L.T, z[kept], upper=True) / self.scale[:, None]
        if J.eliminated is None or J.D is None or self.ratio is None:
            out: Tensor = small
            return out
        out = torch.empty_like(z)
        out[kept] = small
        out[J.eliminated] = z[J.eliminated] / J.D.sqrt()[:, None] - self.ratio @ small
        return out

    def inverse_diagonal(self) -> Tensor:
        """diag J⁻¹, without writing J⁻¹ out."""
        J = self.information
        small = self._inverse_small()
        if J.eliminated is None or J.D is None or self.ratio is None:
            return small.diagonal().clone()
        out = self.L.new_empty(J.size)
        out[J.kept()] = small.diagonal()
        out[J.eliminated] = 1 / J.D + row_dots(self.ratio, small, self.ratio)
        return out

    def inverse_diagonal_bound(self) -> Tensor:
        """What diag J⁻¹ is not above: itself but where coordinates are eliminated, by ‖S⁻¹‖ ≤ max_i Σ_j |S⁻¹_ij| of the
        scaled S.

            1/D_l + r_lᵀ S⁻¹ r_l  ≤  1/D_l + ‖r_l‖² ‖S⁻¹‖
        """
        J = self.information
        if not isinstance(self.ratio, SparseRows) or J.eliminated is None or J.D is None:
            return self.inverse_diagonal()
        small = self._inverse_small()
        norm = (small.abs() * self.scale[:, None] * self.scale).sum(1).max()
        out = self.L.new_empty(J.size)
        out[J.kept()] = small.diagonal()
        out[J.eliminated] = 1 / J.D + norm * self.ratio.squares(1 / self.scale)
        return out

    def _inverse_small(self) -> Tensor:
        """S⁻¹."""
        if len(self.L) > LARGE:
            from .blocks import dense_inverse  # brings scipy

            scaled = torch.from_numpy(dense_inverse(self.L.numpy()))
        else:
            scaled = torch.cholesky_inverse(self.L)
        out: Tensor = scaled.div_(self.scale[:, None]).div_(self.scale)
        return out

    def inverse(self) -> Tensor:
        """J⁻¹, (p, p)."""
        return self.solve(torch.eye(self.information.size, dtype=self.L.dtype, device=self.L.device))

    def log_determinant(self) -> Tensor:
        """log det J."""
        out = 2 * (self.L.diagonal().log().sum() + self.scale.log().sum())
        return out if self.information.D is None else out + self.information.D.log().sum()
