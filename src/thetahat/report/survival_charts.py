"""Charts of fits of times: mean curves beside Kaplan and Meier's, hazard ratios over time, residuals of Cox's model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd
from scipy.special import ndtri

from ..evaluation.cox_fits import cox_fit
from ..evaluation.cox_residuals import cox_snell_of
from ..evaluation.product_limit import steps
from ..types import Chart
from .formatting import number, probability
from .scatter import against_fitted, opacity_of, sampled, size_of
from .theme import HEIGHT, MAIN, QUIET, SECOND, WIDTH, legend, titled

if TYPE_CHECKING:
    from ..result import Fit

GROUPS = ("least risk", "middle", "most risk")
PANELS = 6  # coefficients whose ratio is followed over time
OUTSIDE = 0.01  # of the residuals at either end, which the axis leaves out


def curves(fit: Fit) -> list[Chart]:
    """The mean survival curve of three groups of risk, beside Kaplan and Meier's."""
    return [curves_of(curves_table(fit))]


def curves_table(fit: Fit) -> pd.DataFrame:
    """`fit.survival_calibration` of as many groups, computed once for the sentence and the chart."""
    out: pd.DataFrame = fit._cached("mean curves", lambda: fit.survival_calibration(len(GROUPS)))
    return out


def curves_of(table: pd.DataFrame) -> Chart:
    data = table.copy()
    names = (
        list(GROUPS)
        if data["group"].nunique() == len(GROUPS)
        else sorted({f"group {g + 1}" for g in data["group"]})
    )
    names = [""] if data["group"].nunique() == 1 else names
    data["risk"] = [names[g] for g in data["group"]]
    x = alt.X("time:Q", title="time", axis=alt.Axis(grid=False, tickCount=6))
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(tickCount=6)
    colour = alt.Color(
        "risk:N",
        scale=alt.Scale(domain=names, range=[MAIN, QUIET, SECOND][: len(names)]),
        legend=legend(names) if len(names) > 1 else None,
    )
    base = alt.Chart(data).encode(x=x, color=colour)
    band = alt.Chart(data[data["low"].notna()]).mark_area(opacity=0.13, interpolate="step-after")
    band = band.encode(x=x, color=colour, y=alt.Y("low:Q", title="survival", scale=scale), y2="high:Q")
    seen = alt.Chart(data[data["observed"].notna()]).mark_line(strokeWidth=2, interpolate="step-after")
    y = alt.Y("observed:Q", title="survival", scale=scale, axis=axis)
    model = base.mark_line(strokeWidth=1.5, strokeDash=[5, 3]).encode(
        y=alt.Y("predicted:Q", title="survival")
    )
    heading = titled("Survival", "steps: Kaplan–Meier with 95% bands; dashes: the fit's mean curve")
    return alt.layer(band, seen.encode(x=x, color=colour, y=y), model).properties(
        width=WIDTH, height=HEIGHT, title=heading
    )


def proportional_hazards(fit: Fit) -> list[Chart]:
    """Scaled Schoenfeld residuals of each coefficient over time, with a smooth: β(t)."""
    residuals = fit.residuals("scaled schoenfeld")
    assert isinstance(residuals, pd.DataFrame)
    tests = fit.proportional_hazards(terms=False)
    return [
        _over_time(residuals["time"].to_numpy(), residuals[name].to_numpy(), name, fit, p)
        for name, p in zip(fit.names[:PANELS], tests["p"].to_numpy(dtype=float), strict=False)
    ]


