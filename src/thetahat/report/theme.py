"""Colours, sizes and titles of charts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import altair as alt

from ..printable import printable

# Colours by their role: the HTML report finds them in the SVG by their value, and gives each its dark twin.
INK, QUIET, GRID, MAIN, SECOND = "#1b1f24", "#68707b", "#e3e6ea", "#1f5fa8", "#c4561b"
COLOURS = (MAIN, SECOND, QUIET, "#2f7d4f", "#7a4fa3", "#a8871f")  # of the curves of one chart
WIDTH, HEIGHT = 308, 220
TITLE, SUBTITLE = 40, 52  # characters of a title and of the line below it that are as wide as a chart
LETTER, MARK = 7, 32  # pixels of a letter of a legend, and of a line before its name with the space after it


def titled(text: str, subtitle: str = "", width: int = WIDTH) -> alt.TitleParams:
    """A title, with smaller lines below it, where the characters can be drawn. None is wider than a chart of that width: one
    beside it would cover it, and the edge of the picture cut it."""
    share = width / WIDTH
    heading, below = (
        _lines(printable(words), int(share * most)) for words, most in ((text, TITLE), (subtitle, SUBTITLE))
    )
    return alt.TitleParams(heading, subtitle=below) if subtitle else alt.TitleParams(heading)


def _lines(text: str, width: int) -> str | list[str]:
    """
    Examples
    --------
    >>> _lines("95% bands", 20), _lines("95% bands; dots: residuals", 20)
    ('95% bands', ['95% bands; dots:', 'residuals'])
    """
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    return lines if len(lines) > 1 else text


def legend(names: Sequence[str], width: int = WIDTH) -> alt.Legend | None:
    """Of lines of several colours: in as many columns as their names leave room for, none of them cut."""
    if len(names) < 2:
        return None
    each = LETTER * max(map(len, names)) + MARK
    return alt.Legend(
        symbolType="stroke",
        symbolOpacity=1,
        columns=max(1, min(len(names), width // each)),
        labelLimit=max(width, each),
    )
