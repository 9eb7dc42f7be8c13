"""The steps of the recursions forward and backward, in probabilities and in logarithms (see `chains`)."""

from __future__ import annotations

import numpy as np

from .chain_layout import Array, Layout


class Probabilities:
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
            return np.asarray(np.dot(self.turned, v.reshape(self.K, -1)).reshape(v.shape))
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


class Logarithms:
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


def logsumexp(x: Array, axis: int = 0) -> Array:
    """log Σ exp(x), −∞ where every term is."""
    top = x.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis))
