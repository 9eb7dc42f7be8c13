"""Memory that every step of a training run frees and asks for again stays with the process in between.

The C library of Linux returns what is free at the end of its heap to the system once it is more than 128 KiB (or
twice the largest block that was freed), and the next step gets it again a page of 4 KiB at a time, each cleared by the
system: of a step of a diffusion of 3 × 32 × 32 pixels, whose tensors are of 2 MiB, a quarter of the time. Here it gives
back what is free beyond 1 GiB alone, as long as any run lives, and all of it once the last has ended.

Blocks above 32 MiB come from the system and go back to it as before. Elsewhere (macOS, Windows, another C library), and
where the environment says how memory is to be given back (MALLOC_TRIM_THRESHOLD_, GLIBC_TUNABLES …), nothing changes.

References
----------
GNU C Library Reference Manual, "Malloc tunable parameters": M_TRIM_THRESHOLD, M_MMAP_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 2**30  # bytes free at the end of the heap that stay while a run lives
LARGE, USUAL = 2**25, 2**26  # where the C library's own adjustment of both ends on a 64-bit machine
ASKED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")

_LOCK = threading.RLock()  # a finaliser may run while it is held
_runs = 0


def keep_memory(owner: object) -> None:
    """Keep what is freed for as long as the owner lives.

    Examples
    --------
    >>> class Run: ...
    >>> run, before = Run(), runs()
    >>> keep_memory(run)
    >>> runs() - before
    1
    >>> del run
    >>> runs() - before
    0
    """
    _begin()
    weakref.finalize(owner, _end).atexit = False


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed within the block."""
    _begin()
    try:
        yield
    finally:
        _end()


def runs() -> int:
    """How many live for which memory is kept."""
    return _runs


def _begin() -> None:
    global _runs
    with _LOCK:
        _runs += 1
        if _runs == 1 and (c := _library()) is not None:
            c.mallopt(M_MMAP_THRESHOLD, LARGE)
            c.mallopt(M_TRIM_THRESHOLD, KEPT)


def _end() -> None:
    global _runs
    with _LOCK:
        _runs -= 1
        if _runs == 0 and (c := _library()) is not None:
            c.mallopt(M_TRIM_THRESHOLD, USUAL)
            c.malloc_trim(0)


@cache
def _library() -> ctypes.CDLL | None:
    """The C library; None: it is another one, or the user has said what it is to do."""
    if (
        not sys.platform.startswith("linux")
        or sys.maxsize < 2**32
        or any(name in os.environ for name in ASKED)
    ):
        return None
    found = ctypes.CDLL(None)
    return (
        found
        if all(_has(found, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"))
        else None
    )


def _has(library: ctypes.CDLL, name: str) -> bool:
    try:
        library[name]
    except AttributeError:
        return False
    return True
