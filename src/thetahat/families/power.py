"""log ∫ p(y | θ)^(1 + β) dy where there is no formula: a sum over counts, or the trapezoidal rule in the
coordinate of `integration`.

The nodes are placed at θ and then held, so that the value is differentiated through p alone: the rule
converges as fast for the derivatives as for the integral. Where a density has an edge, the integral is taken
over the quantile instead: ∫₀¹ p(Q(u))^β du.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.special import ndtr

from ..errors import BadArgument
from .derivatives import gradient
from .integration import BLOCK, REACH, TAIL, Rows, inside_of, mapping, range_of, reach, scale_of

if TYPE_CHECKING:
    from .base import Family

STEPS, MOST = 64, 4096  # nodes of the first rule, and of the last
# by what the logarithm may change when the step is halved: its own error is then the square of that
SETTLED = 1e-10
STEP = 1 / 32  # of the rule in z
CELLS = 4 * BLOCK  # (row, count) pairs that are added up
# counts of a row beyond which a mass is so wide that every k-th does: it then spans 25 standard deviations
WIDE = 1024


def log_power_integral(
    family: Family, beta: float, parameters: Sequence[Tensor], extras: Mapping[str, Tensor]
) -> Tensor:
    """log ∫ p^(1 + β) dy of each row, (n,), twice differentiable in the parameters.

    Parameters
    ----------
    family, parameters, extras
        p of each row, on the parameters' own scales, each (n,) or (1,)
    beta
        β > 0

    Returns
    -------
    Tensor
        (n,); ∞ where a mass is so wide that it is not added up

    Raises
    ------
    BadArgument
        the integral does not settle

    Examples
    --------
    >>> from thetahat.families import Weibull
    >>> two = torch.tensor([2.0], dtype=torch.float64)
    >>> round(log_power_integral(Weibull(), 0.5, [two, two], {}).item(), 10) == round(Weibull().log_power_integral(0.5, two, two).item(), 10)
    True
    """
    wide = torch.broadcast_tensors(*parameters, *(v.to(torch.float64) for v in extras.values()))
    theta, k = wide[: len(parameters)], len(parameters)
    # rows that are alike are integrated once, with derivatives; each row's own value is its second-order
    # expansion, exact where it stands
    table, back = torch.unique(torch.stack([t.detach() for t in wide]), dim=1, return_inverse=True)
    given = dict(zip(extras, table[k:], strict=True))
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in theta)):
        return _integral(family, beta, list(table[:k]), given)[back]
    with torch.enable_grad():
        leaves = [t.clone().requires_grad_() for t in table[:k]]
        value = _integral(family, beta, leaves, given)
        first = gradient(value.sum(), leaves, create_graph=True)
        second = [gradient(g.sum(), leaves, create_graph=False) for g in first]
    step = [t - t.detach() for t in theta]
    out = value.detach()[back]
    for a in range(k):
        bend = sum(second[a][b].detach()[back] * step[b] for b in range(k))
        out = out + step[a] * (first[a].detach()[back] + 0.5 * bend)
    return out


def _integral(family: Family, beta: float, theta: Sequence[Tensor], extras: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        eta = [p.link(t.detach()) for p, t in zip(family.parameters.values(), theta, strict=True)]
        nodes = _nodes(Rows(family, eta, dict(extras), []), beta)
    if nodes is None:  # the iterations turn back from where no value is to be had
        return math.inf + 0 * sum(t.sum() for t in theta) + 0 * theta[0]
    y, log_weight = nodes
    value = _log_sum(family, beta, y, log_weight, theta, extras)
    if family.measure == "mixed":
        value = torch.logaddexp(
            value, (1 + beta) * family.log_prob(torch.zeros_like(theta[0]), *theta, **extras)
        )
    return value


def _log_sum(
    family: Family,
    beta: float,
    y: Tensor,
    log_weight: Tensor,
    theta: Sequence[Tensor],
    extras: Mapping[str, Tensor],
) -> Tensor:
    """log Σ_j w_j p(y_j)^(1 + β), y and log w of (n, m)."""

    def spread(t: Tensor) -> Tensor:
        return t[:, None].expand(y.shape).reshape(-1)

    log_p = family.log_prob(
        y.reshape(-1), *map(spread, theta), **{n: spread(v) for n, v in extras.items()}
    ).view(y.shape)
    return torch.logsumexp((1 + beta) * log_p + log_weight, 1)


def _nodes(rows: Rows, beta: float) -> tuple[Tensor, Tensor] | None:
    """y and log w, (n, m), of a rule that has settled."""
    family = rows.family
    if family.measure == "mass":
        return _counts(rows)
    found = _by_density(rows, beta)
    if found is None and family.has("quantile"):
        found = _by_quantile(rows, beta)
    if found is None:
        raise BadArgument(
            f"∫ p^{1 + beta:g} dy of {family} could not be found numerically, and it has no formula."
        )
    return found


def _counts(rows: Rows) -> tuple[Tensor, Tensor] | None:
    """Every count that matters; of a wide mass that begins above the support's end every k-th, k times (the
    trapezoidal rule).

    None: they are too many to be added up.
    """
    support = rows.family.support
    if math.isfinite(support.low) and math.isfinite(support.high):
        low, length = (
            torch.full_like(rows.eta[0], support.low),
            torch.full_like(rows.eta[0], support.high - support.low + 1),
        )
    else:
        low, length = _span(rows)
    stride = torch.where(low > support.low, torch.ceil(length / WIDE), 1.0)
    n = int((length / stride).max()) + 1
    if n * len(low) > CELLS:
        return None
    y = low[:, None] + stride[:, None] * torch.arange(n, dtype=low.dtype)
    inside = _inside(rows, y)
    return torch.where(inside, y, low[:, None]), torch.where(inside, torch.log(stride)[:, None], -math.inf)


def _span(rows: Rows) -> tuple[Tensor, Tensor]:
    """Where each row's sum begins and over how many counts it goes: from the mean outwards until p is TAIL
    nats below what it is there."""
    try:
        middle, spread = torch.floor(rows.of("expectation")), rows.of("variance").sqrt()
    except BadArgument:
        return reach(rows)
    peak = rows.scores(middle[:, None], order=0)[0][:, 0]
    if not bool((torch.isfinite(middle) & torch.isfinite(spread) & torch.isfinite(peak)).all()):
        return reach(rows)
    low, ends = rows.family.support.low, []
    for sign in (-1.0, 1.0):
        half = torch.ceil(8 * spread + 16)
        for _ in range(40):
            y = (middle + sign * half).clamp(min=low)
            near = (rows.scores(y[:, None], order=0)[0][:, 0] > peak - TAIL) & (y > low)
            if not bool(near.any()):
                break
            half = torch.where(near, 2 * half, half)
        ends.append(y)
    return ends[0], ends[1] - ends[0] + 1


def _by_density(rows: Rows, beta: float) -> tuple[Tensor, Tensor] | None:
    center, width = scale_of(rows)
    low, high, falls = range_of(rows, center, width, 1 + beta)
    if not bool(falls.all()):
        return None
    theta, before, m = rows.family.natural(rows.eta), None, STEPS
    while m <= MOST:
        h = (high - low) / m
        t = low[:, None] + h[:, None] * (torch.arange(m, dtype=torch.float64) + 0.5)
        y, jacobian = mapping(rows.family, center[:, None], width[:, None])(t)
        inside = _inside(rows, y)
        middle = y[:, m // 2, None]
        y, log_weight = (
            torch.where(inside, y, middle),
            torch.where(inside, jacobian + torch.log(h)[:, None], -math.inf),
        )
        now = _log_sum(rows.family, beta, y, log_weight, theta, rows.extras)
        if before is not None and bool(((now - before).abs() <= SETTLED).all()):
            return y, log_weight
        before, m = now, 2 * m
    return None


def _by_quantile(rows: Rows, beta: float) -> tuple[Tensor, Tensor] | None:
    """dy = du / p(Q(u)), u = Φ(z). None where the ends still matter: the integral may diverge there."""
    z = torch.arange(-REACH + STEP / 2, REACH, STEP, dtype=torch.float64)
    support = rows.family.support
    y = rows.of("quantile", ndtr(z).expand(len(rows), -1)).clamp(
        inside_of(support.low, 1.0), inside_of(support.high, -1.0)
    )
    log_p, _ = rows.scores(y, order=0)
    inside = _inside(rows, y) & torch.isfinite(log_p)
    log_weight = -0.5 * z * z + math.log(STEP / math.sqrt(2 * math.pi)) - log_p
    y, log_weight = (
        torch.where(inside, y, y[:, len(z) // 2, None]),
        torch.where(inside, log_weight, -math.inf),
    )
    terms = torch.where(inside, (1 + beta) * log_p + log_weight, -math.inf)
    ends = torch.maximum(terms[:, 0], terms[:, -1])
    settled = ends < torch.logsumexp(terms, 1) + math.log(SETTLED)
    return (y, log_weight) if bool(settled.all()) else None


def _inside(rows: Rows, y: Tensor) -> Tensor:
    wide = {n: v[:, None].expand(y.shape) for n, v in rows.extras.items()}
    return rows.family.in_support(y, **wide) & torch.isfinite(y)
