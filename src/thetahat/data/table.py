"""Table: rows of a data frame or a file, as the source of a regression.

`Encoder` turns columns into the tensors that `models.regression` reads, and remembers how, so that new rows are encoded alike:

    y                (n,)       the response; codes 0 … k − 1 if it is categorical
    x0, x1 …         (n, q)     dense columns of predictor 0, 1 …; a window of the user's own memory where that is possible
    code0.j          (n,)       the level of its j-th categorical term, 0 for the reference;  value0.j what multiplies it
    offset0          (n,)       its offset
    trials, status … (n,)       what the family asks of each row besides
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import BadArgument, BadWeights, DataError, EmptyData, NotFinite, OutOfSupport, WrongType
from .batch import Batch, concatenate
from .design import Design, is_categorical, numeric_column
from .frame import Frame
from .response import LOG_SLOPES, Response
from .source import ALL_ZERO, BLOCK, Digest, check_count, joined

if TYPE_CHECKING:
    from ..families.base import Family


RESERVED = re.compile(r"y|rows|x\d+|offset\d+|(code|value)\d+\.\d+")  # names of an encoder's own tensors
OBSERVED = ("status", "upper")  # extras that say what was seen of y, rather than under which conditions


@dataclass(frozen=True)
class Place:
    """Which rows of the data a block's rows are: those of `kept` (None: all), counted from `first`."""

    first: int = 0
    kept: np.ndarray | None = None

    def row(self, i: int) -> int:
        return self.first + (i if self.kept is None else int(np.flatnonzero(self.kept)[i]))


