"""The steps of the recursions forward and backward, in probabilities and in logarithms (see `chains`)."""

from __future__ import annotations

import numpy as np

from .chain_layout import Array, Layout


class Probabilities:
    """Steps in probabilities, scaled to sum 1 after every `every` of them; log b (K, n) by entry, a by place.

    `memory` (2 or 3, K, n) is for b, φ and β: one piece of memory, which costs the system less than three."""

    def __init__(self, layout: Layout, log_b: Array, a: Array, log_initial: Array, every: int, memory: Array):
        self.layout, self.K, self.every, self.memory = layout, len(log_b), every, memory
        self.a = a
        self.each = a if a.ndim == 2 else a[:, :, layout.packed]
        self.turned = np.ascontiguousarray(a.T) if a.ndim == 2 else None
        self.ones = np.ones(self.K)
        # a first row, in logarithms: nothing before it reaches every state
        first = log_initial[:, None] + log_b[:, np.flatnonzero(layout.opening)]
        self.log_first = logsumexp(first)
        possible = np.isfinite(self.log_first)
        self.first = np.where(possible, np.exp(first - np.where(possible, self.log_first, 0.0)), 1 / self.K)
        self.b = np.exp(log_b, out=memory[0])
        self.products = self._products() if layout.levels else None

    def _ahead(self, v: Array, step: slice) -> Array:
        """Σ_j v(j) a(j, k), v (K, …, m)."""
        if self.turned is not None:
            if v.ndim == 2:
                return np.asarray(np.dot(self.turned, v))
            return np.asarray(np.dot(self.turned, v.reshape(self.K, -1)).reshape(v.shape))
        a = self.each[:, :, step]
        return np.asarray((v[:, None] * (a if v.ndim == 2 else a[:, :, None])).sum(0))

    def _back(self, w: Array, step: slice) -> Array:
        """Σ_k a(j, k) w(k), w (K, m)."""
        if self.turned is not None:
            return np.asarray(np.dot(self.a, w))
        return np.asarray((self.each[:, :, step] * w[None]).sum(1))

    def _products(self) -> tuple[Array, Array]:
        """Of each piece Π M_t, [to, from, piece], scaled to sum 1 over "to"; and the log of the scales, (K, C).
        Of an opening piece every "from" is δ diag(b_1) Π M_t."""
        K, opening, steps = self.K, self.layout.opening, self.layout.steps
        C = len(opening)
        scale = np.zeros((K, C))
        a = self.a[:, :, None] if self.turned is not None else self.each[:, :, steps[0]]
        M = np.ascontiguousarray(np.moveaxis(a, 1, 0) * self.b[:, None, steps[0]])
        M[:, :, opening] = self.first[:, None]
        for t, step in enumerate(steps):
            m = step.stop - step.start
            if m < C:
                M[:, :, :m] = self._ahead(M[:, :, :m], step) * self.b[:, None, step]
            elif t:
                M = self._ahead(M, step)
                M *= self.b[:, None, step]
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
        if len(self.layout.lengths) == 1:
            self._joined_alone(out, by_piece, ahead)
        elif ahead:
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

    def _joined_alone(self, out: Array, by_piece: Array, ahead: bool) -> None:
        """The same of one sequence, whose pieces stand in their order: a piece after the other."""
        v, one, rare = (by_piece[0, 0] if ahead else out[-1]), self.ones, max(1, self.every // 2)
        for at in range(1, len(out)) if ahead else range(len(out) - 1, 0, -1):
            if at % rare == 0:
                v = v / one.dot(v)
            out[at] = v
            v = v.dot(by_piece[at]) if ahead else by_piece[at].dot(v)
        if not ahead:
            out[0] = v
        out /= out.sum(1, keepdims=True)

    def forward(self) -> tuple[Array, Array]:
        """c, (n,), and φ, (K, n), by entry; c of the rows that open sequences is `log_first`'s."""
        layout, b, out, left = self.layout, self.b, self.memory[1], None
        v = self._joined(True)
        C = v.shape[1]
        for t, step in enumerate(layout.steps):
            v = self._ahead(v[:, : step.stop - step.start], step)
            v = np.multiply(v, b[:, step], out=out[:, step])
            if t == 0:
                v[:, layout.opening] = self.first
            elif t % self.every == 0:
                left = np.ones(out.shape[1]) if left is None else left
                total = left[step] = self.ones @ v
                v /= total
        total = self.ones @ out
        c = layout.before(total)
        c[:C] = 1.0  # what enters a piece sums to 1
        c = np.divide(total if left is None else total * left, c, out=c)
        out /= total
        return c, out

    def backward(self) -> Array:
        """β, (K, n), by entry, scaled somehow."""
        steps, b, v = self.layout.steps, self.b, self._joined(False)
        out: Array = self.memory[2]
        for t in range(len(steps) - 1, 0, -1):
            step = steps[t]
            m = step.stop - step.start
            now = out[:, step]
            now[:] = v[:, :m]
            moved = self._back(now * b[:, step], step)
            if t % self.every == 0:
                moved /= self.ones @ moved
            if m < v.shape[1]:
                v[:, :m] = moved
            else:
                v = moved
        out[:, steps[0]] = v
        return out


class Logarithms:
    """The same steps in logarithms: nothing underflows, and transitions may be impossible; log b by entry."""

    def __init__(self, layout: Layout, log_b: Array, log_a: Array, log_initial: Array):
        self.layout, self.K = layout, len(log_b)
        self.b = log_b
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
        return np.asarray(M)

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
        """log c, (n,), and log φ, (K, n), by entry."""
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
        return c, out

    def backward(self) -> Array:
        out, v = np.empty_like(self.b), _scaled(self._joined(False))
        for step in reversed(self.layout.steps):
            m = step.stop - step.start
            out[:, step] = v[:, :m]
            v[:, :m] = _scaled(logsumexp(self._a(step) + (v[:, :m] + self.b[:, step])[None], 1))
        return out


def _scaled(v: Array) -> Array:
    """Scaled to sum 1 over the states, in logarithms."""
    s = logsumexp(v, 0)
    return np.asarray(v - np.where(np.isfinite(s), s, 0.0))


def logsumexp(x: Array, axis: int = 0) -> Array:
    """log Σ exp(x), −∞ where every term is."""
    top = x.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis))
