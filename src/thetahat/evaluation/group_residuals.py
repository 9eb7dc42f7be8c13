"""Whether a mixed model's groups look like groups of it: residuals within each, and standardised modes.

    b̂_g / √(Σ̂ − Var(b_g | y))      normal with variance 1 if the model is true (exactly so of a normal response at known variances)

Quantile residuals are those given the modes; within a group their variance is 1, a little less of a small one, whose effect was
fitted to it.

References
----------
Dunn and Smyth (1996), Randomized quantile residuals; Brown and Forsythe (1974), Robust tests for the equality of variances;
Lange and Ryan (1989), Assessing normality in random effects models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import BadArgument
from ..models.mixed import Mixed
from ..models.random_effects import RandomEffects
from ..models.series import Series
from .modes import random_effects, whole
from .outliers import alignment_of

if TYPE_CHECKING:
    from ..result import Fit

FEW = 3  # rows of a group, below which its spread says nothing
NOTHING = 1e-10  # of a variance: what a mode can move


@dataclass(frozen=True)
class Spread:
    """Whether the residuals of all groups spread alike: Brown and Forsythe's test.

    Parameters
    ----------
    factor
        whose groups
    least, most
        standard deviation of the residuals of a group
    groups
        with at least three rows
    statistic, df, df_error, p
        F, of groups − 1 and rows − groups degrees of freedom
    """

    factor: str
    least: float
    most: float
    groups: int
    statistic: float
    df: int
    df_error: int
    p: float


def residuals_by_group(fit: Fit, residuals: np.ndarray | pd.Series | None = None) -> pd.DataFrame:
    """A row a row and grouping factor: factor, group, residual (quantile, given the modes).

    Parameters
    ----------
    residuals
        one for each row that was given, as `fit.residuals` has them; None: the quantile residuals

    Raises
    ------
    BadArgument
        a model without grouping factors of a formula, or a family without a cdf
    """
    model = fit.model
    if not isinstance(model, Mixed) or not model.groupings:
        raise BadArgument("residuals within groups are of a formula with random effects, (1 | g).")
    values = np.asarray(fit.residuals("quantile") if residuals is None else residuals, dtype=float)
    batch, kept = whole(fit.objective), alignment_of(fit.source).numbers
    own = values[kept]
    parts = []
    for source, g in enumerate(model.groupings):
        names = np.asarray([str(name) for name in g.names], dtype=object)
        code = batch[f"group{source}"].numpy()
        parts.append(pd.DataFrame({"factor": g.label, "group": names[code], "residual": own}))
    return pd.concat(parts, ignore_index=True)


def spread_of(table: pd.DataFrame) -> Spread | None:
    """Of one factor's residuals; None of fewer than two groups of three rows."""
    sizes = table.groupby("group", sort=False)["residual"].transform("size")
    kept = table[sizes >= FEW]
    groups = [part.to_numpy() for _, part in kept.groupby("group", sort=False)["residual"]]
    if len(groups) < 2:
        return None
    from scipy.stats import f, levene  # takes long to load

    statistic = float(levene(*groups, center="median").statistic)
    deviations = [float(np.std(part, ddof=1)) for part in groups]
    df, rest = len(groups) - 1, len(kept) - len(groups)
    p = float(f.sf(statistic, df, rest))
    name = str(table["factor"].iloc[0])
    return Spread(name, min(deviations), max(deviations), len(groups), statistic, df, rest, p)


def standardised_modes(fit: Fit) -> pd.DataFrame:
    """A row a group and an effect: parameter, factor, group, effect, standardised. Effects whose modes cannot move, because their
    variance is 0 or nothing was seen of them, are left out.

    Raises
    ------
    BadArgument
        no random effects
    """
    model = fit.model
    if not isinstance(model, RandomEffects):
        raise BadArgument(f"a {type(model).__name__} has no random effects.")
    table = random_effects(fit.objective)
    sigma = float(model.sigma(model.coefficients.detach()))
    variance: dict[tuple[str, str, str], float] = {}
    for r, at in zip(model.random, model.places, strict=True):
        if (
            r.smooth or r.each or isinstance(r.structure, Series)
        ):  # the steps of a series depend on each other
            continue
        factor = sigma * r.structure.factor(model.covariance.detach()[at])
        for effect, own in zip(r.effects, (factor**2).sum(1).tolist(), strict=True):
            variance[r.parameter, r.label, effect] = own
    keys = zip(table["parameter"], table["factor"], table["effect"], strict=True)
    total = np.array([variance.get(key, 0.0) for key in keys])
    moves = total - table["standard_error"].to_numpy() ** 2
    able = moves > NOTHING * np.maximum(total, NOTHING)
    out: pd.DataFrame = table.loc[able, ["parameter", "factor", "group", "effect"]].reset_index(drop=True)
    out["standardised"] = table["mode"].to_numpy()[able] / np.sqrt(moves[able])
    return out
