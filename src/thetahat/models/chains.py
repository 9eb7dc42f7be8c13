"""Forward and backward recursions of Markov chains that were not seen, on many sequences and on long ones.

With a_t(j, k) = P(z_t = k | z_{t−1} = j) and b_t(k) = p(y_t | z_t = k),

    forward    φ_t(k) ∝ Σ_j φ_{t−1}(j) a_t(j, k) b_t(k),      Σ_k of it = p(y_t | y_1 … y_{t−1}) = c_t
    backward   β_{t−1}(j) ∝ Σ_k a_t(j, k) b_t(k) β_t(k)
    smoothed   γ_t(k) ∝ φ_t(k) β_t(k)

A step of either is a product with the matrix M_t = a_t diag(b_t), and products are associative. A sequence of T rows is
therefore cut into pieces of about √T rows: the products of all pieces are made at once, the pieces are joined one
after the other, and all of them are run through again, each from where the one before it ends. That is 3√T steps of
whole arrays in the place of T, and the same numbers. Rows lie in the order of these steps throughout.

Steps are carried in probabilities, with max_k b_t(k) = 1, and scaled to sum 1 after every r of them. r steps leave at
least α^r of the sum, α the smallest a; and from the most probable state every state is reached with at least α. So what
underflows is less than 10⁻³⁰⁸ / α^(r + 1) of what is kept, and r is such that this is below 10⁻¹⁵⁸. Where α is too
small for r = 1 (a transition that is impossible) the steps are carried in logarithms.

Legend: n rows, K states, C pieces, m of them at a step. A "place" is a row's number once sequences stand one after
the other, each in time; an "entry" its number in the order of the steps. States come first: arrays are (K, n), so that
each operation runs along the pieces.

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
    """What the passes give, by entry; `placed` what they give by place.

    Parameters
    ----------
    log_rows
        (n,) log p(y_t | y_1 … y_{t−1})
    phi
        (K, n) φ
    beta
        (K, n) β, each row scaled somehow; None where it was not asked for
    likely
        (K, n) p(y | state), up to a factor of each row
    a
        (K, K) or (K, K, n) by place: the transitions
    scale
        (n,) Σ_jk φ_{t−1}(j) a(j, k) b_t(k)
    top
        (n,) max_k log p(y | state): the factor
    log
        whether phi, beta, likely and a are logarithms
    """

    layout: Layout
    log_rows: Array
    phi: Array
    beta: Array | None
    likely: Array
    a: Array
    scale: Array
    top: Array
    log: bool

    @property
    def value(self) -> float:
        """log p(y), of all sequences together."""
        return float(self.log_rows.sum())

    @cached_property
    def _overlap(self) -> tuple[Array, Array]:
        """φ_t β_t, (K, n), and its sum over the states, (n,)."""
        assert self.beta is not None
        both = self.phi * self.beta
        return both, np.ones(len(both)) @ both

    @cached_property
    def gamma(self) -> Array:
        """γ, (K, n), by entry."""
        if self.log:
            assert self.beta is not None
            return _softmax(self.phi + self.beta)
        both, total = self._overlap
        return np.asarray(both / total)

    @cached_property
    def log_c(self) -> Array:
        """(n,) log p(y_t | y_1 … y_{t−1})."""
        return self.layout.placed(self.log_rows)

    @cached_property
    def forward(self) -> Array:
        """φ, or its logarithm, (K, n)."""
        return self.layout.placed(self.phi)

    @cached_property
    def backward(self) -> Array:
        """β, or its logarithm, (K, n), scaled to sum 1."""
        assert self.beta is not None
        return self.layout.placed(self.beta if self.log else _unit(self.beta))

    @cached_property
    def b(self) -> Array:
        """p(y | state), or its logarithm, (K, n), up to a factor of each row."""
        return self.layout.placed(self.likely)

    @cached_property
    def filtered(self) -> Array:
        """φ, (K, n): P(z_t | y_1 … y_t)."""
        return np.exp(self.forward) if self.log else self.forward

    @cached_property
    def smoothed(self) -> Array:
        """γ, (K, n): P(z_t | y)."""
        return self.layout.placed(self.gamma)

    def blocks(self, width: int = 1) -> Iterator[Array]:
        """The places that have one before them, so many at a time that K² · width numbers of each can be held."""
        later, K = self.layout.later, len(self.phi)
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

    def kernels(self) -> Array:
        """P(z_t = k | z_{t−1} = j, y), (K, K, n), by entry, where transitions are constants."""
        assert self.beta is not None
        assert self.a.ndim == 2
        if self.log:
            joint = self.a[:, :, None] + (self.likely + self.beta)[None]
            return np.moveaxis(_softmax(np.moveaxis(joint, 1, 0)), 0, 1)
        ahead = self.likely * self.beta
        out: Array = self.a[:, :, None] * ahead
        out /= (self.a @ ahead)[:, None]
        return out

    def counts(self) -> Array:
        """Σ_t ξ_t, (K, K): how often each transition is expected to have been taken."""
        assert self.beta is not None
        K = len(self.phi)
        if self.log or self.a.ndim == 3:
            return np.asarray(sum((self.pairs(place).sum(-1) for place in self.blocks()), np.zeros((K, K))))
        # ξ_t(j, k) = φ_{t−1}(j) a(j, k) b_t(k) β_t(k) / (c_t Σ_l φ_t(l) β_t(l))
        ahead = self.likely * self.beta
        ahead /= self.scale * self._overlap[1]
        ahead[:, np.flatnonzero(self.layout.opening)] = 0.0
        return np.asarray(self.a * (self.layout.before(self.phi) @ ahead.T))


def _unit(x: Array) -> Array:
    """Scaled to sum 1 along the first axis."""
    return np.asarray(x / (np.ones(len(x)) @ x.reshape(len(x), -1)).reshape(x.shape[1:]))


def _softmax(x: Array) -> Array:
    """exp(x) scaled to sum 1 along the first axis."""
    out = np.exp(x - x.max(0))
    out /= out.sum(0)
    return np.asarray(out)


def passes(
    layout: Layout,
    log_b: Array,
    log_a: Array,
    log_initial: Array,
    *,
    backward: bool = True,
    entries: bool = False,
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
    entries
        log_b stands by entry

    Returns
    -------
    Passed
        a row that no state can have produced has log c = −∞, and is passed as if it were missing
    """
    log_b = log_b if entries else log_b[:, layout.packed]
    top = log_b.max(0)
    impossible = top == -np.inf
    if bool(impossible.any()):
        log_b = np.where(impossible, 0.0, log_b)
        top = np.where(impossible, 0.0, top)
    least = 0.0
    if len(layout.later):
        least = float((log_a if log_a.ndim == 2 else log_a[:, :, layout.later]).min())
    every = int(min(16.0, SAFE / min(least, -1e-3) - 1))
    memory = np.empty((2 + backward, *log_b.shape))
    log_b = np.subtract(log_b, top, out=memory[0])
    if every < 1:
        logs = Logarithms(layout, log_b, log_a, log_initial)
        log_c, phi = logs.forward()
        log_c = np.where(impossible, -np.inf, log_c + top)
        return Passed(
            layout, log_c, phi, logs.backward() if backward else None, log_b, log_a, log_c, top, True
        )
    run = Probabilities(layout, log_b, np.exp(log_a), log_initial, every, memory)
    c, phi = run.forward()
    log_c = np.log(c)
    log_c[np.flatnonzero(layout.opening)] = run.log_first
    log_c += top
    log_c[impossible] = -np.inf
    return Passed(layout, log_c, phi, run.backward() if backward else None, run.b, run.a, c, top, False)
