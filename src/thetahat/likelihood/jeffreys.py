"""Jeffreys' prior of a regression, p(θ) ∝ |I(θ)|^½: Firth's penalty, under which separated rows have a maximum.

    log p(θ) = ½ log |XᵀWX|,      W = diag(c w(η)),  w = (dE[y]/dη)² / Var[y]

Expected information, in which no y stands. With h = diag(X I⁻¹ Xᵀ), w′ and w″ the derivatives in η, and T_k = Xᵀ diag(c w′ x_k) X,

    gradient     ½ Xᵀ(c w′ h)
    curvature    −½ [Xᵀ diag(c w″ h) X − tr(I⁻¹ T_k I⁻¹ T_l)]_kl

Of a logistic regression on one 2 × 2 table it adds ½ to each cell.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family
from ..families.bernoulli import Bernoulli, Binomial
from ..families.gamma import Exponential
from ..families.links import Logit
from ..families.poisson import Poisson
from ..models.information import Information
from ..models.regression import NARROW, Regression
from ..models.taylor import Taylor
from .total import total

FAMILIES = (Bernoulli, Binomial, Poisson, Exponential)  # one parameter; w is Fisher's information of η
MOST = 200  # coefficients, of which p³ sums are held


def check(model: nn.Module) -> Regression:
    """The regression whose information it is.

    Raises
    ------
    BadArgument
        another model, another family, or too many coefficients
    """
    if not isinstance(model, Regression) or type(model.family) not in FAMILIES or len(model.predictors) != 1:
        what = str(model.family) if isinstance(model, Regression) else type(model).__name__
        raise BadArgument(
            f"th.priors.Jeffreys() is of a regression with one parameter, bernoulli, binomial, poisson or exponential; received "
            f"{what}. Accepted elsewhere: th.priors.Normal(scale)."
        )
    wide = any(levels > NARROW for _, _, levels in model.predictors[0].terms)
    if model.predictors[0].size > MOST or wide:
        raise BadArgument(
            f"th.priors.Jeffreys() holds p³ sums of p coefficients, at most {MOST}, and of categories of at most {NARROW} levels; "
            f"the model has {model.predictors[0].size} coefficients. Accepted: th.priors.Normal(scale)."
        )
    return model


def taylor(model: nn.Module, source: Source, order: int) -> Taylor:
    """log p(θ) up to a constant, its gradient, and its information, where the model stands."""
    regression = check(model)
    p = regression.predictors[0].size

    def summed(batch: Batch) -> Tensor:
        X = regression.predictors[0].rows(batch, torch.float64)
        w = weights(regression, batch, 0)[0]
        return (X * (batch.count * w)) @ X.T

    I = total(summed, source, regression)
    L, info = torch.linalg.cholesky_ex(I)
    if int(info) != 0 or not bool(torch.isfinite(L).all()):
        zero = torch.zeros(p, dtype=torch.float64)
        return Taylor(
            torch.tensor(-math.inf, dtype=torch.float64),
            zero,
            Information(torch.zeros(p, p, dtype=torch.float64)),
        )

    def sums(batch: Batch) -> Tensor:
        X = regression.predictors[0].rows(batch, torch.float64)
        w1, w2 = (batch.count * w for w in weights(regression, batch, order)[1:])
        Z = torch.linalg.solve_triangular(L, X, upper=False)  # (p, n): h = Σ z²
        h = (Z**2).sum(0)
        parts = [0.5 * X @ (w1 * h)]
        if order > 1:
            parts.append(((X * (w2 * h)) @ X.T).reshape(-1))
            parts.append(_third(X * w1, Z).reshape(-1))
        return torch.cat(parts)

    found = total(sums, source, regression)
    information = None
    if order > 1:
        bend, T = found[p : p + p * p].reshape(p, p), found[p + p * p :].reshape(p, p * p)
        information = Information(-0.5 * (bend - T @ T.T))
    return Taylor(L.diagonal().log().sum(), found[:p], information)


def _third(X: Tensor, Z: Tensor) -> Tensor:
    """Σ_i x_i z_i z_iᵀ, (p, p, p), a block of rows at a time."""
    p, n = X.shape
    out, step = X.new_zeros(p, p * p), max(1, 2**22 // (p * p))
    for at in range(0, n, step):
        z = Z[:, at : at + step]
        out += X[:, at : at + step] @ (z[:, None] * z[None]).reshape(p * p, -1).T
    return out


def weights(model: Regression, batch: Batch, order: int) -> list[Tensor]:
    """w(η) and its first derivatives, each (n,), the count not in it; 0 beyond the order."""
    with torch.enable_grad():
        eta = (
            model.eta(batch, model.coefficients.detach())[0]
            .detach()
            .expand(len(batch))
            .clone()
            .requires_grad_()
        )
        w = _fisher(model.family, eta, model.extras(batch))
        first = _slope(w, eta) if order > 0 else torch.zeros_like(eta)
        second = _slope(first, eta) if order > 1 else torch.zeros_like(eta)
    return [w.detach(), first.detach(), second.detach()]


def _slope(value: Tensor, at: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(at)
    found = torch.autograd.grad(value.sum(), at, create_graph=True, allow_unused=True)[0]
    return torch.zeros_like(at) if found is None else found


def _fisher(family: Family, eta: Tensor, extras: dict[str, Tensor]) -> Tensor:
    """w(η): of a logit μ(1 − μ) by both tails, which neither rounds away."""
    link = next(iter(family.parameters.values())).link
    if isinstance(link, Logit):
        w = torch.sigmoid(eta) * torch.sigmoid(-eta)
        return w * extras["trials"] if "trials" in extras else w
    mean = family.natural([eta])
    slope = _slope(family.expectation(*mean, **extras), eta)
    return slope**2 / family.variance(*mean, **extras)
