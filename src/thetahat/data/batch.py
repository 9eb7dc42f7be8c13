"""Batch: named tensors that share their leading shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor

from ..errors import BadArgument, UnknownColumn
from .devices import sent

NARROW = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32})


class Batch(Mapping[str, Tensor]):
    """What was observed: named tensors of leading shape `batch.shape`, one entry a term of the sum.

    `batch[name]` of whole numbers is int64, in however few bits `batch.tensors` holds them: arithmetic and
    comparisons in uint8 wrap round (255 + 1 is 0, and y < 256 is false of every y).

    Parameters
    ----------
    tensors
        name → tensor, all of leading shape `shape`
    count
        how often each term was observed, of `shape` (1; a frequency weight; 0 = padding). None: once each
    group
        which independent unit each term belongs to, of `shape`. None: its first index
    dims
        how many leading dimensions the terms have (1 for a table; 2 for (B, T) tokens)

    Examples
    --------
    >>> batch = Batch({"x": torch.arange(6.0).reshape(3, 2), "y": torch.zeros(3)})
    >>> batch.shape, batch[1:]["x"].tolist(), float(batch.total)
    ((3,), [[2.0, 3.0], [4.0, 5.0]], 3.0)
    """

    __slots__ = ("_count", "_group", "shape", "tensors")

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        count: Tensor | None = None,
        group: Tensor | None = None,
        dims: int = 1,
    ):
        if not tensors:
            raise BadArgument("a batch needs at least one tensor.")
        first = next(iter(tensors.values()))
        self.tensors = dict(tensors)
        self.shape = tuple(first.shape[:dims])
        self._count, self._group = count, group
        for name, tensor in self.tensors.items():
            if tuple(tensor.shape[:dims]) != self.shape:
                raise BadArgument(
                    f"tensor {name!r} has leading shape {tuple(tensor.shape[:dims])}, the others "
                    f"{self.shape}."
                )

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        if isinstance(key, str):
            if key not in self.tensors:
                raise UnknownColumn.named(key, self.tensors, where="the model")
            found = self.tensors[key]
            return found.to(torch.int64) if found.dtype in NARROW else found
        new = object.__new__(Batch)  # slicing a checked batch needs no second check: it happens once a block
        new.tensors = {name: tensor[key] for name, tensor in self.tensors.items()}
        new._count = None if self._count is None else self._count[key]
        new._group = None if self._group is None else self._group[key]
        new.shape = tuple(next(iter(new.tensors.values())).shape[: len(self.shape)])
        return new

    def only(self, names: Collection[str]) -> Batch:
        """The same observations with these of their tensors."""
        new: Batch = self[...]
        new.tensors = {name: tensor for name, tensor in self.tensors.items() if name in names}
        return new

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def counted(self) -> bool:
        """Whether the terms carry counts of their own (otherwise each counts once)."""
        return self._count is not None

    @property
    def count(self) -> Tensor:
        if self._count is not None:
            return self._count
        first = next(iter(self.tensors.values()))
        dtype = first.dtype if first.is_floating_point() else torch.get_default_dtype()
        return torch.ones(self.shape, dtype=dtype, device=first.device)

    @property
    def total(self) -> float:
        """Σ count: the number by which a mean over terms divides."""
        return float(self._count.sum()) if self._count is not None else float(math.prod(self.shape))

    @property
    def grouped(self) -> bool:
        """Whether the terms name independent units of their own (otherwise each entry of the first index is
        one)."""
        return self._group is not None

    @property
    def group(self) -> Tensor:
        if self._group is not None:
            return self._group
        index = torch.arange(self.shape[0])
        return index.reshape(-1, *[1] * (len(self.shape) - 1)).expand(self.shape)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function of each tensor in its place; the leading shape stays."""
        new = object.__new__(Batch)
        new.tensors = {name: function(tensor) for name, tensor in self.tensors.items()}
        new._count = None if self._count is None else function(self._count)
        new._group = None if self._group is None else function(self._group)
        new.shape = self.shape
        return new

    def to(self, target: torch.device | torch.dtype | str, *, ahead: bool = False) -> Batch:
        """The batch on another device, or with its floating tensors in another precision.

        ahead : without waiting for the copy (`devices.sent`)
        """
        if isinstance(target, torch.dtype):
            return self.map(lambda t: t.to(target) if t.is_floating_point() else t)
        device = torch.device(target)
        if all(
            t.device == device for t in (*self.tensors.values(), self._count, self._group) if t is not None
        ):
            return self
        return self.map(lambda t: sent(t, device, ahead=ahead))

    def with_count(self, count: Tensor) -> Batch:
        """The same observations, counted otherwise (bootstrap, trimming)."""
        new = self[...]
        new._count = count
        out: Batch = new
        return out

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {tuple(t.shape)}" for name, t in self.tensors.items())
        return f"Batch({shown})"


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of all the terms, in order."""
    if len(batches) == 1:
        return batches[0]
    names = list(batches[0])
    counted, grouped = any(b.counted for b in batches), any(b._group is not None for b in batches)
    return Batch(
        {name: _cat([b.tensors[name] for b in batches]) for name in names},
        count=torch.cat([b.count for b in batches]) if counted else None,
        group=torch.cat([b.group for b in batches]) if grouped else None,
        dims=len(batches[0].shape),
    )


def split(batch: Batch, fraction: float, generator: torch.Generator) -> tuple[Batch, Batch]:
    """(what is left, what is held out): about `fraction` of the units, each whole (a row, or all rows of a
    group)."""
    unit = batch.group.reshape(len(batch), -1)[:, 0]
    ids, position = torch.unique(unit, return_inverse=True)
    many = round(fraction * len(ids))
    if not 0 < many < len(ids):
        raise BadArgument(
            f"held_out={fraction:g} of {len(ids)} units holds out {many}. Give another fraction, a source, "
            "or None."
        )
    out = torch.zeros(len(ids), dtype=torch.bool)
    out[torch.randperm(len(ids), generator=generator)[:many]] = True
    return batch[~out[position]], batch[out[position]]


def _cat(parts: list[Tensor]) -> Tensor:
    """Joined along the terms, a matrix that lies column by column in memory as such again."""
    by_column = parts[0].ndim == 2 and parts[0].stride(0) == 1
    return torch.cat([p.T for p in parts], 1).T if by_column else torch.cat(parts)
