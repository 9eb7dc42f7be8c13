"""Random effects: maximise log ∫ Π Normal(y | μ + b, σ) Normal(b | 0, s) db."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit

BATCHES = {  # Davies (1949): yields of 5 samples from each of 6 batches
    "A": (1545, 1440, 1440, 1520, 1580),
    "B": (1540, 1555, 1490, 1560, 1495),
    "C": (1595, 1550, 1605, 1510, 1560),
    "D": (1445, 1440, 1595, 1465, 1545),
    "E": (1595, 1630, 1515, 1635, 1625),
    "F": (1520, 1455, 1450, 1480, 1445),
}


def run(quick: bool = False) -> Row:
    table = {
        "batch": [name for name, own in BATCHES.items() for _ in own],
        "value": [float(v) for own in BATCHES.values() for v in own],
    }
    found = th.fit("value ~ 1 + (1 | batch)", table)
    truth = known(
        "sd of batches", found.estimates["sd(Intercept | batch)"], 37.260345, "R, lme4 1.1-31", 1e-5
    )
    return of_fit(found, "random effects", "30 yields of dye", "log ∫ Π Normal(y | b) Normal(b) db", truth)


if __name__ == "__main__":
    print(run())
