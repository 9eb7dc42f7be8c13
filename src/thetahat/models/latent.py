"""Latent variables of a likelihood of one's own, integrated out: nonlinear mixed models, and whatever a function of the
rows and of what was not observed of their group can say.

    log p(y | β, φ) = Σ_g log ∫ Π_{i in g} p(y_i | β, b)^{w_i} N(b; 0, Λ(φ)Λ(φ)ᵀ) db

    @th.model(asymptote=190.0, middle=700.0, scale=350.0, sigma=th.positive(8.0), b=th.latent(by="tree", sd=30.0))
    def growth(batch, asymptote, middle, scale, sigma, b):
        mean = (asymptote + b) / (1 + torch.exp(-(batch["age"] - middle) / scale))
        return th.families.Normal().at(mean, sigma)

By Laplace's approximation, or adaptive Gauss–Hermite quadrature (`quadrature=`), through the code of mixed models: the
function is the row's log p, and automatic differentiation gives what is needed of it. With V = ZΛH⁻¹ΛᵀZᵀ row by row and
a = H⁻¹ΛᵀZᵀh as in `mixed`,

    ∂ℓ/∂β = ∂/∂β [ Σ w log p + ½ Σ w V ∘ ∂²log p/∂v² + Σ w (ZΛa) · ∂log p/∂v ]      at v = ZΛû, V and a held

is the exact gradient: the second term is how H moves, the third how û does. The information is by central differences of it.

Source: Kristensen et al. (2016), TMB: automatic differentiation and Laplace approximation; Pinheiro and Bates (2000),
Mixed-Effects Models in S and S-PLUS, ch. 7.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.frame import Frame
from ..data.random_terms import Grouping, build_grouping
from ..data.source import Source, Tensors
from ..data.table import numeric_tensors
from ..errors import BadArgument, ModelError, NotFinite, UnknownColumn
from ..families.base import Derivatives, Family
from ..families.derivatives import (
    TwiceOnly,
    differenced,
    differenced_third,
    gradient,
    thrice,
    traced_third,
)
from ..families.distribution import Distribution
from ..types import Data, Plain
from .base import coefficient_names, drawn, get_theta, unique
from .custom import Custom, Latent, rows_of
from .described import returned
from .elimination import Array, Columns, Grouped, Term
from .laplace import Laplace, Mode, Shift
from .mixed_formula import check_quadrature
from .quadrature import Quadrature
from .random_effects import Random, RandomEffects, Work
from .regression import Predictor
from .scales import STRUCTURES, Diagonal

SAME = 1e-9  # relative change of a row's log p that is rounding
CODE = "group of "  # and the name of a grouping factor: the tensor that holds each row's group


class Unbound(nn.Module):
    """A likelihood of one's own with latent variables, before it has seen the groups of its data. `th.fit` binds it.

    Parameters
    ----------
    custom
        the function and the parameters that are estimated
    latents
        what is integrated out, by the function's argument
    """

    def __init__(self, custom: Custom, latents: Mapping[str, Latent]):
        super().__init__()
        self.custom, self.latents = custom, dict(latents)
        self.__doc__ = custom.function.__doc__

    def bound(self, data: Data, weights: str | None = None) -> tuple[LatentModel, Source]:
        """The model with the groups of these data, and the data as it reads them.

        Raises
        ------
        BadArgument, DataError
            a column that is not there, a factor of one group, several dimensions of a factor that is not the largest,
            rows that are not independent given the latent variables
        """
        frame = Frame(_columns_of(data))
        groupings = _groupings(self.latents, frame)
        model = LatentModel(self.custom, self.latents, groupings)
        source = model.source(data, weights)
        _check_groups(model, source)
        batch = next(iter(source.batches(model)))
        with torch.no_grad():
            out = model.outcome(batch, get_theta(self.custom), model.nothing(batch))
        if isinstance(out, Distribution):
            model = DescribedLatent(self.custom, self.latents, groupings, out.family)
        _check_rows(model, batch)
        return model, source


class LatentModel(RandomEffects):
    """A likelihood of one's own whose latent variables are integrated out. Made by `Unbound.bound`."""

    steering = "dear"
    custom: Custom

    def __init__(
        self,
        custom: Custom,
        latents: Mapping[str, Latent],
        groupings: Sequence[Grouping],
        points: int = 1,
    ):
        super().__init__()
        object.__setattr__(self, "custom", custom)  # what β means; its own θ is not this model's
        self.coefficients = nn.Parameter(get_theta(custom))
        self.latents, self._factors = dict(latents), tuple(groupings)
        self.measure, self.target = custom.measure, custom.target
        self.__doc__ = custom.function.__doc__
        self._effects(list(_terms(latents, groupings)), points=points)

    @property
    def groupings(self) -> Sequence[Grouping]:
        return self._factors

    @property
    def first(self) -> str:
        return ""

    @property
    def kind(self) -> str:
        """Of the value: how the integral was approximated."""
        return "Laplace estimate" if self.points == 1 else "quadrature"

    def with_points(self, points: int) -> LatentModel:
        """The same model with so many nodes of quadrature; 1: Laplace."""
        check_quadrature(self.random, points, False)
        return LatentModel(self.custom, self.latents, self._factors, points)

    def regrouped(self, groupings: Sequence[Grouping]) -> LatentModel:
        """The same model, at its θ, of other groups."""
        out = copy.deepcopy(self)
        out._factors, out._work = tuple(groupings), Work()
        return out

    # ---- data ----------------------------------------------------------------------------------------------

    def source(self, data: Data, weights: str | None = None) -> Tensors:
        """Rows with the group of each, as one batch."""
        table = _columns_of(data)
        frame = Frame(table)
        if weights is not None and weights not in frame.columns:
            raise UnknownColumn.named(weights, list(frame.columns), where="weights=")
        by = {name for grouping in self._factors for name in grouping.columns}
        read = [name for name in frame.columns if name not in by]
        tensors = numeric_tensors(frame, read) if read else {}
        tensors |= _numbers(frame, sorted(by))
        count = data.count if isinstance(data, Batch) and data.counted else None
        count = tensors.pop(weights) if weights is not None else count
        for grouping in self._factors:
            codes = grouping.codes(frame.read(list(grouping.columns)))
            tensors[CODE + grouping.label] = torch.from_numpy(codes.astype(np.int64))
        return Tensors(tensors, count=count, target=self.target, block=2**62)

    def codes(self, r: Random, batch: Batch) -> Tensor:
        """The group of each row, (n,)."""
        out: Tensor = batch[CODE + self._factors[r.source].label]
        return out

    def _columns(self, batch: Batch) -> Columns:
        n, order, at = len(batch), self.order, self.eta_places
        grouped, terms = None, []
        own = [j for i in order.first for j in range(at[i].start, at[i].stop)]
        code = self.codes(self.random[order.first[0]], batch).numpy()
        levels = self._factors[self.random[order.first[0]].source].size
        grouped = Grouped(code, np.ones((len(own), n)), tuple(own), levels)
        for i in order.rest:
            r = self.random[i]
            size, one = self._factors[r.source].size, np.ones(n)
            rows = sparse.csr_matrix((one, self.codes(r, batch).numpy(), np.arange(n + 1)), shape=(n, size))
            terms.append(Term(at[i].start, size, 1, rows))
        return Columns(n, grouped, tuple(terms), ())

    def columns_without_rows(self) -> Columns:
        """The columns of no rows: which there are, and in what order."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return self._columns(Batch({CODE + g.label: nothing for g in self._factors}))

    @property
    def eta_places(self) -> list[slice]:
        """Where each term's latent variables are among those of a row."""
        ends = np.cumsum([0, *(r.structure.width for r in self.random)]).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(ends)]

    @property
    def size(self) -> int:
        """How many latent variables a row has."""
        return sum(r.structure.width for r in self.random)

    # ---- p -------------------------------------------------------------------------------------------------

    def nothing(self, batch: Batch) -> list[Tensor]:
        """Latent variables at 0, each (n,)."""
        return [torch.zeros(len(batch), dtype=torch.float64)] * self.size

    def outcome(self, batch: Batch, beta: Tensor, v: Sequence[Tensor]) -> Plain:
        """What the function returns at β and the rows' latent variables, each (n,)."""
        b = {
            name: torch.stack(list(v[at.start : at.stop]), -1) if at.stop > at.start + 1 else v[at.start]
            for name, at in zip(self.latents, self.eta_places, strict=True)
        }
        out: Plain = self.custom.function(batch, **self.custom.values_at(beta), **b)
        return out

    def given(self, batch: Batch, beta: Tensor, v: Sequence[Tensor]) -> Tensor:
        """log p(y | β, b) of each row, (n,)."""
        return rows_of(self.outcome(batch, beta, v), batch, self.target, self.custom.function.__name__)

    def _evaluator(self, batch: Batch, weight: Tensor | None) -> Laplace:
        kind = Laplace if self.points == 1 else Quadrature
        return kind(self, FunctionRows(self, batch), self.columns(batch), batch, weight)

    def without(self, terms: Sequence[Random]) -> nn.Module:
        """The model in which these latent variables are 0."""
        lost = {r.parameter: r.structure.width for r in terms}
        left = {name: latent for name, latent in self.latents.items() if name not in lost}
        function = self.custom.function

        @functools.wraps(function)
        def without(batch: Batch, **values: Tensor) -> Plain:
            zero = {
                name: torch.zeros(len(batch), *([width] if width > 1 else []), dtype=torch.float64)
                for name, width in lost.items()
            }
            return function(batch, **values, **zero)

        custom = Custom(without, self.custom.constraints, self.measure, self.target, self.custom.concave)
        return LatentModel(custom, left, self._factors, self.points) if left else custom

    # ---- θ under its names ---------------------------------------------------------------------------------

    def effect_names(self) -> list[str]:
        return [name for r in self.random for name in r.structure.names(r.effects, r.label)]

    @property
    def names(self) -> list[str]:
        return unique([*self.custom.names, *self.effect_names()])

    @property
    def coefficient_names(self) -> list[str]:
        own = coefficient_names(self.custom)
        return unique([*own, *(f"scale {i + 1}" for i in range(len(self.covariance)))])

    @property
    def slopes(self) -> list[bool]:
        return [*[True] * len(self.coefficients), *[False] * len(self.covariance)]

    def natural(self, theta: Tensor) -> Tensor:
        """The function's parameters, then standard deviations and correlations."""
        p = len(self.coefficients)
        return torch.cat(
            [self.custom.natural(theta[:p]), self.natural_effects(theta[p:], theta.new_ones(()))]
        )

    def start(self, source: Source) -> Tensor:
        """Where the function's parameters and the standard deviations are said to start."""
        return torch.cat([get_theta(self.custom), self._begin()])

    def _begin(self) -> Tensor:
        return torch.cat([r.structure.start(self._sd(r)) for r in self.random])

    def _sd(self, r: Random) -> Tensor:
        return torch.tensor(self.latents[r.parameter].sd, dtype=torch.float64)

    def moderate(self, columns: Columns) -> tuple[Tensor, Tensor]:
        return self._begin(), torch.cat([r.structure.typical(self._sd(r)) for r in self.random])


