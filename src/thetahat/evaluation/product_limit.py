"""Curves of times that were seen or censored to the right, in closed form.

With d_j events at the time t_j, and n_j rows at risk then (entered before t_j, and not gone before it):

    Kaplan–Meier     S(t) = Π_{t_j ≤ t} (1 − d_j / n_j),       Var log S(t) = Σ_{t_j ≤ t} d_j / (n_j (n_j − d_j))
    Nelson–Aalen     H(t) = Σ_{t_j ≤ t} d_j / n_j,             Var H(t) = Σ_{t_j ≤ t} d_j / n_j²
    log-likelihood   ℓ(h) = Σ_j d_j log h_j + (n_j − d_j) log(1 − h_j),      which h_j = d_j / n_j maximises, term by term

ℓ is Σ_i log of the mass that S gives to what was seen of row i, given that it entered; in log-odds of h it is
concave, so that the maximum is the only one.

References
----------
Kaplan and Meier (1958), Nonparametric estimation from incomplete observations, §3; Greenwood (1926); Kalbfleisch
and Prentice (2002), The Statistical Analysis of Failure Time Data, 2nd ed., §1.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, xlogy

from ..errors import BadArgument

INTERVALS = ("log-log", "log", "plain")


@dataclass(frozen=True)
class Steps:
    """The counts of one group at each time at which something was seen.

    Parameters
    ----------
    time
        different times, rising, (m,)
    at_risk, censored
        (m,): n_j, and how many were censored at t_j
    events
        (m, K): d_j of each cause; K = 1 where there is one event
    """

    time: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    censored: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """d_j of all causes, (m,)."""
        out: np.ndarray = self.events.sum(1)
        return out

    @property
    def survival(self) -> np.ndarray:
        """S(t_j), (m,)."""
        out: np.ndarray = np.cumprod(1 - self.hazard)
        return out

    @property
    def hazard(self) -> np.ndarray:
        """h_j = d_j / n_j, (m,); 0 where nothing was at risk."""
        out: np.ndarray = np.divide(
            self.total, self.at_risk, out=np.zeros(len(self.time)), where=self.at_risk > 0
        )
        return out

    @property
    def greenwood(self) -> np.ndarray:
        """Var log S(t_j), (m,); ∞ where S is 0."""
        d, n = self.total, self.at_risk
        with np.errstate(divide="ignore", invalid="ignore"):
            out: np.ndarray = np.cumsum(np.where(d > 0, d / (n * (n - d)), 0.0))
        return out

    @property
    def cumulative_hazard(self) -> np.ndarray:
        """H(t_j), (m,)."""
        out: np.ndarray = np.cumsum(self.hazard)
        return out

    @property
    def log_likelihood(self) -> float:
        """ℓ at its maximum, in nats: of a mass, Σ_k d_jk log(d_jk / n_j) + (n_j − d_j) log(1 − d_j / n_j)."""
        n = np.where(self.at_risk > 0, self.at_risk, 1.0)
        left = self.at_risk - self.total
        return float(xlogy(self.events, self.events / n[:, None]).sum() + xlogy(left, left / n).sum())


def steps(
    time: np.ndarray,
    event: np.ndarray,
    entry: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    *,
    causes: int = 1,
) -> Steps:
    """Events, rows at risk and rows censored at each time.

    Parameters
    ----------
    time, event
        (n,); event 0: censored, 1 … `causes`: which event it was
    entry
        (n,): the row is at risk at t if entry < t ≤ time; None: from the beginning
    weight
        how often each row was observed, (n,); None: once

    Examples
    --------
    >>> found = steps(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0, 1, 1]))
    >>> found.survival.tolist(), found.at_risk.tolist()
    ([0.75, 0.75, 0.375, 0.0], [4.0, 3.0, 2.0, 1.0])
    """
    w = np.ones(len(time)) if weight is None else weight
    seen = w > 0
    time, event, w = time[seen], event[seen].astype(np.int64), w[seen]
    at, place = np.unique(time, return_inverse=True)
    m = len(at)
    counts = np.bincount(place * (causes + 1) + event, w, minlength=m * (causes + 1)).reshape(m, causes + 1)
    gone = counts.sum(1)
    risk = gone[::-1].cumsum()[::-1].copy()
    if entry is not None:
        # whoever enters at t_j or later is not at risk at t_j
        first = np.searchsorted(at, entry[seen], side="right")
        risk -= w.sum() - np.bincount(first, w, minlength=m + 1)[:m].cumsum()
        total = counts[:, 1:].sum(1)
        near = (
            np.abs(risk - total) < 1e-9 * w.sum()
        )  # differences of sums: rounding must leave nobody at risk
        risk = np.where(near, total, risk)
    return Steps(at, risk, counts[:, 1:], counts[:, 0])


def interval(value: np.ndarray, error: np.ndarray, level: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a probability with a standard error, on the scale that `kind` names, cut to [0, 1].

        log-log   p^exp(±z·s / (p·|log p|))          log   p·exp(±z·s / p)          plain   p ± z·s

    NaN where p is 0, and for "log-log" where it is 1; without a standard error of the others p itself.

    Raises
    ------
    BadArgument
        an unknown kind, or a level outside (0, 1)
    """
    if kind not in INTERVALS:
        raise BadArgument(f"interval={kind!r}. Accepted: {', '.join(map(repr, INTERVALS))}.")
    if not (isinstance(level, (int, float)) and 0 < level < 1):
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    half = float(ndtri((1 + level) / 2)) * error
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if kind == "plain":
            low, high = value - half, value + half
        elif kind == "log":
            low, high = value * np.exp(-half / value), value * np.exp(half / value)
        else:
            theta = half / (value * np.abs(np.log(value)))
            low, high = value ** np.exp(theta), value ** np.exp(-theta)
            low, high = (np.where(value < 1, end, np.nan) for end in (low, high))
    low, high = (np.where(value > 0, end, np.nan) for end in (low, high))
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
