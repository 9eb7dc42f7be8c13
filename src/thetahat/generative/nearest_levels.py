"""The mass of a level given a noisy real number, of many levels by the few that lie near it.

    log p(l | r) = −½ e^λ (r − x(l))²  −  log Σ_k exp(−½ e^λ (r − x(k))²),      x(l) = (2l − L + 1)/(L − 1)

The k-th level beside the nearest has at most e^{−s²k(k − 1)/2} of what the nearest one has, s = e^{λ/2} · 2/(L − 1). A
diffusion ends at s = 8, where three levels are the whole sum in float64: of 256 that saves nearly all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEGLIGIBLE = 40.0  # e⁻⁴⁰ of a sum is below the rounding of float64


def near(log_snr: float, levels: int) -> int | None:
    """How many levels on each side of the nearest one have a part in the sum that does not vanish in rounding; None: all
    of them, or so many that nothing is saved.

    Parameters
    ----------
    log_snr
        λ
    levels
        L

    Examples
    --------
    >>> near(2 * math.log(4 * 255), 256), near(6.0, 256), near(0.0, 256)
    (1, 57, None)
    """
    square = 4 * math.exp(log_snr) / (levels - 1) ** 2
    found = math.ceil((math.sqrt(1 + 8 * NEGLIGIBLE / square) - 1) / 2)  # s²k(k + 1)/2 = 40 of the next one
    return found if 2 * found + 1 < levels else None


def log_mass(y: Tensor, ratio: Tensor, log_snr: Tensor, values: Tensor, near: int) -> Tensor:
    """log p(y | r), of y's shape.

    Parameters
    ----------
    y
        levels, 0 … L − 1
    ratio
        r, of y's shape
    log_snr
        λ, ()
    values
        x(l), (L,)
    near
        as the function `near` has it
    """
    last = len(values) - 1
    middle = ((ratio + 1) * (last / 2)).round().long()
    level = middle.clamp(0, last) + torch.arange(-near, near + 1, device=y.device).view(-1, *[1] * y.ndim)

    def exponent(level: Tensor) -> Tensor:
        return -0.5 * torch.exp(log_snr) * (ratio - values[level.clamp(0, last)]) ** 2

    beside = torch.where((level >= 0) & (level <= last), exponent(level), -math.inf)
    top = beside.amax(
        0
    )  # subtracted from both: far from all levels each is large, and their difference is not
    total: Tensor = (exponent(y.long()) - top) - (beside - top).exp().sum(0).log()
    return total
