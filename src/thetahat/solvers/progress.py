"""A progress bar for long climbs: on a terminal only, and only once two seconds have passed."""

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

    def callback(state: Any) -> None:
        nonlocal shown
        if not shown and time.monotonic() - begun > DELAY:
            bar.start()
            shown = True
        if shown:
            bar.update(
                task,
                completed=getattr(state, "step", 0),
                nats=f"{state.trace[-1][1]:.5g} nats" if getattr(state, "trace", ()) else "",
            )

    try:
        yield callback
    finally:
        if shown:
            bar.stop()
