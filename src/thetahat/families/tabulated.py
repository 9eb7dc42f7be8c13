"""Functions of one number a row, read from a table: a series at a few nodes in the place of one at every row."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..kernels import compiled

NODES = 16  # of an interval
ROUND = 8  # distance of the nearest singularity, in half widths of an interval


def tabulated(
    functions: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, distance: float
) -> list[Tensor] | None:
    """The functions at x by Chebyshev interpolation, of degree 15, on intervals of a fixed grid.

    A function that is analytic within `distance` of the real line, and of size M there, is met to about 2M·ρ⁻¹⁶,
    ρ = 8 + √63: below rounding. None where the nodes would be no fewer than half of the rows: then the functions are called for the rows
    themselves.

    Parameters
    ----------
    functions
        of nodes (m,), each a value (m,)
    x
        (n,), float64
    distance
        from the real line to the nearest singularity of any of the functions

    References
    ----------
    Trefethen (2019), Approximation Theory and Approximation Practice, theorem 8.2.

    Examples
    --------
    >>> x = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    >>> (table,) = tabulated(lambda x: (torch.log(torch.cosh(x)),), x, math.pi / 2)
    >>> bool((table - torch.log(torch.cosh(x))).abs().max() < 1e-14)
    True
    """
    width = 2 * distance / ROUND
    if len(x) < 4 * NODES or not bool(torch.isfinite(x).all()):
        return None
    first, last = (float(torch.floor(end / width)) for end in torch.aminmax(x))
    if (last - first + 1) * NODES > len(x) / 2:
        return None
    intervals = torch.arange(first, last + 1, dtype=x.dtype, device=x.device)
    angle = (torch.arange(NODES, dtype=x.dtype, device=x.device) + 0.5) * (math.pi / NODES)
    nodes = (intervals[:, None] + 0.5 * (1 + torch.cos(angle))) * width
    values = torch.stack(functions(nodes.reshape(-1)), -1).reshape(len(intervals), NODES, -1)
    degree = torch.arange(NODES, dtype=x.dtype, device=x.device)
    transform = torch.cos(degree[:, None] * angle) * (2 / NODES)
    transform[0] /= 2
    coefficients = transform @ values  # (intervals, degrees, functions)
    if compiled.available() and x.device.type == "cpu":
        return list(compiled.table(x, width, first, coefficients))
    place = x / width
    own = torch.floor(place)
    t = 2 * (place - own) - 1
    c = coefficients[(own - first).long()].permute(1, 2, 0)  # (degrees, functions, n)
    one = two = torch.zeros_like(c[0])
    for k in range(NODES - 1, 0, -1):
        one, two = c[k] + 2 * t * one - two, one
    return list(c[0] + t * one - two)
