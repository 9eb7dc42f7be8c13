"""Robust line, by density power: maximise Σ (p^β − 1)/β − ∫ p^(1+β)/(1+β)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known


def run(quick: bool = False) -> Row:
    found = th.fit("calls ~ year", th.data.shipped("phones"), robust=th.DensityPower(0.5))
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


if __name__ == "__main__":
    print(run())
