"""Random effects in a report: variance components with their intervals, shares of variance, caterpillar plots, and series.

A caterpillar plot has a line a group, sorted by the conditional mode: the mode, and the interval that its standard error
gives. Of few groups each is named; of many the lines stand closer and without names; of very many an even selection of
them by rank is drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from ..distributions import norm
from ..errors import ThetahatError
from ..models.latent import LatentModel
from ..models.mixed import Mixed
from ..models.random_effects import RandomEffects
from ..models.series import Series
from ..printable import printable
from ..types import Chart
from .formatting import count, number
from .theme import HEIGHT, MAIN, QUIET, WIDTH, titled

if TYPE_CHECKING:
    from ..result import Fit

NAMED = 30  # groups up to which each has its name
DRAWN = 300  # groups of one chart
PANELS = 12  # factors and effects
PROFILED = 20_000  # rows above which intervals are Wald's: profiles are refits, which are not made unasked


def charts(fit: Fit, level: float = 0.95) -> list[Chart]:
    """A caterpillar plot of each effect of each grouping factor.

    Raises
    ------
    BadArgument
        no random effects
    """
    table, model = fit.random_effects(), fit.model
    first = next(iter(table["parameter"]))
    found = []
    if isinstance(model, LatentModel):
        for r in model.random:
            if isinstance(r.structure, Series):
                own = (table["parameter"] == r.parameter) & (table["factor"] == r.label)
                found += _series(table[own], r.structure, str(model.latents[r.parameter].along), level)
                table = table[~own]
    for (parameter, factor, effect), part in table.groupby(["parameter", "factor", "effect"], sort=False):
        whose = "" if parameter == first or isinstance(fit.model, LatentModel) else f"{parameter}: "
        found.append(_caterpillar(part, f"{whose}{effect} | {factor}", level))
    return found[:PANELS]


def _series(table: pd.DataFrame, series: Series, along: str, level: float) -> list[Chart]:
    """The modes of a series over its steps, with a band: a chart of each group, of the first ones where there are many."""
    wide, out = float(norm.ppf((1 + level) / 2)), []
    groups = list(dict.fromkeys(table["group"]))
    for group in groups[:PANELS]:
        part = table[table["group"] == group][["mode", "standard_error"]].assign(step=series.steps)
        keep = np.unique(np.linspace(0, len(part) - 1, min(len(part), DRAWN)).round().astype(int))
        data = part.iloc[keep].reset_index(drop=True)
        data["low"], data["high"] = (data["mode"] + s * wide * data["standard_error"] for s in (-1, 1))
        x = alt.X(
            "step:Q",
            title=printable(along),
            scale=alt.Scale(zero=False),
            axis=alt.Axis(format="d", grid=False),
        )
        base = alt.Chart(data).encode(x=x)
        band = base.mark_area(opacity=0.2, color=MAIN).encode(
            y=alt.Y("low:Q", title="conditional mode"), y2="high:Q"
        )
        line = base.mark_line(strokeWidth=2, color=MAIN).encode(y="mode:Q")
        note = f"{100 * level:g}% intervals"
        if len(groups) > PANELS:
            note += f"; the first {PANELS} of {count(len(groups))} groups"
        title = titled(f"{series.name} | {group}" if len(groups) > 1 else series.name, note)
        out.append(alt.layer(band, line).properties(width=WIDTH - 60, height=HEIGHT, title=title))
    return out


def _caterpillar(part: pd.DataFrame, title: str, level: float) -> Chart:
    wide = float(norm.ppf((1 + level) / 2))
    data = part[["group", "mode", "standard_error"]].sort_values("mode", kind="stable", ignore_index=True)
    many, note = len(data), f"{100 * level:g}% intervals"
    if many > DRAWN:
        data = data.iloc[np.linspace(0, many - 1, DRAWN).round().astype(int)].reset_index(drop=True)
        note += f"; {count(DRAWN)} of {count(many)} groups, evenly by rank"
    data["low"], data["high"] = (data["mode"] + s * wide * data["standard_error"] for s in (-1, 1))
    data["group"], data["rank"] = [printable(name) for name in data["group"]], np.arange(len(data))
    few = len(data) <= NAMED
    if few:
        order = list(reversed(data["group"]))
        y = alt.Y(
            "group:N",
            sort=order,
            title=None,
            axis=alt.Axis(grid=False, ticks=False, domain=False, labelOverlap=False),
        )
    else:
        y = alt.Y(
            "rank:Q",
            title=f"{count(many)} groups, by rank",
            axis=alt.Axis(labels=False, ticks=False, grid=False),
        )
    base = alt.Chart(data).encode(y=y)
    x = alt.X("mode:Q", title="conditional mode", axis=alt.Axis(tickCount=6))
    zero = (
        alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=QUIET, strokeDash=[3, 3]).encode(x="zero:Q")
    )
    lines = base.mark_rule(color=MAIN, strokeWidth=2 if few else 1, opacity=1 if few else 0.45).encode(
        x="low:Q", x2="high:Q"
    )
    dots = base.mark_point(filled=True, size=40 if few else 9, color=MAIN, opacity=1).encode(x=x)
    height = max(60, 18 * len(data)) if few else HEIGHT if len(data) <= 120 else 2 * HEIGHT
    return alt.layer(zero, lines, dots).properties(width=WIDTH - 60, height=height, title=titled(title, note))


def components(fit: Fit) -> tuple[list[tuple[str, ...]], str]:
    """Rows of (group, effect, standard deviation, variance, correlation, low, high), and what is said below them; none
    of a fit without random effects."""
    if not isinstance(fit.model, RandomEffects) or not fit.certificate.ok:
        return [], ""
    profiled = fit.observations <= PROFILED
    kind = "profile" if profiled else "wald"
    try:
        table = fit.variance_components(intervals=kind)
    except ThetahatError as error:
        table, kind = fit.variance_components(intervals=None), str(error)
    rows = [
        (
            row["group"]
            if row["parameter"] == fit.model.first
            or row["group"] == "Residual"
            or isinstance(fit.model, LatentModel)
            else f"{row['parameter']}: {row['group']}",
            row["term"],
            *(_shown(row[name]) for name in ("sd", "variance", "correlation", "low", "high")),
        )
        for _, row in table.iterrows()
    ]
    said = {
        "profile": "Intervals (95%) invert the likelihood ratio, of the standard deviation or of the correlation; where one "
        "ends at 0 or at ±1, the data do not exclude that value.",
        "wald": "Intervals (95%) are Wald's, of the standard deviation or of the correlation.",
    }.get(kind, f"Intervals: not shown. {kind}")
    return rows, said


def shares(fit: Fit) -> str:
    """R² and intraclass correlations in a sentence; "" where they are not defined."""
    if not isinstance(fit.model, Mixed) or all(r.smooth for r in fit.model.random) or not fit.certificate.ok:
        return ""
    try:
        found = fit.r_squared()
    except ThetahatError as error:
        return f"R² and intraclass correlation: not shown. {error}"
    named = [(str(k), float(v)) for k, v in found.items()]
    by = [f"{number(v, 3)} of {k[4:-1]}" for k, v in named if k.startswith("icc(")]
    each = f" ({', '.join(by)})" if len(by) > 1 else ""
    return (
        f"R² (Nakagawa): marginal {number(found['marginal'], 3)}, conditional {number(found['conditional'], 3)}; intraclass "
        f"correlation {number(found['icc'], 3)}{each}."
    )


def _shown(value: float) -> str:
    return "" if math.isnan(value) else number(float(value), 4)
