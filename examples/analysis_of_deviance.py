"""Analysis of deviance: each term against the maximum without it, 2(ℓ − ℓ₀)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit(
        "incidents ~ type + built + period + offset(log(service))",
        th.data.shipped("ships"),
        family="poisson",
    )
    statistic = found.anova(2).loc["built", "statistic"]
    truth = known("likelihood ratio of the year built", statistic, 31.40789, "R, car 3.1-1", 1e-5)
    return of_fit(
        found,
        "analysis of deviance",
        "wave damage, 34 classes of ship",
        "Σ log Poisson(y | months · e^(xβ)), with and without a term",
        truth,
    )


if __name__ == "__main__":
    print(run())
