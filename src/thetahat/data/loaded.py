"""Data that PyTorch reads: a Dataset, a DataLoader, or a function that yields batches, as sources.

    Items     a Dataset of which any item can be asked for: shuffled, split and held out as rows in memory are
    Loaded    a DataLoader, or a function without arguments that yields batches: in its own order, in its own batches

An item or a batch is a dict of name → values; a tuple, whose parts are named in order ("x", "y"); or one tensor, the
model's target.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ..errors import BadArgument, DataError, EmptyData
from ..types import ModelLike, Plain
from .batch import Batch, split
from .source import digest

NAMES = ("x", "y")


class Items:
    """A Dataset of PyTorch, as a source.

    Parameters
    ----------
    dataset
        `len(dataset)` and `dataset[i]`
    names
        of the parts of an item that is a tuple
    target
        of an item that is one tensor; what makes the fingerprint
    collate
        items → batch; None: torch's `default_collate`
    workers
        processes that read items beside the training
    prefetch_factor
        batches that each of them reads ahead; None: torch's own, 2
    fingerprint
        a name of the data that changes when they do; None: a digest of the targets, for which all items are read
        once when a checkpoint or a comparison asks

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> source = Items(TensorDataset(torch.arange(6.0)[:, None], torch.arange(6)))
    >>> [batch["y"].tolist() for batch in source.epoch(4, torch.Generator().manual_seed(0))]
    [[2, 5, 3, 0], [1, 4]]
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        names: Sequence[str] = NAMES,
        *,
        target: str = "y",
        collate: Callable[[list[Any]], Any] | None = None,
        workers: int = 0,
        prefetch_factor: int | None = None,
        block: int = 256,
        fingerprint: str | None = None,
    ):
        if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
            raise BadArgument(
                f"Items reads len(dataset) and dataset[i], and {type(dataset).__name__} lacks them. If the data can only "
                "be read in order, give th.data.Loaded(DataLoader(dataset))."
            )
        self.dataset, self.names, self.target = dataset, tuple(names), target
        if prefetch_factor is not None and (workers < 1 or prefetch_factor < 1):
            raise BadArgument(
                f"prefetch_factor={prefetch_factor}, workers={workers}: batches are read ahead by workers. Accepted: "
                "workers=1 or more, prefetch_factor=1 or more; or None."
            )
        self.collate, self.workers, self.block = collate or default_collate, workers, block
        self.prefetch_factor = prefetch_factor
        self._rows = torch.arange(len(dataset))
        self._fingerprint = fingerprint
        if not len(self._rows):
            raise EmptyData(f"the {type(dataset).__name__} has no items.")

    @property
    def size(self) -> int:
        return len(self._rows)

    @property
    def observations(self) -> float:
        return float(self.size)

    @property
    def units(self) -> str:
        return self.target

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = _digest(self.batches(), self.target)
        return self._fingerprint

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """Every item once, in order."""
        return self._read(list(self._rows.split(self.block)))

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every item once, in an order that the generator draws."""
        order = torch.randperm(self.size, generator=generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        return self._read(list(self._rows[order].split(batch_size)), seed)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Self, Self]:
        """(what is left, about `fraction` of the items)."""
        left, out = split(Batch({"row": torch.arange(self.size)}), fraction, generator)
        return self._part(left["row"]), self._part(out["row"])

    def _part(self, rows: Tensor) -> Self:
        own = None if self._fingerprint is None else f"{self._fingerprint}[{digest(rows)}]"
        out = copy.copy(self)
        out._fingerprint = own
        out._rows = self._rows[rows]
        return out

    def _read(self, parts: list[Tensor], seed: int = 0) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=[part.tolist() for part in parts],
            num_workers=self.workers,
            prefetch_factor=self.prefetch_factor,
            collate_fn=self.collate,
            generator=torch.Generator().manual_seed(seed),  # of the workers' own seeds
        )
        return (named(batch, self.names, self.target) for batch in loader)


class Loaded:
    """A DataLoader of PyTorch, or a function that yields batches, as a source.

    A step of training takes a batch as the loader gives it: its size is the loader's, not `Stochastic(batch_size=…)`. The
    run seeds every pass, the generators of a DataLoader too, so that a run that is resumed reads the same batches.

    Parameters
    ----------
    loader
        a DataLoader; or a function without arguments whose call begins a pass
    names, target, fingerprint
        as of `Items`
    size
        rows of a pass, where the loader does not say; None: not known, or without end

    Examples
    --------
    >>> def passes():
    ...     for k in range(3):
    ...         yield {"x": torch.full((2, 1), k), "y": torch.zeros(2)}
    >>> [batch["x"].sum().item() for batch in Loaded(passes).batches()]
    [0, 2, 4]
    """

    def __init__(
        self,
        loader: DataLoader[Any] | Callable[[], Iterable[Any]],
        names: Sequence[str] = NAMES,
        *,
        target: str = "y",
        size: int | None = None,
        fingerprint: str | None = None,
    ):
        if inspect.isgenerator(loader) or isinstance(loader, Iterator):
            raise BadArgument(
                f"a {type(loader).__name__} can be read once, and training reads its data again and again. Give the "
                "function that makes it: th.data.Loaded(function), not th.data.Loaded(function())."
            )
        if not isinstance(loader, DataLoader) and not callable(loader):
            raise BadArgument(
                f"Loaded(…) takes a DataLoader, or a function that yields batches; received {type(loader).__name__}."
            )
        self.loader, self.names, self.target = loader, tuple(names), target
        self._size, self._fingerprint = size, fingerprint

    @property
    def size(self) -> int | None:
        if self._size is not None or not isinstance(self.loader, DataLoader):
            return self._size
        sampler = self.loader.sampler if self.loader.batch_sampler is not None else None
        return None if sampler is None or isinstance(self.loader.dataset, IterableDataset) else len(sampler)  # type: ignore[arg-type]

    @property
    def units(self) -> str:
        return self.target

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            if self.size is None:
                raise BadArgument(
                    "the data have no known size, so their fingerprint cannot be computed. Give one: "
                    "Loaded(…, fingerprint='a name that changes when the data change')."
                )
            self._fingerprint = _digest(self.batches(), self.target)
        return self._fingerprint

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """One pass, the same each time."""
        return self._pass(0)

    def loaded(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass, whose shuffling the generator seeds."""
        return self._pass(int(torch.randint(2**62, (), generator=generator)))

    def _pass(self, seed: int) -> Iterator[Batch]:
        for own in self._generators():
            own.manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            passed = iter(self.loader if isinstance(self.loader, DataLoader) else self.loader())
            first = next(passed, None)  # a sampler draws its seed here
        if first is None:
            raise EmptyData("the loader yielded no batches.")
        for batch in itertools.chain([first], passed):
            yield named(batch, self.names, self.target)

    def _generators(self) -> list[torch.Generator]:
        """Those that belong to the DataLoader and its samplers."""
        if not isinstance(self.loader, DataLoader):
            return []
        holders = [self.loader, self.loader.sampler, self.loader.batch_sampler]
        holders.append(getattr(self.loader.batch_sampler, "sampler", None))
        found = (getattr(each, "generator", None) for each in holders)
        return [each for each in found if isinstance(each, torch.Generator)]


