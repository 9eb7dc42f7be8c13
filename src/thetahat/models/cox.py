"""Cox's proportional hazards model, a linear predictor of the log hazard without an intercept.

    λ(t | x, stratum g) = λ_g(t) exp(offset + x·β)

Its likelihood is the partial one (`models.partial`), of all rows of a stratum together: a batch is the whole
data, and `log_prob` has for each event log P(this row | one of those at risk has its event now), 0 for every
other row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..data.strata import stratum_codes
from ..errors import BadArgument
from ..families.base import Family
from ..families.cox import Cox
from ..memory import empty, reserve
from .information import Information
from .monotone import monotone
from .partial import Partial, Rows
from .regression import Predictor, Regression, _Layout
from .risk_sets import risk_sets
from .taylor import Taylor

if TYPE_CHECKING:
    from ..data.table import Encoder

ORDERS = 8  # orders of rows that are remembered: a thinned start has several batches
STRATA = "strata"  # the slot of the design whose terms are the strata


class CoxRegression(Regression):
    """Cox's model of a table. θ = β.

    Parameters
    ----------
    family
        `families.Cox`
    encoder, slots
        as of `Regression`; the slot "strata", where there is one, is a design of categories alone, whose codes
        are the strata
    """

    together: ClassVar[bool] = True
    family: Cox

    def __init__(
        self,
        family: Family,
        encoder: Encoder,
        slots: Mapping[str, int],
        fixed: Mapping[str, float] | None = None,
        *,
        density: bool = False,
    ):
        if fixed or density or not isinstance(family, Cox):
            raise BadArgument(f"{family} is fitted by a formula, and none of its parameters can be held.")
        super().__init__(family, encoder, slots)
        self._memory = _Memory()

    def _lay_out(self) -> None:
        super()._lay_out()
        size = len(self.coefficients)
        # risk sets mix the levels of every category: no block of the information is diagonal
        self.layout = _Layout(size, size, torch.arange(size), None)

    @property
    def strata(self) -> str | None:
        """The strata as they are written; None: there is one."""
        slot = self.slots.get(STRATA)
        return None if slot is None else self.encoder.designs[slot].formula

    @property
    def note(self) -> str:
        """What a score is of besides its data."""
        strata = "" if self.strata is None else f", strata {self.strata}"
        return f"ties by the method {self.family.ties!r}{strata}"

    def stratum(self, batch: Batch) -> Tensor | None:
        """A code for each combination of the strata's levels, (n,)."""
        return stratum_codes(self.encoder.designs, self.slots.get(STRATA), batch)

    def start(self, source: Source) -> Tensor:
        return torch.zeros(self.layout.size, dtype=torch.float64)

    # ---- ℓ -----------------------------------------------------------------------------------------------------

    def ordered(self, batch: Batch, weight: Tensor | None) -> Rows | None:
        """The rows in the order of their risk sets; None where no event was seen."""
        return self._memory.ordered(self, batch, weight).rows

    def at(
        self, batch: Batch, weight: Tensor | None = None, theta: Tensor | None = None, order: int = 2
    ) -> Partial | None:
        """The partial likelihood of a batch at θ (None: where the model stands); None where no event was seen."""
        rows = self.ordered(batch, weight)
        if rows is None:
            return None
        chosen = rows.sets.rows
        eta = (self.coefficients.detach() if theta is None else theta) @ rows.X
        offset = batch.tensors.get(f"offset{self.predictors[0].slot}")
        eta = eta if offset is None else eta + offset[chosen]
        if weight is None or (batch.counted and weight is batch._count):
            own = rows.count
        else:
            own = weight[chosen]
        return Partial(rows, eta, own, self.family.ties, order)

    @torch.no_grad()
    def log_prob(self, batch: Batch) -> Tensor:
        """Each event's part of the partial log-likelihood, (n,); 0 for every other row."""
        found = self.at(batch, batch.count.to(torch.float64) if batch.counted else None, order=1)
        out = torch.zeros(len(batch), dtype=torch.float64)
        if found is not None:
            out[found.sets.rows[found.sets.failed]] = found.log_prob
        return out

    @torch.no_grad()
    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """ℓ, its gradient and its information; `precision` is not used, since sums over risk sets need it all.

        The last information is remembered: the diagnosis, errors and tests ask for the same one.
        """
        kept = self._memory.ordered(self, batch, weight)
        plain = weight is None or weight is batch._count
        here = self.coefficients.detach()
        if order > 1 and plain and kept.last is not None and torch.equal(kept.last[0], here):
            return _copied(kept.last[1])
        near = kept.near if plain and kept.near is not None and torch.equal(kept.near[0], here) else None
        found = self.at(batch, weight, order=order) if near is None else near[1]
        out = self._expanded(found, order)
        if plain:
            # the information is often asked for next, where the gradient has just been
            kept.near = (here.clone(), found) if order == 1 and self.family.ties != "exact" else None
            kept.last = (here.clone(), _copied(out)) if order > 1 else kept.last
        return out

    def _expanded(self, found: Partial | None, order: int) -> Taylor:
        p = self.layout.size
        if found is None:
            zero = torch.zeros(p, dtype=torch.float64)
            return Taylor(zero.sum(), zero, Information(torch.diag(zero)) if order > 1 else None)
        return Taylor(found.value, found.gradient, Information(found.information) if order > 1 else None)

    def scores(self, batch: Batch) -> Tensor:
        return self.weighted_scores(batch, batch.count.to(torch.float64) if batch.counted else None)

    @torch.no_grad()
    def weighted_scores(self, batch: Batch, weight: Tensor | None) -> Tensor:
        """Score residuals, (n, p), of one unit of weight each: Σ w s is the gradient, and robust errors are made
        of them."""
        found = self.at(batch, weight)
        out = torch.zeros(len(batch), self.layout.size, dtype=torch.float64)
        if found is not None:
            out[found.sets.rows] = found.scores.T
        return out

    def outer(self, batch: Batch, weight: Tensor | None = None) -> Information:
        s = self.scores(batch)
        return Information(s.T @ (s if weight is None else s * weight[:, None]))

    def row_derivatives(
        self, batch: Batch, order: int = 2
    ) -> tuple[Tensor, list[Tensor], dict[tuple[int, int], Tensor]]:
        raise BadArgument(
            "a row's part of Cox's partial likelihood depends on the predictors of all rows at risk: it has no "
            "derivatives of its own. Score residuals and dfbeta are in thetahat.evaluation.cox_residuals."
        )

    # ---- whether there is a maximum ------------------------------------------------------------------------------

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None:
        """A direction along which the partial likelihood rises for ever (`models.monotone`); None: there is none."""
        for batch in source.batches(self):
            found = monotone(self, batch)
            if found is not None:
                return found
        return None


