"""The compiled sums over rows, and whether this installation has them.

products.cpp is built where there is a C++ compiler as the package is installed, and comes with its wheels; elsewhere
`available()` is False, and the same sums are made of torch's operations, to the same digits but for rounding. The
environment variable THETAHAT_COMPILED=0 asks for the latter.

    eta = offset + X β        gradient += Xᵀ s        A += X_aᵀ diag(w) X_b

It is called through ctypes, which needs no compiler's knowledge of Python: one wheel a platform serves every version.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..threads import MANY, in_threads

if TYPE_CHECKING:
    from .levels import Pattern

VERSION = 6  # of the functions' arguments: a library of another one is not called
# whose value, score and curvature are compiled too; squares: −r²/2, r = y − η
FAMILIES = {"bernoulli": 0, "poisson": 1, "squares": 2}
NARROW = 64  # levels of a term above which it is wide (products.cpp has the same)
FEW = 20_000  # rows below which threads cost more than they bring
MOST_COLUMNS = 256  # dense ones: of more, the products of a linear algebra library are faster
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

_pointer, _whole, _int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class TermRows(ctypes.Structure):
    _fields_ = (
        ("codes", _pointer),
        ("value", _pointer),
        ("levels", _whole),
        ("start", _whole),
        ("place", _whole),
        ("bytes", _int),
    )


class _Design(ctypes.Structure):
    _fields_ = (
        ("n", _whole),
        ("x", _pointer),
        ("row_stride", _whole),
        ("column_stride", _whole),
        ("columns", _whole),
        ("offset", _pointer),
        ("term", ctypes.POINTER(TermRows)),
        ("start", _whole),
        ("place", _whole),
        ("terms", _int),
        ("intercept", _int),
        ("single", _int),
    )


class _Output(ctypes.Structure):
    _fields_ = (
        ("A", _pointer),
        ("E", _pointer),
        ("D", _pointer),
        ("column", _pointer),
        ("kept", _whole),
        ("width", _whole),
        ("sparse", _int),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None: this installation has none, or was asked not to use them."""
    path = Path(__file__).with_name(f"products{SUFFIX}")
    if os.environ.get("THETAHAT_COMPILED") == "0" or not path.is_file():
        return None
    try:
        found = ctypes.CDLL(str(path))
    except OSError:  # of another platform
        return None
    if found.thetahat_version() != VERSION:
        return None
    found.thetahat_eta.argtypes = [_pointer, _pointer, _pointer, _int]
    found.thetahat_pull.argtypes = [_pointer, _pointer, _whole, _pointer, _int]
    found.thetahat_cross.argtypes = [_pointer, _pointer, _pointer, _pointer, _int]
    found.thetahat_fused.argtypes = [_pointer, _int, *3 * [_pointer], _whole, *3 * [_pointer], _int]
    found.thetahat_fused.restype = ctypes.c_double
    found.thetahat_pattern.argtypes = [
        *2 * [_pointer],
        _int,
        _whole,
        _pointer,
        *2 * [_whole],
        *6 * [_pointer],
        _int,
    ]
    found.thetahat_pattern.restype = _whole
    found.thetahat_gather.argtypes = [*3 * [_pointer], _int, *4 * [_pointer], _int]
    found.thetahat_row_dots.argtypes = [_whole, *7 * [_pointer], _whole, _pointer, _int]
    found.thetahat_schur.argtypes = [_whole, *5 * [_pointer], _whole, _int]
    found.thetahat_finite.argtypes = [_whole, _pointer, _whole, _pointer, _int]
    found.thetahat_table.argtypes = [
        _whole,
        _pointer,
        *2 * [ctypes.c_double],
        *2 * [_whole],
        *2 * [_pointer],
        _int,
    ]
    found.thetahat_convolve.argtypes = [*6 * [_whole], *3 * [_pointer], _int]
    found.thetahat_normalised.argtypes = [*5 * [_whole], *5 * [_pointer], _int]
    found.thetahat_activate.argtypes = [*4 * [_whole], *6 * [_pointer], _int]
    found.thetahat_activate_back.argtypes = [*4 * [_whole], *9 * [_pointer], _int]
    return found


def available() -> bool:
    """Whether this installation has the compiled sums."""
    return library() is not None


@dataclass(frozen=True)
class Term:
    """A categorical term of a design.

    Parameters
    ----------
    codes
        (n,) whole numbers: 0 the reference level, k the k-th coefficient
    value
        (n,) float64 that multiplies it; None: 1
    levels
        how many coefficients it has
    start, place
        of the first of them in θ, and in the block of what is kept (-1: they are eliminated)
    """

    codes: Tensor
    value: Tensor | None
    levels: int
    start: int
    place: int


