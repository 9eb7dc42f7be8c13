"""Data from what the user has: a table, an array, tensors, a Batch; with a formula's or a family's
regression, or as a model reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Batch, Source, Tensors
from ..data.loaded import of_torch
from ..data.source import is_table
from ..errors import BadArgument, UnknownColumn, WrongType
from ..families.base import Family
from ..protocols import ReadsData, target_of
from ..types import Data, Settings
from .custom import Custom, WithTexts


def need(data: Data, what: str) -> None:
    """Raise BadArgument where there are no data."""
    if data is None:
        raise BadArgument(f"{what} needs data: fit(…, data).")


def density_of(
    family: Family, data: Data, weights: str | None, parameters: Settings, missing: str
) -> tuple[nn.Module, Source]:
    """A family fitted to y alone: the regression of y on nothing, every constant on its own scale."""
    from ..data.frame import Frame
    from .formulas import regression

    if is_table(data) or isinstance(data, Frame):
        frame = Frame(data)
        rest = [c for c in frame.columns if c != weights and c not in parameters.values()]
        if len(rest) != 1:
            raise BadArgument(
                f"{family} describes one column, and the data have {', '.join(rest)}. Name it: fit('y ~ 1', "
                "…), or pass data[['y']]."
            )
        name: str = rest[0]
    else:
        array = np.asarray(data.detach() if isinstance(data, Tensor) else data)
        if array.ndim == 0:
            raise BadArgument(f"{family} is fitted to observations, an array of them; received {data!r}.")
        if array.ndim != 1:
            from .density import density

            if weights is not None:
                raise BadArgument(
                    f"weights={weights!r} names a column, and an array has none. Give a model and a Batch "
                    "with counts."
                )
            if parameters:
                raise BadArgument(
                    f"{next(iter(parameters))}= cannot be given with an array of vectors: every parameter is "
                    "a constant to be fitted."
                )
            return density(family, array)
        frame, name = Frame({"y": array}), "y"
    built, source = regression(
        f"`{name}` ~ 1", frame, family, parameters=parameters, weights=weights, missing=missing
    )
    built.density = True
    return built, source


def source_of(data: Data, model: nn.Module, weights: str | None) -> Source:
    """A source from what a model is given: a Source, a Batch, a dict of tensors, or a table of numbers."""
    if isinstance(data, (Source, Batch)) and weights is not None:
        raise BadArgument(
            f"weights={weights!r} names a column, and a {type(data).__name__} has its own counts: Batch(…, "
            "count=…)."
        )
    if isinstance(data, Source):
        return data
    need(data, "a model")
    if isinstance(data, Batch):
        return Tensors(data, target=target_of(model))
    loaded = of_torch(data, target_of(model))
    if loaded is not None:
        if weights is not None:
            raise BadArgument(
                f"weights={weights!r} names a column, and a {type(data).__name__} has none. Give batches with counts: "
                "th.data.Loaded(function) of th.data.Batch(…, count=…)."
            )
        return loaded
    found = model.source(data, weights) if isinstance(model, ReadsData) else None
    if found is not None:
        return found
    if isinstance(data, Mapping) and all(isinstance(v, (Tensor, np.ndarray)) for v in data.values()):
        tensors = {k: _tensor(k, v) for k, v in data.items()}
        if isinstance(model, Custom):
            tensors = {k: v.to(torch.float64) if v.is_floating_point() else v for k, v in tensors.items()}
    else:
        from ..data.frame import Frame
        from ..data.table import numeric_tensors, texts_of

        frame = Frame(data)
        texts = texts_of(frame) if isinstance(model, Custom) else []
        tensors = numeric_tensors(frame, [name for name in frame.columns if name not in texts])
        if isinstance(model, Custom) and texts and tensors:
            with torch.no_grad(), contextlib.suppress(UnknownColumn):  # rows to predict may lack the response
                model.log_prob(WithTexts(tensors, texts))
    if weights is not None and weights not in tensors:
        raise UnknownColumn.named(weights, tensors, where="weights=")
    count = None if weights is None else tensors.pop(weights)
    return Tensors(tensors, count=count, target=target_of(model))


def _tensor(name: str, value: Tensor | np.ndarray) -> Tensor:
    """An array of one value or more a row. As pandas hands it out it is read-only, and torch takes no such
    memory: it is copied."""
    if value.ndim == 0:
        raise BadArgument(f"{name!r} is one number: give one value a row.")
    try:
        return torch.as_tensor(
            value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value
        )
    except TypeError as error:
        raise WrongType(
            f"{name!r} is an array of type {value.dtype}, and a model reads numbers. Encode it, or leave it "
            "out."
        ) from error
