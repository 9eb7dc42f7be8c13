"""A run: the folder of a long training run. Whatever happens to the process, what was reached is in it, and
the same call goes on from there.

    runs/NAME/
        config.json        what was asked: model, data, solver, versions; a run of anything else is refused
        metrics.jsonl      a line every so many steps: train/log_likelihood of the batch (nats a term), validation/log_likelihood with
                           its error, learning_rate, grad_norm, tokens_per_second (or terms_per_second), data_wait
        events.out.…       the same for TensorBoard, where it is installed (extra "tensorboard")
        wandb/             the same for Weights & Biases, where it is asked for (extra "wandb")
        checkpoint         all that the next step depends on (a folder, of shards)
        lock               held by the process that writes the folder, for as long as it does
        fit.thetahat       the fit, and
        report.html        its report, once the run has ended

Everything is written aside and renamed, or appended a whole line at a time. Of several processes of
torch.distributed the first writes; any other process that opens the folder meanwhile is refused. Ctrl-C and
SIGTERM end the run after the step under way, with a checkpoint.

A run is made longer by asking for more steps: it goes on from its last θ, at a constant learning rate as if it had been
asked for so many at first; with another schedule the first part is ended first, and the schedule begins again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import torch

from ..data.processes import rank, together
from ..errors import BadArgument, BadSave, MissingExtra, NotWritten
from ..files import leftovers, usable, write_text
from ..likelihood import Objective
from ..protocols import Measured, maximised_of
from ..solvers import Stochastic
from ..solvers.checkpoint import LONGER, OF_RUN, extends, identity
from ..types import Named, Plain, Settings, SolverLike, StateLike

if TYPE_CHECKING:
    from ..result import Fit

CONFIG, METRICS, CHECKPOINT, FIT, REPORT = (
    "config.json",
    "metrics.jsonl",
    OF_RUN,
    "fit.thetahat",
    "report.html",
)
LOCK = "lock"
LINES = 200  # of metrics, at least, besides one a look
FITTED, HELD_OUT = "train/log_likelihood", "validation/log_likelihood"
OBJECTIVE = "train/objective"  # in the place of the first, of a model that is trained by another objective
CURVES = (FITTED, HELD_OUT, f"{HELD_OUT}_error")  # which the report draws in one figure
OWN = (
    "step",
    FITTED,
    OBJECTIVE,
    HELD_OUT,
    f"{HELD_OUT}_error",
    "learning_rate",
    "grad_norm",
    "terms",
    "terms_per_second",
    "tokens_per_second",
    "seconds",
    "failure",
    "flops_per_second",
    "mfu",
    "peak_memory",
    "data_wait",
)  # in every run


class Run:
    """Records a training run in a folder, and lets it go on from there.

    Parameters
    ----------
    folder
        runs/NAME; made if it is not there
    objective, solver
        of the run; `run.solver` is the same with a checkpoint in the folder
    about
        plain values that config.json keeps besides (how the command line was called)
    measure
        what else is to be measured at each look (greedy returns of a policy, in environments of their own):
        name → number
    wandb
        the project of Weights & Biases that gets the metrics too; None: none
    say
        is told what was damaged and repaired; None: `warnings.warn`

    Raises
    ------
    BadArgument
        the solver is not `Stochastic`, has a checkpoint elsewhere, or the folder cannot be written
    BadSave
        the folder holds another run, or another process writes it; the message names what differs
    """

    def __init__(
        self,
        folder: str | Path,
        objective: Objective,
        solver: SolverLike,
        about: Named | None = None,
        measure: Callable[[], Mapping[str, float]] | None = None,
        say: Callable[[str], None] | None = None,
        wandb: str | None = None,
    ):
        self.folder = usable(folder)
        if not isinstance(solver, Stochastic):
            raise BadArgument(
                f"run={str(folder)!r} records a training run; the solver is {type(solver).__name__}."
            )
        if solver.checkpoint is not None:
            raise BadArgument(
                f"run={str(folder)!r} keeps its own checkpoint; leave out "
                f"checkpoint={str(solver.checkpoint)!r}."
            )
        solver = dataclasses.replace(
            solver, checkpoint=self.folder / CHECKPOINT, restarted_at=_restarted_at(self.folder, solver)
        )
        self.solver, self.wandb = solver, wandb
        self.speed = "tokens_per_second" if objective.terms[0].source.units == "token" else "terms_per_second"
        self.fitted_as = OBJECTIVE if any(maximised_of(t.model) for t in objective.terms) else FITTED
        self.every = max(1, solver.steps // LINES)
        self.writers: list[Plain] | None = None
        self.made = False  # the folder, by this call
        self.measure = measure
        self.measured: dict[str, float] = {}
        self.say = say or (lambda text: warnings.warn(text, stacklevel=2))
        self.lock: Plain = None
        self.looks, self.fitted, self.seen, self.before, self.begun, self.at = 0, 0, 0.0, 0.0, 0.0, 0.0
        self.waited = 0.0
        self.about = dict(about or {})
        self._open(config(objective, self.solver, about))

    def _open(self, wanted: Settings) -> None:
        """The folder, locked, with the configuration that is wanted."""
        path = self.folder / CONFIG
        new = not path.exists()
        if (
            new
            and self.folder.exists()
            and (not self.folder.is_dir() or set(os.listdir(self.folder)) - {LOCK})
        ):
            raise BadArgument(
                f"run={str(self.folder)!r}: that is not a run, and it is not empty. Give the path of a new "
                "folder."
            )
        longer = not new and same(self.folder, wanted["run"])
        together()  # every process has seen the folder as it was
        if rank() != 0:
            return
        self._lock()
        try:
            for part in leftovers(self.folder):
                part.unlink(missing_ok=True)
            if longer:
                wanted = read(self.folder) | {"run": wanted["run"]}
                wanted["about"] = _longer(wanted["about"], self.about)
            if new or longer:
                write_text(path, json.dumps(wanted, indent=2, ensure_ascii=False) + "\n", alone=True)
                self.made = new
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        """The system releases the lock when the process ends, however it ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = filelock.FileLock(self.folder / LOCK)
            self.lock.acquire(timeout=0)
        except filelock.Timeout as error:
            self.lock = None
            raise BadSave(
                f"{self.folder} is being written by another process. Wait until it has ended, or give "
                "another folder."
            ) from error
        except OSError as error:
            self.lock = None
            raise BadArgument(
                f"run={str(self.folder)!r} cannot be written: {error.strerror or error}."
            ) from error

    # ---- along the run -------------------------------------------------------------------------------------

    def __call__(self, state: StateLike) -> None:
        """What `iterate` calls with every state."""
        if rank() != 0:
            return
        if self.writers is None:
            self._begin(state)
            return
        writers: list[Plain] = self.writers
        evaluated, looked = len(state.evaluations) > self.looks, len(state.fitted) > self.fitted
        if not (
            evaluated
            or looked
            or state.failure
            or state.step % self.every == 0
            or state.step == self.solver.steps
        ):
            return
        now = time.perf_counter()
        line = {
            "step": state.step,
            self.fitted_as: _plain(state.value),
            "learning_rate": self.solver.rate(max(state.step - 1, 0)),
            "grad_norm": _plain(state.norm),
            "terms": state.seen,
            self.speed: _plain((state.seen - self.seen) / (now - self.at)) if now > self.at else None,
            "seconds": round(self.before + now - self.begun, 3),
        }
        if line[self.speed]:
            line |= {name: _plain(value) for name, value in state.used(line[self.speed]).items()}
        if state.waited is not None and now > self.at:  # the share of the time since the last line
            line["data_wait"] = round((state.waited - self.waited) / (now - self.at), 4)
            self.waited = state.waited
        if evaluated:
            last = state.evaluations[-1]
            line |= {HELD_OUT: _plain(last.mean), f"{HELD_OUT}_error": _plain(last.error)}
            found = {f"validation/{name}": value for name, value in last.measured.items()}
        else:
            found = {}
        self.measured = found | {name: float(value) for name, value in self._measured(state, looked).items()}
        line |= {name: _plain(value) for name, value in self.measured.items()}
        if state.failure:
            line["failure"] = state.failure
        self.looks, self.fitted, self.seen, self.at = (
            len(state.evaluations),
            len(state.fitted),
            state.seen,
            now,
        )
        try:
            self.lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.lines.flush()
            shown = {
                name: value
                for name, value in line.items()
                if isinstance(value, float) and name not in ("seconds", "terms", f"{HELD_OUT}_error")
            }
            for writer in writers:
                writer.write(shown, state.step)
        except OSError as error:
            raise NotWritten.of(self.folder / METRICS, error, "The checkpoint beside it is whole.") from error

    def _measured(self, state: StateLike, looked: bool) -> dict[str, float]:
        """What the sources say of what they drew (returns, rewards); at a look, what `measure` finds."""
        found: dict[str, float] = {}
        for feed in state.work.feeds:
            for thing in (feed.terms[0].source, *(term.weights for term in feed.terms)):
                found |= thing.measured() if isinstance(thing, Measured) else {}
        return found | dict(self.measure() if looked and self.measure is not None else {})

    def _begin(self, state: StateLike) -> None:
        """Metrics go on after the step where the run does: lines of steps that a kill undid are dropped."""
        path = self.folder / METRICS
        found, damaged = _read(path)
        if damaged:
            self.say(
                f"{path}: {_lines(damaged)} could not be read and left out. The run goes on without them."
            )
        kept = [line for line in found if line["step"] <= state.step] if state.step else []
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), alone=True)
        self.lines = path.open("a", encoding="utf-8")
        self.writers = [TensorBoard(self.folder, state.step)]
        if self.wandb is not None:
            self.writers.append(WeightsAndBiases(self.wandb, self.folder))
        self.before = kept[-1]["seconds"] if kept else 0.0
        self.looks, self.fitted, self.seen = len(state.evaluations), len(state.fitted), state.seen
        self.begun = self.at = time.perf_counter()
        self.waited = state.waited or 0.0

    def close(self) -> None:
        """The files of the run, closed; also after an error. A run that did not begin leaves no folder behind
        that it made."""
        if self.writers is not None:
            for file in (self.lines, *self.writers):
                with contextlib.suppress(
                    OSError
                ):  # every line was flushed: what fails here was said when it was written
                    file.close()
        if self.lock is not None:
            empty = self.writers is None and self.made and set(os.listdir(self.folder)) <= {CONFIG, LOCK}
            if empty:
                (self.folder / CONFIG).unlink(missing_ok=True)
                (self.folder / LOCK).unlink(missing_ok=True)
            self.lock.release()
            self.lock = None
            if empty:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()

    def finish(self, fit: Fit) -> None:
        """The fit and its report, beside the rest. A saved fit that was damaged is written anew."""
        from ..report import html
        from .archive import is_ours

        page = html.page(
            fit
        )  # of every process: where each holds a part of the data, it sums over all of them
        if rank() == 0:
            saved = self.folder / FIT
            if saved.exists() and not is_ours(saved):
                self.say(f"{saved} was damaged, and is written again.")
                saved.unlink()
            fit.save(saved)
            ended = read(self.folder) | {"ended": self.solver.steps}
            write_text(
                self.folder / CONFIG, json.dumps(ended, indent=2, ensure_ascii=False) + "\n", alone=True
            )
            write_text(self.folder / REPORT, page)


