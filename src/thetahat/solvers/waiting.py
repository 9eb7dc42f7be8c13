"""How long a run waits for its data: the time in which nothing is computed because the next batch is still being read.

On a CPU a batch is read between two steps, and all of that time is waited. On a CUDA device it is read while the device
computes the step before: waited is the time between the end of that work and the arrival of the batch, by the device's
own clock. What is drawn from the model (rollouts, generations) is computed, not read, and not counted.
"""

from __future__ import annotations

import time

import torch

from ..types import Plain
from .minibatches import Drawn, Feed


class Waiting:
    """Takes the next batches of every feed, and counts the seconds.

    seconds : so far, of this process; None on a device whose clock is not read
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: float | None = 0.0 if device.type in ("cpu", "cuda") else None
        self._gap: tuple[Plain, Plain] | None = None  # the device's clock before and after it could go on

    def next(self, feeds: list[Feed]) -> Drawn:
        """The batches of the next step, while nothing else is done."""
        out = []
        for feed in feeds:
            begun = time.perf_counter()
            out.append((feed, next(feed.batches)))
            if not feed.drawn and self.seconds is not None:
                self.seconds += time.perf_counter() - begun
        return out

    def ahead(self, feeds: list[Feed]) -> Drawn:
        """The batches of the next step, while the device computes this one; none of them drawn from the model."""
        before = _clock(self.device)
        out = [(feed, next(feed.batches)) for feed in feeds]
        after = _clock(self.device)
        if before is not None:
            self._gap = before, after
        return out

    def settle(self) -> None:
        """Count what `ahead` measured, once the device has answered.

        The first mark is passed when the device has done its work, the second at once if that was before the batch was
        read: no time lies between them where the device was the slower one.
        """
        if self._gap is not None and self.seconds is not None:
            before, after = self._gap
            self.seconds += before.elapsed_time(after) / 1000
            self._gap = None


def _clock(device: torch.device) -> Plain:
    """A mark in the device's work; None on a device without such."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_stream(device).record_event(torch.cuda.Event(enable_timing=True))
