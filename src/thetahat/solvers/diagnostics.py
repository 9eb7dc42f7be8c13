"""What people ask of held-out data besides log p, by what the model and its data are: accuracy of a classifier; perplexity
and bits per byte of text.

    perplexity = e^(−m),      bits per byte = −m / (b log 2),      m nats a token, b bytes a token
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source, Tensors
from ..likelihood import LogLikelihood
from ..likelihood.total import spread
from ..protocols import CountsBytes, Diagnoses


def diagnosed(
    term: LogLikelihood, held_out: Source | Batch, mean: float, prepare: Callable[[Batch], Batch], rows: int
) -> dict[str, float]:
    """name → value, and NAME_error → its standard error where it is a mean over terms.

    Parameters
    ----------
    mean
        nats a term of the held-out data
    prepare
        brings a batch to where the model is
    rows
        of a batch in memory that are asked for at once
    """
    out: dict[str, float] = {}
    source = Tensors(held_out, block=rows, copy=False) if isinstance(held_out, Batch) else held_out
    if isinstance(term.model, Diagnoses):
        counts: list[Tensor] = []
        values: dict[str, list[Tensor]] = {}
        for batch in source.batches(term.model):
            counts.append(batch.count.to("cpu", torch.float64).reshape(-1))
            with torch.no_grad():
                for name, each in term.model.diagnostics(prepare(batch)).items():
                    values.setdefault(name, []).append(each.to("cpu", torch.float64).reshape(-1))
        c = torch.cat(counts)
        for name, parts in values.items():
            v = torch.cat(parts)
            out[name] = float((c * v).sum() / c.sum())
            out[f"{name}_error"] = spread(v, c) / float(c.sum())
    if term.source.units == "token":
        out["perplexity"] = math.exp(min(-mean, 700.0))
        if isinstance(source, CountsBytes):
            out |= _per_byte(source, mean)
    return out


def _per_byte(source: CountsBytes, mean: float) -> dict[str, float]:
    read: Source = source  # type: ignore[assignment]
    total, terms = 0.0, 0.0
    for batch in read.batches():
        each = source.bytes(batch)
        if each is None:
            return {}
        total, terms = total + float((each * batch.count).sum()), terms + batch.total
    return {"bits_per_byte": -mean * terms / total / math.log(2)} if total else {}
