"""UNet: a convolutional denoiser of small images, which sees them at several sizes and is told how much noise
there is.

    down: h_i → blocks → kept as k_i → halved        up: doubled, + k_i → blocks        block: h + K_2 ∗ a(n(K_1 ∗ a(n(h))) ∘ (1 + s) + b)

(s, b) = C e(λ) of each block, e(λ), with classes e(λ, c), as in `denoiser.py`; n is group norm, a is silu. The last map starts at 0.

References
----------
Ronneberger, Fischer and Brox (2015), U-Net; Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic
models, appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument
from ..kernels.activated import activated
from .denoiser import _Level, _linear
from .labels import check_classes
from .unet_slopes import diagonal, possible

GROUPS = 4


class UNet(nn.Module):
    """(z (n, d), λ (n,)) → (n, d), or (n, d, outputs) where there are several outputs a pixel. With classes,
    (z, λ, label (n,)) → the same.

    A learnt vector of each place is added to the first layer, since a digit's middle is not its margin. Rows and
    columns that cannot be halved so often are padded with zeros on the way in, and cut off on the way out.

    Parameters
    ----------
    shape
        of one image, (H, W) or (C, H, W), as `Images.shape` has it; d is its product
    outputs
        of each pixel: 1, or the levels, for `Diffusion(predict="levels")`
    channels
        of each size, each half of the one before; multiples of 4
    blocks
        at each size, on the way down and on the way up
    dropout
        within the blocks, while training
    seed
        of the weights; torch's global randomness is never touched
    classes
        C: the network is also given labels 0 … C, of which C means "no class"; None: it takes none

    Raises
    ------
    BadArgument
        sizes that are not positive; an image smaller than the number of halvings allows; labels are missing, or
        given to a network without classes

    Examples
    --------
    >>> net = UNet((8, 8), 17, channels=(8, 16))
    >>> tuple(net(torch.zeros(3, 64), torch.zeros(3)).shape), net.dimensions
    ((3, 64, 17), 64)
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int = 1,
        *,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        dropout: float = 0.0,
        seed: int = 0,
        classes: int | None = None,
    ):
        super().__init__()
        sizes = tuple(int(s) for s in shape)
        if len(sizes) not in (2, 3) or min(sizes, default=0) < 1:
            raise BadArgument(f"shape={tuple(shape)}. Accepted: (H, W) or (C, H, W), as Images.shape has it.")
        if (
            outputs < 1
            or blocks < 1
            or not channels
            or any(c < 1 or c % GROUPS for c in channels)
            or not 0 <= dropout < 1
        ):
            raise BadArgument(
                f"outputs={outputs}, channels={tuple(channels)}, blocks={blocks}, dropout={dropout}. "
                f"Accepted: 1 or more; multiples of {GROUPS}; "
                "dropout in [0, 1)."
            )
        halved = 2 ** (len(channels) - 1)
        if min(sizes[-2:]) < halved:
            raise BadArgument(
                f"an image of {sizes[-2]} × {sizes[-1]} is not halved {len(channels) - 1} times, for "
                f"channels={tuple(channels)}. Give fewer channels."
            )
        check_classes(classes)
        self.colours, self.rows, self.columns = (1, *sizes) if len(sizes) == 2 else sizes
        self.dimensions, self.outputs, self.classes = math.prod(sizes), outputs, classes
        g = torch.Generator().manual_seed(seed)
        width = 2 * channels[0]
        self.level = _Level(64, width, g, torch.float32, classes)
        self.into = _conv(self.colours, channels[0], 3, g)
        self.pad = (0, -self.columns % halved, 0, -self.rows % halved)
        padded = (self.rows + self.pad[3], self.columns + self.pad[1])
        self.place = nn.Parameter(torch.zeros(channels[0], *padded, dtype=torch.float32))
        *outer, inner = channels

        def stack(c: int, many: int) -> nn.ModuleList:
            return nn.ModuleList(_Block(c, width, dropout, g) for _ in range(many))

        self.down = nn.ModuleList(stack(c, blocks) for c in outer)
        self.shrink = nn.ModuleList(
            _conv(a, b, 2, g, stride=2) for a, b in zip(outer, channels[1:], strict=True)
        )
        self.middle = stack(inner, 2 * blocks)
        self.grow = nn.ModuleList(_conv(b, 4 * a, 1, g) for a, b in zip(outer, channels[1:], strict=True))
        self.up = nn.ModuleList(stack(c, blocks) for c in outer)
        self.out = _conv(channels[0], self.colours * outputs, 1, g, zero=True)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a tenth faster on processors

    def forward(self, z: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.dimensions:
            raise BadArgument(
                f"z has the shape {tuple(z.shape)}, and the network was made for images of {self.dimensions} "
                "pixels."
            )
        n, e = len(z), self.level(log_snr, label)
        image = F.pad(z.view(n, self.colours, self.rows, self.columns), self.pad)
        # + place gives the order of the first term: it is to be that of the kernels
        h = self.into(image.contiguous(memory_format=torch.channels_last)) + self.place
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            h = _through(blocks, h, e)
            kept.append(h)
            h = shrink(h)
        h = _through(self.middle, h, e)
        for blocks, grow in zip(self.up[::-1], self.grow[::-1], strict=True):
            h = _through(blocks, F.pixel_shuffle(grow(h), 2) + kept.pop(), e)
        out = self.out(activated(h, GROUPS))[..., : self.rows, : self.columns]
        if self.outputs == 1:
            found: Tensor = out.reshape(n, -1)
            return found
        found = out.unflatten(1, (self.colours, self.outputs)).movedim(2, -1).reshape(n, -1, self.outputs)
        return found

    def jacobian_diagonal(
        self, z: Tensor, log_snr: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """f(z, λ) and ∂f_j/∂z_j, (n, d) each, for the exact trace of a probability flow (`protocols.HasJacobianDiagonal`).
        None: of a network that was changed, in training, not in float64 on the CPU, or without the compiled layers."""
        kinds = (UNet, _Block, _Level, nn.Conv2d, nn.Linear, nn.Embedding, nn.ModuleList)
        return diagonal(self, z, log_snr, label, GROUPS) if possible(self, kinds) else None


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, dropout: float, g: torch.Generator):
        super().__init__()
        self.dropout = dropout
        self.one, self.two = _conv(channels, channels, 3, g), _conv(channels, channels, 3, g)
        self.film = _linear(width, 2 * channels, g, torch.float32, zero=True)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        a = activated(self.one(activated(h, GROUPS)), GROUPS, *self.film(e).chunk(2, 1))
        out: Tensor = h + self.two(F.dropout(a, self.dropout, self.training))
        return out


def _through(blocks: nn.Module, h: Tensor, e: Tensor) -> Tensor:
    for block in blocks:  # type: ignore[attr-defined]
        h = block(h, e)
    return h


def _conv(
    inputs: int, outputs: int, size: int, g: torch.Generator, *, stride: int = 1, zero: bool = False
) -> nn.Conv2d:
    """Uniform on ±1/√(inputs · size²), or zero; the image keeps its size, or is halved."""
    padding = size // 2 if stride == 1 else 0
    conv = torch.nn.utils.skip_init(
        nn.Conv2d, inputs, outputs, size, stride=stride, padding=padding, dtype=torch.float32
    )
    with torch.no_grad():
        for p in conv.parameters():
            bound = 1 / math.sqrt(inputs * size**2)
            p.zero_() if zero else p.uniform_(-bound, bound, generator=g)
    out: nn.Conv2d = conv
    return out
