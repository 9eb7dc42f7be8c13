"""The processes of torch.distributed that climb together: how many there are, who has which rows, and their sums."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from ..data.batch import Batch

AVAILABLE = torch.distributed.is_available()


def world() -> int:
    """How many processes climb together."""
    return torch.distributed.get_world_size() if AVAILABLE and torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return torch.distributed.get_rank() if world() > 1 else 0


def share(batch: Batch) -> Batch:
    """This process's rows of a batch that all of them hold; where none is left to it, one that counts nothing, so that it keeps step."""
    if world() == 1:
        return batch
    own = batch[rank() :: world()]
    return own if len(own) else batch[:1].with_count(torch.zeros_like(batch[:1].count))


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


def everywhere(value: Any) -> list[Any]:
    """The value that each process has, in their order."""
    if world() == 1:
        return [value]
    parts: list[Any] = [None] * world()
    torch.distributed.all_gather_object(parts, value)
    return parts


def together() -> None:
    """Wait for the others."""
    if world() > 1:
        torch.distributed.barrier()
