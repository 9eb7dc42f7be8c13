"""Checkpoints of a training run: all that the next step depends on, in one file; the file before it is never
lost.

A run that was killed and goes on from its checkpoint is, bit for bit, the run that was not: θ, the buffers,
the moments of the optimisers, the average and the best θ, and the trace come from the file; the order of the
data is drawn again from the seed up to the step where it stood, which leaves the generator where it was. A
source that draws from the model says with `state()` what its next draw depends on, tensors by name, and takes
them back with `restore(tensors)`; whether that makes its draws those of a run that was not killed is said by
the source.

The file is safetensors: no pickle. It is written aside, brought to the disk, then renamed: a full disk or a
kill leaves the one before. It is written while the run goes on (`background.py`), from a copy of the state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import torch
from torch import Tensor

from ..data.processes import everywhere, initialised, rank, replicated, world
from ..data.source import digest, told
from ..errors import BadArgument, BadSave, NotWritten, ThetahatError
from ..files import replacing, usable
from ..likelihood import Objective
from ..models.base import family_of
from ..protocols import Restores, is_drawn
from ..types import ModelLike, Named, Plain, Settings, SolverLike, SourceLike, StateLike, fields_of, shown_as
from . import sharded
from .minibatches import whole
from .optimisers import like, restore, tensors_of
from .tensor_file import parts

FORMAT = "thetahat checkpoint, version 2"
DIGEST = 16  # bytes of a checksum before it
OF_RUN = "checkpoint"  # its name in the folder of a run
LONGER = (
    "steps",
    "restarted_at",
    "warmup_steps",
    "decay_steps",
)  # settings that a longer run may have of its own


def write(path: Path, solver: SolverLike, state: StateLike) -> None:
    """Begin to write the state after a step, in place of the checkpoint before; the state is copied once this returns.
    Of processes that share θ the first writes; shards write each their own."""
    work = state.work
    content = {
        "step": state.step,
        "seen": state.seen,
        "recent": list(work.recent),
        "evaluations": [dataclasses.astuple(e) for e in state.evaluations],
        "trace": state.trace,
        "fitted": state.fitted,
        "scale": state.scale,
        "clean": state.clean,
        "overflowed": state.overflowed,
        "processes": world(),
        "parts": not all(feed.replicated for feed in work.feeds),
        "of": work.identity,
    }
    if in_folder(solver):
        if work.writer.group is None:  # the thread's own: the run sums gradients meanwhile
            work.writer.group = torch.distributed.new_group(backend="gloo")
        work.writer.begin(*_tensors(work), sharded.writing(path, content, work.writer.group))
    elif rank() == 0:
        work.writer.begin(*_tensors(work), lambda t: _write(path, t, content))


def in_folder(solver: SolverLike) -> bool:
    """Whether checkpoints are folders, which any number of processes write and read, be it one: those of
    `distributed="fsdp"` under torchrun."""
    return bool(solver.distributed == "fsdp" and initialised())


def _tensors(work: Plain) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the next step depends on: tensors that it changes in place, and tensors that it may replace."""
    moving = (
        _numbered("theta", work.engine.parameters)
        | _numbered("buffer", work.buffers)
        | tensors_of(work.optimisers)
    )
    still: dict[str, Tensor] = {}
    if work.average is not None:
        moving |= _numbered("average", work.average)
    for name, kept in (("best", work.best), ("last", work.last)):
        if kept is not None:
            still |= _numbered(f"{name}.theta", kept[0]) | _numbered(f"{name}.buffer", kept[1])
    for k, feed in enumerate(work.feeds):
        if feed.drawn:
            source: SourceLike = feed.terms[0].source
            moving |= {f"source.{k}.{name}": t for name, t in source.state().items()}
    return moving, still


def _write(path: Path, tensors: dict[str, Tensor], content: Settings) -> None:
    checksum = hashlib.blake2b(digest_size=DIGEST)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, alone=True) as part, part.open("wb") as file:
            file.write(bytes(DIGEST))  # its place
            for each in parts(tensors, {"format": FORMAT, "content": json.dumps(content)}):
                checksum.update(each)
                file.write(each)
            file.seek(0)
            file.write(checksum.digest())
    except (OSError, BadArgument) as error:
        left = (
            "The one before it is whole: the same call goes on from there."
            if path.exists()
            else "None was written before."
        )
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        said = (reason.strerror if isinstance(reason, OSError) else None) or reason
        raise NotWritten(f"the checkpoint {str(path)!r} cannot be written: {said}. {left}") from error


