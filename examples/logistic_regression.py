"""Logistic regression: maximise Σ log Bernoulli(y | σ(a + bx))."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit("distress ~ temperature", th.data.shipped("orings"), family="bernoulli")
    truth = known("slope", found.estimates["temperature"], -0.2322, "R glm", 5e-5)
    return of_fit(
        found, "logistic regression", "shuttle O-rings, 23 flights", "Σ log Bernoulli(y | σ(a + bx))", truth
    )


if __name__ == "__main__":
    print(run())
