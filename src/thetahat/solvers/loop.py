"""The one loop that iterates: start, then step until done. A solver is those three; its state is a value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from ..errors import BadArgument
from ..types import ObjectiveLike, SolverLike, StateLike
from .background import Writer
from .certificate import Certificate
from .interrupts import deferred, leave


@runtime_checkable
class Solver(Protocol):
    """A frozen dataclass of settings."""

    def start(self, objective: ObjectiveLike) -> StateLike:
        """The state before the first step."""

    def step(self, objective: ObjectiveLike, state: StateLike) -> StateLike:
        """The next state."""

    def done(self, objective: ObjectiveLike, state: StateLike) -> bool:
        """Whether the state can be certified, or nothing more can be gained."""

    def certificate(self, objective: ObjectiveLike, state: StateLike) -> Certificate:
        """What is known of the state's θ."""


@runtime_checkable
class ByCurvature(Protocol):
    """A solver that goes by derivatives alone, where `smooth`: a kink of a prior would stop it anywhere."""

    smooth: ClassVar[bool]


@runtime_checkable
class Checkpoints(Protocol):
    """A solver that can write its state to a file and go on from it. `start` returns the state in the file,
    where there is one."""

    @property
    def checkpoint(self) -> str | Path | None: ...

    def advance(self, objective: ObjectiveLike, state: StateLike) -> StateLike:
        """The next state, nothing written."""

    def due(self, state: StateLike) -> bool:
        """Whether the file is to be written now."""

    def write(self, objective: ObjectiveLike, state: StateLike) -> None:
        """Begin to write it."""

    def writer(self, state: StateLike) -> Writer:
        """What writes it, while the next steps are computed."""


def iterate(
    solver: SolverLike, objective: ObjectiveLike, callback: Callable[[StateLike], None] | None = None
) -> StateLike:
    """start, step until done. `callback(state)` sees every state (progress, traces).

    A solver with a checkpoint writes it when Ctrl-C or SIGTERM ends the process: after the step under way, at
    most one step is lost.

    A solver that goes by curvature alone says so (`smooth`), and is refused an objective whose prior has a
    kink: it would stop anywhere.
    """
    if isinstance(solver, ByCurvature) and solver.smooth and objective.kinked:
        raise BadArgument(
            f"{type(solver).__name__} needs derivatives, and a prior has a kink where a coefficient is zero. "
            "Use solver=th.Proximal() "
            "(which is chosen by itself), or a smooth prior such as th.priors.Normal."
        )
    state = solver.start(objective)
    if callback is not None:
        callback(state)
    if isinstance(solver, Checkpoints) and solver.checkpoint is not None:
        return _kept(solver, objective, state, callback)
    while not solver.done(objective, state):
        state = solver.step(objective, state)
        if callback is not None:
            callback(state)
    return state


def _kept(
    solver: SolverLike,
    objective: ObjectiveLike,
    state: StateLike,
    callback: Callable[[StateLike], None] | None,
) -> StateLike:
    """The same of a solver with a checkpoint, which is written after `callback` has seen its step: a kill
    between the two loses neither. What could not be written is raised at the next step, or at the end."""
    writer = solver.writer(state)
    with deferred() as interrupted, writer.watched():
        while not solver.done(objective, state):
            state = solver.advance(objective, state)
            if callback is not None:
                callback(state)
            number, failed = interrupted(writer.failed)
            if failed:
                writer.finish()
            if (number and not state.failure) or solver.due(state):
                solver.write(objective, state)
            if number:
                writer.finish()
                leave(number, state.step, solver.checkpoint)
        writer.finish()
    return state
