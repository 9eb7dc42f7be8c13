"""Whether what the model says happens as often as it says.

    calibration   rows sorted by predicted mean, in bins of equal numbers: predicted against observed, with an interval. Of censored times,
                  whose mean nobody has seen: P(T ≤ t) at one time, predicted against Kaplan and Meier's. Of a category: the
                  probability of each level
    pit           u = F(y | x), a histogram: flat if every predictive distribution is right

References
----------
Dawid (1984), Statistical theory: the prequential approach (PIT); Wilson (1927), Probable inference.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr, ndtri

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family
from ..families.censored import Censored
from ..protocols import Categories, Working
from ..types import ModelLike
from .fitted_values import batches, extras_of, family_for, levels_of, mean_of, parameters_of, response_of
from .kaplan_meier import kaplan_meier
from .residuals import residuals

SAME = 1e-12  # of the largest prediction: two that differ by less are one, up to rounding


def calibration(
    model: ModelLike, source: Batch | Source, *, bins: int = 10, level: float = 0.95, at: float | None = None
) -> pd.DataFrame:
    """Predicted against observed means, by quantiles of the prediction.

    Parameters
    ----------
    model
        at θ̂, of a family with a mean
    source
        with the response
    bins
        so many, of equal numbers of observations; rows of one prediction stay together, so there may be fewer
    level
        of the intervals of what was observed: Wilson's for shares (Bernoulli, binomial), normal for means
    at
        of censored times: the time t of P(T ≤ t); None: the median of the times at which something happened

    Returns
    -------
    pd.DataFrame
        a row a bin: predicted, observed, low, high, n (observations; trials of a binomial). `attrs["at"]`: t
        of censored times. Of a response that is a category a row a level and bin, by quantiles of that level's
        probability, with the column level before

    Raises
    ------
    BadArgument
        a family without a mean, a level or a number of bins that cannot be; `at` of times that are not
        censored; rows that are known only to lie in an interval, of which Kaplan and Meier say nothing
    """
    check(bins, level)
    family = family_for(model, "mean")
    if isinstance(family, Censored):
        return _of_times(model, source, bins, level, at)
    if isinstance(family, Working):
        raise BadArgument(
            f"{family.working} Calibration compares means. Of a quantile: fit.check(), fit.plot('residuals')."
        )
    if at is not None:
        raise BadArgument(f"at={at!r} is of censored times; {family} is not censored.")
    if isinstance(family, Categories):
        return _of_levels(model, family, source, bins, level)
    parts = []
    share = False
    for batch in batches(source, model):
        y, mean, count = response_of(model, batch), mean_of(model, batch), batch.count.to(torch.float64)
        trials = extras_of(model, batch).get("trials")
        share = trials is not None or family.support.binary
        if trials is not None:
            y, mean, count = y / trials, mean / trials, count * trials
        parts.append(torch.stack([mean, y, count]).numpy())
    predicted, observed, count = _seen(parts)
    code = binned(predicted, count, bins)
    n = np.bincount(code, count)
    p, o = (np.bincount(code, count * v) / n for v in (predicted, observed))
    if share:
        low, high = wilson(o * n, n, level)
    else:
        # the spread about the predictions: within a bin these differ, and that is no doubt about the observed
        # mean
        rest = observed - predicted
        error = np.sqrt(np.bincount(code, count * (rest - (o - p)[code]) ** 2) / np.maximum(n - 1, 1) / n)
        error[n <= 1] = np.nan
        low, high = (o + s * ndtri((1 + level) / 2) * error for s in (-1, 1))
    return pd.DataFrame({"predicted": p, "observed": o, "low": low, "high": high, "n": n})


def _of_levels(
    model: ModelLike, family: Family, source: Batch | Source, bins: int, level: float
) -> pd.DataFrame:
    """The probability of each level, predicted and observed."""
    assert isinstance(family, Categories)
    parts = []
    with torch.no_grad():
        for batch in batches(source, model):
            share = family.probabilities(*parameters_of(model, batch)).to(torch.float64)
            parts.append((share.numpy(), response_of(model, batch).numpy(), batch.count.numpy()))
    shares, y, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    shares, y, count = (v[seen(count)] for v in (shares, y, count.astype(np.float64)))
    names = levels_of(model) or range(shares.shape[1])
    out = []
    for j, name in enumerate(names):
        code = binned(shares[:, j], count, bins)
        n = np.bincount(code, count)
        p, happened = (np.bincount(code, count * v) for v in (shares[:, j], y == j))
        low, high = wilson(happened, n, level)
        found = {"predicted": p / n, "observed": happened / n, "low": low, "high": high, "n": n}
        out.append(pd.DataFrame({"level": name, **found}))
    return pd.concat(out, ignore_index=True)


def _of_times(
    model: ModelLike, source: Batch | Source, bins: int, level: float, at: float | None
) -> pd.DataFrame:
    """P(T ≤ at), predicted and by Kaplan and Meier, in groups of equal predicted risk."""
    read = list(batches(source, model))
    time, event, entry, count = (
        np.concatenate(part) for part in zip(*(_watched(model, b) for b in read), strict=True)
    )
    at = median_event(time, event, count) if at is None else at
    if not np.isfinite(at):
        raise BadArgument(f"at={at!r}. Accepted: a time, such as the median.")
    risk = np.concatenate([_risk(model, b, at) for b in read])
    return by_risk(time, event, entry, count, risk, bins, level, at)


def median_event(time: np.ndarray, event: np.ndarray, count: np.ndarray) -> float:
    """The median of the times at which something happened."""
    if not event[seen(count)].any():
        raise BadArgument(
            "no row says when something happened: every time is censored, and there is nothing to "
            "compare with."
        )
    return float(np.quantile(time[event & seen(count)], 0.5, method="inverted_cdf"))


def by_risk(
    time: np.ndarray,
    event: np.ndarray,
    entry: np.ndarray,
    count: np.ndarray,
    risk: np.ndarray,
    bins: int,
    level: float,
    at: float,
) -> pd.DataFrame:
    """P(T ≤ at), predicted (n,) and by Kaplan and Meier, in groups of equal predicted risk."""
    time, event, entry, count, risk = (v[seen(count)] for v in (time, event, entry, count, risk))
    code = binned(risk, count, bins)
    n = np.bincount(code, count)
    lasted = [
        kaplan_meier(
            time[code == b], event[code == b], at, level, entry=entry[code == b], count=count[code == b]
        )
        for b in range(len(n))
    ]
    observed, high, low = 1 - np.array(lasted).T
    out = pd.DataFrame(
        {
            "predicted": np.bincount(code, count * risk) / n,
            "observed": observed,
            "low": low,
            "high": high,
            "n": n,
        }
    )
    out.attrs["at"] = at
    return out


def _watched(model: ModelLike, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: its time, whether the event happened then, since when it was watched, its count."""
    extras = extras_of(model, batch)
    event = extras.get("event", torch.ones(len(batch))).expand(len(batch))
    if bool((((event != 0) & (event != 1)) & (batch.count > 0)).any()):
        raise BadArgument(
            "some rows are known only to lie in an interval, or below a bound: Kaplan and Meier's estimate "
            "is of times that were seen or "
            "censored to the right."
        )
    entry = extras.get("entry", extras.get("low", torch.full((1,), -math.inf))).expand(len(batch))
    parts = (
        response_of(model, batch),
        event == 1,
        torch.where(torch.isnan(entry), -math.inf, entry),
        batch.count,
    )
    time, happened, entered, count = (part.numpy() for part in parts)
    return time, happened, entered, count.astype(np.float64)


