"""Where a parameter lives, which linear predictors lead there, and what a family says elsewhere.

    low ≤ g⁻¹(η) ≤ high      as an interval of η: a fit keeps every row there, and log p = −∞ beyond

A closed end belongs to the range: a Poisson mean of 0 makes y = 0 certain. A family's own formula is not
asked there, where it is 0 · ∞, but at the next number that it can work with, 10⁻¹⁰³ away: the value to every
digit, and the one-sided slope.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BadArgument
from ..types import Levels, Plain, Settings
from .links import Link
from .recorder import record

ROUNDING = 1e-10  # η no further beyond a closed end is that end: a fit that stands on it is there to rounding


@dataclass(frozen=True)
class Range:
    """The interval from low to high in which a parameter lives; an end belongs to it where `closed` says
    so."""

    low: float = -math.inf
    high: float = math.inf
    closed: tuple[bool, bool] = (False, False)

    def contains(self, value: Tensor) -> Tensor:
        above = (value >= self.low) if self.closed[0] else (value > self.low)
        below = (value <= self.high) if self.closed[1] else (value < self.high)
        return above & below

    @property
    def middle(self) -> float:
        """A value well inside."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return (self.low + self.high) / 2
        return self.low + 1.0 if math.isfinite(self.low) else min(0.0, self.high - 1.0)

    def __str__(self) -> str:
        return f"{'[' if self.closed[0] else '('}{self.low:g}, {self.high:g}{']' if self.closed[1] else ')'}"


real, positive, unit = Range(), Range(0.0, math.inf), Range(0.0, 1.0)
positive_or_infinite = Range(0.0, math.inf, (False, True))
nonnegative, probability = Range(0.0, math.inf, (True, False)), Range(0.0, 1.0, (True, True))


