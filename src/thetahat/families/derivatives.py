"""First derivatives of a sum, each leaf its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gradient(value: Tensor, leaves: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    """∂value/∂leaf for each leaf, zero where the value does not depend on it."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(
        value, leaves, create_graph=create_graph, retain_graph=True, allow_unused=True
    )
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]
