"""The Kaplan–Meier estimate of P(T > t), where some rows are known only to have lasted longer than they were
watched.

    S(t) = Π_{t_j ≤ t} (1 − d_j / n_j),      Var log S(t) ≈ Σ_{t_j ≤ t} d_j / (n_j (n_j − d_j))

d_j the events at t_j, n_j the rows at risk then: entered before t_j, and neither gone before it.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri


def kaplan_meier(
    time: np.ndarray,
    event: np.ndarray,
    at: float,
    level: float = 0.95,
    *,
    entry: np.ndarray | None = None,
    count: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """S(at), and the ends of its interval on the scale log(−log S).

    Parameters
    ----------
    time
        when the event happened, or until when the row was watched, (n,)
    event
        whether it happened, (n,)
    entry
        from when on the row was watched; None: from the beginning
    count
        how often each row was observed; None: once

    Returns
    -------
    tuple[float, float, float]
        S, low, high; NaN where nothing was at risk. Without an event by then S = 1, of which there is no
        interval (NaN).

    References
    ----------
    Kaplan and Meier (1958), Nonparametric estimation from incomplete observations; Kalbfleisch and Prentice
    (2002), The Statistical Analysis of Failure Time Data, 2nd ed., §1.4.2.

    Examples
    --------
    >>> time, event = np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, True])
    >>> round(kaplan_meier(time, event, 3.5)[0], 6)                         # ¾ · ½
    0.375
    """
    count = np.ones(len(time)) if count is None else count
    entry = np.full(len(time), -np.inf) if entry is None else entry
    value, variance = 1.0, 0.0
    for t in np.unique(time[event & (time <= at) & (count > 0)]):
        risk = float(count[(entry < t) & (time >= t)].sum())
        died = float(count[event & (time == t)].sum())
        value *= 1 - died / risk
        variance += died / (risk * (risk - died)) if risk > died else np.inf
    if not (count > 0).any():
        return np.nan, np.nan, np.nan
    if value == 1.0:
        return 1.0, np.nan, np.nan
    if value <= 0.0:
        return 0.0, np.nan, np.nan
    half = float(ndtri((1 + level) / 2)) * np.sqrt(variance) / abs(np.log(value))
    return value, float(value ** np.exp(half)), float(value ** np.exp(-half))
