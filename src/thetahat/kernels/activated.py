"""Group norm, a scale and a shift of each channel, and silu, of images: compiled in one pass in float32, else by torch's layers.

    y = a · sigmoid(a),      a = n(h) ∘ (1 + s) + b

torch reads and writes the images five times for it, and as often for its slope. In float32 on a CPU, of images that lie
channel beside channel, native/activated.cpp does it in one pass forward and one backward. Both differ by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiled import available, called


def activated(h: Tensor, groups: int, s: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """silu(group_norm(h) · (1 + s) + b), of h's shape.

    Parameters
    ----------
    h
        (n, channels, height, width)
    groups
        of channels, normalised each by itself
    s, b
        (n, channels); None: 0

    Examples
    --------
    >>> h = torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last)
    >>> bool(torch.allclose(activated(h, 4), F.silu(F.group_norm(h, 4)), atol=1e-5))
    True
    """
    if not _suits(h, s, b):
        return _by_torch(h, groups, s, b)
    found: Tensor = _Activated.apply(h, groups, s, b)  # type: ignore[no-untyped-call]
    return found


def _by_torch(h: Tensor, groups: int, s: Tensor | None, b: Tensor | None) -> Tensor:
    n = F.group_norm(h, groups)
    return F.silu(n if s is None or b is None else n * (1 + s[:, :, None, None]) + b[:, :, None, None])


def _suits(h: Tensor, s: Tensor | None, b: Tensor | None) -> bool:
    """Whether they are plain float32 on the CPU, channel beside channel, and nothing transforms the function."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and all(_plain(each) for each in (h, s, b) if each is not None)
        and h.ndim == 4
        and h.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
        and available()
    )


def _plain(t: Tensor) -> bool:
    return (
        type(t) is Tensor
        and t.dtype == torch.float32
        and t.device.type == "cpu"
        and t.layout == torch.strided
    )


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, groups: int, s: Tensor | None, b: Tensor | None) -> Tensor:
        n, channels, height, width = h.shape
        y, mean, inverse = torch.empty_like(h), h.new_empty(n, groups), h.new_empty(n, groups)
        ctx.groups = groups
        ctx.save_for_backward(h, s, b, mean, inverse)
        s, b = (None if each is None else each.contiguous() for each in (s, b))
        where = [None if each is None else each.data_ptr() for each in (h, s, b, y, mean, inverse)]
        called().thetahat_activate(n, height * width, channels, groups, *where, torch.get_num_threads())
        return y

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        h, s, b, mean, inverse = ctx.saved_tensors
        # its slope is asked for in turn, or several slopes at once: by torch's layers, whose rules are known
        if torch.is_grad_enabled() or _wrapped(slopes[0]):
            return _differentiable(slopes[0], h, ctx.groups, s, b)
        n, channels, height, width = h.shape
        slope = slopes[0].contiguous(memory_format=torch.channels_last)
        dh = torch.empty_like(h)
        s, b = (None if each is None else each.contiguous() for each in (s, b))
        ds, db = (None if each is None else torch.empty_like(each) for each in (s, b))
        every = (h, s, b, mean, inverse, slope, dh, ds, db)
        where = [None if each is None else each.data_ptr() for each in every]
        called().thetahat_activate_back(
            n, height * width, channels, ctx.groups, *where, torch.get_num_threads()
        )
        return dh, None, ds, db


def _differentiable(
    slope: Tensor, h: Tensor, groups: int, s: Tensor | None, b: Tensor | None
) -> tuple[Tensor | None, ...]:
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [each for each in (h, s, b) if each is not None and each.requires_grad]
        # torch has a rule for several slopes of a group norm of images as it lays them out alone
        y = _by_torch(h.contiguous() if _wrapped(slope) else h, groups, s, b)
        found = iter(torch.autograd.grad(y, inputs, slope, create_graph=again))
    dh, ds, db = (next(found) if each is not None and each.requires_grad else None for each in (h, s, b))
    return dh, None, ds, db


def _wrapped(t: Tensor) -> bool:
    """Whether it stands for several: of torch.func, or of torch.autograd.grad(is_grads_batched=True)."""
    functorch = torch._C._functorch
    return functorch.is_functorch_wrapped_tensor(t) or functorch.is_legacy_batchedtensor(t)
