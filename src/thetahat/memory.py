"""Memory: what a computation is going to hold is estimated first, and refused with the number where there
is not so much."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from .errors import ModelError

SMALL = 2**28  # bytes that are not worth a question
_GROUP = Path("/sys/fs/cgroup")


def reserve(needed: float, what: str, instead: str) -> None:
    """Nothing, where so many bytes are free.

    Parameters
    ----------
    needed
        bytes
    what
        that needs them ("the information of 40,000 coefficients")
    instead
        what the user can do

    Raises
    ------
    ModelError
        they are not

    Examples
    --------
    >>> reserve(1e18, "a table of a billion columns", "Leave some out.")
    Traceback (most recent call last):
        ...
    thetahat.errors.ModelError: a table of a billion columns needs about 1,000,000,000 GB of memory, and ... GB are free. Leave some out.
    """
    if needed < SMALL:
        return
    there = free()
    if there is not None and needed > there:
        raise ModelError(
            f"{what} needs about {_gigabytes(needed)} GB of memory, and {_gigabytes(there)} GB are free. "
            f"{instead}"
        )


def empty(*shape: int) -> Tensor:
    """Room for float64, in pages of the ordinary size. numpy asks for large ones, which a virtual machine may first have
    to be given by its host: of 80 MB that took 0.17 s where these take 0.02.

    Examples
    --------
    >>> empty(2, 3).shape
    torch.Size([2, 3])
    """
    return torch.empty(shape, dtype=torch.float64)


def free() -> float | None:
    """Bytes that this process can still take: of the machine, its container and its own limit the least.
    None: nobody knows."""
    found = [value for value in (_machine(), _container(), _own()) if value is not None]
    return min(found) if found else None


def _machine() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        try:
            return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, ValueError, OSError):
            return None


def _container() -> float | None:
    try:
        limit = (_GROUP / "memory.max").read_text(encoding="ascii").strip()
        return (
            None
            if limit == "max"
            else float(limit) - float((_GROUP / "memory.current").read_text(encoding="ascii"))
        )
    except (OSError, ValueError):
        return None


def _own() -> float | None:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return float(limit - pages * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError, ValueError):
        return None


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:,.0f}" if value >= 1e10 else f"{value / 1e9:.2g}"
