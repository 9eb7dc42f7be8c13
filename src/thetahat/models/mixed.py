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

The information is the derivative of that gradient: of a normal response exact, else by central differences, whose
error is about 1e-8 of its entries. `precision=float32` asks for one that only steers: β's block is then that of the
normal equations.

reml=True integrates the fixed effects out too, by the same formulas with them among the u, and a flat prior.

Source: Bates et al. (2015); Kristensen et al. (2016), TMB: automatic differentiation and Laplace approximation, eq. 3
to 9; Wood (2011), Fast stable restricted maximum likelihood; Patterson and Thompson (1971), for REML.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.random_terms import Grouping
from ..data.source import Source
from ..families.links import Identity
from ..families.normal import Normal
from .base import drawn, set_theta, unique
from .elimination import Array, Columns, Grouped, Term
from .information import Information
from .laplace import FamilyRows, Laplace
from .normal_mixed import NormalMixed
from .quadrature import Quadrature
from .random_effects import Random, RandomEffects
from .regression import NARROW, Predictor, Regression
from .smoothing_start import near_laplace, near_normal

VARIANCE = {True: 1.0, False: 0.25}  # of the linear predictor, that a term's effects begin with
RESTRICTED = "restricted likelihood"


class Mixed(RandomEffects):
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

    @property
    def steering(self) -> str:
        """What an information that steers costs, in `solvers.Steered`."""
        return "cheap" if self.normal or all(r.smooth for r in self.random) else "dear"

    def __init__(
        self, regression: Regression, random: Sequence[Random], *, reml: bool = False, points: int = 1
    ):
        super().__init__()
        self.regression, self.random, self.reml = regression, tuple(random), reml
        self.family, self.encoder, self.fixed = regression.family, regression.encoder, regression.fixed
        fixed = ", ".join(name for p in self.integrated for name in p.design.names) if reml else ""
        self.measure = (
            f"{RESTRICTED} ({fixed})" if reml else regression.measure
        )  # it is of contrasts free of those columns
        self.coefficients = regression.coefficients
        self._effects(random, reml=reml, points=points)

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
    def groupings(self) -> Sequence[Grouping]:
        return self.encoder.groupings

    @property
    def first(self) -> str:
        return self.regression.predictors[0].parameter

    def rank(self, r: Random) -> int:
        return int(self.encoder.smooths[r.source].R.shape[1]) if r.smooth else super().rank(r)

    def without(self, terms: Sequence[Random]) -> nn.Module:
        """Fitted without these; of none that are left the regression alone."""
        left = [r for r in self.random if r not in terms]
        return (
            type(self)(self.regression, left, reml=self.reml, points=self.points) if left else self.regression
        )

    @property
    def constant_predictors(self) -> list[Predictor]:
        """Of the parameters that are the same in every row and every group."""
        own = {r.parameter for r in self.random}
        return [p for p in self.regression.constant_predictors if p.parameter not in own]

    def holding(self, parameter: str, value: float) -> Mixed:
        """The same model with a constant held at a value (its boundary): it leaves θ, and the others keep theirs."""
        return self._of(self.regression.holding(parameter, value))

    def freeing(self, parameter: str, eta: float) -> Mixed:
        """The same model with a constant that was held estimated again, from that linear predictor on."""
        return self._of(self.regression.freeing(parameter, eta))

    def _of(self, regression: Regression) -> Mixed:
        out = type(self)(regression, self.random, reml=self.reml, points=self.points)
        with torch.no_grad():
            out.covariance.copy_(self.covariance)
        return out

    def _columns(self, batch: Batch) -> Columns:
        return _columns(self, batch)

    def _evaluator(self, batch: Batch, weight: Tensor | None) -> Laplace | NormalMixed:
        columns = self.columns(batch)
        if self.normal:
            return NormalMixed(self, columns, batch, weight)
        return (Laplace if self.points == 1 else Quadrature)(
            self, FamilyRows(self, batch), columns, batch, weight
        )

    # ---- ℓ -------------------------------------------------------------------------------------------------

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
            levels = int(self.groupings[r.source].size)
            # each unknown group has an effect of its own, counted from the end
            unknown = max(1, -int(code.min()))
            u = torch.randn(levels + unknown, z.shape[1], dtype=torch.float64, generator=generator)
            eta[j] = eta[j] + (z * (u @ lam.T)[code]).sum(1)
        parameters = [t.expand(len(batch)) for t in self.family.natural(eta)]
        return drawn(self.family, parameters, generator, **self.regression.extras(batch))

    # ---- θ under its names ---------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return unique([*self.regression.names, *self.effect_names()])

    @property
    def coefficient_names(self) -> list[str]:
        return unique([*self.regression.names, *(f"scale {i + 1}" for i in range(len(self.covariance)))])

    @property
    def slopes(self) -> list[bool]:
        return [*self.regression.slopes, *[False] * len(self.covariance)]

    def natural(self, theta: Tensor) -> Tensor:
        """Coefficients, then standard deviations and correlations of each term."""
        p = len(self.coefficients)
        beta = self.regression.natural(theta[:p])
        return torch.cat([beta, self.natural_effects(theta[p:], self.sigma(theta[:p]))])

    def sigma(self, beta: Tensor) -> Tensor:
        """What Λ is relative to: the residual scale of a normal response, else 1."""
        if not self.normal:
            return beta.new_ones(())
        scale = next(p for p in self.regression.predictors if p.parameter == "scale")
        return scale.spec.link.inverse(beta[scale.start])

    def start(self, source: Source) -> Tensor:
        """Near the fit without the random effects, and effects of moderate size."""
        batch = next(iter(source.batches(self)))
        weight = batch.count.to(torch.float64) if batch.counted else None
        beta = self._alone(self.regression.start(source), batch, weight)
        phi, part = self.moderate(self.columns(batch))[0], self.evaluator(batch, weight)
        if all(r.smooth for r in self.random) and part.columns.grouped is None:
            if isinstance(part, NormalMixed):
                return torch.cat(near_normal(part, beta, phi))
            if type(part) is Laplace:  # a partial likelihood has no rows to reweight
                return torch.cat(near_laplace(part, beta, phi))
        return torch.cat(part.begin_at(beta, phi) if isinstance(part, NormalMixed) else [beta, phi])

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
                squares = np.full(r.structure.width, float(np.vdot(t.rows, t.rows)) / max(len(t.rows), 1))
            found[i] = _root(wanted, squares)
        for i, scale in found.items():
            begin[self.places[i]] = self.random[i].structure.start(scale)
            typical[self.places[i]] = self.random[i].structure.typical(scale)
        return begin, typical


