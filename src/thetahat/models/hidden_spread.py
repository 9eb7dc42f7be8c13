"""Var(S | y) of a hidden Markov chain whose transitions are constants: what Louis' identity takes from the
complete-data information (see `hidden_scores`), summed as the steps go along.

With u_t(k) = E[Σ_{s > t} f_s | z_t = k, y] − E[Σ_{s > t} f_s | y] and f̄_t = E[f_t | y],

    Var(S | y) = Σ_t { E[f_t f_tᵀ | y] − f̄_t f̄_tᵀ + E[f_t u_t(z_t)ᵀ | y] + E[u_t(z_t) f_tᵀ | y] }

Only differences are carried, d_t(k) = u_t(k) − u_t(K): a row and a column of the kernel P_t(j, k) = P(z_t = k | z_{t−1} = j, y)
less. With e_t(k) the part of a score that is of the emission and c(j, k) that of the transition,

    d_{t−1}(j) = Σ_{k < K} (P_t(j, k) − P_t(K, k)) (d_t(k) + e_t(k) − e_t(K)) + Σ_k P_t(j, k) c(j, k) − Σ_k P_t(K, k) c(K, k)
    u_t(k)     = d_t(k) − Σ_l γ_t(l) d_t(l)

Legend: n entries (rows in the order of the steps), m of them at a step; K states; p coordinates of θ. R_k, (r, n), are
the numbers of which E[f_t 1(z_t = k) | y] = M_k R_k: γ_t(k) times the scores of y_t, ξ_t(j, k) of each j, and γ_t(k) of a first row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .chain_layout import Array
from .chains import Passed


@dataclass(frozen=True)
class Scores:
    """The scores of the complete data.

    Parameters
    ----------
    initial
        (K, p) ∂ log δ_k / ∂θ
    emission
        of each state, (p_k, n) by entry: ∂ log p(y_t | k), 0 where y is missing
    places
        of each state, where those lie in θ
    logits
        (j, k, where in θ) of the logits of transitions
    a
        (K, K) the transitions
    """

    initial: Array
    emission: list[Array]
    places: list[slice]
    logits: list[tuple[int, int, slice]]
    a: Array

    @property
    def rows(self) -> list[slice]:
        """Of each state, where R_k lies among them all."""
        sizes = [len(e) + len(self.a) + 1 for e in self.emission]
        ends = np.cumsum(sizes).tolist()
        return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def maps(self) -> list[Array]:
        """M_k, (p, p_k + K + 1)."""
        K, p = self.initial.shape
        out = []
        for k, own in enumerate(self.places):
            size = own.stop - own.start
            M = np.zeros((p, size + K + 1))
            M[own, :size] = np.eye(size)
            for j, l, at in self.logits:
                M[at, size + j] = (k == l) - self.a[j, l]
            M[:, -1] = self.initial[k]
            out.append(M)
        return out


def spread(passed: Passed, scores: Scores, weight: Array | None = None) -> Array:
    """Σ_s w_s Var(S_s | y), (p, p).

    Parameters
    ----------
    weight
        (n,) by entry, the weight of its sequence; None: 1
    """
    K, p = scores.initial.shape
    if K == 1:
        return np.zeros((p, p))  # nothing is hidden
    gamma, kernel = passed.gamma, passed.kernels()
    M, R = scores.maps(), _numbers(passed, scores, gamma, kernel)
    weighted = R if weight is None else R * weight
    V = _at_once(weighted, M, scores)
    whole = np.concatenate(M, 1)
    V -= whole @ (weighted @ R.T) @ whole.T
    X = _with_later(passed, scores, kernel, gamma, weighted, M)
    return np.asarray(V + X + X.T)


def _numbers(passed: Passed, scores: Scores, gamma: Array, kernel: Array) -> Array:
    """R_k of each state, one below the other."""
    opening = np.flatnonzero(passed.layout.opening)
    before = passed.layout.before(gamma)
    before[:, opening] = 0.0  # a first row was not come to from anywhere
    rows = scores.rows
    out = np.empty((rows[-1].stop, gamma.shape[1]))
    for k, (e, own) in enumerate(zip(scores.emission, rows, strict=True)):
        R = out[own]
        np.multiply(e, gamma[k], out=R[: len(e)])
        np.multiply(before, kernel[:, k], out=R[len(e) : -1])
        R[-1] = 0.0
        R[-1, opening] = gamma[k, opening]
    return out


def _at_once(R: Array, M: list[Array], scores: Scores) -> Array:
    """Σ_t E[f_t f_tᵀ | y] = Σ (e eᵀ + e cᵀ + c eᵀ + c cᵀ)."""
    p = len(M[0])
    ends, rest = np.zeros((p, p)), np.zeros((p, p))
    for rows, m, e, own in zip(scores.rows, M, scores.emission, scores.places, strict=True):
        size, r = len(e), R[rows]
        crossed = r @ e.T
        crossed[:size] /= 2  # counted again in the transpose
        ends[:, own] += m @ crossed
        c = m[:, size:]
        rest += (c * r[size:].sum(1)) @ c.T
    return np.asarray(ends + ends.T + rest)


def _with_later(
    passed: Passed, scores: Scores, kernel: Array, gamma: Array, R: Array, M: list[Array]
) -> Array:
    """Σ_t E[f_t u_t(z_t)ᵀ | y], (p, p)."""
    K, p = scores.initial.shape
    layout, run = passed.layout, _Differences(scores, kernel)
    C = len(layout.begins)
    end = np.zeros((C, K - 1, p))
    if layout.levels:  # what each piece makes of 0, and of the unit matrix
        d = np.zeros((K - 1, p + K - 1, C))
        d[np.arange(K - 1), p + np.arange(K - 1)] = 1.0
        for step in reversed(layout.steps):
            m = step.stop - step.start
            d[:, :, :m] = run.back(d[:, :, :m], step)
        by_piece = np.ascontiguousarray(d.transpose(2, 0, 1))
        of_zero, of_one = by_piece[:, :, :p], by_piece[:, :, p:]
        if len(layout.lengths) == 1:  # pieces stand in their order
            for at in range(C - 1, 0, -1):
                end[at - 1] = of_zero[at] + of_one[at].dot(end[at])
        else:
            for own, before in reversed(layout.levels):
                end[before] = of_zero[own] + of_one[own] @ end[own]
    d = np.ascontiguousarray(end.transpose(1, 2, 0))
    own_rows = scores.rows[:-1]
    crossed, mean = [np.zeros((r.stop - r.start, p)) for r in own_rows], np.zeros((len(R), p))
    for t in range(len(layout.steps) - 1, -1, -1):
        step = layout.steps[t]
        m = step.stop - step.start
        now = d[:, :, :m]
        expected = (gamma[:-1, None, step] * now).sum(0)
        here = R[:, step]
        mean += here @ expected.T
        for k, rows in enumerate(own_rows):
            crossed[k] += here[rows] @ now[k].T
        if t:
            moved = run.back(now, step)
            if m < d.shape[2]:
                d[:, :, :m] = moved
            else:
                d = moved
    out = -np.concatenate(M, 1) @ mean
    for m_k, x in zip(M[:-1], crossed, strict=True):
        out += m_k @ x
    return np.asarray(out)


class _Differences:
    """d_{t−1} of d_t, (K − 1, p, m); or of more columns than p, of which the further ones are without e and c."""

    def __init__(self, scores: Scores, kernel: Array):
        self.scores, self.kernel = scores, kernel
        self.less = kernel[:-1, :-1] - kernel[-1:, :-1]

    def back(self, d: Array, step: slice) -> Array:
        scores, P = self.scores, self.kernel
        d = d.copy()
        last = scores.emission[-1][:, step]
        for k, own in enumerate(scores.places[:-1]):
            d[k, own] += scores.emission[k][:, step]
        d[:, scores.places[-1]] -= last
        less = self.less[:, :, None, step]
        out: Array = less[:, 0] * d[0]
        for k in range(1, len(d)):
            out += less[:, k] * d[k]
        K = len(P)
        for j, k, at in scores.logits:
            c = P[j, k, step] - scores.a[j, k]
            if j < K - 1:
                out[j, at] += c
            else:
                out[:, at] -= c
        return out
