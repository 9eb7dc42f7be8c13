"""Charts of predictions, comparisons, slopes and means."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from ..errors import BadArgument
from ..printable import printable
from ..types import Chart
from .plots import styled
from .scatter import POINTS
from .theme import COLOURS, HEIGHT, MAIN, QUIET, WIDTH, legend, titled

NUMBERS = ("estimate", "standard_error", "z", "t", "df", "p_value", "low", "high")
DOTS = WIDTH - 60  # of dots, beside which their names stand


def chart(table: pd.DataFrame, title: str, level: float, null: float = 0.0) -> Chart:
    """Dots with their intervals, a row an estimate; a line with its band where a column of numbers varies.

    Parameters
    ----------
    null
        the value of no effect, at which contrasts have a line: 0 of differences, 1 of ratios

    Raises
    ------
    BadArgument
        more rows than a chart can show
    """
    if len(table) > POINTS:
        raise BadArgument(
            f"{len(table):,} estimates are more than a chart shows ({POINTS:,}). Average them (by=), or ask for fewer."
        )
    own = [str(c) for c in table if c not in NUMBERS]
    labels = [c for c in own if len(table) == 1 or table[c].astype(str).nunique() > 1]
    numbers = [c for c in labels if pd.api.types.is_float_dtype(table[c])]
    below = f"{100 * level:g}% intervals"
    if numbers and table[numbers[0]].nunique() > 2:
        return styled(_line(table, numbers[0], [c for c in labels if c != numbers[0]], titled(title, below)))
    return styled(_dots(table, labels, titled(title, below, DOTS), null))


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    out = table[["estimate", "low", "high"]].astype(float).replace([np.inf, -np.inf], np.nan)
    return out.reset_index(drop=True)


def _names(table: pd.DataFrame, labels: list[str]) -> list[str]:
    if not labels:
        return [str(i + 1) for i in range(len(table))]
    return [printable(" ".join(map(_text, row))) for row in table[labels].itertuples(index=False, name=None)]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _line(table: pd.DataFrame, x: str, rest: list[str], heading: alt.TitleParams) -> Chart:
    data = _ends(table).assign(x=table[x].to_numpy(), which=_names(table, rest) if rest else "")
    names = list(dict.fromkeys(data["which"]))
    if len(names) > len(COLOURS):
        raise BadArgument(
            f"{len(names)} curves are more than one chart can tell apart ({len(COLOURS)}). Ask for fewer values in at=."
        )
    colour = alt.Color(
        "which:N",
        scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])),
        legend=legend(names),
    )
    base = alt.Chart(data).encode(
        x=alt.X("x:Q", title=printable(x), scale=alt.Scale(zero=False)), color=colour
    )
    y = alt.Y("estimate:Q", title="estimate", scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="estimate"), y2="high:Q")
    return alt.layer(band, base.mark_line(strokeWidth=2).encode(y=y)).properties(
        width=WIDTH, height=HEIGHT, title=heading
    )


def _dots(table: pd.DataFrame, labels: list[str], heading: alt.TitleParams, null: float) -> Chart:
    data = _ends(table).assign(name=_names(table, labels))
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False, domain=False))
    base = alt.Chart(data).encode(y=y)
    dots = base.mark_point(filled=True, size=55, color=MAIN, opacity=1).encode(
        x=alt.X("estimate:Q", title="estimate", scale=alt.Scale(zero=False))
    )
    layers: list[Chart] = [base.mark_rule(color=MAIN, strokeWidth=2).encode(x="low:Q", x2="high:Q"), dots]
    if "contrast" in labels or {"term", "contrast"} & set(table):
        rule = alt.Chart(pd.DataFrame({"null": [null]})).mark_rule(color=QUIET, strokeDash=[3, 3])
        layers.insert(0, rule.encode(x="null:Q"))
    return alt.layer(*layers).properties(
        width=DOTS, height=max(60, 22 * data["name"].nunique()), title=heading
    )
