"""The rows of a hidden Markov model in the order of the steps, and what its states make of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..protocols import HasSums
from ..types import ModelLike
from .chain_layout import Array, Layout
from .chains import Passed
from .information import Information
from .regression import Regression
from .taylor import Taylor, scores, taylor

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Entries:
    """The rows of a batch in the order of the steps.

    Parameters
    ----------
    seen
        (n,) whether y was observed; None: everywhere
    others, versions
        the tensors of the batch besides y, and how often each, and y, had been written to
    last
        the passes forward and backward that were made last, and for what
    """

    layout: Layout
    rows: Batch
    seen: Tensor | None
    others: tuple[Tensor | None, ...]
    versions: tuple[int, ...]
    last: list[tuple[Key, Callable[[], Passed | None]]] = field(default_factory=list)

    @classmethod
    def of(cls, batch: Batch, layout: Layout) -> Entries:
        rows = batch[torch.from_numpy(layout.rows)]
        y = rows["y"]
        seen = ~torch.isnan(y.reshape(len(y), -1)).any(1)
        return cls(layout, rows, None if bool(seen.all()) else seen, _others(batch), _versions(batch))

    def are_of(self, batch: Batch) -> bool:
        """Whether these are the rows of a batch that has the same y."""
        others = _others(batch)
        same = len(others) == len(self.others) and all(
            a is b for a, b in zip(others, self.others, strict=True)
        )
        return same and _versions(batch) == self.versions

    def remembered(self, key: Key) -> Passed | None:
        """The last passes, if they were at this key and somebody still holds them."""
        for known, passed in self.last:
            if known == key:
                return passed()
        return None

    @cached_property
    def seen_rows(self) -> Batch:
        """Those whose y was observed."""
        return self.rows if self.seen is None else self.rows[self.seen]

    def of_seen(self, values: Tensor) -> Tensor:
        """(n,) of those whose y was observed."""
        return values if self.seen is None else values[self.seen]


def _others(batch: Batch) -> tuple[Tensor | None, ...]:
    named = [t for name, t in batch.tensors.items() if name != "y"]
    return (*named, batch.count if batch.counted else None, batch.group if batch.grouped else None)


def _versions(batch: Batch) -> tuple[int, ...]:
    parts = (batch.tensors["y"], *_others(batch))
    return tuple(-1 if t is None or t.is_inference() else t._version for t in parts)


class Same:
    """Equal to another if both are of one and the same object, which is held."""

    def __init__(self, part: object):
        self.part = part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.part is other.part

    def __hash__(self) -> int:
        return id(self.part)


def sequence_weights(layout: Layout, weight: Tensor, seen: Tensor) -> Array | None:
    """(n,) by place: the weight of each row's sequence, of weights by row; None: 1."""
    placed = weight.detach().to(torch.float64).numpy()[layout.order]
    known = seen.numpy()[layout.order]
    sequence = np.repeat(np.arange(len(layout.lengths)), layout.lengths)
    low, high = np.full(len(layout.lengths), np.inf), np.zeros(len(layout.lengths))
    np.minimum.at(low, sequence[known], placed[known])
    np.maximum.at(high, sequence[known], placed[known])
    uneven = np.flatnonzero(np.isfinite(low) & (low != high))
    if len(uneven):
        raise BadArgument(
            f"the weights of sequence {uneven[0]} lie between {low[uneven[0]]:g} and {high[uneven[0]]:g}: the rows of a "
            "sequence are one observation, and have one weight. Resample or weigh whole sequences."
        )
    own = np.where(np.isfinite(low), high, 1.0)
    return None if bool((own == 1).all()) else own[sequence]


# ---- what is expected of the states ------------------------------------------------------------------------


def gamma_of(passed: Passed, own: Array | None) -> tuple[Array, Array]:
    """γ, (K, n) by entry, and Σ γ of first rows, (K,); times the weights of sequences, (n,) by place."""
    gamma = passed.gamma if own is None else passed.gamma * own[passed.layout.packed]
    return gamma, gamma[:, np.flatnonzero(passed.layout.opening)].sum(1)


def value_of(passed: Passed, own: Array | None) -> float:
    """log p(y), each sequence times its weight."""
    if own is None:
        return passed.value
    weight = own[passed.layout.packed]
    return float((passed.log_rows * weight)[weight > 0].sum())


# ---- a state's own model -----------------------------------------------------------------------------------


def log_prob_of(component: ModelLike, batch: Batch) -> Tensor:
    """log p(y | state), (n,). Parameters that are constants stay one number each."""
    eta = _constants(component, batch)
    if eta is None or not isinstance(component, Regression):
        out: Tensor = component.log_prob(batch)
        return out
    return component.family.log_prob_eta(batch["y"], *eta, **component.extras(batch)).expand(len(batch))


def taylor_of_state(component: ModelLike, batch: Batch, weight: Tensor, order: int) -> Taylor:
    """Σ w log p(y | state) to second order; from few sums where the family has it from them. What has weight 0
    may be impossible."""
    eta = _constants(component, batch)
    if isinstance(component, Regression) and eta is not None and not component.fixed:
        family = component.family
        with torch.no_grad():
            found = family.sums(batch["y"], weight, *eta) if isinstance(family, HasSums) else None
        if found is not None:
            return Taylor(found[0], found[1], Information(found[2]) if order > 1 else None)
    possible = weight > 0
    if bool(possible.all()):
        return taylor(component, batch, weight, order)
    return taylor(component, batch[possible], weight[possible], order)


def scores_of(component: ModelLike, batch: Batch) -> Tensor:
    """∂ log p(y | state) / ∂θ, (p, n)."""
    if isinstance(component, Regression) and all(p.design.constant for p in component.predictors):
        found = component.row_derivatives(batch, order=1)[1]
        return torch.stack([s.expand(len(batch)) for s in found])
    return scores(component, batch).T


def _constants(component: ModelLike, batch: Batch) -> list[Tensor] | None:
    """η of each parameter, (1,), where they are constants for all rows."""
    if not isinstance(component, Regression):
        return None
    eta = component.eta(batch)
    return eta if all(len(e) == 1 for e in eta) and len(batch) > 1 else None
