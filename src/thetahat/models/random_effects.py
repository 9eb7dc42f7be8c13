"""What every model has whose random effects are integrated out, whatever is given them: the terms, their columns, Λ as a
function of φ, and ℓ with its derivatives by the evaluator that the model names.

    b = Λ(φ) u,      u ~ N(0, I),      θ = (β, φ)

`mixed` is a family with linear predictors; `latent` a likelihood of one's own.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.random_terms import Grouping
from ..data.smooths import Curve
from ..threads import FEW, one_blas_thread, one_thread
from .base import Model
from .elimination import Array, Columns, Scales
from .information import Information
from .scales import OfCurve, Penalised, Structure
from .taylor import Taylor

if TYPE_CHECKING:
    from .laplace import Laplace
    from .normal_mixed import NormalMixed

EDGE = 1e-6  # of a standard deviation, or of a correlation from ±1, where it counts as at its boundary


@dataclass(frozen=True)
class Random:
    """A term of random effects, or the penalised part of a smooth term.

    Parameters
    ----------
    parameter
        of the family, in whose linear predictor it stands
    label
        its group, "Subject", or its smooth, "s(x)"
    effects
        one name a column: "Intercept", "Days"
    structure
        of the effects' covariance
    slot
        of the design whose columns the effects are; -1 of a smooth term
    source
        which grouping, or smooth, of the encoder
    text
        the term as the formula has it
    curve
        of a curve of each group, s(x, g, bs="fs"): which smooth of the encoder its columns are; else -1
    """

    parameter: str
    label: str
    effects: tuple[str, ...]
    structure: Structure
    slot: int
    source: int
    text: str
    curve: int = -1

    def __deepcopy__(self, memo: dict[int, object]) -> Random:
        return self

    @property
    def smooth(self) -> bool:
        return isinstance(self.structure, Penalised)

    @property
    def each(self) -> bool:
        """Whether it is a curve of each group."""
        return self.curve >= 0


def curve_of_each_group(parameter: str, i: int, curve: Curve, source: int, label: str) -> Random:
    """The term of the encoder's i-th smooth, a curve of each group of the factor with that label."""
    name = f"s({curve.smooth.call.variables[0]})"
    effects = tuple(f"{name}.{j + 1}" for j in range(curve.R.shape[1]))
    structure = OfCurve(len(effects), tuple(f"{name}: {part}" for part in curve.parts))
    return Random(parameter, label, effects, structure, -1, source, curve.smooth.call.text, i)


