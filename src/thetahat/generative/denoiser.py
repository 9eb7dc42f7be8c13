"""Denoisers: networks that see how much noise there is. They know no likelihood.

    h_0 = W z,      h_{j+1} = h_j + B_j a(A_j (n(h_j) ∘ (1 + s_j) + b_j)),      (s_j, b_j) = C_j e(λ),      f(z, λ) = D n(h_m)

e(λ) are sines and cosines of the log signal-to-noise ratio behind two affine maps; of C classes e(λ, c) has a
learnt vector of each besides, and one of "no class". D starts at 0.

References
----------
Perez et al. (2018), FiLM; Peebles and Xie (2023), Scalable diffusion models with transformers (adaptive norm,
outputs that begin at zero); Tancik et al. (2020), Fourier features.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument
from .labels import check_classes


class Denoiser(nn.Module):
    """(z (n, d), λ (n,)) → (n, outputs): a residual perceptron whose every block is told the noise. With
    classes, (z, λ, label (n,)) → (n, outputs).

    Parameters
    ----------
    dimensions
        d
    outputs
        None: d
    width
        of h
    blocks
        m
    dropout
        within the blocks, while training
    seed
        of the weights; torch's global randomness is never touched
    classes
        C: the network is also given labels 0 … C, of which C means "no class"; None: it takes none

    Raises
    ------
    BadArgument
        a size below 1; labels are missing, or given to a network without classes

    References
    ----------
    Dhariwal and Nichol (2021), Diffusion models beat GANs on image synthesis, §3.1 (the vector of a class is
    added to that of the noise level).

    Examples
    --------
    >>> tuple(Denoiser(4, width=16, blocks=1)(torch.zeros(3, 4), torch.zeros(3)).shape)
    (3, 4)
    """

    def __init__(
        self,
        dimensions: int,
        outputs: int | None = None,
        *,
        width: int = 256,
        blocks: int = 3,
        dropout: float = 0.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        classes: int | None = None,
    ):
        super().__init__()
        outputs = dimensions if outputs is None else outputs
        if min(dimensions, outputs, width, blocks) < 1 or not 0 <= dropout < 1:
            raise BadArgument(
                f"Denoiser({dimensions}, {outputs}, width={width}, blocks={blocks}, dropout={dropout}): 1 or "
                "more of each, dropout in [0, 1)."
            )
        check_classes(classes)
        self.dimensions, self.dropout, self.classes = dimensions, dropout, classes
        g = torch.Generator().manual_seed(seed)
        self.level = _Level(64, width, g, dtype, classes)
        self.into = _linear(dimensions, width, g, dtype)
        self.blocks = nn.ModuleList(_Block(width, dropout, g, dtype) for _ in range(blocks))
        self.out = _linear(width, outputs, g, dtype, zero=True)

    def forward(self, z: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        e = self.level(log_snr, label)
        h = self.into(z)
        for block in self.blocks:
            h = block(h, e)
        out: Tensor = self.out(_norm(h))
        return out


class _Level(nn.Module):
    """e(λ): sines and cosines of λ at frequencies from 1/16 to 4, then two affine maps; before the last
    activation the vector of the label is added, 0 … C − 1 a class, C none."""

    frequencies: Tensor

    def __init__(
        self, features: int, width: int, g: torch.Generator, dtype: torch.dtype, classes: int | None = None
    ):
        super().__init__()
        self.register_buffer(
            "frequencies", torch.logspace(-4, 2, features // 2, base=2.0, dtype=dtype), persistent=False
        )
        self.one, self.two = _linear(features, width, g, dtype), _linear(width, width, g, dtype)
        self.label = None if classes is None else _embedding(classes + 1, width, g, dtype)

    def forward(self, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        angle = log_snr[:, None] * self.frequencies
        e = self.two(F.silu(self.one(torch.cat([angle.sin(), angle.cos()], 1))))
        if (self.label is None) != (label is None):
            raise BadArgument(
                "the network was made without classes, and is given labels. Make it with classes=C."
                if self.label is None
                else "the network was made with classes, and is given no labels. Make the Diffusion with the same classes."
            )
        return F.silu(e if self.label is None else e + self.label(label))


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float, g: torch.Generator, dtype: torch.dtype):
        super().__init__()
        self.dropout = dropout
        self.film = _linear(width, 2 * width, g, dtype, zero=True)
        self.one, self.two = _linear(width, width, g, dtype), _linear(width, width, g, dtype)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        s, b = self.film(e).chunk(2, 1)
        a = F.silu(self.one(_norm(h) * (1 + s) + b))
        out: Tensor = h + self.two(F.dropout(a, self.dropout, self.training))
        return out


def _embedding(many: int, width: int, g: torch.Generator, dtype: torch.dtype) -> nn.Embedding:
    """So many standard normal vectors, as torch draws them."""
    found = torch.nn.utils.skip_init(nn.Embedding, many, width, dtype=dtype)
    with torch.no_grad():
        found.weight.normal_(generator=g)
    out: nn.Embedding = found
    return out


def _norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, (h.shape[-1],))


def _linear(
    inputs: int, outputs: int, g: torch.Generator, dtype: torch.dtype, zero: bool = False
) -> nn.Linear:
    """Uniform on ±1/√inputs, as in `mlp`; or zero."""
    linear = torch.nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype)
    with torch.no_grad():
        for p in linear.parameters():
            p.zero_() if zero else p.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=g)
    out: nn.Linear = linear
    return out
