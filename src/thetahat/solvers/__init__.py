"""The solvers: each a frozen dataclass of settings with start, step, done and certificate; `loop.iterate`
drives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import BadArgument
from ..likelihood import Objective, Trimmed
from ..protocols import HasStart
from ..threads import FEW, one_thread
from ..types import SolverLike, StateLike
from . import interior_point
from .baum_welch import BaumWelch
from .certificate import Certificate
from .choice import is_stochastic, of_likelihood
from .closed_form import ClosedForm
from .diagnose import diagnose
from .em import EM
from .fast_trimmed import FastTrimmed
from .gauss_newton import GaussNewton
from .interior_point import InteriorPoint
from .lbfgs import LBFGS
from .loop import Solver, iterate
from .newton import Newton
from .progress import progress
from .proximal import Proximal
from .quantile import LinearProgramme
from .recession import reproduced
from .restarts import Restarts
from .steered import Steered
from .stochastic import Stochastic


def choose(objective: Objective) -> Solver:
    """The solver of an objective: of a robust one that which seeks several maxima; else
    `choice.of_likelihood`."""
    robust = objective.terms[0].robust if len(objective.terms) == 1 else None
    if robust is None:
        return of_likelihood(objective)
    if objective.kinked:
        raise BadArgument(f"{robust} has many maxima, and takes no prior with a kink. Use th.priors.Normal.")
    if is_stochastic(objective) or interior_point.applies(objective):
        return of_likelihood(objective)
    return FastTrimmed(starts=robust.starts, seed=robust.seed) if isinstance(robust, Trimmed) else Restarts()


def optimise(
    objective: Objective, solver: SolverLike, *watch: Callable[[StateLike], None] | None
) -> tuple[Objective, Certificate, tuple[tuple[int, float, float], ...]]:
    """Start where the model suggests, iterate, and find out what the answer is worth. `watch` see every
    state.

    Returns the objective at θ̂, of modules that nobody else has, the certificate and the trace. The objective
    given stays as it is.
    """
    # one thread from the start to the certificate: to wake the others between two evaluations costs more than these, and
    # on a machine with other work much more
    mixed = isinstance(solver, Steered) and (objective.rows or FEW) < FEW
    with one_thread(mixed or (isinstance(solver, (Newton, ClosedForm)) and objective.few)):
        return _optimised(objective, solver, watch)


def _optimised(
    objective: Objective, solver: SolverLike, watch: Sequence[Callable[[StateLike], None] | None]
) -> tuple[Objective, Certificate, tuple[tuple[int, float, float], ...]]:
    if not isinstance(solver, Stochastic):  # which trains a copy of its own, or what was handed over
        objective = objective.copy()
        for term in objective.terms:
            term.model.eval()  # the whole data have one log-likelihood: no dropout, no statistics of a batch
        guesses = isinstance(solver, BaumWelch)  # several of its own
        if isinstance(objective.model, HasStart) and len(objective.terms) == 1 and not guesses:
            objective = objective.at(objective.model.start(objective.terms[0].source))
            if isinstance(solver, Newton) and reproduced(objective) is not None:
                solver = replace(solver, steps=0)  # there is no maximum, which `diagnose` says
    with progress(solver) as shown:
        watching = [each for each in (shown, *watch) if each is not None]

        def callback(state: StateLike) -> None:
            for each in watching:
                each(state)

        state = iterate(solver, objective, callback if watching else None)
    end = diagnose(objective, solver, state)
    return (
        end.objective,
        end.certificate,
        state.trace if end.state is state else (*state.trace, *end.state.trace),
    )


__all__ = [
    "EM",
    "LBFGS",
    "BaumWelch",
    "Certificate",
    "ClosedForm",
    "FastTrimmed",
    "GaussNewton",
    "InteriorPoint",
    "LinearProgramme",
    "Newton",
    "Proximal",
    "Restarts",
    "Solver",
    "Stochastic",
    "choose",
    "optimise",
    "diagnose",
    "iterate",
]
