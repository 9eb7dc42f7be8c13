"""What a family around a family shares; and censoring, where a row is known only up to an interval.

Censoring and truncation both come down to log P(low < Y ≤ high): `log_between`, which subtracts in the tail
that has the digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import BadArgument
from .base import Family, Parameter, Support
from .multivariate import Dirichlet, MultivariateNormal
from .special import log1mexp

LogProb = Callable[[Tensor], Tensor]  # y → log p(y), its parameters bound
NEGLIGIBLE = -45.0  # in nats: e⁻⁴⁵ is below the rounding of float64, with room for a score that is steeper


@dataclass(frozen=True)
class Wrapper(Family):
    """A family made of another one: its parameters and extras are those of `family`, then its own.

    Parameters
    ----------
    family
        the family inside
    link
        another link for the first parameter of the family inside
    """

    family: Family = field(kw_only=False)

    own_extras: ClassVar[Mapping[str, float | None]] = {}
    own_outcome: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if not isinstance(self.family, Family):
            raise BadArgument(
                f"{type(self).__name__} wraps a family; {self.family!r} is none. Families by name: "
                "families.get."
            )
        if isinstance(self.family, (MultivariateNormal, Dirichlet)):
            raise BadArgument(
                f"{type(self).__name__} wraps a family of single numbers; {self.family} describes vectors."
            )
        if isinstance(self.family, Censored):
            raise BadArgument(
                f"Censored goes outermost: Censored({type(self).__name__}(…)) says what was seen of such a y."
            )
        twice = (set(self.own_extras) & set(self.family.extras)) | (
            set(self._parameters) & set(self.family.parameters)
        )
        if twice:
            raise BadArgument(
                f"{type(self).__name__} around {self.family} would have {', '.join(sorted(twice))} twice."
            )
        if self.link is not None:
            object.__setattr__(self, "family", replace(self.family, link=self.link))
            object.__setattr__(self, "link", None)

    # the base declares these for the class; a wrapper knows them only when it knows its family
    @property
    def parameters(self) -> dict[str, Parameter]:
        return {**self.family.parameters, **self._parameters}

    @property
    def extras(self) -> Mapping[str, float | None]:
        return {**self.family.extras, **self.own_extras}

    @property
    def outcome(self) -> frozenset[str]:
        return self.family.outcome | self.own_outcome

    def lacking(self, given: Container[str]) -> str | None:
        return self.family.lacking(given) or super().lacking(given)

    def needs(self, name: str, extras: Mapping[str, Tensor]) -> Tensor | bool:
        return self.family.needs(name, extras) if name in self.family.extras else self._needs(name, extras)

    def _needs(self, name: str, extras: Mapping[str, Tensor]) -> Tensor | bool:
        """`needs` of the wrapper's own extras."""
        return True

    @property
    def support(self) -> Support:
        return self.family.support

    @property
    def measure(self) -> str:
        return self.family.measure

    @property
    def smooth(self) -> bool:
        return self.family.smooth

    def with_categories(self, k: int) -> Family:
        return replace(self, family=self.family.with_categories(k))

    def impossible(self, y: Tensor, j: int, high: bool, **extras: Tensor) -> Tensor:
        """Nothing is known: the limit of log p holds."""
        return torch.zeros_like(y, dtype=torch.bool)

    def inner(self, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The extras that belong to the family inside."""
        return {name: value for name, value in extras.items() if name in self.family.extras}

    def inner_start(
        self, y: Tensor, weight: Tensor, rows: Tensor, extras: Mapping[str, Tensor]
    ) -> tuple[float, ...]:
        """The start of the family inside on these rows alone; where no row has weight, the middle of each
        range."""
        rows = rows & (weight > 0)
        if not rows.any():
            return Family.start(self.family, y, weight)
        return self.family.start(
            y[rows], weight[rows], **{n: v.expand(y.shape)[rows] for n, v in self.inner(extras).items()}
        )


# ---- probabilities of intervals ----------------------------------------------------------------------------


def somewhere(support: Support) -> float:
    """A y in the support: what rows that take no part are evaluated at, so that no gradient of theirs is
    NaN."""
    if support.integer or not math.isfinite(support.low):
        return support.low if math.isfinite(support.low) else min(0.0, support.high - 1)
    return (support.low + support.high) / 2 if math.isfinite(support.high) else support.low + 1


def log_tail(
    family: Family, y: Tensor, upper: bool, theta: Sequence[Tensor], extras: Mapping[str, Tensor]
) -> Tensor:
    """log P(Y > y) if upper, else log P(Y ≤ y), for y beyond the support too: there it is 0 or −∞,
    whatever θ."""
    support = family.support
    below = (y <= support.low) if not support.closed[0] else (y < support.low)
    inside = ~below & (y < support.high)
    beyond = torch.where(below != upper, -torch.inf, 0.0)
    if not inside.any():
        return beyond
    tail = family.log_survival if upper else family.log_cdf
    return torch.where(inside, tail(torch.where(inside, y, somewhere(support)), *theta, **extras), beyond)


def log_between(
    family: Family, low: Tensor, high: Tensor, theta: Sequence[Tensor], extras: Mapping[str, Tensor]
) -> Tensor:
    """log P(low < Y ≤ high) = log(F(high) − F(low)) = log(S(low) − S(high)), by the smaller tail; −∞ where
    high ≤ low.

    Which of the four tails a row needs is found without gradient; the others are evaluated elsewhere, and
    dropped.
    """

    def tail(y: Tensor, upper: bool) -> Tensor:
        return log_tail(family, y, upper, theta, extras)

    with torch.no_grad():
        larger = {False: tail(high, False), True: tail(low, True)}
        smaller = {False: tail(low, False), True: tail(high, True)}
        possible = (high > low) & (larger[False] > -torch.inf) & (larger[True] > -torch.inf)
        by_upper = larger[True] < larger[False]
        near = {u: possible & (by_upper == u) & (smaller[u] - larger[u] > NEGLIGIBLE) for u in (False, True)}
    first = tail(torch.where(possible & ~by_upper, high, torch.inf), False)
    first = first + tail(torch.where(possible & by_upper, low, -torch.inf), True)  # one of the two is 0
    if bool((near[False] | near[True]).any()):
        second = tail(torch.where(near[False], low, -torch.inf), False)
        second = torch.where(near[True], tail(torch.where(near[True], high, torch.inf), True), second)
        either = near[False] | near[True]
        first = first + torch.where(
            either, log1mexp(torch.where(either, second - first, -1.0).clamp(max=-1e-300)), 0.0
        )
    return torch.where(possible, first, -torch.inf)


# ---- censored ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Censored(Wrapper):
    """A response of which some rows are known only to lie in an interval: survival times, limits of
    detection, Tobit.

        event  1   it happened at y                  log p(y | θ)
        event  0   not by then: above y              log S(y | θ)
        event  2   before then: at most y            log F(y | θ)
        event  3   y < true value ≤ upper            log(F(upper | θ) − F(y | θ))

    With an `entry`, the row is in the data only because its true value is above it: log S(entry | θ) is
    subtracted (delayed entry, left truncation). The codes are those of R's Surv; a formula says them as
    Surv(time, event), Surv(start, stop, event) or Surv(lower, upper, type="interval2"). The censoring must
    tell nothing of the true value beyond the interval. Expectation, variance, cdf, quantile and sample are
    those of the true value, whenever it entered.

    Extras: event, which must be given; upper, needed where event = 3; entry, −∞ or NaN where there is none.

    Parameters
    ----------
    family
        the family of the true value; it must have a cdf

    References
    ----------
    Klein and Moeschberger (2003), Survival Analysis, 2nd ed., eq. 3.5.1; Therneau (2024), A package for
    survival analysis in R.

    Examples
    --------
    >>> from thetahat.families import Normal
    >>> tensor = torch.tensor
    >>> at = Censored(Normal()).log_prob(tensor(0.0), tensor(0.0), tensor(1.0), event=tensor(0.0))
    >>> round(at.item(), 6)  # log ½
    -0.693147
    """

    own_extras = {"event": None, "upper": math.nan, "entry": -math.inf}
    own_outcome = frozenset(own_extras)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.family.has("cdf"):
            raise BadArgument(f"Censored needs a family with a cdf; {self.family} has none.")

    @property
    def measure(self) -> str:
        return "mass" if self.family.measure == "mass" else "mixed"

    def lacking(self, given: Container[str]) -> str | None:
        if "event" in given:
            return super().lacking(given)
        return 'what was seen of each row: in a formula Surv(time, event) ~ …; elsewhere "event", 1 where it happened'

    def _needs(self, name: str, extras: Mapping[str, Tensor]) -> Tensor | bool:
        return name == "event" if name != "upper" else extras["event"] == 3

    def _seen(self, y: Tensor, extras: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """event, upper (NaN where there is none) and entry (None where no row has one)."""
        if "event" not in extras:
            raise BadArgument(f"{self} needs {self.lacking(())}.")
        entry = extras.get("entry")
        entry = None if entry is None else torch.where(torch.isnan(entry), -torch.inf, entry)
        return extras["event"], extras.get("upper", torch.full_like(y, torch.nan)), entry

    def _log_prob(
        self, y: Tensor, log_p: LogProb, theta: Sequence[Tensor], extras: Mapping[str, Tensor]
    ) -> Tensor:
        event, upper, entry = self._seen(y, extras)
        inner = self.inner(extras)
        exact, right, left = event == 1, event == 0, event == 2
        low = torch.where(exact | left, -torch.inf, y)
        high = torch.where(
            exact | right, torch.inf, torch.where(left, y, torch.where(event == 3, upper, torch.nan))
        )
        low = low if entry is None else torch.maximum(low, entry)
        partly = log_between(self.family, low, high, theta, inner)
        value = torch.where(exact, log_p(torch.where(exact, y, somewhere(self.support))), partly)
        if entry is None:
            return value
        possible = ~torch.isneginf(value) & ~(exact & (y <= entry))
        return torch.where(possible, value - log_tail(self.family, entry, True, theta, inner), -torch.inf)

    def log_prob(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._log_prob(
            y, lambda v: self.family.log_prob(v, *parameters, **self.inner(extras)), parameters, extras
        )

    def log_prob_eta(self, y: Tensor, *eta: Tensor, **extras: Tensor) -> Tensor:
        theta = self.natural(eta)
        return self._log_prob(
            y, lambda v: self.family.log_prob_eta(v, *eta, **self.inner(extras)), theta, extras
        )

    def sample(
        self, *parameters: Tensor, generator: torch.Generator | None = None, **extras: Tensor
    ) -> Tensor:
        return self.family.sample(*parameters, generator=generator, **self.inner(extras))

    def expectation(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.family.expectation(*parameters, **self.inner(extras))

    def variance(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.family.variance(*parameters, **self.inner(extras))

    def cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.family.cdf(y, *parameters, **self.inner(extras))

    def log_cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.family.log_cdf(y, *parameters, **self.inner(extras))

    def log_survival(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.family.log_survival(y, *parameters, **self.inner(extras))

    def quantile(self, q: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.family.quantile(q, *parameters, **self.inner(extras))

    def in_support(self, y: Tensor, **extras: Tensor) -> Tensor:
        """Whether the row's interval has a positive probability; with the bounds that the extras of the
        family inside give."""
        event, upper, entry = self._seen(y, extras)
        s, inner = self.support, self.inner(extras)
        y_next = torch.floor(y) + 1 if s.integer else torch.nextafter(y, torch.full_like(y, torch.inf))

        def reached(end: Tensor) -> Tensor:  # F(end) > 0
            atom = (self.family.measure != "density") | (end > s.low)
            return (end >= s.high) | (
                self.family.in_support(torch.floor(end) if s.integer else end, **inner) & atom
            )

        above = (y < s.low) | self.family.in_support(y_next, **inner)  # S(y) > 0
        interval = above & reached(upper) & (upper >= y_next)
        partly = ((event == 0) & above) | ((event == 2) & reached(y)) | ((event == 3) & interval)
        inside = torch.where(event == 1, self.family.in_support(y, **inner), torch.isfinite(y) & partly)
        return inside if entry is None else inside & (torch.where(event == 3, upper, y) > entry)

    def start(self, y: Tensor, weight: Tensor, **extras: Tensor) -> tuple[float, ...]:
        event, upper, _ = self._seen(y, extras)
        middle = torch.where(torch.isfinite(upper) & (event == 3), (y + upper) / 2, y)
        middle = torch.floor(middle) if self.support.integer else middle
        return self.inner_start(middle, weight, self.family.in_support(middle, **self.inner(extras)), extras)
