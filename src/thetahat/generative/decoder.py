"""LogisticDecoder: from a few numbers to an image, by convolutions; two numbers a pixel, however many
levels it has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument
from .denoiser import _linear
from .unet import GROUPS, _conv

# of a log scale: a tenth of a level of 256, from where on a pixel that is missed by one level costs ever more
# and gains nothing
LEAST = -7.0


class LogisticDecoder(nn.Module):
    """z (n, latent) → (n, d·k): the k parameters of (a mixture of) discretised logistics of each of d pixels,
    one pixel after the other.

        h_0 = W z on a grid,      h_j = a(norm(K_j ∗ up(h_{j−1}))),      η = A ∗ h_m + c,      up: each cell as 2 × 2 cells

    Each stage doubles rows and columns; what reaches beyond the image is cut. c is learnt, a number of its
    own for each pixel. A log scale is kept above −7. The size grows with the pixels and not with the levels.

    Parameters
    ----------
    shape
        of one image, (H, W) or (C, H, W), as `Images.shape` has it
    latent
        numbers of z
    components
        of the mixture, k = 3 · components − 1: location_0, scale_0, location_1, …, logit_1, …, as `MixtureOf`
        has them
    channels
        of each grid, the smallest first; multiples of 4
    seed
        of the weights; torch's global randomness is never touched

    Raises
    ------
    BadArgument

    References
    ----------
    Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++ (the mixture, and the bound of its scales); Odena,
    Dumoulin and Olah (2016), Deconvolution and checkerboard artifacts (doubling, then a convolution).

    Examples
    --------
    >>> net = LogisticDecoder((3, 32, 32), 32)
    >>> tuple(net(torch.zeros(5, 32)).shape), sum(p.numel() for p in net.parameters())
    ((5, 6144), ...)
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        components: int = 1,
        channels: Sequence[int] = (64, 64, 32),
        *,
        seed: int = 0,
    ):
        super().__init__()
        sizes = tuple(int(s) for s in shape)
        if len(sizes) not in (2, 3) or min(sizes) < 1:
            raise BadArgument(f"shape={tuple(shape)}. Accepted: (H, W) or (C, H, W), as Images.shape has it.")
        if min(latent, components) < 1 or not channels or any(c < 1 or c % GROUPS for c in channels):
            raise BadArgument(
                f"latent={latent}, components={components}, channels={tuple(channels)}. Accepted: 1 or more; "
                f"multiples of {GROUPS}."
            )
        self.colours, self.rows, self.columns = (1, *sizes) if len(sizes) == 2 else sizes
        self.components, self.outputs = components, 3 * components - 1
        halved = 2 ** (len(channels) - 1)
        self.grid = (channels[0], -(-self.rows // halved), -(-self.columns // halved))
        g = torch.Generator().manual_seed(seed)
        self.into = _linear(latent, math.prod(self.grid), g, torch.float32)
        self.stages = nn.ModuleList(_conv(a, b, 3, g) for a, b in itertools.pairwise(channels))
        self.out = _conv(channels[-1], self.colours * self.outputs, 3, g)
        self.place = nn.Parameter(self._begin())

    def _begin(self) -> Tensor:
        """Locations spread over −1 … 1, scales that overlap, equal weights: every level is possible before
        the first step."""
        k = self.components
        centre = (2 * torch.arange(k, dtype=torch.float32) + 1) / k - 1
        own = torch.stack([centre, torch.full((k,), -math.log(2 * k), dtype=torch.float32)], -1).reshape(-1)
        own = torch.cat([own, torch.zeros(k - 1, dtype=torch.float32)])
        return (
            own[:, None, None]
            .repeat(self.colours, 1, 1, 1)
            .expand(-1, -1, self.rows, self.columns)
            .contiguous()
        )

    def forward(self, z: Tensor) -> Tensor:
        h = self.into(z).view(-1, *self.grid)
        for stage in self.stages:
            h = stage(F.interpolate(F.silu(F.group_norm(h, GROUPS)), scale_factor=2, mode="nearest"))
        out = self.out(F.silu(F.group_norm(h, GROUPS)))[:, :, : self.rows, : self.columns]
        out = out.view(len(z), self.colours, self.outputs, self.rows, self.columns) + self.place
        out = out.movedim(2, -1).reshape(len(z), -1, self.outputs)
        scale = torch.zeros(self.outputs, dtype=torch.bool, device=z.device)
        scale[1 : 2 * self.components : 2] = True
        return torch.where(scale, LEAST + F.softplus(out - LEAST), out).reshape(len(z), -1)
