"""OrderedTable: a file larger than memory whose rows are in order of time, for a likelihood of risk sets.

    R(t) = {i : time_i ≥ t}

Read by falling time, a risk set is all that has been read of its stratum, so that sums over it are carried from
batch to batch. A file in rising order is read from its end.

Tied events share a risk set and, by Efron's method, terms: where a time goes on in the next block, its events are
handed out with that block. Rows without an event are not held back: they only have to come before the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import BadArgument, DataError
from ..types import ModelLike
from .batch import Batch, concatenate
from .partitions import reduced
from .selection import Alignment, Selection
from .strata import stratum_codes
from .table import Encoder, Table

if TYPE_CHECKING:
    from ..families.base import Family

RISING, FALLING = "rising", "falling"

T = TypeVar("T")


class OrderedTable(Table):
    """Rows of a Parquet file in order of time, within strata where there are some. Each batch holds all events of its
    times, and follows in falling order on the one before.

    Parameters
    ----------
    rows, encoder, family
        as of `Table`
    strata
        the slot of the design whose terms are the strata; None: there is one stratum

    Raises
    ------
    DataError
        the rows are not in order, which the first pass finds out
    BadArgument
        rows with delayed entry, which leave risk sets on the way
    """

    ordered = True

    def __init__(self, rows: Selection, encoder: Encoder, family: Family, strata: int | None = None):
        self.strata = strata
        self.direction: str | None = None
        super().__init__(rows, encoder, family)

    def _survey(self) -> Iterator[Batch]:
        order = _Order(self.frame.name, self.units)
        for batch in super()._survey():
            if "entry" in batch:
                raise BadArgument(
                    f"{self.frame.name} is larger than memory, and {self.encoder.response.expression} has delayed "
                    "entry: a row that enters late leaves the risk sets of earlier times, so that they are not carried "
                    f"from block to block. {IN_MEMORY}"
                )
            order.see(batch["y"], stratum_codes(self.encoder.designs, self.strata, batch))
            yield batch
        self.direction = order.direction or FALLING

    @property
    def alignment(self) -> Alignment:
        """Batches are not in the order of the file, so that nothing of theirs can be put beside its rows."""
        raise DataError(f"an answer for each row that was fitted: {self._order}. Give the rows, data=….")

    def column(self, name: str) -> np.ndarray:
        raise DataError(f"column {name!r} beside the rows that were fitted: {self._order}. {IN_MEMORY}")

    @property
    def _order(self) -> str:
        return f"{self.frame.name} was streamed in order of time, which is not that of its rows"

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        for batch, _ in self.beside():
            yield batch

    def beside(self, columns: Sequence[str] = ()) -> Iterator[tuple[Batch, pd.DataFrame]]:
        """Each batch, with these columns of its rows; the index of the frame is the rows' numbers in the file."""
        last: tuple[Batch, pd.DataFrame] | None = None
        for block in self._falling(columns):
            if last is None:
                last = block
                continue
            left = self._going_on(last[0], block[0])
            if left is None:
                yield last
                last = block
                continue
            if not bool(left.all()):
                yield last[0][~left], last[1][~left.numpy()]
            last = (
                concatenate([last[0][left], block[0]]),
                pd.concat([last[1][left.numpy()], block[1]]),
            )
        if last is not None:
            yield last

    def fold_beside(
        self,
        columns: Sequence[str],
        function: Callable[[Batch, pd.DataFrame], T],
        combine: Callable[[T, T], T],
    ) -> T:
        """combine(… combine(function(batch 0), function(batch 1)) …) of a function that reads columns beside the batch, as of a
        `PartitionedTable`."""
        self.frame.whole.require(columns, where="the argument")
        found = reduced(combine, (function(batch, beside) for batch, beside in self.beside(columns)))
        assert found is not None
        return found

    def _falling(self, columns: Sequence[str]) -> Iterator[tuple[Batch, pd.DataFrame]]:
        need, names = [*self.encoder.required, *columns], list(columns)
        falling = self.direction == FALLING
        for frame in self.frame.blocks(need) if falling else self.frame.backward(need):
            yield self.encoder.encode(frame), frame[names]

    def _going_on(self, batch: Batch, following: Batch) -> Tensor | None:
        """Which rows are events whose time goes on in the following batch, (n,); None: none."""
        same = batch["y"] == following["y"][0]
        codes = stratum_codes(self.encoder.designs, self.strata, batch)
        if codes is not None:
            begins = stratum_codes(self.encoder.designs, self.strata, following)
            assert begins is not None
            same &= codes == begins[0]
        same &= batch["event"] == 1
        return same if bool(same.any()) else None


IN_MEMORY = (
    "Where there is memory enough, th.data.Frame(file, memory=…) with more bytes than its columns take reads the file "
    "whole."
)


@dataclass
class _Order:
    """Whether rows are in one order of time, seen block by block.

    direction : None while all times were the same
    """

    name: str
    units: str
    direction: str | None = None
    rows: int = 0
    time: float | None = None
    code: int = 0
    seen: set[int] = field(default_factory=set)

    def see(self, time: Tensor, codes: Tensor | None) -> None:
        """The next rows.

        Raises
        ------
        DataError
            they are not in the order of those before
        """
        codes = torch.zeros(len(time), dtype=torch.long) if codes is None else codes
        if self.time is not None:
            time = torch.cat([time.new_tensor([self.time]), time])
            codes = torch.cat([codes.new_tensor([self.code]), codes])
        first = self.rows - (self.time is not None)
        same = codes[1:] == codes[:-1]
        change = time.diff().masked_fill(~same, 0.0)
        if self.direction is None and bool((change != 0).any()):
            up = float(change[change != 0][0]) > 0
            self.direction = RISING if up else FALLING
        bad = change < 0 if self.direction == RISING else change > 0
        if bool(bad.any()):
            at = int(torch.nonzero(bad)[0, 0])
            self._refuse(
                f"{self.units} = {float(time[at]):g} is followed by {float(time[at + 1]):g}", first + at + 1
            )
        begins = torch.nonzero(~same)[:, 0] + 1
        starts = [*([0] if self.time is None else []), *begins.tolist()]
        for at in starts:
            code = int(codes[at])
            if code in self.seen:
                self._refuse("the rows of a stratum are not together: it comes again", first + at)
            self.seen.add(code)
        self.rows = first + len(time)
        self.time, self.code = float(time[-1]), int(codes[-1])

    def _refuse(self, what: str, row: int) -> None:
        raise DataError(
            f"{self.name} is larger than memory, and its rows are not in order of time: in row {row} of those without "
            f"missing values {what}. Risk sets are summed along the file: sort it by the strata, if there are some, and "
            "then by time, rising or falling, for example "
            f"polars.scan_parquet(file).sort('time').sink_parquet('sorted.parquet'). {IN_MEMORY}"
        )
