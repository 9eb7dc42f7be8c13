"""Cox's model of a file larger than memory, whose rows come by falling time (`data.ordered`).

A risk set is then all that has been read of its stratum. Of the rows before a batch, C, three sums are carried into it,

    S = Σ_C w e^η,      m = Σ_C w e^η x / S,      V = Σ_C w e^η (x − m)(x − m)ᵀ / S

and the batch's part of the partial likelihood (`models.partial`) is that of its own rows and of one more, without an
event and at risk throughout, of log-weight log S and predictors m: value and gradient depend on C by S and m alone. What
the row lacks of the information is the spread of C around its mean, q V, with q the number of events that are expected
of it. No sum is a difference, and θ is what changes from pass to pass, so that nothing else is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family
from ..memory import empty
from ..types import Plain
from .cox import CoxRegression, columns
from .information import Information
from .monotone import CUTS, FAR, bounded, no_maximum, rises, violated
from .partial import Partial, Rows
from .risk_sets import RiskSets, risk_sets
from .taylor import Taylor

if TYPE_CHECKING:
    from ..data.table import Encoder


class CoxStreamed(CoxRegression):
    """Cox's model of the batches of an `OrderedTable`, each of which depends on those before. θ = β.

    Parameters
    ----------
    whole
        whether all frequency weights are whole numbers, so that a row stands for so many equal ones

    Raises
    ------
    BadArgument
        ties="exact"
    """

    def __init__(
        self,
        family: Family,
        encoder: Encoder,
        slots: Mapping[str, int],
        fixed: Mapping[str, float] | None = None,
        *,
        whole: bool = True,
    ):
        super().__init__(family, encoder, slots, fixed)
        if self.family.ties == "exact":
            raise BadArgument(
                "ties='exact' draws tied events from all rows at risk at once, which a file larger than memory does not "
                "hold. Use ties='efron', which is close to it."
            )
        self.whole = whole

    def begin_pass(self) -> Pass:
        """A pass over the data from its first batch on."""
        return Pass(self)

    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """Of a batch that is the first one, or all there is."""
        return self.begin_pass().taylor(batch, weight, order, precision)

    def log_prob(self, batch: Batch) -> Tensor:
        raise BadArgument(_IN_MEMORY.format("A likelihood of each row, and a weighting that reads it,"))

    def weighted_scores(self, batch: Batch, weight: Tensor | None) -> Tensor:
        raise BadArgument(_IN_MEMORY.format("A score residual of some of the rows"))

    def score_pass(
        self, source: Source, weight: Callable[[Batch], Tensor | None]
    ) -> Callable[[Batch, Tensor | None], Tensor]:
        """Score residuals of each batch in turn (`cox_scores`), after a pass over all of them."""
        from .cox_scores import Following

        return Following(self, source.batches(self), weight).scores

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None:
        return no_maximum(self.names, Streamed(self, source))


_IN_MEMORY = (
    "{} depends on rows that come later in the file, and this one was fitted by streaming. Fit it in memory: "
    "th.data.Frame(file, memory=…) with more bytes than its columns take."
)


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


# ---- whether there is a maximum --------------------------------------------------------------------------------------


class Streamed:
    """Of `monotone`, along a file: a pass for each question."""

    def __init__(self, model: CoxStreamed, source: Source):
        self.model, self.source = model, source
        self.scale = torch.ones(model.layout.size, dtype=torch.float64)
        self.events = 0

    def bounded(self) -> bool:
        """At the model's θ; the ranges of the columns, which are their scales too, are found on the way."""
        one, at = Pass(self.model), None
        low = torch.full_like(self.scale, torch.inf)
        high = -low
        for batch in self.source.batches(self.model):
            part = one.taylor(batch, _count(batch), 2)
            at = part if at is None else at.accumulate(part)
            assert one.last is not None
            X = one.last.own_columns.numpy()
            low = torch.minimum(low, torch.from_numpy(X.min(1)))
            high = torch.maximum(high, torch.from_numpy(X.max(1)))
            self.events += int((batch["event"] == 1).sum())
        self.scale = torch.where(high > low, high - low, 1.0)
        return not len(low) or at is None or bounded(high - low, at)

    def score(self) -> Tensor:
        at = self._at(torch.zeros_like(self.scale))
        return at.gradient / self.scale / max(self.events, 1)

    def rises(self, delta: Tensor) -> bool:
        return rises([float(self._at(t * delta / self.scale).value) for t in (0.0, *FAR)], self.events)

    def _at(self, theta: Tensor) -> Taylor:
        one, out = Pass(self.model, theta), None
        for batch in self.source.batches(self.model):
            part = one.taylor(batch, _count(batch), 1)
            out = part if out is None else out + part
        assert out is not None
        return out

    def violated(self, delta: Tensor) -> np.ndarray | None:
        """In each batch the row that stands for those before is the one with the largest x·δ of them."""
        one, found = Pass(self.model, delta / self.scale), []
        for batch in self.source.batches(self.model):
            own = Joined(one, batch, _count(batch))
            sets = own.sets()
            X = own.X / self.scale[:, None]
            worst = None if sets is None else violated(sets, X[:, sets.rows], delta, False)
            found += [] if worst is None else [worst]
            if bool(own.of_last.any()):
                largest = int(torch.where(own.of_last, delta @ X, -torch.inf).argmax())
                one.before = Before(int(own.codes[-1]), own.eta[largest], own.X[:, largest].clone(), None)
            else:
                one.before = None
        if not found:
            return None
        cuts = np.concatenate(found)
        return cuts[np.argsort(cuts @ delta.numpy())[:CUTS]]


def _count(batch: Batch) -> Tensor | None:
    return batch.count.to(torch.float64) if batch.counted else None
