"""Mixed: a family whose parameters' linear predictors hold random effects and smooth terms, integrated out.

    log p(y | β, φ) = log ∫ Π_i p(y_i | g⁻¹(η_i))^{w_i} N(u; 0, I) du,        η_a = X_a β_a + Z_a Λ(φ) u

θ is β, then φ. Two ways to the integral, and to its exact gradient:

  normal     a normal response with identity link and a constant scale, random effects in the mean: exact.
             With Λ relative to σ, everything follows from the cross-products, taken once (Bates et al. 2015)

             ℓ = −½ [Σw log 2πσ² + log det H + q(β)/σ²],     q = |y − Xβ − ZΛu|² + |u|² at its least

  others     Laplace: with f the log of the integrand, û its mode and H = −∂²f/∂u²

             ℓ = f(û) − ½ log det H(û)
             ∂ℓ = Σ_c h̃_c ∂(X_c β_c + Z_c Λ û) + (Zᵀs)·∂Λ a − Q ∘ ∂Λ,      h̃ = s + h − W Z Λ a
             h_c = ½ Σ_ab v_ab ∂³log p/∂η_a∂η_b∂η_c,   v = ZΛ H⁻¹ ΛᵀZᵀ row by row,   a = H⁻¹ ΛᵀZᵀ h

             s and W are the rows' scores and curvatures; the term of h is what moves H, the term of a what moves û

The information is the derivative of that gradient: in β exactly where it is known, else by central differences, whose
error is about 1e-8 of its entries. `precision=float32` asks for one that only steers: β's block is then that of the
normal equations.

reml=True integrates the fixed effects out too, by the same formulas with them among the u, and a flat prior.

Source: Bates et al. (2015); Kristensen et al. (2016), TMB: automatic differentiation and Laplace approximation, eq. 3
to 9; Wood (2011), Fast stable restricted maximum likelihood; Patterson and Thompson (1971), for REML.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import block_diag
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source
from ..families.links import Identity
from ..families.normal import Normal
from ..threads import one_blas_thread, one_thread
from .base import Model, drawn, set_theta, unique
from .elimination import Array, Columns, Grouped, Scales, Term
from .information import Information
from .laplace import Laplace
from .normal_mixed import NormalMixed
from .quadrature import Quadrature
from .regression import NARROW, Predictor, Regression
from .scales import Penalised, Structure
from .taylor import Taylor

VARIANCE = {True: 1.0, False: 0.25}  # of the linear predictor, that a term's effects begin with
RESTRICTED = "restricted likelihood"
FEW = 200_000  # rows below which one thread is faster than several
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
    """

    parameter: str
    label: str
    effects: tuple[str, ...]
    structure: Structure
    slot: int
    source: int
    text: str

    def __deepcopy__(self, memo: dict[int, object]) -> Random:
        return self

    @property
    def smooth(self) -> bool:
        return isinstance(self.structure, Penalised)


