"""What a likelihood of one's own with latent variables reads of a table: its grouping factors, its steps, and the terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.frame import Frame
from ..data.random_terms import Grouping, build_grouping
from ..data.source import Source
from ..errors import BadArgument, UnknownColumn
from ..types import Data
from .custom import Latent
from .elimination import Array
from .random_effects import Random
from .scales import STRUCTURES, Diagonal
from .series import OneGroup, labels, series_of


def columns_of(data: Data) -> Data:
    """A batch as its columns."""
    if isinstance(data, Batch):
        return {name: t.numpy() for name, t in data.tensors.items()}
    if isinstance(data, Source):
        raise BadArgument(
            f"a {type(data).__name__} yields batches, and the groups of latent variables are read from a table. Give the "
            "table, or a dict of columns."
        )
    return data


def numbers_of(frame: Frame, by: Sequence[str]) -> dict[str, Tensor]:
    """Those grouping columns that hold numbers, which the function may read too."""
    out: dict[str, Tensor] = {}
    for name in by:
        values = frame.read([name])[name]
        if values.dtype.kind in "iuf":
            out[name] = torch.from_numpy(values.to_numpy(dtype=np.float64, copy=True))
    return out


def groupings_of(latents: Mapping[str, Latent], frame: Frame) -> list[Grouping]:
    out: dict[tuple[str, ...], Grouping] = {}
    for name, latent in latents.items():
        missing = next((c for c in latent.by if c not in frame.columns), None)
        if missing is not None:
            raise UnknownColumn.named(missing, list(frame.columns), where=f"{name}=th.latent(by=…)")
        if latent.along is not None and latent.along not in frame.columns:
            raise UnknownColumn.named(latent.along, list(frame.columns), where=f"{name}=th.latent(along=…)")
        if not latent.by:
            out[factor_of(latent)] = OneGroup.of(str(latent.along))
        elif latent.by not in out:
            out[latent.by] = build_grouping(latent.by, frame, f"{name}=th.latent(by={':'.join(latent.by)!r})")
    return list(out.values())


def factor_of(latent: Latent) -> tuple[str, ...]:
    """What tells its grouping factor from others."""
    return latent.by or (f"along {latent.along}",)


def terms_of(
    latents: Mapping[str, Latent], groupings: Sequence[Grouping], steps: Mapping[str, Array]
) -> list[Random]:
    factors = list(dict.fromkeys(factor_of(latent) for latent in latents.values()))
    largest = max(range(len(groupings)), key=lambda i: groupings[i].size)
    out = []
    for name, latent in latents.items():
        source, width = factors.index(factor_of(latent)), len(latent.sd)
        label = groupings[source].label
        if latent.along is not None:
            series = series_of(name, latent, steps[name])
            out.append(
                Random(name, label, labels(latent, steps[name]), series, -1, source, f"({name} | {label})")
            )
            continue
        if width > 1 and groupings[source].size < groupings[largest].size:
            raise BadArgument(
                f"{name}=th.latent(by={label!r}) has {width} dimensions. Accepted: several dimensions of "
                f"the factor with the most groups, {groupings[largest].label!r}; of any other factor, one dimension."
            )
        effects = (name,) if width == 1 else latent.names or tuple(f"{name}[{i}]" for i in range(width))
        structure = Diagonal(1) if width == 1 else STRUCTURES[latent.covariance](width)
        out.append(Random(name, label, effects, structure, -1, source, f"({name} | {label})"))
    return out
