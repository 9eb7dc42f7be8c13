"""Cook's distance against leverage: the rows that pull most at the coefficients are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from ..printable import printable
from ..types import Chart, Settings
from .formatting import count
from .scatter import POINTS, opacity_of, row_named, size_of
from .theme import HEIGHT, INK, MAIN, WIDTH, titled

if TYPE_CHECKING:
    from ..result import Fit

NAMED = 5
ACROSS, UP = 0.18, 0.07  # of the chart, that a name takes


def charts(fit: Fit) -> list[Chart]:
    """Of a regression; the rows with the largest distances are always drawn."""
    table = fit.influence().dropna().sort_values("cook", ascending=False, kind="stable")
    rest = table.iloc[NAMED:]
    few = rest if len(rest) <= POINTS else rest.sample(POINTS, random_state=0)
    data = pd.concat([table.head(NAMED), few])
    data = data.assign(
        row=[printable(str(row)) for row in data.index], said=[row_named(row) for row in data.index]
    )
    x = alt.X("leverage:Q", title="leverage", axis=alt.Axis(grid=False, tickCount=5))
    y = alt.Y("cook:Q", title="Cook's distance", axis=alt.Axis(tickCount=6))
    dots = alt.Chart(data).mark_circle(size=size_of(len(data)), color=MAIN, opacity=opacity_of(len(data)))
    named = _apart(data.head(NAMED))
    near = named["leverage"] < ACROSS * data["leverage"].max()  # whose names would run into the axis
    text: Settings = {"baseline": "bottom", "dy": -2, "fontSize": 10, "color": INK}
    names = [
        alt.Chart(named[~near]).mark_text(align="right", dx=-4, **text),
        alt.Chart(named[near]).mark_text(align="left", dx=4, **text),
    ]
    left = f"; {count(len(data))} of {count(len(table))} rows drawn" if len(data) < len(table) else ""
    layers = [
        dots.encode(x=x, y=y, description="said:N"),
        *(part.encode(x=x, y=y, text="row:N") for part in names),
    ]
    return [
        alt.layer(*layers).properties(
            width=WIDTH,
            height=HEIGHT,
            title=titled("Influence", f"the rows that pull most are named{left}"),
        )
    ]


def _apart(data: pd.DataFrame) -> pd.DataFrame:
    """Those of the rows, largest distance first, whose names would not be written over one before them."""
    across, up = data["leverage"].max() or 1.0, data["cook"].max() or 1.0
    kept: list[int] = []
    for i, (h, d) in enumerate(zip(data["leverage"], data["cook"], strict=True)):
        placed = ((data["leverage"].iloc[k], data["cook"].iloc[k]) for k in kept)
        if all(abs(h - x) > ACROSS * across or abs(d - y) > UP * up for x, y in placed):
            kept.append(i)
    return data.iloc[kept]