def _root(wanted: float, squares: Array) -> Tensor:
    return torch.from_numpy(np.sqrt(wanted / np.maximum(squares, 1e-300)))


# ---- the columns -------------------------------------------------------------------------------------------


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
        grouped = Grouped(code, np.concatenate(parts), tuple(predictors), model.groupings[source].size)
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
            model.groupings[r.source].size,
        )
        place = (code[:, None] * width + np.arange(width)).reshape(-1)
        rows = sparse.csr_matrix(
            (z.T.reshape(-1), place, np.arange(0, n * width + 1, width)), shape=(n, levels * width)
        )
        terms.append(Term(a, levels, width, rows))
    fixed = tuple((which[p.parameter], predictor_columns(p, batch)) for p in model.integrated if p.size)
    return Columns(n, grouped, tuple(terms), fixed, whole=any(r.each for r in model.random))


def columns_without_rows(model: Mixed) -> Columns:
    """`Mixed.columns` of no rows: which columns there are, and in what order."""
    order, groupings = model.order, model.encoder.groupings
    which = {p.parameter: j for j, p in enumerate(model.regression.predictors)}
    grouped, terms = None, []
    if order.first:
        own = [model.random[i] for i in order.first]
        predictors = tuple(which[r.parameter] for r in own for _ in r.effects)
        empty = np.zeros((len(predictors), 0))
        grouped = Grouped(np.zeros(0, dtype=np.int64), empty, predictors, groupings[own[0].source].size)
    for r in (model.random[i] for i in order.rest):
        width = r.structure.width
        columns = model.encoder.smooths[r.source].R.shape[1] if r.smooth else groupings[r.source].size * width
        rows = np.zeros((0, columns)) if r.smooth else sparse.csr_matrix((0, columns))
        terms.append(Term(which[r.parameter], columns // width, width, rows))
    fixed = tuple((which[p.parameter], np.zeros((0, p.size))) for p in model.integrated if p.size)
    return Columns(0, grouped, tuple(terms), fixed)


def effect_columns(model: Mixed, r: Random, batch: Batch) -> Array:
    """The columns of a term's effects, (q, n)."""
    if r.each:
        return np.ascontiguousarray(batch[f"smooth{r.curve}"].numpy().T)
    design = model.encoder.designs[r.slot]
    predictor = Predictor(r.parameter, model.family.parameters[r.parameter], design, r.slot, 0)
    return predictor.rows(batch, torch.float64).numpy()


def predictor_columns(p: Predictor, batch: Batch) -> Array:
    """The columns of a predictor's fixed effects, (n, p)."""
    if any(levels > NARROW for _, _, levels in p.terms):
        return np.asarray(p.placed(batch, p.start + p.size)[:, p.start :].todense())
    return np.ascontiguousarray(p.rows(batch, torch.float64).numpy().T)
