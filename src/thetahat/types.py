"""Aliases, and the legend of shapes.

    n   rows of a table (terms of the sum)          p   coefficients, all of θ
    k   parameters of a family                      q   columns of one predictor
    B   batch, T time or position, V vocabulary     L   levels of a category

θ (theta) is the flat vector of everything that is fitted, unconstrained. "Natural" values are θ seen through
the constraints (a scale rather than its logarithm). Values of log-likelihoods are nats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from .data.batch import Batch

# What cannot be named more closely, each under what it stands for.
Data = (
    Any  # what `th.fit` accepts: a table of any kind, the path of one, an array, tensors, a Source, a Batch
)
ModelLike = Any  # a torch module that says log_prob(batch); what it may say besides is in `protocols`
SourceLike = Any  # a Source, and what it may be besides (in `protocols`)
StateLike = Any  # a solver's state: a frozen dataclass with `theta` and `trace`, read by that solver alone
ObjectiveLike = Any  # an Objective, or a view of one: some coordinates held, or its latent variables known
SolverLike = Any  # a Solver, and what it may say besides
Distribution = Any  # what a divergence is of: a fit, a model, a family with its parameters, a sample
Space = Any  # of gymnasium
Chart = Any  # of altair
Named = Mapping[str, Any]  # plain values under names, read and not changed
Level = Any  # a value of a category or an item: text, a number, a boolean
Levels = tuple[Level, ...]
Plain = Any  # a value of a user's, of a file's or of another library's, looked at before it is used
Settings = dict[str, Any]  # plain values under names: what a saved fit, a run or a call is described by
Columns = Mapping[str, Any]  # anything that maps column names to columns: dict, pandas, polars, Arrow

OF_SEED = "_of_seed_"  # in the name of what was measured of one of several seeds: greedy_return_of_seed_3


class Weights(Protocol):
    """A weighting: it sees the batch and log p, detached, and returns one weight a term. Weights never carry
    gradient."""

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor: ...


Function = Callable[["Batch"], Any]


def fields_of(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass by their names, as they are: nothing is copied.

    Examples
    --------
    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: int
    ...     y: int = 2
    >>> fields_of(Point(1))
    {'x': 1, 'y': 2}
    """
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}


def given_fields(settings: Any) -> dict[str, Any]:
    """`fields_of`, those with which it is made again."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.init}


def name_of(function: Any) -> str:
    """The name of a function or a class; of any other object, that of its class.

    Examples
    --------
    >>> name_of(len), name_of(3)
    ('len', 'int')
    """
    return str(getattr(function, "__name__", type(function).__name__))


def shown_as(function: Any) -> str:
    """A function by its name, any other object as it prints itself."""
    return str(getattr(function, "__name__", None) or function)
