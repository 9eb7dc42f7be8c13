"""LoRA: what a fitted network learns further is a low-rank change of some of its matrices; the network itself
stays as it is.

    W x  →  W x + (α/k) B A x,      A (k, in), B (out, k) = 0 at the start

References
----------
Hu et al. (2022), LoRA: low-rank adaptation of large language models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument


class Adapted(nn.Module):
    """A linear map with a low-rank change."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.linear, self.scale, self.on = linear, alpha / rank, True
        # never bfloat16: the steps of a run would be lost in its three digits
        like: Any = {
            "dtype": torch.promote_types(linear.weight.dtype, torch.float32),
            "device": linear.weight.device,
        }
        spread = torch.randn(rank, linear.in_features, generator=generator, dtype=torch.float32) / math.sqrt(
            linear.in_features
        )
        self.A = nn.Parameter(spread.to(**like))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank, **like))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        if not self.on:
            return out
        change = F.linear(F.linear(x.to(self.A.dtype), self.A), self.B)
        return out + (self.scale * change).to(out.dtype)


def add_lora(
    network: nn.Module,
    rank: int = 8,
    alpha: float | None = None,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    seed: int = 0,
) -> nn.Module:
    """The network, changed in place: its linear maps of these names have adapters, and nothing else of it is
    free.

    Parameters
    ----------
    network
        any module; Transformer and transformers' models name their maps q_proj, k_proj, v_proj, o_proj,
        up_proj, down_proj
    rank
        k
    alpha
        α; None: 2k
    targets
        last parts of the names of the maps
    seed
        of A

    Returns
    -------
    nn.Module
        The network itself.

    Raises
    ------
    BadArgument
        no linear map has such a name; or one shares its matrix with another layer (an output tied to the
        embedding): a change of the one, once merged, would be a change of the other

    Examples
    --------
    >>> from ..networks.transformer import Transformer
    >>> net = add_lora(Transformer(10, layers=1, width=8, heads=1), rank=2)
    >>> sum(p.numel() for p in net.parameters() if p.requires_grad)
    64
    """
    if rank < 1:
        raise BadArgument(f"rank={rank}. Accepted: 1 or more.")
    found = [
        name
        for name, m in network.named_modules()
        if isinstance(m, nn.Linear) and name.rpartition(".")[2] in targets
    ]
    if not found:
        every = sorted(
            {name.rpartition(".")[2] for name, m in network.named_modules() if isinstance(m, nn.Linear)}
        )
        raise BadArgument(
            f"targets={tuple(targets)}: no linear map has such a name. There are: "
            f"{', '.join(every) or 'none'}."
        )
    for name in found:
        weight = network.get_submodule(name).weight
        others = [
            n
            for n, p in network.named_parameters(remove_duplicate=False)
            if p is weight and n != f"{name}.weight"
        ]
        if others:
            raise BadArgument(
                f"targets={tuple(targets)}: the matrix of {name!r} is also {others[0]!r} (they are tied), "
                "and a change of the one would change the "
                "other. Accepted: targets whose matrices are their own, or a network that is not tied."
            )
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in found:
        parent, _, last = name.rpartition(".")
        holder: Any = network.get_submodule(parent)
        setattr(
            holder,
            last,
            Adapted(getattr(holder, last), rank, 2.0 * rank if alpha is None else alpha, generator),
        )
    return network


def adapted_by(network: nn.Module) -> list[Adapted]:
    """The adapters of a network."""
    return [m for m in network.modules() if isinstance(m, Adapted)]


@contextmanager
def without(network: nn.Module) -> Iterator[None]:
    """The network as it was before it was adapted."""
    adapters = adapted_by(network)
    was = [m.on for m in adapters]
    for m in adapters:
        m.on = False
    try:
        yield
    finally:
        for m, on in zip(adapters, was, strict=True):
            m.on = on


@torch.no_grad()
def merge(network: nn.Module) -> nn.Module:
    """The network with its changes written into its matrices, and no adapters.

    Raises
    ------
    BadArgument
        a matrix with a change is another layer's too (it was tied after the adapters were made)
    """
    every = [id(p) for _, p in network.named_parameters(remove_duplicate=False)]
    for name, m in list(network.named_modules()):
        if isinstance(m, Adapted) and every.count(id(m.linear.weight)) > 1:
            raise BadArgument(
                f"the matrix of {name!r} is tied to another layer's, which the change would move too: untie "
                "it first."
            )
    for name, m in list(network.named_modules()):
        if isinstance(m, Adapted):
            m.linear.weight += (m.scale * m.B @ m.A).to(m.linear.weight.dtype)
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, m.linear)
    return network
