"""Truncation: rows outside a window are not in the data at all."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument
from .base import Derivatives, Support
from .censored import LogProb, Wrapper, log_between, somewhere
from .links import Log
from .poisson import Poisson
from .special import count_quantile, invert_cdf, log1mexp


@dataclass(frozen=True)
class Truncated(Wrapper):
    """A response that is seen only because low < y ≤ high: who is outside is not in the data at all.

        log p(y) = log p₀(y | θ) − log(F₀(high | θ) − F₀(low | θ)),     low < y ≤ high,     p₀ and F₀ those of the family inside

    low is outside the window and high inside, for counts too: the zero-truncated Poisson is
    Truncated(Poisson(), low=0), and low=0, high=3 leaves 1, 2, 3.

    Extras: low and high, one a row; NaN: that of the family. One bound at least is given, of the family or of
    the rows. (The delayed entry of a survival time is written Surv(start, stop, event): its mean is not that
    of a truncated response.)

    Parameters
    ----------
    family
        the family before truncation; its cdf is needed, but for low = the lowest count and no high
    low, high
        the window for every row

    References
    ----------
    Klein and Moeschberger (2003), Survival Analysis, 2nd ed., §3.4; Cohen (1991), Truncated and Censored
    Samples.

    Examples
    --------
    >>> from thetahat.families import Poisson
    >>> round(Truncated(Poisson(), low=0.0).log_prob(torch.tensor(1.0), torch.tensor(2.0)).item(), 6)  # log 2/(e² − 1)
    -1.161439
    """

    low: float = -math.inf
    high: float = math.inf

    own_extras = {"low": math.nan, "high": math.nan}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise BadArgument(f"Truncated needs low < high; got low={self.low!r}, high={self.high!r}.")

    @property
    def support(self) -> Support:
        s = self.family.support
        low, high = max(self.low, s.low), min(self.high, s.high)
        closed = (s.closed[0] and self.low < s.low, s.closed[1] or self.high < s.high)
        if s.integer and math.isfinite(low) and not closed[0]:
            low, closed = math.floor(low) + 1.0, (True, closed[1])
        if (low, high, closed) == (s.low, s.high, s.closed):
            return s
        return Support(
            f"{s.name} in {'[' if closed[0] else '('}{low:g}, {high:g}{']' if closed[1] else ')'}",
            low,
            high,
            s.integer,
            closed,
        )

    def lacking(self, given: Container[str]) -> str | None:
        bounded = math.isfinite(self.low) or math.isfinite(self.high) or "low" in given or "high" in given
        return (
            super().lacking(given)
            if bounded
            else "a bound: low= or high=, a number or the column that holds it"
        )

    def _needs(self, name: str, extras: Mapping[str, Tensor]) -> Tensor | bool:
        return False  # NaN is the family's own bound, ±∞ none

    def window(self, extras: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """low and high of each row."""
        lacking = self.lacking(extras)
        if lacking is not None:
            raise BadArgument(f"{self} needs {lacking}.")
        given = (extras.get(name, torch.tensor(torch.nan, dtype=torch.float64)) for name in ("low", "high"))
        low, high = (
            torch.where(torch.isnan(g), own, g) for g, own in zip(given, (self.low, self.high), strict=True)
        )
        return low, high

    def _log_between(
        self, low: Tensor, high: Tensor, log_p: LogProb, theta: Sequence[Tensor], extras: Mapping[str, Tensor]
    ) -> Tensor:
        support, inner = self.family.support, self.inner(extras)
        if not (support.integer and support.closed[0]):
            return log_between(self.family, low, high, theta, inner)
        all_but_lowest = (torch.floor(low) == support.low) & (
            high >= support.high
        )  # 1 − p(0): exact, and no cdf is needed
        if not all_but_lowest.any():
            return log_between(self.family, low, high, theta, inner)
        exact = log1mexp(log_p(torch.full_like(theta[0], support.low)).clamp(max=-1e-300))
        if all_but_lowest.all():
            return exact
        low, high = torch.where(all_but_lowest, -torch.inf, low), torch.where(all_but_lowest, torch.inf, high)
        return torch.where(all_but_lowest, exact, log_between(self.family, low, high, theta, inner))

    def _log_prob(
        self, y: Tensor, log_p: LogProb, theta: Sequence[Tensor], extras: Mapping[str, Tensor]
    ) -> Tensor:
        low, high = self.window(extras)
        inside = (y > low) & (y <= high)
        value = log_p(torch.where(inside, y, somewhere(self.family.support)))
        return torch.where(inside, value - self._log_between(low, high, log_p, theta, extras), -torch.inf)

    def impossible(self, y: Tensor, j: int, high: bool, **extras: Tensor) -> Tensor:
        """All but the first y of the window where the mean is at its low end, all but the last where it is at
        its high end."""
        low, top = self.window(extras)
        certain = torch.floor(top) if high else torch.floor(low) + 1
        return (y != certain) & self.family.impossible(y, j, high, **self.inner(extras))

    def log_prob(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._log_prob(y, self._log_p(parameters, extras), parameters, extras)

    def log_prob_eta(self, y: Tensor, *eta: Tensor, **extras: Tensor) -> Tensor:
        inner = self.inner(extras)
        return self._log_prob(
            y, lambda v: self.family.log_prob_eta(v, *eta, **inner), self.natural(eta), extras
        )

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        """Where the lowest count alone is cut off, by the chain rule from those of the family inside: log
        p₀(y) − log(1 − p₀(0))."""
        s, given = self.family.support, extras or {}
        if not self._lowest_alone(y, given):
            return super().derivatives(y, eta, extras, order)
        value, score, curvature = self.family.derivatives(y, eta, given, order)
        cut, first, second = self.family.derivatives(torch.full_like(y, s.low), eta, given, order)
        cut = cut.clamp(max=-1e-300)
        odds = 1 / torch.expm1(
            -cut
        )  # p₀(0) / (1 − p₀(0)), whose own derivative in log p₀(0) is odds·(1 + odds)
        scores = [a + odds * b for a, b in zip(score, first, strict=True)]
        seconds = {
            (a, b): c + odds * (second[a, b] + (1 + odds) * first[a] * first[b])
            for (a, b), c in curvature.items()
        }
        return value - log1mexp(cut), scores, seconds

    def _lowest_alone(self, y: Tensor, extras: Mapping[str, Tensor]) -> bool:
        """Whether the lowest count, and nothing else, is cut off, in every row."""
        s = self.family.support
        only = (
            s.integer and s.closed[0] and self.high >= s.high and "low" not in extras and "high" not in extras
        )
        return (
            self._limits is None
            and only
            and math.floor(max(self.low, s.low - 1)) == s.low
            and bool((y > s.low).all())
        )

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Where the lowest count alone is cut off, by the chain rule: with L = log p₀(0) and ω = p₀(0)/(1 − p₀(0)),

        ∂ⁿ/∂Lⁿ (−log(1 − e^L)) = ω,   ω(1 + ω),   ω(1 + ω)(1 + 2ω)
        """
        s, given = self.family.support, extras or {}
        if not self._lowest_alone(y, given):
            return super().third(y, eta, v, extras)
        least = torch.full_like(y, s.low)
        cut, slopes, curvature = self.family.derivatives(least, eta, given, 2)
        odds = 1 / torch.expm1(-cut.clamp(max=-1e-300))
        once, twice = odds * (1 + odds), odds * (1 + odds) * (1 + 2 * odds)
        out = [
            own + odds * low
            for own, low in zip(
                self.family.third(y, eta, v, given), self.family.third(least, eta, v, given), strict=True
            )
        ]
        for (a, b), part in v.items():
            for first, second in {(a, b), (b, a)}:
                for c in range(len(out)):
                    bend = curvature[min(first, c), max(first, c)]
                    out[c] = out[c] + part * (
                        once * (curvature[a, b] * slopes[c] + 2 * bend * slopes[second])
                        + twice * slopes[a] * slopes[b] * slopes[c]
                    )
        return out

    def _log_p(self, theta: Sequence[Tensor], extras: Mapping[str, Tensor]) -> LogProb:
        return lambda v: self.family.log_prob(v, *theta, **self.inner(extras))

    def cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return torch.exp(self.log_cdf(y, *parameters, **extras))

    def log_cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        low, high = self.window(extras)
        log_p = self._log_p(parameters, extras)
        seen = self._log_between(low, torch.minimum(y, high), log_p, parameters, extras)
        return seen - self._log_between(low, high, log_p, parameters, extras)

    def log_survival(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        low, high = self.window(extras)
        log_p = self._log_p(parameters, extras)
        rest = self._log_between(torch.maximum(y, low), high, log_p, parameters, extras)
        return rest - self._log_between(low, high, log_p, parameters, extras)

    def quantile(self, q: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        s = self.family.support
        if s.integer:
            return count_quantile(lambda y: self.cdf(y, *parameters, **extras), q.expand(parameters[0].shape))
        return invert_cdf(
            lambda y: self.cdf(y, *parameters, **extras),
            q,
            s.low,
            s.high,
            survival=lambda y: torch.exp(self.log_survival(y, *parameters, **extras)),
        )

    def sample(
        self, *parameters: Tensor, generator: torch.Generator | None = None, **extras: Tensor
    ) -> Tensor:
        low, high = self.window(extras)
        inner = self.inner(extras)
        shape = torch.broadcast_shapes(
            low.shape, high.shape, *(t.shape for t in (*parameters, *inner.values()))
        )

        def rows(t: Tensor, chosen: Tensor) -> Tensor:
            return t.expand(shape).reshape(-1)[chosen]

        left = torch.arange(math.prod(shape), device=parameters[0].device)
        y = torch.full((len(left),), torch.nan, dtype=parameters[0].dtype, device=left.device)
        for _ in range(20):  # by rejection, which is fast where the window is wide …
            theta = [rows(t, left) for t in parameters]
            draw = self.family.sample(
                *theta, generator=generator, **{n: rows(e, left) for n, e in inner.items()}
            )
            inside = (draw > rows(low, left)) & (draw <= rows(high, left))
            y[left[inside]] = draw[inside]
            left = left[~inside]
            if not len(left):
                return y.reshape(shape)
        q = torch.rand(
            len(left), generator=generator, dtype=y.dtype, device=y.device
        )  # … and by inversion where it is narrow
        with torch.no_grad():
            y[left] = self.quantile(
                q, *(rows(t, left) for t in parameters), **{n: rows(e, left) for n, e in extras.items()}
            )
        return y.reshape(shape)

    def expectation(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._moments(parameters, extras, 1)[0]

    def variance(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._moments(parameters, extras, 2)[1]

    def _moments(
        self, theta: Sequence[Tensor], extras: Mapping[str, Tensor], order: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance, by sums or quadrature; where a side is open, they exist only where those of the
        family do."""
        if self.family.measure == "mixed":
            raise self._lacks("expectation")
        inner = self.inner(extras)
        if self.support.integer:
            return self._count_moments(theta, extras, inner, order)
        support, (low, high) = self.family.support, self.window(extras)
        low, high = low.clamp(min=support.low), high.clamp(max=support.high)
        mean, variance = self._density_moments(low, high, theta, extras, order)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        if not bounded.all():
            whole = self.family.expectation(*theta, **inner)
            mean = torch.where(bounded | torch.isfinite(whole), mean, whole)
            if order > 1:
                whole = self.family.variance(*theta, **inner)
                variance = torch.where(bounded | torch.isfinite(whole), variance, whole)
        return mean, variance

    def _count_moments(
        self, theta: Sequence[Tensor], extras: Mapping[str, Tensor], inner: Mapping[str, Tensor], order: int
    ) -> tuple[Tensor, Tensor]:
        """Sums of k − c and (k − c)² over the window; where it is open above, what the family has less the
        sum over k ≤ low."""
        low, high = self.window(extras)
        log_p = self._log_p(theta, extras)
        open_above = torch.isinf(high)
        first = torch.where(
            open_above, self.family.support.low, torch.floor(low.clamp(min=self.family.support.low - 1)) + 1
        )
        last = torch.where(open_above, low, high)
        centre, second = (first + last) / 2, torch.zeros_like(theta[0])
        if open_above.any():
            centre = torch.where(open_above, self.family.expectation(*theta, **inner), centre)
            second = self.family.variance(*theta, **inner) if order > 1 else second
        some, square = torch.zeros_like(centre + second), torch.zeros_like(centre + second)
        top = float(last.max())
        for start in range(int(first.min()), int(max(top, -1.0)) + 1, 256):
            k = torch.arange(start, start + 256, dtype=some.dtype, device=some.device).reshape(
                -1, *(1 for _ in some.shape)
            )
            p = torch.where((k >= first) & (k <= last), torch.exp(log_p(k)), 0.0)
            some, square = some + ((k - centre) * p).sum(0), square + ((k - centre) ** 2 * p).sum(0)
        seen = torch.exp(self._log_between(low, high, log_p, theta, extras))
        some = torch.where(open_above, -some, some) / seen
        square = torch.where(open_above, second - square, square) / seen
        return centre + some, square - some**2

    def _density_moments(
        self, low: Tensor, high: Tensor, theta: Sequence[Tensor], extras: Mapping[str, Tensor], order: int
    ) -> tuple[Tensor, Tensor]:
        """Double-exponential quadrature (Takahasi and Mori, 1974) from the median to each end, which may be
        infinite."""
        with torch.no_grad():  # where the nodes stand does not move the integral
            left, centre, right = (
                self.quantile(torch.full_like(theta[0], q), *theta, **extras) for q in (0.25, 0.5, 0.75)
            )
        low, high = low.expand(centre.shape), high.expand(centre.shape)
        step = 1 / 16
        s, ds = (
            math.pi / 2 * f(step * torch.arange(-68.0, 69.0, dtype=centre.dtype))
            for f in (torch.sinh, torch.cosh)
        )
        s, ds = (x.to(centre.device).reshape(-1, *(1 for _ in centre.shape)) for x in (s, ds))
        first, second = torch.zeros_like(centre), torch.zeros_like(centre)
        for end, quartile in ((low, left), (high, right)):
            finite, sign = torch.isfinite(end), 1.0 if end is high else -1.0
            span = torch.where(finite, end - centre, sign).abs()
            away = torch.where(
                finite, span * torch.sigmoid(2 * s), (quartile - centre).abs() * torch.exp(s)
            )  # |y − centre|
            slope = torch.where(finite, 2 * away * torch.sigmoid(-2 * s), away) * ds * step
            near_end = finite & (s > 0)
            y = torch.where(near_end, end - sign * span * torch.sigmoid(-2 * s), centre + sign * away)
            weight = torch.nan_to_num(
                slope * torch.exp(self.log_prob(y, *theta, **extras)), nan=0.0, posinf=0.0
            )
            first, second = first + sign * (away * weight).sum(0), second + (away**2 * weight).sum(0)
        return centre + first, second - first**2

    def in_support(self, y: Tensor, **extras: Tensor) -> Tensor:
        low, high = self.window(extras)
        return self.family.in_support(y, **self.inner(extras)) & (y > low) & (y <= high)

    def start(self, y: Tensor, weight: Tensor, **extras: Tensor) -> tuple[float, ...]:
        return self.inner_start(y, weight, torch.ones_like(y, dtype=torch.bool), extras)

    @property
    def concave(self) -> bool:
        # a window of a natural exponential family is one again: its log-normaliser is convex in the canonical
        # η
        return isinstance(self.family, Poisson) and isinstance(self.parameters["mean"].link, Log)

    def recession(self, y: Tensor, **extras: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.concave:
            return None
        # the lowest count of the window is ever more probable as η → −∞, the highest as η → ∞; between them η
        # is pinned
        low, high = self.window(extras)
        lowest = y <= torch.floor(low.clamp(min=-1.0)) + 1
        highest = y >= torch.floor(high)
        A = (
            torch.where(lowest & highest, 0.0, torch.where(highest, 1.0, -1.0))
            .to(torch.float64)
            .expand(y.shape)
        )
        return A[:, None, None], (~lowest & ~highest).expand(y.shape)[:, None]
