"""Whether a fit looks like its data, in sentences with their numbers and figures: what is asked depends on the model.

    times         concordance; P(T ≤ t) and mean survival curves beside Kaplan and Meier's; residuals
    Cox's model   besides whether hazards are proportional, Cox–Snell and deviance residuals
    levels        the share of each, predicted and observed; of ordered ones whether odds are proportional
    random effects   residuals within the groups
    every family with a cdf   quantile residuals, and their tests against data drawn from the fit
    a regression  the rows that pull most at its coefficients

Each number is one that a method of the fit gives, and the sentence says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..errors import NotConverged, ThetahatError
from ..evaluation.cox_fits import cox_fit
from ..evaluation.cox_residuals import cox_snell_of
from ..evaluation.fitted_values import batches
from ..evaluation.group_residuals import residuals_by_group, spread_of
from ..evaluation.outliers import alignment_of
from ..evaluation.survival_calibration import rows_of
from ..families.censored import Censored
from ..families.cox import Cox
from ..families.ordinal import Ordinal
from ..models.base import family_of
from ..models.mixed import Mixed
from ..models.regression import Regression
from ..printable import printable
from ..protocols import Categories
from ..types import Chart
from . import group_charts, influence_chart, level_charts, plots, survival_charts
from .formatting import count, fixed, join, number, plural, probability
from .scatter import quantile_residuals

if TYPE_CHECKING:
    from ..result import Fit

CHECKED, MIXED, DRAWS = (
    5_000,
    2_000,
    99,
)  # rows (of a mixed model) up to which data are drawn from the fit, and how many sets
REFITTED = 20_000  # rows up to which proportional odds are tested by larger fits; above, by the score
INFLUENCE, SIZE = 200_000, 200  # rows and coefficients up to which influence is computed unasked
NAMED = 8  # levels whose shares a sentence names
WHAT = {
    "uniformity": "uniformity",
    "dispersion": "dispersion",
    "excess_zeros": "number of zeros",
    "outliers": "largest residual",
    "hosmer_lemeshow": "Hosmer and Lemeshow's groups",
}


@dataclass(frozen=True)
class Question:
    """One thing that is asked of a fit: the sentences that answer, and the charts that show it. Either may be nothing."""

    say: Callable[[Fit], Iterator[str]] | None = None
    draw: Callable[[Fit], list[Chart]] | None = None


def questions(fit: Fit) -> list[Question]:
    """What is asked of this fit, in order."""
    family, model = family_of(fit.model), fit.model
    out = []
    if isinstance(family, Cox):
        plain = not isinstance(model, Mixed)
        out = [Question(concordance)] if plain and fit.names else []
        out += [Question(of_times, plots.calibration), Question(curves, survival_charts.curves)]
        out += [Question(hazards, survival_charts.proportional_hazards)] if plain and fit.names else []
        return [*out, Question(cox_snell, survival_charts.residuals)]
    if isinstance(family, Censored):
        exact = not _in_intervals(fit)
        out = [Question(concordance), Question(of_times, plots.calibration)] if exact else []
        out += [Question(curves, survival_charts.curves)] if exact else []
    elif isinstance(family, Categories):
        out = [Question(shares, level_charts.calibration)]
        if isinstance(family, Ordinal) and isinstance(model, Regression) and len(model.predictors) > 2:
            out.append(Question(odds))
    else:
        out = [] if family is None else [Question(None, plots.calibration)]
    out.append(Question(residuals, plots.residuals))
    if isinstance(model, Mixed) and model.groupings:
        out.append(Question(within, group_charts.residuals))
    elif isinstance(model, Regression) and _small(fit):
        out.append(Question(influence, influence_chart.charts))
    return out


def _small(fit: Fit) -> bool:
    plain = fit.robust is None and not fit.objective.kinked and len(fit.objective.terms) == 1
    return plain and (fit.source.size or 0) <= INFLUENCE and len(fit.theta) <= SIZE


def _in_intervals(fit: Fit) -> bool:
    try:
        rows_of(fit)
    except ThetahatError:
        return True
    return False


# ---- times ---------------------------------------------------------------------------------------------------


def concordance(fit: Fit) -> Iterator[str]:
    """Harrell's C."""
    found = fit.concordance()
    low, high = found.interval()
    yield (
        f"Concordance {found.value:.3f} (95% {low:.3f} to {high:.3f}): of {count(found.pairs)} pairs of which it is known whose time was "
        f"longer, the fit tells {100 * found.value:.1f}% rightly (ties of its predictions count half); guessing tells half."
    )


