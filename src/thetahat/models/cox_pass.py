"""A pass of Cox's model over batches that come by falling time, each behind a row that stands for those before.

    S = Σ_C w e^η,      m = Σ_C w e^η x / S,      V = Σ_C w e^η (x − m)(x − m)ᵀ / S

`cox_streamed` says why this is all that the rows before, C, need to hand on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.batch import Batch
from ..memory import empty
from ..types import Plain
from .cox import columns
from .information import Information
from .partial import Partial, Rows
from .risk_sets import RiskSets, risk_sets
from .taylor import Taylor

if TYPE_CHECKING:
    from .cox_streamed import CoxStreamed


@dataclass(frozen=True)
class Before:
    """Of the rows of one stratum that have been read: log S, m (p,) and V (p, p; None: it is not needed)."""

    stratum: int
    log_total: Tensor
    mean: Tensor
    covariance: Tensor | None


class Pass:
    """One pass over the batches at one θ. Columns are centred by the first batch's means, which changes no likelihood."""

    def __init__(self, model: CoxStreamed, theta: Tensor | None = None):
        self.model = model
        self.theta = model.coefficients.detach().clone() if theta is None else theta
        self.before: Before | None = None
        self.centre: Tensor | None = None
        self.last: Joined | None = None

    @torch.no_grad()
    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """ℓ of the next batch given those before, its gradient and (order 2) its information."""
        own, partial = self.step(batch, weight, order)
        out = self.model._expanded(partial, order)
        if order > 1 and partial is not None and own.before is not None:
            assert out.information is not None
            assert own.before.covariance is not None
            q = partial.smooth_expected[
                partial.sets.rows == 0
            ].sum()  # its row is absent where its stratum has no event
            out = Taylor(out.value, out.gradient, Information(out.information.A + q * own.before.covariance))
        return out

    @torch.no_grad()
    def step(self, batch: Batch, weight: Tensor | None, order: int = 1) -> tuple[Joined, Partial | None]:
        """The next batch behind those before, and the partial likelihood of its events (None: it has none)."""
        own = Joined(self, batch, weight)
        partial = own.partial(order)
        self.before, self.last = own.after(order), own
        return own, partial


class Joined:
    """The rows of a batch, behind one that stands for those before where their stratum goes on. (p, n) and (n,)."""

    def __init__(self, at: Pass, batch: Batch, weight: Tensor | None):
        self.model, n = at.model, len(batch)
        predictor = self.model.predictors[0]
        codes = self.model.stratum(batch)
        self.codes = torch.zeros(n, dtype=torch.long) if codes is None else codes
        going_on = at.before is not None and bool((self.codes == at.before.stratum).any())
        self.before = at.before if going_on else None
        self.first = int(going_on)
        self.X = columns(predictor, batch, torch.arange(n), room=self.first)
        at.centre = self.X.mean(1, keepdim=True) if at.centre is None else at.centre
        self.centre = at.centre
        self.own_columns.sub_(self.centre)
        self.eta = empty(n + self.first)
        self.eta[self.first :] = at.theta @ self.own_columns
        offset = batch.tensors.get(f"offset{predictor.slot}")
        self.eta[self.first :] += 0.0 if offset is None else offset
        if self.before is not None:
            self.X[:, 0], self.eta[0] = self.before.mean, self.before.log_total
        self.time = self._behind(batch["y"], torch.inf)
        self.event = self._behind(batch["event"], 0.0)
        self.codes = self._behind(self.codes, -1 if self.before is None else self.before.stratum)
        self.weight = None if weight is None else self._behind(weight, 1.0)
        self.count = self._behind(batch.count.to(torch.float64), 1.0) if batch.counted else None

    def _behind(self, values: Tensor, first: Plain) -> Tensor:
        return torch.cat([values.new_full((self.first,), first), values])

    @property
    def own_columns(self) -> Tensor:
        """Of the batch alone, (p, n)."""
        return self.X[:, self.first :]

    @property
    def of_last(self) -> Tensor:
        """Which rows are of the last row's stratum, and count: those that the next batch may have at risk, (n,)."""
        here = self.codes == self.codes[-1]
        return here if self.used is None else here & self.used

    @property
    def used(self) -> Tensor | None:
        return None if self.weight is None or bool((self.weight > 0).all()) else self.weight > 0

    def sets(self) -> RiskSets | None:
        several = self.model.strata is not None
        return risk_sets(self.time, self.event, None, self.codes if several else None, self.used)

    def partial(self, order: int) -> Partial | None:
        """The partial likelihood of the batch's events; None: it has none."""
        sets = self.sets()
        if sets is None:
            return None
        own = None if self.weight is None else self.weight[sets.rows]
        count = None if self.count is None else self.count[sets.rows]
        rows = Rows(sets, torch.index_select(self.X, 1, sets.rows), count, self.model.whole)
        return Partial(rows, self.eta[sets.rows], own, self.model.family.ties, order)

    def after(self, order: int) -> Before | None:
        """Of all rows that have been read of the last row's stratum."""
        code, here = int(self.codes[-1]), self.of_last
        if not bool(here.any()):
            return None
        every = bool(here.all())
        X = self.X if every else self.X[:, here]
        log_weight = self.eta if self.weight is None else self.eta + torch.log(self.weight)
        log_weight = log_weight if every else log_weight[here]
        log_total = torch.logsumexp(log_weight, 0)
        share = torch.exp(log_weight - log_total)
        mean = X @ share
        if order < 2:
            return Before(code, log_total, mean, None)
        apart = X - mean[:, None]
        V = (apart * share) @ apart.T
        if self.before is not None and self.before.stratum == code:
            assert self.before.covariance is not None
            V += share[0] * self.before.covariance
        return Before(code, log_total, mean, V)
