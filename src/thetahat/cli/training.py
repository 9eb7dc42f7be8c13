"""`thetahat fit gpt | policy | …` and `thetahat align`: a run that a folder records, runs/NAME, and from
which it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..errors import BadArgument
from ..types import OF_SEED, ModelLike, Settings, StateLike
from .screen import Screen, plain_table
from .systems import System, free


def train(command: System, screen: Screen) -> int:
    """fit gpt, policy and the other systems: a run."""
    from ..fitting import maximize
    from ..io.runs import CHECKPOINT, CONFIG, FIT, REPORT, Run, read

    folder = command.run if command.run is not None else free(command.name)
    begun = (folder / CONFIG).exists()
    if command.resume and not begun:
        raise BadArgument(
            f"--resume: {folder} is no run. Without it a new one is begun."
            if command.run
            else "--resume needs --run FOLDER."
        )
    if begun and not command.resume:
        raise BadArgument(f"{folder} is a run already. Give --resume to continue it, or another --run.")
    if begun:
        command.continues(folder, read(folder)["about"])
    with screen.busy("reading"):
        sizes, source = command.read()
        model = command.model(sizes)
    if command.init_from is not None and not begun:
        _begin_at(model, command.init_from)
    objective = command.objective(model, source, sizes)
    solver = command.trainer(sizes)
    record = Run(
        folder,
        objective,
        solver,
        command.about(sizes),
        lambda: command.measure(model),
        screen.note,
        command.wandb,
    )
    if begun and (folder / CHECKPOINT).exists():
        screen.note(f"going on with {folder}")
    elif begun:
        screen.note(f"{folder} holds no checkpoint: the run begins again")
    count = sum(p.numel() for p in model.parameters())
    screen.note(
        f"{command.name}: {count:,} parameters, {record.solver.steps:,} steps; {folder} holds what is reached"
    )
    said = Lines(screen, record)
    settings: Settings = {"run": record, "callback": said, "call": {"command": screen.command}}
    try:
        found = maximize(objective, solver=record.solver, on_failure="return", **settings)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM: the checkpoint is written
        screen.note(
            f"to go on: {screen.command} --resume" + ("" if command.run is not None else f" --run {folder}")
        )
        raise
    summary = found.summary()
    each = command.each({name: value for line in found.measured for name, value in line.items()})
    document = summary.to_dict() | {"run": str(folder)} | ({"seeds": each} if each else {})
    screen.show(summary, document)
    if each and not screen.as_json:
        shown = ", ".join(f"{s}: {value:.5g}" for s, value in each.items())
        screen.show(plain_table([("greedy return of each seed", shown)]), None)
    if found.certificate.ok:
        screen.note(f"wrote {folder / FIT}, {folder / REPORT}")
    return 0 if found.certificate.ok else 1


def _begin_at(model: ModelLike, run: Path) -> None:
    """The parameters and buffers of another run's model into this one.

    Raises
    ------
    BadArgument
        they are not of the same names and shapes; the message names the first that differs
    """
    import torch

    from .systems import again

    found = again(run)[2].model.state_dict()
    own = model.state_dict()
    for name in sorted(own.keys() | found.keys()):
        shapes = [tuple(each[name].shape) if name in each else None for each in (own, found)]
        if shapes[0] != shapes[1]:
            here, there = ("no such tensor" if shape is None else f"shape {shape}" for shape in shapes)
            raise BadArgument(
                f"--init-from {run}: its tensor {name!r} has {there}, and the model asked for has {here}. Ask for "
                "a model of the same sizes."
            )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(found[name])


class Lines:
    """A line a look, where stderr is no terminal and has no bar: a log that shows that the run is alive."""

    def __init__(self, screen: Screen, record: Any):
        self.screen, self.record, self.looks, self.begun, self.before = (
            screen,
            record,
            0,
            time.monotonic(),
            0.0,
        )

    def __call__(self, state: StateLike) -> None:
        from ..solvers.progress import said

        if not self.looks:
            self.before = state.seen
        if len(state.trace) > self.looks and not self.screen.err.is_terminal:
            found, told = self.record.measured, ""
            for name, value in found.items():
                if not name.endswith(("_error", "_low", "_high")) and OF_SEED not in name:
                    error = f" ± {found[f'{name}_error']:.2g}" if f"{name}_error" in found else ""
                    told += f"{name.replace('_', ' ').replace('/', ' ')} {value:.5g}{error}, "
            self.screen.note(
                f"step {state.step}: {told}{said(state, time.monotonic() - self.begun, self.before)}"
            )
        self.looks = len(state.trace)
