"""Table: rows of a data frame or a file, as the source of a regression.

`Encoder` turns columns into the tensors that `models.regression` reads, and remembers how, so that new rows
are encoded alike:

    y                (n,)       the response; codes 0 … k − 1 if it is categorical
    x0, x1 …         (n, q)     dense columns of predictor 0, 1 …; a window of the user's own memory where that is possible
    code0.j          (n,)       the level of its j-th categorical term, 0 for the reference;  value0.j what multiplies it
    offset0          (n,)       its offset
    trials, low …    (n,)       what the family asks of each row besides
    event, upper, entry  (n,)   what was seen of y, where the response is Surv(…)
    group0, group1 …     (n,)   the group of each row in each grouping factor of random effects; -1: not seen
    smooth0, smooth1 …   (n, k) the penalised columns of each smooth term
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import (
    BadArgument,
    BadWeights,
    DataError,
    EmptyData,
    NotFinite,
    OutOfSupport,
    UnknownColumn,
    WrongType,
)
from ..protocols import Together
from ..threads import beside_a_reader
from ..types import Data, ModelLike
from .batch import Batch, concatenate
from .checks import ALL, Place, finite
from .columns import is_categorical, numeric_column
from .design import Design
from .frame import Frame
from .random_terms import Grouping
from .response import LOG_SLOPES, Response
from .selection import Alignment, Selection, Sometimes, missing_rows
from .smooths import Curve
from .source import ALL_ZERO, BLOCK, Digest, check_count, digest, joined
from .surv import Surv

if TYPE_CHECKING:
    from ..families.base import Family


RESERVED = re.compile(
    r"y|rows|x\d+|offset\d+|group\d+|smooth\d+|(code|value)\d+\.\d+"
)  # names of an encoder's own tensors


SAMPLE = 100_000  # rows of a file of any size that are held, for a start


@dataclass(frozen=True)
class Extras:
    """The columns of a family's extras. A row lacks one only where the family needs it (None: everywhere).

    columns : extra → its column
    """

    columns: Mapping[str, str]
    family: Family | None

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.columns.values())))

    def missing(self, block: pd.DataFrame, first: int = 0) -> Iterator[tuple[str, np.ndarray]]:
        values = {
            name: torch.from_numpy(np.array(numeric_column(block, column)))
            for name, column in self.columns.items()
        }
        for name, value in values.items():
            needed = (
                torch.as_tensor(self.family is None or self.family.needs(name, values))
                .expand(len(block))
                .numpy()
            )
            lost = np.isnan(value.numpy()) & needed
            finite(
                np.where(needed & ~lost, value.numpy(), 0.0), f"column {self.columns[name]!r}", Place(first)
            )
            if lost.any():
                yield self.columns[name], lost


@dataclass(frozen=True)
class Encoder:
    """How columns become tensors: the response, one design a slot, the family's extras, the weights."""

    response: Response
    designs: tuple[Design, ...]
    extras: Mapping[str, str | float] = field(default_factory=dict)
    weights: str | None = None
    carried: tuple[str, ...] = ()  # columns that a weighting of the fit reads: no model does
    groupings: tuple[Grouping, ...] = ()
    smooths: tuple[Curve, ...] = ()
    dates: Mapping[str, str] = field(
        default_factory=dict
    )  # columns of dates, and the first: they are days since then

    def __deepcopy__(self, memo: dict[int, object]) -> Encoder:
        return self  # it does not change, and may be large

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that a fit reads."""
        wanted = set(self.predictors) | set(self.response.required)
        wanted |= {v for v in self.extras.values() if isinstance(v, str)} | (
            {self.weights} if self.weights else set()
        )
        wanted |= set(self.carried)
        return tuple(sorted(wanted))

    def select(self, frame: Frame, family: Family, missing: str = "drop") -> Selection:
        """The rows of a frame that a fit uses."""
        given = {name: column for name, column in self.extras.items() if isinstance(column, str)}
        always = {*self.predictors, *self.carried, *([self.weights] if self.weights else [])}
        sometimes: list[Sometimes] = [Extras(given, family)]
        if isinstance(self.response, Surv):
            sometimes.append(self.response)
        else:
            always |= set(self.response.required)
        return Selection(
            frame.dated(self.dates),
            sorted(always),
            weights=self.weights,
            carried=self.carried,
            missing=missing,
            sometimes=sometimes,
        )

    @property
    def predictors(self) -> tuple[str, ...]:
        """The columns that a prediction reads."""
        wanted = {name for design in self.designs for name in design.required}
        wanted |= {name for grouping in self.groupings for name in grouping.columns}
        wanted |= {name for smooth in self.smooths for name in smooth.required}
        return tuple(sorted(wanted))

    def unseen(self, frame: pd.DataFrame, *, groups: bool = True) -> np.ndarray:
        """The complete rows that have a level (or a group) of which none was fitted, (n,)."""
        out = np.zeros(len(frame), dtype=bool)
        for design in self.designs:
            out |= design.unseen(frame)
        for grouping in self.groupings if groups else ():
            out |= grouping.codes(frame) < 0
        return out

    def encode(self, frame: pd.DataFrame, *, response: bool = True, place: Place = ALL) -> Batch:
        """Rows without missing values, as tensors. `place` says which rows of the data they are."""
        tensors: dict[str, Tensor] = {}
        if response:
            tensors |= self.response.tensors(frame, place)
        known: dict[str, np.ndarray] = {}
        curves = {curve: curve.columns(frame) for curve in self.smooths}
        for slot, design in enumerate(self.designs):
            dense = design.dense_columns(frame, curves)
            if dense is not None:
                _finite_rows(dense, design, place)
                tensors[f"x{slot}"] = torch.from_numpy(dense).T
            for j, term in enumerate(design.coded):
                tensors[f"code{slot}.{j}"] = torch.from_numpy(_narrow(term.codes(frame, known), term.size))
                value = term.value(frame)
                if value is not None:
                    tensors[f"value{slot}.{j}"] = torch.from_numpy(finite(value, term.term, place))
            offset = design.offsets(frame)
            if offset is not None:
                tensors[f"offset{slot}"] = torch.from_numpy(
                    finite(offset, f"the offset of {design.formula!r}", place)
                )
        for i, grouping in enumerate(self.groupings):
            tensors[f"group{i}"] = torch.from_numpy(grouping.codes(frame))
        for i, (curve, (_, shrunk)) in enumerate(curves.items()):
            tensors[f"smooth{i}"] = torch.from_numpy(finite_matrix(shrunk, curve.label, place))
        for name, column in self.extras.items():
            if isinstance(column, str):
                if column in frame.columns:
                    tensors[name] = torch.from_numpy(numeric_column(frame, column).copy())
            else:
                tensors[name] = torch.full((len(frame),), float(column), dtype=torch.float64)
        for name in self.carried if response else ():
            if name in tensors or RESERVED.match(name):
                raise BadArgument(f"a column of weights cannot be called {name!r} here: rename it.")
            tensors[name] = torch.from_numpy(finite(numeric_column(frame, name), f"column {name!r}", place))
        count = None
        if response and self.weights:
            count = check_count(numeric_column(frame, self.weights).copy(), place.row, part=True)
        if not tensors:
            tensors["rows"] = torch.zeros(len(frame), dtype=torch.float64)
        return Batch(tensors, count=count)


class Table:
    """Rows of a data frame or a file, complete in the columns that the model reads.

    A file too large for memory is read again at each pass; the first pass checks it.

    Parameters
    ----------
    frame
        the data
    encoder
        how they become tensors
    family
        whose support the response must lie in
    missing
        "drop" leaves rows with a missing value out and counts them (`dropped`); "raise" refuses them
    block
        rows a batch; None: more of them where a category is so wide that each batch has a large sum of its
        own
    together
        yield all rows as one batch, for a model whose log-likelihood is not a sum over rows (risk sets, shared
        random effects); so it is for a family that says so (`protocols.Together`)
    """

    rows_alone: ClassVar[bool] = True
    ordered: ClassVar[bool] = (
        False  # whether rows come in an order that the model reads them in, and not all at once
    )

    def __init__(
        self,
        frame: Frame,
        encoder: Encoder,
        family: Family,
        *,
        missing: str = "drop",
        block: int | None = None,
        together: bool = False,
    ):
        rows = frame if isinstance(frame, Selection) else encoder.select(frame, family, missing)
        self.frame, self.encoder, self.family, self.missing = rows, encoder, family, rows.missing
        together = not self.ordered and (together or isinstance(family, Together))
        widest = max((term.size for design in encoder.designs for term in design.coded), default=0)
        self.block = block or (4 * BLOCK if widest > 500 else BLOCK)
        self.streamed = frame.streamed(encoder.required)
        self.whole: Batch | None = None
        self.every = max(
            32, frame.size // SAMPLE
        )  # of a file: the part of the rows that the first pass leaves in memory
        self.sample: Batch | None = None
        self.kept: np.ndarray | None = None  # the rows that are used, None for all of them
        self.dropped, self.rows = 0, 0
        self.lacking: dict[str, int] = {}  # column → rows that lack its value
        self.fractional = 0  # rows whose frequency weight is not a whole number
        self.events: dict[int, int] = {}  # of a response Surv(…): rows by the code of what was seen
        self._digests: dict[str, Digest] = {}  # of a file, which is read once for it
        self._scored: dict[
            str, Tensor
        ] = {}  # in memory: what the fingerprint is made of when it is asked for
        self._fingerprint: str | None = None
        total = 0.0
        with beside_a_reader(self.streamed):
            for batch in self._survey():
                self.rows += len(batch)
                total += batch.total
                self.fractional += int((batch.count != batch.count.round()).sum()) if batch.counted else 0
        if self.rows == 0 and self.dropped == frame.size:
            raise EmptyData(
                f"all {self.dropped} rows of {frame.name} have a missing value in "
                f"{', '.join(encoder.required)}."
            )
        if not total > 0:
            raise BadWeights(ALL_ZERO)
        self.total = total
        if together and self.whole is None:
            raise DataError(
                f"{frame.name} is too large to be held in memory, and this model reads all rows at once. Give a "
                "part of the rows, or a machine with more memory."
            )
        self.block = self.rows if together else self.block

    @property
    def size(self) -> int:
        return self.rows

    @property
    def units(self) -> str:
        return self.encoder.response.units

    @property
    def scored_in(self) -> str:
        """What a density is per once `log_determinant` has been added: the column, where the response is a
        known function of one."""
        return self.encoder.response.observed

    @property
    def fingerprint(self) -> str:
        """Of what was observed, before any transform: "log(y)" and "y" are the same data in other units."""
        if self._fingerprint is None:
            read = [each.hexdigest() for each in self._digests.values()]
            self._fingerprint = joined(read) if self.streamed else digest(*self._scored.values())
        return self._fingerprint

    def log_determinant(self, batch: Batch) -> Tensor | None:
        """log |dt/dy|, (n,), of a response t = f(y) with f one-to-one (log, log1p, log2, log10, sqrt, exp,
        expm1); None: none is needed.

        log p(y) = log p(t) + log |dt/dy|
        """
        transform = self.encoder.response.transform
        return None if transform is None else LOG_SLOPES[transform](batch["y"])

    def frames(self) -> Iterator[pd.DataFrame]:
        """The rows that the fit used, as columns, block by block (marginal effects encode them anew)."""
        yield from self.frame.blocks(self.encoder.required)

    @property
    def alignment(self) -> Alignment:
        """Where the rows that the fit used stand among those that it was given."""
        return Alignment(self.frame.size, self.kept, self.frame.index)

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        for large in [self.whole] if self.whole is not None else self._read():
            if len(large) <= self.block:
                yield large  # itself: what was found of its rows before is known by its tensors
                continue
            for start in range(0, len(large), self.block):
                yield large[start : start + self.block]

    def in_blocks(self, rows: int) -> Table:
        """The same rows, at least so many at a time: of a file, those of a block that is read."""
        if rows <= self.block:
            return self
        out = copy.copy(self)
        out.block = rows
        return out

    def column(self, name: str) -> np.ndarray:
        """A column of the rows that the fit used (clusters, plots)."""
        whole = self.frame.whole
        whole.require([name], where="the argument")
        if self.streamed:
            return np.concatenate([block[name].to_numpy() for block in self.frame.blocks([name])])
        column = whole.read([name])[name].to_numpy()
        return column if self.kept is None else column[self.kept]

    # ---- reading -------------------------------------------------------------------------------------------

    def _survey(self) -> Iterator[Batch]:
        """The first pass: check every row, and keep the tensors if they fit in memory."""
        first = 0
        parts, masks, taken = [], [], []
        for frame in (
            self.frame.whole.blocks(self.encoder.required)
            if self.streamed
            else [Frame.read(self.frame, self.encoder.required)]
        ):
            kept, dropped = self.frame.used(frame)
            place = Place(first, kept)
            self.dropped += dropped
            for name, rows in (self.frame.lacking(frame) if dropped else {}).items():
                self.lacking[name] = self.lacking.get(name, 0) + rows
            masks.append(np.ones(len(frame), dtype=bool) if kept is None else kept)
            complete = frame if kept is None else frame.loc[kept, list(self.encoder.required)]
            batch = self.encoder.encode(complete, place=place)
            self._check_support(batch, place)
            self._take_fingerprint(complete, batch)
            seen = torch.bincount(batch["event"].long()) if isinstance(self.encoder.response, Surv) else ()
            for code, many in enumerate(seen):
                if many:
                    self.events[code] = self.events.get(code, 0) + int(many)
            first += len(frame)
            if not self.streamed:
                parts.append(batch)
            elif not self.ordered:
                taken.append(batch[: -(-len(batch) // self.every)].map(torch.Tensor.clone))
            yield batch
        mask = np.concatenate(masks)
        self.kept = None if mask.all() else mask
        self.frame.every_row = self.streamed and self.kept is None
        if parts:
            self.whole = concatenate(parts)
        self.sample = concatenate(taken) if taken else None

    def _take_fingerprint(self, frame: pd.DataFrame, batch: Batch) -> None:
        response = self.encoder.response
        seen = response.scored(frame, batch) | ({"count": batch.count} if batch.counted else {})
        if not self.streamed:
            self._scored = dict(seen)
            return
        for name, tensor in seen.items():
            self._digests.setdefault(name, Digest()).update(tensor)

    def _read(self) -> Iterator[Batch]:
        for frame in self.frames():
            yield self.encoder.encode(frame)

    def _check_support(self, batch: Batch, place: Place) -> None:
        extras = {name: batch[name] for name in self.family.extras if name in batch}
        inside = self.family.in_support(batch["y"], **extras)
        if bool(inside.all()):
            return
        at = int(torch.nonzero(~inside)[0, 0])
        with_extras = "".join(
            f", {k} = {float(v[at]):g}" for k, v in extras.items() if not torch.isnan(v[at])
        )
        raise OutOfSupport(
            f"row {place.row(at)}: {self.encoder.response.units} = {float(batch['y'][at]):g}{with_extras}, "
            f"to which {self.family} "
            f"gives probability zero. Its support is {self.family.support}. ({int((~inside).sum())} such "
            "rows.)"
        )


def _narrow(codes: np.ndarray, levels: int) -> np.ndarray:
    """Codes 0 … levels in as few bytes as they need: a pass over many rows is as fast as its memory."""
    kind = np.uint8 if levels < 2**8 else np.int16 if levels < 2**15 else np.int32
    return codes.astype(kind)


def finite_matrix(values: np.ndarray, label: str, place: Place) -> np.ndarray:
    """The matrix; a value that is not finite is refused by its row."""
    finite(values.sum(1), label, place)
    return values


def _finite_rows(dense: np.ndarray, design: Design, place: Place) -> None:
    made = dense[len(design.numeric) :]  # the numeric columns were checked as they were read
    for name, values in zip((*design.dense_names, *design.curve_names), made, strict=True):
        with np.errstate(all="ignore"):
            every = np.isfinite(values.sum())
        if not every:
            finite(values, f"column {name!r}", place)


def new_rows(encoder: Encoder, data: Data, family: Family | None = None) -> Batch:
    """Predictors of rows that the fit has not seen, by the encodings that it remembers. A missing one is an
    error: nothing is dropped."""
    batch, alignment = aligned_rows(encoder, data, family)
    if alignment.kept is not None:
        row = int(np.flatnonzero(~alignment.kept)[0])
        raise DataError(
            f"row {row} has a missing value in a column that the model reads: every row is needed here."
        )
    return batch


def aligned_rows(
    encoder: Encoder, data: Data, family: Family | None = None, *, unseen: str = "raise", groups: bool = True
) -> tuple[Batch, Alignment]:
    """The rows of new data that are complete in what a prediction reads, and where they stand among all.

    Parameters
    ----------
    family
        says which rows need an extra; None: all do
    unseen
        "nan" leaves out the rows of levels that were not fitted, and, with `groups`, of groups that were not
    """
    if unseen not in ("raise", "nan"):
        raise BadArgument(f"unseen={unseen!r}. Accepted: 'raise', 'nan'.")
    frame = Frame(data).dated(encoder.dates)
    given = {n: c for n, c in encoder.extras.items() if isinstance(c, str) and c in frame.columns}
    _require(frame, encoder)
    needed = sorted({*encoder.predictors, *given.values()})
    block = frame.read(needed)
    missing = np.zeros(frame.size, dtype=bool)
    for name in encoder.predictors:
        found = missing_rows(block[name])
        missing |= False if found is None else found
    for _, found in Extras(given, family).missing(block):
        missing |= found
    if missing.all() and needed:
        raise DataError(
            f"every row has a missing value in {', '.join(needed)}: there is nothing to predict from."
        )
    if unseen == "nan":
        complete = ~missing
        missing[complete] = encoder.unseen(block.loc[complete, needed], groups=groups)
    kept = ~missing if missing.any() else None
    block = block if kept is None else block.loc[kept, needed]
    batch = encoder.encode(block, response=False, place=Place(0, kept))
    return batch, Alignment(frame.size, kept, frame.index)


def _require(frame: Frame, encoder: Encoder) -> None:
    """Refuse rows without a column that a prediction reads; of a grouping column, with the way to do without it."""
    apart = {name for grouping in encoder.groupings for name in grouping.columns}
    rest = set(replace(encoder, groupings=()).predictors)
    for name in encoder.predictors:
        if name in apart - rest and name not in frame.columns:
            found = UnknownColumn.named(name, frame.columns, where="a random effect of the model")
            raise UnknownColumn(f"{found} Of an average group, without it: predict(…, groups='average').")
    frame.require(encoder.predictors, where="the model")


def texts_of(frame: Frame) -> list[str]:
    """The columns that hold text, or categories."""
    block = next(iter(frame.blocks(list(frame.columns))))
    return [name for name in frame.columns if is_categorical(block[name], name)]


def numeric_tensors(
    frame: Frame, columns: Sequence[str] = (), optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """Columns (all, without a choice) as float64 tensors, for a model that reads them by name. A missing
    value is refused by name.

    Parameters
    ----------
    optional
        columns in which NaN and ±∞ are let through
    """
    chosen = list(columns) or list(frame.columns)
    block = frame.read(chosen)
    out = {}
    for name in chosen:
        found = None if name in optional else missing_rows(block[name])
        if found is not None:
            raise NotFinite(
                f"column {name!r} is missing in row {int(np.flatnonzero(found)[0])}. A model of one's own "
                "sees every row: drop it first."
            )
        if is_categorical(block[name], name):
            raise WrongType(
                f"column {name!r} holds text, and your own model reads numbers. Encode it, or leave it out."
            )
        values = numeric_column(block, name)
        out[name] = torch.from_numpy(
            np.array(values) if name in optional else finite(values, f"column {name!r}", ALL)
        )
    return out
