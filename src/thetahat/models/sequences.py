"""From data to the sequences of a hidden Markov model: which rows follow one another, and what was seen of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.checks import Place
from ..data.columns import numeric_column
from ..data.design import build
from ..data.formula import read
from ..data.frame import Frame
from ..data.selection import Alignment, missing_rows
from ..data.source import Tensors, is_table
from ..data.table import Encoder, Table, aligned_rows
from ..errors import BadArgument, BadFormula, DataError, EmptyData, NotFinite
from ..families.base import Family
from ..types import Data, ModelLike, Plain
from .density import Density, observed
from .formulas import regression
from .hidden_chain import Chain
from .regression import NARROW, Regression

if TYPE_CHECKING:
    from .hmm import HMM


class Sequences(Tensors):
    """Rows in memory that follow one another within sequences, as one batch.

    Rows whose y is missing stand in their places and count 0.

    Parameters
    ----------
    batch
        of all rows; `group` says which sequence each belongs to, None: all to one
    labels
        of the sequences, by their number
    model
        of a state, which says what a density is per
    frame
        the table that was given; None: an array
    """

    padded = True  # a row whose y is missing is no observation

    def __init__(
        self,
        batch: Batch,
        labels: Sequence[Plain],
        model: ModelLike,
        frame: Frame | None,
        name: str | None = None,
    ):
        super().__init__(batch, copy=False, block=10**18)
        self.labels, self.frame, self.sequence = list(labels), frame, name
        self.response = model.encoder.response if isinstance(model, Regression) else None
        self.missing = int((batch.count == 0).sum()) if batch.counted else 0

    @property
    def units(self) -> str:
        return "y" if self.response is None else self.response.units

    @property
    def scored_in(self) -> str:
        """What a density is per once `log_determinant` has been added."""
        return "y" if self.response is None else self.response.observed

    def log_determinant(self, batch: Batch) -> Tensor | None:
        """log |dt/dy| of a response t = f(y), as of `data.table.Table`; 0 where y is missing."""
        from ..data.response import LOG_SLOPES

        transform = None if self.response is None else self.response.transform
        return None if transform is None else LOG_SLOPES[transform](batch["y"]).nan_to_num(nan=0.0)

    @property
    def note(self) -> str:
        """What a score and a summary say of missing values."""
        return f"{self.missing} of {self.size} rows have no y, and are summed over" if self.missing else ""

    @property
    def alignment(self) -> Alignment:
        """Every row that was given is used."""
        return Alignment(self.size, None, None if self.frame is None else self.frame.index)

    @property
    def groups(self) -> Tensor:
        """(n,) the number of each row's sequence."""
        return self.whole.group if self.whole.grouped else torch.zeros(self.size, dtype=torch.long)

    def column(self, name: str) -> np.ndarray:
        """A column of the table (clusters, plots)."""
        if self.frame is None:
            raise BadArgument(f"the data are an array, and have no column {name!r}.")
        self.frame.require([name], where="the argument")
        return self.frame.read([name])[name].to_numpy()


# ---- a model and its data ----------------------------------------------------------------------------------


def bound(hmm: HMM, data: Data, weights: str | None) -> tuple[HMM, Sequences]:
    """The model whose states are those that the data describe, and the data as it reads them."""
    _unweighted(weights)
    vectors = _vectors(data, hmm.family_asked) if hmm.formula is None else None
    if vectors is not None:
        built = hmm.of(_density(hmm), _chain(hmm))
        return built, _of_vectors(built, vectors)
    frame = _frame(hmm, data)
    formula = hmm.formula or f"`{_response(hmm, frame)}` ~ 1"
    component, table = regression(formula, frame, hmm.family_asked, parameters=hmm.parameters_asked)
    component.density = hmm.formula is None
    encoder, slot = component.encoder, None
    columns: tuple[str, ...] = ()
    if hmm.transition is not None:
        encoder, columns = _with_transition(hmm.transition, encoder, frame)
        slot = len(encoder.designs) - 1
        component = Regression(
            component.family, encoder, component.slots, component.fixed, density=component.density
        )
    built = hmm.of(component, _chain(hmm, columns), slot)
    source = _sequences(built, frame, encoder, table)
    _enough(built, source)
    return built, source


def again(hmm: HMM, data: Data, weights: str | None) -> Sequences:
    """Further data, encoded as a bound model remembers."""
    _unweighted(weights)
    hmm._ready()
    component = hmm.states[0]
    if not isinstance(component, Regression):
        vectors = _vectors(data, hmm.family_asked)
        if vectors is None:
            raise BadArgument(
                f"{hmm.family_asked} describes vectors, and the data are none. Give an array (n, d)."
            )
        return _of_vectors(hmm, vectors)
    if not is_table(data) and not isinstance(data, Frame):
        data = {component.encoder.response.required[0]: _array(data)}
    frame = Frame(data)
    _known(hmm, frame)
    table = Table(frame, component.encoder, component.family)
    return _sequences(hmm, frame, component.encoder, table)


