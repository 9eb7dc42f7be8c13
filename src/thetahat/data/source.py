"""
References
----------
yields batches, again and again. `Tensors` is the one for tensors in memory.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import BadWeights, EmptyData
from ..protocols import Sampled, is_streamed
from ..types import Data, ModelLike, Plain, Settings, fields_of, name_of
from .batch import Batch, concatenate

ALL_ZERO = "all weights are zero: nothing is left to be made probable."
BLOCK = 16384  # rows: 30 float64 columns of a block fit a core's second-level cache


@runtime_checkable
class Source(Protocol):
    """Yields batches. A table or a tensor set ignores the model; rollouts are drawn from the model as it now
    stands.

    A source whose batches hold a transform t = f(x) of what was observed may say `log_determinant(batch)`,
    log |dt/dx| of each term, and `scored_in`, what a density is per once that has been added. A score adds
    it; a fit does not need it.
    """

    @property
    def size(self) -> int | None:
        """How many terms a pass has; None if it has no end or it is not known."""

    @property
    def fingerprint(self) -> str:
        """A digest of what is scored: equal for equal responses in equal order, whatever the predictors."""

    @property
    def units(self) -> str:
        """What a density is per: "y", "log(y)", "pixel" …"""

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """One pass over the data."""


class Tensors:
    """Tensors in memory, as a source.

    Parameters
    ----------
    tensors
        name → tensor, all with the same first dimension n
    count
        (n,) frequency weights, or None
    target
        the name of the tensor that is scored ("y" by default): it makes the fingerprint
    block
        rows a batch: more than a table's, since a model without a road of its own pays a graph a batch
    copy
        whether the tensors are copied: what is written into the user's own later must not change what was
        fitted

    Examples
    --------
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
        block: int = 4 * BLOCK,
        copy: bool = True,
    ):
        if not isinstance(tensors, Batch):
            tensors = Batch(
                {name: torch.as_tensor(value) for name, value in tensors.items()}, count=check_count(count)
            )
        if len(tensors) == 0:
            raise EmptyData("the tensors have no rows.")
        self.whole, self.target, self.block = tensors.map(_own) if copy else tensors, target, block
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
            held = self.whole.tensors
            scored = [held[self.target]] if self.target in held else list(held.values())
            self._fingerprint = digest(*scored, *([self.whole.count] if self.whole.counted else []))
        return self._fingerprint

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        if self.block >= len(self.whole):
            yield self.whole
            return
        for start in range(0, len(self.whole), self.block):
            yield self.whole[start : start + self.block]


def _own(tensor: Tensor) -> Tensor:
    """A copy with the same strides; what repeats one value stays one value."""
    if 0 in tensor.stride() and tensor.numel():
        once = tensor[tuple(slice(0, 1) if s == 0 else slice(None) for s in tensor.stride())]
        return once.clone().expand(tensor.shape)
    return tensor.clone()


