"""A mixed model seen from its rows: the random effects of the groups that were fitted are coefficients like others.

    η_a = X_a β_a + Z_a b,      (b, β) ~ N((b̂, β̂), σ² Λ H⁻¹ Λᵀ)  at φ̂,  H of both together

That is the posterior of both under a flat prior on β (Henderson's mixed-model equations), by which predictions of known
groups and partial effects of smooth terms have their intervals: those of mgcv, and of lme4 where β is uncertain too.
Constants (a scale, a dispersion) have the covariance of the fit and are taken as independent of both.

Source: Henderson (1975), Best linear unbiased estimation and prediction under a selection model; Wood (2017), Generalized
Additive Models, 2nd ed., §6.10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, UnknownLevel
from ..inference.covariance import Covariance
from ..likelihood import LogLikelihood, Objective
from ..models.base import Model, drawn
from ..models.elimination import Array
from ..models.latent import LatentModel
from ..models.mixed import Mixed, effect_columns
from ..models.random_effects import Random
from .joint import JointCovariance
from .known_latent import known_latent
from .modes import Modes, modes_of

GROUPS = ("known", "average")


class Known(Model):
    """The mixed model at given random effects.

    θ = (β, b): b of each term in turn, level by level. With groups="average" every b counts as 0 but those of smooth
    terms, which are part of the mean.
    """

    mixed: Mixed

    def __init__(self, mixed: Mixed, modes: Modes, groups: str):
        super().__init__()
        object.__setattr__(self, "mixed", mixed)  # whose parameters are not this model's
        self.groups = groups
        self.family, self.encoder, self.fixed = mixed.family, mixed.encoder, mixed.fixed
        if groups == "average":  # which reads no group: new rows need not have the columns
            self.encoder = replace(mixed.encoder, groupings=())
        self.measure = mixed.measure
        parts = [mixed.coefficients.detach()]
        self.starts: dict[int, int] = {}
        at = len(parts[0])
        for i, own in _effects(modes).items():
            self.starts[i] = at
            parts.append(torch.from_numpy(np.ascontiguousarray(own)).reshape(-1))
            at += own.size
        self.all = nn.Parameter(torch.cat(parts))

    @property
    def used(self) -> list[tuple[int, Random]]:
        """The terms that count, with their numbers."""
        return [(i, r) for i, r in enumerate(self.mixed.random) if r.smooth or self.groups == "known"]

    def eta(self, batch: Batch, theta: Tensor | None = None) -> list[Tensor]:
        theta = self.all if theta is None else theta
        own = list(self.mixed.regression.eta(batch, theta))
        names = list(self.family.parameters)
        for i, r in self.used:
            j, at = names.index(r.parameter), self.starts[i]
            rows, place = self.columns(r, batch)
            if place is None:
                part = rows @ theta[at : at + rows.shape[1]]
            else:
                width = rows.shape[1]
                table = theta[at : at + self.levels(r) * width].view(-1, width)
                part = (rows * table[place]).sum(1)
            own[j] = own[j] + part
        return own

    def levels(self, r: Random) -> int:
        return int(self.mixed.groupings[r.source].size)

    def columns(self, r: Random, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The columns of a term, and the group of each row (None: a smooth term, which has one)."""
        if r.smooth:
            return batch[f"smooth{r.source}"], None
        code = batch[f"group{r.source}"]
        unknown = torch.nonzero(code < 0)
        if len(unknown):
            raise UnknownLevel(
                f"row {int(unknown[0, 0])}: the fit has not seen this group of {r.label} ({len(unknown)} such rows). "
                "Accepted: groups that were fitted, or groups='average', which leaves random effects out."
            )
        return torch.from_numpy(effect_columns(self.mixed, r, batch)).T, code

    def gradient_rows(self, batch: Batch, slopes: list[Tensor]) -> Tensor:
        """∂f_i/∂θ, (n, p), from ∂f_i/∂η_ij of each estimated parameter."""
        n, p = len(batch), len(self.mixed.coefficients)
        out = torch.zeros(n, len(self.all), dtype=torch.float64)
        out[:, :p] = self.mixed.regression.gradient_rows(batch, slopes)
        free = [name for name in self.family.parameters if name not in self.fixed]
        for i, r in self.used:
            s, at = slopes[free.index(r.parameter)].expand(n), self.starts[i]
            rows, place = self.columns(r, batch)
            scaled = rows * s[:, None]
            width = rows.shape[1]
            if place is None:
                out[:, at : at + width] = scaled
            else:
                index = at + place[:, None] * width + torch.arange(width)
                out.scatter_(1, index, scaled)
        return out

    def pulled(self, batch: Batch, slopes: list[Tensor]) -> Tensor:
        """Σ_i ∂f_i/∂θ, (p,), of `gradient_rows`, of which no row is written out."""
        n, regression = len(batch), self.mixed.regression
        out = torch.zeros(len(self.all), dtype=torch.float64)
        for predictor, s in zip(regression.predictors, slopes, strict=True):
            predictor.pull(batch, s.expand(n), out)
        free = [name for name in self.family.parameters if name not in self.fixed]
        for i, r in self.used:
            s, at = slopes[free.index(r.parameter)].expand(n), self.starts[i]
            rows, place = self.columns(r, batch)
            width = rows.shape[1]
            if place is None:
                out[at : at + width] = rows.T @ s
            else:
                own = out[at : at + self.levels(r) * width].view(-1, width)
                own.index_add_(0, place, rows * s[:, None])
        return out

    def log_prob(self, batch: Batch) -> Tensor:
        """log p(y | b), row by row."""
        eta = [e.expand(len(batch)) for e in self.eta(batch)]
        return self.family.log_prob_eta(batch["y"], *eta, **self.mixed.regression.extras(batch))

    def label(self, parameter: str) -> str:
        return self.mixed.regression.label(parameter)

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        return self.mixed.regression.extras(batch)

    def parameters_at(self, batch: Batch) -> list[Tensor]:
        """The family's parameters on their own scales, each (n,)."""
        with torch.no_grad():
            return [t.expand(len(batch)) for t in self.family.natural(self.eta(batch, self.all.detach()))]

    def mean(self, batch: Batch) -> Tensor:
        return self.family.expectation(*self.parameters_at(batch), **self.extras(batch))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        return drawn(self.family, self.parameters_at(batch), generator, **self.extras(batch))


