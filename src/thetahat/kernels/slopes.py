"""What slopes take back through convolutions and group norms, compiled and in float64: see native/slopes.cpp.

    convolved    out[r, y, x, :] = Σ_{dy, dx, c} in[r, y + dy − e, x + dx − e, c] K[dy, dx, c, :],      e = 1 of 3 × 3, 0 of 1 × 1
    normalised_  s ← (g − mean g − n mean(g n)) / σ + past,      g = s f,      means over a group of channels of one image

torch has a convolution in float64 that makes a matrix of every image and multiplies it; here an image stays in the first cache.
Images are (rows, height, width, channels), channel beside channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled import called

SIDE = 16  # outputs of a block of a kernel (slopes.cpp has the same)


@dataclass(frozen=True)
class Kernel:
    """A kernel of 3 × 3 or 1 × 1 as the compiled function reads it, (blocks, 3, 3, channels, SIDE), zeros beyond its outputs."""

    laid: Tensor
    channels: int
    outputs: int
    size: int


def kernel(weight: Tensor) -> Kernel:
    """Of the weights (outputs, channels, 3, 3) of torch's convolution, or (outputs, channels, 1, 1)."""
    outputs, channels, size, _ = weight.shape
    assert tuple(weight.shape[2:]) in ((1, 1), (3, 3))
    assert weight.dtype == torch.float64
    blocks = -(-outputs // SIDE)
    padded = torch.nn.functional.pad(weight.permute(2, 3, 1, 0), (0, blocks * SIDE - outputs))
    return Kernel(padded.unflatten(-1, (blocks, SIDE)).movedim(-2, 0).contiguous(), channels, outputs, size)


def turned(weight: Tensor) -> Kernel:
    """That which takes slopes from its outputs back to its inputs."""
    return kernel(weight.flip(2, 3).transpose(0, 1))


def convolved(images: Tensor, k: Kernel) -> Tensor:
    """(rows, height, width, outputs) of images (rows, height, width, channels), float64; zeros around each."""
    rows, height, width, channels = images.shape
    assert channels == k.channels
    assert images.dtype == torch.float64
    images, out = images.contiguous(), images.new_empty(rows, height, width, k.outputs)
    where = (each.data_ptr() for each in (k.laid, images, out))
    called().thetahat_convolve(
        rows, height, width, channels, k.outputs, k.size, *where, torch.get_num_threads()
    )
    return out


def normalised_(
    slope: Tensor, factor: Tensor, n: Tensor, inverse: Tensor, past: Tensor | None = None
) -> Tensor:
    """The slope of what is normalised in groups of channels, of a slope (rows, height, width, channels) behind the norm
    and behind what multiplies it: in its place.

    Parameters
    ----------
    slope
        row r is of image r mod m
    factor, n
        f and what the norm gave, (m, height, width, channels)
    inverse
        1/σ, (m, groups)
    past
        of the shape of slope: what goes past the norm, and is added
    """
    rows, height, width, channels = slope.shape
    m, groups = inverse.shape
    every = (factor, n, inverse, past, slope)
    assert all(each is None or (each.is_contiguous() and each.dtype == torch.float64) for each in every)
    assert factor.shape == n.shape == (m, *slope.shape[1:])
    assert rows % m == channels % groups == 0
    assert past is None or past.shape == slope.shape
    where = (None if each is None else each.data_ptr() for each in every)
    called().thetahat_normalised(rows, m, height * width, channels, groups, *where, torch.get_num_threads())
    return slope
