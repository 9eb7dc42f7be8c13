"""A likelihood of one's own seen from its rows: the latent variables of the groups that were fitted are known, up to their
error.

    û(θ) = argmax log p(y, u | θ),      (θ, u) − (θ̂, û) ≈ N(0, [ V       VDᵀ        ]),      D = ∂û/∂θ = H⁻¹ ∂²log p(y, u)/∂u∂θ
                                                                [ DV   H⁻¹ + DVDᵀ   ]

V the covariance of θ̂ = (β, φ), H the curvature in u: what is not known of u were θ known, and what follows from θ̂'s own
error. So a prediction of a known group and its interval hold both.

Source: Kass and Steffey (1989), Approximate Bayesian inference in conditionally independent hierarchical models; Kristensen
et al. (2016), TMB, §2 (the same covariance, of `sdreport`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Tensors
from ..errors import UnknownLevel
from ..families.distribution import Distribution
from ..inference.covariance import Covariance, default, prepare
from ..likelihood import LogLikelihood, Objective
from ..models.base import Model
from ..models.custom import rows_of
from ..models.described import DescribesRows, returned
from ..models.elimination import Array
from ..models.latent import DescribedLatent, LatentModel
from ..models.random_effects import Random
from ..models.taylor import jacobian
from ..types import Data
from .joint import JointCovariance
from .modes import Modes, modes_of


class Given(Model):
    """The likelihood of one's own at given latent variables: θ = (β, φ, u), u of each term in turn, level by level. With
    groups="average" u counts as 0.

    Parameters
    ----------
    model
        at θ̂
    u
        û of each term, (levels, width)
    groups
        "known" or "average"
    """

    marginal: LatentModel

    def __init__(self, model: LatentModel, u: list[Tensor], groups: str):
        super().__init__()
        object.__setattr__(self, "marginal", model)  # whose θ is not this model's
        self.groups, self.measure, self.target = groups, model.measure, model.target
        self.p, self.k = len(model.coefficients), len(model.covariance)
        ends = np.cumsum([self.p + self.k, *(t.numel() for t in u)]).tolist()
        self.starts, self.shapes = ends[:-1], [tuple(t.shape) for t in u]
        theta = [model.coefficients.detach(), model.covariance.detach(), *(t.reshape(-1) for t in u)]
        self.all = nn.Parameter(torch.cat(theta))

    def source(self, data: Data, weights: str | None = None) -> Tensors:
        """New rows: with groups="average" no row needs its group."""
        return self.marginal.source(data, weights, grouped=self.groups != "average")

    def _codes(self, r: Random, batch: Batch) -> Tensor:
        code = self.marginal.codes(r, batch)
        unknown = torch.nonzero(code < 0)
        if len(unknown):
            raise UnknownLevel(
                f"row {int(unknown[0, 0])}: the fit has not seen this group of {r.label} ({len(unknown)} such rows). "
                "Accepted: groups that were fitted, or groups='average', which leaves latent variables out."
            )
        return code

    def latent(self, batch: Batch) -> list[Tensor]:
        """Λu of each row, (n,) each."""
        if self.groups == "average":
            return self.marginal.nothing(batch)
        v: list[Tensor] = []
        phi = self.all[self.p : self.p + self.k]
        terms = zip(self.marginal.random, self.marginal.places, self.starts, self.shapes, strict=True)
        for r, place, start, (levels, width) in terms:
            u = self.all[start : start + levels * width].view(levels, width)
            b = u @ r.structure.factor(phi[place]).T
            v += self.marginal.rows_of(r, b, self._codes(r, batch), batch)
        return v

    def log_prob(self, batch: Batch) -> Tensor:
        """log p(y | b), row by row."""
        name = self.marginal.custom.function.__name__
        out = self.marginal.outcome(batch, self.all[: self.p], self.latent(batch))
        return rows_of(out, batch, self.target, name)


class GivenDescribed(DescribesRows, Given):
    """The same of a function that returns a distribution."""

    def __init__(self, model: DescribedLatent, u: list[Tensor], groups: str):
        super().__init__(model, u, groups)
        self.family = model.family

    def at(self, batch: Batch) -> Distribution:
        out = self.marginal.outcome(batch, self.all[: self.p], self.latent(batch))
        return returned(out, self.family, self.marginal.custom.function.__name__)

    def gradient_rows(self, batch: Batch, slopes: list[Tensor]) -> Tensor:
        """∂f_i/∂(β, φ, u), (n, p + k + …), from ∂f_i/∂η_ij: a row depends on the latent variables of its own groups alone."""
        n = len(batch)
        out = torch.zeros(n, len(self.all), dtype=torch.float64)
        links = [p.link for p in self.family.parameters.values()]
        with torch.enable_grad():
            beta = self.all[: self.p].detach().clone().requires_grad_()
            v = [e.detach().clone().requires_grad_() for e in self.latent(batch)]
            found = returned(self.marginal.outcome(batch, beta, v), self.family, "the function").parameters
            parts = [s.detach() * g(p) for s, g, p in zip(slopes, links, found, strict=True)]
            f = torch.stack([part.expand(n) for part in parts]).sum(0)
            if not f.requires_grad:
                return out
            out[:, : self.p] = jacobian(f, [beta])
            moved = torch.autograd.grad(f.sum(), v, allow_unused=True)
        if self.groups == "average":
            return out
        of_v = torch.stack([torch.zeros(n, dtype=torch.float64) if g is None else g for g in moved], 1)
        phi, marginal = self.all[self.p : self.p + self.k].detach(), self.marginal
        terms = zip(
            marginal.random, marginal.places, marginal.eta_places, self.starts, self.shapes, strict=True
        )
        for r, place, own, start, (levels, width) in terms:
            code, g = self._codes(r, batch), marginal.spread(r, of_v[:, own], batch)
            lam = r.structure.factor(phi[place])
            u = self.all[start : start + levels * width].detach().view(levels, width)[code]
            at = start + code[:, None] * width + torch.arange(width)
            out.scatter_add_(1, at, g @ lam)
            for a, slope in enumerate(r.structure.slopes(phi[place])):
                out[:, self.p + place.start + a] += ((g @ slope) * u).sum(1)
        return out


@dataclass(frozen=True, eq=False)
class Joint(JointCovariance):
    """Of (θ, u), by solutions of the factored equations: it is not written out.

    Parameters
    ----------
    modes
        with the factor of H
    given
        whose θ it is the covariance of
    own
        V, of (β, φ)
    D
        ∂û/∂θ, (u, p + k)
    """

    modes: Modes | None = None
    given: Given | None = None
    own: Covariance | None = None
    D: Tensor | None = None

    @property
    def size(self) -> int:
        assert self.given is not None
        return len(self.given.all)

    def _parts(self, G: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G in θ with û moving, G in u, and H⁻¹ G_uᵀ."""
        assert self.modes is not None
        assert self.given is not None
        assert self.D is not None
        q = self.given.p + self.given.k
        G = G.to(torch.float64)
        inner = G[:, q:]
        solved = torch.from_numpy(_flat(self.modes, *_solved(self.modes, inner.T.numpy())))
        return G[:, :q] + inner @ self.D, inner, solved

    def of(self, G: Tensor) -> Tensor:
        assert self.own is not None
        moved, inner, solved = self._parts(G)
        out = self.own.of(moved) + inner @ solved
        return (out + out.T) / 2

    def diagonal(self, G: Tensor) -> Tensor:
        assert self.own is not None
        moved, inner, solved = self._parts(G)
        return self.own.diagonal(moved) + (inner.T * solved).sum(0).clamp(min=0)