def _effects(modes: Modes) -> dict[int, Array]:
    """b̂ of each term, (levels, width); of a smooth term (1, width)."""
    order, out, at = modes.model.order, {}, 0
    for i in order.first:
        width = modes.model.random[i].structure.width
        assert modes.first is not None
        out[i] = modes.first[at : at + width].T
        at += width
    for i, t, begin in zip(order.rest, modes.columns.terms, modes.columns.starts, strict=False):
        out[i] = modes.rest[begin : begin + t.size].reshape(t.levels, t.width)
    return dict(sorted(out.items()))


@dataclass(frozen=True, eq=False)
class Joint(JointCovariance):
    """The covariance of (β, b), by solutions of the factored equations: it is not written out.

    Parameters
    ----------
    modes
        with the factor of H, the fixed columns part of it
    known
        whose θ it is the covariance of
    constants
        (c, c), of the coefficients that H does not hold
    outside
        where those stand in θ
    """

    modes: Modes | None = None
    known: Known | None = None
    constants: Tensor | None = None
    outside: Tensor | None = None

    @property
    def size(self) -> int:
        assert self.known is not None
        return len(self.known.all)

    def of(self, G: Tensor) -> Tensor:
        left, right = self._parts(G)
        out = left @ right
        return (out + out.T) / 2

    def diagonal(self, G: Tensor) -> Tensor:
        left, right = self._parts(G)
        return (left.T * right).sum(0).clamp(min=0)

    def _parts(self, G: Tensor) -> tuple[Tensor, Tensor]:
        """G, and V Gᵀ, (p, r)."""
        assert self.modes is not None
        assert self.known is not None
        modes, known, columns = self.modes, self.known, self.modes.columns
        order, r = modes.model.order, len(G)
        g = G.to(torch.float64).numpy().T
        m, scales = columns.penalised, modes.scales
        rest = np.zeros((columns.starts[-1], r))
        first, at = [], 0
        for i in order.first:
            width = modes.model.random[i].structure.width
            own = g[known.starts[i] :][: columns.grouped.levels * width]  # type: ignore[union-attr]
            first.append(own.reshape(-1, width, r).transpose(1, 0, 2))
        for i, t, begin in zip(order.rest, columns.terms, columns.starts, strict=False):
            rest[begin : begin + t.size] = g[known.starts[i] :][: t.size]
        inside = np.concatenate([np.arange(q.start, q.start + q.size) for q in known.mixed.integrated])
        rest[m:] = g[inside]
        b0 = (
            None
            if not first or scales.first is None
            else np.einsum("ka,klr->alr", scales.first, np.concatenate(first))
        )
        moved = scales.right(rest.T, columns).T  # (gᵀΛ)ᵀ
        x0, x = modes.factored.solve(b0, moved)
        out = np.zeros((self.size, r))
        if x0 is not None and scales.first is not None:
            y0 = np.einsum("ka,alr->klr", scales.first, x0)
            for i in order.first:
                width = modes.model.random[i].structure.width
                block = y0[at : at + width].transpose(1, 0, 2).reshape(-1, r)
                out[known.starts[i] : known.starts[i] + len(block)] = block
                at += width
        for j, (i, t, begin) in enumerate(zip(order.rest, columns.terms, columns.starts, strict=False)):
            block = np.einsum(
                "ka,lar->lkr", scales.rest[j], x[begin : begin + t.size].reshape(t.levels, t.width, r)
            )
            out[known.starts[i] : known.starts[i] + t.size] = block.reshape(t.size, r)
        out[inside] = x[m:]
        out *= modes.sigma**2
        if self.outside is not None and self.constants is not None and len(self.outside):
            out[self.outside.numpy()] = (self.constants @ G[:, self.outside].T.to(torch.float64)).numpy()
        return G.to(torch.float64), torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class OfCoefficients(JointCovariance):
    """The covariance of the fit's θ̂ = (β, φ), read by rows at random effects of 0: of (β, b) they move with β alone.

    Parameters
    ----------
    fitted
        V of θ̂, with its degrees of freedom
    known
        whose θ the rows' gradients are in
    """

    fitted: Covariance | None = None
    known: Known | None = None

    @property
    def size(self) -> int:
        assert self.known is not None
        return len(self.known.all)

    def of(self, G: Tensor) -> Tensor:
        return self._fitted.of(self._placed(G))

    def diagonal(self, G: Tensor) -> Tensor:
        return self._fitted.diagonal(self._placed(G))

    def freedom(self, G: Tensor) -> Tensor:
        return self._fitted.freedom(self._placed(G))

    @property
    def _fitted(self) -> Covariance:
        assert self.fitted is not None
        return self.fitted

    def _placed(self, G: Tensor) -> Tensor:
        assert self.known is not None
        own = len(self.known.mixed.coefficients)
        out = torch.zeros(len(G), self._fitted.size, dtype=torch.float64)
        out[:, :own] = G[:, :own]
        return out


