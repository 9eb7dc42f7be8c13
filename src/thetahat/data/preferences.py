"""Preferences: pairs of which the first was preferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, DataError, NotFinite, UnknownLevel
from .batch import Batch
from .source import BLOCK, Tensors, check_count

if TYPE_CHECKING:
    from .frame import Frame


class Preferences(Tensors):
    """Pairs (winner, loser), as a source.

    Parameters
    ----------
    winner, loser : labels of items, (n,); or features of items, floats (n, d). With `data`, the names of columns that hold labels,
        or lists of names of columns that hold features
    count : how often each was observed, (n,), or a column's name; None: once each
    data : a dict of columns, a table or a file, as `Frame` reads it
    items : all labels in the order wanted: the first is the one whose rating is fixed at 0. None: sorted
    block : pairs a batch

    `items` are the labels, for `BradleyTerry(items=preferences.items)`; None where the pairs are features.

    Raises
    ------
    DataError, NotFinite, UnknownLevel

    >>> games = Preferences(["Milwaukee", "Milwaukee"], ["Boston", "Detroit"], count=[7, 7])
    >>> games.items, games.size
    (['Boston', 'Detroit', 'Milwaukee'], 2)
    """

    def __init__(
        self,
        winner: Any,
        loser: Any,
        count: Any = None,
        *,
        data: Any = None,
        items: Sequence[Any] | None = None,
        block: int = BLOCK,
    ):
        if data is not None:
            from .frame import Frame

            frame = Frame(data)
            winner, loser = _columns(frame, winner, "winner"), _columns(frame, loser, "loser")
            count = _columns(frame, count, "count") if isinstance(count, str) else count
            count = None if count is None else np.array(count, dtype=np.float64)
        elif isinstance(winner, str) or isinstance(loser, str):
            raise BadArgument(f"winner={winner!r}, loser={loser!r} name columns: give the table, data=….")
        first, second = _array(winner), _array(loser)
        if first.shape != second.shape:
            raise DataError(f"winner has the shape {first.shape} and loser {second.shape}: each row is one pair.")
        if first.dtype.kind == "f" and first.ndim > 1:
            tensors, self.items = {"winner": _features(first, "winner"), "loser": _features(second, "loser")}, None
        elif first.ndim == 1:
            codes, labels = _coded(first, second, items)
            tensors, self.items = {"winner": codes[: len(first)], "loser": codes[len(first) :]}, labels
            same = torch.nonzero(tensors["winner"] == tensors["loser"])
            if len(same):
                row = int(same[0, 0])
                raise DataError(
                    f"row {row} prefers {labels[int(codes[row])]!r} to itself ({len(same)} such rows). A pair is of two items."
                )
        else:
            raise DataError(
                f"winner has the shape {first.shape} and type {first.dtype}. Accepted: labels (n,), or float features (n, d)."
            )
        super().__init__(Batch(tensors, count=check_count(count)), target="preference", block=block)


def _columns(frame: Frame, names: str | Sequence[str], what: str) -> np.ndarray:
    wanted = [names] if isinstance(names, str) else list(names)
    frame.require(wanted, where=f"{what}=")
    block = frame.read(wanted)
    return block[names].to_numpy() if isinstance(names, str) else block[wanted].to_numpy(dtype=np.float64)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _features(values: np.ndarray, what: str) -> Tensor:
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if bad.any():
        raise NotFinite(
            f"{what} has a value that is not finite in row {int(np.flatnonzero(bad)[0])} ({int(bad.sum())} such rows)."
        )
    return torch.tensor(values)


def _coded(first: np.ndarray, second: np.ndarray, items: Sequence[Any] | None) -> tuple[Tensor, list[Any]]:
    """The position of each label among the items, winners then losers."""
    labels = [*first.tolist(), *second.tolist()]
    missing = [i for i, v in enumerate(labels) if v is None or v != v]
    if missing:
        row = missing[0] % len(first)
        raise NotFinite(f"{'winner' if missing[0] < len(first) else 'loser'} is missing in row {row}. Every pair names both.")
    order = sorted(set(labels)) if items is None else list(items)
    position = {label: i for i, label in enumerate(order)}
    if len(position) != len(order):
        raise BadArgument("items= names an item twice.")
    for label in labels:
        if label not in position:
            raise UnknownLevel(f"{label!r} is among the pairs and not among items=: {', '.join(map(repr, order[:12]))}.")
    return torch.tensor([position[label] for label in labels]), order
