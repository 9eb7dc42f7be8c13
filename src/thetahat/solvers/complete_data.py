"""The complete data of a mixture: responsibilities in the place of the components that were not seen.

Q(θ) = Σ_i w_i Σ_k r_ik log(π_k p_k(x_i | θ_k)) + log p(θ),      r_ik = p(k | x_i, θ_0) held
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batch import Batch
from ..likelihood import LogLikelihood, Objective, total
from ..models.mixture import Mixture, Recounted
from ..models.partition import supports
from ..models.regression import Regression
from ..models.taylor import Taylor, weighted
from ..protocols import HasClosedForm, HasStart, target_of
from ..types import ModelLike
from . import closed_form

PEAK = math.log(
    1e8
    # nats a dimension by which the density of a collapsing component exceeds the average of one fitted to all
    # rows
)


@dataclass(frozen=True)
class Point:
    """θ, ℓ there, and the responsibilities."""

    theta: Tensor
    value: float
    responsibilities: tuple[Tensor, ...]  # of each batch, (n, K)
    weights: tuple[Tensor | None, ...]
    n: Tensor  # (K,) Σ_i w_i r_ik
    trouble: str = ""  # why the run must not go on from here

    def times_weight(self, k: int) -> list[Tensor]:
        """w_i r_ik of each batch."""
        return [
            r[:, k] if w is None else r[:, k] * w
            for r, w in zip(self.responsibilities, self.weights, strict=True)
        ]


def expect(objective: Objective, theta: Tensor, limits: Tensor) -> Point:
    """The responsibilities at θ, and the objective there: one pass over the data."""
    with objective.moved(theta) as here:
        return _expected(here, theta, limits)


def _expected(objective: Objective, theta: Tensor, limits: Tensor) -> Point:
    term = objective.terms[0]
    model = term.model
    responsibilities: list[Tensor] = []
    weights: list[Tensor | None] = []

    @torch.no_grad()
    def of(batch: Batch) -> Tensor:
        joint = model.joint(batch)
        log_p = torch.logsumexp(joint, -1)
        weight = term.weight(batch, log_p)
        r = torch.exp(joint - log_p[:, None])
        responsibilities.append(r)
        weights.append(weight)
        counts = r if weight is None else r * weight[:, None]
        beyond = (joint - model.log_weights() > limits).to(r.dtype) * (
            torch.ones_like(log_p) if weight is None else weight
        )[:, None]
        value = log_p.sum() if weight is None else weighted(log_p, weight).sum()
        return torch.cat([value[None], counts.sum(0), beyond.sum(0)])

    sums = total(of, term.source, model)
    value, n, beyond = float(sums[0]), sums[1 : model.k + 1], sums[model.k + 1 :]
    if objective.priors:
        value += float(Objective([], objective.priors).taylor(order=1).value)
    trouble = ""
    if bool((beyond > 0).any()):
        k = int(beyond.argmax())
        trouble = f"Component {k} has collapsed on {float(beyond[k]):.4g} observations: its density grows there without bound."
    elif not math.isfinite(value):
        trouble = f"The log-likelihood is {value}."
    return Point(theta.clone(), value, tuple(responsibilities), tuple(weights), n, trouble)


class Complete:
    """Q as an objective: the log-likelihood as if the components had been seen, by responsibilities that are
    held. Priors included."""

    def __init__(self, objective: Objective, point: Point):
        self.whole, self.point = objective, point

    @property
    def theta(self) -> Tensor:
        return self.whole.theta

    @property
    def size(self) -> int:
        return self.whole.size

    @property
    def rows(self) -> int | None:
        return self.whole.rows

    @property
    def model(self) -> ModelLike:
        return self.whole.model

    @property
    def kinked(self) -> bool:
        return self.whole.kinked

    def taylor(
        self, theta: Tensor | None = None, *, order: int = 2, precision: torch.dtype = torch.float64
    ) -> Taylor:
        if theta is None:
            return self._expanded(self.whole, order, precision)
        with self.whole.moved(theta) as here:
            return self._expanded(here, order, precision)

    def _expanded(self, whole: Objective, order: int, precision: torch.dtype) -> Taylor:
        held = iter(zip(self.point.responsibilities, self.point.weights, strict=True))

        def of(batch: Batch) -> Taylor:
            out: Taylor = whole.model.complete(batch, *next(held), order, precision)
            return out

        out = total(of, whole.terms[0].source, whole.model)
        for prior in whole.priors:
            out = out + whole._spread(prior.prior.taylor(prior.model, order), prior.model)
        return out

    def value(self, theta: Tensor | None = None) -> float:
        return float(self.taylor(theta, order=1).value)


# ---- the maximum of Q, where there is a formula ------------------------------------------------------------


def formula(component: ModelLike, source: Recounted) -> Tensor | None:
    """The maximum of the weighted likelihood of one component: not finite where there is none; None where
    there is no formula."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return None  # a formula sees the rows of one process; Newton's sums are over all of them
    if isinstance(component, HasClosedForm):
        return component.closed_form(source)
    alone = Objective([LogLikelihood(component, source)])
    if not isinstance(component, Regression) or not closed_form.applies(alone):
        return None
    solver = closed_form.ClosedForm()
    state = solver.start(alone)
    return state.theta if solver.certificate(alone, state).ok else torch.full_like(state.theta, math.nan)


def singular(model: Mixture, theta: Tensor, n: Tensor) -> str:
    """What has happened to the component whose maximum is not finite."""
    at = next(i for i, x in enumerate(theta.tolist()) if not math.isfinite(x))
    k = next((k for k, place in enumerate(model.places) if place.start <= at < place.stop), None)
    if k is None:
        return "A component has lost all its observations."
    how = (
        "its covariance is singular"
        if torch.isnan(theta[at])
        else f"{model.coefficient_names[at]} → {float(theta[at]):g}"
    )
    return f"Component {k} has collapsed on {float(n[k]):.4g} observations: {how}."


# ---- what a collapse is ------------------------------------------------------------------------------------


def limits(objective: Objective, model: Mixture) -> Tensor:
    """The log density of each component beyond which it has collapsed: far above the average under one such
    component alone, (K,).

    A mass is at most 1; and where there are priors, they are what keeps a component from collapsing.
    """
    if model.measure == "mass" or objective.priors:
        return torch.full((model.k,), math.inf, dtype=torch.float64)
    source = objective.terms[0].source
    out = []
    for component in model._models():
        rows = Recounted(source, [b.count * supports(component, b) for b in source.batches(model)])
        alone = Objective([LogLikelihood(component, rows)])
        if isinstance(component, HasStart):
            alone = alone.at(agreed(component.start(rows)))
        n = alone.observations
        first = next(iter(source.batches(model)))[target_of(component)]
        out.append(alone.value() / n + PEAK * (first[0].numel() if first.ndim > 1 else 1))
    return torch.tensor(out, dtype=torch.float64)


def agreed(theta: Tensor) -> Tensor:
    """θ of the first process, on all: they see other rows, and would guess otherwise."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(theta, 0)
    return theta


def seen(objective: Objective, point: Point) -> Tensor:
    """√ of the diagonal of the information at a point, had the components been seen, (p,)."""
    J = Complete(objective, point).taylor(point.theta).information
    assert J is not None
    return J.diagonal().clamp(min=0).sqrt()
