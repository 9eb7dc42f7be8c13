"""p-values and intervals of several contrasts at once.

    tukey        of all differences of k means: p = P(q_{k,ν} ≥ √2 |t|), q the studentised range; exact where the means are
                 independent and equally precise, else an upper bound or close to one; below `FAR` Bonferroni's bound
    bonferroni   m p
    sidak        1 − (1 − p)^m
    holm         max_{j ≤ i} (m − j + 1) p_(j); its intervals are Bonferroni's

each at most 1; m the number of contrasts, k that of means.

References
----------
Tukey (1953), The problem of multiple comparisons; Kramer (1956); Hayter (1984), A proof of the conjecture that the
Tukey–Kramer multiple comparisons procedure is conservative; Holm (1979), A simple sequentially rejective multiple test
procedure; Šidák (1967).
"""

from __future__ import annotations

import math

import numpy as np

from ..distributions import student
from ..errors import BadArgument

KINDS = ("tukey", "holm", "bonferroni", "sidak")
FAR = 1e-10  # studentised ranges are known to some 1e-12: below this their p-values are noise, or exactly 0


def check(adjust: str | None) -> None:
    if adjust is not None and adjust not in KINDS:
        raise BadArgument(f"adjust={adjust!r}. Accepted: {', '.join(map(repr, KINDS))}, None.")


def p_values(statistic: np.ndarray, df: np.ndarray, adjust: str | None, means: int) -> np.ndarray:
    """Of t (or z, where df is ∞), (m,).

    Parameters
    ----------
    adjust
        one of `KINDS`; None: each by itself
    means
        k, between which the contrasts are all differences

    Examples
    --------
    >>> p_values(np.array([2.0, -3.0]), np.array([np.inf, np.inf]), "holm", 2).round(4).tolist()
    [0.0455, 0.0054]
    """
    p: np.ndarray = np.asarray(2 * student.sf(np.abs(statistic), df), dtype=np.float64)
    m = len(p)
    if adjust == "tukey":
        q = math.sqrt(2) * np.abs(statistic)
        from scipy.stats import studentized_range  # takes long to load

        tail = np.clip(np.asarray(studentized_range.sf(q, means, df), dtype=np.float64), 0.0, 1.0)
        return np.asarray(np.where(tail < FAR, np.minimum(1.0, math.comb(means, 2) * p), tail))
    if adjust == "bonferroni":
        return np.asarray(np.minimum(1.0, m * p))
    if adjust == "sidak":
        return np.asarray(-np.expm1(m * np.log1p(-p)))
    if adjust == "holm":
        order = np.argsort(p)
        stepped = np.maximum.accumulate((m - np.arange(m)) * p[order])
        out = np.empty(m)
        out[order] = np.minimum(1.0, stepped)
        return out
    return p


def quantile(level: float, df: np.ndarray, adjust: str | None, means: int) -> np.ndarray:
    """How many standard errors an interval reaches on either side, (m,): together the intervals hold with probability
    `level`, at least.

    Examples
    --------
    >>> quantile(0.95, np.array([np.inf]), None, 1).round(3).tolist()
    [1.96]
    """
    m = len(df)
    if adjust == "tukey":
        from scipy.stats import studentized_range  # takes long to load

        return np.asarray(studentized_range.ppf(level, means, df)) / math.sqrt(2)
    if adjust in ("bonferroni", "holm"):
        level = 1 - (1 - level) / m
    if adjust == "sidak":
        level = level ** (1 / m)
    return np.asarray(student.ppf((1 + level) / 2, df))
