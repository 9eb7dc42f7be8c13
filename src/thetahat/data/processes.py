"""The processes of torch.distributed that fit together: how many there are, who has which rows, and their
sums."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.distributed
from torch import Tensor

from ..protocols import is_drawn
from ..types import Plain
from .batch import Batch
from .source import Source

AVAILABLE = torch.distributed.is_available()
Group = Plain  # a group of processes of torch.distributed; None: all of them


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is one process's part of a larger one (FSDP)."""
    return hasattr(tensor, "full_tensor")


def initialised() -> bool:
    """Whether torch.distributed was told of the processes, be it one."""
    return AVAILABLE and torch.distributed.is_initialized()


def world() -> int:
    """How many processes work together."""
    return torch.distributed.get_world_size() if initialised() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return torch.distributed.get_rank() if world() > 1 else 0


def replicated(source: Source) -> bool:
    """Whether every process holds the same data (then each takes its share of every batch, and no sum is over
    processes), or a part of them.

    Asked once a source, of all processes together.
    """
    if world() == 1 or is_drawn(source):
        return True
    try:
        if source in _REPLICATED:
            return _REPLICATED[source]
    except TypeError:  # neither hashed nor referred to weakly: asked every time
        return _alike(source)
    _REPLICATED[source] = found = _alike(source)
    return found


_REPLICATED: WeakKeyDictionary[Source, bool] = WeakKeyDictionary()


def _alike(source: Source) -> bool:
    known = everywhere(None if source.size is None else source.fingerprint)
    return known[0] is not None and all(each == known[0] for each in known)


def share(batch: Batch) -> Batch:
    """This process's rows of a batch that all of them hold; where none is left to it, one that counts
    nothing, so that it keeps step."""
    if world() == 1:
        return batch
    own = batch[rank() :: world()]
    out: Batch = own if len(own) else batch[:1].with_count(torch.zeros_like(batch[:1].count))
    return out


def summed(*values: float) -> list[float]:
    """Each value, over all processes."""
    if world() == 1:
        return list(values)
    together = torch.tensor(values, dtype=torch.float64)
    torch.distributed.all_reduce(together)
    return [float(v) for v in together]


def gathered(*each: Tensor) -> tuple[Tensor, ...]:
    """The tensors of all processes, one process after the other: the same on each."""
    return tuple(torch.cat(parts) for parts in zip(*everywhere(each), strict=True))


def everywhere(value: Plain, group: Group = None) -> list[Plain]:
    """The value that each process has, in their order."""
    if world() == 1:
        return [value]
    parts: list[Plain] = [None] * world()
    torch.distributed.all_gather_object(parts, value, group)
    return parts


def together() -> None:
    """Wait for the others."""
    if world() > 1:
        torch.distributed.barrier()
