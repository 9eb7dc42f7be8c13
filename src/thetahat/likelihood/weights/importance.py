"""Importance weights: rows that were drawn from one population count as another would have them. Covariate
shift is a weighted likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...data.batch import Batch
from ...data.source import Source
from ...errors import BadArgument, BadWeights
from ...types import Data

COLUMN = "importance"
FEW = (
    10  # effective rows, below which no mean of them is known to a third of its spread, nor their own number
)


@runtime_checkable
class Ratio(Protocol):
    """What says p_new(x) / p_old(x) of the rows of a table: `evaluation.shift.DensityRatio`."""

    def weigh(self, data: Data) -> Any:
        """One weight a row, of mean 1 over the old rows."""


@dataclass(frozen=True)
class Importance:
    """What a row would count in another population: the weighted likelihood of old rows is, on average, the
    likelihood of new ones.

        w_i = (p_new(x_i) / p_old(x_i))^λ,      E_old[w log p(y | x)] = E_new[log p(y | x)]  for λ = 1

    if p(y | x) is the same in both. λ = 0 is the ordinary likelihood; between the two lies less bias of one,
    and less variance of the other. Weights are no counts: standard errors are the sandwich's, J⁻¹ (Σ w² s sᵀ)
    J⁻¹, with w taken as known.

    Parameters
    ----------
    ratio
        the column that holds the weights; or a `density_ratio(old, new)`, which then gives every row of the
        data its own
    power
        λ in [0, 1]

    Raises
    ------
    BadWeights
        a weight that is negative or not finite; weights so unequal that a few rows would decide (`check`,
        before a fit)

    References
    ----------
    Shimodaira (2000), Improving predictive inference under covariate shift by weighting the log-likelihood
    function, eq. 3.2.

    Examples
    --------
    >>> Importance("w")(Batch({"y": torch.zeros(2), "w": torch.tensor([0.5, 1.5])}), torch.zeros(2))
    tensor([0.5000, 1.5000])
    """

    ratio: str | Ratio
    power: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.ratio, (str, Ratio)):
            raise BadArgument(
                f"Importance(ratio): received {type(self.ratio).__name__}. Accepted: the name of a column, "
                "or a density_ratio."
            )
        if not 0 <= self.power <= 1:
            raise BadArgument(f"power={self.power}. Accepted: a number in [0, 1].")

    @property
    def column(self) -> str:
        """Where a batch holds the ratio."""
        return self.ratio if isinstance(self.ratio, str) else COLUMN

    def attach(self, data: Data) -> Any:
        """The data with the ratio of each row as a column; as they are where a column holds it already.

        Raises
        ------
        BadArgument
            a Source or a Batch, whose rows cannot be asked: give it the weights as a tensor, and their name
        """
        if isinstance(self.ratio, str):
            return data
        if isinstance(data, (Source, Batch)):
            raise BadArgument(
                f"a {type(data).__name__} is not a table of columns: give it the weights as a tensor, "
                f"Importance('{COLUMN}')."
            )
        weights = self.ratio.weigh(data)
        if isinstance(data, Mapping):
            return {**data, COLUMN: torch.as_tensor(weights)}
        from ...data.frame import Frame

        frame = Frame(data)
        return frame.read(frame.columns).assign(**{COLUMN: weights})

    def effective(self, source: Source) -> tuple[float, float]:
        """((Σ w)² / Σ w², Σ count): how many unweighted rows the weighted ones are worth, and how many they
        are. One pass.

        References
        ----------
        Kong (1992), A note on importance sampling using standardized weights.
        """
        total = square = rows = 0.0
        for batch in source.batches():
            w = self(batch, batch.count).to(torch.float64)
            total += float((batch.count * w).sum())
            square += float((batch.count * w * w).sum())
            rows += batch.total
        return (total**2 / square if square > 0 else 0.0), rows

    def check(self, source: Source, p: int) -> None:
        """Nothing, where the rows are worth enough of them to carry a fit of p parameters.

        Raises
        ------
        BadWeights
            they are worth fewer than max(10, 2(p + 1)), and less than half of what they would be unweighted
        """
        worth, rows = self.effective(source)
        least = max(FEW, 2 * (p + 1))
        if worth < min(least, rows / 2):
            raise BadWeights(
                f"{self}: the {rows:g} rows weigh like {worth:.1f} of them, and {least} are wanted for {p} "
                "parameters. A few rows would "
                "decide alone: gather rows where the weights are large, or temper them (power=0.5)."
            )

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        if self.column not in batch:
            raise BadWeights(
                f"the rows have no {self.column!r}, which Importance weighs them by. They have: "
                f"{', '.join(batch)}."
            )
        w = batch[self.column]
        bad = ~(torch.isfinite(w) & (w >= 0))
        if bool(bad.any()):
            row = int(torch.nonzero(bad)[0, 0])
            raise BadWeights(
                f"{self.column} is {float(w[row]):g} in row {row} of a batch: a ratio is finite and not "
                "negative."
            )
        out: Tensor = w if self.power == 1 else w**self.power
        return out

    def __str__(self) -> str:
        what = f"column {self.ratio}" if isinstance(self.ratio, str) else str(self.ratio).splitlines()[0]
        return f"importance: {what}" + ("" if self.power == 1 else f", to the power of {self.power:g}")
