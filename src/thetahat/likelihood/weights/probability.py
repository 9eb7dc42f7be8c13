"""Probability weights: rows of a survey that were drawn with unequal probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.batch import Batch
from ...errors import BadArgument, BadWeights


@dataclass(frozen=True)
class Probability:
    """How many members of the population each row stands for: one over the probability with which it was
    drawn.

        maximise Σ_i w_i log p(y_i | θ),      V = J⁻¹ (Σ_i w_i² s_i s_iᵀ) J⁻¹

    The weighted sum estimates the log-likelihood of the whole population. A weight is not a count: a row of
    weight 1,000 is one observation, and J⁻¹, in which it would be a thousand, is no covariance. V does not
    depend on the weights' scale. Rows of one household or one district are clusters: covariance="cluster".

    Parameters
    ----------
    column
        that holds the weights, positive or zero

    Raises
    ------
    BadWeights
        a weight that is negative or not finite

    References
    ----------
    Binder (1983), On the variances of asymptotically normal estimators from complex surveys, International
    Statistical Review 51.

    Examples
    --------
    >>> Probability("w")(Batch({"y": torch.zeros(2), "w": torch.tensor([150.0, 20.0])}), torch.zeros(2))
    tensor([150.,  20.])
    """

    column: str

    def __post_init__(self) -> None:
        if not isinstance(self.column, str):
            raise BadArgument(
                f"Probability(column): received {type(self.column).__name__}. Accepted: the name of a column."
            )

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        return self.weights_of(batch)

    def weights_of(self, batch: Batch) -> Tensor:
        """The weights of a batch, which need no log p."""
        if self.column not in batch:
            raise BadWeights(
                f"the rows have no {self.column!r}, which Probability weighs them by. They have: "
                f"{', '.join(batch)}."
            )
        w = batch[self.column]
        bad = ~(torch.isfinite(w) & (w >= 0))
        if bool(bad.any()):
            row = int(torch.nonzero(bad)[0, 0])
            raise BadWeights(
                f"{self.column} is {float(w[row]):g} in row {row} of a batch: a weight is finite and not "
                "negative."
            )
        out: Tensor = w
        return out

    def __str__(self) -> str:
        return f"probability: column {self.column}"