def ahead(hmm: HMM, data: Data) -> tuple[Batch, Frame]:
    """Predictors of rows to come, y missing, and their table."""
    component = hmm.states[0]
    assert isinstance(component, Regression)
    frame = Frame(data)
    _known(hmm, frame)
    batch, alignment = aligned_rows(component.encoder, frame, component.family)
    if alignment.kept is not None:
        _lacking(int(np.flatnonzero(~alignment.kept)[0]))
    return Batch({**batch.tensors, "y": torch.full((frame.size,), torch.nan, dtype=torch.float64)}), frame


def _sequences(hmm: HMM, frame: Frame, encoder: Encoder, table: Table) -> Sequences:
    """All rows, those without a response in their places."""
    if table.whole is None:
        raise DataError(
            f"{frame.name} is too large to be held in memory, and this model reads all rows at once."
        )
    n = frame.size
    seen = np.ones(n, dtype=bool) if table.kept is None else table.kept
    if table.kept is not None:
        block, own = frame.read(encoder.required), set(encoder.response.required)
        for name in encoder.required:
            lost = missing_rows(block[name])
            if lost is not None and bool((lost & ~seen).any()) and name not in own:
                _lacking(int(np.flatnonzero(lost & ~seen)[0]), name)
    rows = encoder.encode(frame.read(encoder.required), response=False, place=Place(0))
    y = torch.full((n,), torch.nan, dtype=torch.float64)
    y[torch.from_numpy(seen)] = table.whole["y"]
    codes, labels = _codes(hmm, frame)
    return Sequences(
        Batch(
            {**rows.tensors, "y": y},
            count=None if bool(seen.all()) else torch.from_numpy(seen.astype(np.float64)),
            group=None if len(labels) < 2 else torch.from_numpy(codes),
        ),
        labels,
        hmm.states[0],
        frame,
        hmm.sequence,
    )


def _codes(hmm: HMM, frame: Frame) -> tuple[np.ndarray, list[Plain]]:
    """The number of each row's sequence, in the order in which they come; and their labels."""
    if hmm.sequence is None:
        codes, labels = np.zeros(frame.size, dtype=np.int64), [None]
    else:
        column = frame.read([hmm.sequence])[hmm.sequence]
        lost = missing_rows(column)
        if lost is not None:
            raise DataError(
                f"row {int(np.flatnonzero(lost)[0])} has a missing value in {hmm.sequence!r}, which names the sequences: it "
                "belongs to none. Drop it."
            )
        found, names = pd.factorize(column)
        codes, labels = found.astype(np.int64), list(names)
    if hmm.time is not None:
        when = frame.read([hmm.time])[hmm.time]
        values = (
            when.to_numpy() if when.dtype.kind in "mM" else numeric_column(frame.read([hmm.time]), hmm.time)
        )
        order = np.argsort(codes, kind="stable")
        later = np.flatnonzero(codes[order][1:] == codes[order][:-1])
        back = later[~(values[order][later + 1] > values[order][later])]
        if len(back):
            row = int(order[back[0] + 1])
            raise DataError(
                f"row {row} has {hmm.time} = {values[row]}, which is not after {values[order[back[0]]]} of row "
                f"{int(order[back[0]])}, the one before it in its sequence ({len(back)} such rows). Sort the rows by "
                f"{hmm.time!r}."
            )
    return codes, labels


def _known(hmm: HMM, frame: Frame) -> None:
    """Refuse a table without the columns that say what follows what."""
    for name in (hmm.sequence, hmm.time):
        if name is not None:
            frame.require([name], where="the hidden Markov model")


def _frame(hmm: HMM, data: Data) -> Frame:
    if not is_table(data) and not isinstance(data, Frame):
        if hmm.formula is not None or hmm.sequence is not None or hmm.time is not None:
            what = f"formula {hmm.formula!r}" if hmm.formula is not None else "column"
            raise BadArgument(
                f"a {what} needs a table; received {type(data).__name__}. Accepted: a dict of columns."
            )
        data = {"y": _array(data)}
    frame = Frame(data)
    _known(hmm, frame)
    return frame


def _array(data: Data) -> np.ndarray:
    array = np.asarray(data.detach() if isinstance(data, Tensor) else data)
    if array.ndim != 1 or array.dtype.kind not in "fiub":
        raise BadArgument(
            f"one sequence of numbers is an array (n,); received one of type {array.dtype} and shape {array.shape}."
        )
    return array.astype(np.float64)


def _response(hmm: HMM, frame: Frame) -> str:
    """The column that is left."""
    other = {hmm.sequence, hmm.time, *(v for v in hmm.parameters_asked.values() if isinstance(v, str))}
    rest = [c for c in frame.columns if c not in other]
    if len(rest) != 1:
        raise BadArgument(
            f"HMM({hmm.k}, …) describes one column, and the data have {', '.join(rest) or 'none'}. Name it in a formula: "
            f"HMM('y ~ 1', states={hmm.k}, …)."
        )
    out: str = rest[0]
    return out


