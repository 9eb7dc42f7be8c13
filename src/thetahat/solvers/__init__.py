"""The solvers: each a frozen dataclass of settings with start, step, done and certificate; `loop.iterate` drives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..errors import BadArgument
from ..likelihood import DensityPower, Objective, Trimmed
from ..models import Mixture
from . import closed_form, gauss_newton, interior_point, quantile
from .certificate import Certificate
from .closed_form import ClosedForm
from .concentration import Concentration
from .diagnose import diagnose
from .em import EM
from .gauss_newton import GaussNewton
from .interior_point import InteriorPoint
from .lbfgs import LBFGS
from .loop import Solver, iterate
from .minibatches import drawn
from .newton import Newton
from .progress import progress
from .proximal import Proximal
from .quantile import LinearProgramme
from .restarts import Restarts
from .stochastic import Stochastic

QR_ROWS = 100_000  # rows up to which a normal linear model is solved by QR: beyond, one Newton step is as good and faster
PRODUCTS = 1e11  # in one factor of the information: a second or so
DENSE = 4000  # coordinates of θ whose information can be factored: beyond, gradients alone


def choose(objective: Objective) -> Any:
    """Stochastic ascent where θ is not float64 (a network), log p is made of draws, or the data have no end; an interior point where a
    link bounds the linear predictors; the closed form where there is one; proximal Newton where a prior has a kink; EM for a mixture;
    Levenberg and Marquardt's method where a likelihood of one's own is a sum of squares; Newton where the information can be held and
    factored, L-BFGS where it cannot."""
    endless = any(drawn(t.source) or t.source.size is None for t in objective.terms)
    noisy = any(getattr(t.model, "kind", "exact") != "exact" for t in objective.terms)
    if endless or noisy or any(p.dtype != torch.float64 for p in objective.parameters()):
        return Stochastic()
    if interior_point.applies(objective):
        return InteriorPoint()
    robust = objective.terms[0].robust if len(objective.terms) == 1 else None
    if robust is not None and objective.kinked:
        raise BadArgument(f"{robust} has many maxima, and takes no prior with a kink. Use th.priors.Normal.")
    if isinstance(robust, Trimmed):
        return Concentration(starts=robust.starts, seed=robust.seed)
    if isinstance(robust, DensityPower):
        return Restarts()
    if objective.kinked and isinstance(objective.model, Mixture):
        raise BadArgument(
            "a mixture has many maxima, and EM, which seeks them, takes no prior with a kink. Use th.priors.Normal."
        )
    if quantile.applies(objective) and (objective.kinked or objective.priors):
        return LinearProgramme()  # which refuses a prior, by name
    if objective.kinked:
        if objective.size > DENSE:
            raise BadArgument(
                f"a prior with a kink on a model of {objective.size} parameters: Proximal factors their information, and no more than {DENSE} "
                "are held. Use th.priors.Normal, fewer columns, or solver=th.Stochastic(…), which finds no exact zeros."
            )
        return Proximal()
    if (objective.rows or 0) <= QR_ROWS and closed_form.applies(objective):
        return ClosedForm()
    if quantile.applies(objective):
        return LinearProgramme()
    layout = getattr(objective.model, "layout", None)
    dense = objective.size if layout is None or len(objective.terms) > 1 else layout.kept
    costly = (
        dense**2 * float(objective.size - dense) > PRODUCTS
    )  # of eliminating one wide category beside others that are wide too
    if isinstance(objective.model, Mixture) and len(objective.terms) == 1 and dense <= DENSE:
        return EM()
    if gauss_newton.applies(objective):
        return GaussNewton()
    return Newton() if dense <= DENSE and not costly else LBFGS()


def optimise(
    objective: Objective, solver: Any, *watch: Callable[[Any], None] | None
) -> tuple[Objective, Certificate, tuple[tuple[int, float, float], ...]]:
    """Start where the model suggests, iterate, and find out what the answer is worth. `watch` see every state.

    Returns the objective at θ̂, of modules that nobody else has, the certificate and the trace. The objective given stays as it is.
    """
    if not isinstance(solver, Stochastic):  # which trains a copy of its own, or what was handed over
        objective = objective.copy()
        for term in objective.terms:
            term.model.eval()  # the whole data have one log-likelihood: no dropout, no statistics of a batch
        begin = getattr(objective.model, "start", None)
        if begin is not None and len(objective.terms) == 1:
            objective = objective.at(begin(objective.terms[0].source))
    with progress(solver) as shown:
        watching = [each for each in (shown, *watch) if each is not None]

        def callback(state: Any) -> None:
            for each in watching:
                each(state)

        state = iterate(solver, objective, callback if watching else None)
    end = diagnose(objective, solver, state)
    return end.objective, end.certificate, state.trace if end.state is state else (*state.trace, *end.state.trace)


__all__ = [
    "EM",
    "LBFGS",
    "Certificate",
    "ClosedForm",
    "Concentration",
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
