"""One of k categories in order: the cumulative-link models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import BadArgument
from ..types import Levels
from . import links
from .base import Family, Parameter, Support, categories
from .categorical import _UNCOUNTED, _chosen, _code, _counts, _known
from .links import CLogLog, Link, Logit, Probit
from .ranges import real
from .special import log1mexp, log_ndtr


@dataclass(frozen=True)
class Ordinal(Family):
    """One of k categories in order: a latent variable with distribution function F, cut at thresholds.

        P(y ≤ j | ℓ, τ) = F(τ_{j+1} − ℓ),      log p(y | ℓ, τ) = log(F(τ_{y+1} − ℓ) − F(τ_y − ℓ)),      τ_0 = −∞, τ_k = +∞

    A larger ℓ makes the later categories more probable. Thresholds out of order have probability zero.

    Parameters
    ----------
    k
        the number of categories; y is coded 0 … k − 1
    location
        ℓ, link identity, without an intercept, which the thresholds are
    threshold_1 … threshold_{k−1}
        τ, increasing, link identity, constants by default
    levels
        the categories from the lowest to the highest, of a response that does not say their order itself; None: that of an
        ordered categorical column, or of numbers
    link
        F⁻¹, "logit" (proportional odds), "probit" or "cloglog" (proportional hazards)

    References
    ----------
    McCullagh (1980), Regression models for ordinal data, J. R. Statist. Soc. B 42.

    Examples
    --------
    >>> round(Ordinal(3).log_prob(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(-1.0), torch.tensor(1.0)).item(), 6)
    -0.771937
    """

    k: int | None = None
    levels: Levels | None = None

    measure = "mass"

    def __post_init__(self) -> None:
        if self.levels is not None:
            object.__setattr__(self, "levels", _in_order(self.levels))
        if self.k is not None and self.k < 2:
            raise BadArgument(f"k is {self.k}; an ordinal response has 2 or more categories.")
        if not isinstance(self._cumulative, (Logit, Probit, CLogLog)):
            raise BadArgument(
                f"link is {self.link!r}; the cumulative links of Ordinal are logit, probit and cloglog."
            )

    @property
    def _cumulative(self) -> Link:
        return links.logit if self.link is None else links.get(self.link)

    @property
    def support(self) -> Support:
        return _UNCOUNTED if self.k is None else categories(self.k)

    @property
    def parameters(self) -> dict[str, Parameter]:
        thresholds = {f"threshold_{j}": Parameter(real) for j in range(1, _known(self, self.k))}
        return {"location": Parameter(real, intercept=False)} | thresholds

    @property
    def categories(self) -> int | None:
        return self.k

    def with_categories(self, k: int) -> Ordinal:
        return replace(self, k=k)

    def log_prob(self, y: Tensor, *parameters: Tensor) -> Tensor:
        location, cuts = self._cuts(parameters)
        code, inside = _code(self.support, y)
        first, last = code == 0, code == len(cuts)
        low = _chosen(cuts, (code - 1).clamp(min=0)) - location
        high = _chosen(cuts, code.clamp(max=len(cuts) - 1)) - location
        link, ordered = self._cumulative, (low < high) & ~first & ~last
        between = _log_between(link, torch.where(ordered, low, -1.0), torch.where(ordered, high, 1.0))
        value = torch.where(first, _log_below(link, high), torch.where(last, _log_above(link, low), between))
        return torch.where(
            inside & (first | last | ordered) & (cuts[1:] > cuts[:-1]).all(0), value, -torch.inf
        )

    def probabilities(self, *eta: Tensor) -> Tensor:
        """P(y = j | η), (…, k)."""
        location, cuts = self._cuts(eta)
        shape = torch.broadcast_shapes(location.shape, cuts.shape[1:])
        columns = [
            self.log_prob(location.new_full(shape, float(j)), *eta) for j in range(_known(self, self.k))
        ]
        return torch.exp(torch.stack(columns, -1))

    def cdf(self, y: Tensor, *parameters: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, *parameters))

    def log_cdf(self, y: Tensor, *parameters: Tensor) -> Tensor:
        return self._cut(y, parameters, _log_below, -torch.inf, 0.0)

    def log_survival(self, y: Tensor, *parameters: Tensor) -> Tensor:
        return self._cut(y, parameters, _log_above, 0.0, -torch.inf)

    def quantile(self, q: Tensor, *parameters: Tensor) -> Tensor:
        location, cuts = self._cuts(parameters)
        return torch.stack([self._cumulative.inverse(cut - location) < q for cut in cuts]).sum(0).to(q.dtype)

    def sample(self, *parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        location, cuts = self._cuts(parameters)
        shape = torch.broadcast_shapes(location.shape, cuts.shape[1:])
        u = torch.rand(shape, dtype=cuts.dtype, device=cuts.device, generator=generator)
        return self.quantile(u, *parameters)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        count = _counts(y, weight, _known(self, self.k))
        share = torch.cumsum(count, 0)[:-1] / count.sum()
        return (0.0, *(float(t) for t in self._cumulative(share)))

    @property
    def concave(self) -> bool:
        return True  # F has a log-concave density for each of the three links: Prékopa (1973), Pratt (1981)

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # the upper threshold of y's interval must not fall, nor the lower rise, both measured from the
        # location; none may cross
        k = _known(self, self.k)
        d = torch.eye(k, dtype=torch.float64, device=y.device)  # location, threshold_1, …
        none = torch.zeros(1, k, dtype=torch.float64, device=y.device)
        upper = torch.cat([d[1:] - d[0], none])  # (k, k): row c is the constraint of category c
        lower = torch.cat([none, d[0] - d[1:]])
        order = (d[2:] - d[1:-1]).expand(k, k - 2, k)
        A = torch.cat([upper[:, None], lower[:, None], order], 1)[y.long()]  # (n, k, k)
        return A, torch.zeros(len(y), k, dtype=torch.bool, device=y.device)

    def _cuts(self, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        k = _known(self, self.k)
        if len(parameters) != k:
            raise BadArgument(
                f"{self} takes a location and {k - 1} thresholds; it was given {len(parameters)} parameters."
            )
        return parameters[0], torch.stack(torch.broadcast_tensors(*parameters[1:]))

    def _cut(
        self, y: Tensor, parameters: Sequence[Tensor], side: _Side, before: float, after: float
    ) -> Tensor:
        """One tail at the threshold above y."""
        location, cuts = self._cuts(parameters)
        y = torch.floor(y)
        value = side(self._cumulative, _chosen(cuts, y.clamp(0, len(cuts) - 1).long()) - location)
        return torch.where(y < 0, before, torch.where(y >= len(cuts), after, value))


def _in_order(levels: object) -> Levels:
    found = tuple(levels) if isinstance(levels, (list, tuple)) else ()
    if len(set(found)) < max(2, len(found)):
        raise BadArgument(
            f"levels={levels!r}. Accepted: two or more different categories from the lowest to the highest, such as "
            "('low', 'middle', 'high')."
        )
    return found


def _log_below(link: Link, t: Tensor) -> Tensor:
    """log F(t)."""
    return log_ndtr(t) if isinstance(link, Probit) else link.log_inverse(t)


def _log_above(link: Link, t: Tensor) -> Tensor:
    """log(1 − F(t))."""
    return log_ndtr(-t) if isinstance(link, Probit) else link.log1m_inverse(t)


_Side = Callable[[Link, Tensor], Tensor]


def _log_between(link: Link, a: Tensor, b: Tensor) -> Tensor:
    """log(F(b) − F(a)), a < b, exact in both tails and for narrow intervals.

    logit      log σ(b) + log σ(−a) + log(1 − e^(a−b))
    cloglog    −eᵃ + log F(t), t = b + log(1 − e^(a−b)), for e^t = e^b − e^a
    probit     on the side of 0 where Φ is small: log Φ(b) + log(1 − Φ(a)/Φ(b)); a narrow interval by its midpoint m and width h,
               log φ(m) + log h + log(1 + (m² − 1)h²/24 + (m⁴ − 6m² + 3)h⁴/1920)
    """
    if isinstance(link, Logit):
        return logsigmoid(b) + logsigmoid(-a) + log1mexp(a - b)
    if isinstance(link, CLogLog):
        return -torch.exp(a) + link.log_inverse(b + log1mexp(a - b))
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    m, h = (a + b) / 2, b - a
    narrow = h * (1 + m.abs()) < 0.03
    m, h = torch.where(narrow, m, 0.0), torch.where(narrow, h, 0.01)
    density = -0.5 * m * m - 0.5 * math.log(2 * math.pi) + torch.log(h)
    series = density + torch.log1p((m * m - 1) * h**2 / 24 + (m**4 - 6 * m * m + 3) * h**4 / 1920)
    log_b = log_ndtr(torch.where(narrow, 1.0, b))
    log_a = log_ndtr(torch.where(narrow, -1.0, a))
    return torch.where(narrow, series, log_b + log1mexp(log_a - log_b))
