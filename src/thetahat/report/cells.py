"""The columns of the table of estimates: their heads, and a line's numbers."""

from __future__ import annotations

import math

from .facts import Facts, Line
from .formatting import MINUS, fixed, number, places, probability, statistic

LARGE = 1e7  # a row that reaches it is in powers of ten


def heads(facts: Facts) -> tuple[str, ...]:
    """Of the columns: t where an estimate over its error is referred to Student's, z where to the normal."""
    tested = "t" if any(line.df is not None for line in facts.lines) else "z"
    return ("estimate", "std. error", f"{100 * facts.level:g}% low", "high", tested, "p")


def cells(line: Line) -> tuple[str, ...]:
    """A line's numbers: estimate, error and ends to the digits that the error is worth. The exp of a large intercept is a
    power of ten, and so is its row: written out, it would widen the columns of all others beyond the page.

    Examples
    --------
    >>> cells(Line("Intercept", 2e8, 3.1e8, 9.8e6, 4.1e9, 12.4, 0.0))[:4]
    ('2.0000e+08', '3.1000e+08', '9.8000e+06', '4.1000e+09')
    """
    decimals = places(line.standard_error)
    numbers = (line.estimate, line.standard_error, line.low, line.high)
    reach = max((abs(v) for v in numbers if v is not None and math.isfinite(v)), default=0.0)
    four = (_power(v) if reach >= LARGE else fixed(v, decimals) for v in numbers)
    return (*four, statistic(line.z), probability(line.p))


def _power(x: float | None) -> str:
    return number(x, 5) if x is None or x == 0 or not math.isfinite(x) else f"{x:.4e}".replace("-", MINUS)
