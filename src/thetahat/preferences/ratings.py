"""Ratings: what a Bradley–Terry fit says of its items, and how surely. Ranks with intervals; rewards with
errors.

    ρ_i = r_i − r̄,      Var ρ = C V Cᵀ,      C = I − 11ᵀ/k

An error of r_i itself depends on which item is fixed at 0, whose own error is 0; relative to the mean rating
it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..distributions import norm
from ..errors import BadArgument
from ..inference.covariance import project
from ..inference.natural import own_places
from ..types import Data
from .bradley_terry import BradleyTerry

if TYPE_CHECKING:
    from ..result import Fit

ELO = 400 / math.log(10)  # Elo's points of one unit of log-odds
CENTRE = 1500.0


def ratings(
    fit: Fit,
    *,
    level: float = 0.95,
    covariance: str | None = None,
    by: str | Sequence[str] | None = None,
    centre: float = CENTRE,
) -> pd.DataFrame:
    """The items of a Bradley–Terry fit, the best first.

        rating, standard_error      ρ, in log-odds, relative to the mean rating
        elo, elo_error              centre + (400 / log 10)·ρ: 400 points are odds of 10 : 1
        rank, low, high             1 is the best; between which places it is, with probability `level` at least

    low is one more than the number of items that are better beyond doubt, high is k less those that are
    worse; beyond doubt is a difference of more than z standard errors, z the normal quantile of the level
    after Bonferroni over the k − 1 comparisons of the item.

    Parameters
    ----------
    fit
        of a BradleyTerry or PlackettLuce model of items
    level
        of the intervals of the ranks
    covariance, by
        V of θ̂ and the columns that identify clusters, as in `fit.standard_errors`
    centre
        Elo's points of the mean rating

    Returns
    -------
    pd.DataFrame
        a row an item, with columns

    Raises
    ------
    BadArgument
        the model is not a table of items

    References
    ----------
    Bradley and Terry (1952); Elo (1978), The Rating of Chessplayers, Past and Present; Mogstad, Romano,
    Shaikh and Wilhelm (2024), Inference for ranks with applications to mobility across neighbourhoods and
    academic achievement across countries (ranks from simultaneous intervals of differences).

    Examples
    --------
    >>> import thetahat as th
    >>> games = th.preferences.Preferences(["a", "b", "a", "c"], ["b", "c", "c", "a"], [6, 5, 4, 3])
    >>> fit = th.fit(th.preferences.BradleyTerry(items=games.items), games)
    >>> ratings(fit)[["rating", "elo", "rank", "low", "high"]].round(2).to_dict("index")["a"]
    {'rating': 0.8, 'elo': 1639.68, 'rank': 1, 'low': 1, 'high': 3}
    """
    objective, theta, model = fit.objective, fit.theta, fit.model
    if not isinstance(model, BradleyTerry) or model.items is None:
        raise BadArgument(
            f"a {type(model).__name__} is not a table of rated items. Accepted: BradleyTerry(items=…)."
        )
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1.")
    k, gone = len(model.items), int(model.reference)
    F = torch.zeros(k, len(theta), dtype=torch.float64)
    F[torch.arange(gone, k), own_places(objective)[: k - gone]] = 1.0
    V = project(objective, theta, F - F.mean(0), fit._prepared(covariance, by)).numpy()
    r = (F @ theta.to(torch.float64)).numpy()
    rho = r - r.mean()
    better, worse = _beyond_doubt(rho, V, level)
    error = np.sqrt(np.clip(V.diagonal(), 0, None))
    table = pd.DataFrame(
        {
            "rating": rho,
            "standard_error": error,
            "elo": centre + ELO * rho,
            "elo_error": ELO * error,
            "rank": np.argsort(np.argsort(-rho, kind="stable")) + 1,
            "low": 1 + better,
            "high": k - worse,
        },
        index=pd.Index(model.items, name="item"),
    )
    return table.sort_values("rank")


def _beyond_doubt(rho: np.ndarray, V: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """How many items are surely better than each, and how many surely worse, (k,) each."""
    k = len(rho)
    variance = V.diagonal()[:, None] + V.diagonal() - 2 * V
    z = norm.isf((1 - level) / 2 / max(k - 1, 1))
    sure = z * np.sqrt(np.clip(variance, 0, None))
    ahead = rho[:, None] - rho
    np.fill_diagonal(ahead, 0)
    return (ahead < -sure).sum(1), (ahead > sure).sum(1)


def rewards(
    fit: Fit,
    features: Data,
    against: Data = None,
    *,
    covariance: str | None = None,
    by: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rewards of answers by a model that is linear in their features, with standard errors.

        r(x) = x·β̂,      Var r = xᵀ V x;      against another, x − y for x: r(x) − r(y), the log-odds that x is preferred

    Parameters
    ----------
    fit
        of BradleyTerry(features=…)
    features
        x, (n, d)
    against
        y, (n, d) or (d,), or None: the reward relative to features of 0
    covariance, by
        V of β̂ and the columns that identify clusters, as in `fit.standard_errors`

    Returns
    -------
    pd.DataFrame
        columns reward, standard_error; and of `against` probability, σ(r(x) − r(y))

    Raises
    ------
    BadArgument
        another model, or another number of features

    Examples
    --------
    >>> import thetahat as th
    >>> pairs = th.preferences.Preferences([[1.0], [2.0], [0.0]], [[0.0], [0.5], [1.0]])
    >>> fit = th.fit(th.preferences.BradleyTerry(features=["length"]), pairs)
    >>> rewards(fit, [[3.0]], against=[[2.0]]).round(3).to_dict("records")
    [{'reward': 0.761, 'standard_error': 1.087, 'probability': 0.682}]
    """
    objective, theta, model = fit.objective, fit.theta, fit.model
    if not isinstance(model, BradleyTerry) or model.features is None:
        raise BadArgument(
            f"a {type(model).__name__} is not a linear reward. Accepted: BradleyTerry(features=…)."
        )
    x = torch.as_tensor(features, dtype=torch.float64)
    x = x if against is None else x - torch.as_tensor(against, dtype=torch.float64)
    d = len(model.features)
    if x.ndim != 2 or x.shape[1] != d:
        raise BadArgument(
            f"the features have the shape {tuple(x.shape)}. Accepted: (n, {d}), the features that were "
            "fitted."
        )
    F = torch.zeros(len(x), len(theta), dtype=torch.float64)
    F[:, own_places(objective)[:d]] = x
    r = F @ theta.to(torch.float64)
    V = project(objective, theta, F, fit._prepared(covariance, by)).diagonal()
    out = pd.DataFrame({"reward": r.numpy(), "standard_error": V.clamp(min=0).sqrt().numpy()})
    if against is not None:
        out["probability"] = torch.sigmoid(r).numpy()
    return out
