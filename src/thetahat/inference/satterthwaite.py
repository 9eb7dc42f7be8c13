"""The covariance of a normal mixed model's fixed effects given its variances, and Satterthwaite's degrees of freedom.

    Var β̂ = C(σ, φ) = σ²(XᵀV⁻¹X)⁻¹,      df of lᵀβ̂ = 2 (lᵀCl)² / (gᵀ A g),      g = ∂(lᵀCl)/∂(σ, φ),   A = Var(σ̂, φ̂)

Beside smooth terms the normal distribution is taken. A is the block of (σ, φ) of the inverse information, β profiled out.

Source: Satterthwaite (1946); Fai and Cornelius (1996), Approximate F-tests of multiple degree of freedom hypotheses;
Kuznetsova, Brockhoff and Christensen (2017), lmerTest, §2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument, FlatDirection
from ..likelihood import Information, Objective
from ..models.information import Factor
from ..models.mixed import Mixed
from ..models.normal_mixed import differences


def applies(objective: Objective) -> bool:
    """Whether the objective is that of a normal mixed model alone."""
    model = objective.model
    plain = len(objective.terms) == 1 and not objective.priors and objective.terms[0].weights is None
    return isinstance(model, Mixed) and model.normal and plain


@dataclass(frozen=True)
class Freedom:
    """∂C/∂(σ, φ), (k, p, p), A (k, k), and C (p, p), with the places of β in θ."""

    slopes: Tensor
    spread: Tensor
    C: Tensor
    places: slice
    size: int

    def of(self, G: Tensor) -> Tensor:
        """Degrees of freedom of each row of G (m, size); ∞ where it is no function of β alone."""
        L = G[:, self.places].to(torch.float64)
        outside = torch.ones(self.size, dtype=torch.bool)
        outside[self.places] = False
        variance = ((L @ self.C) * L).sum(1)
        g = torch.einsum("mi,kij,mj->mk", L, self.slopes, L)
        found = 2 * variance**2 / ((g @ self.spread) * g).sum(1).clamp(min=1e-300)
        lost = (G[:, outside] != 0).any(1) | (variance <= 0) | (found > 1e9)
        return torch.where(lost, math.inf, found)


def conditional(objective: Objective) -> tuple[Factor, Freedom]:
    """The factor of the information with β's cross block 0, and the degrees of freedom.

    Raises
    ------
    BadArgument
        the model is not a normal mixed model
    FlatDirection
        the information is not positive definite
    """
    if not applies(objective):
        raise BadArgument("covariance='conditional' is that of a normal mixed model. Use 'observed'.")
    model = objective.model
    theta, mean = objective.theta, model.regression.predictors[0]
    own = slice(mean.start, mean.start + mean.size)
    J = objective.taylor(order=2).information
    assert J is not None
    A = J.A.clone()
    others = torch.tensor([j for j in range(objective.size) if not own.start <= j < own.stop])
    A[own, others], A[others, own] = 0.0, 0.0
    factor = Information(A).factor()
    if factor is None:
        raise FlatDirection(
            "the information is not positive definite at these estimates, so they have no covariance. Read fit.certificate."
        )
    slopes, C = derivatives(objective) if objective.remembered is None else objective.remembered.freedom
    profiled = (
        J.factor()
    )  # the block of J⁻¹: β profiled out, as its correlation with (σ, φ) is 0 in balanced data alone
    spread = (factor if profiled is None else profiled).inverse()[others[:, None], others]
    if any(
        r.smooth for r in model.random
    ):  # whose variances say how a curve bends, not how many groups there are
        spread = torch.zeros_like(spread)
    freedom = Freedom(slopes.view(-1, mean.size, mean.size), spread, C, own, len(theta))
    return factor, freedom


def derivatives(objective: Objective) -> tuple[Tensor, Tensor]:
    """∂C/∂(σ, φ), (k, p²), and C, (p, p)."""
    model, theta = objective.model, objective.theta
    p, mean = len(model.coefficients), model.regression.predictors[0]
    own = range(mean.start, mean.start + mean.size)
    others = [j for j in range(objective.size) if j not in own]
    batch = next(iter(objective.terms[0].source.batches(model)))
    evaluator = model.evaluator(batch, objective.terms[0].weight(batch))

    def covariance(t: Tensor) -> Tensor:
        out: Tensor = torch.linalg.inv(evaluator.fixed_information(t[:p], t[p:])).reshape(-1)
        return out

    size = torch.ones(len(theta), dtype=torch.float64)
    size[p:] = torch.maximum(theta[p:].abs(), model.moderate(model.columns(batch))[1])
    slopes = differences(covariance, theta, others, size, True)
    return torch.stack(slopes), covariance(theta).view(mean.size, mean.size)
