"""PixelCNN: an image read by convolutions that see the rows above a pixel, and what lies left of it in its own row.

    h_0 = A ∗ y + P,      h_{j+1} = h_j + V_j a(B_j ∗ a(U_j h_j)),      η = W a(h_m) + b

A and B_j are 0 where a pixel would see itself (A) or what comes after it; B_j are dilated by 1, 2, 4, 1, …. P and b are learnt,
a vector of each place. U_j and V_j are of single pixels, a(h) = max(h, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument
from .unet import _conv


class PixelCNN(nn.Module):
    """y (n, d) → (n, d, outputs): those of pixel j depend on y_0 … y_{j−1} alone.

    Parameters
    ----------
    shape
        of the image, (H, W); d is its product
    outputs
        parameters of a pixel's family
    levels
        L: whole numbers y are divided by L − 1
    width
        channels of h; within a block there are half as many
    blocks
        m
    seed
        of the weights; torch's global randomness is never touched

    Raises
    ------
    BadArgument

    References
    ----------
    van den Oord, Kalchbrenner and Kavukcuoglu (2016), Pixel recurrent neural networks, §3.4 (masked
    convolutions); Yu and Koltun (2016), Multi-scale context aggregation by dilated convolutions.

    Examples
    --------
    >>> net = PixelCNN((5, 4), 1, levels=2, width=8, blocks=2)
    >>> tuple(net(torch.zeros(3, 20)).shape)
    (3, 20, 1)
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int = 1,
        *,
        levels: int = 2,
        width: int = 64,
        blocks: int = 6,
        seed: int = 0,
    ):
        super().__init__()
        sizes = tuple(int(n) for n in shape)
        if len(sizes) == 3 and sizes[0] == 1:
            sizes = sizes[1:]
        if len(sizes) != 2 or min(sizes) < 1:
            raise BadArgument(f"shape={tuple(shape)}. Accepted: (H, W), of images with one channel.")
        if min(outputs, blocks) < 1 or levels < 2 or width < 2 or width % 2:
            raise BadArgument(
                f"outputs={outputs}, levels={levels}, width={width}, blocks={blocks}. Accepted: 1 or more, 2 or "
                "more levels, an even width."
            )
        self.rows, self.columns, self.pixels = *sizes, math.prod(sizes)
        self.outputs, self.levels = outputs, levels
        g = torch.Generator().manual_seed(seed)
        self.into = _Causal(1, width, 7, 1, g, own=False)
        self.place = nn.Parameter(torch.zeros(width, *sizes, dtype=torch.float32))
        self.blocks = nn.ModuleList(_Block(width, 2 ** (j % 3), g) for j in range(blocks))
        self.out = _conv(width, outputs, 1, g, zero=True)
        self.bias = nn.Parameter(torch.zeros(outputs, *sizes, dtype=torch.float32))

    def forward(self, y: Tensor) -> Tensor:
        x = y.view(-1, 1, self.rows, self.columns) / (self.levels - 1)
        h = (self.into(x) + self.place).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.out(F.relu(h)) + self.bias
        return out.flatten(2).mT


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int, g: torch.Generator):
        super().__init__()
        self.down = _conv(width, width // 2, 1, g)
        self.middle = _Causal(width // 2, width // 2, 3, dilation, g, own=True)
        self.up = _conv(width // 2, width, 1, g)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.up(F.relu(self.middle(F.relu(self.down(F.relu(h))))))
        return out


class _Causal(nn.Module):
    """A convolution of the rows above and of the own row up to a pixel, itself included (`own`) or not."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, size: int, dilation: int, g: torch.Generator, *, own: bool):
        super().__init__()
        half = size // 2
        bound = 1 / math.sqrt(inputs * size * (half + 1))
        weight = torch.empty(outputs, inputs, half + 1, size, dtype=torch.float32)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=g))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float32))
        mask = torch.ones(half + 1, size, dtype=torch.float32)
        mask[-1, half + own :] = 0
        self.register_buffer("mask", mask, persistent=False)
        self.dilation, self.pad = dilation, (half * dilation, half * dilation, half * dilation, 0)

    def forward(self, h: Tensor) -> Tensor:
        return F.conv2d(F.pad(h, self.pad), self.weight * self.mask, self.bias, dilation=self.dilation)
