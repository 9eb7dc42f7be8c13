"""What is written while the run goes on: a checkpoint, on a thread of its own.

    the run       step k | copy | step k + 1 | step k + 2 | …
    the thread                  | write, fsync, rename |

The copy is what the file will hold: the steps after it change nothing in the file. One file is written at a time; the
next one waits for it. What goes wrong on the thread is raised by the run, at its next step or at its end, on every
process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..data.processes import Group, is_shard, summed
from ..errors import NotWritten


class Writer:
    """Writes copies of tensors beside the run.

    Examples
    --------
    >>> theta, written, writer = torch.zeros(2), [], Writer()
    >>> writer.begin({"theta": theta}, {}, lambda tensors: written.append(tensors["theta"].tolist()))
    >>> theta += 1
    >>> writer.finish()
    >>> written
    [[0.0, 0.0]]
    """

    def __init__(self) -> None:
        self.group: Group = None  # of the processes' threads, where each writes a shard
        self._copies: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether something went wrong that `finish` will raise."""
        return self._error is not None

    def begin(
        self, moving: dict[str, Tensor], still: dict[str, Tensor], write: Callable[[dict[str, Tensor]], None]
    ) -> None:
        """Copy the tensors, then call `write` with them on the thread.

        Parameters
        ----------
        moving, still
            tensors that later steps change in place, and tensors that nobody changes: these need no copy on a CPU
        """
        self._joined()
        if self._error is not None:
            return  # the run raises it
        kept = {name: t.detach() for name, t in still.items() if t.device.type == "cpu"}
        tensors = kept | self._copied(moving | {n: t for n, t in still.items() if n not in kept})
        arrived = _arrival([*moving.values(), *still.values()])

        def work() -> None:
            try:
                arrived()
                write(tensors)
            except BaseException as error:  # raised by the run
                self._error = error

        # a daemon: a process that is told twice to end does not wait for a disk
        self._thread = threading.Thread(target=work, name="thetahat checkpoint", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until what was begun is written, on every process.

        Raises
        ------
        NotWritten
            it could not be, here or elsewhere
        """
        self._joined()
        error, self._error = self._error, None
        (failed,) = summed(float(error is not None))
        if error is not None:
            raise error
        if failed:
            raise NotWritten("another process could not write its checkpoint: its own message says why.")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A run that ends with an error waits for its last checkpoint too, and says if that failed."""
        try:
            yield
        except BaseException as error:
            self._joined()
            if self._error is not None:
                error.add_note(f"Besides: {self._error}")
            raise
        else:
            if self.group is not None:
                torch.distributed.destroy_process_group(self.group)
                self.group = None
        finally:
            self._copies = {}

    def _joined(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @torch.no_grad()
    def _copied(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each on the CPU, in memory of its own, which the next checkpoint takes again."""
        before, self._copies, shards = self._copies, {}, {}
        for name, t in tensors.items():
            cuda, into = t.device.type == "cuda", before.get(name)
            if is_shard(t):
                shards[name] = t.detach().to("cpu", copy=True)
                continue
            if into is None or into.shape != t.shape or into.dtype != t.dtype:
                into = torch.empty(t.shape, dtype=t.dtype, pin_memory=cuda)
            self._copies[name] = into.copy_(t.detach(), non_blocking=cuda)
        return self._copies | shards


def _arrival(tensors: list[Tensor]) -> Callable[[], None]:
    """Waits for the copies from CUDA's devices, which the steps after them do not overtake."""
    devices = {t.device for t in tensors if t.device.type == "cuda"}
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return wait
