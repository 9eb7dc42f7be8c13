"""Transformed: observations seen through one-to-one maps, and scored as what was observed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, NotFinite
from ..protocols import HasWhole, log_determinant_of, units_of
from ..types import Data, ModelLike
from . import maps as _maps
from .batch import Batch
from .maps import Map
from .source import Source, Tensors, is_table


class Transformed:
    """The batches of a source with t = f_m(… f_1(x)) in place of the observations x.

        log p(x) = log p(t) + log |det ∂t/∂x|

    A model is fitted to t, and a score adds the log-determinant: it is a density of x, per unit of x, on the
    fingerprint of x, and compares with that of a model of x itself. Means and scales are learnt from these
    data, once; `like(other)` maps other data by the same constants.

    Parameters
    ----------
    data
        an array (n, d) or (n,), a table of numbers (its columns in their order), or a source
    maps
        "standardise", "whiten", "log", "logit", or a map such as `th.data.maps.Log(columns=(0, 2))`, in the
        order in which they are applied
    target
        the tensor that is mapped

    Raises
    ------
    OutOfSupport
        the first row, and its column, that a map cannot take
    NotFinite, DataError
        a value that is not a number; a column without a scale
    BadArgument
        no map, or an unknown one

    Examples
    --------
    >>> x = torch.tensor([[1.0, 10.0], [2.0, 30.0], [4.0, 20.0]], dtype=torch.float64)
    >>> source = Transformed(x, "log", "standardise")
    >>> source.units, source.scored_in, source.whole["y"].mean(0).abs().max() < 1e-12
    ('standardise(log(y))', 'y', tensor(True))
    >>> torch.allclose(source.restore(source.whole["y"]), x)
    True
    """

    def __init__(self, data: Data, *maps: str | Map, target: str = "y"):
        if not maps:
            raise BadArgument(
                f"Transformed(data, map, …): no map is given. Accepted: {', '.join(map(repr, _maps.NAMED))}."
            )
        self.target = target
        self.inner = _source(data, target)
        x, count = _observations(self.inner, target)
        learnt: list[Map] = []
        for each in _maps.named(maps):
            each.refuse(x)
            learnt.append(each.learnt(x, count))
            x = learnt[-1].forward(x)
        self.maps = tuple(learnt)
        self._whole: Batch | None = None

    def like(self, data: Data) -> Transformed:
        """Other data through the same maps, with the constants of these."""
        out = object.__new__(Transformed)
        out.target, out.maps, out._whole = self.target, self.maps, None
        out.inner = _source(data, self.target)
        x = _observations(out.inner, self.target)[0]
        for each in self.maps:
            each.refuse(x)
            x = each.forward(x)
        return out

    # ---- a source ------------------------------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        return self.inner.size

    @property
    def fingerprint(self) -> str:
        """Of what was observed."""
        return self.inner.fingerprint

    @property
    def units(self) -> str:
        name = self.inner.units
        for each in self.maps:
            name = f"{each}({name})"
        return name

    @property
    def scored_in(self) -> str:
        """What a density is per once `log_determinant` has been added."""
        return units_of(self.inner)

    @property
    def whole(self) -> Batch | None:
        """All rows mapped, where the inner source holds them in memory."""
        own = self.inner.whole if isinstance(self.inner, HasWhole) else None
        if self._whole is None and isinstance(own, Batch):
            self._whole = self._mapped(own)
        return self._whole

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        if self.whole is not None:
            yield from Tensors(self.whole, target=self.target, copy=False).batches(model)
            return
        for batch in self.inner.batches(model):
            yield self._mapped(batch)

    def log_determinant(self, batch: Batch) -> Tensor:
        """log |det ∂t/∂x| of each row of a batch of this source, (n,)."""
        x, total = _maps.inverse(self.maps, batch[self.target])
        more = log_determinant_of(self.inner, _replaced(batch, self.target, x))
        return total if more is None else total + more

    def restore(self, t: Tensor | np.ndarray) -> Tensor:
        """x of t: what a model of t drew, in the units of what was observed."""
        return _maps.inverse(self.maps, torch.as_tensor(t, dtype=torch.float64))[0]

    def _mapped(self, batch: Batch) -> Batch:
        return _replaced(
            batch, self.target, _maps.forward(self.maps, batch[self.target].to(torch.float64))[0]
        )


def observations(data: Data, target: str = "y") -> Tensors:
    """An array (n, d) or (n,), or a table of numbers whose columns are the components, as a source of
    vectors.

    Examples
    --------
    >>> observations({"a": [1.0, 2.0], "b": [3.0, 4.0]}).whole["y"].tolist()
    [[1.0, 3.0], [2.0, 4.0]]
    """
    if is_table(data):
        from .frame import Frame  # brings pandas
        from .table import numeric_tensors

        columns = numeric_tensors(Frame(data))
        return Tensors({target: torch.stack(list(columns.values()), -1)}, target=target, copy=False)
    array = np.asarray(data.detach().cpu() if isinstance(data, Tensor) else data)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        raise BadArgument(
            f"observations are an array of numbers, (n,) or (n, d); received {array.dtype} of shape "
            f"{array.shape}."
        )
    return Tensors({target: torch.tensor(array, dtype=torch.float64)}, target=target, copy=False)


def _source(data: Data, target: str) -> Source:
    if isinstance(data, Batch):
        return Tensors(data, target=target)
    return data if isinstance(data, Source) else observations(data, target)


def _observations(source: Source, target: str) -> tuple[Tensor, Tensor]:
    """x and its count, all rows; a value that is not a number is named."""
    found = [(b[target].to(torch.float64), b.count.to(torch.float64)) for b in source.batches()]
    x = torch.cat([part for part, _ in found])
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        at = torch.nonzero(bad)[0].tolist()
        where = f"row {at[0]}" + (f", column {at[1]}" if len(at) > 1 else "")
        raise NotFinite(
            f"{where} of {target!r} is {float(x[tuple(at)])}. Every value must be finite ({int(bad.sum())} "
            "are not)."
        )
    return x, torch.cat([count for _, count in found])


def _replaced(batch: Batch, name: str, value: Tensor) -> Batch:
    """The batch with one tensor changed."""
    return Batch(
        {**batch.tensors, name: value},
        count=batch.count if batch.counted else None,
        group=batch.group if batch.grouped else None,
        dims=len(batch.shape),
    )
