"""The objective: Σ_terms Σ_i w_i · log p(x_i | θ) + log p(θ). Terms add; models may share parameters across terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source, Thinned
from ..errors import BadArgument, BadWeights
from ..models.information import Information
from ..models.taylor import Taylor, taylor
from ..types import Weights
from .priors import Prior
from .total import total


class LogLikelihood:
    """Σ_i count_i · w_i · log p(x_i | θ).

    Parameters
    ----------
    model : says log p of a batch
    source : yields the batches
    weights : (batch, log_prob) → one weight a term; it sees log_prob detached, and carries no gradient. None: 1
    """

    def __init__(self, model: nn.Module, source: Source, weights: Weights | None = None):
        self.model: Any = model
        self.source, self.weights = source, weights

    robust: Any = None  # what is maximised in the place of the log-likelihood: a setting of `robust`

    @property
    def scored(self) -> Any:
        """The model whose values, scores and curvatures are the term's: a robust term maximises something else than its log p."""
        return self.model

    def over(self, source: Source, model: nn.Module | None = None) -> LogLikelihood:
        """The same term on other data, or of another copy of the model."""
        return LogLikelihood(self.model if model is None else model, source, self.weights)

    def weight(self, batch: Batch, log_prob: Tensor | None = None) -> Tensor | None:
        """count · w, detached; None if it is 1 throughout."""
        weight = batch.count.to(torch.float64) if batch.counted else None
        if self.weights is None:
            return weight
        with torch.no_grad():
            own = self.weights(batch, self.model.log_prob(batch) if log_prob is None else log_prob.detach())
        if tuple(own.shape) != batch.shape:
            name = getattr(self.weights, "__name__", None) or type(self.weights).__name__
            raise BadWeights(
                f"the weighting {name} gave the shape {tuple(own.shape)} for a batch of {batch.shape}: one weight a term."
            )
        return own if weight is None else own * weight

    def taylor(self, order: int, precision: torch.dtype = torch.float64) -> Taylor:
        """The term at its model's θ, in that model's own coordinates. One pass over the source."""

        def of(batch: Batch) -> Taylor:
            return taylor(self.scored, batch, self.weight(batch), order, precision)

        return total(of, self.source, self.model)

    def thinned(self, keep: int) -> LogLikelihood:
        return self.over(Thinned(self.source, keep))

    def __add__(self, other: Any) -> Objective:
        return Objective([self]) + other


class LogPrior:
    """log p(θ), on the scale of the sum: MAP does not depend on the batch size.

    Parameters
    ----------
    prior : the density of each coefficient that it names
    model : whose coefficients they are
    """

    def __init__(self, prior: Prior, model: nn.Module):
        self.prior, self.model = prior, model

    def __add__(self, other: Any) -> Objective:
        return Objective([], [self]) + other


