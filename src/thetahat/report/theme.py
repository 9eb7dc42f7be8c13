"""Colours, sizes and titles of charts."""

from __future__ import annotations

import altair as alt

from ..printable import printable

# Colours by their role: the HTML report finds them in the SVG by their value, and gives each its dark twin.
INK, QUIET, GRID, MAIN, SECOND = "#1b1f24", "#68707b", "#e3e6ea", "#1f5fa8", "#c4561b"
WIDTH, HEIGHT = 308, 220


def titled(text: str, subtitle: str = "") -> alt.TitleParams:
    """A title, with a smaller line below it, where the characters can be drawn."""
    text, subtitle = printable(text), printable(subtitle)
    return alt.TitleParams(text, subtitle=subtitle) if subtitle else alt.TitleParams(text)
