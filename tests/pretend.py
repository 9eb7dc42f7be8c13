"""An accelerator that is not there: the device "pretend", whose numbers are the CPU's and which refuses what an
accelerator refuses:

    an operation on tensors of two devices (but for numbers, (), copies, and an index that lies on the CPU)
    a generator of another device
    numpy of its tensors
    float64, inside `plugged_in(double=False)`, as Apple's GPU does

It is made of torch's own parts for new backends, so that `.to("pretend")`, `device="pretend"`, autograd, vmap and
torch.func go the way that they go on a GPU: a tensor that is made in the wrong place fails where it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as tree
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXED = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Pretend(Tensor):
    """A tensor of the device: a shell around one of the CPU."""

    raw: Tensor
    has_double = True

    @staticmethod
    def __new__(cls, raw: Tensor) -> Pretend:
        if raw.dtype == torch.float64 and not Pretend.has_double:
            raise TypeError("the device 'pretend' has no float64, as it now stands.")
        return Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=f"{NAME}:0",
        )

    def __init__(self, raw: Tensor):
        self.raw = raw

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Pretend({self.raw})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        own: Tensor = Pretend(self.raw.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            own = torch.nn.Parameter(own, self.requires_grad)
        elif self.requires_grad:
            own.requires_grad_()
        memo[id(self)] = own
        return own


def _run(op: Any, args: Any, kwargs: Any) -> Any:
    leaves = tree.tree_leaves((args, kwargs))
    _check(op, args, leaves)
    target = kwargs.get("device")
    here = target is None or torch.device(target).type == NAME
    raw_args, raw_kwargs = tree.tree_map_only(Pretend, lambda x: x.raw, (args, kwargs))
    if target is not None and here:
        raw_kwargs = raw_kwargs | {"device": torch.device("cpu")}
    if op is aten._to_copy.default:  # across devices: never the same memory
        out = op(*raw_args, **raw_kwargs)
        return Pretend(out) if here else out
    out = op(*raw_args, **raw_kwargs)
    schema = op._schema
    if not schema.returns:
        return None
    outs = [kwargs[a.name] for a in schema.arguments if a.is_out]
    if outs:
        return outs[0] if len(outs) == 1 else tuple(outs)
    if schema.name.endswith("_") and schema.is_mutable:
        return args[0]
    if not here:
        return out
    return tree.tree_map_only(Tensor, Pretend, out)


def _check(op: Any, args: Any, leaves: list[Any]) -> None:
    """What an accelerator would refuse."""
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    if op in COPIES:
        return
    asked = (
        [args[0], *(x for x in tree.tree_leaves(args[2:]) if isinstance(x, Tensor))]
        if op in INDEXED
        else tensors
    )
    here = any(isinstance(x, Pretend) for x in asked)
    if here and any(x.ndim > 0 and not isinstance(x, Pretend) for x in asked):
        shown = ", ".join(f"{tuple(x.shape)} on {x.device.type}" for x in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device: {op} of {shown}.")
    for each in leaves:
        if isinstance(each, torch.Generator):
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu': {op}.")


class _Module:
    """What torch asks of the module of a backend, torch.pretend."""

    there = False

    def is_available(self) -> bool:
        return self.there

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device: Any = None) -> None:
        pass


class _Hook(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return _Module.there

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


class _Made(TorchFunctionMode):
    """`torch.tensor(values, device=…)` goes around the dispatcher, where a backend in Python is not seen."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if (
            func in (torch.tensor, torch.as_tensor)
            and device is not None
            and torch.device(device).type == NAME
        ):
            return func(*args, **kwargs | {"device": "cpu"}).to(NAME)
        if func is torch.unravel_index and args[0].device.type == NAME:  # which calls torch.tensor
            return tuple(x.to(NAME) for x in func(args[0].cpu(), *args[1:], **kwargs))
        return func(*args, **kwargs)


_kept: list[torch.library.Library] = []


@contextmanager
def plugged_in(double: bool = True) -> Iterator[str]:
    """The device's name; `double`: whether it has float64."""
    Pretend.has_double, _Module.there = double, True
    try:
        with _Made():
            yield NAME
    finally:
        Pretend.has_double, _Module.there = True, False


def install() -> None:
    """In this process, once, and before its first backward pass: autograd counts the devices then. Until it is
    plugged in, the device is not available."""
    if _kept:
        return
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module(), hook=_Hook())
    own = torch.library.Library("_", "IMPL")
    own.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
    own.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _kept.append(own)