def of_average_rows(objective: Objective, fitted: Covariance) -> Covariance:
    """V of the fit, for the rows of `known` at groups="average"."""
    model = objective.model
    assert isinstance(model, Known)
    return OfCoefficients(fitted.kind, fitted=fitted, known=model)


def marginal(model: object, groups: str | None) -> bool:
    """Whether predictions are functions of the fit's coefficients alone: of a mixed model at random effects of 0, without
    smooth terms."""
    return groups == "average" and isinstance(model, Mixed) and not any(r.smooth for r in model.random)


def _which(groups: str | None) -> str:
    if groups is not None and groups not in GROUPS:
        new = " groups='new' is of predict alone." if groups == "new" else ""
        raise BadArgument(f"groups={groups!r}. Accepted: {', '.join(map(repr, GROUPS))}.{new}")
    return groups or "known"


def by_rows(objective: Objective, groups: str | None = None) -> tuple[Objective, Covariance]:
    """`known` of a mixed model, or of a likelihood of one's own with latent variables."""
    if isinstance(objective.model, LatentModel):
        return known_latent(objective, _which(groups))
    return known(objective, groups)


def known(objective: Objective, groups: str | None = None) -> tuple[Objective, Joint]:
    """The objective as one of its rows given the random effects, and the covariance of (β, b).

    Parameters
    ----------
    groups
        "known": the modes of the groups that were fitted; "average": random effects 0, smooth terms as they are. None:
        "known"

    Raises
    ------
    BadArgument
        another word
    """
    groups = _which(groups)
    modes = modes_of(objective)
    mixed = modes.model
    if not isinstance(mixed, Mixed):
        raise BadArgument("a likelihood of one's own has no linear predictors, and no smooth terms.")
    model = Known(mixed, modes, groups)
    inside = {j for q in mixed.integrated for j in range(q.start, q.start + q.size)}
    outside = torch.tensor(
        [j for j in range(len(modes.model.coefficients)) if j not in inside], dtype=torch.long
    )
    constants = torch.zeros(len(outside), len(outside), dtype=torch.float64)
    if len(outside):
        information = objective.taylor(order=2).information
        assert information is not None
        factor = information.factor()
        if factor is not None:
            constants = factor.inverse()[outside[:, None], outside]
    V = Joint("conditional", modes=modes, known=model, constants=constants, outside=outside)
    return Objective([LogLikelihood(model, objective.terms[0].source)]), V
