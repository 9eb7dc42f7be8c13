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
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family
from .cox import CoxRegression
from .cox_pass import Before, Joined, Pass
from .cox_scores import Following
from .monotone import CUTS, FAR, bounded, no_maximum, rises, violated
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
        return Following(self, source.batches(self), weight).scores

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None:
        return no_maximum(self.names, Streamed(self, source))


_IN_MEMORY = (
    "{} depends on rows that come later in the file, and this one was fitted by streaming. Fit it in memory: "
    "th.data.Frame(file, memory=…) with more bytes than its columns take."
)


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