class DescribedLatent(LatentModel):
    """The same of a function that returns a distribution.

    Parameters
    ----------
    family
        of that distribution
    """

    def __init__(
        self,
        custom: Custom,
        latents: Mapping[str, Latent],
        groupings: Sequence[Grouping],
        family: Family,
        points: int = 1,
    ):
        super().__init__(custom, latents, groupings, points)
        self.family, self.measure = family, family.measure

    def with_points(self, points: int) -> LatentModel:
        check_quadrature(self.random, points, False)
        return DescribedLatent(self.custom, self.latents, self._factors, self.family, points)

    def at(self, batch: Batch, beta: Tensor, v: Sequence[Tensor]) -> Distribution:
        """The distribution of each row given the latent variables."""
        return returned(self.outcome(batch, beta, v), self.family, self.custom.function.__name__)

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row: new latent variables for every group, then y given them."""
        with torch.no_grad():
            v: list[Tensor] = []
            for r, place in zip(self.random, self.places, strict=True):
                lam = r.structure.factor(self.covariance.detach()[place])
                code = self.codes(r, batch)
                # each unknown group has an effect of its own, counted from the end
                levels = self._factors[r.source].size + max(1, -int(code.min()))
                u = torch.randn(levels, r.structure.width, dtype=torch.float64, generator=generator)
                v += (u @ lam.T)[code].unbind(1)
            found = self.at(batch, self.coefficients.detach(), v)
            parameters = [p.expand(len(batch)) for p in found.parameters]
            extras = {name: e.expand(len(batch)) for name, e in found.extras.items()}
            return drawn(self.family, parameters, generator, **extras)


class FunctionRows:
    """log p of each row by a function of one's own, for `laplace`: its η's are the row's latent variables."""

    def __init__(self, model: LatentModel, batch: Batch):
        self.model, self.batch = model, batch
        self.free = list(range(model.size))
        self.predictors: list[Predictor] = []
        self._copies: tuple[int, Batch] = (1, batch)

    def base(self, beta: Tensor) -> list[Tensor]:
        return self.model.nothing(self.batch)

    def log_prob(self, beta: Tensor, eta: list[Tensor], copies: int = 1) -> Tensor:
        if self._copies[0] != copies:
            repeated = {n: t.repeat_interleave(copies, 0) for n, t in self.batch.tensors.items()}
            self._copies = copies, self.batch if copies == 1 else Batch(repeated)
        return self.model.given(self._copies[1], beta, eta)

    def derivatives(self, beta: Tensor, eta: list[Tensor], order: int) -> Derivatives:
        with torch.enable_grad():
            leaves = [e.detach().clone().requires_grad_() for e in eta]
            value = self.log_prob(beta, leaves)
            score = gradient(value.sum(), leaves, create_graph=order > 1)
            curvature: dict[tuple[int, int], Tensor] = {}
            for a in range(len(leaves) if order > 1 else 0):
                second = gradient(score[a].sum(), leaves[a:], create_graph=False)
                curvature |= {(a, a + j): found for j, found in enumerate(second)}
        return value.detach(), [s.detach() for s in score], curvature

    def third(self, beta: Tensor, eta: list[Tensor], v: dict[tuple[int, int], Tensor]) -> list[Tensor]:
        try:
            return traced_third(lambda *own: self.log_prob(beta, list(own)), eta, v)
        except TwiceOnly:
            return differenced_third(lambda own: self.derivatives(beta, list(own), 2)[2], eta, v)

    def pull(self, beta: Tensor, mode: Mode, w: Array | None, shift: Shift) -> Tensor:
        weight = torch.ones(len(self.batch), dtype=torch.float64) if w is None else torch.from_numpy(w)
        held = {ab: weight * torch.from_numpy(rows) for ab, rows in shift.variances.items()}
        with torch.enable_grad():
            leaf = beta.detach().clone().requires_grad_()
            v = [e.detach().clone().requires_grad_() for e in mode.eta]
            log_p = self.log_prob(leaf, v)
            score = gradient(log_p.sum(), v, create_graph=True)
            total = (weight * log_p).sum()
            for a, rows in shift.za.items():
                total = total + (weight * torch.from_numpy(rows) * score[a]).sum()
            (out,) = gradient(total, [leaf], create_graph=False)
            try:
                with thrice():
                    curvature = self._curvature(leaf, v, held)
                return out + gradient(curvature, [leaf], create_graph=False)[0]
            except TwiceOnly:
                return out + self._slopes_of_curvature(beta, v, held)

    def _curvature(self, beta: Tensor, v: list[Tensor], held: Mapping[tuple[int, int], Tensor]) -> Tensor:
        """½ Σ V ∘ ∂²log p/∂v²."""
        score = gradient(self.log_prob(beta, v).sum(), v, create_graph=True)
        total = v[0].new_zeros(())
        for a in {a for a, _ in held}:
            second = gradient(score[a].sum(), v, create_graph=True)
            for b in range(a, len(v)):
                if (a, b) in held:
                    total = total + (0.5 if a == b else 1.0) * (held[a, b] * second[b]).sum()
        return total

    def _slopes_of_curvature(
        self, beta: Tensor, v: list[Tensor], held: Mapping[tuple[int, int], Tensor]
    ) -> Tensor:
        """Its slopes in β where log p has no third derivatives: central differences of fourth order."""
        return differenced(lambda b: self._curvature(b, v, held).detach(), beta)

    def size(self, beta: Tensor, mode: Mode, w: Array | None) -> Tensor:
        """Of each β_j, how far it moves log p by about ½ nat: the step of differences is relative to it."""
        weight = None if w is None else torch.from_numpy(w)

        def total(b: Tensor) -> Tensor:
            log_p = self.log_prob(b, mode.eta)
            return (log_p if weight is None else weight * log_p).sum()

        with torch.enable_grad():
            H = torch.autograd.functional.hessian(total, beta.detach())
        curved = H.diagonal().abs()
        return torch.where(curved > 0, curved, (beta.abs() + 1) ** -2).nan_to_num(1.0, 1.0, 1.0) ** -0.5


