"""The rows that were fitted, or others, in cells over which functions of them are averaged."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from formulaic.parser.types import Factor
from torch import Tensor

from ..data.batch import Batch
from ..data.columns import is_categorical, numeric_column
from ..data.frame import Frame
from ..data.selection import missing_rows
from ..data.source import is_table
from ..data.table import Encoder, Table
from ..errors import BadArgument, DataError, UnknownColumn
from ..models.latent import CODE
from ..models.mixed import Mixed
from ..models.random_effects import RandomEffects
from ..protocols import encoder_of, target_of
from ..types import Data, Level, Levels
from .design_slopes import factors_of
from .margin_estimates import NUMBERS
from .new_data import aligned
from .outliers import alignment_of
from .row_functions import LABEL, Setting

At = str | Mapping[str, object] | None
By = str | Sequence[str] | bool | None
RESERVED = {"term", "contrast", "category", "row", "t", "z", *NUMBERS}


def shown_as(name: str) -> str:
    """A user's column in a table of results, whose own columns have these names."""
    return f"{name} (column)" if name in RESERVED else name


@dataclass
class Rows:
    """Rows in parts, and which cell each belongs to.

    Parameters
    ----------
    frames
        (rows, weights) in turn
    by
        columns whose values make a cell; (): all rows are one; None: each row is one
    shown
        columns of `frames` that label a row of its own
    """

    frames: Sequence[tuple[pd.DataFrame, np.ndarray]] | Observed
    by: tuple[str, ...] | None
    shown: tuple[str, ...] = ()
    cells: dict[tuple[Level, ...], int] = field(default_factory=dict)
    seen: list[pd.DataFrame] = field(default_factory=list)

    def parts(self) -> Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]]:
        """Rows, their weights, the number of each row's cell."""
        self.cells.clear()
        self.seen.clear()
        at = 0
        for frame, weight in self.frames:
            if self.by is None:
                self.seen.append(frame[list(self.shown)].reset_index(drop=True))
                yield frame, np.ones(len(frame)), np.arange(at, at + len(frame))
                at += len(frame)
            elif not self.by:
                yield frame, weight, np.zeros(len(frame), dtype=np.int64)
            else:
                yield frame, weight, self._codes(frame)

    def _codes(self, frame: pd.DataFrame) -> np.ndarray:
        assert self.by is not None
        own = frame[list(self.by)]
        for name in self.by:
            if missing_rows(own[name]) is not None:
                raise DataError(f"by={name!r}: a value of that column is missing. Leave those rows out.")
        code = own.groupby(list(self.by), sort=False, observed=True).ngroup().to_numpy()
        different = own.drop_duplicates()
        new = []
        numbers = np.empty(len(different), dtype=np.int64)
        for i, key in enumerate(different.itertuples(index=False, name=None)):
            if key not in self.cells:
                self.cells[key] = len(self.cells)
                new.append(i)
            numbers[i] = self.cells[key]
        self.seen.append(different.iloc[new])
        return np.asarray(numbers[code])

    def labels(self) -> pd.DataFrame:
        """A row a cell, in the order of their numbers."""
        if self.by == ():
            return pd.DataFrame(index=range(1))
        out = pd.concat(self.seen, ignore_index=True) if self.seen else pd.DataFrame()
        return out.rename(columns=shown_as)