def read(path: Path, solver: SolverLike, work: Plain) -> Settings | None:
    """Put θ, buffers, moments and the order of the data where they stood; returns step, seen, recent,
    evaluations, trace. None: no file.

    Raises
    ------
    BadSave
        the file is cut short or damaged, or it is of another model, other data or other settings; or processes find
        different ones
    """
    found = _read_here(path, solver, work)
    steps = everywhere(None if found is None else found["step"])
    if any(step != steps[0] for step in steps):
        said = ", ".join(
            f"process {k} {'none' if step is None else f'that of step {step}'}"
            for k, step in enumerate(steps)
        )
        raise BadSave(
            f"processes find different checkpoints at {str(path)!r}: {said}. Give a path in a folder that all "
            "machines share."
        )
    return found


def _read_here(path: Path, solver: SolverLike, work: Plain) -> Settings | None:
    """The same, of this process alone."""
    if not usable(path).exists():
        return None
    if in_folder(solver) != path.is_dir():
        kinds = (
            "a file, of one process or of distributed='ddp'",
            "a folder, of distributed='fsdp' under torchrun",
        )
        here = "under torchrun" if initialised() else "not under torchrun"
        raise BadSave(
            f"the checkpoint {str(path)!r} is {kinds[path.is_dir()]}. This run is one of "
            f"distributed={solver.distributed!r}, {here}: start it as it was started at first."
        )
    if path.is_dir():
        content = sharded.content(path)
        if content is None:
            return None
    else:
        content, tensors = _read(path)
    if content.get("parts"):
        _check_processes(path, content["processes"])
    longer = extends(content["of"], work.identity)
    for name, value in work.identity.items():
        other = content["of"].get(name)
        if name in LONGER and longer:
            continue
        if json.loads(json.dumps(value)) != other:
            raise BadSave(
                f"the checkpoint {str(path)!r} is of another run: its {name} is {_short(other)}, here it is "
                f"{_short(value)}."
            )
    if path.is_dir():
        tensors = sharded.read(
            path, _numbered("theta", work.engine.parameters), work.buffers, work.optimisers
        )
    try:
        _restore(content, tensors, work)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ThetahatError):  # of the data, which are drawn again up to the step
            raise
        raise BadSave(f"{str(path)!r} is not a checkpoint of this run: {error!r}.") from error
    return content


def _check_processes(path: Path, before: int) -> None:
    """Refuse another number of processes where each holds a part of the data. Where all hold the same, the steps are
    those of any number, to rounding."""
    if before != world():
        raise BadSave(
            f"the checkpoint {str(path)!r} is of {before} processes, each with a part of the data; the number of "
            f"processes here is {world()}. Start {before} of them."
        )


def _restore(content: Settings, tensors: dict[str, Tensor], work: Plain) -> None:
    with torch.no_grad():
        for name, into in (("theta", work.engine.parameters), ("buffer", work.buffers)):
            for p, value in zip(into, _of(tensors, name), strict=True):
                p.copy_(value)
    restore(work.optimisers, tensors)
    device = work.engine.device
    parameters = work.engine.parameters
    average, best, last = (
        _laid([t.to(device) for t in _of(tensors, name)], parameters)
        for name in ("average", "best.theta", "last.theta")
    )
    work.average = average or None
    work.best = (
        (best, _laid([t.to(device) for t in _of(tensors, "best.buffer")], work.buffers)) if best else None
    )
    work.last = (
        (last, _laid([t.to(device) for t in _of(tensors, "last.buffer")], work.buffers)) if last else None
    )
    for _ in range(content["step"]):  # the draws of each step, in their order
        work.statistics.saw([(feed, next(feed.batches)) for feed in work.feeds if not feed.drawn])
    for k, feed in enumerate(work.feeds):
        if feed.drawn:
            head = f"source.{k}."
            feed.terms[0].source.restore(
                {name.removeprefix(head): t for name, t in tensors.items() if name.startswith(head)}
            )


