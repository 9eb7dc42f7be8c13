"""Weights that stay numbers."""

import torch
from torch import Tensor

# a spread of less than so much of the values themselves is the rounding of equal ones, and nothing to be
# divided by
ROUNDING = 1e-9


def bounded(weight: Tensor) -> Tensor:
    """The weight, and where it is beyond the numbers of its type, their largest: 0 · ∞ and ∞ − ∞ are not
    numbers."""
    most = torch.finfo(weight.dtype).max
    return weight.clamp(-most, most)
