"""Marginal means: of a Poisson regression, the rate of each type at the mean of the others, and their ratios."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit(
        "incidents ~ type + built + period + offset(log(service))",
        th.data.shipped("ships"),
        family="poisson",
    )
    pairs = found.means("type", pairs=True).frame.set_index("contrast")
    p = float(pairs.loc["B / E", "p_value"])
    truth = known("Tukey's p of type B / type E", p, 0.000116127504, "R emmeans", 5e-10)
    return of_fit(
        found,
        "marginal means",
        "wave damage, 34 classes of ship",
        "Σ log Poisson(y | months · e^(xβ))",
        truth,
    )


if __name__ == "__main__":
    print(run())