def known_latent(objective: Objective, groups: str) -> tuple[Objective, Joint]:
    """The objective as one of its rows given the latent variables, and the covariance of (θ, u)."""
    modes = modes_of(objective)
    model = modes.model
    assert isinstance(model, LatentModel)
    flat, D = moves_of(objective)
    sizes = [(model.groupings[r.source].size, r.structure.width) for r in model.random]
    parts = torch.split(flat, [levels * width for levels, width in sizes])
    u = [part.view(shape) for part, shape in zip(parts, sizes, strict=True)]
    given = (GivenDescribed if isinstance(model, DescribedLatent) else Given)(model, u, groups)  # type: ignore[arg-type]
    own = prepare(objective, default(objective), None)
    V = Joint("conditional", modes=modes, given=given, own=own, D=D)
    return Objective([LogLikelihood(given, objective.terms[0].source)]), V


def moves_of(objective: Objective) -> tuple[Tensor, Tensor]:
    """û of each term in turn, level by level, (u,), and D = ∂û/∂(β, φ), (u, p + k)."""
    if objective.remembered is not None:
        known: tuple[Tensor, Tensor] = objective.remembered.moves
        return known
    modes = modes_of(objective)
    model = modes.model
    assert isinstance(model, LatentModel)
    batch = next(iter(objective.terms[0].source.batches(model)))
    weight = objective.terms[0].weight(batch)
    (u0, rest), _, _ = model.evaluator(batch, weight).modes(
        model.coefficients.detach(), model.covariance.detach()
    )
    flat = torch.from_numpy(_flat(modes, None if u0 is None else u0[..., None], rest[:, None])[:, 0])
    return flat, _moves(modes, model, batch, weight, (u0, rest))


