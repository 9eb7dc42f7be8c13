"""Curves of a fitted family for each row: how likely it is to last longer than t, and what follows from it.

    survival            S(t) = P(T > t)                 interval on the scale log(−log S)
    cumulative_hazard   H(t) = −log S(t)                on the scale log H
    hazard              h(t) = p(t) / S(t)              on the scale log h
    restricted_mean     ∫₀^t S(u) du = E[min(T, t)]     on the logit's scale, as a share of t

Each is a function of the family's linear predictors, whose gradient is by automatic differentiation; so is the
standard error, by the delta method. S is of the true time, whenever the row entered.

References
----------
Kalbfleisch and Prentice (2002), The Statistical Analysis of Failure Time Data, 2nd ed., §1.2; Oehlert (1992), A note
on the delta method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family
from ..families.censored import Censored, log_tail
from ..inference.covariance import Covariance
from ..likelihood import Objective
from ..models.base import family_of
from ..types import ModelLike, Plain
from .fitted_values import batches, eta_of, extras_of, natural_at, parameters_of
from .predict import _intervals, _Target

WHATS = ("survival", "cumulative_hazard", "hazard", "restricted_mean")
ROWS = 4096  # of the nodes of an integral at once
NODES, WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(24))
BREAKS = (1e-4, 0.02, 0.2, 0.5, 0.8, 0.98, 0.9999)  # quantiles between which a curve is integrated


def curves(
    objective: Objective,
    theta: Tensor,
    rows: Batch | Source,
    what: str,
    times: Sequence[float] | float | None,
    *,
    level: float | None = None,
    covariance: Covariance | None = None,
) -> np.ndarray:
    """A quantity of each row at each time.

    Parameters
    ----------
    objective, theta
        θ̂, (p,)
    rows
        new rows, or a source
    what
        one of `WHATS`
    times
        (m,), at least 0
    level
        of the interval, between 0 and 1; None: no interval
    covariance
        V of θ̂, which an interval needs

    Returns
    -------
    np.ndarray
        (n, m) values; with a level (n, m, 3): value, low, high. A value that is certain (S(0) = 1 of a positive time)
        is its own interval

    Raises
    ------
    BadArgument
        times that are missing, negative or not finite; a model without a survival function; a hazard of counts, or at a
        time that the family cannot have; a restricted mean of a y that can be below 0
    """
    at = _times(what, times)
    if level is not None and not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    objective = objective.at(theta)
    model = objective.model
    family = _family(model, what, at)
    parts = []
    for whole in batches(rows, model):
        for start in range(0, len(whole), ROWS):
            batch = whole[start : start + ROWS]
            found = [_column(objective, batch, family, what, float(t), level, covariance) for t in at]
            parts.append(np.stack(found, axis=1))
    return np.concatenate(parts)


def long(values: np.ndarray, times: Sequence[float] | float, rows: Plain) -> pd.DataFrame:
    """(n, m) or (n, m, 3) values as a table: row, time, value and, with an interval, low and high."""
    at = np.atleast_1d(np.asarray(times, dtype=np.float64))
    n, m = values.shape[:2]
    out = pd.DataFrame({"row": np.repeat(np.asarray(rows), m), "time": np.tile(at, n)})
    names = ["value"] if values.ndim == 2 else ["value", "low", "high"]
    return out.assign(**dict(zip(names, values.reshape(n * m, -1).T, strict=True)))


def _times(what: str, times: Sequence[float] | float | None) -> np.ndarray:
    if times is None:
        raise BadArgument(f"what={what!r} needs times, such as times=[100, 365].")
    try:
        at = np.atleast_1d(np.asarray(times, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise BadArgument(f"times={times!r}. Accepted: numbers of at least 0, such as [100, 365].") from error
    if at.ndim != 1 or not len(at) or not np.isfinite(at).all() or (at < 0).any():
        raise BadArgument(f"times={times!r}. Accepted: finite numbers of at least 0, such as [100, 365].")
    if what == "restricted_mean" and (at == 0).any():
        raise BadArgument("what='restricted_mean' is up to a time above 0; times holds 0.")
    return at


def _family(model: ModelLike, what: str, at: np.ndarray) -> Family:
    """The family of the true time."""
    family = family_of(model)
    if family is None:
        raise BadArgument(f"a {type(model).__name__} has no survival function: what={what!r} is of a family.")
    if isinstance(family, Censored):
        family = family.family
    if not family.has("cdf") or family.length is not None:
        raise BadArgument(
            f"{family} has no survival function, so that what={what!r} is not defined. Families of times: weibull, "
            "exponential, lognormal, loglogistic, gamma, and all others with a cdf."
        )
    if what == "hazard":
        if family.measure != "density":
            raise BadArgument(f"what='hazard' is of times with a density, and {family} has none.")
        outside = (
            ~family.in_support(torch.from_numpy(at)).numpy() if not family.extras else np.zeros(len(at), bool)
        )
        if outside.any():
            raise BadArgument(
                f"what='hazard': {family} has no density at the time {at[outside][0]:g}. Its support is {family.support}."
            )
    if what == "restricted_mean" and (family.support.low < 0 or not family.has("quantile")):
        raise BadArgument(
            f"what='restricted_mean' is of times of at least 0 whose quantiles are known; {family} describes "
            f"{family.support}."
        )
    return family


def _column(
    objective: Objective,
    batch: Batch,
    family: Family,
    what: str,
    t: float,
    level: float | None,
    V: Covariance | None,
) -> np.ndarray:
    """(n,) values, or (n, 3) with the interval, at one time."""
    model = objective.model
    target = _target(model, batch, family, what, t)
    if level is None or V is None:
        with torch.no_grad():
            eta = eta_of(model, batch)
            return target.back(target.forward(*eta), eta, True).detach().to(torch.float64).numpy()
    out: np.ndarray = _intervals(
        objective, batch, lambda part: _target(model, part, family, what, t), level, V
    ).to_numpy(copy=True)
    certain = np.isnan(out[:, 1]) & np.isin(out[:, 0], (0.0, 1.0))
    out[certain, 1:] = out[certain, :1]
    return out


def _target(model: ModelLike, batch: Batch, family: Family, what: str, t: float) -> _Target:
    extras = {name: v for name, v in extras_of(model, batch).items() if name in family.extras}
    y = torch.full((len(batch),), t, dtype=torch.float64)

    def log_survival(*eta: Tensor) -> Tensor:
        return log_tail(family, y, True, natural_at(family, eta), extras)

    if what == "survival":
        return _Target(
            lambda *eta: torch.log(-log_survival(*eta)), lambda v, eta, high: torch.exp(-torch.exp(v))
        )
    if what == "cumulative_hazard":
        return _Target(lambda *eta: torch.log(-log_survival(*eta)), lambda v, eta, high: torch.exp(v))
    if what == "hazard":
        return _Target(
            lambda *eta: family.log_prob(y, *natural_at(family, eta), **extras) - log_survival(*eta),
            lambda v, eta, high: torch.exp(v),
        )
    breaks = _breaks(family, parameters_of(model, batch), extras, t)

    def share(*eta: Tensor) -> Tensor:
        area = _area(family, natural_at(family, eta), extras, breaks)
        return torch.log(area) - torch.log(t - area)

    return _Target(share, lambda v, eta, high: t * torch.sigmoid(v))


def _breaks(family: Family, theta: Sequence[Tensor], extras: Mapping[str, Tensor], t: float) -> Tensor:
    """0 = u_0 ≤ … ≤ u_k = t, (n, k + 1): each row's own quantiles, cut at t."""
    n = len(theta[0])
    inner = [
        family.quantile(torch.full((n,), q, dtype=torch.float64), *theta, **extras).clamp(0.0, t)
        for q in BREAKS
    ]
    zero = torch.zeros(n, dtype=torch.float64)
    return torch.stack([zero, *inner, torch.full_like(zero, t)], 1).nan_to_num(t).cummax(1).values


def _area(family: Family, theta: Sequence[Tensor], extras: Mapping[str, Tensor], breaks: Tensor) -> Tensor:
    """∫₀^t S(u) du, (n,), by Gauss and Legendre between the breaks. In the first and the last of them u is a square of
    the node: a curve that falls steeply from 0, or has a long tail, is smooth in it."""
    n, k = breaks.shape[0], breaks.shape[1] - 1
    v = (NODES + 1) / 2
    total: Tensor = torch.zeros(n, dtype=torch.float64)
    for j in range(k):
        a, width = breaks[:, j, None], (breaks[:, j + 1] - breaks[:, j])[:, None]
        bent = j in (0, k - 1)
        u = a + width * (v**2 if bent else v)
        slope = width * (2 * v if bent else torch.ones_like(v)) / 2
        flat = [p.expand(n)[:, None].expand(n, len(v)).reshape(-1) for p in theta]
        more = {name: e.expand(n)[:, None].expand(n, len(v)).reshape(-1) for name, e in extras.items()}
        S = torch.exp(log_tail(family, u.reshape(-1), True, flat, more)).reshape(n, len(v))
        total = total + (S * slope * WEIGHTS).sum(1)
    return total
