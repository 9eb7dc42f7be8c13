"""Checkpoints of a run whose θ lies in shards on many processes: each writes its own, through
torch.distributed.checkpoint.

    PATH/step-000100/      the shards, and content.json
    PATH/latest            the name of the folder that is whole: written aside, then renamed, once every process is done

A kill at any time leaves the folder that `latest` names. Any number of processes may go on from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..data.processes import Group, everywhere, rank
from ..errors import BadArgument, BadSave, NotWritten
from ..files import write_text
from ..types import Plain, Settings


def writing(path: Path, content: Settings, group: Group = None) -> Callable[[dict[str, Tensor]], None]:
    """A function of the tensors, sharded or whole, that writes them and what else there is as the newest folder; the
    older ones go. What fails on one process is raised on all.

    group : of the processes, whose other threads may speak to each other meanwhile
    """
    # here, and not on the thread: two threads that import at once may each wait for the other
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = path / f"step-{content['step']:09}"

    def write(tensors: dict[str, Tensor]) -> None:
        _first(lambda: _emptied(folder), folder, group)
        try:
            save({name: t.detach() for name, t in tensors.items()}, checkpoint_id=folder, process_group=group)
        except (OSError, CheckpointException) as error:
            raise NotWritten.of(folder, OSError(str(error)), _left(path)) from error
        _first(lambda: _named(folder, content), folder, group)

    return write


def _first(work: Callable[[], None], folder: Path, group: Group) -> None:
    """What the first process does while the others wait."""
    said = None
    if rank() == 0:
        try:
            work()
        except OSError as error:  # NotWritten among them
            said = error.strerror or str(error)
        except BadArgument as error:  # no such folder, no permission
            said = str(error)
    said = everywhere(said, group)[0]
    if said is not None:
        raise NotWritten.of(folder, OSError(said), _left(folder.parent))


def _emptied(folder: Path) -> None:
    """The folder made, without what a kill left in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _named(folder: Path, content: Settings) -> None:
    """The folder, whole, is the newest; the older ones go."""
    write_text(folder / "content.json", json.dumps(content))
    write_text(folder.parent / "latest", folder.name, alone=True)
    for old in folder.parent.glob("step-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def _left(path: Path) -> str:
    whole = (path / "latest").exists()
    return "The one before it is whole: the same call goes on from there." if whole else ""


def content(path: Path) -> Settings | None:
    """What the newest whole folder says beside its tensors; None where there is none yet."""
    if not (path / "latest").is_file():
        return None
    folder = path / (path / "latest").read_text(encoding="utf-8")
    try:
        found: Settings = json.loads((folder / "content.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSave(f"the checkpoint {str(folder)!r} is damaged or cut short: {error}") from error
    return found


def read(
    path: Path, theta: Settings, buffers: list[Tensor], optimisers: list[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """The tensors of the newest whole folder, each laid out over the processes as θ is now.

    Raises
    ------
    BadSave
        a shard is missing or cut short
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    folder = path / (path / "latest").read_text(encoding="utf-8")
    reader = FileSystemReader(folder)
    like = {f"optimiser.{k}.{i}": p for k, o in enumerate(optimisers) for i, p in enumerate(_of(o))}
    try:
        into: Settings = {}
        metadata: Plain = reader.read_metadata().state_dict_metadata
        for name, known in metadata.items():
            head, _, number = name.rpartition(".")
            here = like if name.startswith("optimiser") else theta
            own = (
                here.get(head if name.startswith("optimiser") else f"theta.{number}")
                if "buffer" not in head
                else None
            )
            shape, dtype = torch.Size(known.size), known.properties.dtype
            into[name] = (
                torch.zeros(shape, dtype=dtype)
                if own is None or own.shape != shape
                else torch.zeros_like(own)
            )
        load(into, storage_reader=reader)
    except (OSError, EOFError, ValueError, RuntimeError, CheckpointException) as error:
        raise BadSave(f"the checkpoint {str(folder)!r} is damaged or cut short: {error}") from error
    return into


def _of(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]
