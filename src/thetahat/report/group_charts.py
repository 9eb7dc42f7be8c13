"""Residuals of a mixed model, group by group, and its modes against the normal's quantiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from ..distributions import chi2
from ..evaluation.group_residuals import residuals_by_group, standardised_modes
from ..printable import printable
from ..types import Chart
from .formatting import count
from .scatter import quantile_residuals, quantiles
from .theme import HEIGHT, MAIN, QUIET, WIDTH, titled

if TYPE_CHECKING:
    from ..result import Fit

NAMED = 30  # groups up to which each has its box
DRAWN = 2000  # groups of one chart
PANELS = 6


def modes(fit: Fit) -> list[Chart]:
    """Standardised modes of each effect against the normal's quantiles."""
    table = standardised_modes(fit)
    panels = []
    for (parameter, factor, effect), part in table.groupby(["parameter", "factor", "effect"], sort=False):
        whose = "" if parameter == table["parameter"].iloc[0] else f"{parameter}: "
        panels.append(
            quantiles(
                part["standardised"].to_numpy(),
                residual="standardised mode",
                title=f"Modes of {whose}{effect} | {factor}",
                rows="groups",
            )
        )
    return panels[:PANELS]


def residuals(fit: Fit) -> list[Chart]:
    """Quantile residuals within the groups of each factor."""
    return [
        of_groups(part, str(factor))
        for factor, part in residuals_by_group(fit, quantile_residuals(fit)).groupby("factor", sort=False)
    ]


def of_groups(table: pd.DataFrame, factor: str) -> Chart:
    """Of few groups a box each, from the 5 % to the 95 % quantile; of many their standard deviations by size."""
    if table["group"].nunique() > NAMED:
        return _funnel(table, factor)
    rows = []
    for group, part in table.groupby("group", sort=False):
        own = np.quantile(part["residual"], [0.05, 0.25, 0.5, 0.75, 0.95])
        rows.append((printable(str(group)), len(part), *own))
    data = pd.DataFrame(rows, columns=["group", "n", "low", "first", "median", "third", "high"])
    order = list(data.sort_values("median", kind="stable", ascending=False)["group"])
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelOverlap=False)
    base = alt.Chart(data).encode(y=alt.Y("group:N", sort=order, title=None, axis=axis))
    x = alt.X("low:Q", title="quantile residual", axis=alt.Axis(tickCount=6))
    layers: list[Chart] = [
        alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=QUIET, strokeDash=[3, 3]).encode(x="zero:Q"),
        base.mark_rule(color=MAIN).encode(x=x, x2="high:Q"),
        base.mark_bar(color=MAIN, opacity=0.35, height=9).encode(x="first:Q", x2="third:Q"),
        base.mark_tick(color=MAIN, thickness=2, size=11).encode(x="median:Q"),
    ]
    note = "median, middle half, and from the 5% to the 95% quantile"
    return alt.layer(*layers).properties(
        width=WIDTH - 60, height=max(60, 18 * len(data)), title=titled(f"Residuals within {factor}", note)
    )


def _funnel(table: pd.DataFrame, factor: str) -> Chart:
    """Standard deviations of the residuals of each group by its rows, between √(χ²(n − 1)/(n − 1)) at 2.5 % and 97.5 %."""
    spread = table.groupby("group", sort=False)["residual"].agg(["std", "size"])
    spread = spread[spread["size"] > 1].sort_values("size", kind="stable")
    many = len(spread)
    if many > DRAWN:
        spread = spread.iloc[np.linspace(0, many - 1, DRAWN).round().astype(int)]
    data = pd.DataFrame({"n": spread["size"].to_numpy(dtype=float), "sd": spread["std"].to_numpy()})
    sizes = np.unique(data["n"])
    low, high = (np.sqrt(chi2.ppf(q, sizes - 1) / (sizes - 1)) for q in (0.025, 0.975))
    band = pd.DataFrame({"n": sizes, "low": low, "high": high})
    wide = len(sizes) and sizes[-1] > 20 * sizes[0]
    x = alt.X(
        "n:Q",
        title="rows of the group" + (" (log scale)" if wide else ""),
        scale=alt.Scale(type="log" if wide else "linear", zero=False),
        axis=alt.Axis(grid=False, tickCount=6, format=",d"),
    )
    y = alt.Y("sd:Q", title="standard deviation", axis=alt.Axis(tickCount=6))
    dots = alt.Chart(data).mark_circle(color=MAIN, opacity=0.5, size=22).encode(x=x, y=y)
    ends = [
        alt.Chart(band).mark_line(color=QUIET, strokeDash=[4, 3]).encode(x=x, y=f"{end}:Q")
        for end in ("low", "high")
    ]
    shown = f"; {count(len(data))} of {count(many)} groups" if len(data) < many else ""
    return alt.layer(*ends, dots).properties(
        width=WIDTH,
        height=HEIGHT,
        title=titled(
            f"Residuals within {factor}", f"95% of groups between the dashes if the model is true{shown}"
        ),
    )
