"""Numbers and certificates, as a reader meets them: every face of the report takes its words from here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..solvers.certificate import Certificate, direction_text
from ..types import Levels

MINUS = "−"
ABSENT = "—"


def number(x: float | None, digits: int = 4) -> str:
    """x to so many significant digits; a power of ten where it is very small or very large.

    Examples
    --------
    >>> number(-0.0123456), number(1234567.0), number(6.6e-30, 2)
    ('−0.01235', '1,234,567', '6.6e−30')
    """
    if x is None or math.isnan(x):
        return ABSENT
    if x == 0 or math.isinf(x):
        return {0.0: "0", math.inf: "∞", -math.inf: f"{MINUS}∞"}[x]
    if not 1e-4 <= abs(x) < 1e9:
        return f"{x:.{digits - 1}e}".replace("-", MINUS)
    places = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{x:,.{places}f}".replace("-", MINUS)


def minuses(text: str) -> str:
    """Every sign of a number in a text as a minus; dashes within words and dates stay.

    Examples
    --------
    >>> minuses("slope -0.2322, 5.1e-26 nats, hh-rlhf, CartPole-v1, 1965-69")
    'slope −0.2322, 5.1e−26 nats, hh-rlhf, CartPole-v1, 1965-69'
    """
    return re.sub(r"(?<![\w)])-(?=[\d.])|(?<=\de)-(?=\d)", MINUS, text)


def count(x: float) -> str:
    """A number of things: whole where it is whole.

    Examples
    --------
    >>> count(32.0), count(20190), count(12.5)
    ('32', '20,190', '12.5')
    """
    return f"{int(x):,}" if float(x).is_integer() else f"{x:,.6g}"


def plural(n: float, one: str, many: str | None = None) -> str:
    """
    Examples
    --------
    >>> plural(1, "row"), plural(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count(n)} {one if n == 1 else (many or one + 's')}"


def nats(x: float) -> str:
    """A log-likelihood: four decimals, so that differences of a ten-thousandth show; fewer where the sum is
    large.

    Examples
    --------
    >>> nats(-12.889634222), nats(-1234567.891)
    ('−12.8896', '−1,234,567.89')
    """
    if not math.isfinite(x) or abs(x) < 1e-3:
        return number(x)
    return f"{x:,.{4 if abs(x) < 1e5 else 2}f}".replace("-", MINUS)


def probability(p: float | None) -> str:
    """A p-value: four decimals, or a power of ten below 10⁻⁴.

    Examples
    --------
    >>> probability(0.02534), probability(2.31e-7), probability(0.0)
    ('0.0253', '2.3e−07', '<1e−300')
    """
    if p is None or math.isnan(p):
        return ABSENT
    if p < 1e-300:
        return f"<1e{MINUS}300"
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}".replace("-", MINUS)


def statistic(z: float | None) -> str:
    """A z: two decimals, fewer where it is large."""
    if z is None or math.isnan(z):
        return ABSENT
    return f"{z:.2f}".replace("-", MINUS) if abs(z) < 1000 else number(z)


def places(standard_error: float | None, digits: int = 4) -> int | None:
    """How many decimals an estimate is worth: those of its standard error's `digits` significant ones. None:
    a power of ten instead.

    Examples
    --------
    >>> places(1.2629), places(0.00012), places(4.2e-9)
    (3, 7, None)
    """
    if standard_error is None or not math.isfinite(standard_error) or standard_error <= 0:
        return None
    found = max(0, digits - 1 - math.floor(math.log10(standard_error)))
    return found if found <= 7 else None


def fixed(x: float | None, decimals: int | None) -> str:
    """x with so many decimals, or to five significant digits where they are not known."""
    if x is None or math.isnan(x):
        return ABSENT
    if decimals is None or math.isinf(x) or abs(x) >= 1e7:
        return number(x, 5)
    return f"{x:.{decimals}f}".replace("-", MINUS)


def join(parts: Sequence[str], last: str = " and ") -> str:
    """
    Examples
    --------
    >>> join(["a", "b", "c"])
    'a, b and c'
    """
    return ", ".join(parts[:-1]) + last + parts[-1] if len(parts) > 1 else "".join(parts)


# ---- the certificate ---------------------------------------------------------------------------------------


def work(certificate: Certificate) -> str:
    """What the run took: "6 steps, 8 passes over the data"; empty if it is not known."""
    steps = [plural(certificate.steps, "step")] if certificate.steps else []
    passes = [plural(certificate.passes, "pass", "passes") + " over the data"] if certificate.passes else []
    return ", ".join(steps + passes)


def verdict(certificate: Certificate) -> str:
    """The certificate in one plain sentence.

    Examples
    --------
    >>> verdict(Certificate("certified maximum", nats=3e-20, standard_errors=1e-9, concave=True, steps=6, passes=8))
    'Certified global maximum: gap to the maximum 3.0e−20 nats, 1.0e−09 standard errors (6 steps, 8 passes over the data).'
    """
    c = certificate
    head = {
        "certified maximum": f"Certified {'global' if c.concave else 'local'} maximum",
        "boundary": "Maximum at a boundary",
        "stationary point": "Stationary point only: not shown to be a maximum",
        "flat direction": "No single maximum: the data say nothing about some direction",
        "no maximum": "No maximum: the likelihood grows for ever along a direction",
        "not converged": "Not converged: nothing is certified",
        "stochastic": "Stochastic ascent, no certificate",
    }.get(c.status, c.status.capitalize())
    parts = []
    if c.status in ("certified maximum", "boundary") and c.nats is not None and c.standard_errors is not None:
        parts.append(
            f"gap to the maximum {number(c.nats, 2)} nats, {number(c.standard_errors, 2)} standard errors"
        )
    if c.trend is not None:
        first, best, error = c.trend
        known = f" (standard error {number(error, 2)})" if math.isfinite(error) else ""
        parts.append(f"held-out {number(first)} → {number(best)} nats a term{known}")
    parts += [
        f"{parameter} is at its boundary, where the model is {limit}"
        for parameter, limit in c.boundary.items()
    ]
    took = work(c)
    return head + (": " if parts else "") + "; ".join(parts) + (f" ({took})" if took else "") + "."


