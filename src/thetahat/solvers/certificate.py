"""Certificate: what is known of an answer, and how it is known.

    λ = √(gᵀ J⁻¹ g)      the Newton decrement: how many standard errors the maximum of the quadratic model is away
    λ² / 2               how many nats it is higher

Near a maximum the quadratic model is the function to O(λ³/√n), so a decrement of 10⁻⁸ leaves nothing that a
reader could see. Where log p is concave in θ, a stationary point is a global maximum, and the certificate
says so; elsewhere it is a local one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ..notebook import block
from ..printable import encoded, printable
from ..types import Settings

STATUSES = {
    "certified maximum": "the gradient vanishes and the information is positive definite",
    "boundary": "the maximum lies at the boundary of a parameter, where the family becomes a simpler one",
    "stationary point": "the gradient vanishes, but the information is not positive definite: not shown to be a maximum",
    "flat direction": "the data say nothing about some direction: the maximum is not one point",
    "no maximum": "the likelihood grows for ever along a direction",
    "not converged": "the solver stopped before anything could be shown",
    "stochastic": "stochastic ascent: a trend on held-out data, no certificate",
}
ANSWERS = ("certified maximum", "boundary", "stochastic")


@dataclass(frozen=True)
class Certificate:
    """What is known of θ̂.

    Parameters
    ----------
    status
        one of `STATUSES`
    nats
        λ²/2, how much higher the maximum of the quadratic model at θ̂ is: the gap to the maximum where the
        status is a certified one, and proof of nothing where it is "not converged"
    standard_errors
        λ, how far from it θ̂ is
    concave
        whether the maximum is global because log p is concave
    rank, size
        of the information, and of θ
    directions
        for a flat direction or no maximum: coefficient name → its part of the direction
    rows
        the rows that are separated, counted from 0
    boundary
        parameter → the simpler model that the data ask for
    detail
        one sentence more
    steps, passes
        iterations, and passes over the data
    trend
        for stochastic ascent: held-out nats per term (first, best, standard error)
    zeros
        how many coefficients stand exactly where their prior has its kink
    advice
        what to do, where the solver knows better than its status says
    """

    status: str
    nats: float | None = None
    standard_errors: float | None = None
    concave: bool = False
    rank: int | None = None
    size: int | None = None
    directions: tuple[dict[str, float], ...] = ()
    rows: tuple[int, ...] = ()
    boundary: dict[str, str] = field(default_factory=dict)
    detail: str = ""
    steps: int = 0
    passes: int = 0
    trend: tuple[float, float, float] | None = None
    zeros: int | None = None
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether θ̂ can be used as the maximum-likelihood estimate (or, if stochastic, was never claimed
        to be one)."""
        return self.status in ANSWERS

    @encoded
    def __str__(self) -> str:
        if self.status == "stochastic":
            return printable(f"stochastic: no certificate. {self.detail}".strip())
        parts = [
            self.status
            if self.status != "certified maximum"
            else f"certified {'global' if self.concave else 'local'} maximum"
        ]
        if self.nats is not None:
            errors = (
                "" if self.standard_errors is None else f" ({_number(self.standard_errors)} standard errors)"
            )
            # λ²/2 is the gap only near a maximum: elsewhere it is what the quadratic model at this one point
            # promises
            what = (
                "gap to the maximum"
                if self.ok
                else "by the local quadratic model, which proves nothing here, a gap of"
            )
            parts.append(f"{what} {_number(self.nats)} nats{errors}")
        for parameter, limit in self.boundary.items():
            parts.append(f"{parameter} is at its boundary, where the model is {limit}")
        return printable("; ".join(parts) + (f". {self.detail}" if self.detail else ""))

    def _repr_html_(self) -> str:
        directions = [f"Direction: {direction_text(d)}." for d in self.directions]
        return block(str(self), notes=[*directions, self.advice])

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def direction_text(direction: dict[str, float], most: int = 6) -> str:
    """A direction of θ as it would be written: 1.00·x − 4.50·z."""
    shown = sorted(direction.items(), key=lambda item: -abs(item[1]))[:most]
    out = ""
    for name, value in shown:
        sign = (" − " if value < 0 else " + ") if out else ("−" if value < 0 else "")
        out += sign + (f"{abs(value):.3g}" if name == "Intercept" else f"{abs(value):.3g}·{name}")
    return out + (f" … ({len(direction)} coefficients)" if len(direction) > most else "")


def _number(x: float) -> str:
    return "0" if x == 0 else f"{x:.1e}" if abs(x) < 1e-3 else f"{x:.3g}"