def _with_transition(text: str, encoder: Encoder, frame: Frame) -> tuple[Encoder, tuple[str, ...]]:
    """The encoder with one design more, and the names of its columns."""
    left, tilde, right = text.partition("~")
    if left.strip() or not tilde or not right.strip():
        raise BadFormula(f"transition={text!r}. Accepted: predictors alone, such as '~ z'.")
    predictors = read(right.strip(), frame)
    block = frame.read(predictors.required)
    for name in predictors.required:
        lost = missing_rows(block[name])
        if lost is not None:
            _lacking(int(np.flatnonzero(lost)[0]), name)
    design = build(predictors, frame)
    if predictors.offsets or any(term.size > NARROW for term in design.coded):
        raise BadArgument(
            f"transition={text!r}: transitions take no offset, and no category of more than {NARROW} levels."
        )
    names = () if design.constant else tuple(design.names)
    if not names:
        raise BadArgument(f"transition={text!r} names no predictor. For constant transitions leave it out.")
    return replace(encoder, designs=(*encoder.designs, design)), names


def _chain(hmm: HMM, columns: tuple[str, ...] = ()) -> Chain:
    return Chain.full(hmm.k, hmm.initial == "stationary", columns)


def _lacking(row: int, name: str | None = None) -> None:
    where = "a predictor" if name is None else repr(name)
    raise NotFinite(
        f"row {row} has a missing value in {where}. A row cannot be dropped from a sequence, whose next row would then "
        "follow another; only the response may be missing. Fill it in, or begin a new sequence there."
    )


def _unweighted(weights: str | None) -> None:
    if weights is not None:
        raise BadArgument(
            f"weights={weights!r}: the rows of a sequence are one observation, and rows cannot be weighted. Repeat whole "
            "sequences instead."
        )


def _enough(hmm: HMM, source: Sequences) -> None:
    """Refuse data from which the model cannot be estimated."""
    whole = source.whole
    lengths = torch.unique(source.groups, return_counts=True)[1]
    if int(lengths.max()) < 2 and hmm.k > 1:
        raise BadArgument(
            f"no sequence has two rows ({source.size} rows, each a sequence of its own): transitions cannot be estimated. "
            "For rows that do not follow one another: th.models.Mixture."
        )
    y = whole["y"].reshape(source.size, -1)
    y = y[~torch.isnan(y).any(1)]
    if len(y) == 0:
        raise EmptyData("y is missing in every row.")
    many = 0
    for some in (y[:1000], y):  # nearly always the first rows tell
        many = len(np.unique(some.numpy(), axis=0) if some.shape[1] > 1 else np.unique(some.numpy()))
        if many >= hmm.k:
            break
    if many < hmm.k:
        raise BadArgument(
            f"{hmm.k} states, and y has {many} different value{'s' * (many != 1)}. Accepted: at most {many} states."
        )


# ---- vectors -----------------------------------------------------------------------------------------------


def _density(hmm: HMM) -> Density:
    if hmm.parameters_asked:
        name = next(iter(hmm.parameters_asked))
        raise BadArgument(
            f"{name}= cannot be given with vectors: every parameter is a constant to be fitted."
        )
    return Density(hmm.family_asked)


def _vectors(data: Data, family: Family) -> Tensor | None:
    """(n, d) of a family of vectors; None of a family of numbers."""
    if family.length is None:
        return None
    if isinstance(data, Mapping) and set(data) == {"y"} and np.ndim(data["y"]) == 2:
        data = data["y"]
    if is_table(data) or isinstance(data, Frame):
        frame = Frame(data)
        block = frame.read(frame.columns)
        data = np.column_stack([numeric_column(block, name) for name in frame.columns])
    y = torch.tensor(np.asarray(data.detach() if isinstance(data, Tensor) else data), dtype=torch.float64)
    if y.ndim != 2 or y.shape[1] != family.length:
        raise BadArgument(
            f"{family} describes vectors of {family.length} components; received an array of shape {tuple(y.shape)}."
        )
    return y


def _of_vectors(hmm: HMM, y: Tensor) -> Sequences:
    if hmm.sequence is not None or hmm.time is not None:
        raise BadArgument(
            "vectors are one sequence: sequence= and time= name columns of a table with one response."
        )
    lost = torch.isnan(y).any(1)
    if bool(lost.all()):
        raise EmptyData("y is missing in every row.")
    observed(y[~lost], [hmm.family_asked])  # refuses what has probability 0
    y = torch.where(lost[:, None], torch.nan, y)
    count = None if not bool(lost.any()) else (~lost).to(torch.float64)
    source = Sequences(Batch({"y": y}, count=count), [None], hmm.states[0], None)
    _enough(hmm, source)
    return source
