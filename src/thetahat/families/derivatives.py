"""Derivatives of a family's log p in its linear predictors: those of a sum, each leaf its own, and the third ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

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

    Raises
    ------
    TwiceOnly
        log p holds a part that cannot be differentiated three times
    """
    with torch.enable_grad():
        own = [e.detach().clone().requires_grad_() for e in leaves]
        with thrice():
            value = log_prob(*own).sum()
        score = gradient(value, own, create_graph=True)
        total = own[0].new_zeros(())
        for a in {a for a, _ in v}:
            second = gradient(score[a].sum(), own[a:], create_graph=True)
            for b, part in enumerate(second, a):
                if (a, b) in v:
                    total = total + ((1 if a == b else 2) * v[a, b] * part).sum()
        return [t.detach() for t in gradient(total, own, create_graph=False)]


class TwiceOnly(Exception):
    """log p holds a part whose first and second derivatives are given, and whose third cannot be traced."""


_thrice = ContextVar("_thrice", default=False)


@contextmanager
def thrice() -> Iterator[None]:
    """Where third derivatives will be asked of what is computed here.

    Raises
    ------
    TwiceOnly
        by a part that has none
    """
    token = _thrice.set(True)
    try:
        yield
    finally:
        _thrice.reset(token)


def tracing_thirds() -> bool:
    """Whether third derivatives will be asked (`thrice`): what can be differentiated twice only says so by `TwiceOnly`."""
    return _thrice.get()


def differenced_third(
    curvature: Callable[[Sequence[Tensor]], Mapping[tuple[int, int], Tensor]],
    eta: Sequence[Tensor],
    v: Mapping[tuple[int, int], Tensor],
) -> list[Tensor]:
    """The same from central differences, of fourth order, of second derivatives that are exact: to about 10 digits."""

    def total(c: int, step: Tensor) -> Tensor:
        found = curvature([e + step if j == c else e for j, e in enumerate(eta)])
        return sum(
            ((1 if a == b else 2) * part * found[a, b] for (a, b), part in v.items()), torch.zeros_like(step)
        )

    out = []
    for c, e in enumerate(eta):
        h = 1e-3 * (1 + e.abs())
        near, far = (total(c, k * h) - total(c, -k * h) for k in (1, 2))
        out.append((8 * near - far) / (12 * h))
    return out


def differenced(value: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """∂value/∂θ by central differences of fourth order, of a value that is exact: to about 10 digits."""
    out = torch.zeros_like(theta)
    for j in range(len(theta)):
        step = torch.zeros_like(theta)
        step[j] = 1e-3 * (1 + float(theta[j].abs()))
        near, far = (float(value(theta + k * step) - value(theta - k * step)) for k in (1, 2))
        out[j] = (8 * near - far) / (12 * float(step[j]))
    return out


def one_value(e: Tensor) -> Tensor:
    """(1,) where every row holds the same value and the memory says so (an expanded constant); else e itself."""
    return e[:1] if e.ndim == 1 and e.numel() and e.stride(0) == 0 else e
