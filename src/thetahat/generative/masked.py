"""MaskedMLP: a network whose j-th output sees the inputs before j alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument
from ..networks.mlp import ACTIVATIONS


class MaskedLinear(nn.Module):
    """W x with W zero where the mask is: θ holds the other entries alone, so that none of it is without
    effect.

    Parameters
    ----------
    mask
        (rows, columns), True where an entry is free
    """

    index: Tensor

    def __init__(self, mask: Tensor, dtype: torch.dtype):
        super().__init__()
        self.shape = tuple(mask.shape)
        self.register_buffer("index", torch.nonzero(mask.reshape(-1))[:, 0], persistent=False)
        self.weight = nn.Parameter(torch.zeros(len(self.index), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        W = self.weight.new_zeros(self.shape[0] * self.shape[1]).index_copy(0, self.index, self.weight)
        return F.linear(x, W.view(self.shape))


class MaskedMLP(nn.Module):
    """y (n, d) → η (n, d, k): η_j depends on y_0 … y_{j−1} alone.

        h_1 = a(W_1 x + b_1),      h_i = a(W_i h_{i−1} + b_i),      η = V h_m + A x + c

    Every hidden unit has a degree in 1 … d − 1, assigned in turn: it sees inputs of a place below its degree,
    and outputs of a place from its degree on see it. So W, V and A are masked.

    Parameters
    ----------
    pixels
        d
    outputs
        k, of each pixel
    hidden
        the width of the hidden layer, or of each of several; () is a linear map of what came before (a
        regression a pixel); None reads nothing: η is a constant of each pixel (independent pixels)
    levels
        y is one of 0 … levels − 1 and is read as x = 2 y/(levels − 1) − 1; None: x = y
    activation
        "gelu", "relu", "silu" or "tanh"
    seed
        of the weights, where no generator is given
    dtype
        of the weights: float32 for stochastic ascent, float64 for Newton's method

    References
    ----------
    Germain, Gregor, Murray and Larochelle (2015), MADE: masked autoencoder for distribution estimation;
    without hidden layers Frey, Hinton and Dayan (1996), Does the wake-sleep algorithm produce good density
    estimators? (the logistic autoregressive network).

    Examples
    --------
    >>> net = MaskedMLP(3, 1, hidden=())
    >>> tuple(net(torch.zeros(5, 3)).shape), sum(p.numel() for p in net.parameters())  # 3 constants, and 0 + 1 + 2 slopes
    ((5, 3, 1), 6)
    """

    def __init__(
        self,
        pixels: int,
        outputs: int,
        hidden: int | Sequence[int] | None = (),
        *,
        levels: int | None = None,
        activation: str = "gelu",
        seed: int = 0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise BadArgument(f"activation={activation!r}. Accepted: {', '.join(map(repr, ACTIVATIONS))}.")
        widths = [] if hidden is None else [hidden] if isinstance(hidden, int) else list(hidden)
        if min([pixels, outputs, *widths]) < 1 or (levels is not None and levels < 2):
            raise BadArgument(
                f"pixels={pixels}, outputs={outputs}, hidden={hidden}, levels={levels}. Accepted: 1 or more; "
                "levels 2."
            )
        self.pixels, self.outputs, self.levels = pixels, outputs, levels
        self.activation = ACTIVATIONS[activation]()
        place = torch.arange(pixels)
        self.linear = (
            None
            if hidden is None
            else MaskedLinear((place[:, None] > place).repeat_interleave(outputs, 0), dtype)
        )
        degree, layers = place + 1, []  # an input of place i is seen from degree i + 1 on
        for width in widths:
            own = torch.arange(width) % max(pixels - 1, 1) + 1
            layers.append(MaskedLinear(own[:, None] >= degree, dtype))
            degree = own
        self.layers = nn.ModuleList(layers)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width, dtype=dtype)) for width in widths)
        last = ((place[:, None] + 1) > degree).repeat_interleave(outputs, 0)
        self.last = MaskedLinear(last, dtype) if widths else None
        self.bias = nn.Parameter(torch.zeros(pixels, outputs, dtype=dtype))
        self._draw(torch.Generator().manual_seed(seed) if generator is None else generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        """Uniform on ±1/√columns; of the constants on ±1/√d, so that networks of two seeds differ where
        nothing is read."""
        for module in self.modules():
            if isinstance(module, MaskedLinear):
                bound = 1 / math.sqrt(module.shape[1])
                module.weight.uniform_(-bound, bound, generator=generator)
        for p in [*self.biases, self.bias]:
            bound = 1 / math.sqrt(self.pixels)
            p.uniform_(-bound, bound, generator=generator)

    def forward(self, y: Tensor) -> Tensor:
        eta = self.bias.expand(len(y), self.pixels, self.outputs)
        if self.linear is None:
            return eta
        x = y.to(self.bias.dtype)
        if self.levels is not None:
            x = x * (2 / (self.levels - 1)) - 1
        eta = eta + self.linear(x).view(eta.shape)
        if self.last is None:
            out: Tensor = eta
            return out
        h = x
        for layer, bias in zip(self.layers, self.biases, strict=True):
            h = self.activation(layer(h) + bias)
        out = eta + self.last(h).view(eta.shape)
        return out
