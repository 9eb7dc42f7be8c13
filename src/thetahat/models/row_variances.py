"""Z Λ H⁻¹ Λᵀ Zᵀ, row by row: the variances of the linear predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .blocks import Array
from .cross_products import ROWS

if TYPE_CHECKING:
    from .elimination import Factored


class RowParts:
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

    def with_(self, other: RowParts) -> Array:
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
