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

from .chain_layout import Array, Layout
from .chain_steps import Logarithms, Probabilities

SAFE = -345.0  # log of the smallest α^(r + 1)
CELLS = 2**21  # numbers held at once


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
            return np.asarray(out if before is None else out + before[:, None, :])
        out = a * _unit(self.b[:, place] * self.backward[:, place])[None]
        return np.asarray(out if before is None else out * before[:, None, :])

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
    run: Probabilities | Logarithms
    if every >= 1:
        run = Probabilities(layout, log_b, log_a, log_initial, every)
    else:
        run = Logarithms(layout, log_b, log_a, log_initial)
    log_c, forward = run.forward()
    log_c = np.where(impossible, -np.inf, log_c + top)
    b, a = (np.exp(log_b), np.exp(log_a)) if every >= 1 else (log_b, log_a)
    return Passed(layout, log_c, forward, run.backward() if backward else None, b, a, every < 1)
