"""Cox's family: the order of the events, and not their times, is what has a likelihood."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadArgument
from .base import Family, Parameter, reals
from .links import identity
from .ranges import real

TIES = ("efron", "breslow")


@dataclass(frozen=True)
class Cox(Family):
    """Proportional hazards, fitted by the partial likelihood (`models.cox`). It describes no time: it has no log_prob of
    one row, which depends on who else is at risk.

    Parameters
    ----------
    ties
        "efron" or "breslow"

    Source: Cox (1972), Regression models and life-tables.

    Examples
    --------
    >>> str(Cox("breslow"))
    "Cox(ties='breslow')"
    """

    ties: str = "efron"

    log_hazard = Parameter(real, link=identity, intercept=False)
    support, measure = reals, "partial likelihood"

    def __post_init__(self) -> None:
        if self.ties not in TIES:
            raise BadArgument(f"ties={self.ties!r}. Accepted: {', '.join(map(repr, TIES))}.")
