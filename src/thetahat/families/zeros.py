"""Zeros of two kinds: a family of counts with a further mass at 0, and families whose zeros have a
probability of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import BadArgument
from . import links
from .base import Derivatives, Family, Parameter, Support, weighted_mean
from .censored import LogProb, Wrapper, log_tail, somewhere
from .ranges import probability
from .truncated import Truncated


def _log_shares(share: Tensor) -> tuple[Tensor, Tensor]:
    return torch.log(share), torch.log1p(-share)


class _Zeros(Wrapper):
    """One more parameter, last: a probability π of zero. What follows is the same for both kinds."""

    def _log_prob(self, y: Tensor, log_p: LogProb, log_zero: Tensor, log_rest: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def positive(self) -> Family:
        """What the mixture does on y > 0, and what its second component is."""
        return self.family

    def log_prob(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        *theta, share = parameters
        return self._log_prob(y, lambda v: self.positive.log_prob(v, *theta, **extras), *_log_shares(share))

    def log_prob_eta(self, y: Tensor, *eta: Tensor, **extras: Tensor) -> Tensor:
        *inner, last = eta
        return self._log_prob(
            y,
            lambda v: self.positive.log_prob_eta(v, *inner, **extras),
            links.logit.log_inverse(last),
            links.logit.log1m_inverse(last),
        )

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        """By the chain rule from those of the family inside, which has formulas of its own where autograd is
        slow.

        With r the probability that the row came from the family inside (1 where y > 0), ∂r/∂log p₀ = r(1 −
        r):

            ∂/∂η_a = r s_a,      ∂²/∂η_a∂η_b = r c_ab + r(1 − r) s_a s_b,      ∂/∂logit π = (1 − r) − π
        """
        *inner, last = eta
        if list(self.parameters.values())[-1].link != links.logit:
            return super().derivatives(y, eta, extras, order)
        zero = y == 0
        asked = torch.where(zero, somewhere(self.positive.support), y)
        log_p, score, curvature = self.positive.derivatives(asked, inner, self.inner(extras or {}), order)
        log_zero, log_rest = links.logit.log_inverse(last), links.logit.log1m_inverse(last)
        value = self._log_prob(y, lambda v: log_p, log_zero, log_rest)
        r = torch.where(zero, self._inside(log_rest + log_p - value), 1.0)
        z = torch.where(zero, torch.exp(log_zero - value), 0.0)
        k, share = len(score), torch.exp(log_zero)
        scores = [*(torch.where(r == 0, 0.0, r * s) for s in score), z - share]
        if order < 2:
            return value, scores, {}
        seconds = {
            (a, b): torch.where(r == 0, 0.0, r * c + r * z * score[a] * score[b])
            for (a, b), c in curvature.items()
        }
        seconds |= {(a, k): torch.where(r == 0, 0.0, -r * z * score[a]) for a in range(k)}
        seconds[k, k] = r * z - share * torch.exp(log_rest)
        return value, scores, dict(sorted(seconds.items()))

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """By the chain rule, as `derivatives`: with z = 1 − r, where y = 0,

        ∂³/∂D³ log(1 + e^D) = r·z·(z − r),      D = log p₀ − logit π
        """
        *inner, last = eta
        if list(self.parameters.values())[-1].link != links.logit:
            return super().third(y, eta, v, extras)
        k, zero, given = len(inner), y == 0, self.inner(extras or {})
        asked = torch.where(zero, somewhere(self.positive.support), y)
        own = {ab: part for ab, part in v.items() if ab[1] < k}
        log_p, score, curvature = self.positive.derivatives(asked, inner, given, 2)
        thirds = self.positive.third(asked, inner, own, given)
        log_zero, log_rest = links.logit.log_inverse(last), links.logit.log1m_inverse(last)
        value = self._log_prob(y, lambda v: log_p, log_zero, log_rest)
        r = torch.where(zero, self._inside(log_rest + log_p - value), 1.0)
        z = torch.where(zero, torch.exp(log_zero - value), 0.0)
        slopes = [*(torch.where(r == 0, 0.0, s) for s in score), -torch.ones_like(y)]  # of D
        curved = torch.zeros_like(y)  # Σ v_ab (D_ab + (z − r) D_a D_b)
        moved = [torch.zeros_like(y) for _ in slopes]  # Σ_b v_ab D_b
        for (a, b), part in v.items():
            times = (1 if a == b else 2) * part
            curved = curved + times * (z - r) * slopes[a] * slopes[b]
            if b < k:
                curved = curved + times * torch.where(r == 0, 0.0, curvature[a, b])
            moved[a] = moved[a] + part * slopes[b]
            if a != b:
                moved[b] = moved[b] + part * slopes[a]
        out = [r * z * curved * slope for slope in slopes]
        for c in range(k):
            out[c] = out[c] + torch.where(r == 0, 0.0, r * thirds[c])
            for a in range(k):
                second = torch.where(r == 0, 0.0, curvature[min(a, c), max(a, c)])
                out[c] = out[c] + 2 * r * z * moved[a] * second
        if (k, k) in v:
            share, rest = torch.exp(log_zero), torch.exp(log_rest)
            out[k] = out[k] - v[k, k] * share * rest * (rest - share)
        return out

    def _inside(self, log_posterior: Tensor) -> Tensor:
        """P(the row came from the family inside), where y = 0."""
        return torch.exp(log_posterior)

    def impossible(self, y: Tensor, j: int, high: bool, **extras: Tensor) -> Tensor:
        return (y != 0) & self.positive.impossible(y, j, high, **extras)

    def sample(
        self, *parameters: Tensor, generator: torch.Generator | None = None, **extras: Tensor
    ) -> Tensor:
        *theta, share = torch.broadcast_tensors(*parameters)
        y = self.positive.sample(*theta, generator=generator, **extras)
        return torch.where(
            torch.rand(y.shape, dtype=y.dtype, device=y.device, generator=generator) < share, 0.0, y
        )

    def expectation(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        *theta, share = parameters
        return (1 - share) * self.positive.expectation(*theta, **extras)

    def variance(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        *theta, share = parameters
        mean, variance = self.positive.expectation(*theta, **extras), self.positive.variance(*theta, **extras)
        return (1 - share) * (variance + share * mean**2)

    def cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        *theta, share = parameters
        return torch.where(
            y < 0, 0.0, share + (1 - share) * torch.exp(log_tail(self.positive, y, False, theta, extras))
        )

    def log_cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        *theta, share = parameters
        log_zero, log_rest = _log_shares(share)
        inside = log_rest + log_tail(self.positive, y, False, theta, extras)
        return torch.where(
            y < 0, -torch.inf, torch.logsumexp(torch.stack(torch.broadcast_tensors(log_zero, inside)), 0)
        )

    def log_survival(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        *theta, share = parameters
        return torch.where(y < 0, 0.0, torch.log1p(-share) + log_tail(self.positive, y, True, theta, extras))

    def quantile(self, q: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        *theta, share = parameters
        above = q > share
        value = self.positive.quantile(torch.where(above, (q - share) / (1 - share), 0.5), *theta, **extras)
        return torch.where(above, value, 0.0)


@dataclass(frozen=True)
class ZeroInflated(_Zeros):
    """Counts of which a share π are zero for a reason of their own.

        p(0) = π + (1 − π)·p₀(0 | θ),      p(y) = (1 − π)·p₀(y | θ) for y > 0,      p₀ the family inside

    Mean (1 − π)·μ, variance (1 − π)(σ² + π·μ²), μ and σ² those of the family inside.

    Parameters
    ----------
    family
        a family of counts; its parameters come first
    inflation
        0 < π < 1, link logit. π → 0 is the family inside.

    References
    ----------
    Lambert (1992), Zero-inflated Poisson regression, Technometrics 34.

    Examples
    --------
    >>> from thetahat.families import Poisson
    >>> family = ZeroInflated(Poisson())
    >>> round(family.log_prob(torch.tensor(0.0), torch.tensor(2.0), torch.tensor(0.25)).item(), 6)  # log(¼ + ¾e⁻²)
    -1.045541
    """

    inflation = Parameter(probability, link=links.logit, boundary=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family.measure != "mass" or self.family.support.low != 0:
            raise BadArgument(
                f"ZeroInflated needs a family of counts 0, 1, 2, …; {self.family} describes "
                f"{self.family.support}."
            )

    @property
    def parameters(self) -> dict[str, Parameter]:
        return {
            **self.family.parameters,
            "inflation": replace(self._parameters["inflation"], limit=type(self.family).__name__),
        }

    def _log_prob(self, y: Tensor, log_p: LogProb, log_zero: Tensor, log_rest: Tensor) -> Tensor:
        rest = log_rest + log_p(y)
        return torch.where(
            y == 0, torch.logsumexp(torch.stack(torch.broadcast_tensors(log_zero, rest)), 0), rest
        )

    def in_support(self, y: Tensor, **extras: Tensor) -> Tensor:
        return self.family.in_support(y, **extras)

    def start(self, y: Tensor, weight: Tensor, **extras: Tensor) -> tuple[float, ...]:
        """The zeros beyond those that the family fitted to y > 0 would give."""
        theta = (
            self.inner_start(y, weight, y > 0, extras)
            if bool((y > 0).any())
            else self.family.start(y, weight, **extras)
        )
        log_p = self.family.log_prob(torch.zeros_like(y), *(torch.full_like(y, t) for t in theta), **extras)
        seen, expected = weighted_mean((y == 0).to(y.dtype), weight), weighted_mean(torch.exp(log_p), weight)
        return (*theta, min(max((seen - expected) / max(1 - expected, 1e-6), 0.05), 0.95))

    def recession(self, y: Tensor, **extras: Tensor) -> tuple[Tensor, Tensor] | None:
        # p(0) rises with π and with p₀(0); elsewhere p falls with π
        inner = self.family.recession(y, **extras)
        return None if inner is None else _with_share(*inner, y)


@dataclass(frozen=True)
class Hurdle(_Zeros):
    """A response that is zero with a probability of its own, and otherwise positive.

        p(0) = π,      p(y) = (1 − π)·p₀(y | θ) / (1 − p₀(0 | θ)) for y > 0

    Inside is a family of counts, truncated at zero; or a density on positive numbers, where p₀(0) = 0 and p
    is a density with an atom at 0 (two-part models: rain, expenditure). The log-likelihood is a sum of one
    part for π and one for θ.

    Parameters
    ----------
    family
        a family of counts, or of positive numbers; its parameters come first
    zero
        0 < π < 1, link logit

    References
    ----------
    Mullahy (1986), Specification and testing of some modified count data models, J. Econometrics 33; Cragg
    (1971).

    Examples
    --------
    >>> from thetahat.families import Poisson
    >>> family = Hurdle(Poisson())
    >>> round(family.log_prob(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(0.25)).item(), 6)  # log ¾·2/(e² − 1)
    -1.449121
    """

    zero = Parameter(probability, link=links.logit)

    def __post_init__(self) -> None:
        super().__post_init__()
        s = self.family.support
        if s.low < 0 or self.family.measure == "mixed" or (self.family.measure == "mass" and s.low != 0):
            raise BadArgument(
                f"Hurdle needs a family of counts 0, 1, 2, … or of positive numbers; {self.family} describes "
                f"{s}."
            )

    @property
    def measure(self) -> str:
        return "mass" if self.family.measure == "mass" else "mixed"

    @property
    def support(self) -> Support:
        s = self.family.support
        return s if s.integer else Support(f"0 and {s.name}", 0.0, s.high, closed=(True, s.closed[1]))

    @property
    def positive(self) -> Family:
        return Truncated(self.family, low=0.0) if self.family.measure == "mass" else self.family

    def _log_prob(self, y: Tensor, log_p: LogProb, log_zero: Tensor, log_rest: Tensor) -> Tensor:
        return torch.where(
            y == 0, log_zero, log_rest + log_p(torch.where(y == 0, somewhere(self.positive.support), y))
        )

    def _inside(self, log_posterior: Tensor) -> Tensor:
        return torch.zeros_like(log_posterior)  # a zero is never the family's own

    def in_support(self, y: Tensor, **extras: Tensor) -> Tensor:
        return (y == 0) | self.positive.in_support(y, **extras)

    def start(self, y: Tensor, weight: Tensor, **extras: Tensor) -> tuple[float, ...]:
        share = min(max(weighted_mean((y == 0).to(y.dtype), weight), 0.01), 0.99)
        return (*self.inner_start(y, weight, y > 0, extras), share)

    @property
    def concave(self) -> bool:
        return self.positive.concave  # and so is the logistic part

    def recession(self, y: Tensor, **extras: Tensor) -> tuple[Tensor, Tensor] | None:
        # a zero says nothing of θ; where nothing is known of how y > 0 recedes, θ is held still, which only
        # misses directions
        k = len(self.family.parameters)
        pinned = (
            torch.eye(k, dtype=torch.float64).expand(len(y), k, k),
            torch.ones(len(y), k, dtype=torch.bool),
        )
        A, equality = self.positive.recession(y, **extras) or pinned
        zero = (y == 0).to(A.device)
        return _with_share(torch.where(zero[:, None, None], 0.0, A), equality & ~zero[:, None], y)


def _with_share(A: Tensor, equality: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The cone of the family inside, and a last column: π may rise where y = 0, and fall elsewhere."""
    n, m, k = A.shape
    wider = A.new_zeros(n, m + 1, k + 1)
    wider[:, :m, :k] = A
    wider[:, m, k] = torch.where(y == 0, 1.0, -1.0)
    return wider, torch.cat([equality, torch.zeros(n, 1, dtype=torch.bool, device=equality.device)], 1)
