"""Source: yields batches, again and again. `Tensors` is the one for tensors in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import BadWeights, EmptyData
from .batch import Batch

BLOCK = 16384  # rows: 30 float64 columns of a block fit a core's second-level cache


@runtime_checkable
class Source(Protocol):
    """Yields batches. A table or a tensor set ignores the model; rollouts are drawn from the model as it now stands."""

    @property
    def size(self) -> int | None:
        """How many terms a pass has; None if it has no end or it is not known."""

    @property
    def fingerprint(self) -> str:
        """A digest of what is scored: equal for equal responses in equal order, whatever the predictors."""

    @property
    def units(self) -> str:
        """What a density is per: "y", "log(y)", "pixel" …"""

    def batches(self, model: Any = None) -> Iterator[Batch]:
        """One pass over the data."""


class Tensors:
    """Tensors in memory, as a source.

    Parameters
    ----------
    tensors : name → tensor, all with the same first dimension n
    count : (n,) frequency weights, or None
    target : the name of the tensor that is scored ("y" by default): it makes the fingerprint
    block : rows a batch

    >>> source = Tensors({"x": torch.randn(10, 2), "y": torch.zeros(10)})
    >>> source.size, [len(b) for b in source.batches()]
    (10, [10])
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor | np.ndarray] | Batch,
        *,
        count: Tensor | None = None,
        target: str = "y",
        block: int = BLOCK,
    ):
        if not isinstance(tensors, Batch):
            tensors = Batch({name: torch.as_tensor(value) for name, value in tensors.items()}, count=check_count(count))
        if len(tensors) == 0:
            raise EmptyData("the tensors have no rows.")
        self.whole, self.target, self.block = tensors, target, block
        self._fingerprint: str | None = None

    @property
    def size(self) -> int:
        return len(self.whole)

    @property
    def units(self) -> str:
        return self.target

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            scored = [self.whole[self.target]] if self.target in self.whole else list(self.whole.values())
            self._fingerprint = digest(*scored, *([self.whole.count] if self.whole.counted else []))
        return self._fingerprint

    def batches(self, model: Any = None) -> Iterator[Batch]:
        if self.block >= len(self.whole):
            yield self.whole
            return
        for start in range(0, len(self.whole), self.block):
            yield self.whole[start : start + self.block]


class Thinned:
    """Every `keep`-th part of each batch of a source: the first rows of each, for a warm start. Held, so that a file is read once for it."""

    def __init__(self, source: Source, keep: int):
        self.source, self.keep = source, keep
        self._held: list[Batch] = []

    @property
    def size(self) -> int | None:
        return None if self.source.size is None else -(-self.source.size // self.keep)

    @property
    def fingerprint(self) -> str:
        return f"{self.source.fingerprint}/{self.keep}"

    @property
    def units(self) -> str:
        return self.source.units

    def batches(self, model: Any = None) -> Iterator[Batch]:
        if not self._held:
            for batch in self.source.batches(model):
                part = batch[: -(-len(batch) // self.keep)]
                # a view would keep the whole block of a streamed file alive
                self._held.append(part.map(torch.Tensor.clone) if getattr(self.source, "streamed", False) else part)
        yield from self._held


def check_count(count: Any) -> Tensor | None:
    """Frequency weights as a float64 tensor, or the reason why they cannot be."""
    if count is None:
        return None
    count = torch.as_tensor(count, dtype=torch.float64)
    bad = ~torch.isfinite(count)
    if bad.any():
        row = int(torch.nonzero(bad)[0, 0])
        raise BadWeights(f"the weight of row {row} is {float(count[row])}. Weights are finite and not negative.")
    if (count < 0).any():
        row = int(torch.nonzero(count < 0)[0, 0])
        raise BadWeights(f"the weight of row {row} is {float(count[row])}. Weights count observations: none is negative.")
    if not (count > 0).any():
        raise BadWeights("all weights are zero: nothing is left to be made probable.")
    return count


def digest(*tensors: Tensor) -> str:
    """A short stable digest of values (not of addresses, dtypes are normalised to float64 and int64)."""
    h = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        values = tensor.detach().cpu()
        array = values.to(torch.float64 if values.is_floating_point() else torch.int64).contiguous().numpy()
        h.update(str(array.shape).encode())
        h.update(array.tobytes() if array.size else b"")
    return h.hexdigest()