def _moves(
    modes: Modes, model: LatentModel, batch: Batch, weight: Tensor | None, u: tuple[Array | None, Array]
) -> Tensor:
    """D = ∂û/∂(β, φ), (u, p + k)."""
    columns, scales = modes.columns, modes.scales
    beta, phi = model.coefficients.detach(), model.covariance.detach()
    b0, brest = scales.times(*u, columns)
    eta = model.nothing(batch)
    for a, part in columns.times(b0, brest).items():
        eta[a] = eta[a] + torch.from_numpy(np.asarray(part))
    w = torch.ones(len(batch), dtype=torch.float64) if weight is None else weight
    with torch.enable_grad():
        leaf = beta.clone().requires_grad_()
        v = [e.clone().requires_grad_() for e in eta]
        log_p = w * model.given(batch, leaf, v)
        score = torch.autograd.grad(log_p.sum(), v, create_graph=True)
        of_beta = [jacobian(s, [leaf]).numpy() for s in score]  # (n, p) of each latent variable
        second = [
            [g.detach() for g in torch.autograd.grad(s.sum(), v, retain_graph=True, allow_unused=False)]
            for s in score
        ]
    s = {a: each.detach().numpy() for a, each in enumerate(score)}
    right: list[tuple[Array | None, Array]] = []
    for j in range(len(beta)):
        z = columns.transposed({a: np.ascontiguousarray(c[:, j]) for a, c in enumerate(of_beta)})
        right.append(scales.back(*z, columns))
    z = columns.transposed(s)
    for changed in model.scale_slopes(phi):
        first, rest = changed.back(*z, columns)
        d = columns.times(*changed.times(*u, columns))
        turned = {
            a: sum(second[a][b].numpy() * np.asarray(part) for b, part in d.items()) for a in range(len(v))
        }
        c0, crest = scales.back(*columns.transposed(turned), columns)
        right.append((None if first is None or c0 is None else first + c0, rest + crest))
    first_all = None if right[0][0] is None else np.stack([r[0] for r in right], -1)  # type: ignore[misc]
    rest_all = np.stack([r[1] for r in right], -1)
    return torch.from_numpy(_flat(modes, *modes.factored.solve(first_all, rest_all)))


def _solved(modes: Modes, right: Array) -> tuple[Array | None, Array]:
    """H⁻¹ of columns in the order of θ's u, (u, r)."""
    return modes.factored.solve(*_apart(modes, right))


def _places(modes: Modes) -> list[tuple[int, int, int, bool, int]]:
    """Of each term, in the order of θ: its levels, width, and where it begins in the eliminated factor or in the rest."""
    model, out, at = modes.model, {}, 0
    for i in modes.model.order.first:
        width = model.random[i].structure.width
        out[i] = (model.groupings[model.random[i].source].size, width, at, True, 0)
        at += width
    for i, t, begin in zip(model.order.rest, modes.columns.terms, modes.columns.starts, strict=False):
        out[i] = (t.levels, t.width, 0, False, begin)
    return [out[i] for i in sorted(out)]


def _flat(modes: Modes, first: Array | None, rest: Array) -> Array:
    """The eliminated factor's (q, L, r) and the rest's (m, r), in the order of θ's u, (u, r)."""
    parts = []
    for levels, width, at, eliminated, begin in _places(modes):
        if eliminated:
            assert first is not None
            parts.append(first[at : at + width].transpose(1, 0, 2).reshape(levels * width, -1))
        else:
            parts.append(rest[begin : begin + levels * width])
    return np.concatenate(parts)


def _apart(modes: Modes, flat: Array) -> tuple[Array | None, Array]:
    """The way back."""
    r = flat.shape[1]
    rest, first, at = np.zeros((modes.columns.starts[-1], r)), [], 0
    for levels, width, _, eliminated, begin in _places(modes):
        own = flat[at : at + levels * width]
        at += levels * width
        if eliminated:
            first.append(own.reshape(levels, width, r).transpose(1, 0, 2))
        else:
            rest[begin : begin + levels * width] = own
    return np.concatenate(first) if first else None, rest
