"""Minibatches: how a source is divided among the steps of a training run, and what of it is held out.

rows in memory          a new order each epoch, cut into batches: without replacement, so an epoch sees every row once
with an epoch of its own  the source yields every term once, in an order drawn from the run's generator
(windows of a text)
read from a file        block by block; the rows within a block in a new order
drawn from the model    a pass of `source.batches(model)` anew each step, whole: what it draws is as old as θ. A source that deals what it has
                        drawn out to several steps (PPO's epochs, a replay) has an endless `minibatches(model)`, a batch a step, and itself
                        draws with the model in evaluation mode (`data.source.evaluating`)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.batch import Batch, concatenate
from ..data.processes import gathered, replicated, share, world
from ..data.source import Source, Tensors, evaluating
from ..errors import BadArgument, EmptyData
from ..likelihood import LogLikelihood
from ..likelihood.total import spread
from ..protocols import HasEpoch, HasMinibatches, HasOwnBatches, HasWhole, Remarks, is_drawn
from ..types import ModelLike, SourceLike


@dataclass
class Feed:
    """A source, the terms that share its batches, and the batches to come: a list a step.

    `observations` is Σ count of a pass, the N of the source; None where it is drawn from the model (then it
    is the batch's own) or not known. `drawn`: from the model. `replicated`: every process deals the same
    batches, of which each takes its share of the rows.
    """

    terms: list[LogLikelihood]
    batches: Iterator[list[Batch]]
    observations: float | None
    rows: int | None
    drawn: bool
    replicated: bool = True

    def __post_init__(self) -> None:
        source = self.terms[0].source
        self._remarks = source if isinstance(source, Remarks) else None  # asked once, and not at every step

    @property
    def remark(self) -> str:
        """What the source says of the data that it drew, for the certificate."""
        return "" if self._remarks is None else self._remarks.remark

    @property
    def finished(self) -> bool:
        """Whether nothing more can be learnt from what the source draws."""
        return self._remarks is not None and self._remarks.finished


Drawn = Sequence[tuple[Feed, Sequence[Batch]]]  # the batches of one step


def whole(source: Source) -> Batch | None:
    """All rows of a source that holds them in memory."""
    own = source.whole if isinstance(source, HasWhole) else None
    return own if isinstance(own, Batch) else None


def feeds(
    terms: list[LogLikelihood],
    batch_size: int,
    generator: torch.Generator,
    kept: dict[int, Batch | Source],
    least: int = 1,
) -> list[Feed]:
    """One feed a source.

    Parameters
    ----------
    kept
        what is left of a source, by its id, of which a part is held out
    least
        rows of a batch; a last batch of fewer joins the one before it
    """
    shared: dict[int, list[LogLikelihood]] = {}
    for term in terms:
        shared.setdefault(id(term.source), []).append(term)
    out: list[Feed] = []
    for key, group in shared.items():
        source, model = group[0].source, group[0].model
        left = kept.get(key, source)
        rows = left if isinstance(left, Batch) else whole(left)
        alike = replicated(source)
        size = batch_size if alike else max(1, batch_size // world())
        if is_drawn(source):
            out.append(Feed(group, _drawn(source, model), None, None, True))
        elif isinstance(left, HasEpoch):
            out.append(
                Feed(
                    group,
                    _minibatches(left, size, generator, least),
                    float(left.observations),
                    left.size,
                    False,
                    alike,
                )
            )
        elif rows is not None:
            out.append(
                Feed(group, _shuffled(rows, size, generator, least), rows.total, len(rows), False, alike)
            )
        elif isinstance(left, HasOwnBatches):
            out.append(Feed(group, _loaded(left, generator), left.size, left.size, False, alike))
        else:
            N = _observations(source, model)
            out.append(
                Feed(group, _streamed(source, model, size, generator, least), N, source.size, False, alike)
            )
    return out


def pieces(batch: Batch, many: int) -> Iterator[slice]:
    """The rows of a batch in so many parts of nearly equal length."""
    edges = torch.linspace(0, len(batch), min(many, len(batch)) + 1).round().long().tolist()
    return (slice(a, b) for a, b in itertools.pairwise(edges))


def held_out_nats(
    log_prob: Callable[[Batch], Tensor], source: Source | Batch, model: ModelLike = None, rows: int = 4096
) -> tuple[float, float, float]:
    """Mean log p of a term, its standard error, and Σ count. Each process scores its share of the rows.

    Independent are the groups that a batch names (documents), else a table's rows, or the sequences of a (B,
    T) batch.

    Parameters
    ----------
    rows
        of a batch in memory that are scored at once
    """
    values, counts, units = [], [], []
    at, named = 0, False
    for whole in (
        Tensors(source, block=rows, copy=False).batches()
        if isinstance(source, Batch)
        else source.batches(model)
    ):
        unit = whole.group.cpu() if whole.grouped else at + whole.group
        batch, unit = share(whole), share(Batch({"unit": unit}, dims=len(whole.shape)))["unit"]
        count = batch.count.to("cpu", torch.float64)
        with torch.no_grad():
            found = log_prob(batch).to("cpu", torch.float64)
        values.append(torch.where(count == 0, 0.0, found).reshape(-1))
        counts.append(count.reshape(-1))
        units.append(unit.reshape(-1))
        named = named or whole.grouped or len(whole.shape) > 1
        at += len(whole)
    x, c, unit = gathered(torch.cat(values), torch.cat(counts), torch.cat(units))
    n = float(c.sum())
    if n == 0:
        raise EmptyData("the held-out data count nothing.")
    mean = float((c * x).sum() / n)
    error = (
        spread(x, c, unit if named else None) / n
    )  # of rows of a table a count is so many independent ones
    return mean, error, n


def _shuffled(rows: Batch, size: int, generator: torch.Generator, least: int) -> Iterator[list[Batch]]:
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for batch in _joined((rows[part] for part in order.split(size)), least):
            yield [batch]


def _joined(batches: Iterator[Batch], least: int) -> Iterator[Batch]:
    """A last batch of fewer rows than `least` with the one before it."""
    if least == 1:
        yield from batches
        return
    held = None
    for batch in batches:
        if held is not None and len(batch) >= least:
            yield held
        held = batch if held is None or len(batch) >= least else concatenate([held, batch])
    if held is not None:
        if len(held) < least:
            raise BadArgument(
                f"a batch has {len(held)} rows, and batch norm needs {least}: the variance of fewer is not "
                "known."
            )
        yield held


def _streamed(
    source: Source, model: nn.Module, size: int, generator: torch.Generator, least: int
) -> Iterator[list[Batch]]:
    while True:
        empty = True
        for block in source.batches(model):
            empty = False
            order = torch.randperm(len(block), generator=generator)
            for batch in _joined((block[part] for part in order.split(size)), least):
                yield [batch]
        if empty:
            raise EmptyData("the source yielded no batches.")


def _minibatches(
    source: SourceLike, size: int, generator: torch.Generator, least: int
) -> Iterator[list[Batch]]:
    while True:
        for batch in _joined(source.epoch(size, generator), least):
            yield [batch]


def _loaded(source: HasOwnBatches, generator: torch.Generator) -> Iterator[list[Batch]]:
    while True:
        for batch in source.loaded(generator):
            yield [batch]


def _drawn(source: SourceLike, model: nn.Module) -> Iterator[list[Batch]]:
    if isinstance(source, HasMinibatches):
        for batch in source.minibatches(model):
            yield [batch]
    while True:
        with evaluating(model):
            found = list(source.batches(model))
        yield found


def _observations(source: Source, model: nn.Module) -> float | None:
    """Σ count of a pass, or None where a pass has no end."""
    return None if source.size is None else sum(batch.total for batch in source.batches(model))


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])