class Mixed(Model):
    """A regression with random effects and smooth terms.

    Parameters
    ----------
    regression
        the family with its fixed effects
    random
        the terms that are integrated out
    reml
        integrate the fixed effects out too
    points
        of adaptive Gauss–Hermite quadrature; 1: Laplace
    """

    separable = False

    @property
    def steering(self) -> str:
        """What an information that steers costs, in `solvers.Steered`."""
        return "cheap" if self.normal else "dear"

    def __init__(
        self, regression: Regression, random: Sequence[Random], *, reml: bool = False, points: int = 1
    ):
        super().__init__()
        self.regression, self.random, self.reml, self.points = regression, tuple(random), reml, points
        self.family, self.encoder, self.fixed = regression.family, regression.encoder, regression.fixed
        fixed = ", ".join(name for p in self.integrated for name in p.design.names) if reml else ""
        self.measure = (
            f"{RESTRICTED} ({fixed})" if reml else regression.measure
        )  # it is of contrasts free of those columns
        self.coefficients = regression.coefficients
        self.covariance = nn.Parameter(
            torch.zeros(sum(r.structure.size for r in random), dtype=torch.float64)
        )
        self._work = _Work()

    # ---- what is what --------------------------------------------------------------------------------------

    @cached_property
    def normal(self) -> bool:
        """Whether the response is normal, and the integral and its derivatives have the formula of the cross-products."""
        predictors = {p.parameter: p for p in self.regression.predictors}
        mean, scale = predictors.get("mean"), predictors.get("scale")
        return (
            type(self.family) is Normal
            and isinstance(self.family.parameters["mean"].link, Identity)
            and mean is not None
            and scale is not None
            and scale.design.constant
            and all(r.parameter == "mean" for r in self.random)
        )

    @property
    def kind(self) -> str:
        """Of the value: exact, or how the integral was approximated."""
        exact = type(self.family) is Normal and all(
            r.parameter == "mean" and isinstance(self.family.parameters["mean"].link, Identity)
            for r in self.random
        )
        return "exact" if exact else "Laplace estimate" if self.points == 1 else "quadrature"

    @property
    def integrated(self) -> list[Predictor]:
        """The predictors whose coefficients reml integrates out: all but constants."""
        own = {r.parameter for r in self.random}
        return [
            p
            for j, p in enumerate(self.regression.predictors)
            if j == 0 or p.parameter in own or not p.design.constant
        ]

    @property
    def places(self) -> list[slice]:
        """Where each term's φ lies in `covariance`."""
        ends = np.cumsum([0, *(r.structure.size for r in self.random)]).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(ends)]

    @property
    def order(self) -> Order:
        """Which terms belong to the eliminated factor, and the others."""
        return _order(self.random, self.encoder)

    def columns(self, batch: Batch) -> Columns:
        """The columns of the rows, made once for each batch."""
        return self._work.columns(batch, lambda: _columns(self, batch))

    def scales(self, phi: Tensor) -> tuple[Scales, list[int]]:
        """Λ at φ, in the order in which `columns` has the terms; and that order: the terms of the eliminated factor, then
        the others."""
        order = self.order
        lams = [self.random[i].structure.factor(phi[self.places[i]]).numpy() for i in order.all]
        first = lams[: len(order.first)]
        return Scales(block_diag(*first) if first else None, tuple(lams[len(order.first) :])), order.all

    @property
    def ranks(self) -> list[int]:
        """Of each φ, how many random effects it moves."""
        groupings = self.encoder.groupings
        return [
            self.encoder.smooths[r.source].R.shape[1]
            if r.smooth
            else r.structure.width * groupings[r.source].size
            for r in self.random
            for _ in range(r.structure.size)
        ]

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
        with torch.enable_grad():
            leaf = phi[self.places[i]].clone().requires_grad_()
            value = (
                self.random[i].structure.factor(leaf) * torch.from_numpy(np.ascontiguousarray(block))
            ).sum()
            return torch.autograd.grad(value, leaf)[0]

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
        with torch.no_grad(), one_blas_thread(), one_thread(len(batch) < FEW):
            beta, phi = self.coefficients.detach(), self.covariance.detach()
            part = self.evaluator(batch, weight)
            value, gradient = part.expanded(beta, phi)
            if order < 2:
                return Taylor(value, gradient)
            J = part.information(beta, phi, precision == torch.float32)
            for r, at in zip(self.random, self.places, strict=True):
                for i in r.structure.idle(phi[at]):  # nothing depends on it: any curvature keeps J regular
                    J[len(beta) + at.start + i, len(beta) + at.start + i] = 1.0
            return Taylor(value, gradient, Information(J))

    def evaluator(self, batch: Batch, weight: Tensor | None) -> Laplace | NormalMixed:
        """What computes ℓ, its gradient, the modes and their covariance, of these rows."""
        columns = self.columns(batch)
        kind = NormalMixed if self.normal else Laplace if self.points == 1 else Quadrature
        return self._work.part(weight, lambda: kind(self, columns, batch, weight))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row: new random effects for every group, then y given them."""
        theta, sigma = self.coefficients.detach(), self.sigma(self.coefficients.detach())
        eta = [e.expand(len(batch)).clone() for e in self.regression.eta(batch, theta)]
        names = list(self.family.parameters)
        for r, at in zip(self.random, self.places, strict=True):
            lam = sigma * r.structure.factor(self.covariance.detach()[at])
            j = names.index(r.parameter)
            if r.smooth:
                rows = batch[f"smooth{r.source}"]
                u = torch.randn(rows.shape[1], dtype=torch.float64, generator=generator)
                eta[j] = eta[j] + rows @ (lam[0, 0] * u if lam.numel() == 1 else lam @ u)
                continue
            z = torch.from_numpy(effect_columns(self, r, batch)).T
            code = batch[f"group{r.source}"]
            levels = int(self.encoder.groupings[r.source].size)
            u = torch.randn(
                levels + 1, z.shape[1], dtype=torch.float64, generator=generator
            )  # the last of unknown groups
            eta[j] = eta[j] + (z * (u @ lam.T)[code]).sum(1)
        parameters = [t.expand(len(batch)) for t in self.family.natural(eta)]
        return drawn(self.family, parameters, generator, **self.regression.extras(batch))

    # ---- θ under its names ---------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        parts = list(self.regression.names)
        for r in self.random:
            own = r.structure.names(r.effects, r.label)
            first = r.parameter == self.regression.predictors[0].parameter
            parts += own if first else [f"{r.parameter}: {name}" for name in own]
        return unique(parts)

    @property
    def coefficient_names(self) -> list[str]:
        return unique([*self.regression.names, *(f"scale {i + 1}" for i in range(len(self.covariance)))])

    @property
    def slopes(self) -> list[bool]:
        return [*self.regression.slopes, *[False] * len(self.covariance)]

    @property
    def elementwise(self) -> bool:
        return False

    def natural(self, theta: Tensor) -> Tensor:
        """Coefficients, then standard deviations and correlations of each term."""
        p = len(self.coefficients)
        beta = self.regression.natural(theta[:p])
        sigma = self.sigma(theta[:p])
        parts = [
            r.structure.natural(theta[p:][at], sigma) for r, at in zip(self.random, self.places, strict=True)
        ]
        return torch.cat([beta, *parts])

    def structure_row(self, r: Random, phi: Tensor, i: int) -> Tensor:
        """The standard deviation, relative to σ, of the effect whose scale is φ_i of that term."""
        effect = r.structure.scale_places().index(i)
        return r.structure.natural(phi, phi.new_ones(()))[effect].nan_to_num(0.0)

    def interval(self, name: str, value: float, half: float) -> tuple[float, float]:
        """Of a standard deviation on the logarithm, of a correlation on Fisher's z; of one at its boundary none."""
        if "corr(" in name:
            if not abs(value) < 1 - EDGE:
                return math.nan, math.nan
            z, width = math.atanh(value), half / (1 - value**2)
            return math.tanh(z - width), math.tanh(z + width)
        if not value > EDGE:
            return 0.0, math.nan
        return value * math.exp(-half / value), value * math.exp(half / value)

    def sigma(self, beta: Tensor) -> Tensor:
        """What Λ is relative to: the residual scale of a normal response, else 1."""
        if not self.normal:
            return beta.new_ones(())
        scale = next(p for p in self.regression.predictors if p.parameter == "scale")
        return scale.spec.link.inverse(beta[scale.start])

    @property
    def concave(self) -> bool:
        return False

    def start(self, source: Source) -> Tensor:
        """Near the fit without the random effects, and effects of moderate size."""
        batch = next(iter(source.batches(self)))
        weight = batch.count.to(torch.float64) if batch.counted else None
        beta = self._alone(self.regression.start(source), batch, weight)
        return torch.cat([beta, self.moderate(self.columns(batch))[0]])

    def _alone(self, beta: Tensor, batch: Batch, weight: Tensor | None) -> Tensor:
        """A few damped Newton steps of the regression by itself."""
        model = copy.deepcopy(self.regression)
        set_theta(model, beta)
        now = model.taylor(batch, weight)
        for _ in range(30):
            assert now.information is not None
            factor = now.information.factor()
            if factor is None:
                size = now.information.diagonal().abs().clamp(min=1e-8)
                factor = Information(torch.diag(size)).factor()
                assert factor is not None
            d = factor.solve(now.gradient)
            t = 1.0
            while t > 1e-4:
                set_theta(model, beta + t * d)
                new = model.taylor(batch, weight)
                if bool(torch.isfinite(new.value)) and float(new.value) > float(now.value):
                    break
                t *= 0.5
            else:
                break
            beta, now = beta + t * d, new
            if float(now.gradient @ d) * t < 1e-3:
                break
        return beta

    def moderate(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """φ at which each term gives its linear predictor a moderate variance; and the size of each φ there."""
        order = self.order
        wanted = VARIANCE[self.normal]
        begin, typical = (
            torch.zeros_like(self.covariance.detach()),
            torch.zeros_like(self.covariance.detach()),
        )
        found: dict[int, Tensor] = {}
        at = 0
        for i in order.first:
            r = self.random[i]
            assert columns.grouped is not None
            found[i] = _root(wanted, (columns.grouped.z[at : at + r.structure.width] ** 2).mean(1))
            at += r.structure.width
        for i, t in zip(order.rest, columns.terms, strict=False):
            r = self.random[i]
            if sparse.issparse(t.rows):
                squares = (t.rows.data.reshape(-1, t.width) ** 2).mean(0)
            else:
                squares = np.full(r.structure.width, float((t.rows**2).sum(1).mean()))
            found[i] = _root(wanted, squares)
        for i, scale in found.items():
            begin[self.places[i]] = self.random[i].structure.start(scale)
            typical[self.places[i]] = self.random[i].structure.typical(scale)
        return begin, typical


def _root(wanted: float, squares: Array) -> Tensor:
    return torch.from_numpy(np.sqrt(wanted / np.maximum(squares, 1e-300)))


# ---- the columns -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Which terms belong to the eliminated factor, and the others: sparse ones, then dense ones."""

    first: list[int]
    rest: list[int]

    @property
    def all(self) -> list[int]:
        return self.first + self.rest


def _order(random: Sequence[Random], encoder: object) -> Order:
    groupings = encoder.groupings  # type: ignore[attr-defined]
    grouped = [i for i, r in enumerate(random) if not r.smooth]
    wide = max(grouped, key=lambda i: groupings[random[i].source].size, default=None)
    first = [] if wide is None else [i for i in grouped if random[i].source == random[wide].source]
    sparse_terms = [i for i in grouped if i not in first]
    return Order(first, sparse_terms + [i for i, r in enumerate(random) if r.smooth])


def _columns(model: Mixed, batch: Batch) -> Columns:
    order = model.order
    which = {p.parameter: j for j, p in enumerate(model.regression.predictors)}
    n = len(batch)
    grouped = None
    if order.first:
        parts = [effect_columns(model, model.random[i], batch) for i in order.first]
        predictors = [
            which[model.random[i].parameter] for i in order.first for _ in range(len(model.random[i].effects))
        ]
        source = model.random[order.first[0]].source
        code = batch[f"group{source}"].numpy()
        grouped = Grouped(
            code, np.concatenate(parts), tuple(predictors), model.encoder.groupings[source].size
        )
    terms = []
    for i in order.rest:
        r = model.random[i]
        a = which[r.parameter]
        if r.smooth:
            rows = batch[f"smooth{r.source}"].numpy()
            width = r.structure.width
            terms.append(Term(a, rows.shape[1] // width, width, rows))
            continue
        z = effect_columns(model, r, batch)
        code, width, levels = (
            batch[f"group{r.source}"].numpy(),
            len(z),
            model.encoder.groupings[r.source].size,
        )
        place = (code[:, None] * width + np.arange(width)).reshape(-1)
        rows = sparse.csr_matrix(
            (z.T.reshape(-1), place, np.arange(0, n * width + 1, width)), shape=(n, levels * width)
        )
        terms.append(Term(a, levels, width, rows))
    fixed = tuple((which[p.parameter], predictor_columns(p, batch)) for p in model.integrated if p.size)
    return Columns(n, grouped, tuple(terms), fixed)


def effect_columns(model: Mixed, r: Random, batch: Batch) -> Array:
    """The columns of a term's effects, (q, n)."""
    design = model.encoder.designs[r.slot]
    predictor = Predictor(r.parameter, model.family.parameters[r.parameter], design, r.slot, 0)
    return predictor.rows(batch, torch.float64).numpy()


def predictor_columns(p: Predictor, batch: Batch) -> Array:
    """The columns of a predictor's fixed effects, (n, p)."""
    if any(levels > NARROW for _, _, levels in p.terms):
        return np.asarray(p.placed(batch, p.start + p.size)[:, p.start :].todense())
    return np.ascontiguousarray(p.rows(batch, torch.float64).numpy().T)


class _Work:
    """What is computed of the rows alone, kept for the next θ: never part of the model's value."""

    def __init__(self) -> None:
        self._of: tuple[int, int] | None = None
        self._y: Tensor | None = None  # held, so that its address is not given to another
        self._columns: Columns | None = None
        self._weight: Tensor | None = None
        self._part: Laplace | NormalMixed | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> _Work:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Work, ()

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