@dataclass(frozen=True)
class Observed:
    """The rows that were fitted, or others, complete in what the model reads."""

    setting: Setting
    data: Data = None
    more: tuple[str, ...] = ()  # columns besides those that the model reads

    def __iter__(self) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        source, encoder = self.setting.source, encoder_of(self.setting.reader)
        if encoder is None:
            yield self._tensors()
        elif self.data is not None:
            yield self._given(encoder)
        elif isinstance(source, Table):
            labels, at = alignment_of(source).rows, 0
            for frame in self._fitted(source):
                own = {
                    name: frame[name] for name in dict.fromkeys([*_read(encoder, frame.columns), *self.more])
                }
                out = pd.DataFrame(own).assign(**{LABEL: labels[at : at + len(frame)]})
                at += len(frame)
                yield out, _weights(encoder, frame)
        else:
            yield self._given(encoder)

    def _fitted(self, source: Table) -> Iterator[pd.DataFrame]:
        extra = [name for name in self.more if name not in source.encoder.required]
        source.frame.whole.require(extra, where="by")
        if not source.streamed:
            for frame in source.frames():
                yield frame.assign(**{name: source.column(name) for name in extra}) if extra else frame
            return
        yield from source.frame.blocks([*source.encoder.required, *extra])

    def _given(self, encoder: Encoder | None) -> tuple[pd.DataFrame, np.ndarray]:
        frame = Frame(self.data).dated({} if encoder is None else encoder.dates)
        frame.require(self.more, where="by")
        if encoder is not None:
            frame.require(encoder.predictors, where="the model")
        names = frame.columns if encoder is None else [*_read(encoder, frame.columns), *self.more]
        weights = [encoder.weights] if encoder is not None and encoder.weights in frame.columns else []
        rows = frame.read(list(names))[list(dict.fromkeys([*names, *weights]))]
        rows = rows.assign(**{LABEL: np.arange(frame.size) if frame.index is None else frame.index})
        kept = np.ones(len(rows), dtype=bool)
        for name in () if encoder is None else encoder.predictors:
            found = missing_rows(rows[name])
            kept &= True if found is None else ~found
        if not kept.any():
            raise DataError("every row of data has a missing value in a column that the model reads.")
        rows = rows[kept].reset_index(drop=True)
        return rows, _weights(encoder, rows)

    def _tensors(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Of a model that reads tensors: these as columns."""
        reader, source = self.setting.reader, self.setting.source
        rows = aligned(reader, source, self.data)[0]
        batches = [rows] if isinstance(rows, Batch) else list(rows.batches(reader))
        tensors = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
        deep = next((name for name, t in tensors.items() if t.ndim != 1), None)
        if deep is not None:
            raise BadArgument(
                f"the model reads {deep!r}, which is not one number a row: effects are of columns. Accepted: data of "
                "columns, or fit.predict."
            )
        frame = pd.DataFrame({name: t.cpu().numpy() for name, t in tensors.items()})
        for name in self.more:
            if name not in frame:
                frame[name] = self._group(name, tensors)
        count = torch.cat([b.count for b in batches]).to(torch.float64).numpy()
        return frame.assign(**{LABEL: np.arange(len(frame))}), count

    def _group(self, name: str, tensors: Mapping[str, Tensor]) -> np.ndarray:
        """The group of each row in a grouping factor, of which the model reads the code; else a column of `data`."""
        reader = self.setting.reader
        for own in reader.groupings if isinstance(reader, RandomEffects) else ():
            if own.columns == (name,):
                names = np.asarray(own.names, dtype=object)
                return np.asarray(names[tensors[CODE + own.label].cpu().numpy()])
        if self.data is None or not is_table(self.data):
            raise UnknownColumn.named(name, [n for n in tensors if not n.startswith(CODE)], where="by")
        frame = Frame(self.data)
        frame.require([name], where="by")
        return frame.read([name])[name].to_numpy()

    def whole(self) -> tuple[pd.DataFrame, np.ndarray]:
        """All of them."""
        parts = list(self)
        return pd.concat([frame for frame, _ in parts], ignore_index=True), np.concatenate(
            [w for _, w in parts]
        )


def _read(encoder: Encoder | None, columns: Collection[str]) -> list[str]:
    """The columns that a prediction reads."""
    assert encoder is not None
    extras = [c for c in encoder.extras.values() if isinstance(c, str) and c in columns]
    return [*encoder.predictors, *extras]


def _weights(encoder: Encoder | None, frame: pd.DataFrame) -> np.ndarray:
    name = None if encoder is None else encoder.weights
    if name is None or name not in frame:
        return np.ones(len(frame))
    out = np.array(numeric_column(frame, name), dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(out) | (out < 0))
    if len(wrong):
        raise DataError(
            f"the weight of row {int(wrong[0])} is {out[wrong[0]]:g}. Weights count observations: finite numbers of at "
            "least 0."
        )
    return out


# ---- columns -----------------------------------------------------------------------------------------------


def variables(setting: Setting) -> list[str]:
    """The columns that move the mean, those of offsets alone left out, in the order of the formula."""
    encoder = encoder_of(setting.reader)
    if encoder is None:
        groups = {c for g in setting.reader.groupings for c in g.columns} if _grouped(setting) else set()
        apart = {target_of(setting.reader), LABEL, *groups}
        names = [str(n) for n in Observed(setting, setting.data).whole()[0]]
        return [n for n in names if n not in apart and not n.startswith(CODE)]
    seen: dict[str, None] = {}
    for design in (encoder.designs[slot] for slot in sorted(set(_slots(setting)))):
        seen |= dict.fromkeys(design.numeric)
        if design.dense is not None:
            read = set().union(*(own for _, own in factors_of(design.dense, design)))
            seen |= dict.fromkeys(name for name in design.required if name in read)
        for term in design.coded:
            seen |= dict.fromkeys([*(name for name, _, _ in term.factors), *term.numeric])
    for curve in encoder.smooths:
        seen |= dict.fromkeys(curve.required)
    return [name for name in seen if name in encoder.predictors]


def _grouped(setting: Setting) -> bool:
    return isinstance(setting.reader, RandomEffects)


def _slots(setting: Setting) -> list[int]:
    """Of linear predictors: the designs of random effects and of strata have slots of their own."""
    reader = setting.reader
    predictors = reader.regression.predictors if isinstance(reader, Mixed) else reader.predictors
    return [p.slot for p in predictors]


def require(setting: Setting, name: str, known: Sequence[str], where: str) -> None:
    encoder = encoder_of(setting.reader)
    if name not in (known if encoder is None else encoder.predictors):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        raise UnknownColumn(
            f"{where} names {name!r}, which the model does not read.{hint} It reads: {', '.join(known) or 'no column'}."
        )


def levels_of(setting: Setting, name: str) -> Levels | None:
    """The levels of a column that is a category, or that a formula takes as one (C(x)), as the fit remembers them; False
    and True of booleans; None: it is a number."""
    encoder = encoder_of(setting.reader)
    if encoder is None:
        return None
    coded = (own for d in encoder.designs for t in d.coded for n, own, _ in t.factors if n == name)
    found = next(coded, None) or _written(encoder, name) or _of_curves(encoder, name)
    if found is not None:
        return tuple(found)
    frame, _ = next(iter(Observed(setting, setting.data)))
    column = frame[name]
    if column.dtype == bool:
        return (False, True)
    return tuple(sorted(pd.unique(column))) if is_categorical(column, name) else None


def _written(encoder: Encoder, name: str) -> Levels | None:
    """Of a category among the columns that formulaic makes."""
    for design in encoder.designs:
        spec = design.dense
        if spec is None:
            continue
        for factor, read in factors_of(spec, design):
            kind, state = spec.encoder_state.get(str(factor), (None, {}))
            if kind is Factor.Kind.CATEGORICAL and name in read:
                levels = state.get("categories")
                return None if levels is None else tuple(levels)
    return None


def _of_curves(encoder: Encoder, name: str) -> Levels | None:
    """Of a curve for each level, or of a random effect written as a smooth term."""
    own = [c.smooth.level for c in encoder.smooths if c.smooth.by == name and c.smooth.level is not None]
    for smooth in (c.smooth for c in encoder.smooths if name in c.smooth.call.variables and c.smooth.levels):
        return smooth.levels[smooth.call.variables.index(name)]
    return tuple(dict.fromkeys(own)) or None


def assigned(frame: pd.DataFrame, name: str, value: object, levels: Levels | None) -> pd.DataFrame:
    """The rows with one value in a column, of the column's own type where it is a category."""
    values = value if isinstance(value, np.ndarray) else [value] * len(frame)
    column = pd.Series(values, index=frame.index)
    own = frame[name].dtype
    return frame.assign(**{name: column.astype(own) if levels is not None else column.astype(np.float64)})
