"""What a climb found: the model at θ̂, the objective, the certificate, the trace. Inference and evaluation ask their questions of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data import Source
from ..likelihood import DensityPower, LogLikelihood, Objective, Trimmed
from ..models.base import names_of
from .certificate import Certificate


class Found:
    """The model at θ̂, the objective, the trace, the certificate; what is computed of them is kept."""

    def __init__(
        self,
        objective: Objective,
        certificate: Certificate,
        *,
        trace: Sequence[tuple[int, float, float]] = (),
        solver: Any = None,
        call: Mapping[str, Any] | None = None,
        measured: Sequence[Mapping[str, float]] = (),
    ):
        self.objective, self.certificate, self.solver = objective, certificate, solver
        self.model = objective.model
        self.theta = objective.theta
        self.trace = tuple(trace)
        self.call = dict(call or {})
        self.measured = tuple(measured)  # by a run, along the climb: {"step": …, "greedy_return": …}
        self._kept: dict[Any, Any] = {}

    @property
    def names(self) -> list[str]:
        """One name an estimate."""
        return names_of(self.model)

    @property
    def log_likelihood(self) -> float:
        """ℓ(θ̂) = Σ w log p, in nats: priors not included. Of a robust fit too, which maximised something else: `maximised`."""
        if self.robust is not None:
            plain = [LogLikelihood(term.model, term.source) for term in self.objective.terms]
            return self._once("log_likelihood", lambda: Objective(plain).value(self.theta))
        if self.certificate.status == "certified maximum" and self.trace and not self.objective.priors:
            return self.trace[-1][1]  # the last step's value is ℓ(θ̂) itself: no pass over the data is needed
        return self._once("log_likelihood", lambda: Objective(self.objective.terms).value(self.theta))

    @property
    def robust(self) -> DensityPower | Trimmed | None:
        """What was maximised in the place of the log-likelihood."""
        return self.objective.terms[0].robust

    @property
    def maximised(self) -> float:
        """The value of what was maximised: the log-likelihood, or the robust sum in its place; priors included."""
        return self._once("maximised", lambda: self.objective.value(self.theta))

    @property
    def observations(self) -> float:
        """n = Σ count."""
        return self._once("observations", lambda: self.objective.observations)

    @property
    def source(self) -> Source:
        """The data that were fitted."""
        return self.objective.terms[0].source

    def _once(self, key: Any, compute: Any) -> Any:
        if key not in self._kept:
            self.objective.theta = self.theta
            self._kept[key] = compute()
        return self._kept[key]