# ---- from what the user gave -------------------------------------------------------------------------------


def _columns_of(data: Data) -> Data:
    """A batch as its columns."""
    if isinstance(data, Batch):
        return {name: t.numpy() for name, t in data.tensors.items()}
    if isinstance(data, Source):
        raise BadArgument(
            f"a {type(data).__name__} yields batches, and the groups of latent variables are read from a table. Give the "
            "table, or a dict of columns."
        )
    return data


def _numbers(frame: Frame, by: Sequence[str]) -> dict[str, Tensor]:
    """Those grouping columns that hold numbers, which the function may read too."""
    out: dict[str, Tensor] = {}
    for name in by:
        values = frame.read([name])[name]
        if values.dtype.kind in "iuf":
            out[name] = torch.from_numpy(values.to_numpy(dtype=np.float64, copy=True))
    return out


def _groupings(latents: Mapping[str, Latent], frame: Frame) -> list[Grouping]:
    out: dict[tuple[str, ...], Grouping] = {}
    for name, latent in latents.items():
        missing = next((c for c in latent.by if c not in frame.columns), None)
        if missing is not None:
            raise UnknownColumn.named(missing, list(frame.columns), where=f"{name}=th.latent(by=…)")
        if latent.by not in out:
            out[latent.by] = build_grouping(latent.by, frame, f"{name}=th.latent(by={':'.join(latent.by)!r})")
    return list(out.values())


