"""Where a distribution is, row by row: the values of a count that matter, and a coordinate in which a density
can be integrated.

A density is integrated in a coordinate t in which it falls off exponentially at both ends, where the
trapezoidal rule converges faster than any power of its step:

    y = c + b·sinh t      on the real line
    y = low + e^(c + bt)                         on a half-line
    y = low + (high − low)·σ(c + bt)             on an interval

c and b from the mean and the variance, or the quartiles where those do not exist.

References
----------
Trefethen and Weideman (2014), The exponentially convergent trapezoidal rule, SIAM Review 56.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import BadArgument

if TYPE_CHECKING:
    from .base import Family

BLOCK = 2**18  # (row, y) pairs evaluated at once
TAIL = 40.0  # nats below its peak at which a density in t is cut off
REACH = 8.0  # of a rule in z, u = Φ(z): P(|Z| > 8) is 10⁻¹⁵

Pairs = dict[tuple[int, int], Tensor]


@dataclass(frozen=True)
class Rows:
    """Rows of linear predictors and extras, each (n,), and the parameters (by position) whose scores are
    wanted."""

    family: Family
    eta: list[Tensor]
    extras: dict[str, Tensor]
    free: list[int]

    def __len__(self) -> int:
        return len(self.eta[0])

    def take(self, rows: Tensor) -> Rows:
        return Rows(
            self.family, [e[rows] for e in self.eta], {n: v[rows] for n, v in self.extras.items()}, self.free
        )

    def of(self, name: str, q: Tensor | None = None) -> Tensor:
        """A quantity of the family, (n,): "expectation", "variance"; "quantile" at q, (n, m)."""
        theta = self.family.natural(self.eta)
        if q is None:
            out: Tensor = getattr(self.family, name)(*theta, **self.extras).expand(len(self))
            return out
        wide = {n: v[:, None].expand(q.shape) for n, v in self.extras.items()}
        out = getattr(self.family, name)(q, *[t[:, None].expand(q.shape) for t in theta], **wide)
        return out

    def scores(self, y: Tensor, order: int = 1) -> tuple[Tensor, list[Tensor]]:
        """log p and ∂ log p/∂η_a at y (n, m); order 0: log p alone."""

        def spread(t: Tensor) -> Tensor:
            return t[:, None].expand(y.shape).reshape(-1)

        eta, extras = [spread(e) for e in self.eta], {n: spread(v) for n, v in self.extras.items()}
        if order == 0:
            return self.family.log_prob_eta(y.reshape(-1), *eta, **extras).view(y.shape), []
        log_p, score, _ = self.family.derivatives(y.reshape(-1), eta, extras, 1)
        return log_p.expand(y.numel()).view(y.shape), [
            score[j].expand(y.numel()).view(y.shape) for j in self.free
        ]

    def zeros(self) -> Pairs:
        k = range(len(self.free))
        return {(a, b): torch.zeros(len(self), dtype=torch.float64) for a in k for b in k if a <= b}


def reach(rows: Rows) -> tuple[Tensor, Tensor]:
    """Where each row's sum begins, and over how many counts it goes: twice as far from the median as the
    10⁻¹⁰ quantiles are."""
    needs_quantile(rows)
    q = torch.tensor([1e-10, 0.5, 1 - 1e-10], dtype=torch.float64).expand(len(rows), 3)
    low, middle, high = rows.of("quantile", q).unbind(1)
    first = (middle - 2 * (middle - low) - 4).clamp(min=rows.family.support.low)
    return first, torch.floor(middle + 2 * (high - middle) + 16 - first) + 1


def needs_quantile(rows: Rows) -> None:
    if not rows.family.has("quantile"):
        raise BadArgument(
            f"{rows.family} has no quantile, by which an expectation could be taken. Use "
            "covariance='observed'."
        )


Map = Callable[[Tensor], tuple[Tensor, Tensor]]  # t (n, m) → y and log dy/dt


def scale_of(rows: Rows) -> tuple[Tensor, Tensor]:
    """c and b of each row: any that put the bulk of the density at t of order 1 will do."""
    support, family = rows.family.support, rows.family
    try:
        middle, spread = rows.of("expectation"), rows.of("variance").sqrt()
    except BadArgument:
        middle = spread = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    if not bool((torch.isfinite(middle) & torch.isfinite(spread)).all()) and family.has("quantile"):
        quartiles = rows.of(
            "quantile", torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64).expand(len(rows), 3)
        )
        bad = ~(torch.isfinite(middle) & torch.isfinite(spread))
        middle = torch.where(bad, quartiles[:, 1], middle)
        spread = torch.where(bad, (quartiles[:, 2] - quartiles[:, 0]) / 1.35, spread)
    if math.isfinite(support.low) and math.isfinite(support.high):
        share = (middle - support.low) / (support.high - support.low)
        return torch.logit(share), spread / (support.high - support.low) / (share * (1 - share))
    if math.isfinite(support.low):
        return torch.log(middle - support.low), torch.log1p((spread / (middle - support.low)) ** 2).sqrt()
    return middle, spread


def mapping(family: Family, center: Tensor, width: Tensor) -> Map:
    low, high = family.support.low, family.support.high

    def line(t: Tensor) -> tuple[Tensor, Tensor]:
        return center + width * torch.sinh(t), torch.log(width) + torch.log(torch.cosh(t))

    def half(t: Tensor) -> tuple[Tensor, Tensor]:
        x = center + width * t
        return low + torch.exp(x), torch.log(width) + x

    def interval(t: Tensor) -> tuple[Tensor, Tensor]:
        x = center + width * t
        slope = torch.nn.functional.logsigmoid(x) + torch.nn.functional.logsigmoid(-x)
        return low + (high - low) * torch.sigmoid(x), math.log(high - low) + torch.log(width) + slope

    return line if not math.isfinite(low) else half if not math.isfinite(high) else interval


def range_of(rows: Rows, center: Tensor, width: Tensor, power: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's t beyond which p^power, a density in t, is more than TAIL nats below its peak; and
    whether it falls so far (an angle's does not)."""
    far = [2.0**k * f for k in range(-2, 11) for f in (1.0, 1.5)]
    grid = torch.tensor([-x for x in reversed(far)] + [0.0] + far, dtype=torch.float64)
    if not math.isfinite(rows.family.support.low):
        grid = grid[grid.abs() <= 300]  # sinh t is to stay finite
    value = torch.empty(len(rows), len(grid), dtype=torch.float64)
    for part in torch.arange(len(rows)).split(max(1, BLOCK // len(grid))):
        y, jacobian = mapping(rows.family, center[part, None], width[part, None])(grid.expand(len(part), -1))
        inside = rows.family.support.contains(y)
        inner = torch.where(
            inside,
            y,
            center[part, None] if not math.isfinite(rows.family.support.low) else _somewhere(rows.family),
        )
        log_p, _ = rows.take(part).scores(inner, order=0)
        value[part] = torch.where(inside, power * log_p + jacobian, -torch.inf).nan_to_num(
            nan=-torch.inf, posinf=-torch.inf
        )
    near = value >= value.max(1, keepdim=True).values - TAIL
    first = (near.int().argmax(1) - 1).clamp(min=0)
    last = (len(grid) - near.flip(1).int().argmax(1)).clamp(max=len(grid) - 1)
    return grid[first], grid[last], ~near[:, 0] & ~near[:, -1]


def _somewhere(family: Family) -> float:
    low, high = family.support.low, family.support.high
    return (low + high) / 2 if math.isfinite(high) else low + 1.0


def inside_of(end: float, towards: float) -> float:
    """The representable number next to an end of the support, on its inner side."""
    return (
        end
        if math.isinf(end)
        else max(math.nextafter(end, towards * math.inf), 2.3e-308 if end == 0 else -math.inf)
    )
