"""Whether times last as long as a model says: its mean survival curve beside Kaplan and Meier's, in groups of risk.

    Ŝ_g(t) = (1/n_g) Σ_{i in g} S(t | x_i, θ̂),      g: rows sorted by S(t₀ | x_i), in groups of equal numbers

S of Cox's model is exp(−Λ̂₀(t) e^η), with the baseline of its stratum (`cox_curves`), and with random effects and smooth terms
at their modes; of a parametric family its own. t₀ is the median of the times of events.

References
----------
Royston and Altman (2013), External validation of a Cox prognostic model: principles and methods, BMC Med. Res. Methodol. 13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.censored import Censored
from ..models.base import family_of
from ..types import Data, ModelLike
from .calibration import _risk, _watched, binned, by_risk, check, median_event, seen
from .cox_baseline import strata_of
from .cox_fits import cox_fit
from .fitted_values import batches
from .product_limit import interval, steps

if TYPE_CHECKING:
    from ..result import Fit

TIMES = 60  # at which curves are compared, unless times= says others


@dataclass(frozen=True)
class Watched:
    """Rows with their times, and the model's curve of each.

    Parameters
    ----------
    time, event, entry, count
        (n,)
    risk
        t → P(T ≤ t) of each row, (n,); NaN where nothing is known of it
    """

    time: np.ndarray
    event: np.ndarray
    entry: np.ndarray
    count: np.ndarray
    risk: Callable[[float], np.ndarray]


def calibration(fit: Fit, data: Data = None, *, bins: int, level: float, at: float | None) -> pd.DataFrame:
    """Of Cox's model: P(T ≤ at), predicted and by Kaplan and Meier, in groups of equal predicted risk, as
    `calibration.calibration` has it of other models of times.

    Raises
    ------
    BadArgument
        new rows of a fit with random effects, a time that is not finite or after the last that was watched
    """
    check(bins, level)
    rows = _of_cox(fit, data)
    at = median_event(rows.time, rows.event, rows.count) if at is None else at
    return by_risk(rows.time, rows.event, rows.entry, rows.count, _known(rows, at), bins, level, at)


def survival_calibration(
    fit: Fit, groups: int = 3, times: np.ndarray | None = None, level: float = 0.95
) -> pd.DataFrame:
    """The mean survival curve of the rows of each group of risk beside Kaplan and Meier's.

    Parameters
    ----------
    groups
        of risk, of equal numbers of rows; rows of equal risk stay together, so there may be fewer
    times
        (m,); None: 60 quantiles of the times of events
    level
        of Kaplan and Meier's intervals, pointwise

    Returns
    -------
    pd.DataFrame
        a row a group (0: the least risk) and time: group, time, predicted, observed, low, high, n (rows of the group). `attrs`:
        "at", t₀ by which the groups were made. Observed is NaN after the group's last time

    Raises
    ------
    BadArgument
        a model without times, rows that are known only to lie in an interval, no event

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0], "e": [1, 1, 0, 1], "x": [1.0, 0.0, 1.0, 0.0]}
    >>> fit = th.fit("Surv(t, e) ~ 1", data, family="exponential")
    >>> survival_calibration(fit, 1, [2.0])[["predicted", "observed"]].round(4).values.tolist()  # e^(−2·3/10), ¾·⅔
    [[0.5488, 0.5]]
    """
    check(groups, level)
    rows = rows_of(fit)
    here = seen(rows.count)
    t0 = median_event(rows.time, rows.event, rows.count)
    wanted = _times(rows, here) if times is None else np.atleast_1d(np.asarray(times, dtype=np.float64))
    if wanted.ndim != 1 or not len(wanted) or not np.isfinite(wanted).all():
        raise BadArgument(f"times={times!r}. Accepted: finite numbers, such as [100, 365].")
    code = np.full(len(rows.time), -1)
    code[here] = binned(_known(rows, t0)[here], rows.count[here], groups)
    total = np.bincount(code[here], rows.count[here])
    predicted = np.empty((len(wanted), len(total)))
    for k, t in enumerate(wanted):
        lasts = 1 - rows.risk(float(t))[here]
        predicted[k] = np.bincount(code[here], rows.count[here] * lasts) / total
    parts = []
    for g, n in enumerate(total):
        own = code == g
        observed, low, high = _kaplan_meier(rows, own, wanted, level)
        parts.append(
            pd.DataFrame(
                {
                    "group": g,
                    "time": wanted,
                    "predicted": predicted[:, g],
                    "observed": observed,
                    "low": low,
                    "high": high,
                    "n": n,
                }
            )
        )
    out = pd.concat(parts, ignore_index=True)
    out.attrs["at"] = t0
    return out


def rows_of(fit: Fit) -> Watched:
    """The rows that were fitted, of Cox's model or of a censored family."""
    if fit._is_cox:
        return _of_cox(fit)
    model = fit._of_rows().model
    if not isinstance(family_of(model), Censored):
        raise BadArgument(
            f"survival curves are compared of times, Surv(time, event) ~ …; this fit is of {family_of(model) or type(model).__name__}."
        )
    return _of_family(model, fit.source)


