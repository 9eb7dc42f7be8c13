"""What a fitted hidden Markov model says of its states, and of the rows to come.

    decode      P(z_t = k | y), given all of y, and the most probable path argmax_z p(z | y)
    forecast    P(z_{T+h} = k | y_1 … y_T) = φ_T A^h, and of y then: a mixture of the states' families
    tails       P(y_t < y | y_1 … y_{t−1}), from which quantile residuals are made

References
----------
Zucchini, MacDonald and Langrock (2016), Hidden Markov Models for Time Series, 2nd ed., ch. 5 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..models import HMM, Regression
from ..models.chain_layout import Array
from ..models.hidden_paths import viterbi
from ..models.sequences import Sequences, ahead
from ..types import Data, ModelLike

HALVINGS = 200


def hidden(model: ModelLike, what: str) -> HMM:
    """The model, if it is a hidden Markov model.

    Raises
    ------
    BadArgument
    """
    if not isinstance(model, HMM):
        raise BadArgument(
            f"{what}() is of hidden Markov models (th.models.HMM), whose rows have states; the model is a "
            f"{type(model).__name__}."
        )
    return model


def decode(model: HMM, source: Source) -> pd.DataFrame:
    """The states of each row, in the order of the rows: columns state (of the most probable path), and P(1), P(2), …

    Parameters
    ----------
    source
        with the response
    """
    batch = next(iter(source.batches(model)))
    passed = model.passed(batch)
    layout, x = passed.layout, model.design(batch)
    with torch.no_grad():
        log_b = model.emissions(batch).numpy()[:, layout.order]
        log_a = model.chain.log_transitions(
            model.transitions, None if x is None else x[:, layout.order]
        ).numpy()
        log_d = model.chain.log_initial(model.logits, model.transitions).numpy()
    path = np.empty(len(batch), dtype=np.int64)
    path[layout.order] = viterbi(layout, log_b, log_a, log_d) + 1
    smoothed = model.by_row(layout, passed.smoothed).numpy()
    out = pd.DataFrame({"state": path} | {f"P({k + 1})": p for k, p in enumerate(smoothed)})
    if isinstance(source, Sequences) and source.frame is not None and source.frame.index is not None:
        out.index = source.frame.index
    return out


def forecast(
    model: HMM, source: Source, steps: int, data: Data = None, levels: Sequence[float] = (0.05, 0.5, 0.95)
) -> pd.DataFrame:
    """The rows that follow each sequence, as if θ̂ were true.

    Parameters
    ----------
    steps
        how many rows ahead
    data
        their predictors, where the model has some: `steps` rows for each sequence, with the column that names them
    levels
        of the quantiles of y

    Returns
    -------
    pd.DataFrame
        a row for each sequence and step: columns sequence, step, P(1), P(2), …, mean, and one a level
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise BadArgument(f"forecast({steps!r}): a whole number of rows ahead, at least 1.")
    if not levels or not all(0 < q < 1 for q in levels):
        raise BadArgument(f"levels={tuple(levels)}. Accepted: numbers between 0 and 1.")
    labels = source.labels if isinstance(source, Sequences) else [None]
    passed = model.passed(next(iter(source.batches(model))), backward=False)
    S = len(passed.layout.lengths)
    last = passed.filtered[:, passed.layout.starts + passed.layout.lengths - 1]
    rows = _rows_ahead(model, source, steps, data, labels)
    x = model.design(rows)
    with torch.no_grad():
        a = torch.exp(model.chain.log_transitions(model.transitions, x)).numpy()
    states = np.empty((model.k, S, steps))
    for h in range(steps):
        last = a.T @ last if a.ndim == 2 else np.einsum("js,jks->ks", last, a[:, :, h::steps])
        states[:, :, h] = last
    weight = torch.from_numpy(states.reshape(model.k, -1))
    out: dict[str, object] = {
        "sequence": np.repeat(np.array(labels, dtype=object), steps),
        "step": np.tile(np.arange(1, steps + 1), S),
    }
    out |= {f"P({k + 1})": weight[k].numpy() for k in range(model.k)}
    family = model.states[0].family
    if family.length is None and family.has("expectation"):
        out["mean"] = model.mixed(rows, weight).numpy()
    if family.length is None and family.has("cdf") and family.has("quantile"):
        out |= {f"{q:g}": quantile(model, rows, weight, q) for q in levels}
    return pd.DataFrame(
        out if model.sequence is not None else {n: v for n, v in out.items() if n != "sequence"}
    )


def _rows_ahead(model: HMM, source: Source, steps: int, data: Data, labels: Sequence[object]) -> Batch:
    """The predictors of the rows to come, sequence after sequence."""
    first, S = model.states[0], len(labels)
    wanted: list[str] = []
    if isinstance(first, Regression):
        extras = [v for v in first.encoder.extras.values() if isinstance(v, str)]
        wanted = [*first.encoder.predictors, *extras]
    if data is None:
        if wanted:
            raise BadArgument(
                f"the model reads {', '.join(wanted)}, whose values in the rows to come are not known: "
                f"forecast({steps}, data) with {steps} rows for each sequence."
            )
        batch = next(iter(source.batches(model)))
        same: Batch = batch[torch.zeros(S * steps, dtype=torch.long)]
        return same
    batch, frame = ahead(model, data)
    if model.sequence is None:
        if len(batch) != steps:
            raise BadArgument(f"forecast({steps}, data): the data have {len(batch)} rows. Accepted: {steps}.")
        return batch
    column = frame.read([model.sequence])[model.sequence].to_numpy()
    order = []
    for label in labels:
        own = np.flatnonzero(column == label)
        if len(own) != steps:
            raise BadArgument(
                f"forecast({steps}, data): sequence {label!r} has {len(own)} rows in the data. Accepted: {steps}."
            )
        order.append(own)
    out: Batch = batch[torch.from_numpy(np.concatenate(order))]
    return out


@torch.no_grad()
def quantile(model: HMM, rows: Batch, weight: Tensor, q: float) -> Array:
    """The smallest y with Σ_k P(k) P(Y ≤ y | k) ≥ q, (n,): it lies between the states' own quantiles."""
    level = torch.full((len(rows),), q, dtype=torch.float64)
    parts = [(c.family, c.parameters_at(rows), c.extras(rows)) for c in model.states]
    own = torch.stack([f.quantile(level, *p, **e) for f, p, e in parts])
    low, high = own.min(0).values, own.max(0).values
    whole = model.states[0].family.support.integer

    def below(y: Tensor) -> Tensor:
        cdf = torch.stack([f.cdf(y, *p, **e) for f, p, e in parts])
        return (weight * cdf).sum(0) >= q

    if whole:
        low = low - 1  # below which the sum is less than q
        for _ in range(HALVINGS):
            if bool((high - low <= 1).all()):
                break
            middle = torch.floor((low + high) / 2)
            enough = below(middle)
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high.numpy()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if bool(((middle <= low) | (middle >= high)).all()):
            break
        enough = below(middle)
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high.numpy()
