"""What a publication would have reported, had it erred in one of the known ways; and which errors a claim
shows.

    claimed = (−log p + what is left out) / (dimensions counted · unit of the logarithm)

References
----------
Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models; Ho, Jain and Abbeel
(2020), Denoising diffusion probabilistic models, eq. 14 (the loss that is no bound).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import torch
from torch import Tensor

from ..errors import BadArgument
from ..evaluation.score import Score
from ..types import Plain
from .evaluated import Values
from .scaling import Fault, Scaling

NO_NOISE = "no noise"
SCALING = "scaling forgotten"
LEVELS = "levels off by one"
NATS = "natural logarithm"
IMAGE = "not divided by the dimensions"
CHANNELS = "channels forgotten"
LOSS = "training loss"
UNEXPLAINED = "claim not reproduced"
SPIKE = 0.5  # bits per dimension by which a density at whole numbers stands above its cells
AMBIGUOUS = "claim reproduced in several ways"

SENTENCES = {
    NO_NOISE: "The density was evaluated at whole numbers, without the noise of dequantisation. That is a density and "
    "not a mass: it has no lower bound in bits, and is no code length.",
    SCALING: "The log-determinant of the scaling is left out. The figure is a density per unit of the scaled image, "
    "quoted as if it were the mass of a level.",
    LEVELS: "The log-determinant belongs to another number of levels (division by L in place of L − 1, or the "
    "reverse) than the scaling has.",
    NATS: "Nats are quoted as bits: the division by log 2 is missing.",
    IMAGE: "The figure is that of a whole image: it is not divided by the number of dimensions.",
    CHANNELS: "The figure is divided by the pixels of one channel, H × W, and not by all C × H × W dimensions.",
    LOSS: "The mean squared error of training is quoted. It weights the terms of the bound anew and leaves others "
    "out: it is neither a likelihood nor a bound of one.",
}


@dataclass(frozen=True)
class Variant:
    """The figure that the same model would have been reported at, with these faults (none: the audit's own).

    Parameters
    ----------
    faults
        their names
    bits
        "bits per dimension", as it would have been printed
    error
        its standard error over images
    """

    faults: tuple[str, ...]
    bits: float
    error: float

    @property
    def name(self) -> str:
        return " + ".join(self.faults)


def variants(values: Values, shape: Sequence[int], levels: int, scaling: Scaling | None) -> list[Variant]:
    """Every combination of the faults that this model and these images allow, the one without any first."""
    d = math.prod(shape)
    off = _off_by_one(scaling, levels)
    bases: list[tuple[tuple[str, ...], Tensor, Tensor | None]] = [((), values.mass, values.change)]
    if values.bare is not None and bool(torch.isfinite(values.bare).all()):
        bases.append(((NO_NOISE,), values.bare, values.bare_change))
    measured: list[tuple[tuple[str, ...], Tensor]] = []
    for names, value, change in bases:
        measured.append((names, value))
        if change is not None and bool((change != 0).any()):
            measured.append(((*names, SCALING), value - change))
        if change is not None and off is not None:
            measured.append(((*names, LEVELS), value + d * off))
    units = [((), math.log(2)), ((NATS,), 1.0)]
    counted: list[tuple[tuple[str, ...], int]] = [((), d)]
    if len(shape) == 3 and shape[0] > 1:
        counted.append(((CHANNELS,), d // shape[0]))
    if d > 1:
        counted.append(((IMAGE,), 1))
    found = [
        _variant((*names, *unit, *count), -value / (base * divisor))
        for (names, value), (unit, base), (count, divisor) in itertools.product(measured, units, counted)
    ]
    if values.loss is not None:
        found.append(_variant((LOSS,), values.loss))
        if d > 1:
            found.append(_variant((LOSS, IMAGE), values.loss * d))
    return found


def _variant(faults: tuple[str, ...], figures: Tensor) -> Variant:
    error = float(figures.std()) / len(figures) ** 0.5 if len(figures) > 1 else math.nan
    return Variant(faults, float(figures.mean()), error)


def _off_by_one(scaling: Scaling | None, levels: int) -> float | None:
    """What a log-determinant with L for L − 1, or the reverse, adds, nats a dimension; None where the scaling
    is by neither."""
    if scaling is None or scaling.slope is None:
        return None
    ratios = (scaling.slope.abs() * width / 2**k for width in (levels - 1, levels) for k in (0, 1))
    by = [bool((ratio - 1).abs().max() < 1e-9) for ratio in ratios]
    step = math.log1p(1 / (levels - 1))  # log L/(L − 1)
    return -step if any(by[:2]) else step if any(by[2:]) else None


# ---- a claim -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A published figure, and what it is taken to be.

    Parameters
    ----------
    value
        bits per dimension, as published
    rounding
        half a unit of its last decimal place
    error
        how far from it a figure may lie to agree; None: the rounding and two standard errors over images
    """

    value: float
    rounding: float
    error: float | None

    def agrees(self, variant: Variant) -> bool:
        sampling = 0.0 if math.isnan(variant.error) else 2 * variant.error
        return abs(variant.bits - self.value) <= (
            self.rounding + sampling if self.error is None else self.error
        )


def claim_of(claimed: Plain, error: Plain) -> Claim | None:
    """A claim as a number or as text; "3.70" has two decimal places, 3.7 one.

    Raises
    ------
    BadArgument
    """
    if claimed is None:
        if error is not None:
            raise BadArgument(f"claimed_error={error!r} without claimed=.")
        return None
    try:
        exact = Decimal(str(claimed).replace("−", "-"))
        exponent = exact.as_tuple().exponent
        if not isinstance(exponent, int):
            raise ValueError("not finite")
        value = float(exact)
    except (InvalidOperation, ValueError) as wrong:
        raise BadArgument(
            f"claimed={claimed!r}. Accepted: bits per dimension, a finite number or its text ('3.70')."
        ) from wrong
    if error is not None and not (isinstance(error, (int, float)) and 0 <= error < math.inf):
        raise BadArgument(f"claimed_error={error!r}. Accepted: a number of bits per dimension, 0 or more.")
    return Claim(value, 0.5 * 10.0**exponent, None if error is None else float(error))


def explained(claim: Claim, found: Sequence[Variant]) -> tuple[Variant, ...]:
    """The variants that agree with a claim and have the fewest faults, the nearest first."""
    agreeing = [v for v in found if claim.agrees(v)]
    fewest = min((len(v.faults) for v in agreeing), default=0)
    return tuple(
        sorted((v for v in agreeing if len(v.faults) == fewest), key=lambda v: abs(v.bits - claim.value))
    )


def faults_of(claim: Claim, found: Sequence[Variant]) -> tuple[Fault, ...]:
    """What a claim shows: no fault, those of the one combination that reproduces it, or that none or several
    do."""
    how, true = explained(claim, found), found[0].bits
    if not how:
        nearest = min(found, key=lambda v: abs(v.bits - claim.value))
        named = f"with '{nearest.name}'" if nearest.faults else "without any"
        impossible = " The mass of a whole number has no negative code length." if claim.value < 0 else ""
        return (
            Fault(
                UNEXPLAINED,
                f"No combination of the faults that are checked gives the claim. The nearest figure, {named}, is "
                f"{number(nearest.bits)}.{impossible}",
                claim.value - true,
            ),
        )
    if len(how) > 1:
        ways = "; or ".join(f"'{v.name}' ({number(v.bits)})" for v in how)
        return (
            Fault(
                AMBIGUOUS, f"These cannot be told apart within the claim's error: {ways}.", claim.value - true
            ),
        )
    by_names = {frozenset(v.faults): v.bits for v in found}
    (only,) = how
    out = []
    for name in only.faults:
        without = by_names.get(frozenset(only.faults) - {name}, true)
        out.append(Fault(name, SENTENCES[name], only.bits - without))
    return tuple(out)


# ---- a model -----------------------------------------------------------------------------------------------


def not_finite(lost: Tensor) -> Fault:
    first = int(torch.nonzero(lost)[0, 0])
    text = (
        f"The model's log-probability is NaN or +∞ for {int(lost.sum())} of {len(lost)} images that were scored, the "
        f"first of them image {first}."
    )
    return Fault("outputs not finite", text)


def of_model(found: list[Variant], score: Score, levels: int, *, spiky: bool) -> list[Fault]:
    out, bits = [], score.bits_per_dimension
    bare = next((v.bits for v in found if v.faults == (NO_NOISE,)), math.nan)
    if score.impossible:
        text = f"The model gives {score.impossible} of {score.n:g} images probability zero: no code is long enough."
        out.append(Fault("probability zero", text))
    elif bits > math.log2(levels):
        text = (
            f"{bits:.4f} is more than log2({levels}) = {math.log2(levels):.4f}, which needs no model. Scaling and model "
            "probably do not belong together."
        )
        out.append(Fault("worse than uniform", text, bits - math.log2(levels)))
    elif spiky and bits - bare > SPIKE:
        text = (
            f"The density is {bits - bare:.2f} bits per dimension higher at whole numbers than within their cells: "
            "the model was fitted to images without noise, and its density there has no limit."
        )
        out.append(Fault("spikes at whole numbers", text, bare - bits))
    return out


def number(value: float) -> str:
    """Four decimal places, with a minus sign.

    Examples
    --------
    >>> number(-0.61)
    '−0.6100'
    """
    return f"{value:.4f}".replace("-", "−")
