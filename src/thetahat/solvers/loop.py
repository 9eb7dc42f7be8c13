"""The one loop that iterates: start, then step until done. A solver is those three; its state is a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .certificate import Certificate


class Solver(Protocol):
    """A frozen dataclass of settings."""

    def start(self, objective: Any) -> Any:
        """The state before the first step."""

    def step(self, objective: Any, state: Any) -> Any:
        """The next state."""

    def done(self, objective: Any, state: Any) -> bool:
        """Whether the state can be certified, or nothing more can be gained."""

    def certificate(self, objective: Any, state: Any) -> Certificate:
        """What is known of the state's θ."""


def iterate(solver: Any, objective: Any, callback: Callable[[Any], None] | None = None) -> Any:
    """start, step until done; leaves the objective's θ at the state's. `callback(state)` sees every state (progress, traces)."""
    state = solver.start(objective)
    if callback is not None:
        callback(state)
    while not solver.done(objective, state):
        state = solver.step(objective, state)
        if callback is not None:
            callback(state)
    objective.theta = state.theta
    return state
