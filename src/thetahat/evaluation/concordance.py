"""How often a prediction orders two times as they were: Harrell's C.

Of two rows the order of the times is known if the one that is earlier had its event then (and, with entries, the
other was watched already). Of those pairs

    C = (concordant + ½ tied in the prediction) / all

With a_i the concordant pairs of row i (ties half), b_i all of its pairs, each a sum over partners by their weights, C
is A / B = Σ w a / Σ w b, and its standard error that of the infinitesimal jackknife:

    ∂C/∂w_i = 2 (a_i − C b_i) / Σ w b,       Var C = Σ_i w_i (∂C/∂w_i)²

Times that are equal say nothing if both were events; a row that was censored at the time of an event outlived it. Of
rows that were repeated w times, Var C is that of the repeated rows. All counts are by a wavelet matrix: O(n log n).

References
----------
Harrell, Califf, Pryor, Lee and Rosati (1982), Evaluating the yield of medical tests; Therneau and Watson (2015), The
concordance statistic and the Cox model; Claude, Navarro and Ordóñez (2015), The wavelet matrix.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.cox import Cox
from ..memory import reserve
from ..models.cox import CoxRegression
from ..notebook import Printed
from ..printable import encoded
from ..protocols import Categories
from ..types import ModelLike, Settings
from .calibration import _watched
from .fitted_values import batches, eta_of, extras_of, family_for, mean_of, parameters_of

BYTES = 220.0  # of a row: its arrays, and those of the wavelet matrix
SAME = 1e-12  # of the largest prediction: two that differ by less are one, up to rounding


@dataclass(frozen=True)
class Concordance(Printed):
    """C, with its standard error and the pairs that it counts.

    Parameters
    ----------
    value, standard_error
        of C
    concordant, discordant
        pairs, each the product of its weights
    tied
        pairs whose order is known, and whose predictions are equal
    tied_times
        pairs of events at one time, which are not counted
    """

    value: float
    standard_error: float
    concordant: float
    discordant: float
    tied: float
    tied_times: float

    @property
    def pairs(self) -> float:
        """Those whose order is known."""
        return self.concordant + self.discordant + self.tied

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """On the logit's scale, mapped back."""
        if not (isinstance(level, (int, float)) and 0 < level < 1):
            raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
        C = self.value
        if not 0 < C < 1:
            return math.nan, math.nan
        half = float(ndtri((1 + level) / 2)) * self.standard_error / (C * (1 - C))
        centre = math.log(C / (1 - C))
        return 1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre))

    @encoded
    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"concordance {self.value:.4f} (standard error {self.standard_error:.4f}, 95% {low:.4f} to {high:.4f}), of "
            f"{self.pairs:,.0f} pairs"
        )

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def concordance(
    time: np.ndarray,
    event: np.ndarray,
    prediction: np.ndarray,
    *,
    entry: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    reverse: bool = False,
) -> Concordance:
    """C of a prediction of times.

    Parameters
    ----------
    time
        when the event happened, or until when the row was watched, (n,)
    event
        whether it happened, (n,)
    prediction
        larger for longer times, (n,): a mean, a median, a linear predictor
    entry
        since when the row was watched, (n,); None: from the beginning
    weight
        how often each row was observed, (n,); None: once
    strata
        which stratum each row is in, (n,); pairs are made within one; None: one
    reverse
        whether the prediction is larger for shorter times (a risk, the linear predictor of Cox's model)

    Raises
    ------
    BadArgument
        arrays of unequal lengths, a value that is not finite, or no pair whose order is known

    Examples
    --------
    >>> import numpy as np
    >>> time, event, risk = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 1, 0, 1]), np.array([4.0, 2.0, 3.0, 1.0])
    >>> print(concordance(time, event, risk, reverse=True))
    concordance 0.8000 (standard error 0.2040, 95% 0.2475 to 0.9799), of 5 pairs
    """
    n = len(time)
    reserve(BYTES * n, f"the concordance of {n:,} rows", "Give a part of the rows.")
    w = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    stratum = np.zeros(n, dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    start = np.full(n, -np.inf) if entry is None else np.asarray(entry, dtype=np.float64)
    time, x = np.asarray(time, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    named = {"event": event, "prediction": x, "entry": start, "weight": w, "strata": stratum}
    for name, values in named.items():
        if np.shape(values) != (n,):
            raise BadArgument(f"{name} has the shape {np.shape(values)}, and time {(n,)}: one value a row.")
    for name, values in {"time": time, "prediction": x, "weight": w}.items():
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise BadArgument(f"the {name} of row {row} is {values[row]}: pairs need finite numbers.")
    if (w < 0).any():
        raise BadArgument(f"the weight of row {int(np.flatnonzero(w < 0)[0])} is negative.")
    found = _Pairs(time, np.asarray(event) != 0, _ranks(-x if reverse else x), start, w, stratum)
    later, earlier = found.later(), found.earlier()
    below, tie, every = (a + b for a, b in zip(later, earlier, strict=True))
    total = float(w @ every)  # each pair twice
    if not total > 0:
        raise BadArgument("there is no pair of rows of which it is known whose time was longer.")
    own = below + 0.5 * tie
    C = float(w @ own) / total
    error = math.sqrt(float(w @ (2 * (own - C * every) / total) ** 2))
    concordant, tied = float(w @ below) / 2, float(w @ tie) / 2
    return Concordance(C, error, concordant, total / 2 - concordant - tied, tied, found.tied_times())


def of_model(model: ModelLike, source: Batch | Source) -> Concordance:
    """C of a fitted family: the prediction is each row's median, or its mean where the family has no quantiles; of Cox's model
    minus the linear predictor, pairs within strata.

    Raises
    ------
    BadArgument
        the model has no family, or one of categories or of vectors; rows that are known only to lie in an interval
    """
    family = family_for(model, "concordance")
    if isinstance(model, CoxRegression):
        own = [
            (
                *_watched(model, batch),
                -eta_of(model, batch)[0].detach().expand(len(batch)).numpy(),
                _stratum(model, batch),
            )
            for batch in batches(source, model)
        ]
        time, event, entry, count, prediction, strata = (
            np.concatenate(part) for part in zip(*own, strict=True)
        )
        return concordance(time, event, prediction, entry=entry, weight=count, strata=strata)
    if isinstance(family, Cox):
        raise BadArgument(
            "the concordance of Cox's model with random effects depends on which of them are known. Ask for that of a "
            "prediction: th.evaluation.concordance.concordance(time, event, fit.predict(what='linear'), reverse=True)."
        )
    if family.length is not None or isinstance(family, Categories):
        raise BadArgument(f"{family} describes a y without an order: it has no concordance.")
    parts = []
    for batch in batches(source, model):
        if family.has("quantile"):
            half = torch.full((len(batch),), 0.5, dtype=torch.float64)
            found = family.quantile(half, *parameters_of(model, batch), **extras_of(model, batch))
        else:
            found = mean_of(model, batch)
        parts.append((*_watched(model, batch), found.numpy()))
    time, event, entry, count, prediction = (np.concatenate(part) for part in zip(*parts, strict=True))
    return concordance(time, event, prediction, entry=entry, weight=count)


def _stratum(model: CoxRegression, batch: Batch) -> np.ndarray:
    codes = model.stratum(batch)
    return np.zeros(len(batch), dtype=np.int64) if codes is None else codes.numpy()


class _Pairs:
    """Rows in the order of (stratum, time, events before rows that were censored at the same time)."""

    def __init__(
        self,
        time: np.ndarray,
        event: np.ndarray,
        rank: np.ndarray,
        entry: np.ndarray,
        weight: np.ndarray,
        stratum: np.ndarray,
    ):
        self.event, self.rank, self.w = event, rank, weight
        values, place = np.unique(time, return_inverse=True)
        width = 2 * len(values) + 2
        self.key = stratum * width + 2 * place + 1 + ~event
        self.floor, self.ceiling = stratum * width, (stratum + 1) * width
        # a row that enters at t is not at risk at t: it stands behind the events at t
        self.from_ = stratum * width + 2 * np.searchsorted(values, entry, side="right")
        self.entered = bool((entry > -np.inf).any())

    def later(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each event, the weights of the rows that outlived it: with a larger prediction, an equal one, all."""
        found = _ranges(self.key, self.rank, self.w, self.key, self.ceiling, self.rank)
        if self.entered:
            own = self.key + 1  # those who entered at the event's time or after it
            late = _ranges(self.from_, self.rank, self.w, own, self.ceiling, self.rank, closed=True)
            found = tuple(a - b for a, b in zip(found, late, strict=True))
        less, tie, every = (np.where(self.event, part, 0.0) for part in found)
        return every - less - tie, tie, every

    def earlier(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row, the weights of the events that it outlived: with a smaller prediction, an equal one, all."""
        e = self.event
        low = np.maximum(self.from_, self.floor)
        return _ranges(self.key[e], self.rank[e], self.w[e], low, self.key, self.rank)

    def tied_times(self) -> float:
        e = self.event
        _, place = np.unique(self.key[e], return_inverse=True)
        total, square = np.bincount(place, self.w[e]), np.bincount(place, self.w[e] ** 2)
        return float((total**2 - square).sum() / 2)


def _ranks(x: np.ndarray) -> np.ndarray:
    """0, 1, … by size; values that are equal to rounding share one."""
    order = np.argsort(x, kind="stable")
    new = np.diff(x[order], prepend=x[order[:1]]) > SAME * np.abs(x).max(initial=0.0)
    out = np.empty(len(x), dtype=np.int64)
    out[order] = np.cumsum(new)
    return out


def _ranges(
    key: np.ndarray,
    rank: np.ndarray,
    weight: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    than: np.ndarray,
    *,
    closed: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each query, Σ weight over the points with low < key < high (low ≤ key where `closed`): of rank below `than`,
    of rank `than`, of any rank."""
    order = np.argsort(key, kind="stable")
    key, rank, weight = key[order], rank[order], weight[order]
    first = np.searchsorted(key, low, side="left" if closed else "right")
    last = np.maximum(np.searchsorted(key, high, side="left"), first)
    total = np.concatenate([[0.0], np.cumsum(weight)])
    less, equal = _below(rank, weight, first, last, than)
    return less, equal, total[last] - total[first]


def _below(
    rank: np.ndarray, weight: np.ndarray, first: np.ndarray, last: np.ndarray, than: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Σ weight over places first … last − 1: of rank below `than`, and of rank `than`.

    A wavelet matrix: bit by bit from the highest, the points are divided stably into those whose bit is 0 and those
    whose bit is 1, and each query's range follows the bit of its own rank.
    """
    out = np.zeros(len(first))
    top = int(max(rank.max(initial=0), than.max(initial=0)))
    for bit in reversed(range(max(top.bit_length(), 1))):
        one = (rank >> bit & 1).astype(bool)
        zeros = np.concatenate([[0], np.cumsum(~one)])
        below = np.concatenate([[0.0], np.cumsum(np.where(one, 0.0, weight))])
        ask = (than >> bit & 1).astype(bool)
        out += np.where(ask, below[last] - below[first], 0.0)
        first = np.where(ask, zeros[-1] + first - zeros[first], zeros[first])
        last = np.where(ask, zeros[-1] + last - zeros[last], zeros[last])
        split = np.concatenate([np.flatnonzero(~one), np.flatnonzero(one)])
        rank, weight = rank[split], weight[split]
    total = np.concatenate([[0.0], np.cumsum(weight)])
    return out, total[last] - total[first]
