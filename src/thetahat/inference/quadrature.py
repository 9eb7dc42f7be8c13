"""Means over y of products of scores, E[s_a s_b], row by row: sums for a mass, integrals for a density.

A density is integrated in the coordinate t of `families.integration`, in which it falls off exponentially at
both ends. Steps are halved, row by row, until ∫ p dy is 1 and E[s²] no longer moves. Rows that do not settle
(a density with an edge, an angle), and families with kinks, are integrated over the quantile instead: ∫₀¹ s
sᵀ(Q(u)) du, u = Φ(z), by the same rule in z.

References
----------
Trefethen and Weideman (2014), The exponentially convergent trapezoidal rule, SIAM Review 56.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import ndtr

from ..families.integration import (
    BLOCK,
    REACH,
    Pairs,
    Rows,
    inside_of,
    mapping,
    needs_quantile,
    range_of,
    reach,
    scale_of,
)

STEPS, MOST = 64, 8192  # nodes of the first rule, and of the last
MASS, CHANGE = (
    1e-9,
    1e-6,
    # what ∫ p may miss, and by what E[s²] may change when the step is halved (its own error is the square of
    # that)
)
STEP, KINKED = 1 / 8, 1 / 512  # its step; across a kink the rule converges but as the square of it


def mean(rows: Rows) -> Pairs:
    """E[s_a s_b] of each row, a ≤ b, each (n,).

    Raises
    ------
    BadArgument
        the family has no quantile where one is needed
    """
    support, measure = rows.family.support, rows.family.measure
    if measure == "mass":
        if math.isfinite(support.low) and math.isfinite(support.high):
            return _sum(rows, torch.full_like(rows.eta[0], support.low), int(support.high - support.low) + 1)
        first, length = reach(rows)
        return _sum(rows, first, int(length.max()))
    out, at_zero = rows.zeros(), torch.zeros(len(rows), dtype=torch.float64)
    if measure == "mixed":
        log_p, s = rows.scores(torch.zeros(len(rows), 1, dtype=torch.float64))
        at_zero = torch.exp(log_p)[:, 0]
        _add(out, s, at_zero[:, None])
    left = torch.arange(len(rows))
    if rows.family.smooth:
        left = _by_density(rows, at_zero, out)
    if len(left):
        _by_quantile(rows.take(left), left, at_zero[left], out)
    return out


def _add(out: Pairs, s: list[Tensor], weight: Tensor) -> None:
    for (a, b), value in out.items():
        value += torch.where(weight > 0, s[a] * s[b] * weight, 0.0).sum(
            1
        )  # where p = 0 the score is not defined, and not needed


# ---- masses ------------------------------------------------------------------------------------------------


def _sum(rows: Rows, low: Tensor, n: int) -> Pairs:
    out, width = rows.zeros(), max(1, BLOCK // len(rows))
    for start in range(0, n, width):
        y = low[:, None] + torch.arange(start, min(start + width, n), dtype=low.dtype)
        log_p, s = rows.scores(y.clamp(max=rows.family.support.high))
        _add(out, s, torch.exp(log_p))
    return out


# ---- densities, in t ---------------------------------------------------------------------------------------


def _by_density(rows: Rows, at_zero: Tensor, out: Pairs) -> Tensor:
    """Add the integrals of the rows that settle to `out`; which rows do not."""
    center, width = scale_of(rows)
    low, high, falls = range_of(rows, center, width)
    left, before, m = torch.nonzero(falls).reshape(-1), None, STEPS
    while len(left) and m <= MOST:
        now, mass = rows.take(left).zeros(), torch.zeros(len(left), dtype=torch.float64)
        for part in torch.arange(len(left)).split(max(1, BLOCK // m)):
            own = left[part]
            some = rows.take(own)
            h = (high[own] - low[own]) / m
            t = low[own, None] + h[:, None] * (torch.arange(m, dtype=torch.float64) + 0.5)
            y, jacobian = mapping(some.family, center[own, None], width[own, None])(t)
            log_p, s = some.scores(y)
            weight = torch.exp((log_p + jacobian).nan_to_num(nan=-torch.inf)) * h[:, None]
            piece = some.zeros()
            _add(piece, s, weight)
            mass[part] = weight.sum(1)
            for ab, value in piece.items():
                now[ab][part] = value
        settled = (mass + at_zero[left] - 1).abs() < MASS
        for (a, b), value in now.items():
            if a == b:
                settled &= False if before is None else (value - before[a, a]).abs() <= CHANGE * value
        for ab, value in now.items():
            out[ab][left[settled]] += value[settled]
        before = {ab: value[~settled] for ab, value in now.items()}
        left, m = left[~settled], 2 * m
    return torch.cat([left, torch.nonzero(~falls).reshape(-1)])


# ---- densities, over the quantile --------------------------------------------------------------------------


def _by_quantile(rows: Rows, at: Tensor, at_zero: Tensor, out: Pairs) -> None:
    """∫ s sᵀ(Q(u)) du over the rows, added to `out` at their places `at`."""
    needs_quantile(rows)
    support = rows.family.support
    step = STEP if rows.family.smooth else KINKED
    z = torch.arange(
        -REACH + step / 2, REACH, step, dtype=torch.float64
    )  # midpoints: a kink at the median is not a node
    u, weight = ndtr(z), torch.exp(-0.5 * z * z) * (step / math.sqrt(2 * math.pi))
    for part in torch.arange(len(rows)).split(max(1, BLOCK // len(z))):
        some, rest = rows.take(part), 1 - at_zero[part, None]
        y = some.of("quantile", at_zero[part, None] + rest * u)
        y = y.clamp(
            inside_of(support.low, 1.0), inside_of(support.high, -1.0)
        )  # a quantile may round to the end of the support
        _, s = some.scores(y)
        piece = some.zeros()
        _add(piece, s, weight * rest)
        for ab, value in piece.items():
            out[ab][at[part]] += value
