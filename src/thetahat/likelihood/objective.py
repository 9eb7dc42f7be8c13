"""The objective: Σ_terms Σ_i w_i · log p(x_i | θ) + log p(θ). Terms add; models may share parameters across
terms.

It is a function of θ and nothing else: to evaluate it writes nothing into the modules that it was made of. It
also stands somewhere, at the θ that those modules hold, which is where a solver begins and, of the objective
that a fit has, θ̂.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import CPU, device_of, move, widest
from ..data.source import Source, Tensors, Thinned
from ..errors import BadArgument, BadWeights
from ..kernels.compiled import FEW
from ..models.information import Information
from ..models.taylor import Taylor, taylor
from ..protocols import (
    ChecksModel,
    InBlocks,
    OfColumns,
    OfRows,
    Partitioned,
    ReadsInOrder,
    RowsAlone,
    WantsBlocks,
    is_concave,
    is_streamed,
)
from ..types import ModelLike, Plain, Settings, Weights, name_of
from .priors import Prior
from .total import T, total

SMALL = 2**21  # rows by coefficients below which one thread sums as fast as several


class LogLikelihood:
    """Σ_i count_i · w_i · log p(x_i | θ).

    Parameters
    ----------
    model
        says log p of a batch
    source
        yields the batches
    weights
        (batch, log_prob) → one weight a term; it sees log_prob detached, and carries no gradient. None: 1
    """

    def __init__(self, model: nn.Module, source: Source, weights: Weights | None = None):
        if isinstance(weights, ChecksModel):
            weights.check_model(model)
        self.model: ModelLike = model
        self.source, self.weights = source, weights

    robust: Plain = None  # what is maximised in the place of the log-likelihood: a setting of `robust`

    @property
    def scored(self) -> ModelLike:
        """The model whose values, scores and curvatures are the term's: a robust term maximises something
        else than its log p."""
        return self.model

    def over(self, source: Source, model: nn.Module | None = None) -> LogLikelihood:
        """The same term on other data, or of another copy of the model."""
        return LogLikelihood(self.model if model is None else model, source, self.weights)

    def weight(self, batch: Batch, log_prob: Tensor | None = None) -> Tensor | None:
        """count · w, detached; None if it is 1 throughout."""
        weight = batch.count.to(widest(batch.count.device)) if batch.counted else None
        if self.weights is None:
            return weight
        with torch.no_grad():
            if isinstance(self.weights, OfColumns):
                own = self.weights.weights_of(batch)
            else:
                own = self.weights(
                    batch, self.model.log_prob(batch) if log_prob is None else log_prob.detach()
                )
        if tuple(own.shape) != batch.shape:
            name = name_of(self.weights)
            raise BadWeights(
                f"the weighting {name} gave the shape {tuple(own.shape)} for a batch of {batch.shape}: one "
                "weight a term."
            )
        return own if weight is None else own * weight

    def taylor(self, order: int, precision: torch.dtype = torch.float64) -> Taylor:
        """The term at its model's θ, in that model's own coordinates. One pass over the source."""

        if isinstance(self.scored, ReadsInOrder):
            one = self.scored.begin_pass()
            return self.summed(lambda batch, weight: one.taylor(batch, weight, order, precision))
        return self.summed(lambda batch, weight: taylor(self.scored, batch, weight, order, precision))

    def summed(self, function: Callable[[Batch, Tensor | None], T]) -> T:
        """Σ function(batch, count · w) over the source, in blocks of as many rows as the model takes most readily."""
        return total(lambda batch: function(batch, self.weight(batch)), self._blocks(), self.model)

    def _blocks(self) -> Source:
        """The source, in blocks of as many rows as the model takes most readily."""
        rows = self.scored.block_rows if isinstance(self.scored, WantsBlocks) else None
        return self.source.in_blocks(rows) if rows and isinstance(self.source, InBlocks) else self.source

    def thinned(self, keep: int) -> LogLikelihood:
        if isinstance(self.source, Partitioned):  # a pass there costs as much as one of all rows
            return self.over(Tensors(self.source.sample, copy=False))
        return self.over(Thinned(self.source, keep))

    def __add__(self, other: Plain) -> Objective:
        out: Objective = Objective([self]) + other
        return out


class LogPrior:
    """log p(θ), on the scale of the sum: MAP does not depend on the batch size.

    Parameters
    ----------
    prior
        the density of each coefficient that it names
    model
        whose coefficients they are
    """

    def __init__(self, prior: Prior, model: nn.Module):
        self.prior, self.model = prior, model

    def __add__(self, other: Plain) -> Objective:
        out: Objective = Objective([], [self]) + other
        return out


class Objective:
    """A sum of log-likelihood terms and log-priors, as a function of one flat θ."""

    inverse: Tensor | None = (
        None  # J⁻¹ and a covariance of θ̂ that a fit saved without its rows remembers (`io.without_rows`)
    )
    spread: Plain = None
    remembered: Plain = None  # and what one of a mixed model knows of its rows (`io.mixed`)

    def __init__(self, terms: list[LogLikelihood], priors: list[LogPrior] | None = None):
        self.terms, self.priors = list(terms), list(priors or [])
        self._last: tuple[Tensor, Taylor] | None = (
            None  # the last of second order, and where: errors and tests ask again
        )
        self._spare: list[Objective] = []  # copies whose models move

    def __add__(self, other: Plain) -> Objective:
        if isinstance(other, LogLikelihood):
            return Objective([*self.terms, other], self.priors)
        if isinstance(other, LogPrior):
            return Objective(self.terms, [*self.priors, other])
        if isinstance(other, Objective):
            return Objective([*self.terms, *other.terms], [*self.priors, *other.priors])
        raise BadArgument(
            f"an objective is a sum of LogLikelihood and LogPrior terms; received {type(other).__name__}."
        )

    # ---- θ -------------------------------------------------------------------------------------------------

    @property
    def model(self) -> ModelLike:
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
        """θ at which the models stand, flat, (p,): a copy."""
        parts = [p.detach().reshape(-1) for p in self.parameters()]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.parameters())

    @property
    def small(self) -> bool:
        """Whether one thread sums it as fast as several."""
        return (self.rows or SMALL) * self.size < SMALL

    @property
    def few(self) -> bool:
        """Whether other threads would not be worth waking for any of its sums, whatever a row costs."""
        return self.small and (self.rows or FEW) < FEW

    def copy(self) -> Objective:
        """The same objective with modules of its own, shared as they were between terms, priors, weights and
        sources. Data are not copied."""
        memo: dict[int, object] = {}
        free = {id(p) for p in self.parameters()}
        terms, priors = [], []
        for term in self.terms:
            own = copy.copy(term)
            own.model = copy.deepcopy(term.model, memo)
            own.weights, own.source = (
                _with_models(term.weights, free, memo),
                _with_models(term.source, free, memo),
            )
            terms.append(own)
        for prior in self.priors:
            priors.append(LogPrior(prior.prior, copy.deepcopy(prior.model, memo)))
        return Objective(terms, priors)

    def move(self, device: torch.device) -> None:
        """Every model of a term or a prior, in place, to that device. A source that holds another (a frozen
        reference) brings it there itself when it draws."""
        parts: list[LogLikelihood | LogPrior] = [*self.terms, *self.priors]
        for part in parts:
            move(part.model, device)
        self._last = None
        self._spare.clear()

    def at(self, theta: Tensor) -> Objective:
        """The same objective with models that stand at θ, (p,): itself if they do, else a copy. Nothing is
        written into this one."""
        if torch.equal(theta, self.theta):
            return self
        out = self.copy()
        out._write(theta)
        last = self._last
        if last is not None and torch.equal(last[0], theta):
            out._last = last
        return out

    @contextmanager
    def moved(self, theta: Tensor) -> Iterator[Objective]:
        """`at(theta)` for as long as the block lasts: a copy that is kept for the next call, and of which
        each thread takes its own."""
        try:
            work = self._spare.pop()
        except IndexError:
            work = self.copy()
        try:
            work._write(theta)
            yield work
        finally:
            self._spare.append(work)

    def _write(self, theta: Tensor) -> None:
        """θ into the models: of a copy that nobody else has."""
        at = 0
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(theta[at : at + p.numel()].view_as(p))
                at += p.numel()

    def positions(self, model: nn.Module) -> Tensor:
        """Where a model's own flat θ lies in the whole one, (q,)."""
        start, at = {}, 0
        for p in self.parameters():
            start[id(p)] = at
            at += p.numel()
        own = [
            torch.arange(start[id(p)], start[id(p)] + p.numel())
            for p in model.parameters()
            if p.requires_grad
        ]
        return torch.cat(own) if own else torch.zeros(0, dtype=torch.long)

    def __getstate__(self) -> Settings:
        return self.__dict__ | {"_spare": [], "_last": None}

    # ---- ℓ -------------------------------------------------------------------------------------------------

    def taylor(
        self, theta: Tensor | None = None, *, order: int = 2, precision: torch.dtype = torch.float64
    ) -> Taylor:
        """The objective at θ (None: where it stands): its value, its gradient, and (order 2) its information.
        One pass over each source.

        A pure function of θ: what the models hold before, they hold after.
        """
        here = self.theta
        where = here if theta is None else theta
        kept = precision == torch.float64 and all(t.weights is None for t in self.terms)
        last = self._last  # once: another thread may put its own in the place
        if kept and last is not None and torch.equal(last[0], where):
            return last[1]
        if torch.equal(where, here):
            out = self._expanded(order, precision)
        else:
            with self.moved(where) as work:
                out = work._expanded(order, precision)
        if kept and order > 1:
            self._last = (where.clone(), out)
        return out

    def remember(self, theta: Tensor, taylor: Taylor) -> None:
        """Answer with this expansion, of second order, when asked for the one at θ."""
        self._last = (theta.clone(), taylor)

    def _expanded(self, order: int, precision: torch.dtype) -> Taylor:
        where = device_of(self.terms[0].model) if self.terms else CPU
        if order > 1 and where.type != "cpu":
            raise BadArgument(
                f"the information about θ is summed on the CPU, and the model is on {where}. Use fit.to('cpu')."
            )
        out: Taylor | None = None
        for term in self.terms:
            part = self._spread(term.taylor(order, precision), term.model)
            out = part if out is None else out + part
        for prior in self.priors:
            part = self._spread(self._of_prior(prior, order), prior.model)
            out = part if out is None else out + part
        assert out is not None
        return out

    def _of_prior(self, prior: LogPrior, order: int) -> Taylor:
        """log p(θ); of a prior that the rows make, with those of its model's term."""
        if not isinstance(prior.prior, OfRows):
            return prior.prior.taylor(prior.model, order)
        term = next((t for t in self.terms if t.model is prior.model), None)
        if term is None or term.robust is not None or term.weights is not None:
            raise BadArgument(
                f"{prior.prior} is of the information of rows, each as often as it was counted: it takes no weighting "
                "and no robust fit. Accepted: th.priors.Normal(scale)."
            )
        out: Taylor = prior.prior.of_rows(prior.model, term.source, order)
        return out

    def value(self, theta: Tensor | None = None) -> float:
        """The objective at θ, in nats."""
        return float(self.taylor(theta, order=1).value)

    def _spread(self, part: Taylor, model: nn.Module) -> Taylor:
        """A model's part, in the coordinates of the whole."""
        every, of_model = self.parameters(), [p for p in model.parameters() if p.requires_grad]
        if [id(p) for p in every] == [id(p) for p in of_model]:
            return part
        places = self.positions(model)
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
        """Whether the whole is concave in θ: every log p and every prior is, and no weighting can turn a term
        over."""
        terms = all(is_concave(t.scored) and t.weights is None for t in self.terms)
        return terms and all(p.prior.concave for p in self.priors)

    @property
    def kinked(self) -> bool:
        """Whether a prior has a kink, so that the whole has no derivative where a coefficient stands on
        it."""
        return any(p.prior.kink > 0 for p in self.priors)

    def kinks(self) -> tuple[Tensor, Tensor]:
        """λ and m, (p,), of the part −Σ_j λ_j |θ_j − m_j| that has no derivative; λ_j = 0 where there is
        none."""
        weight, center = (
            torch.zeros(self.size, dtype=torch.float64),
            torch.zeros(self.size, dtype=torch.float64),
        )
        for each in self.priors:
            prior = each.prior
            if prior.kink == 0:
                continue
            at = self.positions(each.model)[prior.coordinates(each.model)]
            if bool(((weight[at] > 0) & (center[at] != prior.location)).any()):
                raise BadArgument(
                    f"two priors have their kinks at different places of one coefficient, {prior.location:g} "
                    "and another: name with on= the "
                    "coefficients of each."
                )
            weight[at] += prior.kink / prior.scale
            center[at] = prior.location
        return weight, center

    # ---- the data ------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int | None:
        """How many terms a pass has, over all sources."""
        sizes = [t.source.size for t in self.terms]
        return None if any(s is None for s in sizes) else sum(s for s in sizes if s is not None)

    @property
    def observations(self) -> float:
        """Σ count over all terms: the n of AIC, BIC and a mean."""
        return sum(
            float(total(lambda b: torch.tensor(b.total, dtype=torch.float64), t.source, t.model))
            for t in self.terms
        )

    @property
    def streamed(self) -> bool:
        """Whether data are read from a file at each pass: what is computed of them then costs little beside."""
        return any(is_streamed(t.source) for t in self.terms)

    def thinned(self, keep: int) -> Objective:
        """The same objective on every keep-th row: where a run on many rows begins. Priors weigh accordingly
        less there."""
        return Objective([t.thinned(keep) for t in self.terms], self.priors)

    def batches(self) -> Iterator[tuple[LogLikelihood, Batch]]:
        """Every batch of every term."""
        for term in self.terms:
            for batch in term.source.batches(term.model):
                yield term, batch


