"""Numbers of a survival curve: when it crosses a height, and the area below it."""

from __future__ import annotations

import math

import numpy as np

from .product_limit import Steps

SAME = 1e-9  # by which a curve may differ from a height that it is meant to have: rounding of a product


def crossing(time: np.ndarray, height: np.ndarray, at: float) -> float:
    """The first time at which a falling step curve is at most `at`; the middle of a stretch that is exactly that
    high; NaN where it never is.

    Parameters
    ----------
    time, height
        (m,): the curve is height_j from time_j on, and 1 before; NaN: it is not known there

    Examples
    --------
    >>> time, height = np.array([1.0, 2.0, 3.0]), np.array([0.8, 0.5, 0.2])
    >>> crossing(time, height, 0.6), crossing(time, height, 0.5), math.isnan(crossing(time, height, 0.1))
    (2.0, 2.5, True)
    """
    reached = np.flatnonzero(height <= at + SAME)
    if not len(reached):
        return math.nan
    j = int(reached[0])
    if abs(height[j] - at) > SAME:
        return float(time[j])
    below = np.flatnonzero(height < at - SAME)
    k = int(below[0]) if len(below) else len(time) - 1
    return float((time[j] + time[k]) / 2)


def restricted_mean(steps: Steps, until: float) -> tuple[float, float]:
    """∫₀^until S(t) dt, and its standard error √Σ_j (∫_{t_j}^until S dt)² d_j / (n_j (n_j − d_j)).

    References
    ----------
    Andersen, Borgan, Gill and Keiding (1993), §IV.3; Klein and Moeschberger (2003), §4.5.

    Examples
    --------
    >>> from thetahat.evaluation.product_limit import steps
    >>> value, error = restricted_mean(steps(np.array([1.0, 2.0, 3.0]), np.array([1, 1, 1])), 3.0)
    >>> round(value, 6), round(error, 6)
    (2.0, 0.471405)
    """
    inside = steps.time < until
    t = np.concatenate([[0.0], steps.time[inside], [until]])
    S = np.concatenate([[1.0], steps.survival[inside]])
    area = np.diff(t) * S
    after = np.cumsum(area[::-1])[::-1][1:]  # from each t_j on
    d, n = steps.total[inside], steps.at_risk[inside]
    part = np.divide(d, n * (n - d), out=np.zeros_like(d), where=(d > 0) & (n > d))
    return float(area.sum()), float(np.sqrt((after**2 * part).sum()))
