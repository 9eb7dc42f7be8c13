"""What was not finite in a step or an evaluation: the value, what its model accepts, and the row of the
data in which it stands."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..likelihood import LogLikelihood
from ..models.base import family_of
from ..protocols import Wraps, levels_of, target_of
from ..types import ModelLike, Plain, SourceLike
from .minibatches import whole

CORRECT = "Correct or leave out these rows, or choose a family whose support holds them."
COMPLETE = "Every value must be finite: leave out these rows, or fill in what is missing."
LOWER = "Lower the learning rate, or bound the steps (clip=1.0)."


class Failure(NamedTuple):
    """Why a training run cannot go on, and what to do about it."""

    why: str
    advice: str


def failure_of(
    log_prob: Tensor, batch: Batch, term: LogLikelihood, source: Source | Batch | None = None
) -> Failure | None:
    """The first term whose log p is not finite; None: all are.

    Parameters
    ----------
    source
        in which the rows of the batch stand, where it is not the term's own
    """
    log_prob = log_prob.cpu()
    bad = ~torch.isfinite(log_prob) & (batch.count.cpu() > 0)
    if not bool(bad.any()):
        return None
    at = tuple(torch.nonzero(bad)[0].tolist())
    where = _where(term.source if source is None else source, batch, at[0])
    place = where if len(at) == 1 else f"{where}, position {at[1]}"
    what = f"log p is {float(log_prob[at])} for {int(bad.sum())} of {bad.numel()} terms of the batch, the first in {place}."
    missing = _not_finite(batch, at[0], where)
    if missing:
        return Failure(f"{what} {missing}", COMPLETE)
    outside = _outside(term.model, batch, at[0], where)
    if outside:
        return Failure(f"{what} {outside}", CORRECT)
    return Failure(
        f"{what} The data of that row are finite and possible: it is the model's outputs that are not.", LOWER
    )


def cause(term: LogLikelihood, batch: Batch, i: int) -> str:
    """What of the data of row i of a batch makes its log p infinite or NaN, whatever θ; nothing, where it is
    none of them."""
    where = _where(term.source, batch, i)
    found = _not_finite(batch, i, where) or _outside(term.model, batch, i, where)
    return f" ({found.rstrip('.')})" if found else ""


def _where(source: SourceLike, batch: Batch, i: int) -> str:
    """The row of the data that is row i of a batch, where the data are in memory."""
    rows = source if isinstance(source, Batch) else whole(source)
    while rows is None and isinstance(source, Wraps):  # of a source that changes another's rows
        source = source.source
        rows = whole(source)
    if rows is None or rows.shape[1:] != batch.shape[1:]:
        return f"row {i} of the batch"
    same = torch.ones(len(rows), dtype=torch.bool)
    for name, own in rows.tensors.items():
        other = batch.tensors.get(name)
        if other is None or other.shape[1:] != own.shape[1:] or other.dtype != own.dtype:
            continue
        alike = own == other[i].to(own.device)
        if own.is_floating_point():
            alike |= torch.isnan(own) & torch.isnan(other[i].to(own.device))
        narrower = same & alike.reshape(len(rows), -1).all(1).cpu()
        same = narrower if bool(narrower.any()) else same  # what was changed at random is in no row
    return (
        f"row {int(torch.nonzero(same)[0, 0])} of the data"
        if not bool(same.all()) or len(same) == 1
        else f"row {i} of the batch"
    )


def _not_finite(batch: Batch, i: int, where: str) -> str:
    """Which of the row's data are no numbers, if any."""
    for name, t in batch.tensors.items():
        if not t.is_floating_point() or bool(torch.isfinite(t[i]).all()):
            continue
        at = torch.nonzero(~torch.isfinite(t[i]))[0].tolist()
        column = f", column {at[0]}" if len(at) == 1 else f", at {at}" if at else ""
        many = int((~torch.isfinite(t)).sum())
        return f"The data hold {float(t[i][tuple(at)])} in {name!r} in {where}{column} ({many} such values in the batch)."
    return ""


def _outside(model: ModelLike, batch: Batch, i: int, where: str) -> str:
    """Which value of the row its model gives probability zero, whatever θ."""
    name: str = target_of(model)
    family, levels = family_of(model), levels_of(model)
    if name not in batch or (family is None and levels is None):
        return ""
    y = batch[name]
    if family is not None:
        inside = family.in_support(y, **{key: batch[key] for key in family.extras if key in batch})
        accepted = f"{family}'s support, {family.support}"
    else:
        assert levels is not None
        inside = (y >= 0) & (y <= levels - 1) & (y == torch.floor(y))
        accepted = f"the levels 0 … {levels - 1}"
    if bool(inside[i].all()):
        return ""
    at = tuple(torch.nonzero(~inside[i])[0].tolist())
    value: Plain = y[i][at]
    shown = f"{float(value):g}" if value.ndim == 0 else f"{value.tolist()}"
    column = f", column {at[0]}" if len(at) == 1 else ""
    hint = ""
    if (
        family is not None
        and family.categories
        and int(y.min()) >= 1
        and float(y.max()) == family.support.high + 1
    ):
        hint = f" Categories are numbered from 0: {name} − 1."
    return f"{name!r} is {shown} in {where}{column}, outside {accepted}.{hint}"


def comparable(value: float) -> bool:
    """A mean over held-out rows that can be compared: −∞ is a verdict of the model, NaN and +∞ are none."""
    return not (math.isnan(value) or value == math.inf)
