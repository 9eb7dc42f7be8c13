"""How far a fit is from the best possible: its cross-entropy less the entropy of the data, which no model can
go below.

    KL(data ‖ model) = H(data, model) − H(data) ≥ 0

Where predictors repeat and the response is discrete, H(data) is known of these rows exactly: the shares of
each y among the rows of equal x are the model that makes them most probable (the saturated model), so that no
model of the same predictors is more than the excess better, here. Part of it is chance: had the fitted model
made the data, 2n·excess would be about χ² with as many degrees of freedom as the saturated model has more.

Where the response has a density, and there are no predictors or they are shared by twenty rows and more,
H(data) is estimated by the distances of neighbours, and the two are paired.

References
----------
Nelder and Wedderburn (1972), Generalized linear models (the deviance, 2n·excess); `neighbours`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..data.batch import Batch, concatenate
from ..data.source import Source
from ..errors import BadArgument
from ..families.censored import Censored
from ..models.base import family_of
from ..notebook import Printed
from ..printable import encoded
from ..protocols import is_padded, kind_of, measure_of, target_of
from ..types import ModelLike, Settings
from . import neighbours
from .divergence import codes
from .score import score

MOST = 20_000  # rows
CELL = 5  # rows that each pair (x, y) has to have on average, for the shares to tell anything


@dataclass(frozen=True)
class LackOfFit(Printed):
    """KL(data ‖ model), in nats a row.

    Parameters
    ----------
    value, standard_error
        of the difference; 0 where the entropy of the rows is known
    entropy, entropy_error
        H(data)
    chance
        what the value would be by chance alone, had the fitted model made the data; None where it is not
        known
    exact
        whether the entropy is that of these rows, the saturated model's, rather than an estimate
    rows
        n

    Examples
    --------
    >>> print(LackOfFit(0.012, 0.0, 0.42, 0.0, 0.010, True, 300))
    entropy of the rows given their predictors 0.42 nats: no model of these predictors is more than 0.012 nats a row better here (0.01 by
    chance alone)
    """

    value: float
    standard_error: float
    entropy: float
    entropy_error: float
    chance: float | None
    exact: bool
    rows: int

    @encoded
    def __str__(self) -> str:
        if self.exact and self.value < 1e-9:
            text = f"entropy of the rows given their predictors {self.entropy:.4g} nats: no model of these predictors is better here"
        elif self.exact:
            text = (
                f"entropy of the rows given their predictors {self.entropy:.4g} nats: no model of these "
                "predictors is more than "
                f"{self.value:.3g} nats a row better here ({self.chance:.2g} by chance alone)"
            )
        else:
            text = (
                f"entropy of the data ≈ {self.entropy:.4g} ± {self.entropy_error:.2g} nats: the fit is about "
                f"{self.value:.2g} ± "
                f"{self.standard_error:.2g} nats a row from the best possible"
            )
        return text.replace("-", "−")

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        return {
            "nats": self.value,
            "standard_error": self.standard_error,
            "entropy": self.entropy,
            "entropy_error": self.entropy_error,
            "chance": self.chance,
            "exact": self.exact,
        }


def lack_of_fit(model: ModelLike, source: Source) -> LackOfFit:
    """KL(data ‖ model), where the entropy of the data can be told.

    Parameters
    ----------
    model
        says log_prob, exactly
    source
        the rows it was fitted to, up to `MOST`

    Raises
    ------
    BadArgument
        where it cannot be told, and why

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("distress ~ temperature", th.data.shipped("orings"), family="bernoulli")
    >>> lack_of_fit(fit.model, fit.source)
    Traceback (most recent call last):
    ...
    thetahat.errors.BadArgument: ...
    >>> flat = th.fit("distress ~ 1", th.data.shipped("orings"), family="bernoulli")
    >>> round(lack_of_fit(flat.model, flat.source).value, 12)
    0.0
    """
    size = source.size
    if size is None or size > MOST:
        raise BadArgument(
            f"the source has {'no end' if size is None else f'{size:,} rows'}: it is computed for at most "
            f"{MOST:,}."
        )
    if kind_of(model) != "exact" or is_padded(source):
        raise BadArgument("log p is not known exactly, or the terms are not rows.")
    whole = concatenate(list(source.batches(model)))
    target = target_of(model)
    if target not in whole or len(whole.shape) != 1 or isinstance(family_of(model), Censored):
        raise BadArgument(f"the rows have no response {target!r} that is seen as it is.")
    measure = measure_of(model)
    if measure == "mass":
        return _saturated(model, source, whole, target)
    if measure == "density" and not whole.counted and not whole.grouped:
        return _by_neighbours(model, source, whole[target].numpy(), _predictors(whole, target))
    raise BadArgument(
        "rows with counts or groups of their own repeat, or the density has atoms: its entropy is not "
        "estimated."
    )


def _saturated(model: ModelLike, source: Source, whole: Batch, target: str) -> LackOfFit:
    given = _predictors(whole, target)
    both = codes(np.stack([given, codes(whole[target].numpy())], 1))
    c = whole.count.numpy().astype(np.float64)
    n, cells, groups = float(c.sum()), np.bincount(both, c), np.bincount(given, c)
    pairs, levels = int((cells > 0).sum()), int((groups > 0).sum())
    if n < CELL * pairs:
        raise BadArgument(
            f"{n:g} rows have {pairs} distinct pairs of predictors and response: where they hardly repeat, "
            "their shares tell nothing. "
            f"Wanted: {CELL} rows a pair."
        )
    found = score(model, source)
    seen = c > 0
    surprise = np.log(groups[given[seen]]) - np.log(cells[both[seen]])
    entropy = float((c[seen] * surprise).sum() / n)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    chance = max(pairs - levels - parameters, 0) / (2 * n)
    return LackOfFit(max(-found.mean - entropy, 0.0), 0.0, entropy, 0.0, chance, True, int(n))


def _predictors(whole: Batch, target: str) -> np.ndarray:
    """Which of the distinct rows of predictors each row has, (n,)."""
    keys = [t.reshape(len(whole), -1).numpy() for name, t in whole.tensors.items() if name != target]
    return codes(np.hstack([np.zeros((len(whole), 1)), *keys]))


def _by_neighbours(model: ModelLike, source: Source, y: np.ndarray, given: np.ndarray) -> LackOfFit:
    y = neighbours.columns(y, "the response")
    n, d = y.shape
    if d > 2:
        raise BadArgument(
            f"the response has {d} columns: the bias of the estimate would not be small beside the excess."
        )
    if n < neighbours.GROUP * (given.max() + 1):
        raise BadArgument(
            f"{n} rows have {given.max() + 1} distinct rows of predictors, too few of each for distances "
            "within them."
        )
    found = score(model, source)
    if found.log_determinant:
        raise BadArgument(
            f"the response is a transform, {source.units}, and the entropy would be that of {found.units}."
        )
    local, noise = neighbours.local_within(y, given, "the response"), neighbours.noise(n, d)
    apart = -found.per_observation.numpy() - local
    variance = local.var(ddof=1) / n + noise
    paired = apart.var(ddof=1) / n + noise
    return LackOfFit(
        float(apart.mean()), math.sqrt(paired), float(local.mean()), math.sqrt(variance), None, False, n
    )