@dataclass(frozen=True)
class Limits:
    """The interval of a number v (η, or θ itself) that leads into a range.

    Parameters
    ----------
    low, high
        the interval
    closed
        whether each end belongs to it
    ends
        whether each end is an end of the *range*, and which: 1 the high one, −1 the low one, 0 neither
    middle
        a v well inside
    """

    low: float
    high: float
    closed: tuple[bool, bool]
    ends: tuple[int, int]
    middle: float

    @property
    def finite(self) -> bool:
        """Whether any v is outside."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def outside(self, v: Tensor) -> Tensor:
        below = (v < self.low - ROUNDING) if self.closed[0] else (v <= self.low)
        above = (v > self.high + ROUNDING) if self.closed[1] else (v >= self.high)
        if math.isinf(self.low) and math.isinf(self.high):
            return torch.zeros_like(v, dtype=torch.bool)
        return above if math.isinf(self.low) else below if math.isinf(self.high) else below | above

    def nearest(self, dtype: torch.dtype, times: float = 1.0) -> tuple[float, float]:
        """The v next to each closed end at which a family's formulas, their first and their second
        derivatives are finite."""
        tiny, eps = times * torch.finfo(dtype).tiny ** (1 / 3), times * torch.finfo(dtype).eps
        low, high = self.low, self.high
        if self.closed[0] and math.isfinite(low):
            low = tiny if low == 0 else low + eps * abs(low)
        if self.closed[1] and math.isfinite(high):
            high = -tiny if high == 0 else high - eps * abs(high)
        return low, high

    def at_end(self, v: Tensor) -> Tensor:
        """Whether v is at a closed end."""
        low, high = self.nearest(v.dtype)
        out = torch.zeros_like(v, dtype=torch.bool)
        if self.closed[0] and math.isfinite(self.low):
            out = out | (v <= low)
        return out | (v >= high) if self.closed[1] and math.isfinite(self.high) else out

    def beyond(self, v: Tensor) -> Tensor:
        """Whether v is NaN or past an end, an open end itself not counted: a scale that underflows to 0 keeps
        its limits."""
        return ~((v >= self.low - ROUNDING * self.closed[0]) & (v <= self.high + ROUNDING * self.closed[1]))

    def inside(self, v: Tensor, bad: Tensor) -> Tensor:
        """v, moved off a closed end, with a slope of 1 all the same; the middle where it is `bad`."""
        low, high = self.nearest(v.dtype, 2.0)  # a family inside this one is not at its end there
        moved = v + (v.detach().clamp(low, high) - v.detach()) if any(self.closed) else v
        return torch.where(bad, self.middle, moved)

    def rounded(self, v: Tensor) -> Tensor:
        """v, and the end itself where v is beyond it by rounding alone."""
        if not self.finite or not any(self.closed):
            return v
        return torch.where(
            self.outside(v),
            v,
            v.clamp(*(e if c else None for e, c in zip((self.low, self.high), self.closed, strict=True))),
        )


@functools.lru_cache(maxsize=1024)
def limits(range: Range, link: Link) -> Limits:
    """The linear predictors that a link maps into a range.

    Raises
    ------
    BadArgument
        none is
    """
    low, high = link.within(range.low, range.high)
    if not low < high:
        raise BadArgument(f"the link {link} leads to no value of {range}.")
    closed, ends = [], []
    for end, at in ((low, 0), (high, 1)):
        side = at if link.increasing else 1 - at  # of the range
        edge = (range.low, range.high)[side]
        value = (
            float(link.inverse(torch.tensor(end, dtype=torch.float64))) if math.isfinite(end) else math.inf
        )
        reached = value == edge or (math.isfinite(edge) and abs(value - edge) <= 1e-12 * (1 + abs(edge)))
        closed.append(math.isfinite(end) and (range.closed[side] if reached else math.isfinite(value)))
        ends.append((1 if side else -1) if reached and math.isfinite(edge) else 0)
    a, b = max(range.low, link.image[0]), min(range.high, link.image[1])
    middle = float(link(torch.tensor(Range(a, b).middle, dtype=torch.float64)))
    return Limits(low, high, (closed[0], closed[1]), (ends[0], ends[1]), middle)


# ---- what a family says outside ----------------------------------------------------------------------------


def _enclosed(
    family: Plain,
    y: Tensor | None,
    values: Sequence[Tensor],
    found: Sequence[Limits],
    extras: dict[str, Tensor],
) -> tuple[list[Tensor], Tensor | None]:
    """The values, moved inside their limits; and where no y, or not this y, is possible (None: nowhere).
    Without y, open ends stay."""
    out, lost = list(values), None
    for j, (v, limit) in enumerate(zip(values, found, strict=False)):
        if not limit.finite:
            continue
        v = torch.as_tensor(v)
        bad = limit.beyond(v) if y is None else limit.outside(v)
        for at, sign in ((0, -1), (1, 1)):
            if y is not None and limit.closed[at] and limit.ends[at] != 0:
                here = (v - limit.nearest(v.dtype)[at]) * sign >= 0
                bad = bad | (here & family.impossible(y, j, limit.ends[at] > 0, **extras))
        out[j] = limit.inside(v, bad)
        lost = bad if lost is None else lost | bad
    return out, lost


def _split(family: Plain, args: Levels, kwargs: Settings) -> tuple[list[Tensor], Settings]:
    """The parameters, given by place or by name, and the extras by name."""
    names, extras = list(family.parameters), list(family.extras)
    values, rest = list(args[: len(names)]), args[len(names) :]
    kwargs = dict(kwargs)
    values += [kwargs.pop(name) for name in names[len(values) :] if name in kwargs]
    return values, kwargs | dict(zip(extras, rest, strict=False))


def _log_prob(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(method)
    def within(self: Plain, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        ranges = self._ranges
        if not any(each.finite for each in ranges):
            return method(self, y, *args, **kwargs)
        values, extras = _split(self, args, kwargs)
        moved, lost = _enclosed(self, y, values, ranges, extras)
        value = method(self, y, *moved, **extras)
        return record(self, y, tuple(values), value if lost is None else torch.where(lost, -torch.inf, value))

    return within


def _log_prob_eta(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(method)
    def within(self: Plain, y: Tensor, *eta: Tensor, **extras: Tensor) -> Tensor:
        found = self._limits
        if found is None:
            return method(self, y, *eta, **extras)
        values, lost = _enclosed(self, y, eta, found, extras)
        value = method(self, y, *values, **extras)
        return value if lost is None else torch.where(lost, -torch.inf, value)

    return within


def _unknown(method: Callable[..., Tensor], of_y: bool) -> Callable[..., Tensor]:
    """A function that is NaN where a parameter is outside its range; its first argument is y or q if
    `of_y`."""

    @functools.wraps(method)
    def within(self: Plain, *args: Any, **kwargs: Any) -> Tensor:
        ranges = self._ranges
        if not any(each.finite for each in ranges):
            return method(self, *args, **kwargs)
        values, extras = _split(self, args[of_y:], kwargs)
        moved, lost = _enclosed(self, None, values, ranges, extras)
        if not of_y:  # a moment at an end of the range is that of the end
            moved = [
                torch.where(limit.beyond(v), m, v) for v, m, limit in zip(values, moved, ranges, strict=False)
            ]
        out = method(self, *args[:of_y], *moved, **extras)
        if lost is None or not bool(lost.any()):
            return out
        return torch.where(
            lost[(...,) + (None,) * (out.ndim - lost.ndim)] if lost.ndim else lost, torch.nan, out
        )

    return within


def _sample(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(method)
    def within(self: Plain, *args: Any, **kwargs: Any) -> Tensor:
        if not any(each.finite for each in self._ranges):
            return method(self, *args, **kwargs)
        values, extras = _split(self, args, kwargs)
        for (name, parameter), limit, v in zip(self.parameters.items(), self._ranges, values, strict=False):
            bad = limit.beyond(v).reshape(-1)
            if limit.finite and bool(bad.any()):
                row, others = int(bad.int().argmax()), int(bad.sum()) - 1
                raise BadArgument(
                    f"row {row} has {name} = {float(v.reshape(-1)[row]):g}, which is outside its range "
                    f"{parameter.range}: {self} has no "
                    f"draw there{f', nor at {others} other rows' if others else ''}."
                )
        values, _ = _enclosed(self, None, values, self._ranges, extras)
        return method(self, *values, **extras)

    return within


def _start(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def within(self: Plain, *args: Any, **kwargs: Any) -> tuple[float, ...]:
        middle = tuple(p.range.middle for p in self.parameters.values())
        try:
            found = tuple(method(self, *args, **kwargs))
        except (OverflowError, ZeroDivisionError):  # of moments beyond float64
            return middle
        return tuple(v if math.isfinite(v) else m for v, m in zip(found, middle, strict=True))

    return within


guarded: dict[str, Callable[[Callable[..., Tensor]], Callable[..., Tensor]]] = {
    "log_prob": _log_prob,
    "log_prob_eta": _log_prob_eta,
    "sample": _sample,
    "start": _start,
    **{
        name: functools.partial(_unknown, of_y=True)
        for name in ("cdf", "log_cdf", "log_survival", "quantile")
    },
    **{name: functools.partial(_unknown, of_y=False) for name in ("expectation", "variance")},
}
