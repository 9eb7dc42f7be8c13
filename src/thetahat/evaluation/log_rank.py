"""The log-rank test that several groups have one survival curve.

At each time t_j with d_j events among n_j at risk, the events of group g are hypergeometric given the margins:

    U_g = Σ_j w_j (d_gj − d_j n_gj / n_j),      V_gh = Σ_j w_j² d_j (n_j − d_j) / (n_j − 1) · (n_gj / n_j) (1{g=h} − n_hj / n_j)

Uᵀ V⁻ U is χ² with G − 1 degrees of freedom where the curves are equal. w_j = S(t_j −)^ρ, S the curve of all groups
together: ρ = 0 is the log-rank test, the score test of Cox's partial likelihood (Mantel–Haenszel), ρ = 1 Peto and
Peto's modification of Wilcoxon's. Strata add their U and their V.

References
----------
Mantel (1966); Peto and Peto (1972); Harrington and Fleming (1982), A class of rank test procedures for censored
survival data, Biometrika 69.
"""

from __future__ import annotations

import math

import numpy as np

from ..distributions import chi2
from ..errors import BadArgument
from ..inference.tests import Test
from ..models.nonparametric import Times
from .product_limit import Steps, steps


def log_rank(times: Times, *, rho: float = 0.0, strata: np.ndarray | None = None, note: str = "") -> Test:
    """The test of a Times with two groups or more.

    Parameters
    ----------
    rho
        of the weights S(t −)^ρ
    strata
        which stratum each row is in, (n,), 0 …; None: one
    note
        what else is to be said of the test

    Returns
    -------
    Test
        of kind "log_rank"

    Raises
    ------
    BadArgument
        one group only; times known up to intervals; no event; rho that is not a number

    Examples
    --------
    >>> from thetahat.models.nonparametric import read_times
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "s": [1, 1, 1, 1, 0, 1], "x": list("aaabbb")}
    >>> print(log_rank(read_times("Surv(t, s) ~ x", data)))
    the curves of x are equal: log rank, χ²(1) = 5.052, p = 0.0246
    """
    if len(times.groups) < 2:
        one = f"{times.groups[0]!r} is the only group" if times.columns else "the formula names no groups"
        raise BadArgument(f"a log-rank test compares groups, and {one}.")
    if times.in_intervals:
        raise BadArgument(
            "some rows are known only to lie in an interval, or below a bound: the log-rank test is of times that "
            "were seen or censored to the right."
        )
    if isinstance(rho, bool) or not isinstance(rho, (int, float)) or not math.isfinite(rho):
        raise BadArgument(f"rho={rho!r}. Accepted: a number, 0 (log-rank) or 1 (Peto and Peto).")
    if not (times.weight[times.event > 0] > 0).any():
        raise BadArgument("no row has an event: there is nothing to compare.")
    G = len(times.groups)
    stratum = np.zeros(len(times.time), dtype=np.int64) if strata is None else strata
    U, V, expected = np.zeros(G), np.zeros((G, G)), np.zeros(G)
    for s in np.unique(stratum):
        mine = stratum == s
        u, v, e = _sums(times, mine, G, rho)
        U, V, expected = U + u, V + v, expected + e
    use = np.flatnonzero(expected > 0)
    df = len(use) - 1
    if df < 1:
        raise BadArgument(
            "no event happened while rows of two groups were at risk: there is nothing to compare."
        )
    use = use[:-1]  # U sums to 0
    statistic = float(U[use] @ np.linalg.lstsq(V[np.ix_(use, use)], U[use], rcond=None)[0])
    said = "; ".join(part for part in (f"rho = {rho:g}" if rho else "", note) if part)
    columns = ", ".join(times.columns)
    return Test(
        f"the curves of {columns} are equal", "log_rank", statistic, df, float(chi2.sf(statistic, df)), said
    )


def _sums(times: Times, mine: np.ndarray, G: int, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U (G,), V (G, G) and the expected events (G,) of one stratum."""
    entry, weight = times.entry[mine], times.weight[mine]
    time, event, group = times.time[mine], (times.event[mine] > 0).astype(np.int64), times.group[mine]
    whole = steps(time, event, entry, weight)
    at = whole.total > 0
    t, d, n = whole.time[at], whole.total[at], whole.at_risk[at]
    own = [_group(time, event, entry, weight, group == g, t) for g in range(G)]
    dg, ng = (np.stack(part, axis=1) for part in zip(*own, strict=True))  # (m, G)
    before = np.concatenate([[1.0], whole.survival[at][:-1]])
    w = before**rho
    share = ng / n[:, None]
    U = w @ (dg - d[:, None] * share)
    f = w**2 * d * np.divide(n - d, n - 1, out=np.zeros_like(n), where=n > 1)
    V = np.diag(f @ share) - (share * f[:, None]).T @ share
    return U, V, w @ (d[:, None] * share)


def _group(
    time: np.ndarray,
    event: np.ndarray,
    entry: np.ndarray,
    weight: np.ndarray,
    mine: np.ndarray,
    t: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Events and rows at risk of one group at the times t."""
    found: Steps = steps(time[mine], event[mine], weight=weight[mine])
    d = np.zeros(len(t))
    at = np.searchsorted(t, found.time).clip(max=len(t) - 1)
    same = t[at] == found.time
    d[at[same]] = found.total[same]
    return d, at_risk(time[mine], entry[mine], weight[mine], t)


def at_risk(time: np.ndarray, entry: np.ndarray, weight: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Σ w 1{entry < t ≤ time} at any times t."""
    out: np.ndarray = _above(time, weight, t) - _above(entry, weight, t)
    return out


def _above(values: np.ndarray, weight: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Σ w 1{value ≥ t}."""
    order = np.argsort(values, kind="stable")
    total = np.concatenate([np.cumsum(weight[order][::-1])[::-1], [0.0]])
    out: np.ndarray = total[np.searchsorted(values[order], t, side="left")]
    return out
