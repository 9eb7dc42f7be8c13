"""A regression table as text, Markdown, HTML, LaTeX, Typst and Word: six writings of one list of rows."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingExtra

if TYPE_CHECKING:
    from .table import RegressionTable, Row

WIDTH = 80
GAP = 2
LABEL = 34  # characters of a label beside numbers; a longer one has lines of its own


def heads(table: RegressionTable) -> list[list[tuple[str, int]]]:
    """The lines of the head, each (text, how many columns it spans): the fits, and their parameters."""
    fits = [(name, len(list(own))) for name, own in groupby(name for name, _ in table.columns)]
    if not any(parameter for _, parameter in table.columns):
        return [fits]
    return [fits, [(parameter, 1) for _, parameter in table.columns]]


def blocks(rows: Sequence[Row]) -> list[list[Row]]:
    """The estimates, and the statistics."""
    return [list(own) for _, own in groupby(rows, lambda row: row.kind == "statistic")]


# ---- text --------------------------------------------------------------------------------------------------


def text(table: RegressionTable, width: int = WIDTH) -> str:
    """Within so many characters; fits that do not stand side by side there follow in blocks below one another."""
    label = min(LABEL, max([len(row.label) for row in table.rows], default=0))
    widths = [_width(table, j) for j in range(len(table.columns))]
    parts: list[list[int]] = [[]]
    for j, wide in enumerate(widths):
        if parts[-1] and label + sum(GAP + widths[i] for i in parts[-1]) + GAP + wide > width:
            parts.append([])
        parts[-1].append(j)
    lines = [line for own in parts for line in (*_block(table, own, label, widths), "")]
    notes = [line for note in table.notes for line in textwrap.wrap(note, width, break_on_hyphens=False)]
    return "\n".join([line.rstrip() for line in lines[:-1]] + notes)


def _width(table: RegressionTable, j: int) -> int:
    """Of column j: its cells and its heads, a fit's name shared by its columns."""
    name, parameter = table.columns[j]
    own = sum(other == name for other, _ in table.columns)
    cells = [len(_beside(table, row, j)) for row in table.rows if row.cells]
    return max([*cells, len(parameter), -(-(len(name) - GAP * (own - 1)) // own)], default=0)


def _block(
    table: RegressionTable, columns: Sequence[int], label: int, widths: Sequence[int]
) -> Iterator[str]:
    total = label + sum(GAP + widths[j] for j in columns)
    spans = [(name, list(own)) for name, own in groupby(columns, lambda j: table.columns[j][0])]
    yield " " * label + "".join(
        " " * GAP + name.rjust(sum(widths[j] for j in own) + GAP * (len(own) - 1)) for name, own in spans
    )
    if any(table.columns[j][1] for j in columns):
        yield " " * label + "".join(" " * GAP + table.columns[j][1].rjust(widths[j]) for j in columns)
    for rows in blocks(table.rows):
        shown = list(_with_cells(rows, columns))
        if not shown:  # of the continued columns of a fit, whose figures stand below its first
            continue
        yield "─" * total
        for row in shown:
            cells = (
                "".join(" " * GAP + _beside(table, row, j).rjust(widths[j]) for j in columns)
                if row.cells
                else ""
            )
            *before, last = (
                textwrap.wrap(row.label, max(total, LABEL)) if len(row.label) > label else [row.label]
            )
            yield from before
            if len(last) > label:
                yield last
                last = ""
            yield last.ljust(label) + cells
    yield "─" * total


def _with_cells(rows: Sequence[Row], columns: Sequence[int]) -> Iterator[Row]:
    """The rows that say something in these columns, and the heads of sections that have some."""
    head: Row | None = None
    for row in rows:
        if row.kind == "section":
            head = row
        elif any(row.cells[j] for j in columns):
            yield from [] if head is None else [head]
            head = None
            yield row


def _beside(table: RegressionTable, row: Row, j: int) -> str:
    """A cell; an estimate's last digit stands above that of its error, which a bracket follows."""
    plain = row.kind == "estimate" and not any(row.cells[j].endswith("*") for row in table.rows if row.cells)
    return row.cells[j] + " " * plain


# ---- markup ------------------------------------------------------------------------------------------------


def markdown(table: RegressionTable) -> str:
    """Pipes have one head: a fit's name and its parameter are one."""
    own = [name if not parameter else f"{name}: {parameter}" for name, parameter in table.columns]
    lines = [["", *own], *([row.label, *(row.cells or ("",) * len(own))] for row in table.rows)]
    shown = [[_in_markdown(cell) for cell in line] for line in lines]
    widths = [max(3, *(len(line[j]) for line in shown)) for j in range(len(own) + 1)]
    out = [
        "| "
        + " | ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        + " |"
        for line in shown
    ]
    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([out[0], rule, *out[1:], "", *map(_in_markdown, table.notes)]) + "\n"


def _in_markdown(cell: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]~])", r"\\\1", " ".join(cell.split()))


def html(table: RegressionTable) -> str:
    out = ["<table>", "<thead>"]
    for line in heads(table):
        cells = "".join(f'<th colspan="{n}">{escape(name)}</th>' for name, n in line)
        out.append(f"<tr><th></th>{cells}</tr>")
    out.append("</thead>")
    span = len(table.columns) + 1
    for rows in blocks(table.rows):
        out.append("<tbody>")
        for row in rows:
            if row.kind == "section":
                out.append(f'<tr><th colspan="{span}" style="text-align:left">{escape(row.label)}</th></tr>')
                continue
            cells = "".join(f'<td style="text-align:right">{escape(cell)}</td>' for cell in row.cells)
            out.append(f'<tr><th style="text-align:left">{escape(row.label)}</th>{cells}</tr>')
        out.append("</tbody>")
    notes = "<br/>".join(map(escape, table.notes))
    return "\n".join([*out, f'<tfoot><tr><td colspan="{span}">{notes}</td></tr></tfoot>', "</table>"]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "²": "$^2$", "≥": r"$\geq$", "≤": r"$\leq$", "∞": r"$\infty$", "—": "---", "[": "{[}", "]": "{]}",
}  # fmt: skip


def _in_latex(cell: str) -> str:
    return "".join(_LATEX.get(c, c) for c in cell)


def latex(table: RegressionTable) -> str:
    span = len(table.columns) + 1
    out = [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines = heads(table)
    for i, line in enumerate(lines):
        cells = [rf"\multicolumn{{{n}}}{{{'c' if n > 1 else 'r'}}}{{{_in_latex(name)}}}" for name, n in line]
        out.append(" & ".join(["", *cells]) + r" \\")
        if i < len(lines) - 1:
            ends = [2 + sum(n for _, n in line[:j]) for j in range(len(line) + 1)]
            out.append(" ".join(rf"\cmidrule(lr){{{a}-{b - 1}}}" for a, b in pairwise(ends)))
    for rows in blocks(table.rows):
        out.append(r"\midrule")
        for row in rows:
            if row.kind == "section":
                out.append(rf"\multicolumn{{{span}}}{{l}}{{\textit{{{_in_latex(row.label)}}}}} \\")
            else:
                out.append(" & ".join(map(_in_latex, (row.label, *row.cells))) + r" \\")
    out.append(r"\bottomrule")
    out += [rf"\multicolumn{{{span}}}{{l}}{{\footnotesize {_in_latex(note)}}} \\" for note in table.notes]
    return "\n".join([*out, r"\end{tabular}"]) + "\n"


def _in_typst(cell: str) -> str:
    return re.sub(r"([\\#$*_`<>@\[\]~/=+\-])", r"\\\1", cell)


def typst(table: RegressionTable) -> str:
    def cell(content: str, span: int = 1, align: str = "") -> str:
        settings = ", ".join([f"colspan: {span}"] * (span > 1) + [f"align: {align}"] * bool(align))
        return f"table.cell({settings})[{content}]" if settings else f"[{content}]"

    span = len(table.columns) + 1
    out = ["#table(", f"  columns: {span},", "  stroke: none,"]
    out.append(f"  align: ({', '.join(['left'] + ['right'] * (span - 1))}),")
    out += ["  table.hline(),", "  table.header("]
    for line in heads(table):
        out.append(
            "    "
            + ", ".join(["[]", *(cell(_in_typst(s), n, "center" if n > 1 else "") for s, n in line)])
            + ","
        )
    out.append("  ),")
    for rows in blocks(table.rows):
        out.append("  table.hline(),")
        for row in rows:
            if row.kind == "section":
                out.append(f"  {cell(f'_{_in_typst(row.label)}_', span)},")
            else:
                out.append("  " + ", ".join(cell(_in_typst(c)) for c in (row.label, *row.cells)) + ",")
    out.append("  table.hline(),")
    return "\n".join([*out, ")", *(_in_typst(note) + " \\" for note in table.notes)]) + "\n"


# ---- Word --------------------------------------------------------------------------------------------------


def docx(table: RegressionTable, path: Path) -> Path:
    try:
        from docx import Document
        from docx.enum.text import WD_ALIGN_PARAGRAPH
    except ImportError as error:
        raise MissingExtra.named("python-docx", "docx") from error
    document = Document()
    lines = heads(table)
    grid = document.add_table(rows=len(lines) + len(table.rows), cols=len(table.columns) + 1)

    def put(
        i: int, j: int, content: str, align: Callable[[], object] | object = None, last: int | None = None
    ) -> None:
        place = grid.cell(i, j) if last is None or last == j else grid.cell(i, j).merge(grid.cell(i, last))
        place.text = content
        if align is not None:
            place.paragraphs[0].alignment = align

    for i, line in enumerate(lines):
        at = 1
        for name, n in line:
            put(i, at, name, WD_ALIGN_PARAGRAPH.CENTER if n > 1 else WD_ALIGN_PARAGRAPH.RIGHT, at + n - 1)
            at += n
    for i, row in enumerate(table.rows, len(lines)):
        put(i, 0, row.label)
        for j, content in enumerate(row.cells, 1):
            put(i, j, content, WD_ALIGN_PARAGRAPH.RIGHT)
    for note in table.notes:
        document.add_paragraph(note)
    document.save(str(path))
    return path
