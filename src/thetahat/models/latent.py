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

is the exact gradient: the second term is how H moves, the third how û does. The information is exact over one grouping factor of few
effects, by automatic differentiation once more (`quadrature`), and by central differences of the gradient elsewhere.

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
from ..data.random_terms import Grouping
from ..data.source import Source, Tensors
from ..data.table import numeric_tensors, texts_of
from ..errors import ModelError, NotFinite, UnknownColumn
from ..families.base import Family
from ..families.distribution import Distribution
from ..types import Data, Plain
from .base import coefficient_names, drawn, get_theta, unique
from .custom import Custom, Latent, WithTexts, rows_of
from .described import returned
from .elimination import Array, Columns, Grouped, Term
from .function_rows import FunctionRows
from .laplace import Laplace
from .latent_terms import columns_of, groupings_of, numbers_of, terms_of
from .mixed_formula import check_quadrature
from .quadrature import Quadrature, Traced
from .random_effects import Order, Random, RandomEffects, Work
from .series import (
    OneGroup,
    Series,
    check_size,
    dense_term,
    entries,
    known_steps,
    order_of,
    predictors,
    steps_of,
)

SAME = 1e-9  # relative change of a row's log p that is rounding
STEP = "step of "  # and the name of a series: the tensor that holds each row's step
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
        frame = Frame(columns_of(data))
        groupings = groupings_of(self.latents, frame)
        along = [latent.along for latent in self.latents.values() if latent.along is not None]
        steps = steps_of(self.latents, frame.read(list(dict.fromkeys(along)))) if along else {}
        model = LatentModel(self.custom, self.latents, groupings, steps)
        source = model.source(data, weights)
        _check_groups(model, source)
        for i in model.order.rest:
            r = model.random[i]
            if isinstance(r.structure, Series):
                check_size(r.parameter, groupings[r.source].size, r.structure, len(source.whole))
        batch = next(iter(source.batches(model)))
        with torch.no_grad():
            seen = WithTexts(batch.tensors, texts_of(frame))
            out = model.outcome(seen, get_theta(self.custom), model.nothing(batch))
        if isinstance(out, Distribution):
            model = DescribedLatent(self.custom, self.latents, groupings, out.family, steps)
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
        steps: Mapping[str, Array] | None = None,
        points: int = 1,
    ):
        super().__init__()
        object.__setattr__(self, "custom", custom)  # what β means; its own θ is not this model's
        self.coefficients = nn.Parameter(get_theta(custom))
        self.latents, self._factors, self.steps = dict(latents), tuple(groupings), dict(steps or {})
        self.measure, self.target = custom.measure, custom.target
        self.__doc__ = custom.function.__doc__
        self._effects(terms_of(latents, groupings, self.steps), points=points)

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
        return LatentModel(self.custom, self.latents, self._factors, self.steps, points)

    def regrouped(self, groupings: Sequence[Grouping]) -> LatentModel:
        """The same model, at its θ, of other groups."""
        out = copy.deepcopy(self)
        out._factors, out._work = tuple(groupings), Work()
        return out

    # ---- data ----------------------------------------------------------------------------------------------

    def source(self, data: Data, weights: str | None = None, *, grouped: bool = True) -> Tensors:
        """Rows with the group of each, as one batch; not grouped: without it, whether or not the data have the columns."""
        table = columns_of(data)
        frame = Frame(table)
        if weights is not None and weights not in frame.columns:
            raise UnknownColumn.named(weights, list(frame.columns), where="weights=")
        by = {name for g in self._factors if not isinstance(g, OneGroup) for name in g.columns}
        if grouped:
            frame.require(sorted(by), where="the model")
        read = [name for name in frame.columns if name not in {*by, *texts_of(frame)}]
        tensors = numeric_tensors(frame, read) if read else {}
        tensors |= numbers_of(frame, sorted(by if grouped else by & set(frame.columns)))
        count = data.count if isinstance(data, Batch) and data.counted else None
        count = tensors.pop(weights) if weights is not None else count
        for grouping in self._factors if grouped else ():
            codes = grouping.codes(frame.read(list(grouping.columns)))
            tensors[CODE + grouping.label] = torch.from_numpy(codes.astype(np.int64))
        for r in self.random:
            if isinstance(r.structure, Series):
                values = tensors[str(self.latents[r.parameter].along)].numpy()
                tensors[STEP + r.parameter] = torch.from_numpy(r.structure.codes(values))
        return Tensors(tensors, count=count, target=self.target, block=2**62)

    def codes(self, r: Random, batch: Batch) -> Tensor:
        """The group of each row, (n,)."""
        out: Tensor = batch[CODE + self._factors[r.source].label]
        return out

    @property
    def order(self) -> Order:
        """The eliminated factor, the others as sparse columns, and series that are not eliminated as dense ones."""
        return order_of(self.random, [g.size for g in self._factors])

    def _columns(self, batch: Batch) -> Columns:
        n, order, at = len(batch), self.order, self.eta_places
        grouped, terms = None, []
        if order.first:
            first = [self.random[i] for i in order.first]
            one = [torch.ones(n, entries(r), dtype=torch.float64) for r in first]
            z = torch.cat([self.spread(r, ones, batch) for r, ones in zip(first, one, strict=True)], 1)
            own = [a for i, r in zip(order.first, first, strict=True) for a in predictors(r, at[i])]
            code, levels = self.codes(first[0], batch).numpy(), self._factors[first[0].source].size
            grouped = Grouped(code, np.ascontiguousarray(z.T.numpy()), tuple(own), levels)
        for i in order.rest:
            r = self.random[i]
            size, code = self._factors[r.source].size, self.codes(r, batch).numpy()
            if isinstance(r.structure, Series):
                terms.append(dense_term(at[i].start, size, r.structure, code, self.step(r, batch).numpy()))
            else:
                rows = sparse.csr_matrix((np.ones(n), code, np.arange(n + 1)), shape=(n, size))
                terms.append(Term(at[i].start, size, 1, rows))
        return Columns(n, grouped, tuple(terms), ())

    def columns_without_rows(self) -> Columns:
        """The columns of no rows: which there are, and in what order."""
        names = [*(CODE + g.label for g in self._factors), *(STEP + r.parameter for r in self.random)]
        return self._columns(Batch(dict.fromkeys(names, torch.zeros(0, dtype=torch.int64))))

    @property
    def eta_places(self) -> list[slice]:
        """Where each term's latent variables are among those of a row."""
        ends = np.cumsum([0, *(entries(r) for r in self.random)]).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(ends)]

    @property
    def size(self) -> int:
        """How many latent variables a row has."""
        return sum(entries(r) for r in self.random)

    def step(self, r: Random, batch: Batch) -> Tensor:
        """The place of each row's step of a series, (n,).

        Raises
        ------
        UnknownLevel
        """
        assert isinstance(r.structure, Series)
        return known_steps(r.structure, str(self.latents[r.parameter].along), batch, STEP + r.parameter)

    def rows_of(self, r: Random, b: Tensor, code: Tensor, batch: Batch) -> list[Tensor]:
        """What each row has of b (levels, width), (n,) each: of a series that of its step."""
        own = b[code]
        return (
            [own.gather(1, self.step(r, batch)[:, None])[:, 0]]
            if entries(r) < b.shape[1]
            else list(own.unbind(1))
        )

    def spread(self, r: Random, g: Tensor, batch: Batch) -> Tensor:
        """Slopes in what a row has of a term, (n, entries), as slopes in all that its group has, (n, width)."""
        if not isinstance(r.structure, Series):
            return g
        out = g.new_zeros(len(g), r.structure.width)
        return out.scatter(1, self.step(r, batch)[:, None], g)

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
        kind = Traced if self.points == 1 else Quadrature
        return kind(self, FunctionRows(self, batch), self.columns(batch), batch, weight)

    def without(self, terms: Sequence[Random]) -> nn.Module:
        """The model in which these latent variables are 0."""
        lost = {r.parameter: entries(r) for r in terms}
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
        return LatentModel(custom, left, self._factors, self.steps, self.points) if left else custom

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
        steps: Mapping[str, Array] | None = None,
        points: int = 1,
    ):
        super().__init__(custom, latents, groupings, steps, points)
        self.family, self.measure = family, family.measure

    def with_points(self, points: int) -> LatentModel:
        check_quadrature(self.random, points, False)
        return DescribedLatent(self.custom, self.latents, self._factors, self.family, self.steps, points)

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
                v += self.rows_of(r, u @ lam.T, code, batch)
            found = self.at(batch, self.coefficients.detach(), v)
            parameters = [p.expand(len(batch)) for p in found.parameters]
            extras = {name: e.expand(len(batch)) for name, e in found.extras.items()}
            return drawn(self.family, parameters, generator, **extras)


# ---- checks ------------------------------------------------------------------------------------------------


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
