"""Mixture, by EM: maximise Σ log Σ_k π_k Normal(y | μ_k, Σ_k)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    found = th.fit(th.models.Mixture(th.families.MultivariateNormal(2), 2), th.data.shipped("faithful"))
    truth = known("BIC", found.criteria["BIC"], 2322.192, "R mclust", 5e-4)
    return of_fit(
        found, "mixture, by EM", "Old Faithful, 272 eruptions", "Σ log Σ_k π_k Normal(y | μ_k, Σ_k)", truth
    )


if __name__ == "__main__":
    print(run())
