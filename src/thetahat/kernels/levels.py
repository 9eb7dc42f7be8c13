"""The rows of an information that belong to the levels of an eliminated term, where they are sparse.

    E_l = Σ_{i in level l} w_i x_i,      D_l = Σ_{i in level l} w_i,      S = A − Eᵀ D⁻¹ E

Of 20,000 persons in 300 firms, each person's row of E has as many numbers as firms that he has worked in. Which they are
depends on the codes alone: a `Pattern` is found once, and sums any weights of the same rows.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import Columns, TermRows, called

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # of a sparse matrix: where each begins, columns, values


class _Pattern(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("begin", "order", "indptr", "slot", "fixed")),
        ("levels", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("many", ctypes.c_int32),
    )


class Pattern:
    """Which numbers of E are not zero.

    Parameters
    ----------
    columns
        of every predictor; one of their terms has place −1, and is eliminated
    kept
        columns of E
    dense
        those of them, rising, that belong to no term

    Attributes
    ----------
    indptr, indices
        where each row of E begins, and its columns, rising
    """

    def __init__(self, columns: Sequence[Columns], kept: int, dense: Tensor):
        n = columns[0].n
        terms = [term for each in columns for term in each.terms]
        gone = next(term for term in terms if term.place < 0)
        others = [term for term in terms if term.place >= 0]
        many = (TermRows * max(1, len(others)))(*others)
        levels, width, threads = int(gone.levels), len(dense), columns[0].threads
        most = levels * width + n * len(others)
        begin, indptr = np.empty(levels + 1, dtype=np.int64), np.empty(levels + 1, dtype=np.int64)
        order, slot = np.empty(n, dtype=np.int32), np.empty(n * len(others), dtype=np.int32)
        fixed, indices = np.empty(levels * width, dtype=np.int64), np.empty(most, dtype=np.int32)
        found = called().thetahat_pattern(
            ctypes.addressof(gone),
            ctypes.addressof(many),
            len(others),
            n,
            dense.contiguous().data_ptr(),
            width,
            kept,
            *(address(a) for a in (begin, order, indptr, indices, slot, fixed)),
            threads,
        )
        self.indptr, self.indices = indptr, indices[:found].copy()
        self._first, at = {}, 0  # of each predictor's terms among the others
        for each in columns:
            self._first[each.start] = at
            at += sum(term.place >= 0 for term in each.terms)
        column = np.full(kept, -1)
        column[dense.numpy()] = np.arange(width)
        self._alive = (begin, order, indptr, slot, fixed, column)  # memory that C++ reads
        self._column = address(column)
        self._own = _Pattern(
            *(address(a) for a in (begin, order, indptr, slot, fixed)),
            levels=levels,
            width=width,
            many=len(others),
        )

    def gather(
        self, gone: TermRows, right: Columns, weight: Tensor, values: Tensor, diagonal: Tensor | None
    ) -> None:
        """values += Σ w x of every level, x the right's columns; diagonal, where given, += Σ w.

        Parameters
        ----------
        gone
            the eliminated term, as its predictor's columns hold it
        weight, values, diagonal
            (n,), (numbers of E,), (levels,)
        """
        called().thetahat_gather(
            ctypes.addressof(self._own),
            ctypes.addressof(gone),
            right.pointer,
            self._first[right.start],
            weight.data_ptr(),
            self._column,
            values.data_ptr(),
            None if diagonal is None else diagonal.data_ptr(),
            right.threads,
        )


class Patterns:
    """The patterns of rows that are still held: found once for each, and never pickled or copied with a model."""

    def __init__(self) -> None:
        from torch.utils.weak import WeakTensorKeyDictionary

        self._known: Any = WeakTensorKeyDictionary()

    def of(self, codes: Sequence[Tensor], columns: Sequence[Columns], kept: int, dense: Tensor) -> Pattern:
        """The pattern of `columns`, whose terms have these codes: the one found before, where they are the same tensors, unchanged."""
        same = [(id(c), c._version) for c in codes]
        seen = self._known.get(codes[0])
        if (
            seen is not None
            and seen[0] == same
            and all(a() is c for a, c in zip(seen[1], codes, strict=True))
        ):
            found: Pattern = seen[2]
            return found
        made = Pattern(columns, kept, dense)
        self._known[codes[0]] = (same, [weakref.ref(c) for c in codes], made)
        return made

    def __reduce__(self) -> tuple[type[Patterns], tuple[()]]:
        return Patterns, ()


def schur(A: Tensor, E: Rows, D: Tensor) -> Tensor:
    """A − Eᵀ D⁻¹ E, (m, m), of E (L, m) whose columns rise in a row, D (L,)."""
    S, rows = A.clone(), _rows(E)
    threads = torch.get_num_threads()
    called().thetahat_schur(len(D), *map(address, rows), D.data_ptr(), S.data_ptr(), len(A), threads)
    lower = S.tril()
    return lower + lower.T - torch.diag(S.diagonal())


def row_dots(left: Rows, M: Tensor, right: Rows) -> Tensor:
    """Σ_ij left_li M_ij right_lj, (L,), of M (m, m), symmetric where right is left."""
    one = _rows(left)
    two = one if all(a is b for a, b in zip(left, right, strict=True)) else _rows(right)
    out = torch.empty(len(left[0]) - 1, dtype=torch.float64)
    M, threads = M.contiguous(), torch.get_num_threads()
    where = [*map(address, one), *map(address, two)]
    called().thetahat_row_dots(len(out), *where, M.data_ptr(), len(M), out.data_ptr(), threads)
    return out


def _rows(E: Rows) -> Rows:
    return E[0].astype(np.int64, copy=False), E[1].astype(np.int32, copy=False), np.ascontiguousarray(E[2])


def address(values: np.ndarray) -> int:
    return int(values.ctypes.data)
