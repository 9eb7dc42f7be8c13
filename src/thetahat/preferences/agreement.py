"""How well a reward model judges pairs that it has not seen: how often rightly, in nats, and whether its odds
are true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.batch import concatenate
from ..errors import BadArgument
from ..evaluation.calibration import check, wilson
from ..evaluation.calibration_error import CalibrationError, calibration_error
from ..evaluation.new_data import source_like
from ..evaluation.score import Score, score
from ..likelihood.total import spread
from ..notebook import Printed
from ..printable import encoded
from ..protocols import HasModel
from ..types import Data
from .bradley_terry import BradleyTerry

if TYPE_CHECKING:
    from ..result import Fit


@dataclass(frozen=True)
class Judgement(Printed):
    """Of pairs with known preference.

    Parameters
    ----------
    pairs
        Σ count
    units
        how many independent ones there are (prompts)
    accuracy
        how often the one preferred was given the better odds; equal odds count half. Ties are left out
    low, high
        its interval, at `level`
    score
        log p of the outcomes
    calibration
        of the more probable outcome
    """

    pairs: float
    units: int
    accuracy: float
    low: float
    high: float
    level: float
    score: Score
    calibration: CalibrationError

    @encoded
    def __str__(self) -> str:
        c, error = self.calibration, self.score.standard_error
        known = "one group: no error is known" if math.isnan(error) else f"± {error:.4f}"
        return (
            f"{self.pairs:g} pairs of {self.units} groups, {100 * self.level:g} % intervals\n"
            f"accuracy            {self.accuracy:.3f}   ({self.low:.3f} to {self.high:.3f})\n"
            f"nats a pair        {self.score.mean:.4f}   ({known}; a coin's {-math.log(2):.4f})\n"
            f"calibration error   {c.value:.3f}   ({c.low:.3f} to {c.high:.3f}), root mean square"
        )


def judge(
    fit: Fit | BradleyTerry, pairs: Data = None, *, level: float = 0.95, bins: int = 10, seed: int = 0
) -> Judgement:
    """Accuracy, nats and calibration error of a Bradley–Terry model on pairs, each with its interval.

        accuracy = Σ c_i a_i / Σ c_i,      a_i = 1[p_i > q_i] + ½·1[p_i = q_i]

    p_i is the probability said of the outcome that happened, q_i that of the reverse.

    The interval of the accuracy is Wilson's, with the number of pairs replaced by the effective number a(1 −
    a)/se², se that of groups.

    Parameters
    ----------
    fit
        of a BradleyTerry model; or the model itself
    pairs
        a source of pairs; None: those that were fitted. Where its batches name groups (prompts), errors are
        of independent groups
    level, bins, seed
        of the intervals; bins of the calibration error

    Raises
    ------
    BadArgument
        another model, or pairs that are all ties

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference; Korn and Graubard
    (1998), Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data (the effective number).

    Examples
    --------
    >>> import thetahat as th
    >>> pairs = th.preferences.Preferences([[2.0], [0.0], [1.0]], [[1.0], [1.0], [0.5]])
    >>> fit = th.fit(th.preferences.BradleyTerry(features=1), pairs)
    >>> round(judge(fit).accuracy, 4)
    0.6667
    """
    check(bins, level)
    model = fit.model if isinstance(fit, HasModel) else fit
    if not isinstance(model, BradleyTerry):
        raise BadArgument(
            f"a {type(model).__name__} does not say which of two is preferred. Accepted: BradleyTerry."
        )
    if pairs is None and not isinstance(fit, HasModel):
        raise BadArgument(
            "pairs=None are those that were fitted, and a model alone has none. Pass a source of pairs."
        )
    source = (
        pairs
        if not isinstance(fit, HasModel)
        else fit.source
        if pairs is None
        else source_like(fit.model, pairs)
    )
    batches = list(source.batches(model))
    p = torch.cat([model.probabilities(batch).to("cpu", torch.float64) for batch in batches])
    batch = concatenate(batches)
    right = (p[:, 0] > p[:, 2]).double() + 0.5 * (p[:, 0] == p[:, 2]).double()
    count = batch.count.to(torch.float64)
    decided = torch.where(batch["tie"].bool(), 0.0, count) if "tie" in batch else count
    n = float(decided.sum())
    if n == 0:
        raise BadArgument("every pair is a tie: there is no preference to be judged.")
    group = batch.group if batch.grouped else None
    a, error = float((decided * right).sum()) / n, spread(right, decided, group) / n
    effective = a * (1 - a) / error**2 if error > 0 else n
    low, high = (float(end[0]) for end in wilson(np.array([a * effective]), np.array([effective]), level))
    units = len(torch.unique(batch.group[count > 0]))
    found = calibration_error(model, source, bins=bins, level=level, seed=seed)
    return Judgement(float(count.sum()), units, a, low, high, level, score(model, source), found)
