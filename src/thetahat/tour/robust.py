"""Fits that some rows are not to decide: density power, trimmed likelihood."""

from __future__ import annotations

from collections.abc import Callable

from ..data.shipped import shipped
from ..fit import fit
from ..likelihood import DensityPower, Trimmed
from .row import Row, known


def density_power(quick: bool) -> Row:
    found = fit("calls ~ year", shipped("phones"), robust=DensityPower(0.5))
    truth = known("slope", found.estimates["year"], 1.098, "R rlm, bisquare: a kindred estimator", 5e-3)
    return Row(
        "robust line, by density power",
        "Belgian telephone calls, 24 years",
        "Σ (p^β − 1)/β − ∫ p^(1+β)/(1+β)",
        "sum of H_β",
        found.trace[0][1],
        found.maximised,
        str(found.certificate),
        *truth,
    )


def trimmed(quick: bool) -> Row:
    found = fit("loss ~ air_flow + water_temperature + acid", shipped("stackloss"), robust=Trimmed(17 / 21))
    truth = known("air flow", found.estimates["air_flow"], 0.7977, "R robustbase, ltsReg", 5e-5)
    return Row(
        "trimmed likelihood",
        "stack loss, 17 of 21 days",
        "Σ of the h largest log Normal(y | xβ, σ)",
        "nats of the rows kept",
        found.trace[0][1],
        found.maximised,
        str(found.certificate),
        *truth,
    )


SYSTEMS: dict[str, Callable[[bool], Row]] = {
    "robust line, by density power": density_power,
    "trimmed likelihood": trimmed,
}
