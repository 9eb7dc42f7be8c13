"""Summary: the fit on one screen, in plain text, in colour, as HTML, as plain values. One layout, four
faces."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..printable import encoded, everywhere
from ..types import Plain, Settings
from .cells import cells, heads
from .facts import Block, Facts, Fold, Joint, Line, gather
from .formatting import ABSENT, explained, held_out, nats, number, verdict

if TYPE_CHECKING:
    from ..result import Fit

WIDTH = 80
GAP = "   "

Span = tuple[str, str]  # text, and its style for a terminal
Row = list[Span]

STYLES = {
    "title": "bold",
    "label": "dim",
    "head": "dim",
    "block": "bold cyan",
    "good": "green",
    "bad": "bold red",
    "dim": "dim",
    "": "",
}


class Summary:
    """What was maximised, the data, the estimates, the log-likelihood, the certificate. It prints itself.

    Parameters
    ----------
    fit
        a Fit
    level
        of the intervals, between 0 and 1
    covariance, by
        of the standard errors, as in `Fit.covariance`
    exponentiate
        coefficients as ratios, exp(β) (`report.ratios`)

    Raises
    ------
    BadArgument
        as `Fit.covariance` and `Fit.intervals` do
    """

    def __init__(
        self,
        fit: Fit,
        level: float = 0.95,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
        exponentiate: bool = False,
    ):
        self.facts = gather(fit, level=level, covariance=covariance, by=by)
        if exponentiate:
            from .ratios import coefficients, exponentiated

            self.facts = exponentiated(self.facts, coefficients(fit))

    @encoded
    def __str__(self) -> str:
        return "\n".join("".join(text for text, _ in row).rstrip() for row in layout(self.facts))

    def __repr__(self) -> str:
        return str(self)

    def __rich_console__(self, console: Plain, options: Plain) -> Iterator[Plain]:
        from rich.text import Text

        for row in layout(self.facts, min(WIDTH, max(72, options.max_width))):
            yield Text.assemble(
                *((text, STYLES[style]) for text, style in row), no_wrap=True, overflow="ellipsis"
            )

    def _repr_html_(self) -> str:
        from .html import fragment

        return fragment(self.facts)

    def to_dict(self) -> Settings:
        """Plain values, for JSON: every estimate, none of them folded."""
        return self.facts.to_dict()


def layout(facts: Facts, width: int = WIDTH) -> Iterator[Row]:
    """The rows of the summary, each a list of spans."""
    facts = everywhere(facts)
    yield from _wrapped(facts.title, "title", width)
    for label, text in (*facts.model, *facts.data):
        yield from _labelled(label, text, width)
    cells = _Cells(facts, width)
    for block in facts.blocks:
        yield [("", "")]
        yield from cells.head(block)
        for item in block.items:
            yield from cells.row(item, block.tested)
    yield [("", "")]
    if facts.without:
        yield from _wrapped(facts.without, "dim", width)
    else:
        yield from _wrapped(
            f"Standard errors: {facts.errors}. Intervals and p: {facts.reference}.", "dim", width
        )
    if facts.lines and any(block.folded for block in facts.blocks):
        yield from _wrapped(
            "Every estimate: fit.estimates, fit.standard_errors(), fit.intervals().", "dim", width
        )
    yield [("", "")]
    yield from _scores(facts, width)
    if facts.lack_of_fit is not None:
        yield from _wrapped(str(facts.lack_of_fit), "dim", width)
    yield [("", "")]
    yield from _certificate(facts, width)


def _scores(facts: Facts, width: int) -> Iterator[Row]:
    wide = max((len(found.name) for found in facts.measured), default=0)
    for found in facts.measured:
        yield from _beside(f"{found.name:<{wide}}{GAP}", str(found), width)
    if math.isnan(facts.log_likelihood):  # of a network: no pass over the data is made unasked
        said = held_out(facts.certificate)
        if said:
            yield from _labelled("held out", f"{said}: log {_article(facts.measure)} of {facts.units}", width)
        elif not facts.measured:
            yield [("fit.score(data) gives its score.", "dim")]
        return
    each = (
        f", {number(facts.log_likelihood / facts.observations)} an observation"
        if facts.observations > 0
        else ""
    )
    kind = "exact" if facts.kind == "exact" else f"{facts.kind} of the"
    what = f"({kind} {_article(facts.measure)} of {facts.units}{each})"
    shown = f"{nats(facts.log_likelihood)} nats"
    fits = len("log-likelihood  ") + len(shown) + 2 + len(what) <= width
    yield [("log-likelihood  ", "label"), (shown, ""), *([("  " + what, "dim")] if fits else [])]
    if not fits:
        yield from _wrapped(what, "dim", width)
    if facts.criteria:
        row: Row = []
        for name, value in facts.criteria.items():
            row += [(f"{name} ", "label"), (f"{number(value, 6)}{GAP}", "")]
        yield row
    for note in facts.criteria_notes:
        yield from _wrapped(note, "dim", width)
    if facts.counted is not None:
        yield from _wrapped(
            f"AIC, AICc and BIC count {number(facts.counted)} effective parameters: under the prior, tr((J + "
            "P)⁻¹J).",
            "dim",
            width,
        )


def _article(measure: str) -> str:
    return {"mixed": "density with atoms", "partial": "partial likelihood"}.get(measure, measure)


def _certificate(facts: Facts, width: int) -> Iterator[Row]:
    c = facts.certificate
    yield from _wrapped(
        verdict(c), "good" if c.ok and c.status != "stochastic" else "" if c.ok else "bad", width
    )
    for text in explained(c):
        yield from _wrapped(text, "", width)


def _wrapped(text: str, style: str, width: int) -> Iterator[Row]:
    for line in textwrap.wrap(text, width, break_on_hyphens=False) or [""]:
        yield [(line, style)]


def _labelled(label: str, text: str, width: int, indent: int = 16) -> Iterator[Row]:
    """A label and its text, hanging; a label that is too long has lines of its own."""
    *before, last = _broken(label, indent - 2 if len(label) <= indent - 2 else width)
    for line in before:
        yield [(line, "label")]
    if len(last) > indent - 2:
        yield [(last, "label")]
        last = ""
    for i, line in enumerate(textwrap.wrap(text, width - indent, break_on_hyphens=False) or [""]):
        yield [(f"{last if i == 0 else '':<{indent}}", "label"), (line, "")]


def _beside(label: str, text: str, width: int) -> Iterator[Row]:
    """A label and its text in one line; in two where one is too long."""
    if len(label) + len(text) <= width:
        yield [(label, "label"), (text, "")]
        return
    yield from _wrapped(label, "label", width)
    yield from _wrapped(text, "", width)


def _broken(name: str, width: int) -> list[str]:
    """A name in lines, none of it left out."""
    return textwrap.wrap(name, width, break_on_hyphens=False) or [""]


# ---- the table ---------------------------------------------------------------------------------------------


class _Cells:
    """The columns of all blocks, as wide as their widest number, decimal points below one another."""

    def __init__(self, facts: Facts, width: int):
        lines = [item for block in facts.blocks for item in block.items if isinstance(item, Line)]
        tested = any(block.tested for block in facts.blocks)
        self.columns = 1 if facts.without else 6 if tested else 4
        table = [cells(line) for line in lines]
        self.heads = heads(facts)[: self.columns]
        self.parts = [_extent([row[j] for row in table]) for j in range(self.columns)]
        self.widths = self._fitting()
        if (
            2 + sum(self.widths) + len(GAP[1:]) * self.columns > width
        ):  # then points do not stand below one another
            self.parts = [(max((len(row[j]) for row in table), default=0), 0) for j in range(self.columns)]
            self.widths = self._fitting()
        titles = [len(block.title) + len(block.note) + 2 for block in facts.blocks]
        widest = max([12, *(len(line.name) for line in lines), *titles])
        taken = width - 2 - sum(self.widths)
        self.gap = GAP if widest <= taken - len(GAP) * self.columns else GAP[1:]
        self.name = max(0, min(taken - len(self.gap) * self.columns, widest))
        self.width = width

    def _fitting(self) -> list[int]:
        return [max(len(head), sum(part)) for head, part in zip(self.heads, self.parts, strict=True)]

    def head(self, block: Block) -> Iterator[Row]:
        note = f", {block.note}" if block.note else ""
        columns = self.columns if block.tested else min(self.columns, 4)
        shown = "".join(
            self.gap + head.rjust(w) for head, w in zip(self.heads[:columns], self.widths, strict=False)
        )
        if len(block.title + note) <= self.name + 2:
            yield [
                (block.title, "block"),
                (note.ljust(self.name + 2 - len(block.title)), "dim"),
                (shown, "head"),
            ]
            return
        for line in _broken(block.title + note, self.width):
            yield [(line, "block")]
        yield [(" " * (self.name + 2), ""), (shown, "head")]

    def row(self, item: Line | Fold | Joint, tested: bool) -> Iterator[Row]:
        if isinstance(item, Fold):
            for line in _broken(str(item), self.width - 2):
                yield [("  " + line, "")]
        elif isinstance(item, Joint):
            for line in _broken(f"{item.name} {item}", self.width - 2):
                yield [("  " + line, "dim")]
        else:
            numbers = cells(item)[: self.columns if tested else min(self.columns, 4)]
            aligned = "".join(self.gap + self._aligned(text, j) for j, text in enumerate(numbers))
            *before, name = _broken(item.name, self.width - 2 if len(item.name) > self.name else self.width)
            for line in before:
                yield [("  " + line, "")]
            if len(name) > self.name:  # on a line of its own: neither a name nor a number is cut
                yield [("  " + name, "")]
                name = ""
            yield [("  " + name.ljust(self.name), ""), (aligned, "")]

    def _aligned(self, text: str, j: int) -> str:
        left, right = self.parts[j]
        if "e" in text or not right or text in (ABSENT, "∞", "−∞"):
            return text.rjust(self.widths[j])
        whole, point, decimals = text.partition(".")
        return (whole.rjust(left) + (point + decimals).ljust(right)).rjust(self.widths[j])


def _extent(texts: Sequence[str]) -> tuple[int, int]:
    """How many characters a column needs before and after the decimal point."""
    plain = [t.partition(".") for t in texts if "e" not in t]
    left = max((len(whole) for whole, _, _ in plain), default=1)
    right = max((len(point) + len(decimals) for _, point, decimals in plain), default=0)
    widest = max((len(t) for t in texts if "e" in t), default=0)
    return max(left, widest - right), right
