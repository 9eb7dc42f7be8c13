"""Derivatives of a family's log p in its linear predictors: those of a sum, each leaf its own, and the third ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def traced_third(
    log_prob: Callable[..., Tensor], leaves: Sequence[Tensor], v: Mapping[tuple[int, int], Tensor]
) -> list[Tensor]:
    """Σ_ab v_ab ∂³log p/∂η_a∂η_b∂η_c of each c, by automatic differentiation, a row at a time.

    Parameters
    ----------
    log_prob
        of the leaves, one value a row
    leaves
        η, (n,) each
    v
        {(a, b): (n,)}, a ≤ b: those with a < b stand for v_ba too
    """
    with torch.enable_grad():
        own = [e.detach().clone().requires_grad_() for e in leaves]
        score = gradient(log_prob(*own).sum(), own, create_graph=True)
        total = own[0].new_zeros(())
        for a in {a for a, _ in v}:
            second = gradient(score[a].sum(), own[a:], create_graph=True)
            for b, part in enumerate(second, a):
                if (a, b) in v:
                    total = total + ((1 if a == b else 2) * v[a, b] * part).sum()
        return [t.detach() for t in gradient(total, own, create_graph=False)]


def one_value(e: Tensor) -> Tensor:
    """(1,) where every row holds the same value and the memory says so (an expanded constant); else e itself."""
    return e[:1] if e.ndim == 1 and e.numel() and e.stride(0) == 0 else e
