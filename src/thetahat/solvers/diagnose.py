"""What an answer is worth, beyond what the solver saw: flat directions, separation, other recession directions, boundaries."""

from __future__ import annotations

from typing import Any

from .certificate import Certificate


def diagnose(objective: Any, solver: Any, state: Any) -> Certificate:
    """The solver's certificate, or the reason why there is no maximum to certify."""
    return solver.certificate(objective, state)