@dataclass(frozen=True)
class Encoder:
    """How columns become tensors: the response, one design a slot, the family's extras, the weights."""

    response: Response
    designs: tuple[Design, ...]
    extras: Mapping[str, str | float] = field(default_factory=dict)
    weights: str | None = None
    carried: tuple[str, ...] = ()  # columns that a weighting of the fit reads: no model does

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that a fit reads."""
        wanted = set(self.predictors) | set(self.response.required)
        wanted |= {v for v in self.extras.values() if isinstance(v, str)} | ({self.weights} if self.weights else set())
        wanted |= set(self.carried)
        return tuple(sorted(wanted))

    @property
    def predictors(self) -> tuple[str, ...]:
        """The columns that a prediction reads."""
        return tuple(sorted({name for design in self.designs for name in design.required}))

    def encode(self, frame: pd.DataFrame, *, response: bool = True, place: Place = Place()) -> Batch:
        """Rows without missing values, as tensors. `place` says which rows of the data they are."""
        tensors: dict[str, Tensor] = {}
        if response:
            tensors["y"] = torch.from_numpy(_finite(self.response.values(frame), self.response.expression, place))
        for slot, design in enumerate(self.designs):
            dense = design.dense_columns(frame)
            if dense is not None:
                _finite_rows(dense, design, place)
                tensors[f"x{slot}"] = torch.from_numpy(dense).T
            for j, term in enumerate(design.coded):
                tensors[f"code{slot}.{j}"] = torch.from_numpy(term.codes(frame))
                value = term.value(frame)
                if value is not None:
                    tensors[f"value{slot}.{j}"] = torch.from_numpy(_finite(value, term.term, place))
            offset = design.offsets(frame)
            if offset is not None:
                tensors[f"offset{slot}"] = torch.from_numpy(_finite(offset, f"the offset of {design.formula!r}", place))
        for name, column in self.extras.items():
            if isinstance(column, str):
                if column in frame.columns:
                    tensors[name] = torch.from_numpy(numeric_column(frame, column).copy())
            else:
                tensors[name] = torch.full((len(frame),), float(column), dtype=torch.float64)
        for name in self.carried if response else ():
            if name in tensors or RESERVED.match(name):
                raise BadArgument(f"a column of weights cannot be called {name!r} here: rename it.")
            tensors[name] = torch.from_numpy(_finite(numeric_column(frame, name), f"column {name!r}", place))
        count = None
        if response and self.weights:
            count = check_count(numeric_column(frame, self.weights).copy(), place.row, part=True)
        if not tensors:
            tensors["rows"] = torch.zeros(len(frame), dtype=torch.float64)
        return Batch(tensors, count=count)


class Table:
    """Rows of a data frame or a file, complete in the columns that the model reads.

    Parameters
    ----------
    frame : the data
    encoder : how they become tensors
    family : whose support the response must lie in
    missing : "drop" leaves rows with a missing value out and counts them (`dropped`); "raise" refuses them
    block : rows a batch; None: more of them where a category is so wide that each batch has a large sum of its own

    A file too large for memory is read again at each pass; the first pass checks it.
    """

    def __init__(self, frame: Frame, encoder: Encoder, family: Family, *, missing: str = "drop", block: int | None = None):
        if missing not in ("drop", "raise"):
            raise BadArgument(f"missing={missing!r}. Accepted: 'drop', 'raise'.")
        self.frame, self.encoder, self.family, self.missing = frame, encoder, family, missing
        widest = max((term.size for design in encoder.designs for term in design.coded), default=0)
        self.block = block or (4 * BLOCK if widest > 500 else BLOCK)
        frame.require(encoder.required, where="the fit")
        self.streamed = frame.streamed(encoder.required)
        self.whole: Batch | None = None
        self.kept: np.ndarray | None = None  # in memory: the rows that are complete, None for all of them
        self.dropped, self.rows = 0, 0
        self._digests: dict[str, Digest] = {}
        total = 0.0
        for batch in self._survey():
            self.rows += len(batch)
            total += batch.total
        if self.rows == 0:
            raise EmptyData(f"all {self.dropped} rows of {frame.name} have a missing value in {', '.join(encoder.required)}.")
        if not total > 0:
            raise BadWeights(ALL_ZERO)
        self.total = total

    @property
    def size(self) -> int:
        return self.rows

    @property
    def units(self) -> str:
        return self.encoder.response.expression

    @property
    def scored_in(self) -> str:
        """What a density is per once `log_determinant` has been added: the column, where the response is a known function of one."""
        return self.encoder.response.observed

    @property
    def fingerprint(self) -> str:
        """Of what was observed, before any transform: "log(y)" and "y" are the same data in other units."""
        return joined(digest.hexdigest() for digest in self._digests.values())

    def log_determinant(self, batch: Batch) -> Tensor | None:
        """log |dt/dy|, (n,), of a response t = f(y) with f one-to-one (log, log1p, log2, log10, sqrt, exp, expm1); None: none is needed.

        log p(y) = log p(t) + log |dt/dy|
        """
        transform = self.encoder.response.transform
        return None if transform is None else LOG_SLOPES[transform](batch["y"])

    def frames(self) -> Iterator[pd.DataFrame]:
        """The rows that the fit used, as columns, block by block (marginal effects encode them anew)."""
        for frame in self.frame.blocks(self.encoder.required):
            yield self._complete(frame)[0]

    def batches(self, model: Any = None) -> Iterator[Batch]:
        for large in [self.whole] if self.whole is not None else self._read():
            for start in range(0, len(large), self.block):
                yield large[start : start + self.block]

    def column(self, name: str) -> np.ndarray:
        """A column of the rows that the fit used (clusters, plots)."""
        self.frame.require([name], where="the argument")
        if self.streamed:
            need = sorted({*self.encoder.required, name})
            parts = []
            for block in self.frame.blocks(need):
                kept = self._complete(block)[1]
                parts.append(block[name].to_numpy() if kept is None else block[name].to_numpy()[kept])
            return np.concatenate(parts)
        column = self.frame.read([name])[name].to_numpy()
        return column if self.kept is None else column[self.kept]

    # ---- reading -------------------------------------------------------------------------------------------------------

    def _survey(self) -> Iterator[Batch]:
        """The first pass: check every row, and keep the tensors if they fit in memory."""
        first = 0
        parts = []
        for frame in self.frame.blocks(self.encoder.required):
            complete, kept = self._complete(frame, first)
            place = Place(first, kept)
            self.dropped += len(frame) - len(complete)
            batch = self.encoder.encode(complete, place=place)
            self._check_support(batch, place)
            self._take_fingerprint(complete, batch)
            first += len(frame)
            if not self.streamed:
                parts.append(batch)
                self.kept = kept
            yield batch
        if parts:
            self.whole = concatenate(parts)

    def _take_fingerprint(self, frame: pd.DataFrame, batch: Batch) -> None:
        response = self.encoder.response
        seen = {"y": batch["y"]}
        if response.transform is not None:
            seen["y"] = torch.from_numpy(np.array(numeric_column(frame, response.required[0])))
        seen |= {"count": batch.count} if batch.counted else {}
        seen |= {name: batch[name] for name in OBSERVED if name in batch and name in self.family.extras}
        for name, tensor in seen.items():
            self._digests.setdefault(name, Digest()).update(tensor)

    def _read(self) -> Iterator[Batch]:
        for frame in self.frames():
            yield self.encoder.encode(frame)

    def _complete(self, frame: pd.DataFrame, first: int = 0) -> tuple[pd.DataFrame, np.ndarray | None]:
        """The rows without a missing value, and which they are (None: all)."""
        missing: np.ndarray | None = None
        for name in self.encoder.required:
            found = missing_rows(frame[name], first)
            if found is None:
                continue
            row = first + int(np.flatnonzero(found)[0])
            if name == self.encoder.weights or name in self.encoder.carried:
                raise BadWeights(f"the weight of row {row} is missing. Weights count observations: give 0 to leave a row out.")
            if self.missing == "raise":
                raise NotFinite(f"column {name!r} is missing in row {row} ({int(found.sum())} rows in all), and missing='raise'.")
            missing = found if missing is None else missing | found
        return (frame, None) if missing is None else (frame.loc[~missing, list(self.encoder.required)], ~missing)

    def _check_support(self, batch: Batch, place: Place) -> None:
        extras = {name: batch[name] for name in self.encoder.extras if name in batch}
        inside = self.family.in_support(batch["y"], **extras)
        if bool(inside.all()):
            return
        at = int(torch.nonzero(~inside)[0, 0])
        with_extras = "".join(f", {k} = {float(v[at]):g}" for k, v in extras.items())
        raise OutOfSupport(
            f"row {place.row(at)}: {self.encoder.response.expression} = {float(batch['y'][at]):g}{with_extras}, to which {self.family} "
            f"gives probability zero. Its support is {self.family.support}. ({int((~inside).sum())} such rows.)"
        )


def missing_rows(column: pd.Series, first: int = 0) -> np.ndarray | None:
    """Which rows are missing (NaN or null), or None if none is. Infinity is not missing: it is refused.

    A float column without NaN or infinity is known by its sum, in one pass.
    """
    if column.dtype == np.float64:
        values = column.to_numpy()
        with np.errstate(all="ignore"):
            if np.isfinite(values.sum()):
                return None
        found = np.isnan(values)
        _finite(np.where(found, 0.0, values), f"column {column.name!r}", Place(first))
    elif column.dtype.kind in "iub" and not hasattr(column.dtype, "na_value"):
        return None
    else:
        found = column.isna().to_numpy()
    return found if found.any() else None


def _finite(values: np.ndarray, what: str, place: Place) -> np.ndarray:
    with np.errstate(all="ignore"):
        if values.size and not np.isfinite(values.sum()):
            bad = ~np.isfinite(values)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise NotFinite(
                    f"{what} is {values[row]} in row {place.row(row)}. Every value must be finite ({int(bad.sum())} are not)."
                )
    return values if values.flags.writeable else values.copy()


def _finite_rows(dense: np.ndarray, design: Design, place: Place) -> None:
    made = dense[len(design.numeric) :]  # the numeric columns were checked as they were read
    for name, values in zip(design.dense_names, made, strict=True):
        with np.errstate(all="ignore"):
            finite = np.isfinite(values.sum())
        if not finite:
            _finite(values, f"column {name!r}", place)


def new_rows(encoder: Encoder, data: Any, *, response: bool = False) -> Batch:
    """Rows that the fit has not seen, by the encodings that it remembers. A missing predictor is an error: nothing is dropped."""
    frame = Frame(data)
    names = [*encoder.predictors, *(encoder.response.required if response else ())]
    extras = [v for v in encoder.extras.values() if isinstance(v, str) and v in frame.columns]
    weights = [encoder.weights] if response and encoder.weights in frame.columns else []
    frame.require(names, where="the model")
    needed = sorted({*names, *extras, *weights})
    block = frame.read(needed)
    for name in needed:
        found = missing_rows(block[name])
        if found is not None:
            raise DataError(
                f"column {name!r} is missing in row {int(np.flatnonzero(found)[0])}: there is no prediction without it."
            )
    return replace(encoder, weights=weights[0] if weights else None).encode(block, response=response)


def numeric_tensors(frame: Frame, columns: Sequence[str] = ()) -> dict[str, Tensor]:
    """Columns (all, without a choice) as float64 tensors, for a model that reads them by name. A missing value is refused by name."""
    chosen = list(columns) or list(frame.columns)
    block = frame.read(chosen)
    out = {}
    for name in chosen:
        found = missing_rows(block[name])
        if found is not None:
            raise NotFinite(
                f"column {name!r} is missing in row {int(np.flatnonzero(found)[0])}. A model of one's own sees every row: drop it first."
            )
        if is_categorical(block[name], name):
            raise WrongType(f"column {name!r} holds text, and a model of one's own reads numbers. Encode it, or leave it out.")
        out[name] = torch.from_numpy(_finite(numeric_column(block, name), f"column {name!r}", Place()))
    return out
