"""Whose memory a data frame's numbers are in: what nobody else can write into need not be copied.

pandas (from version 3 on) copies on write: a frame that shares its numbers with another, of the user's, keeps them when the
other is changed. What it cannot see is an array of numpy that the user still holds, of a frame that was made without a
copy; so the numbers of a block are taken for private only where all references to their memory are pandas' own.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd

COPIES_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3


class Kept:
    """One reference to the memory of an array, shared by all tables of the library that read it: so that it is counted once."""

    def __init__(self, root: np.ndarray):
        self.root = root


_KEPT: WeakValueDictionary[int, Kept] = WeakValueDictionary()  # by the id of its array


def keep(values: np.ndarray) -> Kept:
    """What keeps the memory of an array alive for as long as it is held itself."""
    root = _root(values)
    found = _KEPT.get(id(root))
    if found is None:
        found = _KEPT[id(root)] = Kept(root)
    return found


def private_columns(frame: pd.DataFrame) -> set[str]:
    """The float64 columns whose memory nothing but pandas refers to.

    Examples
    --------
    >>> X = np.zeros((3, 1))
    >>> private_columns(pd.DataFrame(X, columns=["a"], copy=False))
    set()
    """
    found: set[str] = set()
    if not COPIES_ON_WRITE:
        return found
    try:
        for block in frame._mgr.blocks:
            floats = isinstance(block.values, np.ndarray) and block.values.dtype == np.float64
            if floats and _others(block) == _none():
                found.update(frame.columns[block.mgr_locs.as_array])
    except AttributeError:  # these are internals of pandas: where they have changed, everything is copied
        return set()
    return found


def _others(block: Any) -> int:
    """How many references there are to the memory of a block besides those of pandas' blocks; and a few of this
    function's own, which are always as many."""
    root = _root(block.values)
    sharing = [other for reference in block.refs.referenced_blocks if (other := reference()) is not None]
    own = sum(_root(other.values) is root for other in sharing) + (id(root) in _KEPT)
    return sys.getrefcount(root) - own if root.flags.owndata else -1


@cache
def _none() -> int:
    """`_others` of memory to which nothing else refers."""
    return _others(pd.DataFrame({"a": [0.0]})._mgr.blocks[0])


def _root(values: np.ndarray) -> np.ndarray:
    """The array that holds the memory of a view."""
    while isinstance(values.base, np.ndarray):
        values = values.base
    return values
