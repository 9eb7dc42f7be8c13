"""Noised: a source of which every term gets a time t, so that a weighting can see it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..data.batch import Batch, split
from ..data.source import Source, Tensors
from ..errors import BadArgument
from ..protocols import (
    HasEpoch,
    HasWhole,
    Splits,
    levels_of,
    log_determinant_of,
    shape_of,
    target_of,
    units_of,
)
from ..types import ModelLike


class Noised:
    """Every term of a source with a time t, drawn anew each epoch: a term of a diffusion's training objective
    is (x, t).

        t_i = (u + i/n) mod 1,      u uniform, i the place in a batch of n, in which the order is random

    Each t_i is uniform, and a batch covers [0, 1] evenly. What is held out of a `Noised` has no t: it is
    scored by the bound itself, whatever the weights. A pass (`batches`) has times from the seed alone.

    Parameters
    ----------
    source
        in memory (`Tensors`, `Images`), or one that deals out its own epochs (`Binarised`)
    seed
        of the times of a pass

    Raises
    ------
    BadArgument
        a source of neither kind

    References
    ----------
    Kingma, Salimans, Poole and Ho (2021), Variational diffusion models, §I.1.

    Examples
    --------
    >>> noised = Noised(Tensors({"y": torch.zeros(4, 2)}))
    >>> t = next(noised.epoch(4, torch.Generator().manual_seed(0)))["t"].sort().values
    >>> (t[1:] - t[:-1]).tolist()
    [0.25, 0.25, 0.25]
    """

    def __init__(self, source: Source, seed: int = 0):
        if _rows(source) is None and not isinstance(source, HasEpoch):
            raise BadArgument(
                f"Noised(source): a {type(source).__name__} is read as it streams. Accepted: a source in "
                "memory, Binarised."
            )
        self.source, self.seed = source, seed

    @property
    def size(self) -> int | None:
        return self.source.size

    @property
    def observations(self) -> float:
        rows = _rows(self.source)
        return rows.total if rows is not None else self.source.observations  # type: ignore[attr-defined]

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def units(self) -> str:
        return self.source.units

    @property
    def target(self) -> str:
        return target_of(self.source)

    @property
    def levels(self) -> int | None:
        """Of a pixel, None: real numbers."""
        return levels_of(self.source)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one image, None: vectors."""
        return shape_of(self.source)

    @property
    def scored_in(self) -> str:
        return units_of(self.source)

    def log_determinant(self, batch: Batch) -> Tensor | None:
        return log_determinant_of(self.source, batch)

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """One pass, its times fixed by the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        return (_timed(batch, generator, shuffled=True) for batch in self.source.batches(model))

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every term once, in an order and at times that the generator draws."""
        if isinstance(self.source, HasEpoch):
            for batch in self.source.epoch(batch_size, generator):
                yield _timed(batch, generator)
            return
        rows = _rows(self.source)
        assert rows is not None
        for part in torch.randperm(len(rows), generator=generator).split(batch_size):
            yield _timed(rows[part], generator)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Noised, Source]:
        """(what is left, what is held out, which has no t). Rows of one group stay together."""
        if isinstance(self.source, Splits):
            left, out = self.source.split(fraction, generator)
            return Noised(left, self.seed), out
        rows = _rows(self.source)
        assert rows is not None
        kept, held = split(rows, fraction, generator)
        return Noised(Tensors(kept, target=self.target, copy=False), self.seed), Tensors(
            held, target=self.target, copy=False
        )


def _rows(source: Source) -> Batch | None:
    """All rows of a source that holds them in memory."""
    return source.whole if isinstance(source, HasWhole) else None


def _timed(batch: Batch, generator: torch.Generator, shuffled: bool = False) -> Batch:
    """The batch with "t", (n,); `shuffled` where its order is not random."""
    n = len(batch)
    place = torch.randperm(n, generator=generator) if shuffled else torch.arange(n)
    t = (torch.rand((), generator=generator, dtype=torch.float32) + place.to(torch.float32) / n) % 1
    return Batch(
        {**batch.tensors, "t": t},
        count=batch.count if batch.counted else None,
        group=batch.group if batch.grouped else None,
    )