class RandomEffects(Model):
    """A model with terms of random effects, whose likelihood is of all rows together.

    A subclass says `coefficients` (β, flat), `groupings`, `first` (the parameter whose terms are named without it),
    `_columns`, `_evaluator`, `sigma` and `moderate`.

    places : where each term's φ lies in `covariance`
    """

    separable = False
    random: tuple[Random, ...]
    places: list[slice]
    coefficients: Tensor
    covariance: nn.Parameter
    reml: bool
    points: int

    def _effects(self, random: Sequence[Random], *, reml: bool = False, points: int = 1) -> None:
        """The terms, at φ = 0: at the end of a subclass's own `__init__`, whose β comes before φ."""
        self.random, self.reml, self.points = tuple(random), reml, points
        ends = np.cumsum([0, *(r.structure.size for r in random)]).tolist()
        self.places = [slice(a, b) for a, b in itertools.pairwise(ends)]
        self.covariance = nn.Parameter(torch.zeros(ends[-1], dtype=torch.float64))
        self._work = Work()

    @property
    @abstractmethod
    def steering(self) -> str:
        """What an information that steers costs, in `solvers.Steered`: "cheap" or "dear"."""

    @property
    def normal(self) -> bool:
        """Whether the integral has the closed form of a normal response."""
        return False

    @property
    @abstractmethod
    def groupings(self) -> Sequence[Grouping]:
        """The grouping factors, by a term's `source`."""

    @property
    @abstractmethod
    def first(self) -> str:
        """The parameter of the family whose terms are named without it."""

    @abstractmethod
    def _columns(self, batch: Batch) -> Columns: ...

    @abstractmethod
    def _evaluator(self, batch: Batch, weight: Tensor | None) -> Laplace | NormalMixed: ...

    @abstractmethod
    def moderate(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """φ from which a run may begin, and the size of each φ there."""

    @abstractmethod
    def natural(self, theta: Tensor) -> Tensor:
        """θ through its constraints, then standard deviations and correlations."""

    @abstractmethod
    def without(self, terms: Sequence[Random]) -> nn.Module:
        """The model without these terms."""

    def sigma(self, beta: Tensor) -> Tensor:
        """What Λ is relative to: the residual scale of a normal response, else 1."""
        return beta.new_ones(())

    # ---- the terms -----------------------------------------------------------------------------------------

    @property
    def order(self) -> Order:
        """Which terms belong to the eliminated factor, and the others."""
        return _order(self.random, self.groupings)

    def columns(self, batch: Batch) -> Columns:
        """The columns of the rows, made once for each batch."""
        return self._work.columns(batch, lambda: self._columns(batch))

    def scales(self, phi: Tensor) -> tuple[Scales, list[int]]:
        """Λ at φ, in the order in which `columns` has the terms; and that order: the terms of the eliminated factor, then
        the others."""
        order = self.order
        lams = [self.random[i].structure.factor(phi[self.places[i]]).numpy() for i in order.all]
        first = lams[: len(order.first)]
        return Scales(block_diag(*first) if first else None, tuple(lams[len(order.first) :])), order.all

    def rank(self, r: Random) -> int:
        """How many random effects a term has."""
        return r.structure.width * self.groupings[r.source].size

    @property
    def ranks(self) -> list[int]:
        """Of each φ, how many random effects it moves."""
        return [self.rank(r) for r in self.random for _ in range(r.structure.size)]

    def factor_of_first(self, phi: Tensor) -> Tensor:
        """Λ of the eliminated factor, with its graph to φ."""
        parts = [self.random[i].structure.factor(phi[self.places[i]]) for i in self.order.first]
        out: Tensor = torch.block_diag(*parts)
        return out

    def scale_places(self) -> list[int]:
        """Which φ are scales, 0 where a variance is."""
        return [
            at.start + i
            for r, at in zip(self.random, self.places, strict=True)
            for i in r.structure.scale_places()
        ]

    def even_places(self) -> set[int]:
        """Which φ are the one scale of their term: ℓ is an even function of each."""
        return {at.start for at in self.places if at.stop == at.start + 1} & set(self.scale_places())

    def scale_slopes(self, phi: Tensor) -> list[Scales]:
        """∂Λ/∂φ_a of each a."""
        order = self.order
        sizes = [self.random[i].structure.width for i in order.all]
        out: list[Scales] = []
        for i, r in enumerate(self.random):
            found = r.structure.slopes(phi[self.places[i]])
            for a in range(r.structure.size):
                blocks = [np.zeros((w, w)) for w in sizes]
                blocks[order.all.index(i)] = found[a].numpy()
                first = blocks[: len(order.first)]
                out.append(Scales(block_diag(*first) if first else None, tuple(blocks[len(order.first) :])))
        return out

    def pulled(self, phi: Tensor, first: Array | None, rest: Sequence[Array]) -> Tensor:
        """∂/∂φ of what has the slopes dΛ ↦ Σ first ∘ dΛ0 + Σ rest ∘ dΛ."""
        order = self.order
        out = torch.zeros_like(phi)
        at = 0
        for i in order.first:
            width = self.random[i].structure.width
            assert first is not None
            out[self.places[i]] = self._pull(i, phi, first[at : at + width, at : at + width])
            at += width
        for i, block in zip(order.rest, rest, strict=True):
            out[self.places[i]] = self._pull(i, phi, block)
        return out

    def _pull(self, i: int, phi: Tensor, block: Array) -> Tensor:
        return self.random[i].structure.pulled(
            phi[self.places[i]], torch.from_numpy(np.ascontiguousarray(block))
        )

    # ---- ℓ -------------------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch) -> Tensor:
        """The log-likelihood, shared out among the rows: it sums to ℓ, and a row alone has none."""
        weight = batch.count.to(torch.float64) if batch.counted else None
        total = self.taylor(batch, weight, order=1).value
        share = torch.ones(len(batch), dtype=torch.float64) if weight is None else weight
        return torch.where(share > 0, total / share.sum(), 0.0)

    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        far = np.errstate(over="ignore", invalid="ignore")  # a trial θ far out: its value is −∞
        with torch.no_grad(), far, one_blas_thread(), one_thread(len(batch) < FEW):
            beta, phi = self.coefficients.detach(), self.covariance.detach()
            part = self.evaluator(batch, weight)
            value, gradient = part.expanded(beta, phi)
            if order < 2:
                return Taylor(value, gradient)
            parts = zip(self.random, self.places, strict=True)
            steers = precision == torch.float32 and not any(r.structure.near_end(phi[at]) for r, at in parts)
            J = part.information(beta, phi, steers)
            for r, at in zip(self.random, self.places, strict=True):
                for i in r.structure.idle(phi[at]):  # nothing depends on it: any curvature keeps J regular
                    J[len(beta) + at.start + i, len(beta) + at.start + i] = 1.0
            return Taylor(value, gradient, Information(J))

    def evaluator(self, batch: Batch, weight: Tensor | None) -> Laplace | NormalMixed:
        """What computes ℓ, its gradient, the modes and their covariance, of these rows."""
        self.columns(batch)  # of other rows than the last, which drops what was kept of those
        return self._work.part(weight, lambda: self._evaluator(batch, weight))

    # ---- φ under its names ---------------------------------------------------------------------------------

    def effect_names(self) -> list[str]:
        """Of each standard deviation and correlation."""
        parts: list[str] = []
        for r in self.random:
            own = r.structure.names(r.effects, r.label)
            parts += own if r.parameter == self.first else [f"{r.parameter}: {name}" for name in own]
        return parts

    def natural_effects(self, phi: Tensor, sigma: Tensor) -> Tensor:
        """Standard deviations and correlations of each term."""
        return torch.cat(
            [r.structure.natural(phi[at], sigma) for r, at in zip(self.random, self.places, strict=True)]
        )

    def structure_row(self, r: Random, phi: Tensor, i: int) -> Tensor:
        """The standard deviation, relative to σ, of the effect whose scale is φ_i of that term."""
        effect = r.structure.scale_places().index(i)
        return r.structure.natural(phi, phi.new_ones(()))[effect].nan_to_num(0.0)

    def correlations(self, name: str) -> tuple[float, float]:
        """The range of that correlation."""
        before = 0
        names = self.effect_names()
        for r in self.random:
            count = len(r.structure.names(r.effects, r.label))
            if name in names[before : before + count]:
                return r.structure.correlations
            before += count
        return -1.0, 1.0

    def interval(self, name: str, value: float, half: float) -> tuple[float, float]:
        """Of a standard deviation on the logarithm, of a correlation on Fisher's z of its range; at a boundary none.

        Nor has a standard deviation one from which 0 is not excluded, `value` ≤ `half`: its lower end is 0, and the
        likelihood, which is even in it, is then no parabola in its logarithm or in itself: the upper end takes a profile.
        """
        if "corr(" in name:
            low, high = self.correlations(name)
            middle, wide = (low + high) / 2, (high - low) / 2
            share = (value - middle) / wide
            if not abs(share) < 1 - EDGE:
                return math.nan, math.nan
            z, width = math.atanh(share), half / wide / (1 - share**2)
            return middle + wide * math.tanh(z - width), middle + wide * math.tanh(z + width)
        if not value > max(EDGE, half):
            return 0.0, math.nan
        return value * math.exp(-half / value), value * math.exp(half / value)

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def concave(self) -> bool:
        return False


@dataclass(frozen=True)
class Order:
    """Which terms belong to the eliminated factor, and the others: sparse ones, then dense ones."""

    first: list[int]
    rest: list[int]

    @property
    def all(self) -> list[int]:
        return self.first + self.rest


def _order(random: Sequence[Random], groupings: Sequence[Grouping]) -> Order:
    grouped = [i for i, r in enumerate(random) if not r.smooth]
    columns = {
        s: sum(r.structure.width for r in random if r.each and r.source == s) for s in range(len(groupings))
    }

    def size(i: int) -> int:
        """Groups, times the columns of their curves."""
        s = random[i].source
        return groupings[s].size * max(columns[s], 1)

    wide = max(grouped, key=size, default=None)
    first = [] if wide is None else [i for i in grouped if random[i].source == random[wide].source]
    sparse_terms = [i for i in grouped if i not in first]
    return Order(first, sparse_terms + [i for i, r in enumerate(random) if r.smooth])


class Work:
    """What is computed of the rows alone, kept for the next θ: never part of the model's value."""

    def __init__(self) -> None:
        self._of: tuple[int, int] | None = None
        self._y: Tensor | None = None  # held, so that its address is not given to another
        self._columns: Columns | None = None
        self._weight: Tensor | None = None
        self._part: Laplace | NormalMixed | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Work:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Work, ()

    def columns(self, batch: Batch, make: Callable[[], Columns]) -> Columns:
        y = batch.tensors.get("y", next(iter(batch.tensors.values())))
        key = (y.data_ptr(), len(batch))
        if self._of != key or self._columns is None:
            self._of, self._y, self._part = key, y, None
            self._columns = make()
        return self._columns

    def part(self, weight: Tensor | None, make: Callable[[], Laplace | NormalMixed]) -> Laplace | NormalMixed:
        same = self._weight is weight or (
            weight is not None and self._weight is not None and torch.equal(weight, self._weight)
        )
        if self._part is None or not same:
            self._weight, self._part = weight, make()
        return self._part
