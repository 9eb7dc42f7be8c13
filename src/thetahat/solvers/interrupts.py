"""Ctrl-C and SIGTERM (a machine that is taken back, a job at its time limit) end a run after the step
under way, with a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ..data.processes import rank, summed, world
from ..types import Data, Plain

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[Callable[[bool], tuple[int, bool]]]:
    """The first SIGINT or SIGTERM waits: the function that the block is given returns its number, or 0, and whether
    something failed that it is told of. A second signal acts at once.

    Under torch.distributed every process calls that function after the same step, and all learn of a signal
    that any of them received, and of what failed on any. Outside the main thread, where Python takes no signals, nothing is deferred. A
    signal that the process ignores stays ignored.
    """
    asked = 0
    before: dict[int, Plain] = {}

    def received(number: int, frame: Data) -> None:
        nonlocal asked
        if asked:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        asked = number

    def waiting(failed: bool) -> tuple[int, bool]:
        if world() == 1:
            return asked, failed
        *counts, failures = summed(*(float(asked == each) for each in SIGNALS), float(failed))
        signalled = (int(each) for each, n in zip(SIGNALS, counts, strict=True) if n)
        return max(signalled, default=0), failures > 0

    if threading.current_thread() is threading.main_thread():
        kept = {each: signal.getsignal(each) for each in SIGNALS}
        before = {each: handler for each, handler in kept.items() if handler not in (None, signal.SIG_IGN)}
    for each in before:
        signal.signal(each, received)
    try:
        yield waiting
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def leave(number: int, step: int, path: str | Path | None) -> NoReturn:
    """End as the signal asks: KeyboardInterrupt, or exit code 143 for SIGTERM; both say where the checkpoint
    is.

    KeyboardInterrupt, SystemExit
    """
    name = signal.Signals(number).name
    said = f"{name} after step {step}: the checkpoint {str(path)!r} is written. The same call goes on from there."
    if number == signal.SIGINT:
        raise KeyboardInterrupt(said)
    if rank() == 0:
        print(said, file=sys.stderr, flush=True)
    raise SystemExit(128 + number)