def of_times(fit: Fit) -> Iterator[str]:
    """P(T ≤ t) of all rows together."""
    row = fit.calibration(bins=1)
    at, one = row.attrs["at"], row.iloc[0]
    interval = "" if np.isnan(one["low"]) else f" (95% {one['low']:.3f} to {one['high']:.3f})"
    yield (
        f"P(T ≤ {number(at)}), at the median time of events: predicted {one['predicted']:.3f} on average, by Kaplan and Meier "
        f"{one['observed']:.3f}{interval}."
    )


def curves(fit: Fit) -> Iterator[str]:
    """Where a group's mean curve is farthest from Kaplan and Meier's."""
    table = survival_charts.curves_table(fit)
    gap = (table["predicted"] - table["observed"]).abs()
    row = table.iloc[int(np.nanargmax(gap.to_numpy()))]
    names = survival_charts.GROUPS
    several = table["group"].nunique() == len(names)
    where = (
        f" among the rows of {names[int(row['group'])].replace('middle', 'middle risk')}" if several else ""
    )
    inside = table["low"].notna() & table["observed"].notna()
    within = ((table["predicted"] >= table["low"]) & (table["predicted"] <= table["high"]))[inside].mean()
    yield (
        f"The mean survival curve is farthest from Kaplan and Meier's at {number(row['time'])}{where}: {row['predicted']:.3f} predicted, "
        f"{row['observed']:.3f} observed. {100 * within:.0f}% of the points compared lie in the 95% band."
    )


def hazards(fit: Fit) -> Iterator[str]:
    """The test of proportional hazards."""
    yield _of_terms(
        fit.proportional_hazards(),
        "Proportional hazards",
        "score test",
        "a hazard ratio changes over time",
    )


def cox_snell(fit: Fit) -> Iterator[str]:
    """The cumulative hazard of Cox–Snell residuals near their end."""
    table = survival_charts.hazard_of(*cox_snell_of(cox_fit(fit, "a residual", effects=True)))
    at, hazard, low, high = survival_charts.near_the_end(table)
    yield (
        f"Cox–Snell residuals behave as times of rate 1 if the model is true: at {number(at, 3)} their cumulative hazard is "
        f"{number(hazard, 3)} (95% {number(low, 3)} to {number(high, 3)})."
    )


# ---- levels ---------------------------------------------------------------------------------------------------


def shares(fit: Fit) -> Iterator[str]:
    """The share of each level, observed and predicted."""
    table = fit.calibration(bins=1)
    shown = table.sort_values("observed", ascending=False, kind="stable").head(NAMED).sort_index()
    each = [
        f"{printable(str(row['level']))} {100 * row['observed']:.1f}% and {100 * row['predicted']:.1f}%"
        for row in shown.to_dict("records")
    ]
    left = len(table) - len(shown)
    more = f"; {plural(left, 'rarer level')} besides" if left else ""
    yield f"Shares, observed and predicted: {join(each)}{more}."


def odds(fit: Fit) -> Iterator[str]:
    """The test of proportional odds: by larger fits, or by the score where they are dear or have no maximum."""
    kind = "likelihood_ratio" if (fit.source.size or 0) <= REFITTED else "score"
    try:
        table = fit.proportional_odds(kind)
    except NotConverged:
        kind = "score"
        table = fit.proportional_odds(kind)
    yield _of_terms(
        table,
        "Proportional odds",
        {"likelihood_ratio": "likelihood ratio", "score": "score test"}[kind],
        "an effect differs from threshold to threshold",
    )


