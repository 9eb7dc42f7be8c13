"""What curves, residuals and tests of a Cox fit begin with: its model, its one batch, and the partial likelihood
at β̂."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument, DataError
from ..likelihood import LogLikelihood
from ..models.base import family_of
from ..models.cox import STRATA, CoxRegression, columns
from ..models.cox_mixed import CoxMixed
from ..models.partial import Partial
from ..protocols import is_streamed

if TYPE_CHECKING:
    from ..result import Fit


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fit of Cox's model over its rows."""

    fit: Fit
    model: CoxRegression
    term: LogLikelihood
    batch: Batch
    weight: Tensor | None
    partial: Partial

    @property
    def theta(self) -> Tensor:
        return self.model.coefficients.detach()

    @property
    def unit(self) -> Tensor:
        """The weight of each row of the data, (n,)."""
        return torch.ones(len(self.batch), dtype=torch.float64) if self.weight is None else self.weight

    def starts(self) -> list[tuple[int, int, int, int]]:
        """(stratum's code, a row of it, its first slot, its last slot + 1) of each stratum with events."""
        sets = self.partial.sets
        bounds = sets.slot_starts
        return [
            (int(sets.stratum[a]), int(row), int(a), int(b))
            for row, a, b in zip(sets.row_starts[:-1], bounds[:-1], bounds[1:], strict=True)
        ]

    def centre(self, row: int) -> Tensor:
        """What was taken from the columns of that row's stratum, (p,)."""
        sets = self.partial.sets
        own = columns(self.model.predictors[0], self.batch, sets.rows[row : row + 1])[:, 0]
        return own - self.partial.rows.X[:, row]


def cox_fit(fit: Fit, what: str) -> CoxFit:
    """A fit as one of Cox's model.

    Raises
    ------
    BadArgument
        it is a fit of another model
    DataError
        it was loaded without its rows
    """
    model = fit.model
    if isinstance(model, CoxMixed):
        raise BadArgument(
            f"{what} is of a fit without random effects and smooth terms: its error would leave theirs out. Accepted: fixed "
            "effects, strata(column), and splines such as bs(x, df=5)."
        )
    if not isinstance(model, CoxRegression) or len(fit.objective.terms) != 1:
        raise BadArgument(
            f"{what} is of a fit with family='cox'; this one is of {family_of(model) or type(model).__name__}."
        )
    term = fit.objective.terms[0]
    if is_streamed(term.source):
        raise DataError(
            f"{what} needs all rows at once, and this fit streamed them from a file. Fit it in memory: "
            "th.data.Frame(file, memory=…) with more bytes than its columns take."
        )
    batches = list(term.source.batches(model))
    if len(batches) != 1:
        raise DataError(
            f"{what} needs all rows that were fitted as one batch; the source yields {len(batches)}."
        )
    weight = term.weight(batches[0])
    partial = model.at(batches[0], weight)
    if partial is None:
        raise DataError(f"{what}: no event was seen.")
    return CoxFit(fit, model, term, batches[0], weight, partial)


def stratum_names(model: CoxRegression, codes: list[int]) -> list[str]:
    """Each stratum as its columns and their levels, "trt=2, sex=f"; "" where there is one."""
    slot = model.slots.get(STRATA)
    if slot is None:
        return [""] * len(codes)
    out = []
    for code in codes:
        parts, left = [], code
        for term in reversed(model.encoder.designs[slot].coded):
            left, own = divmod(left, term.size + 1)
            name, levels, _ = term.factors[0]
            cells = [int(c) for c in term.cells]
            rest = [k for k in range(len(levels)) if k not in cells]
            parts.append(f"{name}={levels[cells[own - 1] if own else rest[0]]}")
        out.append(", ".join(reversed(parts)))
    return out
