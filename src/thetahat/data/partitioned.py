"""PartitionedTable: rows that stay in an engine, as the source of a regression. Functions go to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pandas as pd

from ..errors import BadWeights, EmptyData
from ..types import ModelLike, Settings
from .batch import Batch
from .checks import Place
from .frame import T
from .partitions import Partitions, reduced
from .selection import Alignment, Selection
from .source import ALL_ZERO, BLOCK, digest, joined
from .table import Encoder, Table

if TYPE_CHECKING:
    from ..families.base import Family


@dataclass(frozen=True)
class Survey:
    """What the first pass finds: Σ of two is that of both parts."""

    rows: int = 0
    total: float = 0.0
    fractional: int = 0
    dropped: int = 0
    digests: tuple[str, ...] = field(default=(), repr=False)
    lacking: dict[str, int] = field(default_factory=dict)  # column → rows that lack its value

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            self.rows + other.rows,
            self.total + other.total,
            self.fractional + other.fractional,
            self.dropped + other.dropped,
            (joined([*self.digests, *other.digests]),),
            {k: self.lacking.get(k, 0) + other.lacking.get(k, 0) for k in self.lacking | other.lacking},
        )


class PartitionedTable(Table):
    """Rows of an engine, complete in the columns that the model reads. `fold` is how they are read.

    Parameters
    ----------
    rows
        of a `Frame` in an engine
    encoder, family
        as of `Table`
    """

    def __init__(self, rows: Selection, encoder: Encoder, family: Family):
        self.frame, self.encoder, self.family, self.missing = rows, encoder, family, rows.missing
        self.block, self.streamed, self.whole, self.kept = BLOCK, True, None, None
        self.events: dict[int, int] = {}
        found = self.engine.fold(self._surveyed, Survey.__add__, encoder.required)
        assert found is not None
        if found.rows == 0:
            raise EmptyData(
                f"all {found.dropped} rows of the {rows.name} have a missing value in {', '.join(encoder.required)}."
            )
        if not found.total > 0:
            raise BadWeights(ALL_ZERO)
        self.rows, self.dropped, self.total = found.rows, found.dropped, found.total
        self.lacking = found.lacking
        # partition by partition: the same rows in other partitions have another
        self.fractional, self._fingerprint = found.fractional, joined(found.digests)

    def _surveyed(self, block: pd.DataFrame) -> Survey:
        """What is found in a block; its rows are checked."""
        kept, dropped = self.frame.used(block)
        place = Place(int(block.index[0]), kept)
        own = block if kept is None else block.loc[kept]
        lacking = self.frame.lacking(block) if dropped else {}
        if not len(own):
            return Survey(dropped=dropped, lacking=lacking)
        batch = self.encoder.encode(own, place=place)
        self._check_support(batch, place)
        scored = self.encoder.response.scored(own, batch) | ({"count": batch.count} if batch.counted else {})
        part = int((batch.count != batch.count.round()).sum()) if batch.counted else 0
        return Survey(len(batch), batch.total, part, dropped, (digest(*scored.values()),), lacking)

    @property
    def engine(self) -> Partitions:
        assert self.frame.engine is not None
        return self.frame.engine

    def fold(
        self,
        function: Callable[[Batch], T],
        combine: Callable[[T, T], T],
    ) -> T:
        """combine(… combine(function(batch 0), function(batch 1)) …), computed where the rows are."""
        return self.fold_beside((), lambda batch, beside: function(batch), combine)

    def fold_beside(
        self,
        columns: Sequence[str],
        function: Callable[[Batch, pd.DataFrame], T],
        combine: Callable[[T, T], T],
    ) -> T:
        """The same of a function that reads columns of the data beside the batch."""
        self.frame.whole.require(columns, where="the argument")

        def of(frame: pd.DataFrame) -> T | None:
            batch = self.encoder.encode(frame)
            starts = range(0, len(frame), self.block)
            names = list(columns)
            parts = (
                function(batch[at : at + self.block], frame[names].iloc[at : at + self.block])
                for at in starts
            )
            return reduced(combine, parts)

        found = self.frame.fold(of, combine, [*self.encoder.required, *columns])
        assert found is not None
        return found

    @cached_property
    def sample(self) -> Batch:
        """Some rows, evenly spread (`Selection.sampled`): where a fit begins."""
        return self.encoder.encode(self.frame.sampled())

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """The sample, from which types and shapes are learnt; there are no others here."""
        yield self.sample
        if len(self.sample) < self.rows:
            self.engine.refuse("this")

    def frames(self) -> Iterator[pd.DataFrame]:
        self._refuse("a prediction for the rows that were fitted")

    @property
    def alignment(self) -> Alignment:
        self._refuse("one value for each row that was fitted")

    def column(self, name: str) -> np.ndarray:
        self._refuse(f"column {name!r}")

    def _refuse(self, what: str) -> NoReturn:
        self.engine.refuse(what)

    def __getstate__(self) -> Settings:
        return {name: value for name, value in self.__dict__.items() if name != "sample"}
