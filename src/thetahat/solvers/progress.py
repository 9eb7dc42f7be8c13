"""A progress bar for long fits: on a terminal only, and only once two seconds have passed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from ..protocols import Training
from ..types import SolverLike, StateLike

DELAY = 2.0  # seconds
WAITED = 0.01  # of the time; less of it is not worth a word


@runtime_checkable
class Counted(Protocol):
    """A solver that knows how many steps it takes at most."""

    @property
    def steps(self) -> int: ...


@contextmanager
def progress(solver: SolverLike) -> Iterator[Callable[[StateLike], None] | None]:
    """A callback for `iterate` that shows the step, the time left and the last line of the trace; None where
    nobody would see it."""
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
    task = bar.add_task(
        type(solver).__name__, total=solver.steps if isinstance(solver, Counted) else None, nats=""
    )
    begun, shown = time.monotonic(), False
    before: float | None = None  # terms seen before this run went on from its checkpoint

    def callback(state: StateLike) -> None:
        nonlocal shown, before
        if before is None:
            before = state.seen if isinstance(state, Training) else 0.0
        if not shown and time.monotonic() - begun > DELAY:
            bar.start()
            shown = True
        if shown:
            bar.update(
                task,
                completed=state.step if isinstance(state, Training) else 0,
                nats=said(state, time.monotonic() - begun, before),
            )

    try:
        yield callback
    finally:
        if shown:
            bar.stop()


def said(state: StateLike, seconds: float, before: float = 0.0) -> str:
    """The last line of the trace with its error, and terms a second (those `before` not counted) where the
    state counts them; on an accelerator its arithmetic, the share of its peak (MFU), and the most memory held; the
    share of the time in which it waited for data, above 1 %.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> state = SimpleNamespace(step=10, trace=((10, -1.5, 0.25),), evaluations=(1,), seen=3000.0, waited=0.25)
    >>> state.used = lambda rate: {"flops_per_second": rate * 1e11, "mfu": 0.15, "peak_memory": 2.5e9}
    >>> said(state, 2.0)
    '-1.5 ± 0.25 nats held out, 1,500 terms/s, 150 TFLOP/s (MFU 15 %), 2.50 GB, waiting for data 12 %'
    """
    training = state if isinstance(state, Training) else None
    seen, held_out = (training.seen - before, bool(training.evaluations)) if training else (0.0, False)
    parts = []
    if state.trace:
        _, nats, error = state.trace[-1]
        spread = f" ± {error:.2g}" if held_out and error == error else ""
        parts.append(f"{nats:.5g}{spread} nats" + (" held out" if held_out else ""))
    if seen > 0 and seconds > 0:
        parts.append(f"{seen / seconds:,.0f} terms/s")
        parts += _used(training.used(seen / seconds) if training else {})
    waited = (training.waited or 0.0) / seconds if training and seconds > 0 else 0.0
    if waited > WAITED:
        parts.append(f"waiting for data {100 * waited:.0f} %")
    return ", ".join(parts)


def _used(found: dict[str, float]) -> list[str]:
    parts = []
    if "flops_per_second" in found:
        share = f" (MFU {100 * found['mfu']:.0f} %)" if "mfu" in found else ""
        parts.append(f"{found['flops_per_second'] / 1e12:.3g} TFLOP/s{share}")
    if "peak_memory" in found:
        parts.append(f"{found['peak_memory'] / 1e9:.2f} GB")
    return parts
