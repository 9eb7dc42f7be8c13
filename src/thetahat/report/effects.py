"""What goes with what, in sentences: a fit's average effects with their intervals, as the report opens.

Of a number the average slope, of a category the differences from its first level: those of `fit.slopes()`. Where the link is a
logarithm or a logit, the ratios of means or odds besides: exp of the average difference on the link's scale. Of Cox's model, which
has no mean, the ratios of hazards alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from ..data.processes import replicated
from ..data.table import Table
from ..errors import ThetahatError
from ..evaluation.margin_rows import levels_of, variables
from ..families import Binomial
from ..families.base import Family
from ..families.cox import Cox
from ..families.links import Log, Logit
from ..models.base import family_of
from ..models.random_effects import RandomEffects
from ..types import Levels
from .facts import Facts
from .formatting import count, fixed, number, places, plural

if TYPE_CHECKING:
    from ..margins import Margins
    from ..result import Fit

MOST = 12  # sentences
WIDE = 12  # levels of a category up to which each has a sentence
ROWS, SIZE = 2_000_000, 2_000  # rows, and coefficients, up to which the averages are made unasked
APART = {"inflation", "zero"}  # parameters that make E[y] another thing than the parameter named "mean"


@dataclass(frozen=True)
class Effects:
    """The sentences, what is to be said below them, and the estimates that they are of; of a model without a mean, nothing."""

    sentences: tuple[str, ...] = ()
    note: str = ""
    margins: Margins | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Response:
    """What a mean is of: its name, and whether it is a count, or the probability of a level."""

    name: str
    counts: bool = False
    level: str | None = None

    def higher(self, value: float, decimals: int | None) -> str:
        """
        Examples
        --------
        >>> Response("visits", counts=True).higher(-2.0, 1), Response("y", level="yes").higher(0.31, 2)
        ('2.0 fewer visits on average', 'a probability of y = yes that is 0.31 higher on average')
        """
        size = _shown(abs(value), decimals)
        if self.level is not None:
            way = "lower" if value < 0 else "higher"
            return f"a probability of {self.name} = {self.level} that is {size} {way} on average"
        less = "fewer" if self.counts else "less"
        return f"{size} {less if value < 0 else 'more'} {self.name} on average"


def effects(fit: Fit, facts: Facts) -> Effects:
    """Of a fit with a maximum, a table and a mean; nothing of another."""
    if not fit.certificate.ok or facts.without or not isinstance(fit.source, Table):
        return Effects()
    if not replicated(fit.source) or fit.source.rows > ROWS or len(fit.theta) > SIZE:
        return Effects()
    try:
        setting = fit._setting(None, None, None)
        levels = {name: levels_of(setting, name) for name in variables(setting)}
        wide = {name: own for name, own in levels.items() if own is not None and len(own) > WIDE}
        narrow = [name for name in levels if name not in wide]
        if isinstance(family_of(fit.model), Cox):
            return _hazards(fit, narrow, wide, facts.level)
        margins = fit.slopes(narrow, level=facts.level) if narrow else None
    except ThetahatError:  # a model without a mean: a hazard, several terms, weights that have no covariance
        return Effects()
    told = [] if margins is None else list(_sentences(fit, margins, facts.level))
    said = _few(told, [_of_wide(name, own) for name, own in wide.items()], "fit.slopes()")
    return Effects(said, _note(fit, margins) if said else "", margins)


def _few(told: list[str], wide: list[str], whence: str) -> tuple[str, ...]:
    """At most so many sentences, those of wide categories last."""
    if len(told) + len(wide) <= MOST:
        return (*told, *wide)
    room = max(MOST - 1 - len(wide), 0)
    return (*told[:room], *wide[: MOST - 1], f"{plural(len(told) - room, 'more effect')}: {whence} has all.")


def _hazards(fit: Fit, narrow: list[str], wide: dict[str, Levels], level: float) -> Effects:
    """Of Cox's model, which has no mean: hazard ratios, those of `fit.comparisons(…, what="link", exponentiate=True)`."""
    ask = 'fit.comparisons({}, what="link", exponentiate=True)'
    margins = fit.comparisons(narrow, what="link", exponentiate=True, level=level) if narrow else None
    told = []
    for row in [] if margins is None else margins.table.to_dict("records"):
        term, contrast = str(row["term"]), str(row["contrast"])
        who, than = _who(term, "dy/dx" if contrast == "+1" else contrast, " / ")
        one = ", which includes 1" if row["low"] <= 1 <= row["high"] else ""
        low, high = number(row["low"], 3), number(row["high"], 3)
        told.append(
            f"{who} goes with a hazard {number(row['estimate'], 3)} times {f'that of{than[5:]}' if than else 'as large'} "
            f"({100 * level:g}% interval {low} to {high}{one})."
        )
    said = _few(told, [_of_wide(name, own, ask) for name, own in wide.items()], ask.format("…"))
    random = ", random effects equal" if grouped(fit) else ""
    note = (
        f"Ratios of hazards at any time{random}: of a number for one more unit, of a category to its first level. The sentences say what goes "
        "together in these rows, which need not be what a change would bring about."
    )
    return Effects(said, note if said else "", margins)


