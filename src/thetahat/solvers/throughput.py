"""Throughput of a run on an accelerator: arithmetic a second, the share of the device's peak (MFU, model FLOP
utilisation), and the most memory that was held.

Operations are counted, not estimated: those of the products of matrices and convolutions of one step, forward and
backward, by torch's own counter. The peak is the maker's, of dense products in bfloat16 (float16 where there is no
bfloat16), whatever precision the run has: so MFU of runs in float32 is low by nature.

References
----------
Chowdhery et al. (2022), PaLM: scaling language modeling with pathways, appendix B (MFU).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "A40": 150e12,
    "V100": 125e12,
    "T4": 65e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}  # operations a second, by a part of what torch calls the device; the longer stands before the shorter


def counted(work: Callable[[], float]) -> tuple[float, float]:
    """(what the work returns, the operations that it took).

    Examples
    --------
    >>> counted(lambda: float((torch.ones(3, 4) @ torch.ones(4, 5)).sum()))
    (60.0, 120.0)
    """
    with FlopCounterMode(display=False) as counter:
        out = work()
    return out, float(counter.get_total_flops())


def peak(device: torch.device) -> float | None:
    """Operations a second that the maker of the device names; None: not known."""
    if device.type != "cuda":
        return None
    return _peak(torch.cuda.get_device_name(device))


def _peak(name: str) -> float | None:
    """Of a device by its name, whole words of it: an RTX A4000 is no A40.

    Examples
    --------
    >>> _peak("NVIDIA H100 80GB HBM3"), _peak("NVIDIA RTX A4000")
    (989000000000000.0, None)
    """
    return next((most for part, most in PEAKS.items() if re.search(rf"\b{part}\b", name)), None)


def memory(device: torch.device) -> int | None:
    """The most bytes of the device that torch has held; None: it does not say."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.max_memory_allocated(device))


def used(device: torch.device, flops: float, terms_per_second: float) -> dict[str, float]:
    """What is known of a run at so many terms a second, of so many operations each: flops_per_second, mfu,
    peak_memory (bytes).

    Examples
    --------
    >>> used(torch.device("cpu"), 2e9, 1e3)
    {'flops_per_second': 2000000000000.0}
    """
    out = {"flops_per_second": flops * terms_per_second} if flops else {}
    most, held = peak(device), memory(device)
    if most is not None and out:
        out["mfu"] = out["flops_per_second"] / most
    if held is not None:
        out["peak_memory"] = float(held)
    return out
