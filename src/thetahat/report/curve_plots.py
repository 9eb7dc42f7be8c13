"""Charts of nonparametric curves: steps with their bands, and a mark where rows were censored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from ..errors import BadArgument
from ..nonparametric import CompetingRisks, Curves, Nonparametric
from ..printable import printable
from .plots import styled
from .scatter import POINTS
from .theme import COLOURS, HEIGHT, WIDTH, legend, titled

if TYPE_CHECKING:
    from ..types import Chart


MARKS = 300  # of censored rows, more of which would be a line


def plot(fit: Curves, what: str, level: float) -> alt.TopLevelMixin:
    """A chart of the curves of a nonparametric fit.

    Parameters
    ----------
    what
        "survival", of competing risks "incidence"
    level
        of the bands

    Raises
    ------
    BadArgument
        an unknown name; more groups than a chart has colours
    """
    own = "incidence" if isinstance(fit, CompetingRisks) else "survival"
    if what not in (own, "survival"):
        raise BadArgument(f"plot({what!r}) is not a chart of these curves. Accepted: {own!r}.")
    if len(fit.groups) > len(COLOURS):
        raise BadArgument(
            f"{len(fit.groups)} groups are more than one chart can tell apart ({len(COLOURS)}). Fit fewer, or draw "
            "fit.curves() yourself."
        )
    if isinstance(fit, CompetingRisks):
        panels = [
            _chart(part.assign(value=part["incidence"]), f"incidence of {cause}", level, fit)
            for cause, part in _by_cause(fit, level)
        ]
    else:
        assert isinstance(fit, Nonparametric)
        panels = [_chart(_survival(fit, level), "survival", level, fit)]
    out: alt.TopLevelMixin = styled(
        panels[0] if len(panels) == 1 else alt.concat(*panels, columns=min(3, len(panels)))
    )
    return out


def _survival(fit: Nonparametric, level: float) -> pd.DataFrame:
    """Columns group, time, value, low, high, censored; of Turnbull's masses a step at the right end of each interval."""
    found = fit.curves() if fit.times.in_intervals else fit.curves(level=level)
    if fit.times.in_intervals:
        found = found[np.isfinite(found["time"])].assign(low=np.nan, high=np.nan, censored=0.0)
    return found.assign(value=found["survival"])


def _by_cause(fit: CompetingRisks, level: float) -> list[tuple[object, pd.DataFrame]]:
    found = fit.curves(level=level).assign(censored=0.0)
    return [(cause, found[[c == cause for c in found["cause"]]]) for cause in fit.causes]


def _chart(curve: pd.DataFrame, title: str, level: float, fit: Curves) -> Chart:
    names = [printable(name) for name in fit.groups]
    begin = pd.DataFrame(
        {"group": list(fit.groups), "time": 0.0, "value": 0.0 if "incidence" in curve else 1.0}
    )
    begin["low"] = begin["high"] = np.nan
    data = pd.concat([begin.assign(censored=0.0), curve[list(begin.columns) + ["censored"]]])
    data = pd.concat([_thinned(part, POINTS // len(names)) for _, part in data.groupby("group", sort=False)])
    data["group"] = data["group"].map(printable)
    known = data["low"].notna().any()
    x = alt.X("time:Q", title=printable(fit.times.response), axis=alt.Axis(grid=False, tickCount=6))
    y = alt.Y("value:Q", title=printable(title), scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=6))
    colour = alt.Color(
        "group:N", scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])), legend=legend(names)
    )
    base = alt.Chart(data).encode(x=x, color=colour)
    layers: list[Chart] = [base.mark_line(interpolate="step-after", strokeWidth=2).encode(y=y)]
    if known:
        band = alt.Chart(data[data["low"].notna()]).encode(x=x, color=colour)
        layers.insert(
            0,
            band.mark_area(interpolate="step-after", opacity=0.15).encode(
                y=alt.Y("low:Q", title=printable(title)), y2="high:Q"
            ),
        )
    gone = data[data["censored"] > 0]
    if 0 < len(gone) <= MARKS:
        ticks = alt.Chart(gone).mark_tick(orient="vertical", thickness=1, size=9)
        layers.append(ticks.encode(x=x, y=y, color=colour))
    said = [f"{100 * level:g}% bands"] if known else []
    said += ["ticks: censored"] if 0 < len(gone) <= MARKS else []
    heading = titled(title.capitalize(), "; ".join(said))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=heading)


def _thinned(part: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many steps: a chart does not show more."""
    keep = np.unique(np.linspace(0, len(part) - 1, min(len(part), most)).round().astype(int))
    return part.iloc[keep]