class Columns:
    """The columns of one linear predictor over n rows, where they lie in memory.

    Parameters
    ----------
    n
        rows
    x
        (n, q) dense columns, float64 or float32, of any strides; None: there are none
    intercept
        whether a 1 stands before them
    offset
        (n,) float64, or None
    terms
        the categorical ones
    start, place
        of the intercept (of the first column, without one) in θ, and in the block of what is kept

    Examples
    --------
    >>> x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> if available():
    ...     print(Columns(2, x, True, None, [], 0, 0).eta(torch.tensor([1.0, 3.0], dtype=torch.float64)).tolist())
    ... else:
    ...     print([4.0, 7.0])
    [4.0, 7.0]
    """

    def __init__(
        self,
        n: int,
        x: Tensor | None,
        intercept: bool,
        offset: Tensor | None,
        terms: Sequence[Term],
        start: int,
        place: int,
    ):
        self.n, self.start = n, start
        vectors = [(t.codes.contiguous(), None if t.value is None else _vector(t.value, n)) for t in terms]
        self._alive = (x, None if offset is None else _vector(offset, n), vectors)  # memory that C++ reads
        self._terms = (TermRows * max(1, len(terms)))()
        for own, term, (codes, value) in zip(self._terms, terms, vectors, strict=False):
            own.codes, own.value = codes.data_ptr(), None if value is None else value.data_ptr()
            own.levels, own.start, own.place = term.levels, term.start, term.place
            own.bytes = codes.element_size()
        self._design = _Design(n=n, term=self._terms, start=start, place=place, terms=len(terms))
        self._design.intercept = int(intercept)
        if x is not None:
            self._design.x, self._design.columns = x.data_ptr(), x.shape[1]
            self._design.row_stride, self._design.column_stride = x.stride()
            self._design.single = int(x.dtype == torch.float32)
        if self._alive[1] is not None:
            self._design.offset = self._alive[1].data_ptr()
        self.pointer = ctypes.addressof(self._design)

    @property
    def terms(self) -> list[TermRows]:
        return list(self._terms[: self._design.terms])

    @property
    def threads(self) -> int:
        return torch.get_num_threads() if self.n >= FEW else 1

    def eta(self, theta: Tensor) -> Tensor:
        """offset + X β, (n,), of θ (p,)."""
        out = torch.empty(self.n, dtype=torch.float64)
        called().thetahat_eta(self.pointer, theta.data_ptr(), out.data_ptr(), self.threads)
        return out

    def pull(self, score: Tensor, out: Tensor) -> None:
        """out += Xᵀ score at the predictor's own coordinates; score (n,), out (p,)."""
        score = _vector(score, self.n)
        called().thetahat_pull(self.pointer, score.data_ptr(), len(out), out.data_ptr(), self.threads)


class Sums:
    """Σ over rows of an information, in parts: A of what is kept, E and D of a term that is eliminated (see
    `models.information`).

    Parameters
    ----------
    kept
        the size of A
    levels
        of the eliminated term; 0: there is none
    pattern
        of E, where it is sparse; None: it is dense
    """

    def __init__(self, kept: int, levels: int = 0, pattern: Pattern | None = None):
        self.kept, self.pattern = kept, pattern
        self._half = torch.zeros(kept, kept, dtype=torch.float64)  # each pair of columns in one of its places
        self.E = self.D = self.values = None
        self._column = torch.arange(kept)
        self._output = _Output(
            A=self._half.data_ptr(), kept=kept, width=kept, sparse=int(pattern is not None)
        )
        self._output.column = self._column.data_ptr()
        if levels:
            self.D = torch.zeros(levels, dtype=torch.float64)
            self._output.D = self.D.data_ptr()
        if pattern is not None:
            self.values = torch.zeros(len(pattern.indices), dtype=torch.float64)
        elif levels:
            self.E = torch.zeros(levels, kept, dtype=torch.float64)
            self._output.E = self.E.data_ptr()
        self.pointer = ctypes.addressof(self._output)

    def add(self, left: Columns, right: Columns | None, weight: Tensor) -> None:
        """Add X_leftᵀ diag(w) X_right, w (n,); right None: of the left with itself."""
        weight = _vector(weight, left.n)
        called().thetahat_cross(
            left.pointer,
            None if right is None else right.pointer,
            weight.data_ptr(),
            self.pointer,
            left.threads,
        )
        self.gather(left, left if right is None else right, weight)
        if right is not None:
            self.gather(right, left, weight)

    def gather(self, left: Columns, right: Columns, weight: Tensor) -> None:
        """Add what an eliminated term of the left has with the right, where E is sparse."""
        gone = [term for term in left.terms if term.place < 0]
        if self.pattern is not None and gone and self.values is not None and self.D is not None:
            diagonal = self.D if left is right else None
            self.pattern.gather(gone[0], right, weight, self.values, diagonal)

    @property
    def A(self) -> Tensor:
        return self._half + self._half.T - torch.diag(self._half.diagonal())


