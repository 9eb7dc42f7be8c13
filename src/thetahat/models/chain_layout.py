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
        cut = 0.5 if len(lengths) == 1 else 1.0  # the pieces of one sequence are joined faster
        return cls(
            order, lengths, piece or (longest if longest <= SHORT else int(cut * np.sqrt(longest)) + 1)
        )

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
        sequence. Pieces of one sequence differ by at most one row."""
        many = -(-self.lengths // self.piece)
        sequence = np.repeat(np.arange(len(many)), many)
        number = np.arange(len(sequence)) - np.repeat(np.cumsum(many) - many, many)
        least, more = np.divmod(self.lengths, many)
        rows = least[sequence] + (number < more[sequence])
        longest = np.argsort(-rows, kind="stable")
        begins = self.starts[sequence] + number * least[sequence] + np.minimum(number, more[sequence])
        return begins[longest], rows[longest], number[longest]

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
        begins, rows, number = self._pieces
        at = np.empty(len(self.order), dtype=np.int64)
        at[begins + rows - 1] = np.arange(len(begins))
        out = []
        by_number = np.argsort(number, kind="stable")
        cuts = np.flatnonzero(np.diff(number[by_number])) + 1
        for own in np.split(by_number, cuts)[1:]:
            out.append((own, at[begins[own] - 1]))
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
    def rows(self) -> Array:
        """(n,) the row of each entry of `packed`."""
        return np.asarray(self.order[self.packed])

    @cached_property
    def entry(self) -> Array:
        """(n,) the entry of `packed` at each place."""
        out = np.empty(len(self.packed), dtype=np.int64)
        out[self.packed] = np.arange(len(out))
        return out

    @cached_property
    def previous(self) -> Array:
        """(n,) the entry of the row before; of a row that opens a sequence, its own."""
        before = np.where(self.first[self.packed], self.packed, self.packed - 1)
        return self.entry[before]

    @cached_property
    def even(self) -> bool:
        """Whether the row before lies a whole step before: no piece is shorter by more than a row."""
        C = len(self.begins)
        return bool((self.previous[C:] == np.arange(len(self.order) - C)).all())

    def before(self, x: Array) -> Array:
        """x (…, n) of the rows before, by entry."""
        if not self.even:
            return np.asarray(x[..., self.previous])
        C, out = len(self.begins), np.empty_like(x)
        out[..., :C] = x[..., self.previous[:C]]
        out[..., C:] = x[..., : len(self.order) - C]
        return out

    def placed(self, x: Array) -> Array:
        """x (…, n) by entry, by place."""
        return np.asarray(x[..., self.entry])
