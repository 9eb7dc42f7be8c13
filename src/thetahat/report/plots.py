"""Charts of a fit, in one restrained style. Each is drawn from at most a few thousand points, and says so
where it left some out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd
import torch

from ..errors import BadArgument, NotConverged
from ..evaluation.confusion import classifies
from ..evaluation.confusion import confusion as confused
from ..families.cox import Cox
from ..models import Regression
from ..models.base import family_of
from ..models.custom import Custom
from ..printable import printable
from ..protocols import Categories
from ..types import OF_SEED, Chart, Settings
from . import influence_chart, level_charts, random_effects, smooths, survival_charts
from .facts import BESIDE, Facts, Line, gather
from .formatting import number, plural
from .scatter import POINTS, against_fitted, quantile_residuals, quantiles
from .theme import GRID, HEIGHT, INK, MAIN, QUIET, SECOND, WIDTH, titled

if TYPE_CHECKING:
    from ..result import Fit

NAMES = 40  # estimates of one chart
PROFILES = 6

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def plot(fit: Fit, what: str = "estimates") -> alt.TopLevelMixin:
    """A chart of a fit.

    Parameters
    ----------
    what
        "estimates" (dots with intervals), "calibration" (observed against predicted means, or shares of levels), "residuals"
        (quantile residuals against the fitted mean, and their quantiles against the normal's; of Cox's model Cox–Snell and deviance
        residuals), "survival" (mean curves beside Kaplan and Meier's), "proportional_hazards" (of Cox's model: each coefficient over
        time), "influence" (Cook's distance against leverage), "profile"
        (profile log-likelihoods against their quadratics), "random_effects" (conditional modes of a mixed model, group
        by group), "smooths" (curves of smooth terms with their bands and partial residuals), "trace" (the iterations)

    Returns
    -------
    alt.TopLevelMixin
        An Altair chart.

    Raises
    ------
    BadArgument
        an unknown name, or a chart for which the model lacks what it needs (a mean, a cdf)
    """
    if what not in CHARTS:
        raise BadArgument(f"plot({what!r}) is not a chart. Accepted: {', '.join(map(repr, CHARTS))}.")
    panels = CHARTS[what](fit)
    out: alt.TopLevelMixin = styled(
        panels[0] if len(panels) == 1 else alt.concat(*panels, columns=min(3, len(panels)))
    )
    return out


def styled(chart: Chart, background: str = "white") -> Chart:
    """The one theme: no frame, light grid, one colour and its contrast, legible type."""
    axis: Settings = {
        "labelColor": QUIET,
        "titleColor": INK,
        "gridColor": GRID,
        "domainColor": QUIET,
        "tickColor": QUIET,
        "tickSize": 4,
    }
    text: Settings = {
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 4,
        "labelLimit": 170,
        "labelOverlap": "parity",
        "labelSeparation": 8,
    }
    return chart.configure(
        background=background,
        font=FONT,
        padding={
            "left": 16,
            "right": 16,
            "top": 4,
            "bottom": 4,
        },  # labels are measured in another font than they are drawn in
        axis=alt.AxisConfig(**axis, **text),
        view=alt.ViewConfig(stroke=None),
        title=alt.TitleConfig(
            anchor="start",
            fontSize=13,
            fontWeight=600,
            color=INK,
            subtitleColor=QUIET,
            subtitleFontSize=11,
            offset=10,
            frame="group",
        ),
        legend=alt.LegendConfig(
            labelColor=INK, titleColor=QUIET, labelFontSize=11, symbolStrokeWidth=2, orient="top", title=None
        ),
        concat=alt.CompositionConfig(spacing=32),
    )


# ---- estimates ---------------------------------------------------------------------------------------------


def estimates(fit: Fit) -> list[Chart]:
    """Dots with their intervals. Intercepts and constants, which have scales of their own, stand in the table
    alone."""
    return [estimates_of(gather(fit))]


def charted(facts: Facts) -> tuple[list[Line], str]:
    """The lines that an interval chart shows, and what it leaves out."""
    shown = [item for block in facts.blocks if block.tested for item in block.items if isinstance(item, Line)]
    slopes = [line for line in shown if line.name.split(": ")[-1] != "Intercept"]
    every = [item for block in facts.blocks for item in block.items if isinstance(item, Line)]
    lines = slopes or shown or every
    left = len(facts.lines) - len(lines[:NAMES])
    note = f"{plural(left, 'other')} not drawn" if left else ""
    return lines[:NAMES], note


def estimates_of(facts: Facts) -> Chart:
    lines, note = charted(facts)
    if not lines:
        raise BadArgument("there is no estimate with a line of its own to draw: every one is folded.")
    data = pd.DataFrame(
        {
            "name": [printable(x.name) for x in lines],
            "value": [x.estimate for x in lines],
            "low": [x.low for x in lines],
            "high": [x.high for x in lines],
        }
    )
    data[["low", "high"]] = data[["low", "high"]].astype(float).replace([math.inf, -math.inf], math.nan)
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False, domain=False))
    base = alt.Chart(data).encode(y=y)
    zero = (
        alt.Chart(pd.DataFrame({"zero": [0.0]}))
        .mark_rule(color=QUIET, strokeDash=[3, 3])
        .encode(x=alt.X("zero:Q"))
    )
    dots = base.mark_point(filled=True, size=55, color=MAIN, opacity=1).encode(
        x=alt.X("value:Q", title="estimate", scale=alt.Scale(zero=False))
    )
    layers: list[Chart] = [zero] if any(block.tested for block in facts.blocks) else []
    if not facts.without:
        layers.append(base.mark_rule(color=MAIN, strokeWidth=2).encode(x="low:Q", x2="high:Q"))
    subtitle = "" if facts.without else f"{100 * facts.level:g}% intervals"
    heading = titled("Estimates", "; ".join(part for part in (subtitle, note) if part))
    return alt.layer(*layers, dots).properties(
        width=WIDTH - 60, height=max(60, 22 * len(lines)), title=heading
    )


# ---- calibration and residuals -----------------------------------------------------------------------------


def calibration(fit: Fit) -> list[Chart]:
    """Observed against predicted means, rows sorted by prediction, in bins of equal numbers; of a response that is a
    category, the probability of each level."""
    if isinstance(family_of(fit.model), Categories):
        return level_charts.calibration(fit)
    data = fit.calibration()
    what = f"P(T ≤ {number(data.attrs['at'])})" if "at" in data.attrs else "mean"
    data[["low", "high"]] = data[["low", "high"]].astype(float).replace([math.inf, -math.inf], math.nan)
    skewed = data["predicted"].min() >= 0 and data["predicted"].max() > 8 * data["predicted"].median()
    if skewed:
        data["low"] = data["low"].clip(lower=0.0)
    ends = [
        float(data[["predicted", "observed", "low"]].min().min()),
        float(data[["predicted", "observed", "high"]].max().max()),
    ]
    scale, note = (
        alt.Scale(zero=False, type="sqrt" if skewed else "linear"),
        " (root scale)" if skewed else "",
    )
    x = alt.X(
        "predicted:Q", title=f"predicted {what}{note}", scale=scale, axis=alt.Axis(grid=False, tickCount=6)
    )
    line = alt.Chart(pd.DataFrame({"a": ends})).mark_line(color=QUIET, strokeWidth=1).encode(x="a:Q", y="a:Q")
    base = alt.Chart(data).encode(x=x)
    title, axis = f"observed {what}{note}", alt.Axis(tickCount=6)
    rules = base.mark_rule(color=MAIN, strokeWidth=2).encode(
        y=alt.Y("low:Q", title=title, scale=scale, axis=axis), y2="high:Q"
    )
    dots = base.mark_point(filled=True, size=55, color=MAIN, opacity=1).encode(
        y=alt.Y("observed:Q", title=title, scale=scale, axis=axis)
    )
    heading = titled("Calibration", f"{len(data)} bins of rows; on the line if the model is true")
    return [alt.layer(line, rules, dots).properties(width=WIDTH, height=HEIGHT, title=heading)]


def confusion(fit: Fit) -> list[Chart]:
    """How often each category was taken for each, of a response that is a category; none of another, or of more
    categories than a figure can show."""
    if not classifies(fit.model):
        return []
    table = confused(fit)
    if len(table) > 30:
        return []
    names = [str(name) for name in table.index]
    counts = table.to_numpy()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    data = pd.DataFrame(
        {
            "y": np.repeat(names, len(names)),
            "most": np.tile(names, len(names)),
            "share": share.reshape(-1),
            "count": counts.reshape(-1),
        }
    )
    x = alt.X("most:N", title="most probable", sort=names, axis=alt.Axis(labelAngle=0))
    y = alt.Y("y:N", title="category", sort=names)
    cells = (
        alt.Chart(data)
        .mark_rect(color=MAIN)
        .encode(
            x=x,
            y=y,
            opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
        )
    )
    text = (
        alt.Chart(data[data["count"] > 0])
        .mark_text(fontSize=10)
        .encode(
            x=x,
            y=y,
            text=alt.Text("count:Q", format=","),
            color=alt.condition("datum.share > 0.5", alt.value("#ffffff"), alt.value(INK)),
        )
    )
    heading = titled(
        "Confusion", f"accuracy {100 * table.attrs['accuracy']:.1f} %, of the data that were fitted"
    )
    return [
        alt.layer(cells, text).properties(width=WIDTH, height=max(HEIGHT, 16 * len(names)), title=heading)
    ]


def residuals(fit: Fit) -> list[Chart]:
    """Quantile residuals against the fitted mean with a smooth, and against the normal's quantiles; of Cox's model those of Cox
    and Snell, and deviance residuals."""
    family = family_of(fit.model)
    if isinstance(family, Cox):
        return survival_charts.residuals(fit)
    found = quantile_residuals(fit)
    values, labels = np.asarray(found, dtype=float), found.index if isinstance(found, pd.Series) else None
    panels = [quantiles(values)]
    mean = not isinstance(family, Categories)  # which has none, and if ordered a location
    fitted = np.asarray(fit.predict(what="mean" if mean else "linear"), dtype=float)
    if fitted.shape == values.shape:
        of = "fitted mean" if mean else "linear predictor"
        panels.insert(0, against_fitted(fitted, values, of=of, labels=labels))
    return panels


# ---- profile -----------------------------------------------------------------------------------------------


def profile(fit: Fit, facts: Facts | None = None) -> list[Chart]:
    """Profile log-likelihoods of up to six parameters, slopes first, each against the quadratic that its Wald
    interval stands on."""
    return [_profile_or_why(fit, line) for line in profiled(gather(fit) if facts is None else facts)]


def _profile_or_why(fit: Fit, line: Line) -> Chart:
    """One parameter's profile; where it could not be followed, the words in its place: the others are drawn."""
    try:
        return profile_of(fit, line)
    except NotConverged:
        words = (
            alt.Chart(pd.DataFrame({"words": ["not found"]})).mark_text(color=QUIET).encode(text="words:N")
        )
        return words.properties(width=WIDTH - 78, height=HEIGHT - 40, title=titled(line.name))


def profiled(facts: Facts) -> list[Line]:
    """The estimates whose profiles are drawn."""
    if facts.without:
        raise BadArgument(f"there is no profile to draw. {facts.without}")
    lines = [
        item
        for block in facts.blocks
        for item in block.items
        if isinstance(item, Line) and item.standard_error
    ]
    lines.sort(key=lambda line: (line.name.split(": ")[-1] == "Intercept", line.z is None))
    return lines[:PROFILES]


def profile_of(fit: Fit, line: Line) -> Chart:
    """One parameter's profile, relative to the maximum, in nats."""
    curve = fit.profile(line.name)
    link = link_of(fit, fit.names.index(line.name))
    value = torch.tensor(curve["value"].to_numpy(dtype=float))
    peak = torch.tensor(line.estimate, dtype=torch.float64, requires_grad=True)
    slope = float(torch.autograd.grad(link(peak), peak)[0])
    with torch.no_grad():
        z = (link(value) - link(peak)) / (slope * (line.standard_error or math.nan))
    kinds = ["profile", "quadratic"]
    data = pd.DataFrame(
        {
            "value": curve["value"].to_numpy(),
            kinds[0]: curve["log_likelihood"].to_numpy(),
            kinds[1]: (-0.5 * z**2).numpy(),
        }
    )
    long = data.melt("value", var_name="curve", value_name="nats")
    floor = float(data[kinds[0]].min())
    x = alt.X(
        "value:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(grid=False, tickCount=5)
    )
    y = alt.Y(
        "nats:Q",
        title="nats below the maximum",
        scale=alt.Scale(domain=[1.15 * floor, 0], nice=False),
        axis=alt.Axis(tickCount=5),
    )
    colour = alt.Color("curve:N", scale=alt.Scale(domain=kinds, range=[MAIN, SECOND]))
    dash = alt.StrokeDash("curve:N", scale=alt.Scale(domain=kinds, range=[[1, 0], [5, 4]]))
    curves = (
        alt.Chart(long)
        .mark_line(strokeWidth=2, clip=True, interpolate="monotone")
        .encode(x=x, y=y, color=colour, strokeDash=dash)
    )
    return curves.properties(width=WIDTH - 78, height=HEIGHT - 40, title=titled(line.name))


def link_of(fit: Fit, i: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The map from the i-th estimate's natural scale to that on which Wald's interval is symmetric."""
    model = fit.model
    if isinstance(model, Regression) and model.constants[i]:
        return next(p.spec.link for p in model.predictors if p.start == i)
    if isinstance(model, Custom) and model.elementwise:
        at = 0
        for name, constraint in model.constraints.items():
            at += model.theta[name].numel()
            if i < at:
                return constraint.unconstrain
    return lambda value: value


# ---- trace -------------------------------------------------------------------------------------------------


def trace(fit: Fit) -> list[Chart]:
    """The objective at each step, and the Newton decrement where the solver has one; nats a term with their
    error if stochastic."""
    if not fit.trace:
        raise BadArgument("this fit carries no trace: it was loaded, or solved in closed form.")
    steps = np.asarray(fit.trace, dtype=float)
    keep = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).round().astype(int))
    stochastic = fit.certificate.status == "stochastic"
    data = pd.DataFrame(steps[keep, :3], columns=["step", "value", "error" if stochastic else "decrement"])
    data = data[np.isfinite(data["value"])]
    x = alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickMinStep=1, format="d", tickCount=7))
    y = alt.Y(
        "value:Q",
        title="nats a term" if stochastic else "nats",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=6),
    )
    path = _path(data).encode(x=x, y=y)
    if stochastic:
        data = data.assign(low=data["value"] - data["error"], high=data["value"] + data["error"])
        sure = data[np.isfinite(data["error"])]
        band = (
            alt.Chart(sure)
            .mark_area(color=MAIN, opacity=0.2)
            .encode(x=x, y=alt.Y("low:Q", title="nats a term"), y2="high:Q")
        )
        return [
            alt.layer(band, path).properties(
                width=WIDTH, height=HEIGHT, title=titled("Iterations", "a band of one standard error")
            )
        ]
    panels = [
        path.properties(width=WIDTH, height=HEIGHT, title=titled("Iterations", "objective at each step"))
    ]
    positive = data[np.isfinite(data["decrement"]) & (data["decrement"] > 0)]
    if len(positive) > 1:
        y = alt.Y(
            "decrement:Q",
            title="standard errors",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format=".0e", tickCount=6),
        )
        heading = titled("Gap to the maximum", "Newton decrement λ, log scale")
        panels.append(_path(positive).encode(x=x, y=y).properties(width=WIDTH, height=HEIGHT, title=heading))
    return panels


def measured(fit: Fit) -> list[Chart]:
    """What a run measured along its run, a panel a quantity: training and greedy returns share one, and are
    named."""
    lines = pd.DataFrame([line for line in fit.measured if "step" in line])
    x = "played" if "played" in lines else "step"
    panels: dict[str, list[str]] = {}
    for name in lines.columns:
        if name in ("step", x) or name.endswith(BESIDE) or OF_SEED in name:
            continue
        if lines[name].nunique() > 1:
            panels.setdefault(
                "log_likelihood" if name.endswith("log_likelihood") else name.rpartition("_")[2], []
            ).append(name)
    return [_measured(lines, x, quantity, names) for quantity, names in panels.items()]


def _measured(lines: pd.DataFrame, x: str, quantity: str, names: list[str]) -> Chart:
    """(x, value) of each name, with a band of one standard error where it has one."""
    parts = []
    for name in names:
        found = lines[[x, name]].rename(columns={x: "x", name: "value"}).assign(name=_words(name))
        found["error"] = lines.get(f"{name}_error", math.nan)
        found = found[np.isfinite(found["value"].astype(float))]
        parts.append(
            found.iloc[np.unique(np.linspace(0, len(found) - 1, min(len(found), POINTS)).round().astype(int))]
        )
    data = pd.concat(parts)
    data = data.assign(low=data["value"] - data["error"], high=data["value"] + data["error"])
    shown = [_words(name) for name in names]
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1, columnPadding=24) if len(shown) > 1 else None
    colour = alt.Color("name:N", scale=alt.Scale(domain=shown, range=[MAIN, SECOND, QUIET]), legend=legend)
    across = alt.X(
        "x:Q", title="steps played" if x == "played" else "step", axis=alt.Axis(grid=False, tickCount=5)
    )
    y = alt.Y("value:Q", title=_words(quantity), scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
    layers: list[Chart] = [alt.Chart(data).mark_line(strokeWidth=2).encode(x=across, y=y, color=colour)]
    sure = data[np.isfinite(data["error"].astype(float))]
    if len(sure):
        band = alt.Chart(sure).mark_area(opacity=0.2)
        layers.insert(
            0, band.encode(x=across, y=alt.Y("low:Q", title=_words(quantity)), y2="high:Q", color=colour)
        )
    heading = titled(_words(quantity).capitalize(), "a band of one standard error" if len(sure) else "")
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=heading)


def drawn(fit: Fit) -> bool:
    """Whether what a run measured shows its log-likelihood already, of training and of validation."""
    return any("validation/log_likelihood" in line for line in fit.measured)


def _words(name: str) -> str:
    """A quantity as people say it.

    Examples
    --------
    >>> _words("validation/bits_per_byte")
    'validation bits per byte'
    """
    return name.replace("_", " ").replace("/", " ")


def _path(data: pd.DataFrame) -> alt.Chart:
    """A line through the steps, with a dot at each where they are few."""
    dots = alt.OverlayMarkDef(color=MAIN, filled=True, size=30) if len(data) < 60 else False
    out: alt.Chart = alt.Chart(data).mark_line(color=MAIN, strokeWidth=2, point=dots)
    return out


CHARTS: dict[str, Callable[[Fit], list[Chart]]] = {
    "estimates": estimates,
    "calibration": calibration,
    "residuals": residuals,
    "profile": profile,
    "random_effects": random_effects.charts,
    "smooths": smooths.charts,
    "survival": survival_charts.curves,
    "proportional_hazards": survival_charts.proportional_hazards,
    "influence": influence_chart.charts,
    "trace": trace,
}
