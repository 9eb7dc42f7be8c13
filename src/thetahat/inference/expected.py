"""Fisher's expected information of a regression.

    I = Σ_i w_i X_iᵀ E[s_i s_iᵀ] X_i,      s_i = ∂ log p(Y | η_i)/∂η,  Y ~ p(· | η_i)

E[s sᵀ] = −E[∂s/∂η] (Bartlett's second identity), and is positive semidefinite by construction. For a mass it is the sum over the
support, out to where the tail is below rounding. For a density it is ∫₀¹ s sᵀ(Q(u)) du with u = Φ(z), by the trapezoidal rule in z:
the integrand then falls like φ(z) at both ends, where the rule converges faster than any power of its step. A family with an atom at 0
adds it, and integrates over the rest.

A quantile that its family finds by inverting a cdf makes this slow where rows differ (Tweedie most: its cdf is a series of its own).

For a canonical link the curvature is free of y, and the expected information is the observed one.

Source: Efron and Hinkley (1978), Assessing the accuracy of the maximum likelihood estimator: observed versus expected Fisher information;
Trefethen and Weideman (2014), The exponentially convergent trapezoidal rule.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.special import ndtr

from ..data.batch import Batch
from ..errors import BadArgument
from ..families.base import Family
from ..families.censored import Censored
from ..likelihood import Information, Objective, total
from ..models.regression import Regression

BLOCK = 2**18  # (row, y) pairs evaluated at once
STEP, REACH = 1 / 8, 8.0  # of the rule in z: P(|Z| > 8) is 10⁻¹⁵
KINKED = 1 / 512  # the step where a family is not smooth: across a kink the rule converges but as its square

Pairs = dict[tuple[int, int], Tensor]


@torch.no_grad()
def expected(objective: Objective) -> Information:
    """I at the objective's θ, priors' curvature included.

    Raises
    ------
    BadArgument : the model is not a Regression, or its family cannot say how y is distributed
    """
    model = objective.model
    if not isinstance(model, Regression) or len(objective.terms) != 1:
        raise BadArgument(
            f"the expected information is that of a regression; the model is a {type(model).__name__}. Use covariance='observed' or 'sandwich'."
        )
    if isinstance(model.family, Censored):
        raise BadArgument(
            f"{model.family} does not say when a row is censored, so nothing can be averaged over. Use covariance='observed'."
        )
    term = objective.terms[0]

    def of(batch: Batch) -> Information:
        weight = term.weight(batch)
        mean = outer_products(model, batch)
        return model.assemble(batch, {ab: m if weight is None else m * weight for ab, m in mean.items()})

    out = total(of, term.source, model)
    if objective.priors:
        prior = Objective([], objective.priors).taylor(order=2).information
        assert prior is not None
        out = out + prior
    return out


@torch.no_grad()
def outer_products(model: Regression, batch: Batch) -> Pairs:
    """E[s_a s_b] of each row, a ≤ b over the estimated parameters, each (n,). Rows with equal η are evaluated once."""
    eta = [e.expand(len(batch)) for e in model.eta(batch, model.coefficients.detach())]
    extras = model.extras(batch)
    table, back = torch.unique(torch.stack([*eta, *extras.values()]), dim=1, return_inverse=True)
    free = [j for j, name in enumerate(model.family.parameters) if name not in model.fixed]
    k = len(eta)
    given = dict(zip(extras, table[k:], strict=True))
    found = _mean(model.family, list(table[:k]), given, free)
    return {ab: value[back] for ab, value in found.items()}


def _mean(family: Family, eta: list[Tensor], extras: dict[str, Tensor], free: list[int]) -> Pairs:
    support, measure = family.support, family.measure
    if measure == "mass" and math.isfinite(support.low) and math.isfinite(support.high):
        n = int(support.high - support.low) + 1
        return _sum(family, eta, extras, free, torch.full_like(eta[0], support.low), n)
    if type(family).quantile is Family.quantile:
        raise BadArgument(f"{family} has no quantile, by which an expectation could be taken. Use covariance='observed'.")
    if measure == "mass":
        low, n = _reach(family, eta, extras)
        return _sum(family, eta, extras, free, low, n)
    return _integral(family, eta, extras, free, atom=measure == "mixed")


def _reach(family: Family, eta: list[Tensor], extras: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Where each row's sum begins, and how many counts the widest needs: twice as far from the median as the 10⁻¹⁰ quantiles are."""
    theta = family.natural(eta)
    low, middle, high = (family.quantile(torch.full_like(eta[0], q), *theta, **extras) for q in (1e-10, 0.5, 1 - 1e-10))
    first = (middle - 2 * (middle - low) - 4).clamp(min=family.support.low)
    return first, int((middle + 2 * (high - middle) + 16 - first).max()) + 1


