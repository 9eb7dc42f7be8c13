"""Where the scales of smooth terms begin: generalised Fellner–Schall steps.

    φ_m² ← φ_m² B_m / A_m,      A_m = φ_m ∂(½ log det H)/∂φ_m,      B_m = Σ_j û_j² ∂log Λ_jj/∂log φ_m / σ²

A_m is the part of a term's columns that the data determine (of one penalty its effective degrees of freedom), B_m what
its coefficients spend: both are equal at a maximum, but for how H moves with û. A step never leaves φ > 0, costs one
factor of H, and comes near the maximum from far away, where Newton's method in φ has long plateaus. Between two of them û
(and the fixed effects) make one step of penalised, iteratively reweighted least squares. It is a start: the maximum is
found, and certified, by Newton's method.

Source: Wood and Fasiolo (2017), A generalized Fellner–Schall method for smoothing parameter optimization; Wood, Li,
Shaddick and Augustin (2017), Generalized additive models for gigadata, for the steps in turn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .elimination import Array, Factored, NotPositiveDefinite

if TYPE_CHECKING:
    from .laplace import Laplace
    from .normal_mixed import NormalMixed
    from .random_effects import RandomEffects

STEPS, STEADY = 30, 0.03  # at most so many; the change of log φ that ends them
GONE, TINY = 0.01, 1e-4  # of a moderate scale: below the first, and falling, a term begins at the second


class Scaling:
    """φ on its way: the terms that still change, and the next step."""

    def __init__(self, model: RandomEffects, phi: Tensor, typical: Tensor):
        self.model, self.phi, self.typical = model, phi.clone(), typical
        self.moving = torch.ones(len(phi), dtype=torch.bool)
        self.change = math.inf

    def step(self, factored: Factored, u: Array, variance: float) -> bool:
        """One step of φ; whether it was the last."""
        model, phi, columns = self.model, self.phi, factored.columns
        scales, _ = model.scales(phi)
        inside = factored if model.reml else factored.without_fixed()
        spent, determined = [], phi * model.pulled(phi, *inside.slopes())
        for t, at, lam in zip(columns.random, columns.starts, scales.rest, strict=False):
            own = u[at : at + t.size].reshape(t.levels, t.width)
            spent.append((own.T @ own) / np.where(np.diag(lam) > 0, np.diag(lam), np.inf)[:, None])
        used = phi * model.pulled(phi, None, spent) / variance
        ratio = (used / determined.clamp(min=1e-300)).clamp(1e-4, 1e4).sqrt()
        ratio = torch.where(self.moving & torch.isfinite(ratio), ratio, 1.0)
        self.phi = phi * ratio
        gone = self.moving & (phi < GONE * self.typical) & (ratio < 0.95)  # and not by one long step
        self.phi = torch.where(gone, TINY * self.typical, self.phi)
        self.moving &= ~gone
        self.change = float(ratio.log().abs().max())
        return self.change < STEADY


def near_normal(part: NormalMixed, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """β, σ and φ near the maximum of a normal response: û, β and σ are exact at each φ."""
    model = part.model
    mean, scale = model.regression.predictors[0], part.scale_place
    own = slice(mean.start, mean.start + mean.size)
    link = next(p.spec.link for p in model.regression.predictors if p.parameter == "scale")
    begun, found = (beta, phi), Scaling(model, phi, part.typical)
    beta = beta.clone()
    beta[own] = torch.from_numpy(part.begin)
    try:
        for _ in range(STEPS):
            at = part.pieces(beta, found.phi)
            L = at.factored.schur.fixed_factor
            delta = np.linalg.solve(L.T, np.linalg.solve(L, at.mean)) if len(L) else np.zeros(0)
            beta[own] += torch.from_numpy(delta)
            at = part.pieces(beta, found.phi)
            variance = at.squares / part.degrees
            if not variance > 0:
                return begun
            beta[scale] = link(torch.tensor(math.sqrt(variance), dtype=torch.float64))
            if found.step(at.factored, at.u[1], variance):
                break
    except NotPositiveDefinite:
        return begun
    return beta, found.phi


def near_laplace(part: Laplace, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """β and φ near the maximum of Laplace's approximation; constants of the family stay as they are."""
    model, columns = part.model, part.columns
    m, found = columns.penalised, Scaling(model, phi, part.typical)
    base = beta.clone()
    base[part.places] = 0.0
    etas = part.rows.base(base)
    rest = np.concatenate([np.zeros(m), beta[part.places].numpy()])
    try:
        scales, _ = model.scales(found.phi)
        now = part.at(base, etas, scales, None, rest, 2)
        for _ in range(STEPS):
            factored, _ = part.factor(now, scales, True)
            _, g = part.gradient(now, scales, None, rest, True)
            _, d = factored.solve(None, g[:, None])
            t, moved, new = 1.0, rest, now
            for _ in range(12):
                moved = rest + t * d[:, 0]
                new = part.at(base, etas, scales, None, moved, 2)
                if math.isfinite(new.value) and new.value >= now.value - 1e-9 * abs(now.value):
                    break
                t *= 0.5
            else:
                break
            rest = moved
            ended = found.step(factored, rest[:m], 1.0) and t == 1.0
            b = scales.rest_times(rest[:m], columns)
            scales, _ = model.scales(found.phi)
            rest = np.concatenate([b / _diagonal(scales.rest_times(np.ones(m), columns)), rest[m:]])
            now = part.penalised(new, None, rest)  # the same b, under the new φ
            if ended:
                break
    except NotPositiveDefinite:
        return beta, phi
    beta = beta.clone()
    beta[part.places] = torch.from_numpy(rest[m:])
    part.warm(None, rest)
    return beta, found.phi


def _diagonal(values: Array) -> Array:
    return np.where(values > 0, values, np.inf)
