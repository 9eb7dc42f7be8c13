"""The Cholesky factor of a sparse matrix, node by node of its tree (`fronts`), and of the inverse its pattern.

    front F = [ A  Bᵀ ]      W = A⁻¹,   M = B W,   C − M Bᵀ is added into the parent's front
              [ B  C  ]      log det = Σ log det A

    forward   y_S −= M y_P;     backward   x_P = W y_P − Mᵀ x_S
    inverse   Z_SP = −Z_SS M,   Z_PP = W − Mᵀ Z_SP,   from the root down: Z_SS is part of the parent's

Source: Takahashi, Fagan and Chen (1973), Formation of a sparse bus impedance matrix; Erisman and Tinney (1975), On
computing certain elements of the inverse of a sparse matrix; Liu (1992), for the fronts.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .blocks import Array, cholesky, dense_cholesky, dense_inverse, inverse_lower
from .fronts import Fronts, Group

SMALL = 6  # pivots, of which all nodes' blocks are taken at once


class SparseCholesky:
    """Of a matrix on the pattern of which `fronts` are the tree.

    Parameters
    ----------
    values
        (nnz,), both triangles

    Raises
    ------
    NotPositiveDefinite
    """

    def __init__(self, fronts: Fronts, values: Array):
        self.fronts = fronts
        self.W: list[Array] = []
        self.M: list[Array] = []
        self.log_determinant = 0.0
        left: dict[int, Array] = {}  # C − M Bᵀ of the groups that still have parents to come
        waiting = [0] * len(fronts.groups)
        for group in fronts.groups:
            for c, *_ in group.children:
                waiting[c] += 1
        for number, group in enumerate(fronts.groups):
            F = self._assembled(group, values, left)
            for c, *_ in group.children:
                waiting[c] -= 1
                if not waiting[c]:
                    del left[c]
            k = group.shape[1]
            W, logs = _inverted(F[:, :k, :k])
            B = F[:, k:, :k]
            M = B @ W
            self.log_determinant += logs
            self.W.append(W)
            self.M.append(M)
            if waiting[number]:
                left[number] = F[:, k:, k:] - M @ B.swapaxes(1, 2)

    def _assembled(self, group: Group, values: Array, left: dict[int, Array]) -> Array:
        g, k, r = group.shape
        f = k + r
        F = np.zeros(g * f * f)
        F[group.to] = values[group.entry]
        F[group.padding] = 1.0
        for c, which, parent, at in group.children:
            places = (parent[:, None, None] * f + at[:, :, None]) * f + at[:, None, :]
            np.add.at(F, places.reshape(-1), left[c][which].reshape(-1))
        return F.reshape(g, f, f)

    def solve(self, b: Array) -> Array:
        """A⁻¹ b, (m, …)."""
        x = np.concatenate([b.reshape(len(b), -1), np.zeros((1, b[0].size))])  # and a row for padding
        groups = list(zip(self.fronts.groups, self.W, self.M, strict=True))
        for group, _, M in groups:
            if group.rows.size:
                different, adds = group.summing
                x[different] -= adds @ (M @ x[group.pivots]).reshape(-1, x.shape[1])
        for group, W, M in reversed(groups):
            own = W @ x[group.pivots]
            if group.rows.size:
                own -= M.swapaxes(1, 2) @ x[group.rows]
            x[group.pivots] = own
        return x[:-1].reshape(b.shape)

    @cached_property
    def inverse(self) -> Array:
        """A⁻¹ at the entries of the pattern, (nnz,)."""
        groups = self.fronts.groups
        out = np.empty(sum(len(group.entry) for group in groups))
        within: dict[int, Array] = {}  # Z_SS of groups whose parents are known
        for number in range(len(groups) - 1, -1, -1):
            group = groups[number]
            g, k, r = group.shape
            W, M = self.W[number], self.M[number]
            Z = np.empty((g, k + r, k + r))
            if r:
                Z[:, k:, k:] = within.pop(number)
                Z[:, k:, :k] = -Z[:, k:, k:] @ M
                Z[:, :k, k:] = Z[:, k:, :k].swapaxes(1, 2)
            Z[:, :k, :k] = W - M.swapaxes(1, 2) @ Z[:, k:, :k]
            out[group.entry] = Z.reshape(-1)[group.to]
            for c, which, parent, at in group.children:
                below = groups[c]
                if c not in within:
                    within[c] = np.zeros((below.shape[0], below.shape[2], below.shape[2]))
                within[c][which] = Z[parent[:, None, None], at[:, :, None], at[:, None, :]]
        return out


def _inverted(A: Array) -> tuple[Array, float]:
    """The inverses of (g, k, k), and the sum of their log determinants."""
    k = A.shape[1]
    if k <= SMALL:
        low = cholesky(np.ascontiguousarray(A.transpose(1, 2, 0)))
        logs = float(np.log(low[np.arange(k), np.arange(k)]).sum())
        up = np.ascontiguousarray(inverse_lower(low).transpose(2, 0, 1))
        return up.swapaxes(1, 2) @ up, 2 * logs
    out, total = np.empty_like(A), 0.0
    for i, block in enumerate(A):
        L = dense_cholesky(np.array(block, order="C"))
        total += 2 * float(np.log(np.diag(L)).sum())
        out[i] = dense_inverse(L)
    return out, total
