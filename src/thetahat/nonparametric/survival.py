"""Survival curves of groups: Kaplan–Meier's, or Turnbull's where times are known up to intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri

from ..errors import BadArgument
from ..evaluation.curve_functionals import crossing, restricted_mean
from ..evaluation.log_rank import at_risk, log_rank
from ..evaluation.product_limit import Steps, interval, steps
from ..models.nonparametric import Times
from ..solvers.certificate import Certificate
from ..solvers.turnbull import Masses, turnbull
from ..types import Named
from .base import Curves, checked_times, closed_form, read_at

if TYPE_CHECKING:
    from ..inference.tests import Test


class Nonparametric(Curves):
    """Survival curves by nonparametric maximum likelihood: Kaplan–Meier where times were seen or censored to the
    right, with entries if need be; Turnbull's where some are known only up to intervals.

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0], "s": [1, 0, 1, 1]}
    >>> km = th.fit("Surv(t, s) ~ 1", data, family="nonparametric")
    >>> km.curves()[["time", "survival"]].to_numpy().tolist()
    [[1.0, 0.75], [2.0, 0.75], [3.0, 0.375], [4.0, 0.0]]
    >>> km
    Nonparametric(1 curve of Surv(t, s); log_likelihood=-3.63563 nats; certified maximum)
    """

    title = "Survival curves, nonparametric maximum likelihood"
    _steps: tuple[Steps, ...]
    _masses: tuple[Masses, ...]

    def __init__(self, times: Times, call: Named):
        own = [times.of(g) for g in range(len(times.groups))]
        counts: tuple[Steps, ...] = ()
        masses: tuple[Masses, ...] = ()
        if times.in_intervals:
            masses = tuple(turnbull(*bounds(part), part.weight) for part in own)
            certificate = _joined([m.certificate for m in masses])
            value = sum(m.log_likelihood for m in masses)
        else:
            counts = tuple(steps(t.time, t.event, t.entry, t.weight) for t in own)
            certificate = closed_form(counts, times.groups)
            value = sum(found.log_likelihood for found in counts)
        super().__init__(times, certificate, value, call)
        self.__dict__.update(_steps=counts, _masses=masses)

    def curves(
        self, *, times: Sequence[float] | None = None, level: float = 0.95, interval: str = "log-log"
    ) -> pd.DataFrame:
        """The curves as a table.

        Parameters
        ----------
        times
            at which to read them; None: at every time at which something was seen
        level
            of the intervals
        interval
            "log-log" (log(−log S): inside (0, 1) always; the default here), "log" (R's default) or "plain"

        Returns
        -------
        pd.DataFrame
            a row a group and time: group, time, at_risk, events, censored, survival, standard_error (Greenwood), low,
            high, cumulative_hazard (Nelson–Aalen). With `times`: events and censored are left out, and the curve is
            NaN after the last time of its group, unless it is 0 by then.

            Of Turnbull's curve: group, after, time, mass, survival: the mass lies in after < t ≤ time (equal: at it),
            and survival is that from `time` on. There is no standard error: the estimate is not asymptotically normal.

        Raises
        ------
        BadArgument
            times that are negative or not finite, an unknown interval, a level outside (0, 1)
        """
        if self._masses:
            return self._turnbull(times)
        if times is None:
            return pd.concat(
                [self._curve(g, level, interval) for g in range(len(self.groups))], ignore_index=True
            )
        at = checked_times(times)
        parts = []
        for g, name in enumerate(self.groups):
            found, own = self._curve(g, level, interval), self.times.of(g)
            part = read_at(found, at, ["survival", "standard_error", "low", "high", "cumulative_hazard"])
            begin = np.searchsorted(found["time"], at, side="right") == 0
            part.loc[begin, ["survival", "standard_error", "cumulative_hazard"]] = [1.0, 0.0, 0.0]
            part.loc[begin, ["low", "high"]] = np.nan if interval == "log-log" else 1.0
            part.insert(0, "at_risk", at_risk(own.time, own.entry, own.weight, at))
            part.insert(0, "time", at)
            part.insert(0, "group", name)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def log_rank(self, *, rho: float = 0.0, strata: str | Sequence[str] | None = None) -> Test:
        """The log-rank test that the groups have one curve (`evaluation.log_rank`).

        Parameters
        ----------
        rho
            of the Fleming–Harrington weights S(t −)^ρ: 0 the log-rank test, 1 Peto and Peto's of early differences
        strata
            columns: rows are compared within each combination of their levels

        Raises
        ------
        BadArgument
            one group only, no event, times known up to intervals
        UnknownColumn
            strata that the data lack
        """
        if strata is None:
            return log_rank(self.times, rho=rho)
        columns = [strata] if isinstance(strata, str) else list(strata)
        return log_rank(
            self.times, rho=rho, strata=self.times.levels_of(columns), note=f"within {', '.join(columns)}"
        )

    def quantile(self, q: float = 0.5, *, level: float = 0.95, interval: str = "log-log") -> pd.DataFrame:
        """When a share q has had the event: the first time at which the curve is at most 1 − q, the middle of a flat
        stretch that is exactly that high; its interval by where the ends of the curve's interval cross.

        Returns
        -------
        pd.DataFrame
            a row a group: group, value, low, high; NaN where the curve never falls so far

        References
        ----------
        Brookmeyer and Crowley (1982), A confidence interval for the median survival time.
        """
        self._needs_times("a quantile")
        if not (isinstance(q, (int, float)) and 0 < q < 1):
            raise BadArgument(f"q={q!r}. Accepted: a number between 0 and 1; 0.5 is the median.")
        rows = []
        for g, name in enumerate(self.groups):
            found = self._curve(g, level, interval)
            t = found["time"].to_numpy()
            ends = (crossing(t, found[c].to_numpy(), 1 - q) for c in ("survival", "low", "high"))
            rows.append((name, *ends))
        return pd.DataFrame(rows, columns=["group", "value", "low", "high"])

    def median(self, *, level: float = 0.95, interval: str = "log-log") -> pd.DataFrame:
        """The median time of each group: `quantile(0.5)`."""
        return self.quantile(0.5, level=level, interval=interval)

    def restricted_mean(self, until: float | None = None, *, level: float = 0.95) -> pd.DataFrame:
        """The mean time spent before `until`, ∫₀^until S(t) dt.

        Var = Σ_j (∫_{t_j}^until S dt)² d_j / (n_j (n_j − d_j))

        Parameters
        ----------
        until
            None: the last time up to which every curve is known

        Returns
        -------
        pd.DataFrame
            a row a group: group, until, value, standard_error, low, high (normal)

        Raises
        ------
        BadArgument
            a curve is not known until then: its last row is censored before
        """
        self._needs_times("a restricted mean")
        known = [np.inf if s.survival[-1] <= 0 else float(s.time[-1]) for s in self._steps]
        last = max(float(s.time[-1]) for s in self._steps)
        end = min(*known, last) if until is None else until
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not (np.isfinite(end) and end > 0):
            raise BadArgument(f"until={until!r}. Accepted: a time above 0.")
        short = [i for i, t in enumerate(known) if t < end]
        if short:
            raise BadArgument(
                f"until={end:g}: the curve of {self.groups[short[0]]!r} is known until {known[short[0]]:g} alone, where "
                f"its last row is censored. Accepted: at most {min(known):g}."
            )
        rows = []
        for name, s in zip(self.groups, self._steps, strict=True):
            value, error = restricted_mean(s, float(end))
            low, high = _normal(value, error, level)
            rows.append((name, float(end), value, error, low, high))
        return pd.DataFrame(rows, columns=["group", "until", "value", "standard_error", "low", "high"])

    # ---- parts ---------------------------------------------------------------------------------------------

    def _curve(self, g: int, level: float, kind: str) -> pd.DataFrame:
        s = self._steps[g]
        S = s.survival
        with np.errstate(invalid="ignore"):
            error = np.where(S > 0, S * np.sqrt(s.greenwood), np.nan)
        low, high = interval(S, error, level, kind)
        columns = {
            "group": self.groups[g],
            "time": s.time,
            "at_risk": s.at_risk,
            "events": s.total,
            "censored": s.censored,
            "survival": S,
            "standard_error": error,
            "low": low,
            "high": high,
            "cumulative_hazard": s.cumulative_hazard,
        }
        return pd.DataFrame(columns)

    def _turnbull(self, times: Sequence[float] | None) -> pd.DataFrame:
        parts = []
        for name, found in zip(self.groups, self._masses, strict=True):
            on = found.mass > 0
            left, right, p = found.where.left[on], found.where.right[on], found.mass[on]
            S = np.maximum(1 - np.cumsum(p), 0.0)
            S[-1] = 0.0
            if times is None:
                columns = {"group": name, "after": left, "time": right, "mass": p, "survival": S}
                parts.append(pd.DataFrame(columns))
                continue
            at = checked_times(times)
            done = np.searchsorted(right, at, side="right")
            value = np.concatenate([[1.0], S])[done]
            inside = (done < len(right)) & (left[done.clip(max=len(right) - 1)] < at)
            value = np.where(inside, np.nan, value)
            parts.append(pd.DataFrame({"group": name, "time": at, "survival": value}))
        return pd.concat(parts, ignore_index=True)

    def _needs_times(self, what: str) -> None:
        if self._masses:
            raise BadArgument(
                f"{what} is of a curve whose steps are known: here some rows are known only up to an interval, and so "
                "are the steps. They stand in curves(), columns after and time."
            )

    def _table(self, level: float) -> pd.DataFrame:
        rows = [self.times.of(g) for g in range(len(self.groups))]
        counted = pd.DataFrame({"group": self.groups, "observations": [t.weight.sum() for t in rows]})
        if self._masses:
            counted["intervals with mass"] = [int((m.mass > 0).sum()) for m in self._masses]
            return counted
        counted["events"] = [s.total.sum() for s in self._steps]
        found = self.median(level=level)
        counted["median"], counted["low"], counted["high"] = found["value"], found["low"], found["high"]
        return counted


def bounds(times: Times) -> tuple[np.ndarray, np.ndarray]:
    """lower < t ≤ upper of each row, (n,) each; equal where the time was seen."""
    kinds = [times.event == code for code in (0, 1, 2, 3)]
    lower = np.select(kinds, [times.time, times.time, np.full_like(times.time, -np.inf), times.time])
    upper = np.select(kinds, [np.full_like(times.time, np.inf), times.time, times.time, times.upper])
    return lower, upper


def _normal(value: float, error: float, level: float) -> tuple[float, float]:
    interval(np.array([0.5]), np.array([0.0]), level, "plain")  # checks the level
    half = float(ndtri((1 + level) / 2)) * error
    return value - half, value + half


def _joined(parts: Sequence[Certificate]) -> Certificate:
    """Of groups, which share nothing: their gaps add."""
    bad = [c for c in parts if not c.ok]
    return Certificate(
        status=bad[0].status if bad else "certified maximum",
        nats=sum(c.nats or 0.0 for c in parts),
        concave=True,
        rank=sum(c.rank or 0 for c in parts),
        size=sum(c.size or 0 for c in parts),
        detail=(bad or list(parts))[0].detail,
        steps=max(c.steps for c in parts),
        passes=max(c.passes for c in parts),
    )
