"""The machine in general terms, and whether it is quiet: what stands above every table of seconds."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

QUIET = 0.1  # of one processor core, that other processes may use
EXTENSIONS = (
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("asimd", "NEON"),
)  # as Linux names them, the widest first


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """GiB, whole; 0: unknown."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return 0


def instructions() -> str:
    """The processor's architecture and its widest vectors, where the system tells them."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    flags = set(
        next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split()
    )
    widest = next((name for flag, name in EXTENSIONS if flag in flags), "")
    return platform.machine() + (f" with {widest}" if widest else "")


def busy(seconds: float = 2.0) -> float | None:
    """How many cores other processes use, over so many seconds in which this one sleeps; None: the system does not tell."""

    def used() -> float | None:
        file = Path("/proc/stat")
        if not file.is_file():
            return None
        fields = [int(x) for x in file.read_text().splitlines()[0].split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # without idle and iowait

    before = used()
    if before is None:
        return None
    start = time.monotonic()
    time.sleep(seconds)
    after = used()
    return None if after is None else max(0.0, (after - before) / (time.monotonic() - start))


def load(used: float | None) -> str:
    """A sentence about `busy()`."""
    if used is None:
        return "How busy the machine was is unknown."
    if used <= QUIET:
        return "The machine was quiet before."
    return f"The machine was not quiet: before, other processes used {used:.1f} of its {cores()} cores."


def machine() -> str:
    """One sentence."""
    kept = f" and {memory()} GiB" if memory() else ""
    return f"A machine of {cores()} core{'s' * (cores() != 1)}{kept}, {instructions()}."
