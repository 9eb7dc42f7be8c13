"""log p of tokens from the vectors before a network's output matrix, without a tensor of all logits.

With the features h and the output matrix W of a network, log p of one token needs no (B, T, V) tensor, only
its logsumexp, which is gathered over blocks of the vocabulary; a block's logits are computed again when the
gradient asks for them.

References
----------
Wijmans et al. (2024), Cut your losses in large-vocabulary language models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batch import Batch
from ..families.log_sum_exp import log_sum_exp
from ..products import linear


def token_log_prob(h: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, chunk: int = 8192) -> Tensor:
    """log softmax(W h + b)_y without the logits of the whole vocabulary.

        log p(y | h) = w_yᵀh + b_y − log Σ_k exp(l_k),      l_k = log Σ_{v in block k} exp(w_vᵀh + b_v)

    Sums over the vocabulary are taken in float64.

    Parameters
    ----------
    h
        (…, D)
    weight, bias
        (V, D), and (V,) or None
    y
        (…,) tokens
    chunk
        tokens of a block; where V is no more, there is one block, and nothing is computed twice

    Returns
    -------
    Tensor
        (…,) nats, float32 or better

    Examples
    --------
    >>> h, W, y = torch.randn(2, 3, 4), torch.randn(10, 4), torch.randint(10, (2, 3))
    >>> whole = torch.log_softmax(h @ W.T, -1).gather(-1, y[..., None])[..., 0]
    >>> bool(torch.allclose(token_log_prob(h, W, None, y, chunk=3), whole, atol=1e-5))
    True
    """
    V, wide = len(weight), torch.promote_types(h.dtype, torch.float32)
    if chunk >= V:
        normaliser, chosen = _block(h, weight, bias, y)
        return (chosen - normaliser).to(wide)
    from torch.utils.checkpoint import checkpoint

    normalisers, chosen = [], torch.zeros((), dtype=wide, device=h.device)
    biases: tuple[Tensor | None, ...] = (None,) * -(-V // chunk) if bias is None else bias.split(chunk)
    for k, (W, b) in enumerate(zip(weight.split(chunk), biases, strict=True)):
        normaliser, own = checkpoint(
            _block, h, W, b, y - k * chunk, use_reentrant=False, preserve_rng_state=False
        )
        normalisers.append(normaliser)
        chosen = chosen + own
    return (chosen - torch.logsumexp(torch.stack(normalisers), 0)).to(wide)


def logits_log_prob(logits: Tensor, y: Tensor) -> Tensor:
    """log softmax(logits)_y, (…), of logits (…, V): float32 or better, its sum taken in float64."""
    logits = in_float(logits)
    own = logits.gather(-1, y[..., None])[..., 0]
    return (own - log_sum_exp(logits)).to(logits.dtype)


def in_float(logits: Tensor) -> Tensor:
    """float32 or better: a logsumexp of bfloat16 is worth two digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _block(h: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> tuple[Tensor, Tensor]:
    """(log Σ_v exp(logit_v), logit_y or 0 where y lies in another block) of a block of the vocabulary."""
    logits = in_float(linear(h, weight, bias))
    inside = (y >= 0) & (y < len(weight))
    own = logits.gather(-1, y.clamp(0, len(weight) - 1)[..., None])[..., 0]
    return log_sum_exp(logits), torch.where(inside, own, torch.zeros_like(own))


def selects(batch: Batch) -> bool:
    """Whether the terms that count can be picked out: how many they are depends on the data."""
    known = torch.compiler.is_compiling() or batch.count.is_meta
    return batch.counted and len(batch.shape) == 2 and not known


def columns_read(batch: Batch) -> int:
    """Of (B, T) terms how many columns have one that counts, or stand before one."""
    T = batch.shape[-1]
    if not selects(batch):
        return T
    used = torch.nonzero((batch.count != 0).any(0))
    return int(used[-1]) + 1 if len(used) else T
