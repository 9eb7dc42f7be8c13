"""Forward and backward recursions of Markov chains that were not seen, on many sequences and on long ones.

With a_t(j, k) = P(z_t = k | z_{t−1} = j) and b_t(k) = p(y_t | z_t = k),

    forward    φ_t(k) ∝ Σ_j φ_{t−1}(j) a_t(j, k) b_t(k),      Σ_k of it = p(y_t | y_1 … y_{t−1}) = c_t
    backward   β_{t−1}(j) ∝ Σ_k a_t(j, k) b_t(k) β_t(k)
    smoothed   γ_t(k) ∝ φ_t(k) β_t(k)

A step of either is a product with the matrix M_t = a_t diag(b_t), and products are associative. A sequence of T rows is
therefore cut into pieces of about √T rows: the products of all pieces are made at once, the pieces are joined one
after the other, and all of them are run through again, each from where the one before it ends. That is 3√T steps of
whole arrays in the place of T, and the same numbers.

Steps are carried in probabilities, with max_k b_t(k) = 1, and scaled to sum 1 after every r of them. r steps leave at
least α^r of the sum, α the smallest a; and from the most probable state every state is reached with at least α. So what
underflows is less than 10⁻³⁰⁸ / α^(r + 1) of what is kept, and r is such that this is below 10⁻¹⁵⁸. Where α is too
small for r = 1 (a transition that is impossible) the steps are carried in logarithms.

Legend: n rows, K states, C pieces, m of them at a step. A "place" is a row's number once sequences stand one after
the other, each in time. States come first: arrays are (K, n), so that each operation runs along the pieces.

References
----------
Rabiner (1989), A tutorial on hidden Markov models; Särkkä and García-Fernández (2021), Temporal parallelization of
Bayesian smoothers (the products).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray
SHORT = 64  # rows up to which a sequence is not cut
SAFE = -345.0  # log of the smallest α^(r + 1)
CELLS = 2**21  # numbers held at once


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
        return self._pieces[2] == 0

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
        return [slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]

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


@dataclass(frozen=True)
class Passed:
    """What the passes give, by place.

    Parameters
    ----------
    log_c
        (n,) log p(y_t | y_1 … y_{t−1})
    forward
        (K, n) φ
    backward
        (K, n) β, scaled to sum 1; None where it was not asked for
    b
        (K, n) p(y | state), up to a factor of each row
    a
        (K, K) or (K, K, n): the transitions
    log
        whether forward, backward, b and a are logarithms
    """

    layout: Layout
    log_c: Array
    forward: Array
    backward: Array | None
    b: Array
    a: Array
    log: bool

    @cached_property
    def filtered(self) -> Array:
        """φ, (K, n): P(z_t | y_1 … y_t)."""
        return np.exp(self.forward) if self.log else self.forward

    @cached_property
    def smoothed(self) -> Array:
        """γ, (K, n): P(z_t | y)."""
        assert self.backward is not None
        if self.log:
            return _softmax(self.forward + self.backward)
        return _unit(self.forward * self.backward)

    def blocks(self, width: int = 1) -> Iterator[Array]:
        """The places that have one before them, so many at a time that K² · width numbers of each can be held."""
        later, K = self.layout.later, len(self.b)
        step = max(1, CELLS // (K**2 * width))
        for at in range(0, len(later), step):
            yield later[at : at + step]

    def _joint(self, place: Array, before: Array | None) -> Array:
        """a_t(j, k) b_t(k) β_t(k), times what is given of the state before, (K, K, m); in logarithms where these
        are."""
        assert self.backward is not None
        a = self.a[:, :, None] if self.a.ndim == 2 else self.a[:, :, place]
        if self.log:
            out = a + (self.b[:, place] + self.backward[:, place])[None]
            return out if before is None else out + before[:, None, :]
        out = a * _unit(self.b[:, place] * self.backward[:, place])[None]
        return out if before is None else out * before[:, None, :]

    def pairs(self, place: Array) -> Array:
        """ξ, (K, K, m): P(z_{t−1} = j, z_t = k | y) of some places that have one before them."""
        joint = self._joint(place, self.forward[:, place - 1])
        K, _, m = joint.shape
        if self.log:
            return _softmax(joint.reshape(K * K, m)).reshape(K, K, m)
        return _unit(joint.reshape(K * K, m)).reshape(K, K, m)

    def kernel(self, place: Array) -> Array:
        """P(z_t = k | z_{t−1} = j, y), (K, K, m)."""
        joint = self._joint(place, None)
        if not self.log:
            out: Array = joint / joint.sum(1)[:, None]
            return out
        return np.moveaxis(_softmax(np.moveaxis(joint, 1, 0)), 0, 1)

    def counts(self) -> Array:
        """Σ_t ξ_t, (K, K): how often each transition is expected to have been taken."""
        assert self.backward is not None
        K, later = len(self.b), self.layout.later
        if self.log or self.a.ndim == 3:
            return np.asarray(sum((self.pairs(place).sum(-1) for place in self.blocks()), np.zeros((K, K))))
        before, ahead = self.forward[:, later - 1], _unit(self.b[:, later] * self.backward[:, later])
        total = np.ones(K) @ ((self.a.T @ before) * ahead)
        return np.asarray(self.a * ((before / total) @ ahead.T))


def _unit(x: Array) -> Array:
    """Scaled to sum 1 along the first axis."""
    return np.asarray(x / (np.ones(len(x)) @ x.reshape(len(x), -1)).reshape(x.shape[1:]))


def _softmax(x: Array) -> Array:
    """exp(x) scaled to sum 1 along the first axis."""
    out = np.exp(x - x.max(0))
    out /= out.sum(0)
    return np.asarray(out)


def logsumexp(x: Array, axis: int = 0) -> Array:
    """log Σ exp(x), −∞ where every term is."""
    top = x.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis))


def passes(
    layout: Layout, log_b: Array, log_a: Array, log_initial: Array, *, backward: bool = True
) -> Passed:
    """Forward, and backward, through all sequences.

    Parameters
    ----------
    log_b
        (K, n) log p(y | state), by place; 0 throughout where y is missing
    log_a
        (K, K); or (K, K, n) by place, the transition into it (that into a first row is not read)
    log_initial
        (K,) of the first state

    Returns
    -------
    Passed
        a row that no state can have produced has log c = −∞, and is passed as if it were missing
    """
    top = log_b.max(0)
    impossible = top == -np.inf
    if bool(impossible.any()):
        log_b = np.where(impossible, 0.0, log_b)
        top = np.where(impossible, 0.0, top)
    least = 0.0
    if len(layout.later):
        least = float((log_a if log_a.ndim == 2 else log_a[:, :, layout.later]).min())
    every = int(min(16.0, SAFE / min(least, -1e-3) - 1))
    log_b = log_b - top
    run: _Probabilities | _Logarithms
    if every >= 1:
        run = _Probabilities(layout, log_b, log_a, log_initial, every)
    else:
        run = _Logarithms(layout, log_b, log_a, log_initial)
    log_c, forward = run.forward()
    log_c = np.where(impossible, -np.inf, log_c + top)
    b, a = (np.exp(log_b), np.exp(log_a)) if every >= 1 else (log_b, log_a)
    return Passed(layout, log_c, forward, run.backward() if backward else None, b, a, every < 1)


class _Probabilities:
    """Steps in probabilities, scaled to sum 1 after every `every` of them."""

    def __init__(self, layout: Layout, log_b: Array, log_a: Array, log_initial: Array, every: int):
        self.layout, self.K, self.every = layout, len(log_b), every
        self.b = layout.views(np.exp(log_b.reshape(-1)[layout.index(self.K)]), self.K)
        self.fixed, self.a = log_a.ndim == 2, np.exp(log_a) if log_a.ndim == 2 else None
        if self.a is None:
            flat = np.exp(log_a.reshape(-1)[layout.index(self.K**2)])
            self.each = layout.views(flat, self.K, self.K)
        else:
            self.turned = np.ascontiguousarray(self.a.T)
        self.ones = np.ones(self.K)
        # a first row, in logarithms: nothing before it reaches every state
        first = log_initial[:, None] + log_b[:, layout.begins[layout.opening]]
        self.log_first = logsumexp(first)
        possible = np.isfinite(self.log_first)
        self.first = np.where(possible, np.exp(first - np.where(possible, self.log_first, 0.0)), 1 / self.K)
        self.products = self._products() if layout.levels else None

    def _ahead(self, v: Array, t: int) -> Array:
        """Σ_j v(j) a(j, k), v (K, …, m)."""
        if self.a is not None:
            return np.dot(self.turned, v.reshape(self.K, -1)).reshape(v.shape)
        a = self.each[t] if v.ndim == 2 else self.each[t][:, :, None]
        return np.asarray((v[:, None] * a).sum(0))

    def _back(self, w: Array, t: int) -> Array:
        """Σ_k a(j, k) w(k), w (K, m)."""
        return np.dot(self.a, w) if self.a is not None else np.asarray((self.each[t] * w[None]).sum(1))

    def _products(self) -> tuple[Array, Array]:
        """Of each piece Π M_t, [to, from, piece], scaled to sum 1 over "to"; and the log of the scales, (K, C).
        Of an opening piece every "from" is δ diag(b_1) Π M_t."""
        K, opening, b = self.K, self.layout.opening, self.b[0]
        C = b.shape[1]
        scale = np.zeros((K, C))
        a = self.a[:, :, None] if self.a is not None else self.each[0]
        M = np.ascontiguousarray(np.moveaxis(a, 1, 0) * b[:, None])
        M[:, :, opening] = self.first[:, None]
        for t, b in enumerate(self.b):
            m = b.shape[1]
            if m < M.shape[2]:
                M[:, :, :m] = self._ahead(M[:, :, :m], t) * b[:, None]
            elif t:
                M = self._ahead(M, t)
                M *= b[:, None]
            if t % self.every == 0:
                self._scaled(M, scale, m)
        self._scaled(M, scale, C)
        return M, scale

    def _scaled(self, M: Array, scale: Array, m: int) -> None:
        s = M[:, :, :m].sum(0)
        M[:, :, :m] /= s
        scale[:, :m] += np.log(s)

    def _joined(self, ahead: bool) -> Array:
        """What enters each piece, (K, C): ahead, φ of the row before it; back, β of its last row."""
        C, K = len(self.layout.begins), self.K
        out = np.full((C, K), 1 / K)
        if self.products is None:
            return out.T.copy()
        M, scale = self.products
        weight = np.exp(scale - scale.max(0)).T
        by_piece = np.ascontiguousarray(M.transpose(2, 1, 0)) * weight[:, :, None]  # [piece, from, to]
        if ahead:
            end = M[:, 0].T.copy()  # right of opening pieces; the others' follow
            for own, before in self.layout.levels:
                out[own] = end[before]
                moved = (out[own][:, None, :] @ by_piece[own])[:, 0]
                end[own] = moved / moved.sum(1, keepdims=True)
        else:
            for own, before in reversed(self.layout.levels):
                moved = (by_piece[own] @ out[own][:, :, None])[:, :, 0]
                out[before] = moved / moved.sum(1, keepdims=True)
        return np.ascontiguousarray(out.T)

    def forward(self) -> tuple[Array, Array]:
        """log c, (n,), and φ, (K, n), by place."""
        layout, K = self.layout, self.K
        n = len(layout.order)
        packed, left = np.empty(K * n), np.ones(n)  # φ, and the sum that it was scaled from
        out, before = layout.views(packed, K), layout.views(left)
        v = self._ahead(self._joined(True), 0)
        for t, b in enumerate(self.b):
            if t:
                v = v[:, : b.shape[1]]
                if t % self.every == 0:
                    v = v / (self.ones @ v)
                else:
                    before[t][:] = self.ones @ v
                v = self._ahead(v, t)
            v = np.multiply(v, b, out=out[t])
            if t == 0:
                v[:, layout.opening] = self.first
        placed = layout.placed(packed, K)
        total = self.ones @ placed
        placed /= total
        last = np.empty(n)
        last[layout.packed] = left
        log_c = np.log(total / last)
        log_c[layout.begins[layout.opening]] = self.log_first
        return log_c, placed

    def backward(self) -> Array:
        """β, (K, n), by place."""
        packed = np.empty(self.K * len(self.layout.order))
        out, v = self.layout.views(packed, self.K), self._joined(False)
        for t in range(len(self.b) - 1, -1, -1):
            b = self.b[t]
            m = b.shape[1]
            out[t][:] = v[:, :m]
            moved = self._back(out[t] * b, t)
            if t % self.every == 0:
                moved /= self.ones @ moved
            if m < v.shape[1]:
                v[:, :m] = moved
            else:
                v = moved
        placed = self.layout.placed(packed, self.K)
        placed /= self.ones @ placed
        return placed


class _Logarithms:
    """The same steps in logarithms: nothing underflows, and transitions may be impossible."""

    def __init__(self, layout: Layout, log_b: Array, log_a: Array, log_initial: Array):
        self.layout, self.K = layout, len(log_b)
        self.b = log_b[:, layout.packed]
        self.a = log_a if log_a.ndim == 2 else log_a[:, :, layout.packed]
        self.initial = log_initial
        self.products = self._products() if layout.levels else None

    def _a(self, step: slice) -> Array:
        return self.a[:, :, None] if self.a.ndim == 2 else self.a[:, :, step]

    def _products(self) -> Array:
        """[from, to, piece]."""
        first, opening = self.layout.steps[0], self.layout.opening
        M = self._a(first) + self.b[None, :, first]
        M[:, :, opening] = (self.initial[:, None] + self.b[:, first][:, opening])[None]
        for step in self.layout.steps[1:]:
            m = step.stop - step.start
            M[:, :, :m] = logsumexp(M[:, :, None, :m] + self._a(step)[None], 1) + self.b[None, :, step]
        return M

    def _joined(self, ahead: bool) -> Array:
        out = np.zeros((self.K, len(self.layout.begins)))
        if self.products is None:
            return out
        if ahead:
            end = self.products[0].copy()
            for own, before in self.layout.levels:
                out[:, own] = end[:, before]
                end[:, own] = _scaled(logsumexp(out[:, None, own] + self.products[:, :, own], 0))
            return out
        for own, before in reversed(self.layout.levels):
            out[:, before] = _scaled(logsumexp(self.products[:, :, own] + out[None, :, own], 1))
        return out

    def forward(self) -> tuple[Array, Array]:
        out, c = np.empty_like(self.b), np.empty(self.b.shape[1])
        v = _scaled(logsumexp(_scaled(self._joined(True))[:, None] + self._a(self.layout.steps[0]), 0))
        v[:, self.layout.opening] = self.initial[:, None]
        for t, step in enumerate(self.layout.steps):
            m = step.stop - step.start
            v = logsumexp(v[:, None, :m] + self._a(step), 0) if t else v
            v = v + self.b[:, step]
            c[step] = logsumexp(v, 0)
            v = _scaled(v)
            out[:, step] = v
        placed, log_c = np.empty_like(out), np.empty_like(c)
        placed[:, self.layout.packed], log_c[self.layout.packed] = out, c
        return log_c, placed

    def backward(self) -> Array:
        out, v = np.empty_like(self.b), _scaled(self._joined(False))
        for step in reversed(self.layout.steps):
            m = step.stop - step.start
            out[:, step] = v[:, :m]
            v[:, :m] = _scaled(logsumexp(self._a(step) + (v[:, :m] + self.b[:, step])[None], 1))
        placed = np.empty_like(out)
        placed[:, self.layout.packed] = out
        return placed


def _scaled(v: Array) -> Array:
    """Scaled to sum 1 over the states, in logarithms."""
    s = logsumexp(v, 0)
    return np.asarray(v - np.where(np.isfinite(s), s, 0.0))
