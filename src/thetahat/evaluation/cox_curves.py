"""Survival by Cox's model: the baseline hazard, and curves of new rows.

    Λ₀(t) = Σ_{t_k ≤ t} Σ_{terms of k} v / (Σ_R w e^η − f Σ_D w e^η),      S(t | x) = exp(−Λ₀(t) e^{x·β})

of the terms of `models.partial`: Breslow's estimator, and for Efron's ties that of Efron. Exact ties have
Breslow's. With x̄ the mean of the predictors at risk in a term, and dΛ its part of Λ,

    Var Λ(t | x) = e^{2x·β} [ Σ dΛ₀² / v + a(t)ᵀ V a(t) ],      a(t) = Σ (x − x̄) dΛ₀

The first part is that of the hazard if β were known, the second that of β̂. The interval is symmetric in
log Λ = log(−log S). With random effects b and smooth terms x is the row of X and Z, β is (β, b), at b̂, and V their joint
covariance at φ̂, as in mgcv's predictions of cox.ph.

References
----------
Breslow (1974), Covariance analysis of censored survival data; Tsiatis (1981), A large sample study of Cox's
regression model; Link (1984), Confidence intervals for the survival function using Cox's proportional-hazard model
with covariates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri

from ..data.table import aligned_rows
from ..errors import BadArgument, UnknownLevel
from ..memory import reserve
from ..types import Data
from .cox_baseline import Stratum, strata_of
from .cox_fits import cox_file, cox_fit, stratum_names

if TYPE_CHECKING:
    from ..result import Fit


def baseline_hazard(fit: Fit) -> pd.DataFrame:
    """The hazard of a row whose columns and offset are all 0, at each event time of each stratum. Random effects and smooth
    terms are 0 too: the average group.

    Returns
    -------
    pd.DataFrame
        stratum (where there are strata), time, hazard (its increment), cumulative_hazard, survival, at_risk and
        events (weighted)

    Raises
    ------
    BadArgument
        a fit of another model

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0], "e": [1, 1, 0, 1], "x": [1.0, 0.0, 1.0, 0.0]}
    >>> fit = th.fit("Surv(t, e) ~ 1", data, family="cox")
    >>> baseline_hazard(fit)[["time", "hazard", "at_risk"]].values.tolist()
    [[1.0, 0.25, 4.0], [2.0, 0.333..., 3.0], [4.0, 1.0, 1.0]]
    """
    found = cox_file(fit) or cox_fit(fit, "a baseline hazard", effects=True)
    strata = strata_of(found, drift=False)
    parts = []
    for s, name in zip(strata.values(), stratum_names(found.model, list(strata)), strict=True):
        cumulative = np.cumsum(s.hazard) * np.exp(-s.shift)
        part = pd.DataFrame(
            {
                "stratum": name,
                "time": s.time,
                "hazard": s.hazard * np.exp(-s.shift),
                "cumulative_hazard": cumulative,
                "survival": np.exp(-cumulative),
                "at_risk": s.at_risk,
                "events": s.events,
            }
        )
        parts.append(part if found.model.strata is not None else part.drop(columns="stratum"))
    return pd.concat(parts, ignore_index=True)


def curves(
    fit: Fit,
    data: Data,
    times: Sequence[float] | np.ndarray | None = None,
    level: float = 0.95,
    *,
    groups: str | None = None,
) -> pd.DataFrame:
    """P(T > t | x) of new rows, with intervals that allow for the error of β̂ and of the baseline.

    Parameters
    ----------
    data
        rows with the columns of the predictors, the strata and the offset
    times
        None: the event times of the row's stratum. NaN is given after the last time at which a row of the stratum
        was watched: nothing is known of it
    level
        of the intervals, pointwise
    groups
        of random effects: "known", the groups that were fitted, at their conditional modes (the default), or "average",
        random effects 0; smooth terms count in both

    Returns
    -------
    pd.DataFrame
        row (its label in `data`), stratum (where there are strata), time, survival, low, high, cumulative_hazard. Before
        the first event survival is 1, and has no interval (NaN)

    Raises
    ------
    BadArgument, UnknownLevel
        a fit of another model; times or a level that are none; a stratum or a group that the fit has not seen

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0, 5.0], "e": [1, 1, 0, 1, 1], "x": [1.0, 0.0, 1.0, 0.0, 1.0]}
    >>> fit = th.fit("Surv(t, e) ~ x", data, family="cox")
    >>> curves(fit, {"x": [0.0]}, [0.5, 3.0, 9.0]).round(4).survival.tolist()
    [1.0, 0.5213, nan]
    """
    found = (None if groups else cox_file(fit)) or cox_fit(
        fit, "a survival curve", effects=True, groups=groups
    )
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}: a probability between 0 and 1, such as 0.95.")
    at = None if times is None else np.asarray(times, dtype=np.float64).reshape(-1)
    if at is not None and (not len(at) or np.isnan(at).any()):
        raise BadArgument("times= is a list of numbers, none of them missing.")
    model = found.model
    batch, alignment = aligned_rows(model.encoder, data, model.family)
    strata = strata_of(found, at)
    V = found.covariance
    X, eta = found.new(batch)
    codes = model.stratum(batch)
    own = [0] * len(batch) if codes is None else codes.tolist()
    labels = alignment.rows
    z = float(ndtri((1 + level) / 2))
    length = max(len(s.time) for s in strata.values()) if at is None else len(at)
    reserve(64.0 * len(batch) * length, f"{len(batch):,} curves at {length:,} times", "Give fewer times=.")
    names = dict(zip(own, stratum_names(model, own), strict=True))
    parts = []
    for i, code in enumerate(own):
        if code not in strata:
            raise UnknownLevel(
                f"row {labels[i]} is of the stratum {names[code]}, in which the fit has seen no event: its baseline "
                "hazard is not known."
            )
        part = _curve(strata[code], X[:, i], float(eta[i]), V, at, z)
        part.insert(0, "row", labels[i])
        if model.strata is not None:
            part.insert(1, "stratum", names[code])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _curve(
    s: Stratum, x: np.ndarray, eta: float, V: np.ndarray, at: np.ndarray | None, z: float
) -> pd.DataFrame:
    """One row's curve at these times (None: where it steps)."""
    time = s.time if at is None else at
    k = np.searchsorted(s.time, time, side="right")  # how many steps there are by then
    pad = ((0, 0), (1, 0))
    base = np.pad(np.cumsum(s.hazard), (1, 0))[k]
    known = np.pad(np.cumsum(s.variance), (1, 0))[k]
    a = np.outer(x - s.centre, base) - np.pad(np.cumsum(s.drift, 1), pad)[:, k]
    ratio = np.exp(eta - s.shift)
    hazard = ratio * base
    error = ratio * np.sqrt(known + (a * (V @ a)).sum(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.where(hazard > 0, z * error / hazard, np.nan)
        low, high = np.exp(-hazard * np.exp(half)), np.exp(-hazard * np.exp(-half))
    found = pd.DataFrame(
        {"time": time, "survival": np.exp(-hazard), "low": low, "high": high, "cumulative_hazard": hazard}
    )
    found.loc[time > s.last, ["survival", "low", "high", "cumulative_hazard"]] = np.nan
    return found