def _read(path: Path) -> tuple[Settings, dict[str, Tensor]]:
    """What a file holds, once it is known to be whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        whole = path.read_bytes()
    except OSError as error:
        raise BadSave(f"the checkpoint {str(path)!r} cannot be read: {error.strerror or error}.") from error
    if hashlib.blake2b(whole[DIGEST:], digest_size=DIGEST).digest() != whole[:DIGEST]:
        raise BadSave(
            f"the checkpoint {str(path)!r} is damaged or cut short: its bytes are not those that were "
            "written. "
            "Restore it, or remove it to begin the run anew."
        )
    raw = whole[DIGEST:]
    try:
        size = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + size])["__metadata__"]
        content, tensors, version = json.loads(metadata["content"]), load(raw), metadata["format"]
        known = isinstance(content["of"], dict) and type(content["step"]) is int
    except (ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        raise BadSave(f"{str(path)!r} is not a checkpoint.") from error
    if not known:
        raise BadSave(f"{str(path)!r} is not a checkpoint.")
    if version != FORMAT:
        raise BadSave(f"{str(path)!r} is {version!r}; this library reads {FORMAT!r}.")
    return content, tensors


def identity(solver: SolverLike, objective: Objective) -> Settings:
    """What has to be the same for a run to go on: the settings, the shapes of θ, the data, the weights, the
    priors."""
    settings: Settings = {
        name: shown_as(value) if callable(value) else str(value)
        for name, value in fields_of(solver).items()
        if name not in ("checkpoint", "checkpoint_every", "held_out", "in_place", "device")
    }
    held = solver.held_out
    settings["held_out"] = str(held) if held is None or isinstance(held, (int, float)) else _of_all(held)
    return settings | {
        "shapes of θ": [list(p.shape) for p in objective.parameters()],
        "models": [_structure(t.model) for t in objective.terms],
        "data": [_of_all(t.source) for t in objective.terms],
        "weights": [told(t.weights) for t in objective.terms],
        "priors": [told(prior.prior) for prior in objective.priors],
    }


def extends(old: Named, new: Named) -> bool:
    """Whether settings (of `identity`) are those of a longer run that goes on where the other ends: its schedule is
    constant, or begins again there."""
    more = int(new["steps"]) > int(old.get("steps", 0))
    return more and (new["lr_schedule"] == "constant" or int(new["restarted_at"]) == int(old["steps"]))


def check(objective: Objective) -> None:
    """Data drawn from the model cannot be drawn again: their source has to say what its next draw depends
    on."""
    for term in objective.terms:
        if is_drawn(term.source) and not isinstance(term.source, Restores):
            raise BadArgument(
                f"checkpoint= needs data that can be drawn again: {type(term.source).__name__} draws them "
                "from the model, and has no "
                "state() and restore(tensors)."
            )


def _of_all(source: SourceLike) -> Plain:
    """A digest of the data; of data of which every process holds a part, that of each."""
    known = _known(source)
    return known if replicated(source) else everywhere(known)


def _known(source: SourceLike) -> str | None:
    """A digest of all that is read, predictors included, where it is in memory; else of what is scored."""
    rows = whole(source)
    if rows is not None:
        return digest(*rows.tensors.values(), *([rows.count] if rows.counted else []))
    return None if source.size is None and not is_drawn(source) else source.fingerprint


def _structure(model: ModelLike) -> str:
    """A digest of a model's layers and family, without the values of its parameters."""
    said = f"{model!r} {family_of(model) or ''}"
    return (
        type(model).__name__
        + " "
        + hashlib.blake2b(re.sub("0x[0-9a-f]+", "", said).encode(), digest_size=8).hexdigest()
    )


def _numbered(name: str, tensors: Plain) -> dict[str, Tensor]:
    return {f"{name}.{i:06}": t for i, t in enumerate(tensors)}


def _laid(values: list[Tensor], places: list[Plain]) -> list[Tensor]:
    """The values in the layout of what they stand for; none stay none."""
    return [like(place, value) for place, value in zip(places, values, strict=True)] if values else []


def _of(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    return [tensors[key] for key in sorted(tensors) if key.rpartition(".")[0] == name]


def _short(value: Plain) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"
