"""Kaplan and Meier's estimate: maximum likelihood of a time without a family, one curve a group.

    maximise Π_k h_k^{d_k} (1 − h_k)^{n_k − d_k}:      ĥ_k = d_k/n_k,      S(t) = Π_{t_k ≤ t} (1 − ĥ_k)

d_k events among n_k at risk at t_k. Each factor is concave in its own log-odds, so that this is the one global maximum.

    Greenwood   Var log S(t) = Σ d_k / (n_k (n_k − d_k))
    log-rank    Z_g = Σ_k w_k (d_gk − d_k n_gk/n_k),   w_k = S(t_k−)^ρ,   Zᵀ V⁻ Z ~ χ²(G − 1) where the groups do not differ

Source: Kaplan and Meier (1958); Kalbfleisch and Prentice (2002), The Statistical Analysis of Failure Time Data, 2nd ed.,
§1.4; Harrington and Fleming (1982), A class of rank test procedures (ρ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm

from ..data.columns import is_categorical, numeric_column
from ..data.expressions import written
from ..data.formula import read
from ..data.frame import Frame
from ..data.random_terms import build_grouping, take_apart
from ..data.selection import Selection
from ..data.surv import FORMS, is_surv, read_surv
from ..errors import BadArgument, BadFormula
from ..models.risk_sets import RiskSets, risk_sets
from ..solvers.certificate import Certificate
from ..types import Data

SCALES = ("log", "log-log", "plain")


@dataclass(frozen=True)
class LogRank:
    """A test that the groups have one curve. Prints itself."""

    statistic: float
    df: int
    p_value: float
    rho: float
    table: pd.DataFrame  # group, observed, expected

    def __str__(self) -> str:
        name = "log-rank test" if self.rho == 0 else f"Fleming–Harrington test (rho = {self.rho:g})"
        return f"{name}: χ²({self.df}) = {self.statistic:.4g}, p = {self.p_value:.4g}"


class KaplanMeier:
    """The nonparametric fit of a formula: `th.fit("Surv(time, event) ~ g", data, family="nonparametric")`.

    Parameters
    ----------
    formula
        Surv(time, event) or Surv(start, stop, event), ~ 1 or columns of groups
    data
        a table
    weights
        a column of frequency weights
    missing
        "drop" or "raise"

    Raises
    ------
    BadFormula
        the response is not such a time, or a predictor is a number

    Examples
    --------
    >>> fit = KaplanMeier("Surv(t, e) ~ 1", {"t": [1.0, 2.0, 3.0, 4.0], "e": [1, 0, 1, 1]})
    >>> fit.curves()["survival"].round(3).tolist(), fit.certificate.status
    ([0.75, 0.375, 0.0], 'certified maximum')
    """

    def __init__(self, formula: str, data: Data, *, weights: str | None = None, missing: str = "drop"):
        self.formula = formula
        left, _, right = formula.partition("~")
        frame = Frame(data)
        if not is_surv(left.strip()):
            raise BadFormula(f"family='nonparametric' needs a response {FORMS}; the formula is {formula!r}.")
        surv = read_surv(left.strip(), frame, trusted=False)
        if surv.kind not in ("right", "counting"):
            raise BadFormula(
                f"family='nonparametric' takes times that are seen or censored on the right; {surv.expression!r} is of the type "
                f"{surv.kind}. A parametric family takes those."
            )
        names = self._groups(right.strip() or "1", frame)
        rows = Selection(
            frame,
            sorted({*names, *([weights] if weights else [])}),
            weights=weights,
            missing=missing,
            sometimes=[surv],
        )
        table = rows.read(sorted({*surv.required, *names, *([weights] if weights else [])}))
        tensors = surv.tensors(table)
        self.time, self.event = tensors["y"].numpy(), tensors["event"].numpy() == 1
        self.entry = tensors["entry"].numpy() if "entry" in tensors else None
        self.count = np.ones(len(table)) if weights is None else numeric_column(table, weights)
        grouping = build_grouping(names, rows, formula) if names else None
        self.code = np.zeros(len(table), dtype=np.int64) if grouping is None else grouping.codes(table)
        self.groups = ["all"] if grouping is None else grouping.names
        self.grouped_by = ":".join(names)
        self.sets = risk_sets(self.time, self.event, self.entry, self.code if grouping is not None else None)

    @staticmethod
    def _groups(right: str, frame: Frame) -> tuple[str, ...]:
        fixed, random, smooth, _ = take_apart(right)
        terms = read(fixed, frame).required
        first = frame.read(list(terms))
        number = next(
            (n for n in terms if not is_categorical(first[n], n) and f"C({n})" not in right.replace(" ", "")),
            None,
        )
        if number is not None and first[number].nunique() > 20:
            raise BadFormula(
                f"column {number!r} is a number of many values: a curve is drawn for each group. Cut it into groups first."
            )
        if random or smooth:
            raise BadFormula(f"{written(right)!r}: family='nonparametric' takes groups alone.")
        return tuple(terms)

    # ---- the maximum ---------------------------------------------------------------------------------------

    @property
    def certificate(self) -> Certificate:
        return Certificate(
            status="certified maximum",
            nats=0.0,
            standard_errors=0.0,
            concave=True,
            size=self.sets.size,
            passes=1,
        )

    @property
    def log_likelihood(self) -> float:
        """Σ_k d log ĥ + (n − d) log(1 − ĥ), in nats: of which group and time an event was among those at risk."""
        d, n = self._counts(self.sets)
        h = d / n
        with np.errstate(divide="ignore", invalid="ignore"):
            return float((d * np.log(h) + np.where(n > d, (n - d) * np.log1p(-h), 0.0)).sum())

    def _counts(self, sets: RiskSets) -> tuple[np.ndarray, np.ndarray]:
        own = self.count[sets.order]
        return sets.of_events(own), sets.at_risk(own)

    def curves(self, level: float = 0.95, interval: str = "log") -> pd.DataFrame:
        """A row a group and a time of an event: group, time, at_risk, events, survival, standard_error (of S), low, high,
        cumulative_hazard (Nelson and Aalen's).

        Parameters
        ----------
        interval
            "log" (R's default), "log-log" or "plain": the scale of the interval
        """
        if interval not in SCALES:
            raise BadArgument(f"interval={interval!r}. Accepted: {', '.join(map(repr, SCALES))}.")
        d, n = self._counts(self.sets)
        table = pd.DataFrame(
            {
                "group": np.array(self.groups)[self.sets.stratum],
                "time": self.sets.time,
                "at_risk": n,
                "events": d,
            }
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            table["survival"] = pd.Series(1 - d / n).groupby(self.sets.stratum).cumprod()
            var = pd.Series(d / (n * (n - d))).groupby(self.sets.stratum).cumsum().to_numpy()
            S = table["survival"].to_numpy()
            z, se = float(norm.ppf((1 + level) / 2)), np.sqrt(var)
            if interval == "plain":
                low, high = S - z * S * se, S + z * S * se
            elif interval == "log":
                low, high = S * np.exp(-z * se), S * np.exp(z * se)
            else:
                wide = z * se / np.abs(np.log(S))
                low, high = S ** np.exp(wide), S ** np.exp(-wide)
            table["standard_error"] = np.where(S > 0, S * se, np.nan)
        table["low"], table["high"] = (
            np.where(S > 0, np.clip(low, 0, 1), np.nan),
            np.where(S > 0, np.clip(high, 0, 1), np.nan),
        )
        table["cumulative_hazard"] = pd.Series(d / n).groupby(self.sets.stratum).cumsum()
        return table

    def median(self, q: float = 0.5) -> pd.Series:
        """The time at which S falls to 1 − q, of each group; ∞ where it never does."""
        table = self.curves()
        out = {}
        for group in self.groups:
            own = table[table["group"] == group]
            at = own["time"][own["survival"] <= 1 - q + 1e-12]
            out[group] = float(at.iloc[0]) if len(at) else math.inf
        return pd.Series(out, name="median" if q == 0.5 else f"quantile {q:g}")

    def restricted_mean(self, until: float | None = None) -> pd.DataFrame:
        """∫₀^until S(t) dt of each group with its standard error; until None: the last time of all."""
        end = float(self.time.max()) if until is None else float(until)
        if not end > 0:
            raise BadArgument(f"until={until!r}. Accepted: a time above 0.")
        table, rows = self.curves(), []
        for group in self.groups:
            own = table[(table["group"] == group) & (table["time"] < end)]
            t, S = own["time"].to_numpy(), own["survival"].to_numpy()
            steps, level = np.concatenate([[0.0], t, [end]]), np.concatenate([[1.0], S])
            area = level * np.diff(steps)
            left = area[::-1].cumsum()[::-1][1:]  # ∫ from each t_k on
            d, n = own["events"].to_numpy(), own["at_risk"].to_numpy()
            with np.errstate(divide="ignore", invalid="ignore"):
                parts = np.where(n > d, left**2 * d / (n * (n - d)), 0.0)
            rows.append(
                {
                    "group": group,
                    "restricted_mean": float(area.sum()),
                    "standard_error": math.sqrt(float(parts.sum())),
                    "until": end,
                }
            )
        return pd.DataFrame(rows)

    def log_rank(self, rho: float = 0.0) -> LogRank:
        """Whether the groups share one curve.

        Raises
        ------
        BadArgument
            there is one group only
        """
        G = len(self.groups)
        if G < 2:
            raise BadArgument(
                "a log-rank test compares groups, and the formula has one. Name the groups: Surv(time, event) ~ g."
            )
        sets = risk_sets(self.time, self.event, self.entry, None)
        own, code = self.count[sets.order], self.code[sets.order]
        member = (code == np.arange(G)[:, None]) * own
        d, n = sets.of_events(own), sets.at_risk(own)
        dg, ng = sets.of_events(member), sets.at_risk(member)
        before = np.concatenate([[1.0], np.cumprod(1 - d / n)[:-1]]) ** rho
        observed, expected = (before * dg).sum(1), (before * d * ng / n).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(n > 1, before**2 * d * (n - d) / (n - 1), 0.0)
        share = ng / n
        V = np.diag((scale * share).sum(1)) - (scale * share) @ share.T
        z = (observed - expected)[1:]
        statistic = float(z @ np.linalg.pinv(V[1:, 1:]) @ z)
        table = pd.DataFrame({"group": self.groups, "observed": observed, "expected": expected})
        return LogRank(statistic, G - 1, float(chi2.sf(statistic, G - 1)), rho, table)

    def summary(self) -> pd.DataFrame:
        """Of each group: rows, events, median, restricted mean."""
        rows = np.bincount(self.code, self.count, len(self.groups))
        events = np.bincount(self.code, self.count * self.event, len(self.groups))
        out = self.restricted_mean().set_index("group")[["restricted_mean", "standard_error"]]
        out.insert(0, "rows", rows)
        out.insert(1, "events", events)
        out.insert(2, "median", self.median())
        return out

    def __repr__(self) -> str:
        groups = "" if len(self.groups) == 1 else f", {len(self.groups)} groups of {self.grouped_by}"
        return f"KaplanMeier({self.formula}: {int(self.count.sum())} rows, {int(self.count @ self.event)} events{groups})"
