"""Where the rows of sequences stand, and how long sequences are cut into pieces (see `chains`)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray
SHORT = 64  # rows up to which a sequence is not cut


@dataclass(frozen=True)
class Layout:
    """Where the rows of each sequence stand, and how sequences are cut into pieces.

    Parameters
    ----------
    order
        (n,) the row at each place
    lengths
        (S,) rows of each sequence
    piece
        the most rows of a piece
    """

    order: Array
    lengths: Array
    piece: int

    @classmethod
    def of(cls, group: Array, piece: int | None = None) -> Layout:
        """Of rows that name their sequences, (n,); in time as they stand."""
        order = np.argsort(group, kind="stable")
        lengths = np.unique(group, return_counts=True)[1]
        longest = int(lengths.max())
        return cls(order, lengths, piece or (longest if longest <= SHORT else int(np.sqrt(longest)) + 1))

    @cached_property
    def sorted(self) -> bool:
        """Whether rows stand where they are."""
        return bool((self.order[1:] > self.order[:-1]).all())

    @cached_property
    def starts(self) -> Array:
        """(S,) the place where each sequence begins."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    @cached_property
    def first(self) -> Array:
        """(n,) whether a place begins a sequence."""
        out = np.zeros(len(self.order), dtype=bool)
        out[self.starts] = True
        return out

    @cached_property
    def later(self) -> Array:
        """The places that have a row before them."""
        return np.flatnonzero(~self.first)

    @cached_property
    def _pieces(self) -> tuple[Array, Array, Array]:
        """(C,) of each piece, the longest first: the place where it begins, its rows, its number within its
        sequence."""
        many = -(-self.lengths // self.piece)
        sequence = np.repeat(np.arange(len(many)), many)
        number = np.arange(len(sequence)) - np.repeat(np.cumsum(many) - many, many)
        rows = np.minimum(self.piece, self.lengths[sequence] - number * self.piece)
        longest = np.argsort(-rows, kind="stable")
        begins = (self.starts[sequence] + number * self.piece)[longest]
        return begins, rows[longest], number[longest]

    @cached_property
    def begins(self) -> Array:
        return self._pieces[0]

    @cached_property
    def opening(self) -> Array:
        """(C,) whether a piece is the first of its sequence."""
        return np.asarray(self._pieces[2] == 0)

    @cached_property
    def levels(self) -> list[tuple[Array, Array]]:
        """(pieces, the pieces before them): the second of each sequence, the third …"""
        begins, _, number = self._pieces
        at = np.empty(len(self.order), dtype=np.int64)
        at[begins] = np.arange(len(begins))
        out = []
        by_number = np.argsort(number, kind="stable")
        cuts = np.flatnonzero(np.diff(number[by_number])) + 1
        for own in np.split(by_number, cuts)[1:]:
            out.append((own, at[begins[own] - self.piece]))
        return out

    @cached_property
    def steps(self) -> list[slice]:
        """Of each step, the entries of `packed`: the t-th row of every piece that has one."""
        rows = self._pieces[1]
        many = np.searchsorted(-rows, -np.arange(int(rows[0])), side="left")
        ends = np.concatenate([[0], np.cumsum(many)])
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]

    @cached_property
    def packed(self) -> Array:
        """(n,) places in the order of the steps."""
        begins = self._pieces[0]
        return np.concatenate([begins[: s.stop - s.start] + t for t, s in enumerate(self.steps)])

    @cached_property
    def _indices(self) -> dict[int, Array]:
        return {}

    def index(self, R: int) -> Array:
        """(R·n,) where the entries of an (R, n) array by place are once they lie step after step, (R, m) each."""
        if R not in self._indices:
            rows = np.arange(R)[:, None] * len(self.order)
            self._indices[R] = np.concatenate([(rows + self.packed[step]).reshape(-1) for step in self.steps])
        return self._indices[R]

    def views(self, packed: Array, *shape: int) -> list[Array]:
        """The steps of packed numbers, (*shape, m) each: windows of them."""
        R = int(np.prod(shape))
        return [packed[R * s.start : R * s.stop].reshape(*shape, s.stop - s.start) for s in self.steps]

    def placed(self, packed: Array, R: int) -> Array:
        """Packed numbers by place, (R, n)."""
        out = np.empty(R * len(self.order))
        out[self.index(R)] = packed
        return out.reshape(R, -1)
