"""Robust regression: maximise Σ log StudentT(y | xβ, σ, ν)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit(
        "loss ~ air_flow + water_temperature + acid", th.data.shipped("stackloss"), family="student_t"
    )
    truth = known("air flow", found.estimates["air_flow"], 0.85, "Lange et al. 1989", 5e-3)
    return of_fit(found, "robust regression", "stack loss, 21 days", "Σ log StudentT(y | xβ, σ, ν)", truth)


if __name__ == "__main__":
    print(run())
