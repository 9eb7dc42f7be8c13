"""Noised: a source of which every term gets a time t, so that a weighting can see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..data.batch import Batch, split
from ..data.source import Source, Tensors
from ..errors import BadArgument


class Noised:
    """Every term of a source with a time t, drawn anew each epoch: a term of a diffusion's training objective is (x, t).

        t_i = (u + i/n) mod 1,      u uniform, i the place in a batch of n, in which the order is random

    Each t_i is uniform, and a batch covers [0, 1] evenly. What is held out of a `Noised` has no t: it is scored by the bound itself, whatever the
    weights. A pass (`batches`) has times from the seed alone.

    Parameters
    ----------
    source : in memory (`Tensors`, `Images`), or one that deals out its own epochs (`Binarised`)
    seed : of the times of a pass

    Raises
    ------
    BadArgument : a source of neither kind

    Source: Kingma, Salimans, Poole and Ho (2021), Variational diffusion models, §I.1.

    >>> noised = Noised(Tensors({"y": torch.zeros(4, 2)}))
    >>> t = next(noised.epoch(4, torch.Generator().manual_seed(0)))["t"].sort().values
    >>> (t[1:] - t[:-1]).tolist()
    [0.25, 0.25, 0.25]
    """

    def __init__(self, source: Source, seed: int = 0):
        if not isinstance(getattr(source, "whole", None), Batch) and not hasattr(source, "epoch"):
            raise BadArgument(
                f"Noised(source): a {type(source).__name__} is read as it streams. Accepted: a source in memory, Binarised."
            )
        self.source, self.seed = source, seed

    @property
    def size(self) -> int | None:
        return self.source.size

    @property
    def observations(self) -> float:
        whole = getattr(self.source, "whole", None)
        return whole.total if isinstance(whole, Batch) else self.source.observations  # type: ignore[attr-defined]

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def units(self) -> str:
        return self.source.units

    @property
    def target(self) -> str:
        return getattr(self.source, "target", "y")

    def __getattr__(self, name: str) -> Any:
        """What else a score or a model asks of the data."""
        if name in ("log_determinant", "scored_in", "levels", "shape"):
            return getattr(self.source, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def batches(self, model: Any = None) -> Iterator[Batch]:
        """One pass, its times fixed by the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        return (_timed(batch, generator, shuffled=True) for batch in self.source.batches(model))

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every term once, in an order and at times that the generator draws."""
        own = getattr(self.source, "epoch", None)
        if own is not None:
            for batch in own(batch_size, generator):
                yield _timed(batch, generator)
            return
        rows: Batch = self.source.whole  # type: ignore[attr-defined]
        for part in torch.randperm(len(rows), generator=generator).split(batch_size):
            yield _timed(rows[part], generator)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Noised, Source]:
        """(what is left, what is held out, which has no t). Rows of one group stay together."""
        own = getattr(self.source, "split", None)
        if own is not None:
            left, out = own(fraction, generator)
            return Noised(left, self.seed), out
        kept, held = split(self.source.whole, fraction, generator)  # type: ignore[attr-defined]
        return Noised(Tensors(kept, target=self.target, copy=False), self.seed), Tensors(held, target=self.target, copy=False)


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
