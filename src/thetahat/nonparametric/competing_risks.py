"""Cumulative incidences of competing causes, in groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..evaluation.incidence import incidence
from ..evaluation.log_rank import at_risk
from ..evaluation.product_limit import Steps, interval, steps
from ..models.nonparametric import Times
from ..types import Named
from .base import Curves, checked_times, closed_form, read_at


class CompetingRisks(Curves):
    """Cumulative incidences of competing causes by Aalen and Johansen, which maximise the likelihood of the
    cause-specific hazards.

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0], "cause": [1, 2, 0, 1]}
    >>> aj = th.fit("Surv(t, cause) ~ 1", data, family="aalen_johansen")
    >>> aj.curves(times=[2.5])[["cause", "incidence", "survival"]].to_numpy().tolist()
    [[1, 0.25, 0.5], [2, 0.25, 0.5]]
    """

    title = "Cumulative incidences, nonparametric maximum likelihood"
    _steps: tuple[Steps, ...]

    def __init__(self, times: Times, call: Named):
        own = [times.of(g) for g in range(len(times.groups))]
        counts = tuple(steps(t.time, t.event, t.entry, t.weight, causes=len(times.causes)) for t in own)
        value = sum(found.log_likelihood for found in counts)
        super().__init__(times, closed_form(counts, times.groups), value, call)
        self.__dict__.update(_steps=counts)

    @property
    def causes(self) -> tuple[object, ...]:
        """The causes, in the order of the tables."""
        return self.times.causes

    def curves(
        self, *, times: Sequence[float] | None = None, level: float = 0.95, interval: str = "log-log"
    ) -> pd.DataFrame:
        """The cumulative incidences as a table.

        Parameters
        ----------
        times, level, interval
            as of `Nonparametric.curves`; with `times` a curve is NaN after the last time of its group, unless all rows
            have had an event by then

        Returns
        -------
        pd.DataFrame
            a row a group, cause and time: group, cause, time, at_risk, events (of the cause), incidence,
            standard_error, low, high, survival (of no event by then: 1 less the incidences of all causes)
        """
        parts = []
        at = None if times is None else checked_times(times)
        for g, name in enumerate(self.groups):
            for k, cause in enumerate(self.causes):
                found = self._curve(g, k, level, interval)
                if at is not None:
                    own = self.times.of(g)
                    part = read_at(found, at, ["incidence", "standard_error", "low", "high", "survival"])
                    begin = np.searchsorted(found["time"], at, side="right") == 0
                    part.loc[begin, ["incidence", "standard_error", "survival"]] = [0.0, 0.0, 1.0]
                    part.insert(0, "at_risk", at_risk(own.time, own.entry, own.weight, at))
                    part.insert(0, "time", at)
                    found = part
                found.insert(0, "cause", pd.Series([cause] * len(found), dtype=object))
                found.insert(0, "group", name)
                parts.append(found)
        return pd.concat(parts, ignore_index=True)

    def _curve(self, g: int, k: int, level: float, kind: str) -> pd.DataFrame:
        s = self._steps[g]
        F, error = incidence(s)
        low, high = interval(F[:, k], error[:, k], level, kind)
        return pd.DataFrame(
            {
                "time": s.time,
                "at_risk": s.at_risk,
                "events": s.events[:, k],
                "incidence": F[:, k],
                "standard_error": error[:, k],
                "low": low,
                "high": high,
                "survival": s.survival,
            }
        )

    def _table(self, level: float) -> pd.DataFrame:
        rows = []
        for name, s in zip(self.groups, self._steps, strict=True):
            F, error = incidence(s)
            for k, cause in enumerate(self.causes):
                rows.append((name, str(cause), s.events[:, k].sum(), s.time[-1], F[-1, k], error[-1, k]))
        heads = ["group", "cause", "events", "by time", "incidence", "standard error"]
        return pd.DataFrame(rows, columns=heads)
