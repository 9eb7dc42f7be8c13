"""A compact convolutional network for small images: what a classifier of digits needs, and little more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import BadArgument
from .images import check_shape


class ConvNet(nn.Module):
    """Images → outputs: convolution, maximum of each 2 × 2 square, batch norm, ReLU, again and again; then an
    affine map.

        h_0 = x / (levels − 1),      h_j = relu(norm(pool(K_j ∗ h_{j−1}))),      f(x) = W h_m + b

    Each stage halves rows and columns. Kernels are 3 × 3 and drawn, as W and b are, from the uniform
    distribution on ±1/√d, d the inputs of one output. While training, batch norm takes mean and variance from
    the batch, so that log p of a row depends on its neighbours; in evaluation mode, in which every score is
    taken, it holds their averages over the steps, and log p is that of the row alone.

    x is (n, C·H·W), flat, or (n, *shape), or (n, C, H, W): channels, where there are any, come first.

    Parameters
    ----------
    shape
        of one image, (H, W) or (C, H, W), as `Images.shape` has it
    outputs
        columns of f(x), (n, outputs)
    channels
        of each stage
    levels
        whole numbers are divided by levels − 1; floating numbers are taken as they are
    seed
        of the weights, where no generator is given
    generator
        the randomness, in place of a seed; torch's global one is never touched

    Raises
    ------
    BadArgument
        an image too small for so many stages; a batch of another shape

    References
    ----------
    LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document recognition; Ioffe
    and Szegedy (2015), Batch normalization.

    Examples
    --------
    >>> net = ConvNet((28, 28), 10)
    >>> tuple(net(torch.zeros(5, 784, dtype=torch.uint8)).shape), sum(p.numel() for p in net.parameters())
    ((5, 10), 29178)
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (16, 32, 64),
        *,
        levels: int = 256,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        sizes = tuple(int(s) for s in shape)
        if len(sizes) not in (2, 3) or min(sizes) < 1:
            raise BadArgument(f"shape={tuple(shape)}. Accepted: (H, W) or (C, H, W), as Images.shape has it.")
        if not channels or min(*channels, outputs) < 1 or levels < 2:
            raise BadArgument(
                f"channels={tuple(channels)}, outputs={outputs}, levels={levels}. Accepted: 1 or more; "
                "levels 2 or more."
            )
        self.shape = sizes if len(sizes) == 3 else (1, *sizes)
        self.levels = levels
        rows, columns = (s // 2 ** len(channels) for s in self.shape[1:])
        if min(rows, columns) < 1:
            raise BadArgument(
                f"{len(channels)} stages halve an image of {self.shape[1]} × {self.shape[2]} pixels to "
                "nothing. "
                f"Accepted: at most {int(math.log2(min(self.shape[1:])))}."
            )
        generator = torch.Generator().manual_seed(seed) if generator is None else generator
        widths = [self.shape[0], *channels]
        self.stages = nn.Sequential(*(_stage(a, b, generator) for a, b in itertools.pairwise(widths)))
        self.head = torch.nn.utils.skip_init(
            nn.Linear, widths[-1] * rows * columns, outputs, dtype=torch.float32
        )
        _draw(self.head, self.head.in_features, generator)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on processors

    def forward(self, x: Tensor) -> Tensor:
        check_shape(x, self.shape, "the network reads")
        x = x.reshape(-1, *self.shape)
        if not x.is_floating_point():
            x = x.to(self.head.weight.dtype) / (self.levels - 1)
        h = self.stages(x.contiguous(memory_format=torch.channels_last))
        out: Tensor = self.head(h.flatten(1))
        return out


def _stage(inputs: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """The maximum before the norm, which then has a quarter of the work."""
    kernel = torch.nn.utils.skip_init(
        nn.Conv2d, inputs, outputs, 3, padding=1, bias=False, dtype=torch.float32
    )
    _draw(kernel, 9 * inputs, generator)
    return nn.Sequential(kernel, nn.MaxPool2d(2), nn.BatchNorm2d(outputs, dtype=torch.float32), nn.ReLU())


def _draw(layer: nn.Module, d: int, generator: torch.Generator) -> None:
    with torch.no_grad():
        for p in layer.parameters():
            p.uniform_(-1 / math.sqrt(d), 1 / math.sqrt(d), generator=generator)
