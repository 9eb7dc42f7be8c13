"""The probability of each level of a response that is a category: predicted against observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from ..printable import printable
from ..types import Chart
from .formatting import plural
from .theme import COLOURS, HEIGHT, QUIET, WIDTH, legend, titled

if TYPE_CHECKING:
    from ..result import Fit

BINS = 6


def calibration(fit: Fit) -> list[Chart]:
    """Shares of each level by its predicted probability, of the most frequent ones where there are many."""
    return [calibration_of(fit.calibration(bins=BINS))]


def calibration_of(table: pd.DataFrame) -> Chart:
    happened = (table["observed"] * table["n"]).groupby(table["level"], sort=False).sum()
    order = list(dict.fromkeys(table["level"]))
    shown = set(happened.sort_values(ascending=False, kind="stable").index[: len(COLOURS)])
    kept = [level for level in order if level in shown]
    data = table[table["level"].isin(kept)].copy()
    data["level"] = data["level"].map(lambda v: printable(str(v)))
    names = [printable(str(level)) for level in kept]
    end = float(data[["predicted", "high"]].max().max())
    x = alt.X("predicted:Q", title="predicted probability", axis=alt.Axis(grid=False, tickCount=6))
    colour = alt.Color(
        "level:N", scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])), legend=legend(names)
    )
    line = alt.Chart(pd.DataFrame({"a": [0.0, end]})).mark_line(color=QUIET, strokeWidth=1)
    base = alt.Chart(data).encode(x=x, color=colour)
    y, axis = "observed share", alt.Axis(tickCount=6)
    rules = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        y=alt.Y("low:Q", title=y, axis=axis), y2="high:Q"
    )
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(y=alt.Y("observed:Q", title=y, axis=axis))
    left = len(order) - len(kept)
    note = "on the line if the model is true" + (f"; {plural(left, 'rarer level')} not drawn" if left else "")
    return alt.layer(line.encode(x="a:Q", y="a:Q"), rules, dots).properties(
        width=WIDTH, height=HEIGHT, title=titled("Calibration of each level", note)
    )
