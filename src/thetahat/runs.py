"""A run: the folder of a long climb. Whatever happens to the process, what was reached is in it, and the same call goes on from there.

    runs/NAME/
        config.json        what was asked: model, data, solver, versions; a climb of anything else is refused
        metrics.jsonl      a line every so many steps: nats of the batches, held-out nats with their error, rate, norm of ĝ, speed
        events.out.…       the same for TensorBoard, where it is installed (extra "tensorboard")
        checkpoint         all that the next step depends on (a folder, of shards)
        fit.thetahat       the fit, and
        report.html        its report, once the climb has ended

Everything is written aside and renamed, or appended a whole line at a time. Of several processes the first writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from .errors import BadArgument, BadSave
from .likelihood import Objective
from .solvers import Stochastic
from .solvers.checkpoint import identity
from .solvers.processes import rank

CONFIG, METRICS, CHECKPOINT, FIT, REPORT = "config.json", "metrics.jsonl", "checkpoint", "fit.thetahat", "report.html"
LINES = 200  # of metrics, at least, besides one a look
OWN = (
    "step",
    "nats",
    "rate",
    "norm",
    "terms",
    "terms_per_second",
    "seconds",
    "held_out",
    "held_out_error",
    "failure",
)  # in every run


class Run:
    """Records a stochastic climb in a folder, and lets it go on from there.

    Parameters
    ----------
    folder : runs/NAME; made if it is not there
    objective, solver : of the climb; `run.solver` is the same with a checkpoint in the folder
    about : plain values that config.json keeps besides (how the command line was called)
    measure : what else is to be measured at each look (greedy returns of a policy, in environments of their own): name → number

    Raises
    ------
    BadArgument : the solver is not `Stochastic`, has a checkpoint elsewhere, or the folder cannot be written
    BadSave : the folder holds another climb; the message names what differs
    """

    def __init__(
        self,
        folder: str | Path,
        objective: Objective,
        solver: Any,
        about: Mapping[str, Any] | None = None,
        measure: Callable[[], Mapping[str, float]] | None = None,
    ):
        self.folder = Path(folder)
        if not isinstance(solver, Stochastic):
            raise BadArgument(f"run={str(folder)!r} records a stochastic climb; the solver is {type(solver).__name__}.")
        if solver.checkpoint is not None:
            raise BadArgument(f"run={str(folder)!r} keeps its own checkpoint; leave out checkpoint={str(solver.checkpoint)!r}.")
        self.solver = dataclasses.replace(solver, checkpoint=self.folder / CHECKPOINT)
        self.every = max(1, solver.steps // LINES)
        self.writer: Any = None
        self.made = False  # the folder, by this call
        self.measure = measure
        self.measured: dict[str, float] = {}
        self.looks, self.fitted, self.seen, self.before, self.begun, self.at = 0, 0, 0.0, 0.0, 0.0, 0.0
        self._open(config(objective, self.solver, about))

    def _open(self, wanted: dict[str, Any]) -> None:
        """The folder, with the configuration that is wanted."""
        path = self.folder / CONFIG
        if path.exists():
            found = read(self.folder)
            for name, value in wanted["climb"].items():
                if found["climb"].get(name) != value:
                    raise BadSave(
                        f"{self.folder} holds another climb: its {name} is {_short(found['climb'].get(name))}, here it is {_short(value)}. "
                        "Give another run=, or ask for the same."
                    )
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise BadArgument(f"run={str(self.folder)!r}: that is no run, and it is not empty. Give the path of a new folder.")
        if rank() == 0:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                _written(path, json.dumps(wanted, indent=2, ensure_ascii=False) + "\n")
                self.made = True
            except OSError as error:
                raise BadArgument(f"run={str(self.folder)!r} cannot be written: {error.strerror or error}.") from error

    # ---- along the climb ---------------------------------------------------------------------------------------------------

    def __call__(self, state: Any) -> None:
        """What `iterate` calls with every state."""
        if rank() != 0:
            return
        if self.writer is None:
            self._begin(state)
            return
        evaluated, looked = len(state.evaluations) > self.looks, len(state.fitted) > self.fitted
        if not (evaluated or looked or state.failure or state.step % self.every == 0 or state.step == self.solver.steps):
            return
        now = time.perf_counter()
        line = {
            "step": state.step,
            "nats": _plain(state.value),
            "rate": self.solver.rate(max(state.step - 1, 0)),
            "norm": _plain(state.norm),
            "terms": state.seen,
            "terms_per_second": _plain((state.seen - self.seen) / (now - self.at)) if now > self.at else None,
            "seconds": round(self.before + now - self.begun, 3),
        }
        if evaluated:
            last = state.evaluations[-1]
            line |= {"held_out": _plain(last.mean), "held_out_error": _plain(last.error)}
        self.measured = {name: float(value) for name, value in self._measured(state, looked).items()}
        line |= {name: _plain(value) for name, value in self.measured.items()}
        if state.failure:
            line["failure"] = state.failure
        self.looks, self.fitted, self.seen, self.at = len(state.evaluations), len(state.fitted), state.seen, now
        try:
            self.lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.lines.flush()
        except OSError as error:
            where = self.folder / METRICS
            raise BadSave(f"{where} cannot be written: {error.strerror or error}. The checkpoint beside it is whole.") from error
        for name, value in line.items():
            if isinstance(value, float) and name not in ("seconds", "terms", "held_out_error"):
                self.writer.add_scalar(name, value, state.step)

    def _measured(self, state: Any, looked: bool) -> dict[str, float]:
        """What the sources say of what they drew (returns, rewards); at a look, what `measure` finds."""
        found: dict[str, float] = {}
        for feed in state.work.feeds:
            own = getattr(feed.terms[0].source, "measured", None)
            found |= own() if own is not None else {}
        return found | dict(self.measure() if looked and self.measure is not None else {})

    def _begin(self, state: Any) -> None:
        """Metrics go on after the step where the climb does: lines of steps that a kill undid are dropped."""
        path = self.folder / METRICS
        kept = [line for line in metrics(self.folder) if line["step"] <= state.step] if state.step else []
        _written(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
        self.lines = path.open("a", encoding="utf-8")
        self.writer = _writer(self.folder, state.step)
        self.before = kept[-1]["seconds"] if kept else 0.0
        self.looks, self.fitted, self.seen = len(state.evaluations), len(state.fitted), state.seen
        self.begun = self.at = time.perf_counter()

    def close(self) -> None:
        """The files of the climb, closed; also after an error. A climb that did not begin leaves no folder behind that it made."""
        if self.writer is None and self.made and os.listdir(self.folder) == [CONFIG]:
            (self.folder / CONFIG).unlink()
            self.folder.rmdir()
        if self.writer is not None:
            for file in (self.lines, self.writer):
                with contextlib.suppress(OSError):  # every line was flushed: what fails here was said when it was written
                    file.close()

    def finish(self, fit: Any) -> None:
        """The fit (of several terms that of the first one's model), and the report, beside the rest."""
        if rank() == 0:
            terms = fit.objective.terms
            first = type(fit)(Objective(terms[:1]), fit.certificate, trace=fit.trace, solver=fit.solver, call=fit.call)
            (fit if len(terms) == 1 else first).save(self.folder / FIT)
            fit.report(self.folder / REPORT)


# ---- what a folder says ------------------------------------------------------------------------------------------------------


def config(objective: Objective, solver: Stochastic, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was asked, in plain values. `climb` has to be the same for a run to go on."""
    climb = json.loads(json.dumps(identity(solver, objective)))
    kinds = [f"{type(t.model).__name__} on {type(t.source).__name__}" for t in objective.terms]
    versions = {"thetahat": version("thetahat"), "torch": torch.__version__, "python": platform.python_version()}
    size = sum(p.numel() for p in objective.parameters())
    return {"terms": kinds, "size": size, "climb": climb, "versions": versions, "about": dict(about or {})}


def read(folder: str | Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises
    ------
    BadSave : the folder is no run, or its configuration is damaged
    """
    path = Path(folder) / CONFIG
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadSave(f"{folder} is no run: it has no {CONFIG}.") from error
    except (OSError, ValueError) as error:
        raise BadSave(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict) or "climb" not in found:
        raise BadSave(f"{path} is not the configuration of a run.")
    return found


def metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, in order of their steps; a last line that a kill cut short is left out."""
    path = Path(folder) / METRICS
    out: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            out.append(json.loads(line))
        except ValueError:
            break
    return out


def measured(folder: str | Path) -> list[dict[str, float]]:
    """What a run measured besides (returns, rewards), at each step where it did."""
    lines = ({name: v for name, v in line.items() if name == "step" or name not in OWN} for line in metrics(folder))
    return [line for line in lines if len(line) > 1]


class _Nothing:
    """Where TensorBoard is not installed: metrics.jsonl has the same numbers."""

    def add_scalar(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _writer(folder: Path, step: int) -> Any:
    if find_spec("tensorboard") is None:
        return _Nothing()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def _written(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"
