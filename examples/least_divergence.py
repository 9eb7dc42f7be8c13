"""Least divergence: maximise −n·(H(data) + KL(data ‖ Poisson(μ)))."""

from __future__ import annotations

import dataclasses

import numpy as np

import thetahat as th
from thetahat.evaluation.divergence import cross_entropy, entropy
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    """Mites on leaves, by a Poisson: its mean negative log-likelihood is the leaves' entropy and a
    divergence, which the maximum makes least."""
    mites = th.data.shipped("mites")
    found = th.fit("mites ~ 1", mites, family="poisson", weights="leaves")
    table = th.data.Frame(mites).read(["mites", "leaves"])
    leaf = np.repeat(table["mites"].to_numpy(), table["leaves"].to_numpy())
    m = found.estimates["Intercept"]
    least = cross_entropy(leaf, ("poisson", float(np.exp(m)))).value - entropy(leaf, method="plug_in").value
    truth = known("divergence", found.lack_of_fit().value, least, "cross-entropy − entropy", 1e-6)
    row = of_fit(
        found, "least divergence", "mites on 150 leaves", "−n·(H(data) + KL(data ‖ Poisson(μ)))", truth
    )
    return dataclasses.replace(
        row, before=-len(leaf) * cross_entropy(leaf, ("poisson", 1.0)).value
    )  # the run begins at the maximum


if __name__ == "__main__":
    print(run())
