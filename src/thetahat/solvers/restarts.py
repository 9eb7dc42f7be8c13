"""Newton's method from several starts, for an objective that has more maxima than one: the density-power
divergence.

Its starts: where the model's own run begins, maximum likelihood, and the best trimmed fits of half and of
three quarters of the rows, which outliers do not move. The highest maximum is kept, and the certificate says
what became of the other runs.

Like a mixture's likelihood, Σ H_β need not have a highest point: of the normal family it is unbounded as the
scale → 0 on p rows that are fitted exactly where p/n ≥ β/(1 + β)^1.5. What is estimated is the highest
maximum in the interior; a run that runs into such a singularity is left and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import ThetahatError
from ..likelihood import LogLikelihood, Objective
from ..likelihood.robust import Trimmed
from ..models.information import Factor
from ..types import SolverLike
from . import closed_form
from .certificate import Certificate
from .fast_trimmed import FastTrimmed
from .loop import iterate
from .maxima import Maximum, told_of
from .newton import Newton

KEPT = (0.5, 0.75)  # of the trimmed fits from which to start
EACH = 2  # of the best maxima of each
PATIENCE = 40  # steps of a run once another has come to a maximum


@dataclass(frozen=True)
class State:
    """The starts, and where the runs from them ended."""

    starts: tuple[Tensor, ...]
    found: tuple[Maximum, ...] = ()
    passes: int = 0

    @property
    def best(self) -> Maximum:
        return max(self.found, key=lambda m: (m.certificate.ok, m.value))

    @property
    def theta(self) -> Tensor:
        return self.best.theta

    @property
    def trace(self) -> tuple[tuple[int, float, float], ...]:
        return self.best.trace if self.found else ()

    @property
    def factor(self) -> Factor | None:
        return None if self.best.newton is None else self.best.newton.factor

    @property
    def scale(self) -> Tensor:
        assert self.best.newton is not None
        return self.best.newton.scale


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """Settings.

    Parameters
    ----------
    newton
        the solver of each run
    elemental
        starts of each trimmed fit of a normal linear model; of other models, where each costs a run, a tenth
        of them
    seed
        of them
    """

    newton: Newton = field(default_factory=Newton)
    elemental: int = 100
    seed: int = 0

    def start(self, objective: Objective) -> State:
        begin = objective.theta
        starts = [begin] + [theta for theta in self._others(objective) if bool(torch.isfinite(theta).all())]
        return State(tuple(starts))

    def _others(self, objective: Objective) -> list[Tensor]:
        """θ of maximum likelihood and of trimmed fits, those that there are."""
        term = objective.terms[0]
        out = []
        for keep in (1.0, *KEPT):
            own = (
                LogLikelihood(term.model, term.source)
                if keep == 1
                else Trimmed(keep).of(term.model, term.source)
            )
            cheap = closed_form.applies(Objective([LogLikelihood(term.model, term.source)], objective.priors))
            starts = self.elemental if cheap else max(1, self.elemental // 10)
            solver: SolverLike = (
                Newton() if keep == 1 else FastTrimmed(starts=starts, seed=self.seed, best=EACH + 1)
            )
            try:
                state = iterate(solver, Objective([own], objective.priors))
            except ThetahatError:  # rows with weights, too few rows: one start fewer
                continue
            if keep == 1:
                out.append(state.theta)
            else:
                out += [m.theta for m in sorted(state.found, key=lambda m: -m.value) if m.certificate.ok][
                    :EACH
                ]
        return out

    def step(self, objective: Objective, state: State) -> State:
        """The run from the next start."""
        known = any(m.certificate.ok for m in state.found)  # then a run that crawls is left earlier
        steps = min(self.newton.steps, PATIENCE) if known else self.newton.steps
        solver = replace(self.newton, begin=state.starts[len(state.found)], steps=steps)
        newton = iterate(solver, objective)
        certificate = solver.certificate(objective, newton)
        if certificate.ok and not math.isfinite(newton.value):
            certificate = replace(certificate, status="not converged")
        end = Maximum(newton.theta, newton.value, certificate, newton, newton.trace)
        return replace(state, found=(*state.found, end), passes=state.passes + newton.passes)

    def done(self, objective: Objective, state: State) -> bool:
        return len(state.found) >= len(state.starts)

    def certificate(self, objective: Objective, state: State) -> Certificate:
        """Newton's, of the highest maximum; and what became of the other runs."""
        best = state.best
        if not best.certificate.ok:
            return replace(best.certificate, passes=state.passes)
        # higher than the best maximum, and none itself: on its way into a singularity
        found = [
            replace(m, trouble="singular") if m.value > best.value and not m.certificate.ok else m
            for m in state.found
        ]
        detail = " ".join(part for part in (best.certificate.detail, told_of(found, 0)) if part)
        return replace(best.certificate, detail=detail, passes=state.passes)
