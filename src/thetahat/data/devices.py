"""Devices: where tensors lie. θ lies on one; what a model is shown follows it there, and what is asked of a
model comes back to where the question lay.

A source yields tensors of the CPU, and draws there, from a generator of the CPU: the numbers are the same
whatever the accelerator. `solvers.Stochastic(device=…)` is the one place where a model is moved.

    float64     decides an answer wherever there is one; Apple's GPU ("mps") has none, and takes float32
"""

from __future__ import annotations

import os
from itertools import chain

import torch
from torch import Tensor, nn

from ..errors import BadArgument
from ..types import ModelLike

CPU = torch.device("cpu")
NAMES = ("auto", "cpu", "cuda", "mps")
NO_DOUBLE = {"mps"}  # devices without float64


def chosen(name: str | torch.device | None) -> torch.device | None:
    """The device of that name; "auto": the accelerator that torch finds, else the CPU. None: None, a model
    stays where it is.

    Of several processes under torchrun each takes the GPU of its own local rank.

    Raises
    ------
    BadArgument
        torch knows no such device, or finds none

    Examples
    --------
    >>> chosen("cpu"), chosen(None)
    (device(type='cpu'), None)
    """
    if name is None:
        return None
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        device = CPU if found is None else torch.device(found.type)
    else:
        try:
            device = torch.device(name)
        except (RuntimeError, TypeError) as error:
            raise BadArgument(
                f"device={name!r}. Accepted: {', '.join(map(repr, NAMES))}, or a torch.device."
            ) from error
    if device.type not in ("cpu", "meta") and not _there(device):
        raise BadArgument(
            f"device={str(name)!r}: torch {torch.__version__} finds no such device here. Accepted: 'auto', which takes "
            "what there is, or 'cpu'."
        )
    if device.type == "meta":
        raise BadArgument("device='meta' holds no numbers. Accepted: 'auto', 'cpu', 'cuda', 'mps'.")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    return device


def _there(device: torch.device) -> bool:
    try:
        module = torch.get_device_module(device)
    except RuntimeError:
        return False
    return bool(module.is_available()) and (device.index is None or device.index < module.device_count())


def device_of(model: ModelLike) -> torch.device:
    """Where a model's first parameter lies, or its first buffer; the CPU, where it has neither."""
    if not isinstance(model, nn.Module):
        return CPU
    first = next(chain(model.parameters(), model.buffers()), None)
    return CPU if first is None else first.device


def move(module: nn.Module, device: torch.device) -> None:
    """The module, in place, on that device; in float32 what it holds in float64, where there is none."""
    if widest(device) == torch.float32:
        module._apply(lambda t: t.float() if t.dtype == torch.float64 else t)
    module.to(device)


def widest(device: torch.device) -> torch.dtype:
    """The widest floating numbers that the device has."""
    return torch.float32 if device.type in NO_DOUBLE else torch.float64


def sent(tensor: Tensor, device: torch.device, *, ahead: bool = False) -> Tensor:
    """The tensor on that device, in float32 where it has no float64.

    ahead : through pinned memory, without waiting for the copy, where the device is CUDA's
    """
    if tensor.device == device:
        return tensor
    if tensor.dtype == torch.float64:
        tensor = tensor.to(widest(device))
    if ahead and device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
