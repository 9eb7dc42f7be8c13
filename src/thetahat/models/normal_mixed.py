"""The likelihood of a normal mixed model, from cross-products that are taken once.

    y ~ N(Xβ, σ²(W⁻¹ + ZΛΛᵀZᵀ)),      ℓ = −½ [n log 2πσ² + log det H + q/σ²],     n = Σ w

    H = I + ΛᵀZᵀWZΛ,   c = ΛᵀZᵀWr,   r = y − Xβ,   u = H⁻¹c,   q = rᵀWr − cᵀu
    ∂ℓ/∂Λ = −Q + e uᵀ/σ²,   e = ZᵀW(r − ZΛu),   summed over levels;      ∂ℓ/∂β = XᵀW(r − ZΛu)/σ²

    −∂²ℓ/∂φ_a∂φ_b = D²(½ log det H)[∂Λ_a, ∂Λ_b] + [bᵃᵀV⁻¹bᵇ − (∂Λ_aᵀe)ᵀ(∂Λ_bᵀe)]/σ² + ⟨Q − e uᵀ/σ², ∂²Λ⟩,   Zbᵃ = V_a V⁻¹r

REML adds −½ log det(XᵀV⁻¹X/σ²) + ½ p log 2π: n becomes n − p, and H that of the random and the fixed columns together.

Source: Bates et al. (2015), Fitting linear mixed-effects models using lme4, eq. 32 to 42; Laird and Ware (1982).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from ..data.batch import Batch
from .average import average_information, dot
from .curvature import determinant_curvature
from .elimination import Array, Columns, Factored, NotPositiveDefinite
from .moments import moments

if TYPE_CHECKING:
    from .mixed import Mixed

LOG_2PI = math.log(2 * math.pi)
NEAR, FAR = 1e-4, 1e-3  # steps of differences of second and of fourth order
CLOSE = 1e-5  # of a moderate scale: next to 0
FLAT = 1e-8  # of a moderate scale, below which its gradient is rounding
WIDE = 400  # columns beyond which differences of second order are taken
INSIDE = 0.02  # of a moderate scale: nearer to a variance of 0 the average information vanishes


@dataclass(frozen=True)
class Pieces:
    """What of ℓ does not depend on σ, at one β and Λ."""

    factored: Factored
    squares: float  # q
    mean: Array  # Xᵀ W e, (p,)
    slopes: Tensor  # Q in φ
    products: Tensor  # e uᵀ in φ
    Q: tuple[Array | None, list[Array]]
    outer: tuple[Array | None, list[Array]]  # e uᵀ, summed over levels
    u: tuple[Array | None, Array]  # u at its mode: b = Λu
    e: tuple[Array | None, Array]  # ZᵀW(r − ZΛu)


class NormalMixed:
    """Of one batch of rows, with their weights."""

    def __init__(self, model: Mixed, columns: Columns, batch: Batch, weight: Tensor | None):
        self.model, self.columns = model, columns
        w = np.ones(len(batch)) if weight is None else weight.numpy()
        self.cross = columns.cross({(0, 0): w})
        self.X = columns.fixed[0][1] if columns.fixed else np.zeros((len(batch), 0))
        offset = batch.tensors.get(f"offset{model.regression.predictors[0].slot}")
        y = (batch["y"] if offset is None else batch["y"] - offset).numpy()
        self.begin = _least_squares(self.X, y, w, self.cross.fixed)
        y = y - self.X @ self.begin  # of order of the residuals, so that squares do not cancel
        self.first, self.rest = columns.transposed({0: w * y})
        self.yy, self.n = float(w @ y**2), float(w.sum())
        self.typical = model.moderate(columns)[1]
        self._last: tuple[Tensor, Pieces] | None = None
        self._of_sigma: tuple[float, tuple[float, float, float]] | None = None  # where it was asked last
        self._edges: dict[int, float] = {}  # curvatures in scales next to 0

    def begin_at(self, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """β by least squares, σ and φ by the method of moments; an effect without a positive variance begins with a tenth of φ."""
        found = moments(self.cross, self.first, self.rest, self.yy, self.n)
        if found is None or not found[0] > 0:
            return beta, phi
        model, order, ratio, at = self.model, self.model.order, found[1:] / found[0], 0
        beta, phi = beta.clone(), phi.clone()
        link = next(p.spec.link for p in model.regression.predictors if p.parameter == "scale")
        mean = model.regression.predictors[0]
        beta[mean.start : mean.start + mean.size] = torch.from_numpy(self.begin)
        beta[self.scale_place] = link(torch.tensor(math.sqrt(found[0]), dtype=torch.float64))
        for i in order.all:
            r, place = model.random[i], model.places[i]
            own = torch.from_numpy(ratio[at : at + r.structure.width])
            at += r.structure.width
            least = 0.1 * r.structure.factor(phi[place]).diagonal()
            scale = torch.maximum(own.clamp(min=0.0).sqrt(), least)
            phi[place] = r.structure.start(scale)
        return beta, phi

    # ---- the parts -----------------------------------------------------------------------------------------

    def pieces(self, beta: Tensor, phi: Tensor, *, slopes: bool = True) -> Pieces:
        mean = self.model.regression.predictors[0]
        key = torch.cat([beta[mean.start : mean.start + mean.size], phi])
        if self._last is not None and torch.equal(self._last[0], key):
            return self._last[1]
        delta = beta[mean.start : mean.start + mean.size].numpy() - self.begin
        model, columns, cross, m = self.model, self.columns, self.cross, self.columns.penalised
        scales, _ = model.scales(phi)
        whole = Factored(cross, scales, fixed=True)
        random = whole.without_fixed()
        # ZᵀWr and XᵀWr
        g0, grest = cross.times(
            None if self.first is None else np.zeros_like(self.first), np.concatenate([np.zeros(m), delta])
        )
        z0 = None if self.first is None or g0 is None else self.first - g0
        zrest = self.rest - grest
        rr = self.yy - 2 * float(delta @ self.rest[m:]) + float(delta @ grest[m:])
        c0, crest = scales.back(z0, zrest[:m], columns)
        u0, urest = random.solve(None if c0 is None else c0[..., None], crest[:, None])
        u0, urest = None if u0 is None else u0[..., 0], urest[:, 0]
        q = rr - float(crest @ urest) - (0.0 if c0 is None or u0 is None else float((c0 * u0).sum()))
        b0, brest = scales.times(u0, urest, columns)
        f0, frest = cross.times(b0, np.concatenate([brest, np.zeros(len(delta))]))
        e0 = None if z0 is None or f0 is None else z0 - f0
        erest = zrest - frest
        Q = (whole if model.reml else random).slopes()
        first = None if e0 is None or u0 is None else e0 @ u0.T
        pairs = []
        for t, at in zip(columns.terms[: len(columns.random)], columns.starts, strict=False):
            own = slice(at, at + t.size)
            pairs.append(erest[own].reshape(t.levels, t.width).T @ urest[own].reshape(t.levels, t.width))
        out = Pieces(
            whole,
            q,
            erest[m:],
            model.pulled(phi, *Q),
            model.pulled(phi, first, pairs),
            Q,
            (first, pairs),
            (u0, urest),
            (e0, erest[:m]),
        )
        self._last = (key, out)
        return out

    def expanded(self, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """ℓ and its gradient in (β, φ)."""
        try:
            part = self.pieces(beta, phi)
        except NotPositiveDefinite:
            return self._nowhere(beta, phi)
        mean, scale = self.model.regression.predictors[0], self.scale_place
        sigma, slope, _ = self._sigma(beta)
        if not 0 < sigma**4 < math.inf:  # a trial far out: its powers are beyond float64
            return self._nowhere(beta, phi)
        n, q = self.degrees, part.squares
        random, fixed = part.factored.log_determinant
        det = random + (fixed if self.model.reml else 0.0)
        value = -0.5 * (n * (LOG_2PI + 2 * math.log(sigma)) + det + q / sigma**2)
        gradient = torch.zeros(len(beta) + len(phi), dtype=torch.float64)
        gradient[mean.start : mean.start + mean.size] = torch.from_numpy(part.mean) / sigma**2
        gradient[scale] = (-n / sigma + q / sigma**3) * slope
        gradient[len(beta) :] = -part.slopes + part.products / sigma**2
        return torch.tensor(value, dtype=torch.float64), gradient

    def _nowhere(self, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Of a θ that has no likelihood."""
        nothing = torch.full((len(beta) + len(phi),), torch.nan, dtype=torch.float64)
        return torch.tensor(-math.inf, dtype=torch.float64), nothing

    @property
    def scale_place(self) -> int:
        return next(p.start for p in self.model.regression.predictors if p.parameter == "scale")

    def _sigma(self, beta: Tensor) -> tuple[float, float, float]:
        """σ, and its two derivatives in its coordinate of β."""
        at = beta[self.scale_place]
        if self._of_sigma is None or self._of_sigma[0] != float(at):
            spec = next(p.spec for p in self.model.regression.predictors if p.parameter == "scale")
            slope, bend = jacobian(spec.link.inverse, at), hessian(spec.link.inverse, at)
            self._of_sigma = float(at), (float(spec.link.inverse(at)), float(slope), float(bend))
        return self._of_sigma[1]

    @property
    def degrees(self) -> float:
        """Σ w, of REML less the fixed effects."""
        return self.n - (self.model.regression.predictors[0].size if self.model.reml else 0)

    def fixed_information(self, beta: Tensor, phi: Tensor) -> Tensor:
        """XᵀV⁻¹X/σ², (p, p)."""
        scales, _ = self.model.scales(phi)
        own = Factored(self.cross, scales, fixed=True).fixed_information
        return torch.from_numpy(own) / self._sigma(beta)[0] ** 2

    def information(self, beta: Tensor, phi: Tensor, steers: bool) -> Tensor:
        """−∂²ℓ/∂(β, φ)²: exact, or, next to a singular Λ, by differences of the gradient in σ and φ."""
        p = len(beta)
        try:
            part = self.pieces(beta, phi)
        except NotPositiveDefinite:
            return torch.full((p + len(phi), p + len(phi)), torch.nan, dtype=torch.float64)
        at_scales = self.model.scale_places()
        near = [i for i in at_scales if not float(phi[i].abs()) > INSIDE * float(self.typical[i])]
        J = self._of_coefficients(part, beta, phi)
        found = None
        if not near:
            found = self._steering(J, part, beta, phi) if steers else self._exact(J, part, beta, phi)
        elif steers and set(near) <= self.model.even_places():
            found = self._steering(J, part, beta, phi)
            self._at_edges(found, near, beta, phi)
        return self._by_differences(J, beta, phi, steers) if found is None else found

    def _at_edges(self, J: Tensor, near: list[int], beta: Tensor, phi: Tensor) -> None:
        """The rows of scales next to 0, where the average information vanishes."""
        p, theta = len(beta), torch.cat([beta, phi])
        for i in near:
            J[p + i], J[:, p + i] = 0.0, 0.0
            J[p + i, p + i] = edge_curvature(
                lambda t: self.expanded(t[:p], t[p:])[1], theta, p + i, float(self.typical[i]), self._edges
            )

    def _of_coefficients(self, part: Pieces, beta: Tensor, phi: Tensor) -> Tensor:
        """With β's block alone."""
        mean, p = self.model.regression.predictors[0], len(beta)
        own = slice(mean.start, mean.start + mean.size)
        J = torch.zeros(p + len(phi), p + len(phi), dtype=torch.float64)
        J[own, own] = torch.from_numpy(part.factored.fixed_information) / self._sigma(beta)[0] ** 2
        return J

    def _by_differences(self, J: Tensor, beta: Tensor, phi: Tensor, steers: bool) -> Tensor:
        p, theta = len(beta), torch.cat([beta, phi])
        size = torch.cat([torch.ones(p, dtype=torch.float64), torch.maximum(phi.abs(), self.typical)])
        rows = [self.scale_place, *range(p, p + len(phi))]
        rough = steers or self.columns.penalised > WIDE
        found = differences(lambda t: self.expanded(t[:p], t[p:])[1], theta, rows, size, rough)
        for j, row in zip(rows, found, strict=True):
            J[j], J[:, j] = -row, -row
        at = torch.tensor(rows)
        block = torch.stack([-row[at] for row in found])
        J[at[:, None], at] = (block + block.T) / 2
        self._last = None
        return J

    def _exact(self, J: Tensor, part: Pieces, beta: Tensor, phi: Tensor) -> Tensor | None:
        """−∂²ℓ from the same factor; None where Λ is near a singular one."""
        model, p = self.model, len(beta)
        changes = model.scale_slopes(phi)
        factored = part.factored if model.reml else part.factored.without_fixed()
        curved = determinant_curvature(factored, changes)
        if curved is None:
            return None
        sigma, slope, bend = self._sigma(beta)
        mean, scale, n = model.regression.predictors[0], self.scale_place, self.degrees
        own, q = slice(mean.start, mean.start + mean.size), part.squares
        of_phi, fixed, products = average_information(model, part.factored, part.u, part.e, phi)
        back = [c.back(part.e[0], part.e[1], self.columns) for c in changes]  # ∂Λ_aᵀ e
        inner = torch.tensor([[dot(a, b) for a in back] for b in back], dtype=torch.float64)
        J[p:, p:] = torch.from_numpy(curved) + (2 * of_phi - inner) / sigma**2
        J[p:, p:] += self._of_scales(part, phi, sigma)
        J[p:, own], J[own, p:] = fixed / sigma**2, fixed.T / sigma**2
        J[p:, scale] = J[scale, p:] = products * slope / sigma**3
        J[own, scale] = J[scale, own] = torch.from_numpy(part.mean) * (2 * slope / sigma**3)
        J[scale, scale] = (3 * q / sigma**4 - n / sigma**2) * slope**2 + (n / sigma - q / sigma**3) * bend
        return J

    def _of_scales(self, part: Pieces, phi: Tensor, sigma: float) -> Tensor:
        """⟨Q − e uᵀ/σ², ∂²Λ⟩: 0 where Λ is linear in φ."""
        model, order = self.model, self.model.order
        slopes, at = {}, 0
        for i in order.first:
            own = slice(at, at + model.random[i].structure.width)
            assert part.Q[0] is not None
            assert part.outer[0] is not None
            slopes[i] = (part.Q[0] - part.outer[0] / sigma**2)[own, own]
            at = own.stop
        each = [Q - o / sigma**2 for Q, o in zip(part.Q[1], part.outer[1], strict=True)]
        out = torch.zeros(len(phi), len(phi), dtype=torch.float64)
        for i, slope in {**slopes, **dict(zip(order.rest, each, strict=True))}.items():
            place, against = model.places[i], torch.from_numpy(np.ascontiguousarray(slope))
            factor = model.random[i].structure.factor
            out[place, place] = hessian(lambda t, f=factor, g=against: (f(t) * g).sum(), phi[place])
        return out

    def _steering(self, J: Tensor, part: Pieces, beta: Tensor, phi: Tensor) -> Tensor:
        """The average information in (σ, φ); in β and φ together the observed one."""
        p = len(beta)
        sigma, slope, _ = self._sigma(beta)
        mean = self.model.regression.predictors[0]
        own, scale = slice(mean.start, mean.start + mean.size), self.scale_place
        excess = max(self.degrees - part.squares / sigma**2, 0.0)
        J[scale, scale] = (2 * part.squares / sigma**4 + excess / sigma**2) * slope**2
        of_phi, fixed, products = average_information(
            self.model, part.factored, part.u, part.e, phi, part.slopes * sigma
        )
        J[p:, p:] = of_phi / sigma**2
        J[p:, own], J[own, p:] = fixed / sigma**2, fixed.T / sigma**2
        J[p:, scale] = J[scale, p:] = products * slope / sigma**3
        return J

    # ---- what is asked of the random effects ---------------------------------------------------------------

    def modes(self, beta: Tensor, phi: Tensor) -> tuple[tuple[Array | None, Array], Factored, float]:
        """u at its mode, b = Λu; the factor of H, whose inverse times σ² is u's covariance; and σ."""
        part = self.pieces(beta, phi)
        return part.u, part.factored, self._sigma(beta)[0]