def _terms(latents: Mapping[str, Latent], groupings: Sequence[Grouping]) -> list[Random]:
    factors = [grouping.columns for grouping in groupings]
    largest = max(range(len(groupings)), key=lambda i: groupings[i].size)
    out = []
    for name, latent in latents.items():
        source, width = factors.index(latent.by), len(latent.sd)
        if width > 1 and groupings[source].size < groupings[largest].size:
            raise BadArgument(
                f"{name}=th.latent(by={groupings[source].label!r}) has {width} dimensions. Accepted: several dimensions of "
                f"the factor with the most groups, {groupings[largest].label!r}; of any other factor, one dimension."
            )
        effects = (name,) if width == 1 else latent.names or tuple(f"{name}[{i}]" for i in range(width))
        structure = Diagonal(1) if width == 1 else STRUCTURES[latent.covariance](width)
        label = groupings[source].label
        out.append(Random(name, label, effects, structure, -1, source, f"({name} | {label})"))
    return out


def _check_groups(model: LatentModel, source: Tensors) -> None:
    for r in model.random:
        lost = torch.nonzero(model.codes(r, source.whole) < 0)
        if len(lost):
            raise NotFinite(
                f"column {r.label!r}, by which {r.parameter} is grouped, is missing in row {int(lost[0, 0])}. Drop the row."
            )


def _check_rows(model: LatentModel, batch: Batch) -> None:
    """Refuse a function in which a latent variable of one row moves log p of another: the integral would be wrong.

    Raises
    ------
    ModelError
    """
    odd = torch.arange(len(batch)) % 2 == 1
    beta, zero = get_theta(model.custom), model.nothing(batch)
    with torch.no_grad():
        before = model.given(batch, beta, zero)
        for r, at in zip(model.random, model.eta_places, strict=True):
            sd = 0.1 * model._sd(r)
            for j in range(at.start, at.stop):
                moved = [torch.where(odd, sd[j - at.start], e) if i == j else e for i, e in enumerate(zero)]
                after = model.given(batch, beta, moved)
                more = (after - before).abs() > SAME * (
                    1 + before.abs()
                )  # a series may round by its longest row
                changed = torch.nonzero(~odd & more)
                if len(changed):
                    raise ModelError(
                        f"{model.custom.function.__name__}: log p of row {int(changed[0, 0])} changes where {r.parameter} of "
                        "other rows does. Each row's log p must be a function of its own latent variables: do not sum, "
                        "average or shift them over rows."
                    )