def _of_terms(table: pd.DataFrame, title: str, kind: str, means: str) -> str:
    """The test of all terms, and that of the least p, where there are several."""
    every, terms = table.iloc[-1], table.iloc[:-1]  # the last row is of all
    text = f"{title} ({kind}): {_chi2(every)} of all terms together"
    if len(terms) == 1:
        text = f"{title} ({kind}): {_chi2(every)}"
    elif len(terms):
        least = int(np.argmin(terms["p"].to_numpy()))
        text += f"; the least p is that of {printable(str(terms.index[least]))}, {_chi2(terms.iloc[least])}"
    return f"{text}. A small p says that {means}."


def _chi2(row: pd.Series) -> str:
    return f"χ²({row['df']:.0f}) = {number(row['statistic'])}, p = {probability(row['p'])}"


# ---- residuals -------------------------------------------------------------------------------------------------


def residuals(fit: Fit) -> Iterator[str]:
    """Mean and standard deviation of quantile residuals, and their tests."""
    centre, spread = _moments(fit)
    mean = round(centre, 3) + 0.0  # of −0.0002 no minus sign is left
    scale = (
        " (on the scale of the latent variable they are surrogate residuals)"
        if isinstance(family_of(fit.model), Ordinal)
        else ""
    )
    given = (
        ", given the modes of the random effects"
        if isinstance(fit.model, Mixed) and fit.model.groupings
        else ""
    )
    yield (
        f"Quantile residuals{scale}{given}: mean {fixed(mean, 3)}, standard deviation {spread:.3f}; 0 and 1 if the "
        "model is true."
    )
    if fit.observations > (MIXED if isinstance(fit.model, Mixed) else CHECKED):
        return
    try:
        found = fit.check(DRAWS)
    except ThetahatError:  # censored, weighted, robust: no data can be drawn, and the figure is what there is
        return
    tests = [f"{WHAT[str(name)]} p = {p:.2f}" for name, p in found.table["p_value"].items()]
    note = f" {found.note}" if found.note else ""
    yield f"Against {found.draws} data sets drawn from the fit: {join(tests)}.{note}"


def _moments(fit: Fit) -> tuple[float, float]:
    """Mean and standard deviation of the quantile residuals, a row counted as often as it was observed."""
    values = np.asarray(quantile_residuals(fit), dtype=float)
    own = values[alignment_of(fit.source).numbers]
    count_ = np.concatenate(
        [b.count.to(torch.float64).numpy() for b in batches(fit.source, fit._of_rows().model)]
    )
    known = np.isfinite(own) & (count_ > 0)
    mean = float(np.average(own[known], weights=count_[known]))
    return mean, float(np.sqrt(np.average((own[known] - mean) ** 2, weights=count_[known])))


def within(fit: Fit) -> Iterator[str]:
    """Whether the residuals of all groups spread alike."""
    for factor, part in residuals_by_group(fit, quantile_residuals(fit)).groupby("factor", sort=False):
        found = spread_of(part)
        if found is None:
            continue
        yield (
            f"Residuals within {printable(str(factor))} have standard deviations from {number(found.least, 3)} to {number(found.most, 3)} "
            f"({plural(found.groups, 'group')}); that they are one: F({found.df}, {count(found.df_error)}) = {number(found.statistic)}, "
            f"p = {probability(found.p)} (Brown and Forsythe)."
        )


def influence(fit: Fit) -> Iterator[str]:
    """The rows with the largest Cook's distances."""
    table = fit.influence().dropna()
    top = table["cook"].sort_values(ascending=False, kind="stable").head(3)
    each = [f"{number(value, 3)} (row {printable(str(row))})" for row, value in top.items()]
    yield f"The largest Cook's distances are {join(each)}; leverages reach {number(float(table['leverage'].max()), 3)}."
