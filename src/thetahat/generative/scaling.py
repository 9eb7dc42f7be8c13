"""How images were scaled before a network saw them: x of whole numbers y, and log |dx/dy|; and what is wrong
with either."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, OutOfSupport
from ..types import Data, Plain
from .images import Images, _stacked


@dataclass(frozen=True)
class Fault:
    """What is wrong with images, model or claim.

    Parameters
    ----------
    name
        short, fixed: what programs ask for
    sentence
        what it is
    effect
        bits per dimension that it adds to the figure; None: not computed
    """

    name: str
    sentence: str
    effect: float | None = None


NAMED: dict[str, Callable[[int], tuple[float, float]]] = {
    "[-1, 1]": lambda L: (2 / (L - 1), -1.0),
    "[0, 1]": lambda L: (1 / (L - 1), 0.0),
    "[-1, 1)": lambda L: (2 / L, -1.0),
    "[0, 1)": lambda L: (1 / L, 0.0),
    "none": lambda L: (1.0, 0.0),
}


@dataclass(frozen=True)
class Scaling:
    """x of whole numbers y, one number from one number: x_j = f(y_j).

    Parameters
    ----------
    function
        of (n, *shape), elementwise; None: a y + b
    slope, offset
        a and b, numbers or (d,), where the scaling is affine; None where it is not
    shape
        of one image as the function sees it
    sentence
        how it reads
    """

    function: Callable[[Tensor], Any] | None
    slope: Tensor | None
    offset: Tensor | None
    shape: tuple[int, ...]
    sentence: str

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, d) of y (n, d), and log |dx/dy| of each row (n,)."""
        if self.slope is not None and self.offset is not None:
            slope = self.slope.to(y)
            change = torch.log(slope.abs()).expand(y.shape[1]).sum().expand(len(y))
            return slope * y + self.offset.to(y), change
        x, slope = self._differentiated(y)
        return x, torch.log(slope.abs()).sum(1)

    def _differentiated(self, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            own = y.detach().clone().requires_grad_()
            x = self._applied(own)
            if not x.requires_grad:
                raise BadArgument(
                    "scaling: the function does not let torch differentiate it. Accepted: one of torch."
                )
            (slope,) = torch.autograd.grad(x.sum(), own)
        return x.detach(), slope

    def _applied(self, y: Tensor) -> Tensor:
        if self.function is None:
            raise BadArgument("a scaling needs a function, or a slope and an offset.")
        x = self.function(y.reshape(len(y), *self.shape))
        if not isinstance(x, Tensor) or x.numel() != y.numel():
            what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise BadArgument(
                f"scaling: the function gives {what} for images of shape {(len(y), *self.shape)}. Accepted: a tensor of "
                "that shape."
            )
        return x.reshape(y.shape).to(y.dtype)

    def grid(self, levels: int, d: int, *, cells: bool) -> Tensor:
        """f at the levels, (L, d); with the middles of their cells, 0, ½, 1, …, L − ½, (2L, d)."""
        steps = 2 if cells else 1
        y = (torch.arange(steps * levels, dtype=torch.float64) / steps)[:, None].expand(-1, d).contiguous()
        return self(y)[0] if self.function is None else self._applied(y).detach()


def scaling_of(
    scaling: Plain, levels: int, shape: tuple[int, ...], example: Tensor, *, cells: bool
) -> Scaling:
    """The scaling that an argument names.

    Parameters
    ----------
    scaling
        one of `NAMED`; (slope a, offset b) of x = a y + b, numbers or arrays of an image's shape; or a function
        of torch, elementwise
    example
        images (m, d), float64, at which a function is examined
    cells
        whether it is used within the cells of the levels, [l, l + 1), and not at the levels alone

    Raises
    ------
    BadArgument
        an unknown name; a slope of 0; a function that mixes pixels
    """
    d = math.prod(shape)
    if isinstance(scaling, str):
        if scaling not in NAMED:
            raise BadArgument(
                f"scaling={scaling!r}. Accepted: {', '.join(map(repr, NAMED))}, (slope, offset), a function."
            )
        a, b = NAMED[scaling](levels)
        text = "x = y" if scaling == "none" else f"{scaling}: x = {a:.6g} y{'' if b == 0 else ' − 1'}"
        return Scaling(
            None, torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), shape, text
        )
    if callable(scaling):
        made = Scaling(scaling, None, None, shape, f"a function ({getattr(scaling, '__name__', 'unnamed')})")
        _refuse_mixed(made, example)
        slope, offset = _affine(made, levels, d, cells)
        return made if slope is None else Scaling(None, slope, offset, shape, made.sentence + ", affine")
    if not isinstance(scaling, Sequence) or len(scaling) != 2:
        raise BadArgument(f"scaling={scaling!r}. Accepted: a name, (slope, offset), a function.")
    slope, offset = (_constant(each, shape) for each in scaling)
    if not bool((slope != 0).all()) or not all(bool(torch.isfinite(v).all()) for v in (slope, offset)):
        raise BadArgument(f"scaling={scaling!r}: the slope is finite and not 0, the offset finite.")
    text = f"x = {float(slope.reshape(-1)[0]):.6g} y + {float(offset.reshape(-1)[0]):.6g}"
    several = slope.numel() > 1 or offset.numel() > 1
    return Scaling(None, slope, offset, shape, text + (" (first pixel)" if several else ""))