# ---- models inside weights and sources ---------------------------------------------------------------------


def _with_models(thing: Plain, free: set[int], memo: dict[int, object]) -> ModelLike:
    """A weighting or a source that reads the copies of the models that it read (an advantage its value
    function); else itself.

    Parameters
    ----------
    free
        the parameters of the objective, by id
    memo
        of `copy.deepcopy`, what was copied of it so far
    """
    if isinstance(thing, nn.Module):
        return copy.deepcopy(thing, memo)
    if not _reads(thing, free):
        return thing
    if id(thing) in memo:
        return memo[id(thing)]
    if isinstance(thing, (list, tuple)):
        return type(thing)(_with_models(each, free, memo) for each in thing)
    if isinstance(thing, dict):
        return {name: _with_models(each, free, memo) for name, each in thing.items()}
    if isinstance(thing, FunctionType):
        raise BadArgument(
            f"the function {thing.__name__} uses a model that is fitted at the same time: the fit is of a "
            "copy, which that "
            "function would not see. Write a class that holds the model as an attribute, or hand the models "
            "over: "
            "solver=th.Stochastic(in_place=True)."
        )
    out = memo[id(thing)] = copy.copy(thing)
    for name, each in vars(thing).items():
        object.__setattr__(out, name, _with_models(each, free, memo))
    return out


def _reads(thing: Plain, free: set[int], depth: int = 4) -> bool:
    """Whether a module with one of these parameters is among what an object holds."""
    if isinstance(thing, nn.Module):
        return any(id(p) in free for p in thing.parameters())
    if isinstance(thing, RowsAlone):
        return False
    return depth > 0 and any(_reads(each, free, depth - 1) for each in _held(thing))


def _held(thing: Plain) -> list[Plain]:
    """What an object holds, where that may be a model: not rows of data."""
    if isinstance(thing, (Tensor, str, int, float, bool, type, type(None))):
        return []
    if isinstance(thing, (list, tuple)):
        return list(thing) if len(thing) < 100 else []
    if isinstance(thing, dict):
        return list(thing.values()) if len(thing) < 100 else []
    if isinstance(thing, FunctionType):
        return [c.cell_contents for c in thing.__closure__ or () if _filled(c)]
    if isinstance(thing, MethodType):
        return [thing.__self__]
    return list(getattr(thing, "__dict__", {}).values())


def _filled(cell: Plain) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
