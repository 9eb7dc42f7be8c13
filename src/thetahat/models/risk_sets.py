"""Risk sets: who could have had the event at each time of one, and sums over them in one sweep.

    R_k = {i in the stratum of k : entry_i < t_k ≤ time_i}

Rows lie sorted by stratum and by falling time, so that a sum over R_k is a cumulative sum that begins with the last row
under observation: few and small late terms are not lost beside many early ones. Of rows that enter late the sum over those
that have not entered by t_k is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class RiskSets:
    """Of n rows and K times of events (a time in two strata counts as two), in the order of `order`.

    Parameters
    ----------
    order
        (n,) the rows by stratum, then by falling time
    begin, last
        (K,) where the stratum of k begins, and where those at risk at t_k end
    events, of_event
        (D,) the places of the events, and which k each is of
    late, late_begin, before
        the places of the rows by stratum and falling entry, where their stratum begins there, and how far those go that
        have not entered by t_k; empty where nobody enters late
    until, since
        (n,) of each row, how many k come before it leaves, and before it enters
    time, stratum
        (K,)
    """

    order: Array
    begin: Array
    last: Array
    events: Array
    of_event: Array
    late: Array
    late_begin: Array
    before: Array
    until: Array
    since: Array
    time: Array
    stratum: Array

    @property
    def size(self) -> int:
        return len(self.time)

    def at_risk(self, values: Array) -> Array:
        """Σ over R_k, (…, K), of (…, n)."""
        out = _between(values, self.begin, self.last)
        if len(self.late):
            out -= _between(values[..., self.late], self.late_begin, self.before)
        return out

    def of_events(self, values: Array) -> Array:
        """Σ over the events at t_k, (…, K), of (…, n)."""
        own = values[..., self.events]
        if own.ndim == 1:
            return np.bincount(self.of_event, own, self.size)
        return np.stack([np.bincount(self.of_event, row, self.size) for row in own])

    def lived(self, values: Array) -> Array:
        """Of each row the sum over those k at which it was at risk, (…, n), of (…, K)."""
        zero = np.zeros((*values.shape[:-1], 1))
        total = np.concatenate([zero, np.cumsum(values, -1)], -1)
        return np.asarray(total[..., self.until] - total[..., self.since])


def _between(values: Array, begin: Array, end: Array) -> Array:
    total = np.cumsum(values, -1)
    out = np.take(total, end - 1, -1)
    if bool((begin > 0).any()):
        out -= np.where(begin > 0, np.take(total, np.maximum(begin - 1, 0), -1), 0.0)
    empty = end <= begin
    return np.where(empty, 0.0, out) if bool(empty.any()) else out


def risk_sets(time: Array, event: Array, entry: Array | None, stratum: Array | None) -> RiskSets:
    """Of the rows of a table; k rises by stratum, then by time."""
    n = len(time)
    rising = np.argsort(time, kind="stable") if stratum is None else np.lexsort((time, stratum))
    t, s = time[rising], np.zeros(n, dtype=np.int64) if stratum is None else stratum[rising]
    new = np.ones(n, dtype=bool)
    new[1:] = (t[1:] != t[:-1]) | (s[1:] != s[:-1])
    run = np.cumsum(new) - 1
    start = np.flatnonzero(new)
    had = np.zeros(len(start), dtype=bool)  # whether a run holds an event
    had[run[event[rising]]] = True
    k_of_run = np.cumsum(had) - 1
    runs = np.flatnonzero(had)
    strata, times = s[start[runs]], t[start[runs]]
    edges = np.searchsorted(s, np.arange(int(s[-1]) + 2))  # where each stratum begins among the rising rows
    first_k = np.searchsorted(strata, np.arange(int(s[-1]) + 1))
    until, since = (k_of_run[run] + 1)[::-1], first_k[s][::-1]
    at = np.flatnonzero(event[rising][::-1])
    order = rising[::-1]
    late = late_begin = before = np.zeros(0, dtype=np.int64)
    if entry is not None and bool((entry > time.min()).any()):
        e = entry[order]
        since = since.copy()
        late_begin, before = np.empty(len(times), dtype=np.int64), np.empty(len(times), dtype=np.int64)
        late = np.lexsort((-e, -s[::-1]))
        for each in range(int(s[-1]) + 1):
            mine, own = slice(n - edges[each + 1], n - edges[each]), strata == each
            falling = -e[late[mine]]
            late_begin[own] = mine.start
            before[own] = mine.start + np.searchsorted(falling, -times[own], side="right")
            since[mine] = first_k[each] + np.searchsorted(times[own], e[mine], side="right")
        since = np.minimum(since, until)
    return RiskSets(
        order,
        n - edges[strata + 1],
        n - start[runs],
        at,
        k_of_run[run[::-1][at]],
        late,
        late_begin,
        before,
        until,
        since,
        times,
        strata,
    )
