"""Rankings: several items in order, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..data.batch import Batch
from ..data.source import BLOCK, Tensors, check_count
from ..errors import BadArgument, DataError, EmptyData, UnknownLevel
from ..types import Data, Level


class Rankings(Tensors):
    """Rankings of two items or more, as a source. Each may be of other items, and of other many.

    A batch has "order", (n, J) numbers of items, what lies behind the last being padding, and "places", (n,)
    how many were ranked.

    Parameters
    ----------
    orders
        lists of labels, the best first: all that were compared, each once
    count
        how often each was observed, (n,); None: once each
    group
        labels of the independent units (a judge), which a split keeps whole
    items
        all labels in the order wanted: the first is the one whose rating is fixed at 0. None: sorted
    block
        rankings a batch

    Raises
    ------
    DataError
        an item twice in one ranking, or a ranking of fewer than two;  UnknownLevel, EmptyData

    Examples
    --------
    >>> races = Rankings([["Ada", "Bea", "Cleo"], ["Bea", "Ada"]])
    >>> races.items, races.whole["order"].tolist(), races.whole["places"].tolist()
    (['Ada', 'Bea', 'Cleo'], [[0, 1, 2], [1, 0, 0]], [3, 2])
    """

    def __init__(
        self,
        orders: Sequence[Sequence[Any]],
        count: Data = None,
        *,
        group: Data = None,
        items: Sequence[Level] | None = None,
        block: int = BLOCK // 8,
    ):
        rows = [list(order) for order in orders]
        if not rows:
            raise EmptyData("there are no rankings.")
        self.items = sorted({label for row in rows for label in row}) if items is None else list(items)
        position = {label: i for i, label in enumerate(self.items)}
        if len(position) != len(self.items):
            raise BadArgument("items= names an item twice.")
        for i, row in enumerate(rows):
            if len(row) < 2:
                raise DataError(
                    f"ranking {i} is of {len(row)} items: {row!r}. Accepted: two or more, the best first."
                )
            for label in row:
                if label not in position:
                    raise UnknownLevel(
                        f"{label!r} is in ranking {i} and not among items=: "
                        f"{', '.join(map(repr, self.items[:12]))}."
                    )
            twice = next((label for label in row if row.count(label) > 1), None)
            if twice is not None:
                raise DataError(f"ranking {i} names {twice!r} twice.")
        places = torch.tensor([len(row) for row in rows])
        order = torch.zeros(len(rows), int(places.max()), dtype=torch.long)
        for i, row in enumerate(rows):
            order[i, : len(row)] = torch.tensor([position[label] for label in row])
        units = (
            None
            if group is None
            else torch.from_numpy(np.unique(np.asarray(group).astype(str), return_inverse=True)[1])
        )
        batch = Batch({"order": order, "places": places}, count=check_count(count), group=units)
        super().__init__(batch, target="order", block=block)

    @property
    def units(self) -> str:
        return "ranking"