def _over_time(time: np.ndarray, values: np.ndarray, name: str, fit: Fit, p: float) -> Chart:
    keep, _ = sampled(np.isfinite(values))
    data = pd.DataFrame({"time": time[keep], "beta": values[keep]})
    estimate = float(fit.estimates[name])
    low, high = np.quantile(values, [OUTSIDE, 1 - OUTSIDE])
    scale = alt.Scale(domain=[min(low, estimate), max(high, estimate)], zero=False, clamp=False)
    wide = time.min() > 0 and time.max() > 50 * np.median(time)
    x = alt.X(
        "time:Q",
        title="time" + (" (log scale)" if wide else ""),
        scale=alt.Scale(type="log" if wide else "linear", zero=False),
        axis=alt.Axis(grid=False, tickCount=5),
    )
    y = alt.Y("beta:Q", title="β(t)", scale=scale, axis=alt.Axis(tickCount=6))
    dots = alt.Chart(data).mark_circle(
        size=size_of(len(data)), color=MAIN, opacity=opacity_of(len(data)), clip=True
    )
    level = alt.Chart(pd.DataFrame({"beta": [estimate]})).mark_rule(color=QUIET, strokeDash=[5, 3])
    layers: list[Chart] = [dots.encode(x=x, y=y), level.encode(y=y)]
    if data["time"].nunique() >= 10:
        smooth = alt.Chart(data).transform_loess("time", "beta", bandwidth=0.6)
        layers.append(smooth.mark_line(color=SECOND, strokeWidth=2, clip=True).encode(x=x, y=y))
    note = f"dashes: β̂ = {number(estimate, 3)}; proportional: p = {probability(p)}"
    heading = titled(f"{name} over time", note)
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=heading)


def residuals(fit: Fit) -> list[Chart]:
    """Of Cox's model: the cumulative hazard of Cox–Snell residuals, and deviance residuals against the linear predictor."""
    found = cox_fit(fit, "a chart of residuals", effects=True)
    own = fit.residuals("deviance")
    deviance, labels = np.asarray(own, dtype=float), own.index if isinstance(own, pd.Series) else None
    linear = np.asarray(fit.predict(what="linear"), dtype=float)
    panels = [cumulative(*cox_snell_of(found))]
    if np.unique(linear[np.isfinite(linear)]).size > 1:
        words = {"of": "linear predictor", "residual": "deviance residual", "title": "Deviance residuals"}
        panels.append(against_fitted(linear, deviance, labels=labels, **words))
    return panels


def cumulative(residual: np.ndarray, event: np.ndarray, count: np.ndarray) -> Chart:
    """Nelson and Aalen's cumulative hazard of Cox–Snell residuals: the line y = x if the model is true."""
    table = hazard_of(residual, event, count)
    keep = np.unique(np.linspace(0, len(table) - 1, min(len(table), 300)).round().astype(int))
    data = table.iloc[keep]
    end = float(data["residual"].max())
    x = alt.X("residual:Q", title="Cox–Snell residual", axis=alt.Axis(grid=False, tickCount=6))
    line = alt.Chart(pd.DataFrame({"a": [0.0, end]})).mark_line(color=QUIET, strokeWidth=1)
    base = alt.Chart(data).encode(x=x)
    band = base.mark_area(color=MAIN, opacity=0.13, interpolate="step-after", clip=True)
    y = alt.Y("hazard:Q", title="its cumulative hazard", axis=alt.Axis(tickCount=6))
    steps_ = base.mark_line(color=MAIN, strokeWidth=2, interpolate="step-after")
    top = float(np.nanmax([end, data["hazard"].max()]))
    low = alt.Y("low:Q", title="its cumulative hazard", scale=alt.Scale(domain=[0, 1.3 * top]))
    return alt.layer(
        band.encode(y=low, y2="high:Q"), line.encode(x="a:Q", y="a:Q"), steps_.encode(y=y)
    ).properties(
        width=WIDTH,
        height=HEIGHT,
        title=titled("Cox–Snell residuals", "on the line if the model is true; 95% band"),
    )


def hazard_of(
    residual: np.ndarray, event: np.ndarray, count: np.ndarray, level: float = 0.95
) -> pd.DataFrame:
    """residual, hazard, low, high at each residual of an event: H e^{±z s/H}, s² = Σ d/n² (Nelson and Aalen)."""
    found = steps(residual, event, None, count)
    at = found.total > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.cumsum(found.total / found.at_risk**2))[at]
    H = found.cumulative_hazard[at]
    factor = np.exp(float(ndtri((1 + level) / 2)) * error / H)
    return pd.DataFrame({"residual": found.time[at], "hazard": H, "low": H / factor, "high": H * factor})


def near_the_end(table: pd.DataFrame) -> tuple[float, ...]:
    """(residual, hazard, low, high) at the 90 % quantile of the residuals of events; NaN without any."""
    if not len(table):
        return (math.nan,) * 4
    row = table.iloc[int(0.9 * (len(table) - 1))]
    return tuple(float(row[name]) for name in ("residual", "hazard", "low", "high"))
