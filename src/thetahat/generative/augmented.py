"""Augmentation: rows seen anew each epoch through a change that leaves their meaning as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batch import Batch, split
from ..data.source import Tensors
from ..errors import BadArgument
from ..protocols import levels_of, shape_of
from ..types import Data, ModelLike
from .images import check_shape

Change = Callable[[Tensor, torch.Generator], Tensor]


class Augmented:
    """A source whose inputs are changed at random, anew each epoch of a fit: shifts of an image that is the
    same digit.

        Σ_i (1/M) Σ_m log p(y_i | t_m(x_i), θ)

    is what a fit maximises in expectation: the data enlarged M-fold by the changes t_m, each row still of
    weight 1 in all. So a standard error or a comparison knows no more rows than there are, and the changes
    are a statement about the world, not about these data. A score (`batches`), and whatever is held out
    (`split`), sees the rows as they were observed.

    Parameters
    ----------
    data
        a source in memory, a batch, or name → tensor
    change
        (inputs of a batch, generator) → the same shape, such as `Shifts`; or several, one after the other
    inputs
        the name of what is changed
    target
        of what is scored, where `data` is not a source

    References
    ----------
    Simard, Steinkraus and Platt (2003), Best practices for convolutional neural networks applied to visual
    document analysis.

    Examples
    --------
    >>> source = Augmented({"x": torch.ones(6, 4), "y": torch.zeros(6)}, Shifts((2, 2), 1))
    >>> generator = torch.Generator().manual_seed(0)
    >>> [float(batch["x"].sum()) < 16 for batch in source.epoch(4, generator)], float(next(source.batches())["x"].sum())
    ([True, True], 24.0)
    """

    def __init__(self, data: Data, change: Change | Sequence[Change], inputs: str = "x", target: str = "y"):
        self.source = data if isinstance(data, Tensors) else Tensors(data, target=target)
        self.changes: tuple[Change, ...] = tuple(change) if isinstance(change, Sequence) else (change,)
        self.inputs = inputs
        self.source.whole[inputs]  # says which columns there are, if not this one

    @property
    def target(self) -> str:
        return self.source.target

    @property
    def levels(self) -> int | None:
        """Of a pixel, where the source is images."""
        return levels_of(self.source)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one image, where the source is images."""
        return shape_of(self.source)

    @property
    def units(self) -> str:
        return self.source.units

    @property
    def size(self) -> int:
        return self.source.size

    @property
    def observations(self) -> float:
        return self.source.whole.total

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """The rows as they were observed."""
        return self.source.batches(model)

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every row once, in an order and with changes that the generator draws."""
        for rows in torch.randperm(self.size, generator=generator).split(batch_size):
            batch = self.source.whole[rows]
            for change in self.changes:
                inputs = batch[self.inputs]
                changed = change(inputs, generator)
                if changed.shape != inputs.shape:
                    raise BadArgument(
                        f"the change gave the shape {tuple(changed.shape)} for inputs of shape "
                        f"{tuple(inputs.shape)}: they stay as they were."
                    )
                batch.tensors[self.inputs] = changed
            yield batch

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Augmented, Tensors]:
        """(what is left, augmented; what is held out, as it was observed). Rows of one group stay
        together."""
        left, out = (
            Tensors(rows, target=self.target, copy=False)
            for rows in split(self.source.whole, fraction, generator)
        )
        return Augmented(left, self.changes, self.inputs), out


@dataclass(frozen=True)
class Shifts:
    """Images moved by up to `by` pixels each way, whole pixels, all moves equally probable; what comes in at
    the edge is 0.

    Parameters
    ----------
    shape
        of one image, (H, W) or (C, H, W); they come flat, (n, d), or in this shape
    by
        pixels

    Raises
    ------
    BadArgument

    Examples
    --------
    >>> Shifts((1, 3), 0)(torch.tensor([[1, 2, 3]]), torch.Generator())
    tensor([[1, 2, 3]])
    """

    shape: Sequence[int]
    by: int = 2

    def __post_init__(self) -> None:
        if (
            len(self.shape) not in (2, 3)
            or isinstance(self.by, bool)
            or not isinstance(self.by, int)
            or self.by < 0
        ):
            raise BadArgument(
                f"Shifts({tuple(self.shape)}, {self.by!r}). Accepted: (H, W) or (C, H, W), and a whole "
                "number of pixels."
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        check_shape(x, self.shape, "Shifts moves")
        channels = self.shape[0] if len(self.shape) == 3 else 1
        H, W = self.shape[-2:]
        images = x.reshape(len(x), channels, H, W)
        wide = torch.nn.functional.pad(images, (self.by,) * 4)
        moved = torch.randint(0, 2 * self.by + 1, (2, len(x), 1), generator=generator)
        row, column = (moved[0] + torch.arange(H))[:, :, None], (moved[1] + torch.arange(W))[:, None, :]
        n = torch.arange(len(x))[:, None, None]
        return wide.movedim(1, -1)[n, row, column].movedim(-1, 1).reshape(x.shape)


@dataclass(frozen=True)
class Flips:
    """Images of which each is mirrored left to right with probability ½.

    Parameters
    ----------
    shape
        of one image, (H, W) or (C, H, W); they come flat, (n, d), or in this shape

    Examples
    --------
    >>> Flips((1, 3))(torch.tensor([[1, 2, 3]] * 4), torch.Generator().manual_seed(0))[:, 0].tolist()
    [3, 1, 3, 3]
    """

    shape: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3):
            raise BadArgument(f"Flips({tuple(self.shape)}). Accepted: (H, W) or (C, H, W).")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        check_shape(x, self.shape, "Flips mirrors")
        images = x.reshape(len(x), -1, self.shape[-1])
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        return torch.where(mirrored[:, None, None], images.flip(-1), images).reshape(x.shape)


@dataclass(frozen=True)
class Erasures:
    """Images in each of which one square, at a random place, is set to 0.

    Parameters
    ----------
    shape
        of one image, (H, W) or (C, H, W); they come flat, (n, d), or in this shape
    side
        of the square, pixels; near an edge a part of it lies outside

    References
    ----------
    DeVries and Taylor (2017), Improved regularization of convolutional neural networks with cutout.

    Examples
    --------
    >>> erased = Erasures((4, 4), 2)(torch.ones(3, 16), torch.Generator().manual_seed(0))
    >>> bool((erased.sum(1) < 16).all()), int(erased.sum(1).min()) >= 12
    (True, True)
    """

    shape: Sequence[int]
    side: int = 8

    def __post_init__(self) -> None:
        whole = isinstance(self.side, int) and not isinstance(self.side, bool) and self.side >= 1
        if len(self.shape) not in (2, 3) or not whole:
            raise BadArgument(
                f"Erasures({tuple(self.shape)}, {self.side!r}). Accepted: (H, W) or (C, H, W), and 1 or more pixels."
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        check_shape(x, self.shape, "Erasures changes")
        H, W = self.shape[-2:]
        centre = [torch.randint(0, n, (len(x), 1), generator=generator) for n in (H, W)]
        row, column = (
            (at := torch.arange(n) - c + self.side // 2).ge(0) & at.lt(self.side)
            for n, c in zip((H, W), centre, strict=True)
        )
        erased = (row[:, :, None] & column[:, None, :])[:, None]
        images = x.reshape(len(x), -1, H, W)
        return torch.where(erased, torch.zeros((), dtype=x.dtype), images).reshape(x.shape)