def _copied(t: Taylor) -> Taylor:
    """Sums over batches add in the memory of their first part."""
    assert t.information is not None
    return Taylor(t.value.clone(), t.gradient.clone(), Information(t.information.A.clone()))


# ---- rows, ordered once --------------------------------------------------------------------------------------------


def columns(predictor: Predictor, batch: Batch, rows: Tensor, room: int = 0) -> Tensor:
    """All columns of a predictor written out for these rows, (p, room + n), however many levels a category has; the
    first `room` are left open."""
    n, at = len(rows), predictor.design.columns
    reserve(
        16.0 * predictor.size * n,
        f"{predictor.size:,} columns of {n:,} rows, ordered by time",
        "Use fewer columns, or strata(…) in the place of a category of many levels.",
    )
    whole = empty(predictor.size, room + n)
    out = whole[:, room:]
    out[at:].zero_()
    for j in range(at):
        torch.index_select(batch[f"x{predictor.slot}"][:, j], 0, rows, out=out[j])
    for j, _, levels in predictor.terms:
        code, value = (
            batch[f"code{predictor.slot}.{j}"][rows],
            batch.tensors.get(f"value{predictor.slot}.{j}"),
        )
        hit = torch.nonzero(code)[:, 0]
        out[at + code[hit] - 1, hit] = (
            torch.ones(len(hit), dtype=torch.float64) if value is None else value[rows[hit]]
        )
        at += levels
    return whole


@dataclass
class _Ordered:
    """Rows in the order of their risk sets, and the tensors of which they were made. These are held, so that no
    other tensor can come to lie where they lie.

    last : θ and the expansion there, of rows that weigh what they count
    near : θ and the partial likelihood there, where its gradient was asked for after that
    """

    made_of: list[Tensor | None]
    used: Tensor | None
    rows: Rows | None
    last: tuple[Tensor, Taylor] | None = None
    near: tuple[Tensor, Partial | None] | None = None


class _Memory:
    """The last orders that were found. Sorting is half of the work, and does not depend on β."""

    def __init__(self) -> None:
        self._found: tuple[_Ordered, ...] = ()

    def __deepcopy__(self, memo: dict[int, object]) -> _Memory:
        return self  # copies of a model read the same data

    def __reduce__(self) -> tuple[type[_Memory], tuple[()]]:
        return _Memory, ()

    def ordered(self, model: CoxRegression, batch: Batch, weight: Tensor | None) -> _Ordered:
        made_of = _read(batch)
        used = None if weight is None or bool((weight > 0).all()) else weight > 0
        for each in self._found:
            same = all(_is(a, b) for a, b in zip(each.made_of, made_of, strict=False))
            if same and len(each.made_of) == len(made_of) and _equal(each.used, used):
                return each
        new = _Ordered(made_of, used, _rows(model, batch, used))
        self._found = (new, *self._found[: ORDERS - 1])
        return new


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def _read(batch: Batch) -> list[Tensor | None]:
    return [*(batch.tensors[name] for name in sorted(batch.tensors)), batch._count]


def _is(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return (a.data_ptr(), a.shape, a.stride(), a._version) == (b.data_ptr(), b.shape, b.stride(), b._version)


def _rows(model: CoxRegression, batch: Batch, used: Tensor | None) -> Rows | None:
    sets = risk_sets(batch["y"], batch["event"], batch.tensors.get("entry"), model.stratum(batch), used)
    if sets is None:
        return None
    X = columns(model.predictors[0], batch, sets.rows)
    count = batch.count.to(torch.float64)[sets.rows] if batch.counted else None
    return Rows(sets, sets.centred_(X), count)
