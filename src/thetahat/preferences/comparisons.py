"""Preferences: pairs of which the first was preferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import BLOCK, Tensors, check_count
from ..errors import BadArgument, DataError, NotFinite, UnknownLevel
from ..types import Data, Level, Plain

if TYPE_CHECKING:
    from ..data.frame import Frame


class Preferences(Tensors):
    """Pairs (winner, loser), as a source.

    `items` are the labels, for `BradleyTerry(items=preferences.items)`, None where the pairs are of features;
    `features` the names of those, for `BradleyTerry(features=preferences.features)`. A batch has "winner" and
    "loser", and "tie", "first", "margin" where given.

    Parameters
    ----------
    winner, loser
        labels of items, (n,); or features of items, floats (n, d). With `data`, the names of columns that
        hold labels, or lists of names of columns that hold features
    count
        how often each was observed, (n,), or a column's name; None: once each
    tie
        (n,) true where neither was preferred: then winner and loser are just the two, in any order. Or a
        column's name
    first
        (n,) which of the two was named first, had white, was at home: its label, or 1 for the winner, −1 for
        the loser; 0 or missing for neither. Or a column's name
    margin
        (n,) by how much the winner was preferred, in log-odds. Or a column's name
    group
        (n,) labels of the independent units (a prompt, a judge), which a split keeps whole. Or a column's
        name
    data
        a dict of columns, a table or a file, as `Frame` reads it
    items
        all labels in the order wanted: the first is the one whose rating is fixed at 0. None: sorted
    features
        names of the d features; None: with `data` the winner's columns, else x0, x1, …
    block
        pairs a batch

    Raises
    ------
    DataError, NotFinite, UnknownLevel

    Examples
    --------
    >>> games = Preferences(["Milwaukee", "Milwaukee"], ["Boston", "Detroit"], count=[7, 7])
    >>> games.items, games.size
    (['Boston', 'Detroit', 'Milwaukee'], 2)
    """

    def __init__(
        self,
        winner: Data,
        loser: Data,
        count: Data = None,
        *,
        tie: Data = None,
        first: Plain = None,
        margin: Data = None,
        group: Data = None,
        data: Data = None,
        items: Sequence[Level] | None = None,
        features: Sequence[str] | None = None,
        block: int = BLOCK,
    ):
        extra = {"count": count, "tie": tie, "first": first, "margin": margin, "group": group}
        if data is not None:
            from ..data.frame import Frame

            frame = Frame(data)
            named = (
                features is None
                and not isinstance(winner, str)
                and all(isinstance(name, str) for name in winner)
            )
            features = list(winner) if named else features
            winner, loser = _columns(frame, winner, "winner"), _columns(frame, loser, "loser")
            extra = {
                name: _columns(frame, each, name) if isinstance(each, str) else each
                for name, each in extra.items()
            }
        elif any(isinstance(each, str) for each in (winner, loser, *extra.values())):
            raise BadArgument(f"winner={winner!r}, loser={loser!r} name columns: give the table, data=….")
        tensors, self.items = _pairs(_array(winner), _array(loser), items)
        self.features = None if self.items is not None else _names(features, tensors["winner"].shape[1])
        given = {name: _array(each) for name, each in extra.items() if each is not None}
        for name, each in given.items():
            if each.shape != (len(tensors["winner"]),):
                raise DataError(
                    f"{name} has the shape {each.shape}. Accepted: one for each of the "
                    f"{len(tensors['winner'])} pairs."
                )
        if "tie" in given:
            tensors["tie"] = _numbers(given["tie"], "tie", (0, 1)).bool()
        if "first" in given:
            tensors["first"] = _first(given["first"], tensors, self.items)
        if "margin" in given:
            tensors["margin"] = _numbers(given["margin"], "margin")
        units = (
            torch.from_numpy(np.unique(given["group"].astype(str), return_inverse=True)[1])
            if "group" in given
            else None
        )
        counts = check_count(_numbers(given["count"], "count", finite=False)) if "count" in given else None
        super().__init__(Batch(tensors, count=counts, group=units), target="preference", block=block)

    @classmethod
    def games(
        cls,
        first: Plain,
        second: Data,
        result: Data,
        count: Data = None,
        *,
        data: Data = None,
        items: Sequence[Level] | None = None,
    ) -> Preferences:
        """Games by who was named first (white; at home) and their result.

        Parameters
        ----------
        result
            (n,) 1 where the first won, 0 where the second did, 0.5 for a tie; or "1-0", "0-1", "1/2-1/2". Or
            a column's name

        Examples
        --------
        >>> chess = Preferences.games(["Anand", "Carlsen"], ["Carlsen", "Anand"], ["1/2-1/2", "1-0"])
        >>> chess.whole["tie"].tolist(), chess.whole["first"].tolist()
        ([True, False], [1.0, 1.0])
        """
        if data is not None:
            from ..data.frame import Frame

            frame = Frame(data)
            first, second, result = (
                _columns(frame, *each) for each in ((first, "first"), (second, "second"), (result, "result"))
            )
            count = _columns(frame, count, "count") if isinstance(count, str) else count
        first, second, result = _array(first), _array(second), _array(result)
        outcome = np.array([_result(each, row) for row, each in enumerate(result.tolist())])
        if not len(first) == len(second) == len(outcome):
            raise DataError(
                f"there are {len(first)} first players, {len(second)} second ones and {len(outcome)} results."
            )
        lost = outcome == 0
        winner, loser = np.where(lost, second, first), np.where(lost, first, second)
        tie = outcome == 0.5 if (outcome == 0.5).any() else None
        return cls(winner, loser, count, tie=tie, first=first, items=items)


RESULTS = {
    "1": 1.0,
    "1-0": 1.0,
    "0": 0.0,
    "0-1": 0.0,
    "0.5": 0.5,
    "1/2": 0.5,
    "½": 0.5,
    "1/2-1/2": 0.5,
    "½-½": 0.5,
    "0.5-0.5": 0.5,
}


def _result(value: Plain, row: int) -> float:
    """1, ½ or 0 points of the first."""
    text = str(value).strip().replace("–", "-")
    text = text.removesuffix(".0")
    if text not in RESULTS:
        raise DataError(
            f"the result of row {row} is {value!r}. Accepted: 1, 0, 0.5; '1-0', '0-1', '1/2-1/2'."
        )
    return RESULTS[text]


def _pairs(
    first: np.ndarray, second: np.ndarray, items: Sequence[Level] | None
) -> tuple[dict[str, Tensor], list[Any] | None]:
    """The tensors of winners and losers, and the labels if they are labels."""
    if first.shape != second.shape:
        raise DataError(f"winner has the shape {first.shape} and loser {second.shape}: each row is one pair.")
    if first.dtype.kind == "f" and first.ndim > 1:
        return {"winner": _features(first, "winner"), "loser": _features(second, "loser")}, None
    if first.ndim != 1:
        raise DataError(
            f"winner has the shape {first.shape} and type {first.dtype}. Accepted: labels (n,), or float "
            "features (n, d)."
        )
    codes, labels = _coded(first, second, items)
    winner, loser = codes[: len(first)], codes[len(first) :]
    same = torch.nonzero(winner == loser)
    if len(same):
        row = int(same[0, 0])
        raise DataError(
            f"row {row} prefers {labels[int(winner[row])]!r} to itself ({len(same)} such rows). A pair is of "
            "two items."
        )
    return {"winner": winner, "loser": loser}, labels


def _names(given: Sequence[str] | None, d: int) -> list[str]:
    names = [f"x{i}" for i in range(d)] if given is None else [str(name) for name in given]
    if len(names) != d or len(set(names)) != d:
        raise BadArgument(
            f"features= are {len(set(names))} different names. Accepted: one for each of the {d} features."
        )
    return names


def _numbers(
    values: np.ndarray, what: str, accepted: tuple[float, ...] | None = None, finite: bool = True
) -> Tensor:
    """A column of numbers, float64; finite ones, of those accepted alone."""
    try:
        out = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        row = next(i for i, value in enumerate(values.tolist()) if not _number(value))
        raise DataError(f"{what} is {values.tolist()[row]!r} in row {row}. Accepted: numbers.") from error
    if accepted is None and not finite:
        return torch.from_numpy(out)
    bad = ~np.isfinite(out) if accepted is None else ~np.isin(out, accepted)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise (NotFinite if accepted is None else DataError)(
            f"{what} is {values[row]!s} in row {row}. Accepted: "
            f"{'finite numbers' if accepted is None else ', '.join(map(str, accepted))}."
        )
    return torch.from_numpy(out)


def _first(values: np.ndarray, tensors: dict[str, Tensor], items: list[Level] | None) -> Tensor:
    """1 where the winner was first, −1 where the loser was, 0 where neither."""
    if items is None or (values.dtype.kind in "iuf" and not isinstance(items[0], (int, float))):
        return _numbers(values, "first", (1, -1, 0))
    out = torch.zeros(len(values), dtype=torch.float64)
    for row, label in enumerate(values.tolist()):
        pair = (items[int(tensors["winner"][row])], items[int(tensors["loser"][row])])
        if label in pair:
            out[row] = 1.0 if label == pair[0] else -1.0
        elif not (label is None or label != label or label == ""):
            raise UnknownLevel(
                f"first is {label!r} in row {row}, a pair of {pair[0]!r} and {pair[1]!r}. Accepted: one of "
                "them, or missing."
            )
    return out


def _columns(frame: Frame, names: str | Sequence[str], what: str) -> np.ndarray:
    wanted = [names] if isinstance(names, str) else list(names)
    frame.require(wanted, where=f"{what}=")
    block = frame.read(wanted)
    return block[names].to_numpy() if isinstance(names, str) else block[wanted].to_numpy(dtype=np.float64)


def _array(values: Plain) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _number(value: Plain) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _features(values: np.ndarray, what: str) -> Tensor:
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if bad.any():
        raise NotFinite(
            f"{what} has a value that is not finite in row {int(np.flatnonzero(bad)[0])} ({int(bad.sum())} "
            "such rows)."
        )
    return torch.tensor(values)


def _coded(first: np.ndarray, second: np.ndarray, items: Sequence[Level] | None) -> tuple[Tensor, list[Any]]:
    """The position of each label among the items, winners then losers."""
    labels = [*first.tolist(), *second.tolist()]
    missing = [i for i, v in enumerate(labels) if v is None or v != v]
    if missing:
        row = missing[0] % len(first)
        raise NotFinite(
            f"{'winner' if missing[0] < len(first) else 'loser'} is missing in row {row}. Every pair names "
            "both."
        )
    order = sorted(set(labels)) if items is None else list(items)
    position = {label: i for i, label in enumerate(order)}
    if len(position) != len(order):
        raise BadArgument("items= names an item twice.")
    for label in labels:
        if label not in position:
            raise UnknownLevel(
                f"{label!r} is among the pairs and not among items=: {', '.join(map(repr, order[:12]))}."
            )
    return torch.tensor([position[label] for label in labels]), order
