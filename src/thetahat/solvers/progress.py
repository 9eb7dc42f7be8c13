"""A progress bar for long fits: on a terminal only, and only once two seconds have passed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DELAY = 2.0  # seconds


@contextmanager
def progress(solver: Any) -> Iterator[Callable[[Any], None] | None]:
    """A callback for `iterate` that shows the step, the time left and the last line of the trace; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[nats]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(type(solver).__name__, total=getattr(solver, "steps", None), nats="")
    begun, shown = time.monotonic(), False
    before: float | None = None  # terms seen before this run went on from its checkpoint

    def callback(state: Any) -> None:
        nonlocal shown, before
        if before is None:
            before = getattr(state, "seen", 0.0)
        if not shown and time.monotonic() - begun > DELAY:
            bar.start()
            shown = True
        if shown:
            bar.update(
                task,
                completed=getattr(state, "step", 0),
                nats=said(state, time.monotonic() - begun, before),
            )

    try:
        yield callback
    finally:
        if shown:
            bar.stop()


def said(state: Any, seconds: float, before: float = 0.0) -> str:
    """The last line of the trace with its error, and terms a second (those `before` not counted) where the state counts them.

    >>> from types import SimpleNamespace
    >>> said(SimpleNamespace(trace=((10, -1.5, 0.25),), evaluations=(1,), seen=3000.0), 2.0)
    '-1.5 ± 0.25 nats held out, 1,500 terms/s'
    """
    trace, seen = getattr(state, "trace", ()), getattr(state, "seen", 0.0) - before
    parts = []
    if trace:
        _, nats, error = trace[-1]
        spread = f" ± {error:.2g}" if getattr(state, "evaluations", ()) and error == error else ""
        parts.append(f"{nats:.5g}{spread} nats" + (" held out" if getattr(state, "evaluations", ()) else ""))
    if seen > 0 and seconds > 0:
        parts.append(f"{seen / seconds:,.0f} terms/s")
    return ", ".join(parts)
