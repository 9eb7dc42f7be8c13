"""The Kaplan–Meier estimate of P(T > t), where some rows are known only to have lasted longer than they were
watched.

    S(t) = Π_{t_j ≤ t} (1 − d_j / n_j),      Var log S(t) ≈ Σ_{t_j ≤ t} d_j / (n_j (n_j − d_j))

d_j the events at t_j, n_j the rows at risk then: entered before t_j, and neither gone before it.
"""

from __future__ import annotations

import numpy as np

from .product_limit import interval, steps


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
    if count is not None and not (count > 0).any():
        return np.nan, np.nan, np.nan
    found = steps(time, event, entry, count)
    j = int(np.searchsorted(found.time, at, side="right")) - 1
    value = 1.0 if j < 0 else float(found.survival[j])
    if value == 1.0 or value <= 0.0:
        return max(value, 0.0), np.nan, np.nan
    error = value * np.sqrt(found.greenwood[j : j + 1])
    low, high = interval(np.array([value]), error, level, "log-log")
    return value, float(low[0]), float(high[0])
