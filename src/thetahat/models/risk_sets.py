"""Risk sets: who was at risk at each event time, and sums over them.

    R_k = {i : same stratum, entry_i < t_k ≤ time_i}

Rows are ordered by stratum and, within it, by falling time; event times likewise ("slots" k). Row i is then at
risk at the slots first_i … stop_i − 1, a range, and two sums that are transposes of each other are all that a
partial likelihood needs:

    over a risk set     S_k = Σ_{i: first_i ≤ k < stop_i} v_i               `Weighed.means`, `log_total`
    over a row's slots  A_i = Σ_{first_i ≤ k < stop_i} a_k                   `Weighed.spread`

By cumulative sums both are O(n). Where all rows are at risk from the beginning nothing is ever subtracted, so
that every digit holds. With delayed entry the second sum is a difference of two; where it would lose digits,
or weights are beyond what float64 can add, the sums go through a binary tree of slots (`risk_tree`), which
adds logarithms and subtracts nothing, in O(n log m).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..memory import empty
from .risk_tree import Tree

LOST = 1e4  # by how much a subtraction may shrink a sum: 4 of 16 digits
TINY = 1e-250  # a sum of weights, of which the largest is 1, below which the smallest may have been lost
BLOCK = 2**14  # rows whose columns are summed at once
MANY = 200  # strata beyond which cumulative sums go through all of them together


class Weighed(Protocol):
    """Risk sets whose rows have the weights exp(ζ_i)."""

    @property
    def log_total(self) -> Tensor:
        """log Σ_{i in R_k} exp(ζ_i), (m,)."""
        ...

    def means(self, X: Tensor) -> Tensor:
        """Σ_{i in R_k} exp(ζ_i) x_i / Σ exp(ζ_i), (p, m), of X (p, n)."""
        ...

    def blocks(self, X: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """(a, b, the means of the slots a ≤ k < b, (p, b − a)): all slots, in order, a block at a time."""
        ...

    def spread(self, a: Tensor) -> Tensor:
        """Σ_{k: i in R_k} a_k exp(ζ_i) / Σ_{j in R_k} exp(ζ_j), (…, n), of a (…, m)."""
        ...


@dataclass(frozen=True, eq=False)
class RiskSets:
    """The rows that are at risk at some event time, and the event times.

    Parameters
    ----------
    rows
        (n,) which rows of the data, in the order described above
    first, stop
        (n,) the slots at which each is at risk: first ≤ k < stop
    row_starts, slot_starts
        (G + 1,) where each stratum that has events begins among rows and slots
    ends
        (m,) rows before ends_k, from the stratum's first on, have a time of at least t_k
    time, stratum
        (m,) of each slot
    failed, slot
        (e,) the rows (counted among `rows`) whose event was seen, slot by slot, and their slots
    late
        the rows that were not at risk from the beginning, ordered by `stop`
    """

    rows: Tensor
    first: Tensor
    stop: Tensor
    row_starts: np.ndarray
    slot_starts: np.ndarray
    ends: Tensor
    time: Tensor
    stratum: Tensor
    failed: Tensor
    slot: Tensor
    late: Tensor

    @property
    def size(self) -> int:
        """m, the number of event times."""
        return len(self.ends)

    @cached_property
    def fail_starts(self) -> np.ndarray:
        """(m,) where the events of each slot begin in `failed`."""
        return np.flatnonzero(np.diff(self.slot.numpy(), prepend=-1))

    @cached_property
    def late_ends(self) -> Tensor:
        """(m,) how many of `late`, among those of the slot's stratum and before, are not at risk any more (in
        falling time) at slot k."""
        return torch.searchsorted(self.stop[self.late].contiguous(), torch.arange(self.size), right=True)

    @cached_property
    def late_starts(self) -> np.ndarray:
        """(G + 1,) where each stratum begins in `late`."""
        own = np.searchsorted(self.row_starts[1:-1], self.late.numpy(), side="right")
        return np.searchsorted(own, np.arange(len(self.row_starts)))

    @cached_property
    def tree(self) -> Tree:
        return Tree(self.first, self.stop, self.size)

    def by_failed(self, values: Tensor) -> Tensor:
        """Σ over the events of each slot, (…, m), of values (…, e)."""
        if len(self.failed) == self.size:
            return values
        return torch.from_numpy(np.add.reduceat(values.numpy(), self.fail_starts, axis=-1))

    def by_stratum_largest(self, values: Tensor) -> Tensor:
        """The largest value in each row's stratum, (n,)."""
        if len(self.row_starts) == 2:
            return values.max().expand(len(values))
        most = np.maximum.reduceat(values.numpy(), self.row_starts[:-1])
        return torch.from_numpy(np.repeat(most, np.diff(self.row_starts)))

    def centred_(self, X: Tensor) -> Tensor:
        """X (p, n) less its mean in each stratum, in place: what a partial likelihood depends on."""
        if len(self.row_starts) == 2:
            return X.sub_(X.mean(1, keepdim=True))
        mean = np.add.reduceat(X.numpy(), self.row_starts[:-1], axis=1) / np.diff(self.row_starts)
        return X.sub_(torch.from_numpy(np.repeat(mean, np.diff(self.row_starts), axis=1)))

    def weighed(self, log_weight: Tensor) -> Weighed:
        """The risk sets with the weights exp(log_weight), (n,): by cumulative sums where they keep their
        digits, else by the tree."""
        found = Cumulated(self, log_weight)
        return found if found.sound else self.tree.weighed(log_weight)

    def sums(self, values: Tensor) -> tuple[Tensor, float]:
        """S_k, (…, m), of values (…, n); and the largest ratio by which a subtraction shrank it."""
        above = _cumulated(values, self.row_starts)[..., self.ends - 1]
        if not len(self.late):
            return above, 1.0
        gone = _cumulated(values[..., self.late], self.late_starts)
        ends = self.late_ends
        begun = torch.from_numpy(np.repeat(self.late_starts[:-1], np.diff(self.slot_starts)))
        below = torch.where(ends > begun, gone[..., (ends - 1).clamp(min=0)], 0.0)
        out = above - below
        worst = float((above / out.clamp(min=0)).max()) if values.ndim == 1 else 1.0
        return out, worst

    def largest(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """max over R_k of values (n,), and a row that attains it, (m,) each."""
        if len(self.late):
            return self.tree.largest(values)
        most, where = torch.empty_like(values), torch.empty(len(values), dtype=torch.long)
        for a, b in itertools.pairwise(self.row_starts):
            most[a:b], own = torch.cummax(values[a:b], 0)
            where[a:b] = own + int(a)
        return most[self.ends - 1], where[self.ends - 1]


class Cumulated:
    """Weighed risk sets by cumulative sums; see `Weighed`."""

    def __init__(self, sets: RiskSets, log_weight: Tensor):
        self.sets, self.log_weight = sets, log_weight
        self.shift = sets.by_stratum_largest(log_weight)
        self.weight = torch.sub(log_weight, self.shift, out=empty(len(log_weight))).exp_()
        self.total, worst = sets.sums(self.weight)
        self.sound = bool(self.total.min() > TINY) and worst <= LOST
        if self.sound and len(sets.late):
            # a row's own weight times what is subtracted: an error of its expected number of events
            behind = _from_behind(1 / self.total, sets.slot_starts)
            beyond = torch.nn.functional.pad(behind, (0, 1))[sets.stop[sets.late]]
            self.sound = float((self.weight[sets.late] * beyond).max()) <= LOST

    @property
    def log_total(self) -> Tensor:
        return torch.log(self.total) + self.shift[self.sets.ends - 1]

    def means(self, X: Tensor) -> Tensor:
        return self.sets.sums(X * self.weight)[0].div_(self.total)

    @property
    def nested(self) -> bool:
        """Whether the risk sets of a stratum hold each other, and sums can be carried from row to row."""
        return not len(self.sets.late) and len(self.sets.row_starts) <= MANY

    def sums_by_block(self, X: Tensor) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """Each block of X (p, n), its cumulative sums of exp(ζ) x within the stratum, (p, b), and which rows it has. It
        is read once and stays in the cache; a sum is carried from one to the next. The sums may be overwritten."""
        for begin, end in itertools.pairwise(self.sets.row_starts.tolist()):
            carried = X.new_zeros(len(X))
            for a in range(begin, end, BLOCK):
                own = slice(a, min(a + BLOCK, end))
                sums = X[:, own] * self.weight[own]
                sums[:, 0] += carried
                torch.cumsum(sums, 1, out=sums)
                carried = sums[:, -1].clone()
                yield X[:, own], sums, own

    def blocks(self, X: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        if not self.nested:
            yield 0, self.sets.size, self.means(X)
            return
        ends = self.sets.ends.numpy()
        for _, sums, own in self.sums_by_block(X):
            first, last = np.searchsorted(ends, [own.start + 1, own.stop + 1]).tolist()
            if last > first:
                means = torch.index_select(sums, 1, self.sets.ends[first:last] - (own.start + 1))
                yield first, last, means.div_(self.total[first:last])

    def spread(self, a: Tensor) -> Tensor:
        sets = self.sets
        behind = _from_behind(a / self.total, sets.slot_starts)
        out = torch.index_select(behind, -1, sets.first, out=empty(*a.shape[:-1], len(sets.first)))
        if len(sets.late):
            # the last slot of a stratum is followed by another stratum's: nothing of it is subtracted
            out[..., sets.late] -= behind[..., sets.stop[sets.late]]
        return out.mul_(self.weight)


def _from_behind(values: Tensor, starts: np.ndarray) -> Tensor:
    """Cumulative sums from the last entry of each stratum to its first, along the last dimension."""
    if len(starts) == 2:
        out = empty(*values.shape)
        np.cumsum(values.numpy()[..., ::-1], axis=-1, out=out.numpy()[..., ::-1])
        return out
    return _cumulated(values.flip(-1), (starts[-1] - starts)[::-1]).flip(-1)


def _cumulated(values: Tensor, starts: np.ndarray) -> Tensor:
    """Cumulative sums along the last dimension, begun anew at each start. Never by subtraction."""
    if len(starts) == 2:
        return torch.cumsum(values, -1, out=empty(*values.shape))
    if len(starts) <= MANY:
        out = torch.empty_like(values)
        for a, b in itertools.pairwise(starts):
            torch.cumsum(values[..., a:b], -1, out=out[..., a:b]) if b > a else None
        return out
    # all strata together: after step s each entry holds the sum of the last 2^s of its stratum
    sizes = np.diff(starts)
    own = torch.from_numpy(np.arange(starts[-1]) - np.repeat(starts[:-1], sizes))
    out, step = values.clone(), 1
    while step < sizes.max():
        out[..., step:] = out[..., step:] + torch.where(own[step:] >= step, out[..., :-step], 0.0)
        step *= 2
    return out


# ---- from rows to risk sets ----------------------------------------------------------------------------------


def risk_sets(
    time: Tensor, event: Tensor, entry: Tensor | None, stratum: Tensor | None, used: Tensor | None
) -> RiskSets | None:
    """The risk sets of the data; None where no event was seen.

    Parameters
    ----------
    time, event
        (n,) the time at which a row leaves, and whether by its event (1) or not (0)
    entry
        (n,) the time after which it is at risk; None: from the beginning
    stratum
        (n,) codes; None: one
    used
        (n,) which rows count; None: all
    """
    t, e = time.numpy(), event.numpy() == 1
    order = np.argsort(-t) if used is None else np.flatnonzero(used.numpy())
    if used is not None:
        order = order[np.argsort(-t[order])]
    if stratum is not None:
        codes = stratum.numpy()[order]
        order = order[np.argsort(codes.astype(_narrowest(codes)), kind="stable")]
    g = None if stratum is None else stratum.numpy()[order]
    t, e = t[order], e[order]
    new = np.ones(len(t), dtype=bool)  # where another time or stratum begins
    np.not_equal(t[1:], t[:-1], out=new[1:])
    if g is not None:
        new[1:] |= g[1:] != g[:-1]
    begins = np.flatnonzero(new)
    if not e.any():
        return None
    ends = np.append(begins[1:], len(t))[np.logical_or.reduceat(e, begins)]
    slot_time = t[ends - 1]
    slot_g = np.zeros(len(ends), dtype=np.int64) if g is None else g[ends - 1]
    first = np.zeros(len(t) + 1, dtype=np.int64)
    first[ends] = 1
    first = np.cumsum(first[:-1])  # the first slot whose risk set reaches as far as the row
    last = np.searchsorted(slot_g, g, side="right") if g is not None else _repeated(len(ends), len(t))
    stop = last
    if entry is not None:
        stop = _entered(entry.numpy()[order], g, slot_time, slot_g)
    live = stop > first  # at risk at some event time
    kept, before = (slice(None), None) if live.all() else (live, np.cumsum(live))

    def where(rows: np.ndarray) -> np.ndarray:
        """Their places among those that are kept."""
        return rows if before is None else before[rows] - 1

    failed = np.flatnonzero(e)
    strata = slot_g[np.flatnonzero(np.diff(slot_g, prepend=slot_g[0] - 1))]
    row_starts = np.zeros(1, dtype=np.int64) if g is None else np.searchsorted(g[kept], strata)
    late = np.flatnonzero(stop[kept] < last[kept])
    late = late[np.argsort(stop[kept][late], kind="stable")]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    return RiskSets(
        rows=tensor(order[kept]),
        first=tensor(first[kept]),
        stop=tensor(stop[kept])
        if entry is not None or g is not None
        else torch.tensor(len(ends)).expand(len(t[kept])),
        row_starts=np.append(row_starts, len(t[kept])),
        slot_starts=np.append(np.searchsorted(slot_g, strata), len(slot_g)),
        ends=tensor(where(ends - 1) + 1),
        time=tensor(slot_time),
        stratum=tensor(slot_g),
        failed=tensor(where(failed)),
        slot=tensor(first[failed]),
        late=tensor(late),
    )


def _repeated(value: int, times: int) -> np.ndarray:
    return np.broadcast_to(np.int64(value), times)


def _narrowest(codes: np.ndarray) -> type[np.generic]:
    """16 bits are sorted by radix."""
    return np.uint16 if len(codes) and codes.max() < 2**16 else np.int64


def _entered(
    entry: np.ndarray, g: np.ndarray | None, slot_time: np.ndarray, slot_g: np.ndarray
) -> np.ndarray:
    """(n,) the first slot, of those of the row's stratum in falling time, that is not after its entry."""
    if g is None or (slot_g[0] == slot_g[-1] and g[0] == g[-1]):
        out: np.ndarray = np.searchsorted(-slot_time, -entry)
        return out
    both = np.concatenate([entry, slot_time])
    which = np.concatenate([g, slot_g])
    is_slot = np.repeat([0, 1], [len(entry), len(slot_time)])
    order = np.lexsort((is_slot, -both, which))
    before = np.empty(len(both), dtype=np.int64)
    before[order] = np.cumsum(is_slot[order])
    found: np.ndarray = before[: len(entry)]
    return found
