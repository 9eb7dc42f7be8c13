"""A fit for another population than its rows came from, and how far a fit is from the best possible: each
beside a figure that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ..data.frame import Frame
from ..data.shipped import shipped
from ..evaluation.divergence import cross_entropy, entropy
from ..evaluation.shift import density_ratio
from ..fit import fit
from ..likelihood.weights import Importance
from .row import Row, known, of_fit


def covariate_shift(quick: bool) -> Row:
    """A line through y = x², x ~ N(0, 1), wanted where x ~ N(1, ½²): there the nearest line is −¾ + 2x."""
    rng = np.random.default_rng(1)
    n = 5_000 if quick else 20_000
    x = rng.normal(size=n)
    old, new = {"x": x, "y": x**2 + 0.3 * rng.normal(size=n)}, {"x": rng.normal(1.0, 0.5, n)}
    ratio = density_ratio(old, new, "x + I(x**2)")
    found = fit("y ~ x", old, weights=Importance(ratio))
    truth = known("slope", found.estimates["x"], 2.0, "closed form", 0.1 if quick else 0.05)
    data = f"{n:,} rows that weigh like {ratio.n_eff:,.0f}"
    return of_fit(
        found, "covariate shift", data, "Σ w log Normal(y | a + bx, σ),  w = p_new(x)/p_old(x)", truth
    )


def divergence(quick: bool) -> Row:
    """Mites on leaves, by a Poisson: its mean negative log-likelihood is the leaves' entropy and a
    divergence, which the maximum makes least."""
    mites = shipped("mites")
    found = fit("mites ~ 1", mites, family="poisson", weights="leaves")
    table = Frame(mites).read(["mites", "leaves"])
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


SYSTEMS: dict[str, Callable[[bool], Row]] = {
    "covariate shift": covariate_shift,
    "least divergence": divergence,
}
