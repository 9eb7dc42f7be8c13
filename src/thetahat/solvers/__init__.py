"""The solvers: each a frozen dataclass of settings with start, step, done and certificate; `loop.iterate` drives it."""

from __future__ import annotations

from typing import Any

from ..likelihood import Objective
from . import closed_form
from .certificate import Certificate
from .closed_form import ClosedForm
from .diagnose import diagnose
from .lbfgs import LBFGS
from .loop import Solver, iterate
from .newton import Newton

QR_ROWS = 100_000  # rows up to which a normal linear model is solved by QR: beyond, one Newton step is as good and faster
DENSE = 4000  # coordinates of θ whose information can be factored: beyond, gradients alone


def choose(objective: Objective) -> Any:
    """The closed form where there is one, Newton where the information can be held and factored, L-BFGS where it cannot."""
    if (objective.rows or 0) <= QR_ROWS and closed_form.applies(objective):
        return ClosedForm()
    layout = getattr(objective.model, "layout", None)
    dense = objective.size if layout is None or len(objective.terms) > 1 else layout.kept
    return Newton() if dense <= DENSE else LBFGS()


def climb(objective: Objective, solver: Any) -> tuple[Certificate, tuple[tuple[int, float, float], ...]]:
    """Start where the model suggests, iterate, and find out what the answer is worth."""
    term = objective.terms[0]
    begin = getattr(objective.model, "start", None)
    if begin is not None and len(objective.terms) == 1:
        objective.theta = begin(term.source)
    state = iterate(solver, objective)
    return diagnose(objective, solver, state), state.trace


__all__ = ["LBFGS", "Certificate", "ClosedForm", "Newton", "Solver", "choose", "climb", "diagnose", "iterate"]