def _of_family(model: ModelLike, source: Batch | Source) -> Watched:
    read = list(batches(source, model))
    time, event, entry, count = (
        np.concatenate(part) for part in zip(*(_watched(model, b) for b in read), strict=True)
    )
    return Watched(time, event, entry, count, lambda t: np.concatenate([_risk(model, b, t) for b in read]))


def _of_cox(fit: Fit, data: Data = None) -> Watched:
    found = cox_fit(fit, "calibration", effects=True)
    if data is None:
        batch, eta = found.batch, found.eta.numpy()
    else:
        from .new_data import source_like

        batch = next(iter(source_like(fit.model, data).batches(found.model)))
        eta = found.new(batch)[1]
    strata, codes = strata_of(found, drift=False), found.model.stratum(batch)
    own = np.zeros(len(batch), dtype=np.int64) if codes is None else codes.numpy()

    def risk(t: float) -> np.ndarray:
        out = np.full(len(batch), np.nan)
        for code, s in strata.items():
            if t > s.last:
                continue
            here = own == code
            hazard = s.hazard[: np.searchsorted(s.time, t, side="right")].sum()
            out[here] = -np.expm1(-hazard * np.exp(eta[here] - s.shift))
        return out

    return Watched(*_watched(found.model, batch), risk)


def _known(rows: Watched, at: float) -> np.ndarray:
    """P(T ≤ at) of each row, known of all."""
    if not np.isfinite(at):
        raise BadArgument(f"at={at!r}. Accepted: a time, such as the median.")
    risk = rows.risk(at)
    lost = np.isnan(risk) & seen(rows.count)
    if lost.any():
        raise BadArgument(
            f"at={at:g}: of {int(lost.sum())} rows no survival is known at that time, after the last at which a row of their stratum "
            "was watched, or in a stratum without an event. Take an earlier time."
        )
    return risk


def _times(rows: Watched, here: np.ndarray) -> np.ndarray:
    events = rows.time[here & rows.event]
    return np.unique(np.quantile(events, np.linspace(0, 1, TIMES), method="inverted_cdf"))


def _kaplan_meier(
    rows: Watched, own: np.ndarray, at: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """S, low, high at these times; NaN after the last time of these rows."""
    found = steps(rows.time[own], rows.event[own], rows.entry[own], rows.count[own])
    place = np.searchsorted(found.time, at, side="right")
    value = np.append(1.0, found.survival)[place]
    spread = np.append(0.0, found.greenwood)[place]
    error = np.where(value > 0, value, np.nan) * np.sqrt(np.where(value > 0, spread, np.nan))
    low, high = interval(value, error, level, "log-log")
    late = at > found.time[-1]
    return tuple(np.where(late, np.nan, v) for v in (value, low, high))  # type: ignore[return-value]