class Thinned:
    """Every `keep`-th part of each batch of a source: the first rows of each, for a warm start. Of a file it is the part
    that the first pass over it has left in memory, whatever `keep` is."""

    def __init__(self, source: Source, keep: int):
        self.source, self.keep, self.block = source, keep, BLOCK
        self._held: Batch | None = None
        if isinstance(source, Sampled) and source.sample is not None:
            self.keep, self._held = source.every, source.sample

    @property
    def size(self) -> int | None:
        if self._held is not None:
            return len(self._held)
        return None if self.source.size is None else -(-self.source.size // self.keep)

    @property
    def fingerprint(self) -> str:
        return f"{self.source.fingerprint}/{self.keep}"

    @property
    def units(self) -> str:
        return self.source.units

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        if self._held is None:
            self._held = concatenate(list(self._parts(model)))
        for start in range(0, len(self._held), self.block):
            yield self._held[start : start + self.block]

    def in_blocks(self, rows: int) -> Thinned:
        """The same rows, so many at a time."""
        if self._held is None:
            self._held = concatenate(list(self._parts(None)))
        out = copy.copy(self)
        out.block = rows
        return out

    def _parts(self, model: ModelLike) -> Iterator[Batch]:
        """The first rows of each batch; of a streamed file copies, since a view would keep the whole block
        alive."""
        streamed = is_streamed(self.source)
        for batch in self.source.batches(model):
            part = batch[: -(-len(batch) // self.keep)]
            yield part.map(torch.Tensor.clone) if streamed else part


@contextmanager
def evaluating(model: ModelLike) -> Iterator[None]:
    """A model in evaluation mode (no dropout) while data are drawn from it, and then as it was.

    A source with `drawn = True` draws within it.
    """
    was = (
        [m for m in model.modules() if m.training]
        if isinstance(model, torch.nn.Module) and model.training
        else []
    )
    if was:
        model.train(False)
    try:
        yield
    finally:
        for module in was:
            module.training = True


def check_count(count: Data, row: Callable[[int], int] = int, *, part: bool = False) -> Tensor | None:
    """Frequency weights as a float64 tensor, or the reason why they cannot be.

    Parameters
    ----------
    row
        names a row by its place in the data
    part
        these are not all of them, and may all be zero
    """
    if count is None:
        return None
    count = torch.as_tensor(count, dtype=torch.float64)
    bad = ~(torch.isfinite(count) & (count >= 0))
    if bad.any():
        at = int(torch.nonzero(bad)[0, 0])
        value = "missing" if torch.isnan(count[at]) else f"{float(count[at]):g}"
        raise BadWeights(
            f"the weight of row {row(at)} is {value}. Weights count observations: they are finite and not "
            "negative."
        )
    if not part and not (count > 0).any():
        raise BadWeights(ALL_ZERO)
    out: Tensor | None = count
    return out


class Digest:
    """A short stable digest of values that arrive in parts: equal values of equal shape have equal digests,
    however they were cut.

    Values, not addresses or dtypes: every number is read as float64, so that a column and a tensor of the
    same numbers agree.

    Examples
    --------
    >>> parts = Digest()
    >>> parts.update(torch.tensor([1.0, 2.0])), parts.update(torch.tensor([3]))
    (None, None)
    >>> parts.hexdigest() == digest(torch.tensor([1.0, 2.0, 3.0]))
    True
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self._rows, self._rest = 0, ""
        self._done: str | None = None  # of one that was pickled, which no hash of hashlib's can be

    def __getstate__(self) -> Settings:
        return {"_done": self.hexdigest()}

    def update(self, tensor: Tensor) -> None:
        """The next rows."""
        assert self._done is None
        values = tensor.detach().cpu()
        for start in range(0, len(values), BLOCK):
            own = values[start : start + BLOCK].to(torch.float64).contiguous().numpy()
            self._hash.update(own.reshape(-1).view(np.uint8).data if own.size else b"")
        self._rows += len(values)
        self._rest = str(tuple(values.shape[1:]))

    def hexdigest(self) -> str:
        if self._done is not None:
            return self._done
        whole = self._hash.copy()
        whole.update(f"{self._rows}, {self._rest}".encode())
        return whole.hexdigest()


def digest(*tensors: Tensor) -> str:
    """The digest of one tensor; of several, of their digests in order."""
    return joined(_digest(tensor) for tensor in tensors)


def joined(digests: Iterable[str]) -> str:
    """One digest of several."""
    found = list(digests)
    return (
        found[0] if len(found) == 1 else hashlib.blake2b(" ".join(found).encode(), digest_size=8).hexdigest()
    )


def _digest(tensor: Tensor) -> str:
    one = Digest()
    one.update(tensor)
    return one.hexdigest()


def is_table(data: Data) -> bool:
    """Whether data are columns under names: a dict, a data frame of any kind, the path of a file."""
    return isinstance(data, (str, Path, Mapping)) or hasattr(type(data), "columns")


def told(settings: Plain) -> str | None:
    """A weighting, a prior, an advantage by its kind and its plain values; a function by its name. What is
    fitted again must be the same.

    Examples
    --------
    >>> from thetahat.rl import Clipped
    >>> told(Clipped(0.1)), told(len)
    ('Clipped(clip_coef=0.1, entropy_coef=0.0)', 'len')
    """
    if not dataclasses.is_dataclass(settings):
        return None if settings is None else name_of(settings)
    shown = [
        f"{name}={v!r}"
        for name, v in fields_of(settings).items()
        if isinstance(v, (bool, int, float, str, list, tuple)) and not name.startswith("_")
    ]
    return f"{type(settings).__name__}({', '.join(shown)})"
