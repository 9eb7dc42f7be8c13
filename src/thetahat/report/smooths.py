"""Smooth terms in a report: the test of each, and its curve with two bands and its partial residuals.

The inner band holds each point with the probability said, the outer one the whole curve. Of a curve of each group a line a
group, without bands.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from ..errors import BadArgument, ThetahatError
from ..evaluation.smooth_terms import GROUPS
from ..models.mixed import Mixed
from ..printable import printable
from ..types import Chart
from .formatting import number, probability
from .theme import HEIGHT, MAIN, QUIET, WIDTH, titled

if TYPE_CHECKING:
    from ..result import Fit

POINTS = 1_000  # partial residuals of one chart
MANY = 20_000  # rows above which none are drawn
PANELS = 12


def charts(fit: Fit, level: float = 0.95) -> list[Chart]:
    """The curve of each smooth term of one column.

    Raises
    ------
    BadArgument
        no smooth term, or surfaces alone
    """
    found = [_curve(fit, label, level) for label in drawn(fit)]
    found += [_of_each(fit, label) for label in drawn_by_group(fit)]
    if not found:
        raise BadArgument(
            "none of the smooth terms is a curve of one column: fit.curve(term, data) has their values."
        )
    return found[:PANELS]


def drawn(fit: Fit) -> list[str]:
    """The terms that are curves of one column, in every group alike."""
    model = fit.model
    if not isinstance(model, Mixed):
        return []
    first, out = model.first, []
    for r in model.random:
        call = model.encoder.smooths[r.source].smooth.call if r.smooth else None
        if call is not None and len(call.required) == 1 and model.encoder.smooths[r.source].smooth.limits:
            out.append(r.label if r.parameter == first else f"{r.parameter}: {r.label}")
    return out


def drawn_by_group(fit: Fit) -> list[str]:
    """The terms that are a curve of each of a few groups."""
    model = fit.model
    if not isinstance(model, Mixed):
        return []
    mine = [r for r in model.random if r.each and model.groupings[r.source].size <= GROUPS]
    labels = [(r.parameter, model.encoder.smooths[r.curve].label) for r in mine]
    return [label if parameter == model.first else f"{parameter}: {label}" for parameter, label in labels]


def _of_each(fit: Fit, label: str) -> Chart:
    lines = fit.curve(label)
    data = pd.DataFrame(
        {
            "x": lines.iloc[:, 0],
            "group": [printable(str(name)) for name in lines.iloc[:, 1]],
            "value": lines["value"],
        }
    )
    x = alt.X("x:Q", title=printable(str(lines.columns[0])), scale=alt.Scale(zero=False))
    line = alt.Chart(data).mark_line(color=MAIN, strokeWidth=1, opacity=0.6)
    many = data["group"].nunique()
    return line.encode(
        x=x, y=alt.Y("value:Q", title="effect"), detail="group:N", tooltip="group:N"
    ).properties(width=WIDTH, height=HEIGHT, title=titled(label, f"a curve of each of {many} groups"))


def _curve(fit: Fit, label: str, level: float) -> Chart:
    line, whole = fit.curve(label, level=level), fit.curve(label, level=level, simultaneous=True)
    x = str(line.columns[0])
    data = pd.DataFrame(
        {
            "x": line[x],
            "value": line["value"],
            "low": line["low"],
            "high": line["high"],
            "lowest": whole["low"],
            "highest": whole["high"],
        }
    )
    wide = alt.X("x:Q", title=printable(x), scale=alt.Scale(zero=False))
    base = alt.Chart(data).encode(x=wide)
    layers = [
        base.mark_area(color=MAIN, opacity=0.12).encode(y=alt.Y("lowest:Q", title="effect"), y2="highest:Q"),
        base.mark_area(color=MAIN, opacity=0.2).encode(y="low:Q", y2="high:Q"),
    ]
    note = f"{100 * level:g}% bands: of each point, of the whole curve"
    points = pd.DataFrame()
    if fit.observations <= MANY:
        with contextlib.suppress(ThetahatError):
            points = fit.partial_residuals(label).dropna()
    if len(points):
        many = len(points)
        if many > POINTS:
            points = points.iloc[np.linspace(0, many - 1, POINTS).round().astype(int)]
        shown = pd.DataFrame({"x": points[x].to_numpy(), "residual": points["residual"].to_numpy()})
        dots = alt.Chart(shown).mark_point(filled=True, size=12, color=QUIET, opacity=0.35)
        layers.insert(0, dots.encode(x=wide, y="residual:Q"))
        note += "; dots: partial residuals"
    layers.append(base.mark_line(color=MAIN, strokeWidth=2).encode(y="value:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=titled(label, note))


def tests(fit: Fit) -> list[tuple[str, ...]]:
    """Rows of (term, effective degrees of freedom, reference ones, statistic, p)."""
    if not isinstance(fit.model, Mixed) or not any(r.smooth or r.each for r in fit.model.random):
        return []
    try:
        table = fit.smooths()
    except ThetahatError:
        return []
    columns = ("edf", "reference_df", "statistic")
    return [
        (str(term), *(_shown(float(row[c])) for c in columns), probability(float(row["p_value"])))
        for term, row in table.iterrows()
    ]


def _shown(value: float) -> str:
    return "" if math.isnan(value) else number(value, 3)
