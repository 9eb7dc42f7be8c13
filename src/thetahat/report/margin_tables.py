"""Predictions, comparisons, slopes and means as lines of text that fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence

RIGHT = ("estimate", "standard_error", "z", "t", "df", "p_value", "low", "high")
SPARE = (
    ("df",),
    ("z", "t"),
    ("standard_error",),
)  # columns that a narrow terminal does without, in this order
LEAST = 6  # characters of a label that is cut


def lines(names: Sequence[str], heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """A table of at most `width` characters: where it is wider, what all rows have in common goes above it, then columns are
    left out, and then labels are cut. Numbers never are.

    Parameters
    ----------
    names, heads
        of the columns: as in the frame, and as shown
    rows
        cells

    Examples
    --------
    >>> lines(["g", "estimate"], ["g", "estimate"], [["a", "1.5"], ["b", "10.5"]], 80)
    ['g estimate', 'a      1.5', 'b     10.5']
    >>> lines(["g", "estimate"], ["g", "estimate"], [["a" * 30, "1.5"]], 20)[1]
    'aaaaaaaaaa…      1.5'
    """
    keep, above = list(range(len(names))), []
    if _width(keep, heads, rows) > width and len(rows) > 1:
        common = [j for j in keep if names[j] not in RIGHT and len({row[j] for row in rows}) == 1]
        above = [_cut("; ".join(f"{heads[j]}: {rows[0][j]}" for j in common), width)] if common else []
        keep = [j for j in keep if j not in common]
    for group in SPARE:
        if _width(keep, heads, rows) > width:
            keep = [j for j in keep if names[j] not in group]
    widths = {j: max(len(heads[j]), *(len(row[j]) for row in rows)) for j in keep}
    labels = [j for j in keep if names[j] not in RIGHT]
    while labels and sum(widths.values()) + len(keep) - 1 > width:
        widest = max(labels, key=lambda j: widths[j])
        if widths[widest] <= LEAST:
            break
        widths[widest] -= 1
    out = []
    for row in (heads, *rows):
        cells = [
            row[j].rjust(widths[j]) if names[j] in RIGHT else _cut(row[j], widths[j]).ljust(widths[j])
            for j in keep
        ]
        out.append(" ".join(cells).rstrip())
    return above + out


def _width(keep: Sequence[int], heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    return sum(max(len(heads[j]), *(len(row[j]) for row in rows)) for j in keep) + len(keep) - 1


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
