"""Dots: residuals against what was fitted, and against the normal's quantiles; at most a few thousand of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd
import torch

from ..printable import printable
from ..types import Chart
from .formatting import count
from .theme import HEIGHT, MAIN, QUIET, SECOND, WIDTH, titled

if TYPE_CHECKING:
    from ..result import Fit

POINTS = 2000  # of a scatter
ROW = "row "
SEED = 0  # of the draw that leaves the others out, and of randomised residuals


def quantile_residuals(fit: Fit) -> np.ndarray | pd.Series:
    """Those of the fit, computed once for sentences and charts."""
    out: np.ndarray | pd.Series = fit._cached(
        ("quantile residuals", SEED), lambda: fit.residuals("quantile", seed=SEED)
    )
    return out


def against_fitted(
    fitted: np.ndarray,
    values: np.ndarray,
    *,
    of: str = "fitted mean",
    residual: str = "quantile residual",
    title: str = "Residuals against fitted",
    labels: Sequence[object] | pd.Index | None = None,
) -> Chart:
    """Residuals (n,) against fitted means (n,), or what `of` says. labels: of the rows, which a dot says of itself; None: their
    numbers."""
    keep, note = sampled(np.isfinite(fitted) & np.isfinite(values))
    rows = keep if labels is None else [labels[int(i)] for i in keep]
    data = pd.DataFrame(
        {"fitted": fitted[keep], "residual": values[keep], "row": [row_named(row) for row in rows]}
    )
    low, high = data["fitted"].min(), data["fitted"].max()
    wide = low > 0 and high > 50 * low
    scale = alt.Scale(type="log" if wide else "linear", zero=False, nice=not wide)
    x = alt.X(
        "fitted:Q",
        title=of + (" (log scale)" if wide else ""),
        scale=scale,
        axis=alt.Axis(grid=False, tickCount=5),
    )
    y = alt.Y("residual:Q", title=residual, axis=alt.Axis(tickCount=7))
    dots = (
        alt.Chart(data)
        .mark_circle(size=size_of(len(data)), color=MAIN, opacity=opacity_of(len(data)))
        .encode(x=x, y=y, description="row:N")
    )
    layers: list[Chart] = [
        alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=QUIET).encode(y="zero:Q"),
        dots,
    ]
    if data["fitted"].nunique() >= 10:
        smooth = alt.Chart(data).transform_loess("fitted", "residual", bandwidth=0.6)
        layers.append(smooth.mark_line(color=SECOND, strokeWidth=2).encode(x=x, y=y))
    return alt.layer(*layers).properties(
        width=WIDTH, height=HEIGHT, title=titled(title, note or "with a local smooth")
    )


def quantiles(
    values: np.ndarray,
    *,
    residual: str = "quantile residual",
    title: str = "Residuals against the normal",
    rows: str = "rows",
) -> Chart:
    """Ordered residuals against the standard normal's quantiles: a straight line if the model is true."""
    found = np.sort(values[np.isfinite(values)])
    n = len(found)
    normal = torch.special.ndtri((torch.arange(1, n + 1, dtype=torch.float64) - 0.5) / n).numpy()
    middle = np.linspace(0, n - 1, POINTS // 2).round().astype(int)
    keep = np.unique(np.concatenate([middle, np.arange(min(n, 100)), np.arange(max(0, n - 100), n)]))
    left = f"; {count(len(keep))} of {count(n)} {rows} drawn" if len(keep) < n else ""
    data = pd.DataFrame({"normal": normal[keep], "residual": found[keep]})
    ends = float(data["normal"].max()) if n else 1.0
    line = (
        alt.Chart(pd.DataFrame({"a": [-ends, ends]}))
        .mark_line(color=QUIET, strokeWidth=1)
        .encode(x="a:Q", y="a:Q")
    )
    dots = alt.Chart(data).mark_circle(size=size_of(len(data)), color=MAIN, opacity=0.7)
    x = alt.X("normal:Q", title="quantile of the standard normal", axis=alt.Axis(grid=False, tickCount=7))
    dots = dots.encode(x=x, y=alt.Y("residual:Q", title=residual, axis=alt.Axis(tickCount=7)))
    return alt.layer(line, dots).properties(
        width=WIDTH,
        height=HEIGHT,
        title=titled(title, "on the line if the model is true" + left),
    )


def sampled(usable: np.ndarray) -> tuple[np.ndarray, str]:
    """Which rows to draw, at most `POINTS`, and a note if some are left out."""
    rows = np.flatnonzero(usable)
    if len(rows) <= POINTS:
        return rows, ""
    drawn = np.sort(np.random.default_rng(SEED).choice(rows, POINTS, replace=False))
    return drawn, f"{count(POINTS)} of {count(len(rows))} rows, drawn with seed {SEED}; with a local smooth"


def row_named(label: object) -> str:
    """What a dot says of itself, where the report is a page: `html` makes it a title that appears under the pointer."""
    return f"{ROW}{printable(str(label))}"


def size_of(n: int) -> int:
    return 40 if n < 200 else 22 if n < 1000 else 12


def opacity_of(n: int) -> float:
    return 0.8 if n < 200 else 0.5 if n < 1000 else 0.35
