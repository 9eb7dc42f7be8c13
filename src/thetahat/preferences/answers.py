"""log π of answers given their prompts: what DPO and its kin make rewards of."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batch import Batch
from ..language.autoregressive import Autoregressive
from ..language.shared_prompts import PROMPT


def answer_log_prob(model: Autoregressive, batch: Batch, which: str) -> Tensor:
    """log π of the answers under a name given their prompts, (n,)."""
    return _log_prob(model, batch[which], batch[f"{which}_mask"])


def pair_log_prob(model: Autoregressive, batch: Batch) -> tuple[Tensor, Tensor]:
    """log π of the chosen and of the rejected answers, (n,) each, in one pass: the prompt is read once for both."""
    ids, mask = (torch.cat([batch[f"chosen{s}"], batch[f"rejected{s}"]]) for s in ("", "_mask"))
    number = torch.arange(len(batch), device=ids.device).repeat(2)[:, None]
    before = mask.cumsum(1) == 0  # the answer has not begun
    a, b = _log_prob(model, ids, mask, torch.where(before, number, -1)).chunk(2)
    return a, b


def _log_prob(model: Autoregressive, ids: Tensor, mask: Tensor, prompt: Tensor | None = None) -> Tensor:
    """Σ log π over the tokens of the mask, (n,), of rows of tokens (n, T)."""
    tensors = {model.inputs: ids[:, :-1], model.target: ids[:, 1:]}
    if prompt is not None:
        tensors[PROMPT] = prompt[:, :-1]
    return model.log_prob(Batch(tensors, count=mask[:, 1:].to(torch.float32), dims=2)).sum(1)
