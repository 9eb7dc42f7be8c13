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
from ..protocols import HasFeatures, NamesOutput


class Adapted(nn.Module):
    """A linear map with a low-rank change."""

    def __init__(self, linear: Any, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        inputs, outputs = widths(linear)
        self.linear, self.scale, self.on = linear, alpha / rank, True
        # never bfloat16: the steps of a run would be lost in its three digits
        like: Any = {
            "dtype": torch.promote_types(linear.weight.dtype, torch.float32),
            "device": linear.weight.device,
        }
        spread = torch.randn(rank, inputs, generator=generator, dtype=torch.float32) / math.sqrt(inputs)
        self.A = nn.Parameter(spread.to(**like))
        self.B = nn.Parameter(torch.zeros(outputs, rank, **like))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        if not self.on:
            return out
        change = F.linear(F.linear(x.to(self.A.dtype), self.A), self.B)
        return out + (self.scale * change).to(out.dtype)


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is transformers' Conv1D of GPT-2, whose matrix lies the other way round."""
    return type(module).__name__ == "Conv1D" and isinstance(module.weight, nn.Parameter)


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_conv1d(module)


def widths(linear: Any) -> tuple[int, int]:
    """(inputs, outputs)."""
    a, b = linear.weight.shape
    return (a, b) if is_conv1d(linear) else (b, a)


def add_lora(
    network: nn.Module,
    rank: int = 8,
    alpha: float | None = None,
    targets: str | Sequence[str] = ("q_proj", "v_proj"),
    seed: int = 0,
) -> nn.Module:
    """The network, changed in place: its linear maps of these names have adapters, and nothing else of it is
    free.

    Parameters
    ----------
    network
        any module; Transformer and most of transformers' models name their maps q_proj, k_proj, v_proj, o_proj,
        up_proj, down_proj; GPT-2 has c_attn (queries, keys and values in one), c_proj, c_fc
    rank
        k
    alpha
        α; None: 2k
    targets
        names of the maps, whole or their last part; "all-linear": every one but the output
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
    linear = [name for name, m in network.named_modules() if is_linear(m)]
    if targets == "all-linear":
        output = _output(network)
        found = [name for name in linear if network.get_submodule(name) is not output]
    else:
        wanted = [targets] if isinstance(targets, str) else list(targets)
        found = [name for name in linear if name in wanted or name.rpartition(".")[2] in wanted]
    if not found:
        every = sorted({name.rpartition(".")[2] for name in linear})
        raise BadArgument(
            f"targets={targets!r}: no linear map has such a name. There are: {', '.join(every) or 'none'}."
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
                f"targets={targets!r}: the matrix of {name!r} is also {others[0]!r} (they are tied), "
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


def _output(network: nn.Module) -> nn.Module | None:
    """The map to the vocabulary."""
    for module in (network, *network.children()):
        found: Any = None
        if isinstance(module, NamesOutput):
            found = module.get_output_embeddings()
        elif isinstance(module, HasFeatures):
            found = module.lm_head
        if isinstance(found, nn.Module):
            return found
    return None


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
            change = m.scale * m.B @ m.A
            m.linear.weight += (change.T if is_conv1d(m.linear) else change).to(m.linear.weight.dtype)
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, m.linear)
    return network
