"""Poisson, with an offset: maximise Σ log Poisson(y | months · e^(xβ))."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit(
        "incidents ~ type + built + period + offset(log(service))",
        th.data.shipped("ships"),
        family="poisson",
    )
    truth = known("intercept", found.estimates["Intercept"], -6.40590, "R glm", 5e-6)
    return of_fit(
        found,
        "Poisson, with an offset",
        "wave damage, 34 classes of ship",
        "Σ log Poisson(y | months · e^(xβ))",
        truth,
    )


if __name__ == "__main__":
    print(run())
