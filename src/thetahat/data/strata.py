"""strata(…) on the right of a formula: the columns whose combinations have a baseline hazard each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import BadFormula
from .batch import Batch
from .expressions import written

if TYPE_CHECKING:
    from .design import Design

CALL = re.compile(r"^strata\s*\((.*)\)$", re.DOTALL)
ANYWHERE = re.compile(r"(?<![\w.])strata\s*\(")


def split_strata(right: str) -> tuple[str, str]:
    """A right-hand side without its strata, and those as a formula of categories, "" of none. Quoted columns stand
    under their aliases.

    Raises
    ------
    BadFormula
        strata(…) that is not a term of its own, or holds something else than columns

    Examples
    --------
    >>> split_strata("age + strata(site, sex) + dose")
    ('age + dose', 'C(site) + C(sex)')
    >>> split_strata("strata(site)"), split_strata("age")
    (('1', 'C(site)'), ('age', ''))
    """
    if not ANYWHERE.search(right):
        return right, ""
    rest, names = [], []
    for term in _split(right, "+"):
        found = CALL.match(term)
        if found is None or len(_split(found.group(1), ")")) > 1:
            rest.append(term)
            continue
        for name in _split(found.group(1), ","):
            if not name.isidentifier():
                raise BadFormula(
                    f"strata({written(found.group(1))}): {written(name) or 'nothing'!r} is not a column. Strata are "
                    "columns: strata(site), strata(site, sex). Make one of an expression first."
                )
            names.append(name)
    left = " + ".join(rest) or "1"
    if ANYWHERE.search(left):
        raise BadFormula(
            f"strata(…) stands in an interaction in {written(right)!r}. It is a term of its own, y ~ x + strata(site); "
            "for an x of each stratum write x:C(site)."
        )
    return left, " + ".join(f"C({name})" for name in dict.fromkeys(names))


def stratum_codes(designs: Sequence[Design], slot: int | None, batch: Batch) -> Tensor | None:
    """A code for each combination of the levels of the design in this slot, (n,); None: there are no strata."""
    out: Tensor | None = None
    for j, term in enumerate(() if slot is None else designs[slot].coded):
        own = batch[f"code{slot}.{j}"]
        out = own if out is None else out * (term.size + 1) + own
    return out


def _split(text: str, at: str) -> list[str]:
    """The parts between the characters `at` that stand in no bracket."""
    depth, parts, begin = 0, [], 0
    for i, character in enumerate(text):
        if character == at and depth == 0:
            parts.append(text[begin:i].strip())
            begin = i + 1
        depth += (character in "([{") - (character in ")]}")
    return [*parts, text[begin:].strip()]
