"""Score and martingale residuals of Cox's model of a file larger than memory, block by block.

A row of a batch is at risk at the events of its own batch and, since rows come by falling time, at all of its stratum in the
batches after. With S = Σ w e^η over all rows that were read up to its batch, and the terms (k, f, v) of `models.partial`,

    A = Σ_{later terms} (v/u) S / Σ_{R_k} w e^η,      B = Σ_{later terms} (v/u) m S / Σ_{R_k} w e^η

are the same for all rows of its batch and stratum, and

    s_i = (its part in its own batch) + e^{η_i}/S (B − x_i A),      q_i = (likewise) + w_i e^{η_i}/S A

A first pass finds both for each batch. Of the next one they are what its events expect of the row that stands for those
before, q₀ and Σ q₀ m, and with S' the sum after that batch, A = q₀ + (S/S') A', B = Σ q₀ m + (S/S') B': from the last batch
back, and no sum is a difference. What is held is 2p + 4 numbers a batch, and no row of another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.batch import Batch
from .cox_pass import Before, Joined, Pass
from .partial import Partial

if TYPE_CHECKING:
    from .cox_streamed import CoxStreamed


@dataclass(frozen=True)
class _Expected:
    """What the events of a batch expect of the rows before it, whose stratum goes on in it (else 0), times their S.

    q : q₀.  m : Σ q₀ m, (p,)
    after : of all rows up to the batch; None: its last stratum has none that counts
    goes_on : whether the stratum of the rows before is that of the batch's last row too
    """

    q: Tensor
    m: Tensor
    after: Before | None
    goes_on: bool


class Following:
    """A pass over the batches, of which each knows what the events of the batches after it expect of its rows.

    Parameters
    ----------
    model
        at its θ
    batches
        all of them, in order: the first pass reads them
    weight
        of the rows of a batch; None: 1
    """

    @torch.no_grad()
    def __init__(
        self, model: CoxStreamed, batches: Iterable[Batch], weight: Callable[[Batch], Tensor | None]
    ):
        self.model, self.one = model, Pass(model)
        self.later = iter(_later(model, [_expected(*own) for own in _steps(model, batches, weight)]))

    @torch.no_grad()
    def step(self, batch: Batch, weight: Tensor | None) -> Rows:
        """The residuals of the next batch."""
        own, partial = self.one.step(batch, weight)
        return Rows(own, partial, self.one.before, *next(self.later))

    def scores(self, batch: Batch, weight: Tensor | None) -> Tensor:
        """Score residuals of the next batch, (n, p), of one unit of weight each."""
        return self.step(batch, weight).scores


@dataclass(frozen=True)
class Rows:
    """The rows of a batch: the partial likelihood of its events, and what those of later batches expect (A, B)."""

    own: Joined
    partial: Partial | None
    after: Before | None
    A: Tensor
    B: Tensor

    @property
    def share(self) -> Tensor:
        """e^η / S of the rows that later events may have at risk, else 0, (n,)."""
        if self.after is None:
            return torch.zeros_like(self.own.eta)
        share = torch.exp(self.own.eta - self.after.log_total)
        return torch.where(self.own.of_last, share, 0.0)

    @property
    def scores(self) -> Tensor:
        """(n, p), of one unit of weight each."""
        out = (self.B[:, None] - self.A * self.own.X) * self.share
        if self.partial is not None:
            out.index_add_(1, self.partial.sets.rows, self.partial.scores)
        return out[:, self.own.first :].T

    @property
    def martingale(self) -> Tensor:
        """Events less those expected, (n,), of one unit of weight each."""
        out = -self.A * self.share
        if self.partial is not None:
            own = self.partial.residual
            own = own if self.partial.weight is None else own / self.partial.weight
            out.index_add_(0, self.partial.sets.rows, own)
        return out[self.own.first :]


def _steps(
    model: CoxStreamed, batches: Iterable[Batch], weight: Callable[[Batch], Tensor | None]
) -> Iterable[tuple[Joined, Partial | None, Before | None]]:
    one = Pass(model)
    for batch in batches:
        yield (*one.step(batch, weight(batch)), one.before)


def _expected(own: Joined, partial: Partial | None, after: Before | None) -> _Expected:
    p, before = len(own.X), own.before
    q, m = torch.zeros((), dtype=torch.float64), torch.zeros(p, dtype=torch.float64)
    if before is not None and partial is not None:
        first = partial.sets.rows == 0  # absent where its stratum has no event in this batch
        q = partial.smooth_expected[first].sum()
        m = partial.expected_of(partial.term_means)[:, first].sum(1)
    return _Expected(q, m, after, before is not None and before.stratum == int(own.codes[-1]))


def _later(model: CoxStreamed, expected: list[_Expected]) -> list[tuple[Tensor, Tensor]]:
    """(A, B) of each batch."""
    A = torch.zeros((), dtype=torch.float64)
    B = torch.zeros(model.layout.size, dtype=torch.float64)
    out = [(A, B)]  # nothing follows on the last batch
    for after, this in itertools.pairwise(expected[::-1]):
        A, B = _moved(this.after, after, A, B)
        out.append((A, B))
    return out[::-1]


def _moved(before: Before | None, batch: _Expected, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """(A, B) of the rows up to a batch, from those of the rows up to it and with it."""
    if before is None or not batch.goes_on or batch.after is None:
        return batch.q, batch.m
    ratio = torch.exp(before.log_total - batch.after.log_total)
    return batch.q + ratio * A, batch.m + ratio * B
