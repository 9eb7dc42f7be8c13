"""What curves, residuals and tests of a Cox fit begin with: its model, its one batch, and the partial likelihood at β̂.

Of a fit with random effects b or smooth terms they are those at η̂ = Xβ̂ + Zb̂, b̂ the conditional modes, and (β, b) are
coefficients alike: their joint covariance at φ̂ is that of `known_groups`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.ordered import OrderedTable
from ..errors import BadArgument, DataError
from ..likelihood import LogLikelihood
from ..models.base import family_of
from ..models.cox import STRATA, CoxRegression, columns
from ..models.cox_mixed import CoxMixed
from ..models.cox_pass import Joined
from ..models.cox_streamed import CoxStreamed
from ..models.partial import Partial, Rows
from .known_groups import Joint, Known, known

if TYPE_CHECKING:
    from ..result import Fit

CHUNK = 64  # groups whose columns are written out for all rows at once


@dataclass(frozen=True, eq=False)
class OfCox:
    """A fit of Cox's model, wherever its rows are."""

    fit: Fit
    model: CoxRegression
    term: LogLikelihood

    @property
    def theta(self) -> Tensor:
        return self.model.coefficients.detach()

    @property
    def covariance(self) -> np.ndarray:
        """Of β, (p, p)."""
        return np.asarray(self.fit.covariance())

    def new(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The columns (p, n) and linear predictors (n,) of other rows."""
        n, predictor = len(batch), self.model.predictors[0]
        with torch.no_grad():
            X = columns(predictor, batch, torch.arange(n))
            return X.numpy(), predictor.eta(batch, self.theta).expand(n).numpy()

    def inverse(self) -> Tensor:
        """J⁻¹ of the information, whatever kind of covariance the fit reports."""
        J = self.fit.objective.taylor(order=2).information
        assert J is not None
        out: Tensor = torch.linalg.inv(J.dense())
        return out


@dataclass(frozen=True, eq=False)
class CoxFit(OfCox):
    """A fit of Cox's model over its rows, which are one batch."""

    batch: Batch
    weight: Tensor | None
    partial: Partial
    effects: Effects | None = None

    @cached_property
    def eta(self) -> Tensor:
        """The linear predictor of each row that was fitted, (n,)."""
        with torch.no_grad():
            own = (
                self.model.predictors[0].eta(self.batch, self.theta)
                if self.effects is None
                else self.effects.eta(self.batch)
            )
        return own.expand(len(self.batch))

    @cached_property
    def covariance(self) -> np.ndarray:
        """Of β, (p, p); with random effects of (β, b) together."""
        if self.effects is None:
            return super().covariance
        return self.effects.V.of(torch.eye(self.effects.V.size, dtype=torch.float64)).numpy()

    def columns(self) -> Iterator[tuple[slice, Tensor]]:
        """(which coefficients, their columns (k, n) of the rows at risk, in order), X less what `centre` says."""
        yield slice(0, len(self.partial.rows.X)), self.partial.rows.X
        if self.effects is not None:
            yield from self.effects.columns(self.batch, self.partial.sets.rows)

    def new(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The columns (p, n) and linear predictors (n,) of other rows."""
        if self.effects is None:
            return super().new(batch)
        n = len(batch)
        with torch.no_grad():
            model = self.effects.new
            X = model.gradient_rows(batch, [torch.ones(n, dtype=torch.float64)]).T
            return X.numpy(), model.eta(batch)[0].expand(n).numpy()

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
        """What was taken from the columns of that row's stratum, (p,); of random effects and smooth terms nothing."""
        sets = self.partial.sets
        own = columns(self.model.predictors[0], self.batch, sets.rows[row : row + 1])[:, 0]
        own = own - self.partial.rows.X[:, row]
        return (
            own if self.effects is None else torch.nn.functional.pad(own, (0, self.effects.V.size - len(own)))
        )


@dataclass(frozen=True, eq=False)
class Effects:
    """Random effects and smooth terms of a fit, as coefficients behind β.

    fitted : the model at the modes.  new : the same for new rows, of known groups or the average one
    V : the covariance of (β, b)
    """

    fitted: Known
    new: Known
    V: Joint

    def eta(self, batch: Batch) -> Tensor:
        return self.fitted.eta(batch)[0]

    def columns(self, batch: Batch, chosen: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(which coefficients, their columns (k, n)), of these rows."""
        for i, r in self.fitted.used:
            rows, place = self.fitted.columns(r, batch)
            rows, start, width = rows[chosen], self.fitted.starts[i], rows.shape[1]
            if place is None:
                yield slice(start, start + width), rows.T.contiguous()
                continue
            place = place[chosen]
            for a in range(0, self.fitted.levels(r), CHUNK):
                b = min(a + CHUNK, self.fitted.levels(r))
                here = torch.nonzero((place >= a) & (place < b))[:, 0]
                out = torch.zeros(b - a, width, len(chosen), dtype=torch.float64)
                out[place[here] - a, :, here] = rows[here]
                yield slice(start + a * width, start + b * width), out.view(-1, len(chosen))


@dataclass(frozen=True, eq=False)
class CoxFile(OfCox):
    """A fit of Cox's model over the rows of a file, which come by falling time."""

    streamed: CoxStreamed
    source: OrderedTable

    def steps(self) -> Iterator[tuple[Joined, Partial | None, pd.DataFrame]]:
        """Each batch behind the rows before it, the partial likelihood of its events (None: it has none), and an empty frame
        whose index is the rows' numbers in the file."""
        one = self.streamed.begin_pass()
        for batch, beside in self.source.beside():
            yield (*one.step(batch, self.term.weight(batch)), beside)


def cox_fit(fit: Fit, what: str, *, effects: bool = False, groups: str | None = None) -> CoxFit:
    """A fit as one of Cox's model.

    Parameters
    ----------
    effects
        whether random effects and smooth terms are allowed
    groups
        of new rows: "known" or "average"

    Raises
    ------
    BadArgument
        it is a fit of another model
    DataError
        it was loaded without its rows
    """
    model = fit.model
    mixed = isinstance(model, CoxMixed)
    if mixed and not effects:
        raise BadArgument(
            f"{what} is of a fit without random effects and smooth terms: its error would leave theirs out. Accepted: fixed "
            "effects, strata(column), and splines such as bs(x, df=5)."
        )
    if groups is not None and not mixed:
        raise BadArgument(f"groups={groups!r}: the fit has no random effects. Leave it out.")
    if mixed:
        model = model.regression
    if not isinstance(model, CoxRegression) or len(fit.objective.terms) != 1:
        raise BadArgument(
            f"{what} is of a fit with family='cox'; this one is of {family_of(model) or type(model).__name__}."
        )
    term = fit.objective.terms[0]
    if isinstance(term.source, OrderedTable):
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
    if mixed:
        objective, V = known(fit.objective, groups)
        assert isinstance(objective.model, Known)
        assert V.modes is not None
        own = Effects(Known(fit.model, V.modes, "known"), objective.model, V)
        rows = model.ordered(batches[0], weight)
        assert rows is not None  # without an event there is no model
        return CoxFit(
            fit, model, term, batches[0], weight, _at(model, rows, own.eta(batches[0]), weight), own
        )
    partial = model.at(batches[0], weight)
    if partial is None:
        raise DataError(f"{what}: no event was seen.")
    return CoxFit(fit, model, term, batches[0], weight, partial)


def cox_file(fit: Fit) -> CoxFile | None:
    """A fit of Cox's model that streams its rows from a file, which is at hand; None: it is another one."""
    model, terms = fit.model, fit.objective.terms
    if not isinstance(model, CoxStreamed) or len(terms) != 1 or not isinstance(terms[0].source, OrderedTable):
        return None
    return CoxFile(fit, model, terms[0], model, terms[0].source)


def _at(model: CoxRegression, rows: Rows, eta: Tensor, weight: Tensor | None) -> Partial:
    """The partial likelihood of all rows at these linear predictors, (n,)."""
    chosen = rows.sets.rows
    own = rows.count if weight is None else weight[chosen]
    return Partial(rows, eta.detach().expand(len(eta))[chosen], own, model.family.ties)


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
