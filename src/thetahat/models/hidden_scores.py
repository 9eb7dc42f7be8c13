"""What a hidden Markov chain's scores do that its smoothed probabilities do not say: their spread, and their parts.

The complete-data score is a sum over a Markov chain, S = Σ_t f_t(z_{t−1}, z_t), and the chain given y is Markov too.
With h_t(k) = E[Σ_{s > t} f_s | z_t = k, y],

    h_{t−1}(j) = Σ_k P(z_t = k | z_{t−1} = j, y) (f_t(j, k) + h_t(k)),
    Var(S | y) = Σ_t E[(f_t + h_t(z_t) − h_{t−1}(z_{t−1}))(…)ᵀ | y]:

the terms are the increments of a martingale, so their covariances are 0, and none of the sums cancels. That is what
Louis' identity takes from the complete-data information. Forwards, with B_t(j | k) = P(z_{t−1} = j | z_t = k, y_1 … y_t),

    τ_t(k) = Σ_j B_t(j | k) (τ_{t−1}(j) + f_t(j, k)),      ∂ log p(y_1 … y_t) = Σ_k φ_t(k) τ_t(k):

differences from row to row are the scores of log p(y_t | y_1 … y_{t−1}).

References
----------
Louis (1982), Finding the observed information matrix when using the EM algorithm; Cappé, Moulines and Rydén (2005),
Inference in Hidden Markov Models, §4.1 and §10.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .chain_layout import Array, Layout
from .chains import Passed


@dataclass(frozen=True)
class Parts:
    """The scores f_t(j, k) of the complete data, in pieces.

    Parameters
    ----------
    size
        p, of θ
    initial
        (K, p) ∂ log δ_k
    emission
        of each state, (n, p_k) by place, 0 where y is missing
    places
        of each state, where those lie in θ
    x
        (q, n) by place, what the logits of the transitions are linear in
    columns
        (j, k, where in θ) of each logit
    a
        (K, K) or (K, K, n): the transitions
    """

    size: int
    initial: Array
    emission: list[Array]
    places: list[slice]
    x: Array
    columns: list[tuple[int, int, slice]]
    a: Array

    def at(self, place: Array) -> Array:
        """f_t(j, k) of these places, (K, K, m, p)."""
        K = len(self.emission)
        out = np.zeros((K, K, len(place), self.size))
        for k, (score, own) in enumerate(zip(self.emission, self.places, strict=True)):
            out[:, k, :, own] = score[place]
        a = self.a[:, :, None] if self.a.ndim == 2 else self.a[:, :, place]
        for j, k, own in self.columns:
            x = self.x[:, place].T
            out[j, :, :, own] -= a[j, k][:, None] * x
            out[j, k, :, own] += x
        return out

    def expected(self, P: Array, place: Array) -> Array:
        """Σ_k P(j, k) f_t(j, k), (m, K, p), P (K, K, m) with rows that sum to 1."""
        out = np.zeros((len(place), len(self.emission), self.size))
        for k, (score, own) in enumerate(zip(self.emission, self.places, strict=True)):
            out[:, :, own] = P[:, k].T[:, :, None] * score[place][:, None]
        a = self.a[:, :, None] if self.a.ndim == 2 else self.a[:, :, place]
        for j, k, own in self.columns:
            out[:, j, own] += (P[j, k] - a[j, k])[:, None] * self.x[:, place].T
        return out

    def spread(self, xi: Array, h: Array, place: Array) -> Array:
        """Σ_t Σ_jk ξ_t(j, k) (f_t(j, k) + h_t(k) − h_{t−1}(j))(…)ᵀ, (p, p); ξ (K, K, m), h (n, K, p)."""
        D = self.at(place) + h[place].transpose(1, 0, 2)[None] - h[place - 1].transpose(1, 0, 2)[:, None]
        D *= np.sqrt(xi)[..., None]
        flat = D.reshape(-1, self.size)
        return np.asarray(flat.T @ flat)

    def first(self, place: Array) -> Array:
        """The scores of first rows, (K, S, p)."""
        out = np.repeat(self.initial[:, None], len(place), 1)
        for k, (score, own) in enumerate(zip(self.emission, self.places, strict=True)):
            out[k, :, own] += score[place]
        return out


def missing_information(passed: Passed, parts: Parts, weight: Array | None = None) -> Array:
    """Σ_s w_s Var(S_s | y), (p, p), of transitions that change from row to row (`hidden_spread`: of constants).

    Parameters
    ----------
    weight
        (n,) by place, the weight of its sequence; None: 1
    """
    n, K, p = len(passed.log_rows), len(passed.phi), parts.size
    kernel, drift = np.zeros((n, K, K)), np.zeros((n, K, p))
    for place in passed.blocks():
        P = passed.kernel(place)
        kernel[place] = P.transpose(2, 0, 1)
        drift[place] = parts.expected(P, place)
    h = _behind(passed.layout, kernel, drift)
    V = np.zeros((p, p))
    for place in passed.blocks(p):
        xi = passed.pairs(place)
        xi = xi if weight is None else xi * weight[place]
        V += parts.spread(xi, h, place)
    start = passed.layout.starts
    gamma = passed.smoothed[:, start]
    D = parts.first(start) + h[start].transpose(1, 0, 2)
    D -= (gamma[..., None] * D).sum(0)
    flat = (np.sqrt(gamma if weight is None else gamma * weight[start])[..., None] * D).reshape(-1, p)
    return np.asarray(V + flat.T @ flat)


def row_scores(passed: Passed, parts: Parts) -> Array:
    """∂ log p(y_t | y_1 … y_{t−1}) / ∂θ, (n, p), by place."""
    n, K, p = len(passed.log_rows), len(passed.phi), parts.size
    phi, start = passed.filtered, passed.layout.starts
    kernel, drift = np.zeros((n, K, K)), np.zeros((n, K, p))
    drift[start] = parts.first(start).transpose(1, 0, 2)
    for place in passed.blocks(p):
        joint = phi[:, None, place - 1] * (
            (np.exp(passed.a) if passed.log else passed.a)[..., None]
            if passed.a.ndim == 2
            else (np.exp(passed.a[..., place]) if passed.log else passed.a[..., place])
        )
        total = joint.sum(0)
        B = joint / np.where(total > 0, total, 1.0)
        kernel[place] = B.transpose(2, 1, 0)
        drift[place] = np.einsum("jkm,jkmp->mkp", B, parts.at(place), optimize=True)
    tau = _ahead(passed.layout, kernel, drift)
    mean = np.einsum("km,mkp->mp", phi, tau)
    out = mean.copy()
    later = passed.layout.later
    out[later] -= mean[later - 1]
    return np.asarray(out)


def _behind(layout: Layout, kernel: Array, drift: Array) -> Array:
    """x_{t−1} = kernel_t x_t + drift_t, 0 at the end of each sequence, (n, K, p); that of an opening row leads
    nowhere."""
    n, K, p = drift.shape
    kernel, drift = kernel[layout.packed], drift[layout.packed]
    C = len(layout.begins)
    end = np.zeros((C, K, p))
    if layout.levels:  # what each piece makes of 0, and of the unit matrix
        v = np.concatenate([np.zeros((C, K, p)), np.broadcast_to(np.eye(K), (C, K, K))], 2)
        for step in reversed(layout.steps):
            m = step.stop - step.start
            v[:m] = kernel[step] @ v[:m]
            v[:m, :, :p] += drift[step]
        for own, before in reversed(layout.levels):
            end[before] = v[own, :, :p] + v[own, :, p:] @ end[own]
    out, v = np.empty((n, K, p)), end
    for step in reversed(layout.steps):
        m = step.stop - step.start
        out[step] = v[:m]
        v[:m] = kernel[step] @ v[:m] + drift[step]
    placed = np.empty_like(out)
    placed[layout.packed] = out
    return placed


def _ahead(layout: Layout, kernel: Array, drift: Array) -> Array:
    """x_t = kernel_t x_{t−1} + drift_t, (n, K, p); the kernel of an opening row is 0."""
    n, K, p = drift.shape
    kernel, drift = kernel[layout.packed], drift[layout.packed]
    C = len(layout.begins)
    enters = np.zeros((C, K, p))
    if layout.levels:
        v = np.concatenate([np.zeros((C, K, p)), np.broadcast_to(np.eye(K), (C, K, K))], 2)
        for step in layout.steps:
            m = step.stop - step.start
            v[:m] = kernel[step] @ v[:m]
            v[:m, :, :p] += drift[step]
        for own, before in layout.levels:
            enters[own] = v[before, :, :p] + v[before, :, p:] @ enters[before]
    out, v = np.empty((n, K, p)), enters
    for step in layout.steps:
        m = step.stop - step.start
        v = kernel[step] @ v[:m] + drift[step]
        out[step] = v
    placed = np.empty_like(out)
    placed[layout.packed] = out
    return placed
