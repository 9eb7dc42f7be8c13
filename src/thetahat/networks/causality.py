"""Causality: whether what a network says at a position depends on what comes after it. Π p(x_t | x_<t) is a
probability only where it does not.

A row of inputs is run as it is, and again with every input from some position on exchanged: an output before
that position must stay as it was. A network hides what it reads behind weights that begin at 0 (a last layer,
the end of a residual branch, a low-rank adapter), so weights are drawn anew for the trial: all of them in a
copy of a small network, those that are 0 in a large one, which is not copied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..data.devices import widest
from ..data.source import evaluating

SMALL = 2**24  # numbers of a network that is copied for a trial
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
}  # of a change, relative to the largest output: rounding, in another order of sums
COARSE = 2e-2  # the same in half precision
PROBES = (4, 128)  # positions from which on inputs are exchanged: so many at least and at most
WORK = 2**33  # products of numbers of the network and inputs that a trial may take beyond the least


@torch.no_grad()
def first_peek(
    network: nn.Module,
    row: Tensor,
    other: Tensor,
    *given: Tensor,
    rows: int = 32,
    own: bool = False,
    method: str = "forward",
) -> tuple[int, int] | None:
    """The first output that changes with inputs that it must not depend on, and the last of those: (output,
    input); None: there is none.

    Parameters
    ----------
    network
        (inputs (B, T), *given) → outputs (B, T, …)
    row, other
        (1, T) inputs, and what they are exchanged for, different from them at every position
    given
        further tensors of one row, (1, T)
    rows
        that are run at once
    own
        whether output t must not depend on input t either (t + 1 on), as where it describes that input
    method
        of a small network that is asked in place of `forward`
    """
    T = row.shape[1]
    size = sum(p.numel() for p in network.parameters())
    small, many = size <= SMALL, min(max(WORK // (T * max(size, 1)), PROBES[0]), PROBES[1])
    at = torch.linspace(0 if own else 1, T - 1, min(T, many), device=row.device).round().long().unique()
    place = torch.arange(T, device=row.device)
    for read in _trials(network, method, small):
        found = []
        for some in at.split(max(rows - 1, 1)):
            inputs = torch.cat([row, torch.where(place >= some[:, None], other, row)])
            out = read(inputs, *(g.expand(len(inputs), *g.shape[1:]) for g in given))
            if not isinstance(out, Tensor) or tuple(out.shape[:2]) != tuple(inputs.shape):
                return None  # no output a position: the model that asks has its own words for it
            found.append(_moved(out.reshape(*inputs.shape, -1)))
        if all(finite for _, finite in found):
            return _first(torch.cat([moved for moved, _ in found]) & (place < at[:, None] + own), at)
    return None


def _moved(out: Tensor) -> tuple[Tensor, bool]:
    """Which outputs of the later rows are not those of the first, (m, T), and whether all are finite."""
    change = (out[1:] - out[:1]).abs().amax(-1)
    change = change.to(widest(change.device))
    return change > TOLERANCE.get(out.dtype, COARSE) * float(out.abs().amax()), bool(
        torch.isfinite(out).all()
    )


def _first(peeks: Tensor, at: Tensor) -> tuple[int, int] | None:
    if not bool(peeks.any()):
        return None
    reader = int(torch.nonzero(peeks.any(0))[0, 0])
    return reader, int(at[torch.nonzero(peeks[:, reader])[-1, 0]])


def _trials(network: nn.Module, method: str, small: bool) -> Iterator[Callable[..., Any]]:
    """The network with weights of a trial, in evaluation mode; then, where that has no finite outputs, as it
    stands."""
    if small:
        yield getattr(redrawn(network), method)
    else:
        weights = _zeros_redrawn(network)

        def drawn(*inputs: Tensor) -> Any:
            with evaluating(network):
                return torch.func.functional_call(network, weights, inputs)

        yield drawn

    def standing(*inputs: Tensor) -> Any:
        with evaluating(network):
            return getattr(network, method)(*inputs)

    yield standing


def redrawn(network: nn.Module) -> nn.Module:
    """A copy of the network, in evaluation mode, each weight moved by a random amount of the size that
    weights have."""
    out = copy.deepcopy(network).eval()
    generator = torch.Generator().manual_seed(0)
    for p in out.parameters():
        if p.is_floating_point():
            p.add_(_like(p, generator))
    return out


def _zeros_redrawn(network: nn.Module) -> dict[str, Tensor]:
    """Weights for those that are 0 throughout."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: _like(p, generator)
        for name, p in network.named_parameters()
        if p.is_floating_point() and not bool(p.any())
    }


def _like(p: Tensor, generator: torch.Generator) -> Tensor:
    spread = p.shape[-1] ** -0.5 if p.ndim > 1 else 0.3
    return (torch.randn(p.shape, generator=generator, device="cpu", dtype=torch.float32) * spread).to(p)
