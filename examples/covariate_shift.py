"""Covariate shift: maximise Σ w log Normal(y | a + bx, σ),  w = p_new(x)/p_old(x)."""

from __future__ import annotations

import numpy as np

import thetahat as th
from thetahat.evaluation.shift import density_ratio
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    """A line through y = x², x ~ N(0, 1), wanted where x ~ N(1, ½²): there the nearest line is −¾ + 2x."""
    rng = np.random.default_rng(1)
    n = 5_000 if quick else 20_000
    x = rng.normal(size=n)
    old, new = {"x": x, "y": x**2 + 0.3 * rng.normal(size=n)}, {"x": rng.normal(1.0, 0.5, n)}
    ratio = density_ratio(old, new, "x + I(x**2)")
    found = th.fit("y ~ x", old, weights=th.weights.Importance(ratio))
    truth = known("slope", found.estimates["x"], 2.0, "closed form", 0.1 if quick else 0.05)
    data = f"{n:,} rows that weigh like {ratio.n_eff:,.0f}"
    return of_fit(
        found, "covariate shift", data, "Σ w log Normal(y | a + bx, σ),  w = p_new(x)/p_old(x)", truth
    )


if __name__ == "__main__":
    print(run())
