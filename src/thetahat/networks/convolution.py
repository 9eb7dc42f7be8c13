"""A convolutional network of states that are images, as they come from an environment.

    h_0 = s / 255,      h_j = relu(conv_3×3(h_{j−1})), of half the size,      f(s) = W relu(V flatten(h_m))

References
----------
Mnih et al. (2015), Human-level control through deep reinforcement learning (its shape, with small strides for small images).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument

Layer = TypeVar("Layer", bound=nn.Module)


class Convolution(nn.Module):
    """s (…, H, W, C) or (…, C, H, W) → (…, outputs).

    Parameters
    ----------
    shape
        of a state; the smaller of its first and last number is that of the channels
    outputs
        numbers that come out
    channels
        of each convolution, which halves height and width
    width
        of the layer before the output
    scale
        what a pixel is divided by
    seed
        of the weights, which are uniform on ±1/√inputs

    Examples
    --------
    >>> Convolution((10, 10, 4), 6, channels=(8,), width=16)(torch.zeros(5, 7, 10, 10, 4)).shape
    torch.Size([5, 7, 6])
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (32, 64, 64),
        width: int = 512,
        *,
        scale: float = 255.0,
        seed: int = 0,
    ):
        super().__init__()
        sizes = tuple(int(n) for n in shape)
        if len(sizes) != 3 or min(sizes) < 1:
            raise BadArgument(
                f"shape={tuple(shape)}. Accepted: (H, W, C) or (C, H, W), as an environment shows it."
            )
        if not channels or min(*channels, outputs, width) < 1 or not scale > 0:
            raise BadArgument(
                f"channels={tuple(channels)}, outputs={outputs}, width={width}, scale={scale}. Accepted: positive ones."
            )
        self.shape, self.last, self.scale = sizes, sizes[-1] <= sizes[0], scale
        C, H, W = (sizes[2], *sizes[:2]) if self.last else sizes
        generator = torch.Generator().manual_seed(seed)
        layers = []
        for out in channels:
            if min(H, W) < 2:
                raise BadArgument(
                    f"an image of {sizes} is too small to be halved {len(channels)} times: give fewer channels."
                )
            layers.append(_drawn(nn.Conv2d(C, out, 3, stride=2, padding=1), 9 * C, generator))
            C, H, W = out, (H + 1) // 2, (W + 1) // 2
        self.layers = nn.ModuleList(layers)
        self.hidden = _drawn(nn.Linear(C * H * W, width), C * H * W, generator)
        self.output = _drawn(nn.Linear(width, outputs), width, generator)

    def forward(self, state: Tensor) -> Tensor:
        leading = state.shape[: state.ndim - 3]
        h = state.reshape(-1, *self.shape).to(self.output.weight.dtype) / self.scale
        if self.last:
            h = h.permute(0, 3, 1, 2)
        for layer in self.layers:
            h = F.relu(layer(h))
        out: Tensor = self.output(F.relu(self.hidden(h.flatten(1))))
        return out.reshape(*leading, -1)


@torch.no_grad()
def _drawn(layer: Layer, inputs: int, generator: torch.Generator) -> Layer:
    for p in layer.parameters():
        p.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
    return layer
