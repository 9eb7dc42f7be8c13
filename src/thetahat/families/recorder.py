"""Which call of a family gave a log-likelihood: so that a function that returns `Normal().log_prob(y, mean,
scale)` is known to be a sum of squares, with that mean and that scale.

A family whose structure matters to a solver says so where it returns (`record`). Whoever wants to know calls
the function under `recording` and looks for the call whose value is the very tensor that the function
returned (`is`, not equal): what was added to it, summed or transformed is another tensor, and not recognised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from ..types import Plain


@dataclass(frozen=True)
class Call:
    """`family.log_prob(y, *parameters)`, and what it returned."""

    family: Plain
    y: Tensor
    parameters: tuple[Tensor, ...]
    value: Tensor


_recordings: list[list[Call]] = []


def record(family: Plain, y: Tensor, parameters: tuple[Tensor, ...], value: Tensor) -> Tensor:
    """`value` itself; remembered while someone is recording."""
    for calls in _recordings:
        calls.append(Call(family, y, parameters, value))
    return value


@contextmanager
def recording() -> Iterator[list[Call]]:
    """The calls made inside, in order."""
    calls: list[Call] = []
    _recordings.append(calls)
    try:
        yield calls
    finally:
        _recordings[:] = [other for other in _recordings if other is not calls]