def _risk(model: ModelLike, batch: Batch, at: float) -> np.ndarray:
    """P(T ≤ at) of each row, whenever it entered."""
    parameters = parameters_of(model, batch)
    extras = {
        name: v
        for name, v in extras_of(model, batch).items()
        if name not in ("event", "upper", "entry", "low", "high")
    }
    t = torch.full((len(batch),), at, dtype=torch.float64)
    with torch.no_grad():
        out: np.ndarray = model.family.cdf(t, *parameters, **extras).numpy()
        return out


def wilson(successes: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share, p̂ = successes / n.

        (p̂ + z²/2n ± z·√(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n)

    Examples
    --------
    >>> low, high = wilson(np.array([0.0]), np.array([10.0]))
    >>> float(low[0]), round(float(high[0]), 6)
    (0.0, 0.277533)
    """
    z2 = float(ndtri((1 + level) / 2)) ** 2
    p = successes / n
    half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2)))
    centre = p + z2 / (2 * n)
    return np.maximum((centre - half) / (1 + z2 / n), 0.0), np.minimum((centre + half) / (1 + z2 / n), 1.0)


def pit(
    model: ModelLike, source: Batch | Source, *, bins: int = 20, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The histogram of u = F(y | x), masses spread at random (`residuals`).

    Returns
    -------
    pd.DataFrame
        a row a bin: left, right, count, expected, low, high: between which a count falls with probability
        `level` if the model is true

    Raises
    ------
    BadArgument
        a family without a cdf
    """
    check(bins, level)
    u = ndtr(residuals(model, source, "quantile", seed=seed))
    count = np.concatenate([batch.count.to(torch.float64).numpy() for batch in batches(source, model)])
    edges = np.linspace(0, 1, bins + 1)
    found = np.histogram(u, edges, weights=count)[0]
    n = float(count.sum())
    from scipy.stats import binom  # takes long to load

    low, high = binom.ppf((1 - level) / 2, round(n), 1 / bins), binom.ppf((1 + level) / 2, round(n), 1 / bins)
    return pd.DataFrame(
        {
            "left": edges[:-1],
            "right": edges[1:],
            "count": found,
            "expected": n / bins,
            "low": low,
            "high": high,
        }
    )


def _seen(parts: list[np.ndarray]) -> np.ndarray:
    """(3, n): predicted, observed, count of the rows that were observed."""
    whole = np.concatenate(parts, 1)
    return whole[:, seen(whole[2])]


def seen(count: np.ndarray) -> np.ndarray:
    """Which rows were observed."""
    return count > 0


def binned(predicted: np.ndarray, count: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each row, 0 … B − 1, none empty: quantiles of the prediction, equal predictions (to
    rounding) together."""
    order = np.argsort(predicted, kind="stable")
    ordered = predicted[order]
    new = np.diff(ordered, prepend=-np.inf) > SAME * np.abs(ordered).max()
    total = np.add.reduceat(count[order], np.flatnonzero(new))
    middle = np.cumsum(total) - total / 2
    place = np.minimum((bins * middle / total.sum()).astype(np.int64), bins - 1)
    code = np.empty(len(order), dtype=np.int64)
    code[order] = np.unique(place, return_inverse=True)[1].reshape(-1)[np.cumsum(new) - 1]
    return code


def check(bins: int, level: float) -> None:
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise BadArgument(f"bins={bins!r}. Accepted: a whole number of at least 1.")
    if not (isinstance(level, (int, float)) and 0 < level < 1 and math.isfinite(level)):
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
