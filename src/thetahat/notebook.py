"""Results as HTML, for notebooks: small, escaped, and readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .printable import printable

STYLE = (
    "<style>.thetahat table { border-collapse: collapse; font-variant-numeric: tabular-nums; }"
    ".thetahat th, .thetahat td { text-align: right; }"
    ".thetahat th.text, .thetahat td.text { text-align: left; }"
    ".thetahat pre { white-space: pre-wrap; }</style>"
)


def shown(text: object) -> str:
    """The text as HTML has it: escaped, and without control characters.

    Examples
    --------
    >>> shown("a < b\\x1b[2J")
    'a &lt; b\\\\x1b[2J'
    """
    return escape(printable(str(text)))


def block(
    title: str = "",
    heads: Sequence[str] = (),
    rows: Iterable[Sequence[str]] = (),
    notes: Sequence[str] = (),
    left: Sequence[int] = (0,),
) -> str:
    """A title, a table and notes below it.

    Parameters
    ----------
    title, notes
        a paragraph each; none where it is ""
    heads, rows
        cells as text; no table without heads
    left
        the columns that hold text, which stand to the left

    Examples
    --------
    >>> block("t", ["name", "x"], [["a<b", "1"]]).partition("<tbody>")[2]
    '<tr><td class="text">a&lt;b</td><td>1</td></tr></tbody></table></div>'
    """

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = (' class="text"' if j in left else "" for j in range(len(cells)))
        made = (f"<{tag}{kind}>{shown(c)}</{tag}>" for c, kind in zip(cells, kinds, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    table = f"<table><thead>{line(heads, 'th')}</thead><tbody>{body}</tbody></table>" if heads else ""
    above, below = (
        (f"<p>{shown(title)}</p>" if title else ""),
        "".join(f"<p>{shown(n)}</p>" for n in notes if n),
    )
    return f'<div class="thetahat">{STYLE}{above}{table}{below}</div>'


class Printed:
    """A result whose HTML is what it prints, in letters of one width."""

    def _repr_html_(self) -> str:
        return f'<div class="thetahat">{STYLE}<pre>{shown(self)}</pre></div>'
