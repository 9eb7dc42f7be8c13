"""What was found: the objective at θ̂, the certificate, the trace. Inference and evaluation ask their
questions of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ..data import Source
from ..likelihood import DensityPower, LogLikelihood, Objective, Trimmed
from ..models.base import names_of
from ..protocols import tokenizer_of
from ..types import ModelLike, Named, Plain, SolverLike
from .certificate import Certificate


class Found:
    """The objective at θ̂, the certificate, the trace. It does not change; what is computed of it is kept.

    The objective is the fit's own: no other fit, and nothing that was passed to `th.fit`, shares its modules.
    """

    objective: Objective
    certificate: Certificate
    solver: SolverLike
    trace: tuple[tuple[int, float, float], ...]
    call: Named
    measured: tuple[Mapping[str, float], ...]  # by a run, at its evaluations: {"step": …, "greedy_return": …}
    _cache: dict[object, Plain]
    _errors: tuple[
        str | None, str | tuple[str, ...] | None
    ]  # the kind of covariance, and the clusters, that were chosen for the fit
    settings: Named = {}  # of the run, where the fit is of one that was loaded
    _tokenizer: Plain = None

    def __init__(
        self,
        objective: Objective,
        certificate: Certificate,
        *,
        trace: Sequence[tuple[int, float, float]] = (),
        solver: SolverLike = None,
        call: Named | None = None,
        measured: Sequence[Mapping[str, float]] = (),
    ):
        self.__dict__.update(
            {
                "objective": objective,
                "certificate": certificate,
                "solver": solver,
                "trace": tuple(trace),
                "call": dict(call or {}),
                "measured": tuple(measured),
                "_cache": {},
                "_errors": (None, None),
            }
        )

    def __setattr__(self, name: str, value: Plain) -> None:
        raise AttributeError(
            f"a fit does not change: {name} cannot be set. Fit again, or copy what you need."
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a fit does not change: {name} cannot be deleted.")

    def __deepcopy__(self, memo: dict[int, object]) -> Plain:
        """The same fit with modules of its own. The data are shared: they do not change either."""
        out = copy.copy(self)
        out.__dict__.update(objective=self.objective.copy(), _cache=dict(self._cache))
        return out

    def _with(self, **changes: Plain) -> Plain:
        """The same fit with other attributes; nothing computed is kept."""
        out = copy.copy(self)
        out.__dict__.update(changes, _cache={})
        return out

    @property
    def model(self) -> ModelLike:
        """The first term's model, at θ̂."""
        return self.objective.model

    @property
    def theta(self) -> Tensor:
        """θ̂, flat, unconstrained, (p,): a copy."""
        return self.objective.theta

    @property
    def names(self) -> list[str]:
        """One name an estimate."""
        return names_of(self.model)

    @property
    def log_likelihood(self) -> float:
        """ℓ(θ̂) = Σ w log p, in nats: priors not included. Of a robust fit too, which maximised something
        else: `maximised`."""
        if self.robust is not None:
            plain = [LogLikelihood(term.model, term.source) for term in self.objective.terms]
            out: float = self._cached("log_likelihood", lambda: Objective(plain).value())
            return out
        known = self.known_log_likelihood
        return (
            known
            if known is not None
            else self._cached("log_likelihood", lambda: Objective(self.objective.terms).value())
        )

    @property
    def known_log_likelihood(self) -> float | None:
        """ℓ(θ̂) where it is known without a pass over the data, as every repr has to be: computed before,
        or the last step's value itself."""
        if "log_likelihood" in self._cache:
            out: float | None = self._cache["log_likelihood"]
            return out
        own = (
            self.certificate.status == "certified maximum"
            and not self.objective.priors
            and self.robust is None
        )
        return self.trace[-1][1] if own and self.trace else None

    @property
    def robust(self) -> DensityPower | Trimmed | None:
        """What was maximised in the place of the log-likelihood."""
        out: DensityPower | Trimmed | None = self.objective.terms[0].robust
        return out

    @property
    def maximised(self) -> float:
        """The value of what was maximised: the log-likelihood, or the robust sum in its place; priors
        included."""
        out: float = self._cached("maximised", self.objective.value)
        return out

    @property
    def observations(self) -> float:
        """n = Σ count."""
        out: float = self._cached("observations", lambda: self.objective.observations)
        return out

    @property
    def tokenizer(self) -> Plain:
        """How text becomes tokens, of a language model that was fitted to text; None elsewhere."""
        return self._tokenizer if self._tokenizer is not None else tokenizer_of(self.source)

    @property
    def source(self) -> Source:
        """The data that were fitted."""
        return self.objective.terms[0].source

    def _cached(self, key: object, compute: Callable[[], Plain]) -> Plain:
        """What was computed before, or is now. A caller that hands it out copies it."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]
