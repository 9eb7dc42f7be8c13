"""Negative binomial: maximise Σ w log NegativeBinomial(y | μ, α)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit("mites ~ 1", th.data.shipped("mites"), family="negative_binomial", weights="leaves")
    truth = known("k", 1 / found.estimates["dispersion"], 1.02459, "Bliss and Fisher 1953", 1e-5)
    return of_fit(
        found, "negative binomial", "mites on 150 leaves", "Σ w log NegativeBinomial(y | μ, α)", truth
    )


if __name__ == "__main__":
    print(run())
