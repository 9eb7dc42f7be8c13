"""PixelTransformer: a transformer that reads an image pixel by pixel, each seeing those before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import BadArgument, OutOfSupport
from ..networks.transformer import Transformer


class PixelTransformer(nn.Module):
    """y (n, d) → logits (n, d, L): those of pixel j depend on y_0 … y_{j−1} alone.

        h⁰_0 = s,      h⁰_j = E[y_{j−1}],      η_j = W n(h_j) + b_j,      h = blocks(h⁰ + P)

    s stands before the first pixel. P is learnt: a vector of each place along each axis of the image, summed.

    Parameters
    ----------
    shape
        of the image, (H, W) or (C, H, W); d is its product
    levels
        L, values of a pixel
    layers, width, heads, hidden, activation, dropout
        as of `Transformer`
    seed
        of the weights

    References
    ----------
    Child, Gray, Radford and Sutskever (2019), Generating long sequences with sparse transformers (places of
    an image by their axes); Chen et al. (2020), Generative pretraining from pixels.

    Examples
    --------
    >>> net = PixelTransformer((2, 3), 4, layers=1, width=16, heads=2)
    >>> tuple(net(torch.zeros(5, 6)).shape)
    (5, 6, 4)
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        *,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        hidden: int | None = None,
        activation: str = "swiglu",
        dropout: float = 0.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if not shape or min(shape) < 1 or levels < 2:
            raise BadArgument(
                f"shape={tuple(shape)}, levels={levels}. Accepted: lengths of 1 or more, and 2 levels or "
                "more."
            )
        generator = torch.Generator().manual_seed(seed)
        self.shape, self.levels, self.pixels = tuple(shape), levels, math.prod(shape)
        self.body = Transformer(
            levels,
            layers=layers,
            width=width,
            heads=heads,
            hidden=hidden,
            activation=activation,
            dropout=dropout,
            generator=generator,
            dtype=dtype,
        )

        def drawn(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(size, generator=generator, dtype=dtype))

        self.start = drawn(width)
        self.places = nn.ParameterList(drawn(length, width) for length in self.shape)
        self.bias = nn.Parameter(torch.zeros(self.pixels, levels, dtype=dtype))

    def forward(self, y: Tensor) -> Tensor:
        tokens = y[:, :-1].long()
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= self.levels):
            at = torch.nonzero((tokens < 0) | (tokens >= self.levels))[0].tolist()
            raise OutOfSupport(
                f"the pixel at {at} is {float(y[tuple(at)]):g}, outside the levels 0 … {self.levels - 1} of "
                "the network."
            )
        before = self.body.model["embed_tokens"](tokens)
        h = torch.cat([self.start.expand(len(y), 1, -1), before], 1)
        place = torch.unravel_index(torch.arange(self.pixels, device=y.device), self.shape)
        for axis, own in zip(place, self.places, strict=True):
            h = h + own[axis]
        out: Tensor = self.body.lm_head(self.body.through(h)[0]) + self.bias
        return out
