"""Linear regression: maximise Σ log Normal(y | a + bx, σ)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit("y ~ x", th.data.shipped("norris"))
    truth = known("slope", found.estimates["x"], 1.00211681802045, "NIST", 1e-14)
    return of_fit(found, "linear regression", "calibration, 36 rows", "Σ log Normal(y | a + bx, σ)", truth)


if __name__ == "__main__":
    print(run())
