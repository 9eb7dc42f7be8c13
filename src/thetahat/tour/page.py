"""The tour as one HTML page that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import altair as alt
from markupsafe import Markup

from ..evaluation.compare import Comparison
from ..report.html import PALETTE, environment, svg, versions, written
from ..report.pictures import grid
from .examples import example
from .row import Row


def write(done: Sequence[Row], path: str | Path, comparison: Comparison | None = None) -> Path:
    """The rows, the comparison of the images' models, and draws from them, in one file, whole or not at all.

    Raises
    ------
    BadArgument
        the folder does not exist, or the path is one
    """
    pictures: dict[str, Markup] = {}
    drawn = [row for row in done if row.drawn is not None]
    if drawn:
        digits = example("digits")
        first = digits.images()[1].whole["y"][: len(drawn[0].drawn)]
        for k, (name, images) in enumerate(
            [("held out", first), *((row.system, row.drawn) for row in drawn)]
        ):
            chart = grid(images, digits.SHAPE, digits.LEVELS, columns=len(images)).properties(
                title=alt.Title(name)
            )
            pictures[name] = svg(chart, f"draws{k}-")
    text = (
        environment()
        .get_template("tour.html")
        .render(
            rows=done,
            comparison=comparison,
            pictures=pictures,
            palette=PALETTE,
            versions=versions(),
            date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        )
    )
    return written(text, Path(path))
