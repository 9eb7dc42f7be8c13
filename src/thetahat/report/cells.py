"""The columns of the table of estimates: their heads, and a line's numbers."""

from __future__ import annotations

from .facts import Facts, Line
from .formatting import fixed, places, probability, statistic


def heads(facts: Facts) -> tuple[str, ...]:
    """Of the columns: t where an estimate over its error is referred to Student's, z where to the normal."""
    tested = "t" if any(line.df is not None for line in facts.lines) else "z"
    return ("estimate", "std. error", f"{100 * facts.level:g}% low", "high", tested, "p")


def cells(line: Line) -> tuple[str, ...]:
    """A line's numbers: estimate, error and ends to the digits that the error is worth."""
    decimals = places(line.standard_error)
    four = (fixed(v, decimals) for v in (line.estimate, line.standard_error, line.low, line.high))
    return (*four, statistic(line.z), probability(line.p))