# ---- what a folder says ------------------------------------------------------------------------------------


def config(objective: Objective, solver: Stochastic, about: Named | None) -> Settings:
    """What was asked, in plain values. `run` has to be the same for a run to go on."""
    settings = json.loads(json.dumps(identity(solver, objective)))
    kinds = [f"{type(t.model).__name__} on {type(t.source).__name__}" for t in objective.terms]
    versions = {
        "thetahat": version("thetahat"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    size = sum(p.numel() for p in objective.parameters())
    return {"terms": kinds, "size": size, "run": settings, "versions": versions, "about": dict(about or {})}


def same(folder: Path, settings: Named) -> bool:
    """Whether what is asked for is a longer run than that of a folder, and otherwise the same.

    Raises
    ------
    BadSave
        names what differs
    """
    known = read(folder)["run"]
    longer = extends(known, settings)
    for name, value in settings.items():
        if longer and name in LONGER:
            continue
        if known.get(name) != value:
            raise BadSave(
                f"{folder} holds another run: its {name} is {_short(known.get(name))}, here it is "
                f"{_short(value)}. "
                "Give another run=, or ask for the same."
            )
    return longer


def _restarted_at(folder: Path, solver: Stochastic) -> int:
    """The step at which the schedule of a run begins again, because it was made longer, now or before.

    Raises
    ------
    BadArgument
        it is to be made longer before it has ended, and its learning rate depends on where it ends
    """
    if not (folder / CONFIG).exists():
        return solver.restarted_at
    known = read(folder)["run"]
    steps, at = int(known["steps"]), int(known.get("restarted_at", 0))
    if solver.steps <= steps or solver.lr_schedule == "constant":
        return at
    if read(folder).get("ended") != steps:
        raise BadArgument(
            f"{folder} has not ended its {steps} steps, and its learning rate ({solver.lr_schedule}) depends on "
            f"where it ends. First let it end: ask for steps={steps} again. Then ask for steps={solver.steps}."
        )
    return steps


def _longer(about: Named, now: Named) -> Settings:
    """How the command was called, with what it is now asked for."""
    return (
        {**about, "settings": now["settings"]} if "settings" in about and "settings" in now else dict(about)
    )


def read(folder: str | Path) -> Settings:
    """The configuration of a run.

    Raises
    ------
    BadSave
        the folder is not a run, or its configuration is damaged
    """
    path = usable(folder) / CONFIG
    try:
        found: Settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadSave(f"{folder} is not a run: it has no {CONFIG}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadSave(
            f"{path} is damaged: {error}. Restore it, or begin the run anew in another folder."
        ) from error
    known = isinstance(found, dict) and all(isinstance(found.get(name), dict) for name in ("run", "about"))
    if not known:
        raise BadSave(f"{path} is not the configuration of a run.")
    return found


def metrics(folder: str | Path) -> list[Settings]:
    """The lines of metrics.jsonl, in order of their steps; lines that cannot be read are left out."""
    return _read(Path(folder) / METRICS)[0]


def _read(path: Path) -> tuple[list[Settings], list[int]]:
    """The lines of a file of metrics, and the numbers of those that are damaged: not of a last one that a
    kill cut short."""
    out: list[Settings] = []
    damaged: list[int] = []
    raw = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for number, text in enumerate(raw.split("\n"), 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if (
            isinstance(line, dict)
            and type(line.get("step")) is int
            and isinstance(line.get("seconds"), (int, float))
        ):
            out.append(line)
        elif text:
            damaged.append(number)
    if damaged and not raw.endswith("\n") and damaged[-1] == raw.count("\n") + 1:
        damaged.pop()
    return sorted(out, key=lambda line: line["step"]), damaged


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (f" … ({len(numbers)} in all)" if len(numbers) > 5 else "")
    return f"line{'s' * (len(numbers) > 1)} {shown}"


def measured(folder: str | Path) -> list[dict[str, float]]:
    """What a run measured besides (returns, rewards), at each step where it did."""
    lines = (
        {
            name: v
            for name, v in line.items()
            if name == "step" or ((name in CURVES or name not in OWN) and type(v) in (int, float))
        }
        for line in metrics(folder)
    )
    return [line for line in lines if len(line) > 1]


class TensorBoard:
    """The metrics for TensorBoard. Where it is not installed: none, metrics.jsonl has the same numbers."""

    def __init__(self, folder: Path, step: int):
        self.writer: Plain = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items() if self.writer is not None else ():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class WeightsAndBiases:
    """The metrics for a project of Weights & Biases; a run that goes on does so there too. Where its files and
    its server are, its own settings say (WANDB_MODE=offline).

    Raises
    ------
    MissingExtra
        wandb is not installed
    """

    def __init__(self, project: str, folder: Path):
        if find_spec("wandb") is None:
            raise MissingExtra.named("wandb", "wandb")
        import wandb

        same = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
        self.run = wandb.init(
            project=project, name=folder.name, id=same, resume="allow", dir=str(folder), config=read(folder)
        )

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: Plain) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"
