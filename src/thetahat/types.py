"""Aliases, and the legend of shapes.

    n   rows of a table (terms of the sum)          p   coefficients, all of θ
    k   parameters of a family                      q   columns of one predictor
    B   batch, T time or position, V vocabulary     L   levels of a category

θ (theta) is the flat vector of everything that is fitted, unconstrained. "Natural" values are θ seen through the constraints
(a scale rather than its logarithm). Values of log-likelihoods are nats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from .data.batch import Batch

Columns = Mapping[str, Any]  # anything that maps column names to columns: dict, pandas, polars, Arrow


class Weights(Protocol):
    """A weighting: it sees the batch and log p, detached, and returns one weight a term. Weights never carry gradient."""

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor: ...


Function = Callable[["Batch"], Any]


def fields_of(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass by their names, as they are: nothing is copied.

    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: int
    ...     y: int = 2
    >>> fields_of(Point(1))
    {'x': 1, 'y': 2}
    """
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}


def name_of(function: Any) -> str:
    """The name of a function or a class; of any other object, that of its class.

    >>> name_of(len), name_of(3)
    ('len', 'int')
    """
    return str(getattr(function, "__name__", type(function).__name__))


def shown_as(function: Any) -> str:
    """A function by its name, any other object as it prints itself."""
    return str(getattr(function, "__name__", None) or function)
