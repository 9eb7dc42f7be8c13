"""A matrix of many rows with few numbers each: the products of one wide category with other wide ones.

    E (L, m): of 100,000 persons in 4,000 firms, each person's row has as many numbers as firms that he has worked in.

It is what `Information` needs of a matrix: products, sums, rows scaled; the rest is scipy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..kernels import levels

if TYPE_CHECKING:
    from scipy import sparse


@dataclass(frozen=True)
class SparseRows:
    """E, (L, m), float64.

    Parameters
    ----------
    matrix
        in compressed rows, whose columns rise; of a transpose, in compressed columns

    Examples
    --------
    >>> from scipy import sparse
    >>> E = SparseRows(sparse.csr_array(np.array([[1.0, 0.0], [0.0, 2.0]])))
    >>> (E @ torch.tensor([1.0, 10.0], dtype=torch.float64)).tolist(), (E.T @ (3.0 * E)).tolist()
    ([1.0, 20.0], [[3.0, 0.0], [0.0, 12.0]])
    """

    matrix: sparse.csr_array | sparse.csc_array

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def rows(self) -> levels.Rows:
        """Where each row begins, its columns, its values."""
        return self.matrix.indptr, self.matrix.indices, self.matrix.data

    @property
    def T(self) -> SparseRows:
        return SparseRows(self.matrix.T)

    def __matmul__(self, other: Tensor | SparseRows) -> Tensor:
        if isinstance(other, SparseRows):
            return torch.from_numpy((self.matrix @ other.matrix).toarray())
        return torch.from_numpy(self.matrix @ other.numpy())

    def __add__(self, other: SparseRows) -> SparseRows:
        return SparseRows((self.matrix + other.matrix).tocsr())

    def __sub__(self, other: SparseRows) -> SparseRows:
        return SparseRows((self.matrix - other.matrix).tocsr())

    def __mul__(self, factor: float | Tensor) -> SparseRows:
        """factor · E; of (L, 1), a factor a row."""
        if isinstance(factor, Tensor) and factor.ndim == 2:
            return self.scaled(factor[:, 0])
        return self._with(self.matrix.data * float(factor))

    __rmul__ = __mul__

    def scaled(self, factor: Tensor) -> SparseRows:
        """diag(factor) E, factor (L,)."""
        return self._with(self.matrix.data * np.repeat(factor.numpy(), np.diff(self.matrix.indptr)))

    def _with(self, values: np.ndarray) -> SparseRows:
        """The same pattern, in the same memory, with other values."""
        own = self.matrix
        return SparseRows(type(own)((values, own.indices, own.indptr), shape=own.shape, copy=False))

    def to(self, dtype: torch.dtype) -> SparseRows:
        """Itself: it is float64 always."""
        assert dtype == torch.float64
        return self

    def clone(self) -> SparseRows:
        return SparseRows(self.matrix.copy())

    def isfinite(self) -> bool:
        return bool(np.isfinite(self.matrix.data).all())

    def restricted(self, rows: Tensor, columns: Tensor) -> SparseRows:
        return SparseRows(self.matrix[rows.numpy()][:, columns.numpy()].tocsr())

    def squares(self, factor: Tensor) -> Tensor:
        """Σ_j (E_lj factor_j)², (L,), factor (m,)."""
        return self._with(self.matrix.data**2) @ factor.square()

    def dense(self) -> Tensor:
        return torch.from_numpy(self.matrix.toarray())

    def schur(self, A: Tensor, D: Tensor) -> Tensor:
        """A − Eᵀ D⁻¹ E, (m, m), D (L,)."""
        return levels.schur(A, self.rows, D)


def written_out(E: Tensor | SparseRows) -> Tensor:
    return E.dense() if isinstance(E, SparseRows) else E


def row_dots(left: Tensor | SparseRows, M: Tensor, right: Tensor | SparseRows) -> Tensor:
    """Σ_ij left_li M_ij right_lj, (L,)."""
    if not isinstance(left, SparseRows) or not isinstance(right, SparseRows):
        return ((left @ M) * written_out(right)).sum(1)
    return levels.row_dots(left.rows, M, right.rows)