def _sum(family: Family, eta: list[Tensor], extras: dict[str, Tensor], free: list[int], low: Tensor, n: int) -> Pairs:
    out = _zeros(eta[0], free)
    width = max(1, BLOCK // len(low))
    for start in range(0, n, width):
        y = low[:, None] + torch.arange(start, min(start + width, n), dtype=low.dtype)
        y = y.clamp(max=family.support.high)
        log_p, s = _scores(family, y, eta, extras, free)
        _add(out, s, torch.exp(log_p))
    return out


def _integral(family: Family, eta: list[Tensor], extras: dict[str, Tensor], free: list[int], atom: bool) -> Pairs:
    out, support = _zeros(eta[0], free), family.support
    at_zero = torch.zeros_like(eta[0])
    if atom:
        zero = torch.zeros(len(at_zero), 1, dtype=at_zero.dtype)
        log_p, s = _scores(family, zero, eta, extras, free)
        at_zero = torch.exp(log_p)[:, 0]
        _add(out, s, at_zero[:, None])
    step = STEP if family.smooth else KINKED
    z = torch.arange(-REACH + step / 2, REACH, step, dtype=at_zero.dtype)  # midpoints: a kink at the median is not a node
    u, weight = ndtr(z), torch.exp(-0.5 * z * z) * (step / math.sqrt(2 * math.pi))
    theta = family.natural(eta)
    for rows in torch.arange(len(at_zero)).split(max(1, BLOCK // len(z))):
        own = {name: value[rows][:, None] for name, value in extras.items()}
        level = at_zero[rows][:, None] + (1 - at_zero[rows][:, None]) * u
        y = family.quantile(level, *[t[rows][:, None].expand(level.shape) for t in theta], **own)
        y = y.clamp(_inside(support.low, 1.0), _inside(support.high, -1.0))  # a quantile may round to the end of the support
        _, s = _scores(family, y, [e[rows] for e in eta], {n: v[rows] for n, v in extras.items()}, free)
        part = _zeros(at_zero[rows], free)
        _add(part, s, weight * (1 - at_zero[rows][:, None]))
        for ab, value in part.items():
            out[ab][rows] += value
    return out


def _inside(end: float, towards: float) -> float:
    """The representable number next to an end of the support, on its inner side."""
    return end if math.isinf(end) else max(math.nextafter(end, towards * math.inf), 2.3e-308 if end == 0 else -math.inf)


def _scores(
    family: Family, y: Tensor, eta: list[Tensor], extras: dict[str, Tensor], free: list[int]
) -> tuple[Tensor, list[Tensor]]:
    """log p and ∂ log p/∂η_a at y (rows, m), for η (rows,)."""

    def spread(t: Tensor) -> Tensor:
        return t[:, None].expand(y.shape).reshape(-1)

    log_p, score, _ = family.derivatives(y.reshape(-1), [spread(e) for e in eta], {n: spread(v) for n, v in extras.items()}, 1)
    return log_p.expand(y.numel()).view(y.shape), [score[j].expand(y.numel()).view(y.shape) for j in free]


def _zeros(like: Tensor, free: list[int]) -> Pairs:
    k = range(len(free))
    return {(a, b): torch.zeros(len(like), dtype=torch.float64) for a in k for b in k if a <= b}


def _add(out: Pairs, s: list[Any], weight: Tensor) -> None:
    for (a, b), value in out.items():
        value += torch.where(weight > 0, s[a] * s[b] * weight, 0.0).sum(1)  # where p = 0 the score is not defined, and not needed
