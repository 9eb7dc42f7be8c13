"""Residuals of Cox's model of a file larger than memory, block by block: `models.cox_scores` has their sums."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..memory import reserve
from ..models.cox_pass import Joined
from ..models.cox_scores import Following, Rows
from ..models.partial import Partial
from .cox_fits import CoxFile, stratum_names

BY_ROW = ("score", "dfbeta")  # a column each coefficient


def of_martingale(kind: str, martingale: Tensor, event: Tensor) -> Tensor:
    """The residual of this kind, a number each row: events − M, or sign(M) √(−2 (M + events log(events − M))), (n,)."""
    if kind == "cox-snell":
        return event - martingale
    if kind == "deviance":
        inner = martingale + torch.special.xlogy(event, event - martingale)
        martingale = torch.sign(martingale) * (-2 * inner).clamp(min=0).sqrt()
    return martingale


def blocks(found: CoxFile, kind: str) -> Iterator[pd.DataFrame]:
    """A frame a batch, whose index is the rows' numbers in the file."""
    if "schoenfeld" in kind:
        yield from (block for block, _ in _schoenfeld(found, kind.startswith("scaled")))
        return
    inverse = found.inverse() if kind == "dfbeta" else None
    following = Following(found.streamed, found.source.batches(), found.term.weight)
    for batch, beside in found.source.beside():
        weight = found.term.weight(batch)
        rows = following.step(batch, weight)
        if kind in BY_ROW:
            values = _scores(rows, weight, inverse)
            yield pd.DataFrame(values.numpy(), beside.index, found.model.names)
        else:
            values = of_martingale(kind, rows.martingale, batch["event"])
            yield pd.DataFrame({kind: values.numpy()}, beside.index)


def _scores(rows: Rows, weight: Tensor | None, inverse: Tensor | None) -> Tensor:
    """(n, p), of one unit of weight each; with J⁻¹ dfbeta, of the row as it weighs."""
    s = rows.scores
    if inverse is None:
        return s
    return (s if weight is None else s * weight[:, None]) @ inverse


def _schoenfeld(found: CoxFile, scaled: bool) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Each batch's events, and the codes of their strata."""
    inverse, d = None, 0.0
    if scaled:  # the events' weight, which is known after a pass
        inverse = found.inverse()
        d = sum(float(partial.events.sum()) for _, partial, _ in found.steps() if partial is not None)
    for own, partial, beside in found.steps():
        if partial is None:
            continue
        values = _of_events(partial)
        values = values if inverse is None else d * values @ inverse + found.theta
        sets = partial.sets
        out = pd.DataFrame(values.numpy(), beside.index[_failed(own, partial)], found.model.names)
        out.insert(0, "time", sets.time[sets.slot].numpy())
        codes = sets.stratum[sets.slot].numpy()
        if found.model.strata is not None:
            seen, place = np.unique(codes, return_inverse=True)
            names = stratum_names(found.model, seen.tolist())
            out.insert(1, "stratum", [names[i] for i in place])
        yield out, codes


def _of_events(partial: Partial) -> Tensor:
    """x − x̄ of each event, (e, p)."""
    sets = partial.sets
    return (partial.rows.X[:, sets.failed] - partial.slot_means[:, sets.slot]).T


def _failed(own: Joined, partial: Partial) -> np.ndarray:
    """The events' places in the batch."""
    sets = partial.sets
    out: np.ndarray = (sets.rows[sets.failed] - own.first).numpy()
    return out


def collected(found: CoxFile, kind: str) -> np.ndarray | pd.DataFrame:
    """Of all rows, in the order of the file; of the kinds of Schoenfeld of all events, in rising time within strata."""
    size = found.source.frame.size
    if "schoenfeld" in kind:
        return _rising(*zip(*_schoenfeld(found, kind.startswith("scaled")), strict=True))
    names = found.model.names if kind in BY_ROW else [kind]
    reserve(
        8.0 * size * len(names),
        f"{kind} residuals of {size:,} rows",
        "thetahat.evaluation.cox_residuals.residual_blocks(fit, kind) gives them block by block.",
    )
    out = np.full((size, len(names)), np.nan)
    for block in blocks(found, kind):
        out[block.index.to_numpy()] = block.to_numpy()
    return pd.DataFrame(out, columns=names) if kind in BY_ROW else out[:, 0]


def _rising(parts: tuple[pd.DataFrame, ...], strata: tuple[np.ndarray, ...]) -> pd.DataFrame:
    out = pd.concat(parts)
    order = np.lexsort((out.index.to_numpy(), out["time"].to_numpy(), np.concatenate(strata)))
    return out.iloc[order].reset_index(drop=True)