class Objective:
    """A sum of log-likelihood terms and log-priors, as a function of one flat θ."""

    def __init__(self, terms: list[LogLikelihood], priors: list[LogPrior] | None = None):
        self.terms, self.priors = list(terms), list(priors or [])
        self._last: tuple[Tensor, Taylor] | None = None

    def __add__(self, other: Any) -> Objective:
        if isinstance(other, LogLikelihood):
            return Objective([*self.terms, other], self.priors)
        if isinstance(other, LogPrior):
            return Objective(self.terms, [*self.priors, other])
        if isinstance(other, Objective):
            return Objective([*self.terms, *other.terms], [*self.priors, *other.priors])
        raise BadArgument(f"an objective is a sum of LogLikelihood and LogPrior terms; received {type(other).__name__}.")

    # ---- θ ---------------------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The first term's model: the one that a fit reports."""
        return self.terms[0].model

    def parameters(self) -> list[nn.Parameter]:
        """Every free parameter of every term, once."""
        seen: dict[int, nn.Parameter] = {}
        parts: list[LogLikelihood | LogPrior] = [*self.terms, *self.priors]
        for part in parts:
            for p in part.model.parameters():
                if p.requires_grad:
                    seen.setdefault(id(p), p)
        return list(seen.values())

    @property
    def theta(self) -> Tensor:
        """θ, flat, (p,), detached."""
        parts = [p.detach().reshape(-1) for p in self.parameters()]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    @theta.setter
    def theta(self, value: Tensor) -> None:
        at = 0
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(value[at : at + p.numel()].view_as(p))
                at += p.numel()

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def _places(self, model: nn.Module) -> Tensor | None:
        """Where a model's own flat θ lies in the whole one; None: it is the whole one, in order."""
        every, of_model = self.parameters(), [p for p in model.parameters() if p.requires_grad]
        if [id(p) for p in every] == [id(p) for p in of_model]:
            return None
        start, at = {}, 0
        for p in every:
            start[id(p)] = at
            at += p.numel()
        own = [torch.arange(start[id(p)], start[id(p)] + p.numel()) for p in of_model]
        return torch.cat(own) if own else torch.zeros(0, dtype=torch.long)

    # ---- ℓ ---------------------------------------------------------------------------------------------------------------

    def taylor(self, theta: Tensor | None = None, *, order: int = 2, precision: torch.dtype = torch.float64) -> Taylor:
        """The objective at θ: its value, its gradient, and (order 2) its information. One pass over each source."""
        if theta is not None:
            self.theta = theta
        here = self._remembered(precision)
        if here is not None:
            return here
        out: Taylor | None = None
        for term in self.terms:
            part = self._spread(term.taylor(order, precision), term.model)
            out = part if out is None else out + part
        for prior in self.priors:
            part = self._spread(prior.prior.taylor(prior.model, order), prior.model)
            out = part if out is None else out + part
        assert out is not None
        if order > 1 and precision == torch.float64:
            self._last = (self.theta, out)
        return out

    def _remembered(self, precision: torch.dtype) -> Taylor | None:
        """The last full expansion, if θ has not moved since: errors, criteria and tests at θ̂ all ask for the same one."""
        if self._last is None or precision != torch.float64 or any(t.weights is not None for t in self.terms):
            return None
        theta, out = self._last
        return out if torch.equal(theta, self.theta) else None

    def value(self, theta: Tensor | None = None) -> float:
        """The objective at θ, in nats."""
        return float(self.taylor(theta, order=1).value)

    def _spread(self, part: Taylor, model: nn.Module) -> Taylor:
        places = self._places(model)
        if places is None:
            return part
        gradient = part.gradient.new_zeros(self.size)
        gradient[places] = part.gradient
        J = None
        if part.information is not None:
            A = part.gradient.new_zeros(self.size, self.size)
            A[places[:, None], places] = part.information.dense()
            J = Information(A)
        return Taylor(part.value, gradient, J)

    @property
    def concave(self) -> bool:
        """Whether the whole is concave in θ: every log p and every prior is, and no weighting can turn a term over."""
        terms = all(bool(getattr(t.scored, "concave", False)) and t.weights is None for t in self.terms)
        return terms and all(p.prior.concave for p in self.priors)

    @property
    def kinked(self) -> bool:
        """Whether a prior has a kink, so that the whole has no derivative where a coefficient stands on it."""
        return any(p.prior.kink > 0 for p in self.priors)

    def kinks(self) -> tuple[Tensor, Tensor]:
        """λ and m, (p,), of the part −Σ_j λ_j |θ_j − m_j| that has no derivative; λ_j = 0 where there is none."""
        weight, center = torch.zeros(self.size, dtype=torch.float64), torch.zeros(self.size, dtype=torch.float64)
        for each in self.priors:
            prior, places = each.prior, self._places(each.model)
            if prior.kink == 0:
                continue
            at = prior.coordinates(each.model)
            at = at if places is None else places[at]
            if bool(((weight[at] > 0) & (center[at] != prior.location)).any()):
                raise BadArgument(
                    f"two priors have their kinks at different places of one coefficient, {prior.location:g} and another: name with on= the "
                    "coefficients of each."
                )
            weight[at] += prior.kink / prior.scale
            center[at] = prior.location
        return weight, center

    # ---- the data ----------------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int | None:
        """How many terms a pass has, over all sources."""
        sizes = [t.source.size for t in self.terms]
        return None if any(s is None for s in sizes) else sum(s for s in sizes if s is not None)

    @property
    def observations(self) -> float:
        """Σ count over all terms: the n of AIC, BIC and a mean."""
        return sum(float(total(lambda b: torch.tensor(b.total, dtype=torch.float64), t.source, t.model)) for t in self.terms)

    def thinned(self, keep: int) -> Objective:
        """The same objective on every keep-th row: where a climb on many rows begins. Priors weigh accordingly less there."""
        return Objective([t.thinned(keep) for t in self.terms], self.priors)

    def batches(self) -> Iterator[tuple[LogLikelihood, Batch]]:
        """Every batch of every term."""
        for term in self.terms:
            for batch in term.source.batches(term.model):
                yield term, batch