def edge_curvature(
    gradient: Callable[[Tensor], Tensor], theta: Tensor, j: int, size: float, known: dict[int, float]
) -> float:
    """−∂²ℓ/∂φ_j² next to 0, of which ℓ is an even function: −g_j/φ_j; and what was found there before, where φ_j is 0."""
    at = theta
    if abs(float(theta[j])) < FLAT * size:
        if j in known:
            return known[j]
        at = theta.clone()
        at[j] = CLOSE * size
    known[j] = -float(gradient(at)[j] / at[j])
    return known[j]


def differences(
    gradient: Callable[[Tensor], Tensor], theta: Tensor, which: list[int], size: Tensor, rough: bool
) -> list[Tensor]:
    """∂g/∂θ_j of each j: central differences, of second order if rough, else of fourth."""
    out = []
    for j in which:
        h = (NEAR if rough else FAR) * float(size[j])
        step = torch.zeros_like(theta)
        step[j] = h
        near = (gradient(theta + step) - gradient(theta - step)) / (2 * h)
        if not rough:
            far = (gradient(theta + 2 * step) - gradient(theta - 2 * step)) / (4 * h)
            near = (4 * near - far) / 3
        out.append(near)
    return out


def _least_squares(X: Array, y: Array, w: Array, XtX: Array) -> Array:
    """Where β begins: refined once, so that what is left of y is free of X."""
    if not X.shape[1]:
        return np.zeros(0)
    beta = np.zeros(X.shape[1])
    for _ in range(2):
        beta = beta + np.linalg.lstsq(XtX, X.T @ (w * (y - X @ beta)), rcond=None)[0]
    return beta
