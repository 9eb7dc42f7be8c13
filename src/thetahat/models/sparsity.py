"""Whether the Schur complement of the widest factor is dense, or sparse in the columns of the other factors.

    dense   m³/3 for the factor, as much for the inverse;     sparse   Σ k (k + r)² over the nodes of the tree

One multiplication of the sparse factor takes as long as about 4 of the dense one, and each group of its nodes as long as 4
million. So measured, groups that are nested pay from 400 columns on, crossed ones of which few meet from 1,000 on; where most
meet, the factor fills up, and never pays. Beyond WIDEST columns there is no dense one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ModelError
from ..memory import free
from .blocks import Pattern
from .fronts import TooFilled
from .gram import Gram

WIDEST = 12_000  # columns of the dense Schur complement, or of the dense ones of a sparse one: 1.2 GB
LEAST = 200  # sparse columns, from which on a sparse factor is considered
SHARE = 0.25  # of the dense matrix, that it may fill
DEARER, OF_GROUP = 4.0, 4e6  # its multiplications, and a group of its nodes, in those of a dense factor
MOST = 5e12  # multiplications of a factor: minutes each


def sparse_pattern(
    pattern: Callable[[], Pattern], terms: Sequence[tuple[int, int]], levels: int
) -> Gram | None:
    """S's pattern, where it is to be sparse; None: it is dense.

    Parameters
    ----------
    pattern
        of the columns that each level of the eliminated factor meets
    terms
        the levels and the width of each term of those columns
    levels
        of the eliminated factor

    Raises
    ------
    ModelError
        there are too many for a dense matrix, and too many meet for a sparse factor
    """
    m = sum(count * width for count, width in terms)
    if m < LEAST:
        return None
    if m <= WIDEST:
        try:
            found = Gram.made(pattern(), terms, SHARE * m**2)
        except TooFilled:
            return None
        cost = DEARER * found.fronts.products + OF_GROUP * len(found.fronts.groups)
        return found if cost < float(m) ** 3 else None
    room = (free() or np.inf) / 8  # numbers
    try:
        found = Gram.made(pattern(), terms, room)
    except TooFilled as error:
        raise _too_filled(terms, levels, f"at least {8e-9 * error.least:,.1f} GB of memory") from error
    held, products = found.fronts.held, found.fronts.products
    if held > room or products > MOST:
        raise _too_filled(
            terms,
            levels,
            f"about {8e-9 * held:,.1f} GB of memory and {products:.0e} multiplications an evaluation",
        )
    return found


def _too_filled(terms: Sequence[tuple[int, int]], levels: int, needs: str) -> ModelError:
    others = ", ".join(
        f"{count:,} groups" + (f" ({width} effects each)" if width > 1 else "") for count, width in terms
    )
    return ModelError(
        f"beside the largest grouping factor, of {levels:,} groups, the model has factors of {others}, and so many of "
        f"these meet in common groups that the sparse factor of their equations fills up: it needs {needs}. Accepted: "
        f"{(free() or np.inf) * 1e-9:,.1f} GB, which are free, and {MOST:.0e} multiplications. Leave a grouping factor out, or "
        "combine its groups."
    )