def _constant(value: Plain, shape: tuple[int, ...]) -> Tensor:
    """A number, or (d,)."""
    try:
        t = torch.as_tensor(np.asarray(value, dtype=np.float64))
        return t if t.ndim == 0 else torch.broadcast_to(t, shape).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadArgument(
            f"scaling: a constant of {type(value).__name__} does not fit images of shape {shape}. Accepted: a number, or an "
            "array that broadcasts to that shape."
        ) from error


def _affine(scaling: Scaling, levels: int, d: int, cells: bool) -> tuple[Tensor | None, Tensor | None]:
    """a and b, (d,) each, of a function that is a y + b with a ≠ 0 wherever it is used; else None."""
    x = scaling.grid(levels, d, cells=cells)
    steps = 2 if cells else 1
    a, b = (x[steps * (levels - 1)] - x[0]) / (levels - 1), x[0]
    straight = b + a * (torch.arange(steps * levels, dtype=x.dtype) / steps)[:, None]
    if not bool(torch.isfinite(x).all()) or not bool((a.abs() > 0).all()):
        return None, None
    # a ten-thousandth of a level: what float32 rounds is a tenth of that
    return (a, b) if torch.allclose(x, straight, rtol=0, atol=1e-4 * float(a.abs().min())) else (None, None)


def _refuse_mixed(scaling: Scaling, example: Tensor) -> None:
    """A function whose pixels depend on each other has another log-determinant than Σ log |f'|."""
    y = example[:4] + 0.25  # away from the kinks at whole numbers
    direction = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    _, slope = scaling._differentiated(y)
    _, moved = torch.autograd.functional.jvp(scaling._applied, y, direction)
    if not torch.allclose(moved, slope * direction, rtol=1e-5, atol=1e-8 + 1e-5 * float(slope.abs().max())):
        raise BadArgument(
            "scaling: the function mixes pixels (a pixel's value depends on others, as in a standardisation of "
            "each image). Accepted: a function of each pixel alone."
        )


# ---- what is wrong with images, or with their scaling ------------------------------------------------------


def levelled(images: Data, levels: int | None) -> tuple[Images | None, list[Fault]]:
    """The images as whole numbers, and what was wrong with them; None where they cannot be."""
    if isinstance(images, Images):
        if levels not in (None, images.levels):
            raise BadArgument(f"levels={levels}, and the images have levels={images.levels}.")
        return images, []
    L = 256 if levels is None else levels
    if isinstance(images, (str, Path)):
        return Images(images, L), []
    array = _stacked(images)
    try:
        return Images(array, L), []
    except OutOfSupport as error:
        for name in NAMED if array.dtype.kind == "f" else ():
            slope, offset = NAMED[name](L)
            y = (array.astype(np.float64) - offset) / slope
            whole = np.round(y)
            if np.abs(y - whole).max() < 0.01 and whole.min() >= 0 and whole.max() <= L - 1:
                text = (
                    f"They were given as numbers in {name}, and not as whole numbers 0 … {L - 1}. The audit took "
                    "them back to whole numbers; code that scales them once more scores other images."
                )
                return Images(whole, L), [Fault("images already scaled", text)]
        return None, [Fault("images outside their levels", str(error))]


def unused(images: Images) -> list[Fault]:
    """Levels that no image can have had: all are multiples of a number above 1, or 0 and 1 alone."""
    used = images.whole.tensors["y"].unique().to(torch.int64)
    step = int(np.gcd.reduce(used.numpy())) or 1
    if images.levels == 2 or len(used) < 2 or (step == 1 and int(used.max()) > 1):
        return []
    of = f"the multiples of {step}" if step > 1 else "0 and 1"
    text = (
        f"The images use {len(used)} of {images.levels} levels, {of} alone. Their bits per dimension do not compare with "
        f"those of images of {images.levels} levels."
    )
    return [Fault("levels unused", text)]


def chosen(scaling: Plain, images: Images, *, network: bool, cells: bool) -> Scaling:
    if scaling is None and not network:
        raise BadArgument(
            f"scaling: a density of what? Accepted: {', '.join(map(repr, NAMED))}, (slope, offset), a function."
        )
    example = images.whole.tensors["y"].to(torch.float64)
    return scaling_of(
        "[-1, 1]" if scaling is None else scaling, images.levels, images.shape, example, cells=cells
    )


def not_invertible(scaling: Scaling, images: Images, *, cells: bool) -> Fault | None:
    """A function that gives two levels one value, or leaves their order."""
    if scaling.slope is not None:
        return None
    x = scaling.grid(images.levels, images.dimensions, cells=cells)
    rises, falls = x[1:] > x[:-1], x[1:] < x[:-1]
    wrong = ~(rises if int(rises.sum()) >= int(falls.sum()) else falls)
    if not bool(wrong.any()):
        return None
    at, pixel = torch.nonzero(wrong)[0].tolist()
    steps = 2 if cells else 1
    bad = wrong[:, pixel]
    flat = bool((x[1:, pixel] == x[:-1, pixel])[bad].all())
    inner = torch.nonzero(~bad).reshape(-1)
    ends = len(inner) > 0 and not bool(bad[inner[0] : inner[-1]].any())
    name = "clipped by the scaling" if flat and ends else "scaling not invertible"
    text = (
        f"The scaling gives {float(x[at, pixel]):g} at {at / steps:g} and {float(x[at + 1, pixel]):g} at {(at + 1) / steps:g} "
        f"(pixel {pixel}; {int(wrong.any(1).sum())} such steps of {len(x) - 1}). Images that the model cannot tell apart "
        "have no density of their own, and no log-determinant."
    )
    return Fault(name, text)