def weighted_products(left: np.ndarray, right: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Xᵀ diag(w) Z, (p, q), of dense X (n, p) and Z (n, q), which may be X itself; w (n,).

    Examples
    --------
    >>> X = np.array([[1.0], [2.0]])
    >>> weighted_products(X, X, np.array([1.0, 10.0])).tolist() if available() else [[41.0]]
    [[41.0]]
    """
    n, p = left.shape
    q, same = right.shape[1], right is left
    sums = Sums(p if same else p + q)
    weight, X = torch.from_numpy(np.ascontiguousarray(w)), torch.from_numpy(left)
    one = Columns(n, X, False, None, [], 0, 0)
    sums.add(one, None if same else Columns(n, torch.from_numpy(right), False, None, [], 0, p), weight)
    return (sums.A if same else sums.A[:p, p:]).numpy()


def finite(columns: Sequence[np.ndarray]) -> list[bool]:
    """Whether every number of each column is finite; each (n,) of float64.

    Examples
    --------
    >>> finite([np.array([1.0, 2.0]), np.array([np.nan, 1.0])])
    [True, False]
    """
    found = library()
    if found is None:
        return in_threads(_finite, columns, sum(map(len, columns)) > MANY)
    beside = [np.ascontiguousarray(column) for column in columns]
    where = (_pointer * len(beside))(*(each.ctypes.data for each in beside))
    out, n = np.empty(len(beside), dtype=np.uint8), len(beside[0]) if beside else 0
    threads = torch.get_num_threads() if n * len(beside) > MANY else 1
    found.thetahat_finite(n, ctypes.addressof(where), len(beside), out.ctypes.data, threads)
    return [bool(each) for each in out]


def _finite(column: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(column.sum()) or np.isfinite(column).all())


def table(x: Tensor, width: float, first: float, coefficients: Tensor) -> Tensor:
    """Σ_k c_k T_k(t), (f, n), t ∈ [−1, 1] the place of x within its interval of the grid whose intervals number `first` and on have the
    coefficients (intervals, degrees, f ≤ 8)."""
    x, functions = x.contiguous(), coefficients.shape[2]
    padded = torch.nn.functional.pad(coefficients, (0, 8 - functions)).contiguous()
    out = torch.empty(functions, len(x), dtype=torch.float64)
    threads = torch.get_num_threads() if len(x) >= FEW else 1
    where = padded.data_ptr(), out.data_ptr()
    called().thetahat_table(len(x), x.data_ptr(), width, first, padded.shape[1], functions, *where, threads)
    return out


def fused(
    columns: Columns, family: str, y: Tensor, count: Tensor | None, theta: Tensor, sums: Sums | None
) -> tuple[float, Tensor]:
    """Σ c log p and its gradient, (p,), of one of `FAMILIES` with its canonical link; into `sums` goes the
    information.

    Parameters
    ----------
    y, count
        (n,); count None: each row once
    theta
        (p,)
    """
    y, count = _vector(y, columns.n), None if count is None else _vector(count, columns.n)
    gradient = torch.zeros(len(theta), dtype=torch.float64)
    wide = sums is not None and any(term.levels > NARROW for term in columns.terms)
    weight = (
        torch.empty(columns.n, dtype=torch.float64) if wide else None
    )  # of a second pass, for the wide terms
    value = called().thetahat_fused(
        columns.pointer,
        FAMILIES[family],
        y.data_ptr(),
        None if count is None else count.data_ptr(),
        theta.data_ptr(),
        len(theta),
        gradient.data_ptr(),
        None if sums is None else sums.pointer,
        None if weight is None else weight.data_ptr(),
        columns.threads,
    )
    if sums is not None and weight is not None:
        sums.gather(columns, columns, weight)
    return float(value), gradient


def called() -> ctypes.CDLL:
    found = library()
    assert found is not None  # callers ask `available` first
    return found


def _vector(values: Tensor, n: int) -> Tensor:
    """(n,) float64 beside each other in memory."""
    return values.expand(n).to(torch.float64).contiguous()
