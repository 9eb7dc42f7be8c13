"""The multilayer perceptron: plain torch, drawn from a generator that the caller can give."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from ..errors import BadArgument

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


def mlp(
    inputs: int,
    hidden: int | Sequence[int],
    outputs: int,
    activation: str = "gelu",
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Affine maps with an activation between them.

        h_0 = x,      h_j = a(W_j h_{j−1} + b_j),      f(x) = W_m h_{m−1} + b_m

    Every weight and bias of a layer with d inputs is drawn from the uniform distribution on ±1/√d.

    Parameters
    ----------
    inputs
        columns of x, (…, inputs)
    hidden
        the width of the hidden layer, or of each of several; () is a linear network
    outputs
        columns of f(x), (…, outputs)
    activation
        "gelu", "relu", "silu" or "tanh"
    seed
        of the weights, where no generator is given
    generator
        the randomness, in place of a seed; torch's global one is never touched
    dtype
        of the weights: float32 for stochastic ascent, float64 for Newton's method

    Returns
    -------
    nn.Sequential

    Raises
    ------
    BadArgument

    References
    ----------
    LeCun, Bottou, Orr and Müller (1998), Efficient BackProp, §4.6.

    Examples
    --------
    >>> [tuple(p.shape) for p in mlp(4, 16, 3).parameters()]
    [(16, 4), (16,), (3, 16), (3,)]
    """
    if activation not in ACTIVATIONS:
        raise BadArgument(f"activation={activation!r}. Accepted: {', '.join(map(repr, ACTIVATIONS))}.")
    widths = [inputs, *([hidden] if isinstance(hidden, int) else hidden), outputs]
    if any(w < 1 for w in widths):
        raise BadArgument(f"the widths of a network are 1 or more; received {widths}.")
    generator = torch.Generator().manual_seed(seed) if generator is None else generator
    layers: list[nn.Module] = []
    for columns, rows in itertools.pairwise(widths):
        linear = torch.nn.utils.skip_init(nn.Linear, columns, rows, dtype=dtype)
        with torch.no_grad():
            for p in linear.parameters():
                p.uniform_(-1 / math.sqrt(columns), 1 / math.sqrt(columns), generator=generator)
        layers += [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
