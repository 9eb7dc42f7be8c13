"""Paths of states: the most probable one (Viterbi), and paths drawn at random.

Both are maps composed from row to row, z_{t−1} = ψ_t(z_t) or z_t = ψ_t(z_{t−1}), and composing is associative: the maps of
the pieces of a sequence are composed at once, as products are in `chains`.

References
----------
Viterbi (1967), Error bounds for convolutional codes and an asymptotically optimum decoding algorithm.
"""

from __future__ import annotations

import numpy as np

from .chain_layout import Array, Layout


def viterbi(layout: Layout, log_b: Array, log_a: Array, log_initial: Array) -> Array:
    """argmax_z p(z, y) of each sequence, (n,) by place.

    Parameters
    ----------
    log_b, log_a, log_initial
        as of `chains.passes`
    """
    v = _best(layout, log_b, log_a, log_initial)
    back = np.zeros((len(log_b), len(layout.order)), dtype=np.int64)  # the state before each state of a place
    for later in np.array_split(layout.later, max(1, len(layout.later) * len(log_b) ** 2 // 2**21)):
        a = log_a[:, :, None] if log_a.ndim == 2 else log_a[:, :, later]
        back[:, later] = (v[:, None, later - 1] + a).argmax(0)
    ends = layout.starts + layout.lengths - 1
    return _followed_back(layout, back, v[:, ends].argmax(0))


def _best(layout: Layout, log_b: Array, log_a: Array, log_initial: Array) -> Array:
    """max over the paths before, log p(z_1 … z_t = k, y_1 … y_t) up to a constant of each row, (K, n): the forward
    recursion with max in the place of Σ."""
    K, C = len(log_b), len(layout.begins)
    packed = layout.packed
    b = log_b[:, packed]
    a = log_a if log_a.ndim == 2 else log_a[:, :, packed]

    def at(step: slice) -> Array:
        return a[:, :, None] if a.ndim == 2 else a[:, :, step]

    first, opening = layout.steps[0], layout.opening
    enters = np.zeros((K, C))
    if layout.levels:
        M = at(first) + b[None, :, first]
        M[:, :, opening] = (log_initial[:, None] + b[:, first][:, opening])[None]
        for step in layout.steps[1:]:
            m = step.stop - step.start
            M[:, :, :m] = (M[:, :, None, :m] + at(step)[None]).max(1) + b[None, :, step]
        end = M[0].copy()
        for own, before in layout.levels:
            enters[:, own] = end[:, before]
            end[:, own] = _shifted((enters[:, None, own] + M[:, :, own]).max(0))
    v = (enters[:, None] + at(first)).max(0)
    v[:, opening] = log_initial[:, None]
    out = np.empty_like(b)
    for t, step in enumerate(layout.steps):
        m = step.stop - step.start
        v = (v[:, None, :m] + at(step)).max(0) if t else v
        v = _shifted(v + b[:, step])
        out[:, step] = v
    placed = np.empty_like(out)
    placed[:, packed] = out
    return placed


def _shifted(v: Array) -> Array:
    return np.asarray(v - v.max(0))


def _followed_back(layout: Layout, back: Array, last: Array) -> Array:
    """z, (n,), from its last state in each sequence and the maps to the state before, (K, n)."""
    K, C = len(back), len(layout.begins)
    maps = back[:, layout.packed]
    whole = np.repeat(
        np.arange(K)[:, None], C, 1
    )  # of each piece: from its last state to the one before its first
    for step in reversed(layout.steps):
        m = step.stop - step.start
        whole[:, :m] = np.take_along_axis(maps[:, step], whole[:, :m], 0)
    ends = np.zeros(C, dtype=np.int64)
    sequence = np.searchsorted(layout.starts, layout.begins, side="right") - 1
    ends[:] = last[sequence]  # right of last pieces; the others' follow
    for own, before in reversed(layout.levels):
        ends[before] = whole[ends[own], own]
    out, z = np.empty(len(layout.order), dtype=np.int64), ends
    for step in reversed(layout.steps):
        m = step.stop - step.start
        out[step] = z[:m]
        z[:m] = maps[z[:m], np.arange(step.start, step.stop)]
    placed = np.empty_like(out)
    placed[layout.packed] = out
    return placed


def drawn_path(layout: Layout, a: Array, initial: Array, uniform: Array) -> Array:
    """States drawn from the chain, (n,) by place.

    Parameters
    ----------
    a, initial
        probabilities, (K, K) or (K, K, n) by place, and (K,)
    uniform
        (n,) numbers between 0 and 1, one a row
    """
    K, packed = len(initial), layout.packed
    above = np.cumsum(a, 1)[:, :-1]  # (K, K − 1, …)
    above = above[:, :, None] if a.ndim == 2 else above
    maps = (uniform >= above).sum(1)[:, packed]  # from each state to the next one, (K, n)
    first = (uniform[layout.starts] >= np.cumsum(initial)[:-1, None]).sum(0)
    sequence = np.searchsorted(layout.starts, layout.begins, side="right") - 1
    opening = layout.opening
    maps[:, np.flatnonzero(opening)] = first[sequence[opening]]
    C = len(layout.begins)
    enters = np.zeros(C, dtype=np.int64)
    if layout.levels:
        whole = np.repeat(np.arange(K)[:, None], C, 1)
        for step in layout.steps:
            m = step.stop - step.start
            whole[:, :m] = np.take_along_axis(maps[:, step], whole[:, :m], 0)
        end = whole[0].copy()
        for own, before in layout.levels:
            enters[own] = end[before]
            end[own] = whole[enters[own], own]
    out, z = np.empty(len(layout.order), dtype=np.int64), enters
    for step in layout.steps:
        m = step.stop - step.start
        z = maps[z[:m], np.arange(step.start, step.stop)]
        out[step] = z
    placed = np.empty_like(out)
    placed[packed] = out
    return placed
