"""Curves of times: survival, cumulative hazard, hazard and restricted mean of new rows, with their intervals.

A parametric family says log S(t | x) itself; its intervals are found on log(−log S), so that they stay in (0, 1). Of Cox's
model the baseline is Breslow's (with Efron's ties Efron's), and

    Λ(t | x) = e^η Σ_{k: t_k ≤ t} Σ_l c_kl,      Var Λ = e^{2η} [ Σ c_kl²/w̄_k + dᵀ V d ],   d = Σ c_kl (m_kl − x)

with the sums of `models.cox`; the second part is the doubt about β.

Source: Breslow (1974); Tsiatis (1981), A large sample study of Cox's regression model; Kalbfleisch and Prentice (2002), The
Statistical Analysis of Failure Time Data, 2nd ed., §4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument, UnknownLevel
from ..families.base import Family
from ..families.censored import Censored
from ..inference.covariance import Covariance
from ..likelihood import Objective
from ..models.base import family_of
from ..models.cox import Cox
from .fitted_values import batches, eta_of, extras_of, gradient_rows, natural_at, with_slopes

WHAT = ("survival", "cumulative_hazard", "hazard", "restricted_mean")
NODES = 200  # of Gauss and Legendre's rule for a restricted mean


def predict(
    objective: Objective,
    rows: Batch | Source,
    what: str,
    times: float | Sequence[float] | None,
    level: float | None,
    V: Covariance | None,
) -> pd.DataFrame:
    """A row a new row and a time: columns row, time, value, and with a level low and high.

    Parameters
    ----------
    what
        one of `WHAT`
    times
        at which; of a restricted mean, until which. None, of Cox's model: the times of events
    V
        the covariance of θ̂, where a level is given

    Raises
    ------
    BadArgument
        the model has no survival function, or times are missing or negative
    """
    model = objective.model
    at = _times(model, what, times)
    if isinstance(model, Cox):
        return _of_cox(objective, rows, what, at, level, V)
    family = family_of(model)
    inner = family.family if isinstance(family, Censored) else family
    if inner is None or not (inner.has("cdf") or inner.has("log_survival")):
        raise BadArgument(
            f"{family or type(model).__name__} has no survival function: what={what!r} is of families of times."
        )
    assert at is not None
    parts, first = [], 0
    for batch in batches(rows, model):
        for t in at:
            parts.append(_one(objective, inner, batch, what, float(t), level, V, first))
        first += len(batch)
    out = pd.concat(parts, ignore_index=True)
    return out.sort_values(["row", "time"], kind="stable", ignore_index=True)


def _times(model: object, what: str, times: float | Sequence[float] | None) -> np.ndarray | None:
    if times is None:
        if isinstance(model, Cox) and what in ("survival", "cumulative_hazard"):
            return None
        raise BadArgument(f"what={what!r} needs times: at which it is wanted, such as times=[10, 20].")
    out = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if out.ndim != 1 or not out.size or not bool(np.isfinite(out).all()) or bool((out < 0).any()):
        raise BadArgument(f"times={times!r}. Accepted: finite times that are not negative.")
    return out


# ---- parametric --------------------------------------------------------------------------------------------


def _one(
    objective: Objective,
    family: Family,
    batch: Batch,
    what: str,
    t: float,
    level: float | None,
    V: Covariance | None,
    first: int,
) -> pd.DataFrame:
    """All rows of a batch at one time."""
    model = objective.model
    extras = {n: e for n, e in extras_of(model, batch).items() if n in family.extras}
    y = torch.full((len(batch),), t, dtype=torch.float64)

    def log_survival(at: Tensor, *eta: Tensor) -> Tensor:
        return family.log_survival(at, *natural_at(family, eta), **extras)

    def hazard(*eta: Tensor) -> Tensor:
        parameters = natural_at(family, eta)
        return family.log_prob(y, *parameters, **extras) - family.log_survival(y, *parameters, **extras)

    def mean(*eta: Tensor) -> Tensor:
        x, w = np.polynomial.legendre.leggauss(NODES)
        return sum(
            (
                0.5
                * t
                * float(wi)
                * torch.exp(log_survival(torch.full_like(y, 0.5 * t * (1 + float(xi))), *eta))
                for xi, wi in zip(x, w, strict=True)
            ),
            torch.zeros_like(y),
        ).log()

    forward: Callable[..., Tensor]
    if what in ("survival", "cumulative_hazard"):
        forward = lambda *eta: torch.log(-log_survival(y, *eta))  # noqa: E731
    else:
        forward = hazard if what == "hazard" else mean

    def back(v: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-np.exp(v)) if what == "survival" else np.exp(v))

    eta = [e.detach() for e in eta_of(model, batch)]
    value, slopes = with_slopes(forward, eta)
    frame = {"row": first + np.arange(len(batch)), "time": t, "value": back(value.numpy())}
    if level is not None and V is not None:
        half = float(norm.ppf((1 + level) / 2)) * V.diagonal(gradient_rows(model, batch, slopes)).sqrt()
        ends = np.sort(np.stack([back((value - half).numpy()), back((value + half).numpy())]), 0)
        frame |= {"low": ends[0], "high": ends[1]}
    return pd.DataFrame(frame)


# ---- Cox ---------------------------------------------------------------------------------------------------


def baseline(objective: Objective) -> pd.DataFrame:
    """Of Cox's model, at predictors that are all 0: columns stratum, time, events, at_risk, hazard, cumulative_hazard,
    survival.

    Raises
    ------
    BadArgument
        another model
    """
    model = objective.model
    if not isinstance(model, Cox):
        raise BadArgument(
            f"a {type(model).__name__} has no baseline hazard of its own: that is for family='cox'."
        )
    batch = next(iter(objective.terms[0].source.batches(model)))
    sets, found = model.rows(batch)[1], model.terms(batch, objective.terms[0].weight(batch))
    hazard = np.bincount(found.slot, found.c, sets.size) * math.exp(-found.shift)
    out = pd.DataFrame(
        {
            "stratum": _strata(model)[sets.stratum],
            "time": sets.time,
            "events": sets.of_events(found.weight),
            "at_risk": sets.at_risk(found.weight),
            "hazard": hazard,
        }
    )
    out["cumulative_hazard"] = out.groupby("stratum", sort=False)["hazard"].cumsum()
    out["survival"] = np.exp(-out["cumulative_hazard"])
    return out if model.strata is not None else out.drop(columns="stratum")


def _strata(model: Cox) -> np.ndarray:
    return np.array([""] if model.strata is None else model.encoder.groupings[model.strata].names)


def _of_cox(
    objective: Objective,
    rows: Batch | Source,
    what: str,
    at: np.ndarray | None,
    level: float | None,
    V: Covariance | None,
) -> pd.DataFrame:
    if what == "hazard":
        raise BadArgument(
            "the hazard of Cox's model is a mass at each time of an event: fit.baseline(), or what='cumulative_hazard'."
        )
    model = objective.model
    fitted = next(iter(objective.terms[0].source.batches(model)))
    sets, found = model.rows(fitted)[1], model.terms(fitted, objective.terms[0].weight(fitted))
    m = model.means(fitted, found)
    c = np.bincount(found.slot, found.c, sets.size)
    noise = np.bincount(found.slot, found.c**2 / found.size, sets.size)
    moved = np.stack([np.bincount(found.slot, found.c * row, sets.size) for row in m])
    frames, first = [], 0
    for batch in batches(rows, model):
        X, eta = model.columns(batch), model.eta(batch)[0].detach().numpy() - found.shift
        stratum = (
            np.zeros(len(batch), dtype=np.int64)
            if model.strata is None
            else batch[f"group{model.strata}"].numpy()
        )
        for i in range(len(batch)):
            own = np.flatnonzero(sets.stratum == stratum[i])
            if not len(own):
                raise UnknownLevel(
                    f"row {first + i}: the fit has no event in this stratum, and so no curve for it."
                )
            t = sets.time[own]
            Lam = np.cumsum(c[own]) * math.exp(eta[i])
            error = np.zeros_like(Lam)
            if V is not None:
                d = np.cumsum(moved[:, own], 1) - np.cumsum(c[own]) * X[:, i : i + 1]
                doubt = V.diagonal(torch.from_numpy(np.ascontiguousarray(d.T))).numpy()
                error = math.exp(eta[i]) * np.sqrt(np.cumsum(noise[own]) + doubt)
            if what == "restricted_mean":
                assert at is not None
                frames += [_mean_until(first + i, t, Lam, float(end)) for end in at]
                continue
            place = np.arange(len(t)) if at is None else np.searchsorted(t, at, side="right") - 1
            value = np.where(place >= 0, Lam[np.maximum(place, 0)], 0.0)
            spread = np.where(place >= 0, error[np.maximum(place, 0)], 0.0)
            frames.append(
                _curve(
                    first + i, t if at is None else at, value, spread, what, level if V is not None else None
                )
            )
        first += len(batch)
    return pd.concat(frames, ignore_index=True)


def _curve(
    row: int, time: np.ndarray, Lam: np.ndarray, error: np.ndarray, what: str, level: float | None
) -> pd.DataFrame:
    """On the scale of log Λ = log(−log S)."""

    def back(v: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-v) if what == "survival" else v)

    frame = {"row": row, "time": time, "value": back(Lam)}
    if level is not None:
        wide = np.exp(float(norm.ppf((1 + level) / 2)) * error / np.where(Lam > 0, Lam, 1.0))
        ends = np.sort(np.stack([back(Lam / wide), back(Lam * wide)]), 0)
        frame |= {"low": np.where(Lam > 0, ends[0], np.nan), "high": np.where(Lam > 0, ends[1], np.nan)}
    return pd.DataFrame(frame)


def _mean_until(row: int, time: np.ndarray, Lam: np.ndarray, end: float) -> pd.DataFrame:
    inside = time < end
    steps = np.concatenate([[0.0], time[inside], [end]])
    S = np.concatenate([[1.0], np.exp(-Lam[inside])])
    return pd.DataFrame({"row": [row], "time": [end], "value": [float(S @ np.diff(steps))]})