def _sentences(fit: Fit, margins: Margins, level: float) -> Iterator[str]:
    ratio = _ratios(fit, margins, level)
    for row in margins.table.to_dict("records"):
        term, contrast = str(row["term"]), str(row["contrast"])
        decimals = places(row["standard_error"], 2)
        response = _response(fit, row.get("category"))
        who, than = _who(term, contrast)
        low, high = (_shown(row[end], decimals) for end in ("low", "high"))
        zero = ", which includes 0" if row["low"] <= 0 <= row["high"] else ""
        known = f"({100 * level:g}% interval {low} to {high}{zero})"
        yield f"{who} goes with {response.higher(row['estimate'], decimals)}{than} {known}{ratio.get((term, contrast), '')}."


def _who(term: str, contrast: str, sign: str = " - ") -> tuple[str, str]:
    """Of what the sentence speaks, and with what it is compared; sign: between the two levels of a contrast.

    Examples
    --------
    >>> _who("x", "dy/dx"), _who("g", "b - a")
    (('One more unit of x', ''), ('g = b', ' than g = a'))
    """
    if contrast == "dy/dx":
        return f"One more unit of {term}", ""
    if contrast.count(sign) != 1:  # a level has the sign in its name
        return f"The difference {contrast} of {term}", ""
    high, low = contrast.split(sign)
    return f"{term} = {high}", f" than {term} = {low}"


def _response(fit: Fit, category: object) -> Response:
    assert isinstance(fit.source, Table)
    family, encoder = family_of(fit.model), fit.source.encoder
    name = encoder.response.units.replace("`", "")
    if category is not None:
        return Response(name, level=str(category))
    if isinstance(family, Family) and family.support.binary:
        own = encoder.response.levels
        return Response(name, level="1" if own is None else str(own[-1]))
    whole = isinstance(family, Family) and family.support.integer
    return Response(name, counts=whole)


def _ratios(fit: Fit, margins: Margins, level: float) -> dict[tuple[str, str], str]:
    """(term, contrast) → what a sentence says of the ratio of means, or of odds."""
    family, table = family_of(fit.model), margins.table
    if not isinstance(family, Family) or "category" in table or APART & set(family.parameters):
        return {}
    name, spec = next(iter(family.parameters.items()))
    odds = isinstance(spec.link, Logit) and (family.support.binary or isinstance(family, Binomial))
    if name != "mean" or not (odds or isinstance(spec.link, Log)):
        return {}
    names = list(dict.fromkeys(map(str, table["term"])))
    try:
        found = fit.comparisons(names, what="link", exponentiate=True, level=level).table
    except ThetahatError:
        return {}
    slopes = set(table.loc[table["contrast"] == "dy/dx", "term"])
    out = {}
    for row in found.to_dict("records"):
        times = f"{'odds' if odds else 'a mean'} {number(row['estimate'], 3)} times as large"
        contrast = "dy/dx" if row["term"] in slopes else str(row["contrast"]).replace(" / ", " - ")
        out[row["term"], contrast] = f" and {times} ({number(row['low'], 3)} to {number(row['high'], 3)})"
    return out


def _of_wide(name: str, levels: Levels, ask: str = "fit.slopes({})") -> str:
    return f"{name} has {count(len(levels))} levels: {ask.format(repr(name))} compares each with {levels[0]}."


def _note(fit: Fit, margins: Margins | None) -> str:
    if margins is None:
        return ""
    table: pd.DataFrame = margins.table
    number_, category = (table["contrast"] == "dy/dx").any(), (table["contrast"] != "dy/dx").any()
    kinds = ["of a number the slope, for each unit"] if number_ else []
    kinds += ["of a category the difference from its first level"] if category else []
    random = ", random effects 0" if grouped(fit) else ""
    return (
        f"Averages over the rows that were fitted{random}: {'; '.join(kinds)}. Other columns are as they were observed. The sentences "
        "say what goes together in these rows, which need not be what a change would bring about."
    )


def grouped(fit: Fit) -> bool:
    """Whether there are random effects: smooth terms alone are none to a reader."""
    return isinstance(fit.model, RandomEffects) and any(not r.smooth for r in fit.model.random)


def _shown(value: float, decimals: int | None) -> str:
    return number(value, 3) if decimals is None else fixed(value, decimals)
