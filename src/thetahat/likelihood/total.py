"""total: the one place that sums over data. Streaming and torch.distributed live here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.processes import replicated, world
from ..data.source import Source
from ..errors import EmptyData
from ..protocols import Accumulates, Partitioned, is_streamed
from ..threads import beside_a_reader
from ..types import ModelLike, Plain


class Summable(Protocol):
    """What can be summed: `a + b`, and the tensors inside, for a sum over processes."""

    def __add__(self, other: Plain) -> Any: ...

    def tensors(self) -> list[Tensor]: ...


T = TypeVar("T", bound=Any)


def total(function: Callable[[Batch], T], source: Source, model: ModelLike = None) -> T:
    """Σ function(batch) over all batches of the source, and over all processes.

    Of rows that stay in an engine (`data.Dask` …) the function goes to them, each partition gives a partial sum, and these are
    added in the order of the partitions. Under torch.distributed, where every process holds a part of the data, the sum is over all of them, the
    same on each. Where all hold the same data (their fingerprints say so) it is that of each: no row is
    counted twice.

    Parameters
    ----------
    function
        Batch → a tensor, or anything with `+` and `tensors()`
    source
        read once
    model
        handed to sources that draw from it

    Examples
    --------
    >>> from thetahat.data import Tensors
    >>> total(lambda batch: batch["y"].sum(), Tensors({"y": torch.ones(5)}, block=2))
    tensor(5.)
    """
    out = folded(function, source, model)
    if world() > 1 and not replicated(source):
        for tensor in [out] if isinstance(out, Tensor) else out.tensors():
            torch.distributed.all_reduce(tensor)
    found: T = out
    return found


def folded(
    function: Callable[[Batch], T],
    source: Source,
    model: ModelLike = None,
    combine: Callable[[T, T], T] | None = None,
) -> T:
    """function(batch) of all batches of this process, put together in their order by `combine`, None: by +.

    Where the rows stay in an engine the function goes to them (`protocols.Partitioned`).
    """
    combine = combine or added
    if isinstance(source, Partitioned):
        return source.fold(function, combine)
    out: T | None = None
    with beside_a_reader(is_streamed(source)):
        for batch in source.batches(model):
            part = function(batch)
            out = part if out is None else combine(out, part)
    if out is None:
        raise EmptyData("the source yielded no batches.")
    return out


def added(a: T, b: T) -> T:
    """a + b; large parts add in place, where they say how."""
    out: T = a.accumulate(b) if isinstance(a, Accumulates) else a + b
    return out


def spread(values: Tensor, count: Tensor, group: Tensor | None = None) -> float:
    """The standard error of Σ c v over independent units, (n,) each: a unit observed c times is c units.

        Var Σ c v = N/(N − 1) · Σ c (v − v̄)²,        with groups  G/(G − 1) · Σ_g (Σ_{i in g} c (v − v̄))²

    NaN with fewer than two units, or where a value that was observed is infinite.
    """
    seen = count > 0
    v, c = values[seen], count[seen]
    if not bool(torch.isfinite(v).all()):
        return math.nan
    n = float(c.sum())
    deviation = v - (c * v).sum() / n
    if group is None:
        return math.sqrt(n / (n - 1) * float((c * deviation**2).sum())) if n > 1 else math.nan
    codes = torch.unique(group[seen], return_inverse=True)[1]
    sums = torch.zeros(int(codes.max()) + 1, dtype=v.dtype).index_add_(0, codes, c * deviation)
    g = len(sums)
    return math.sqrt(g / (g - 1) * float(sums.square().sum())) if g > 1 else math.nan