def named(batch: Plain, names: Sequence[str] = NAMES, target: str = "y") -> Batch:
    """What a loader gives as a Batch.

    Raises
    ------
    DataError
        it is neither a dict, nor a tuple of as many parts as there are names, nor a tensor
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping):
        parts = dict(batch)
    elif isinstance(batch, (tuple, list)):
        if len(batch) > len(names):
            raise DataError(
                f"a batch of the loader has {len(batch)} parts, and names={tuple(names)} are {len(names)}. Name each: "
                'names=("x", "y", …).'
            )
        parts = dict(zip(names, batch, strict=False))
    else:
        parts = {target: batch}
    try:
        return Batch({str(name): torch.as_tensor(part) for name, part in parts.items()})
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = ", ".join(f"{name}: {type(part).__name__}" for name, part in parts.items())
        raise DataError(
            f"a batch of the loader holds what is not numbers ({kinds}): {error}. Encode it in the Dataset, or give "
            "a collate function."
        ) from error


def _digest(batches: Iterable[Batch], target: str) -> str:
    """The digest of the target of every batch; of the first part, where none has that name."""
    return digest(*(b[target if target in b else next(iter(b))] for b in batches))


def of_torch(data: Plain, target: str) -> Items | Loaded | None:
    """The source of a Dataset, a DataLoader or a function; None: it is none of them."""
    if isinstance(data, DataLoader) or inspect.isgenerator(data) or inspect.isfunction(data):
        loader: Any = data
        return Loaded(loader, target=target)
    if isinstance(data, IterableDataset):
        return Loaded(DataLoader(data, batch_size=128), target=target)
    if isinstance(data, Dataset):
        return Items(data, target=target)
    return None
