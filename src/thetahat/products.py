"""Products of matrices in float32 on a CPU, by the faster of the two libraries that torch brings.

    y = x Wᵀ + b,      ∂x = ∂y W,      ∂W = ∂yᵀ x,      ∂b = Σ ∂y

torch calls Intel's MKL, which leaves half of an AMD processor with AVX-512 unused: one core of a Zen 5 computes 112 GFLOP/s
by MKL and 250 by oneDNN, which torch brings for its convolutions. Both sum in float32, each in an order of its own, so that
they differ by rounding. Elsewhere (Intel's processors, accelerators, other precisions, small products) nothing changes.
`torch.backends.mkldnn.set_flags(False)` turns it off, as it turns off the rest of oneDNN.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LEAST = 2**22  # multiplications, below which what a call costs is more than what it saves
UNPROMISED = (  # what torch may leave out one day: then nothing changes
    "ops.mkldnn._linear_pointwise",
    "_C._autograd._top_saved_tensors_default_hooks",
    "_C._functorch.peek_interpreter_stack",
    "autograd.forward_ad._current_level",
)
ROWS = 16  # of x: with fewer the matrix is read for so little that memory is what limits


def fast_products() -> AbstractContextManager[Any]:
    """A block in which `torch.nn.functional.linear`, hence every `nn.Linear`, computes as fast as it can, forward and
    backward, whatever network it is part of.

    Examples
    --------
    >>> x, W = torch.randn(64, 300), torch.randn(400, 300)
    >>> with fast_products():
    ...     y = F.linear(x, W)
    >>> bool(torch.allclose(y, x @ W.T, atol=1e-3))
    True
    """
    return _Products() if fast_products_here() else nullcontext()


def profits(module: nn.Module) -> bool:
    """Whether a network has matrices that are large enough for it: the rest is not to pay for the question."""
    return any(p.ndim == 2 and p.numel() >= LEAST // 512 and _plain(p) for p in module.parameters())


@cache
def _possible() -> bool:
    """Whether this processor is one on which oneDNN is faster, and this torch has both, and what is asked of it here."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return wide and both and _amd() and all(_there(name) for name in UNPROMISED)


def _there(name: str) -> bool:
    """Whether this torch has it."""
    owner: Any = torch
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner is not None


def fast_products_here() -> bool:
    """Whether this machine has something to gain."""
    return _possible() and bool(torch.backends.mkldnn.enabled)


def _amd() -> bool:
    about = Path("/proc/cpuinfo")
    try:
        said = about.read_text(encoding="utf-8") if about.is_file() else platform.processor()
    except OSError:
        return False
    return "AuthenticAMD" in said


class _Products(TorchFunctionMode):
    """Within it a large product is oneDNN's."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.linear or kwargs or torch.compiler.is_compiling():
            return func(*args, **(kwargs or {}))
        # what torch.utils.checkpoint computes anew on the way back, where no mode is active, must be what it was
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            return func(*args)
        return linear(*args)


def linear(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """x Wᵀ + b of x (…, D), W (O, D), as `fast_products` has it, for one product: the same within a checkpoint and outside."""
    if not (_suits(x, W, b) and fast_products_here()):
        return F.linear(x, W, b)
    out: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), W, b)  # type: ignore[no-untyped-call]
    return out if x.ndim == 2 else out.view(*x.shape[:-1], len(W))


def large(R: int, D: int, O: int) -> bool:
    """Whether (R, D) times (D, O) is so large that it is worth a call."""
    return R * D * O >= LEAST and R >= ROWS


def _suits(x: Tensor, W: Tensor, b: Tensor | None = None) -> bool:
    """Whether a product is large, in float32 on the CPU, and nothing but a product."""
    if torch.compiler.is_compiling():
        return False
    D = W.shape[-1]
    return (
        W.ndim == 2
        and x.ndim > 1
        and x.shape[-1] == D > 0
        and large(x.numel() // D, D, len(W))
        and all(_plain(t) for t in (x, W, b) if t is not None)
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None  # vmap, jvp, …: a rule of torch's own
        and torch.autograd.forward_ad._current_level < 0
    )


def _plain(t: Tensor) -> bool:
    own = type(t) is Tensor or type(t) is torch.nn.Parameter
    return own and t.dtype == torch.float32 and t.device.type == "cpu" and t.layout == torch.strided


class _Linear(torch.autograd.Function):
    """x Wᵀ + b of x (R, D), W (O, D), b (O,) or None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        moved, turned = ctx.needs_input_grad[:2]
        ctx.save_for_backward(x if turned else None, W if moved else None)
        return product(x, W, b)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,), (x, W), needed = slopes, ctx.saved_tensors, ctx.needs_input_grad
        # where the slope is to be differentiated once more, by torch's own products, whose slopes are known
        times = _matmul if torch.is_grad_enabled() else product
        return (
            times(slope, W.t()) if needed[0] else None,
            times(slope.t(), x.t()) if needed[1] else None,
            slope.sum(0) if needed[2] else None,
        )


def _matmul(x: Tensor, W: Tensor) -> Tensor:
    return x @ W.t()


def product(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """x Wᵀ + b by oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(x), _dense(W), b, "none", [], "")
    return out


def _dense(t: Tensor) -> Tensor:
    """A matrix without gaps, by rows or by columns: of a slope that a sum hands out all rows are one."""
    return t if t.is_contiguous() or t.t().is_contiguous() else t.contiguous()
