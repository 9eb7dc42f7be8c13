"""Standardise: the first layer of a network of a table, whose columns have scales of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import BadArgument, NotFinite
from ..types import Data


class Standardise(nn.Module):
    """(x − mean) / scale, column by column. Both are held, not fitted: they are not part of θ, but travel
    with the network.

    Parameters
    ----------
    mean, scale
        one number a column, (d,); scale > 0

    Raises
    ------
    NotFinite
    BadArgument
        lengths that differ, or a scale that is not positive

    Examples
    --------
    >>> layer = Standardise.of(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> layer(torch.tensor([[2.0, 6.0]]))
    tensor([[0., 1.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Data, scale: Data):
        super().__init__()
        mean, scale = torch.as_tensor(mean), torch.as_tensor(scale)
        if mean.ndim != 1 or mean.shape != scale.shape:
            raise BadArgument(
                f"mean has the shape {tuple(mean.shape)}, scale {tuple(scale.shape)}: both are (d,), a "
                "number a column."
            )
        if not bool(torch.isfinite(mean).all() and torch.isfinite(scale).all()):
            raise NotFinite(
                "the mean or the scale of a column is not finite: the data have missing or infinite values."
            )
        if not bool((scale > 0).all()):
            raise BadArgument(f"scale={scale.tolist()}: each is positive.")
        dtype = mean.dtype if mean.is_floating_point() else torch.get_default_dtype()
        self.register_buffer("mean", mean.to(dtype))
        self.register_buffer("scale", scale.to(dtype))

    @classmethod
    def of(cls, x: Data, dtype: torch.dtype = torch.float32) -> Standardise:
        """Of the mean and standard deviation of each column of x, (n, d), the rows that are fitted; a
        constant column keeps its scale.

        Parameters
        ----------
        dtype
            that of the network's weights
        """
        columns = torch.as_tensor(x, dtype=torch.float64)
        if columns.ndim != 2 or len(columns) == 0:
            raise BadArgument(f"x has the shape {tuple(columns.shape)}. Accepted: (n, d), with n ≥ 1.")
        spread = columns.std(0, correction=0)
        return cls(columns.mean(0).to(dtype), torch.where(spread == 0, 1.0, spread).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