def meaning(certificate: Certificate) -> str:
    """What the status says of θ̂, for a reader who has not met a certificate before."""
    c = certificate
    decrement = (
        "The distances are those of the quadratic model at θ̂: λ = √(gᵀJ⁻¹g) standard errors, from the "
        "gradient g and the information J "
        "of the whole data, and λ²/2 nats."
    )
    if c.status == "certified maximum" and c.zeros is not None:
        return (
            (
                "The objective is concave in θ, so no other θ has more of it. "
                if c.concave
                else "No θ nearby has more of the objective. "
            )
            + "The prior has a kink: a coefficient stands exactly there where the data's slope is less than the prior's on either side. The "
            "distances are what the quadratic model of the rest says is left."
        )
    if c.status == "certified maximum" and c.concave:
        return "log p is concave in θ, so no other θ makes these data more probable. " + decrement
    if c.status == "certified maximum":
        return (
            "The gradient vanishes and the information is positive definite: no θ nearby makes these data "
            "more probable. "
            "log p is not known to be concave in θ, so a higher maximum elsewhere is not excluded. "
            + decrement
        )
    return {
        "boundary": "The likelihood rises up to the end of a parameter's range. Standard errors and intervals of that parameter do not "
        "have their usual meaning there; those of the others are the simpler model's."
        if c.boundary
        else "The likelihood rises up to the edge of the coefficients that give every row parameters in their ranges: the multipliers say "
        "by how much, in nats for each unit of the linear predictor. On the edge the estimates have no "
        "standard errors.",
        "stationary point": "The gradient vanishes, but the information is not positive definite: θ̂ may be a saddle, or a maximum so flat "
        "that float64 cannot tell.",
        "flat direction": "Along that direction, every θ makes the data equally probable. Sums that do not move along it (predictions for "
        "rows like those fitted, for one) are determined; the coefficients that take part in it are not.",
        "no maximum": "Every larger multiple of that direction makes the data more probable. The numbers shown are where the run "
        "stopped, not an estimate.",
        "not converged": "The solver stopped before it could show anything. The numbers are where it stood, not an estimate.",
        "stochastic": "θ was moved by noisy gradients on batches: the answer is judged by its log-likelihood on data held out, not by a proof."
        if c.trend is not None
        else "θ was moved by noisy gradients on batches: the answer is judged by what it does, not by a proof.",
    }.get(c.status, "")


def advice(certificate: Certificate) -> str:
    """What to do if the answer is not certified; empty if it is."""
    if certificate.advice:
        return certificate.advice
    named = sorted(
        {name for direction in certificate.directions for name in direction if name != "Intercept"}
    )
    those = join(named[:4], " or ") if 0 < len(named) <= 4 else "one of the columns that take part"
    return {
        "boundary": "Report the simpler model, or test for it with the boundary's own reference distribution.",
        "stationary point": "Start from another θ, drop parameters that the data cannot tell apart, or put a prior on them.",
        "flat direction": f"Drop {those}, or put a prior on it (prior=th.priors.Normal(2.5), --prior normal:2.5).",
        "no maximum": "Put a prior on the coefficients (prior=th.priors.Normal(2.5), --prior normal:2.5), "
        f"drop {those}, or merge levels that hold one outcome only.",
        "not converged": "Look at the trace, rescale columns of very different size, allow more steps (solver=th.Newton(steps=…)), "
        "or start elsewhere.",
        "stochastic": "Look at the trend: if the last held-out value is the best, more steps may still gain; if it is not, stop earlier."
        if certificate.trend is not None
        else "Judge it by what it is for, in data or play of its own: what was maximised, weighted anew at every pass, need not rise.",
    }.get(certificate.status, "")


def explained(certificate: Certificate, most: int = 8) -> list[str]:
    """What stands below the verdict: the solver's own account where there is one, else directions, rows and
    what to do.

    Examples
    --------
    >>> explained(Certificate("flat direction", directions=({"x": 1.0, "z": -1.0},)))
    ['Direction: 1·x − 1·z.', 'Drop x or z, or put a prior on it (prior=th.priors.Normal(2.5), --prior normal:2.5).']
    """
    c = certificate
    out = [minuses(c.detail[:1].upper() + c.detail[1:])] if c.detail else []
    if c.detail and c.status in ("flat direction", "no maximum"):
        return out  # which names the direction, the rows and the way out
    out += [f"Direction: {direction_text(d)}." for d in c.directions]
    if c.rows:
        rows: Levels = c.rows
        shown = ", ".join(str(r) for r in rows[:most]) + (", …" if len(rows) > most else "")
        out.append(f"{plural(len(rows), 'row')} separated: {shown} (counted from 0).")
    return out + ([advice(c)] if advice(c) else [])


def held_out(certificate: Certificate) -> str:
    """What a training run reached on data held out; empty where none were."""
    if certificate.trend is None:
        return ""
    first, best, error = certificate.trend
    known = f" ± {number(error, 2)}" if math.isfinite(error) else ""
    unknown = "" if known else " (one group of terms: its error is not known)"
    return f"{number(best, 5)}{known} nats a term, from {number(first, 5)} at the start{unknown}"
