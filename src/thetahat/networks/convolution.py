"""A convolutional network of states that are images, as they come from an environment.

    h_0 = s / scale,      h_j = relu(conv(h_{j−1})),      f(s) = W relu(V flatten(h_m))

By default each convolution is 3 × 3 and halves the size. Other shapes that are much used:

    ATARI    84 × 84: 8 × 8 with stride 4, 4 × 4 with stride 2, 3 × 3 with stride 1; then 512 (Mnih et al. 2015)
    MINATAR  10 × 10: 16 channels of 3 × 3 with stride 1; then 128 (Young and Tian 2019)

References
----------
Mnih et al. (2015), Human-level control through deep reinforcement learning; Young and Tian (2019), MinAtar: an
Atari-inspired testbed for thorough and reproducible reinforcement learning experiments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument

Layer = TypeVar("Layer", bound=nn.Module)

ATARI: dict[str, Any] = {"channels": (32, 64, 64), "kernel": (8, 4, 3), "stride": (4, 2, 1), "padding": 0}
MINATAR: dict[str, Any] = {"channels": (16,), "kernel": 3, "stride": 1, "padding": 0}


class Convolution(nn.Module):
    """s (…, H, W, C) or (…, C, H, W) → (…, outputs).

    Parameters
    ----------
    shape
        of a state; the smaller of its first and last number is that of the channels. (K, H, W): K stacked frames are
        channels; (K, H, W, C) or (K, C, H, W): K stacked frames, K·C channels
    outputs
        numbers that come out
    channels
        of each convolution
    width
        of the layer before the output
    scale
        what a pixel is divided by: the largest that there is
    kernel, stride, padding
        of the convolutions, one number or one each
    seed
        of the weights, which are uniform on ±1/√inputs

    Examples
    --------
    >>> Convolution((10, 10, 4), 6, channels=(8,), width=16)(torch.zeros(5, 7, 10, 10, 4)).shape
    torch.Size([5, 7, 6])
    >>> Convolution((4, 84, 84), 6, **ATARI).hidden.in_features
    3136
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (32, 64, 64),
        width: int = 512,
        *,
        scale: float = 255.0,
        kernel: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 1,
        seed: int = 0,
    ):
        super().__init__()
        sizes = tuple(int(n) for n in shape)
        if len(sizes) not in (3, 4) or min(sizes) < 1:
            raise BadArgument(
                f"shape={tuple(shape)}. Accepted: (H, W, C) or (C, H, W), as an environment shows it, or with the number "
                "of stacked frames before it."
            )
        if not channels or min(*channels, outputs, width) < 1 or not scale > 0:
            raise BadArgument(
                f"channels={tuple(channels)}, outputs={outputs}, width={width}, scale={scale}. Accepted: positive ones."
            )
        image = sizes[-3:]
        self.shape, self.last, self.scale = sizes, image[-1] <= image[0], scale
        C, H, W = (image[2], *image[:2]) if self.last else image
        C *= sizes[0] if len(sizes) == 4 else 1
        generator = torch.Generator().manual_seed(seed)
        layers = []
        for out, k, s, p in _layers(channels, kernel=kernel, stride=stride, padding=padding):
            if min(H, W) < 2 or min(H, W) + 2 * p < k:
                raise BadArgument(
                    f"an image of {sizes} is too small for {len(channels)} convolutions with kernel={kernel}, "
                    f"stride={stride}: give fewer channels."
                )
            layers.append(_drawn(nn.Conv2d(C, out, k, stride=s, padding=p), k * k * C, generator))
            C, H, W = out, (H + 2 * p - k) // s + 1, (W + 2 * p - k) // s + 1
        self.layers = nn.ModuleList(layers)
        self.hidden = _drawn(nn.Linear(C * H * W, width), C * H * W, generator)
        self.output = _drawn(nn.Linear(width, outputs), width, generator)

    def forward(self, state: Tensor) -> Tensor:
        leading = state.shape[: state.ndim - len(self.shape)]
        h = state.reshape(-1, *self.shape).to(self.output.weight.dtype) / self.scale
        if self.last:
            h = h.movedim(-1, -3)
        if len(self.shape) == 4:
            h = h.flatten(1, 2)  # (n, K, C, H, W) → (n, K·C, H, W)
        for layer in self.layers:
            h = F.relu(layer(h))
        out: Tensor = self.output(F.relu(self.hidden(h.flatten(1))))
        return out.reshape(*leading, -1)


def _layers(channels: Sequence[int], **sizes: int | Sequence[int]) -> list[tuple[int, ...]]:
    """(channels, kernel, stride, padding) of each convolution."""
    columns = [list(channels)]
    for name, given in sizes.items():
        each = [given] * len(channels) if isinstance(given, int) else list(given)
        if len(each) != len(channels) or min(each) < (0 if name == "padding" else 1):
            raise BadArgument(
                f"{name}={given} for {len(channels)} convolutions. Accepted: a number of 1 or more (padding: 0), or one each."
            )
        columns.append(each)
    return list(zip(*columns, strict=True))


@torch.no_grad()
def _drawn(layer: Layer, inputs: int, generator: torch.Generator) -> Layer:
    for p in layer.parameters():
        p.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
    return layer
