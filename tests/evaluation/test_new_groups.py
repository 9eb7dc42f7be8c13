"""Scores of groups that a mixed fit has not seen, against the dense normal density, an integral, and the fit itself."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm, poisson

import thetahat as th

R = np.random.default_rng(3)
G = np.repeat(np.arange(16), 6)
DATA = pd.DataFrame({"x": R.random(96), "g": G, "h": G * 10 + np.tile([0, 1, 2], 32)})
DATA["y"] = (
    1 + 2 * DATA["x"] + R.normal(size=16)[G] * (0.7 + DATA["x"]) + 0.3 * R.normal(size=160)[DATA["h"]]
    + 0.4 * R.normal(size=96)
)  # fmt: skip
DATA["k"] = R.poisson(np.exp(0.4 + 0.5 * R.normal(size=16)[G]))
OLD, NEW = DATA[DATA["g"] < 12], DATA[DATA["g"] >= 12]


@pytest.mark.parametrize("reml", [False, True])
def test_new_groups_of_nested_factors_have_the_dense_normal_density(reml):
    """y_g ~ N(Xβ, ZΣZᵀ + s²JJᵀ + σ²I), group by group; REML gives the same density at its own estimates."""
    fit = th.fit("y ~ x + (x || g) + (1 | h)", OLD, reml=reml)
    e, total = fit.estimates, []
    for _, d in NEW.groupby("g"):
        Z = np.column_stack([np.ones(6), d["x"]])
        same = d["h"].to_numpy()[:, None] == d["h"].to_numpy()
        V = Z @ np.diag([e["sd(Intercept | g)"] ** 2, e["sd(x | g)"] ** 2]) @ Z.T
        V += same * e["sd(Intercept | h)"] ** 2 + np.eye(6) * e["scale"] ** 2
        total.append(multivariate_normal.logpdf(d["y"], e["Intercept"] + e["x"] * d["x"], V))
    score = fit.score(NEW)
    assert score.total == pytest.approx(sum(total), abs=1e-9)
    assert (score.kind, score.measure) == ("exact", "density")
    assert score.standard_error * 24 == pytest.approx(np.std(total, ddof=1) * 2, rel=1e-9)  # of 4 units
    shuffled = NEW.sample(frac=1, random_state=1)
    assert fit.score(shuffled).total == pytest.approx(score.total, abs=1e-10)


def test_new_groups_of_counts_have_the_integral():
    fit = th.fit("k ~ x + (1 | g)", OLD, "poisson", quadrature=25)
    e, total = fit.estimates, 0.0
    for _, d in NEW.groupby("g"):

        def density(b, d=d):
            return poisson.pmf(d["k"], np.exp(e["Intercept"] + e["x"] * d["x"] + b)).prod() * norm.pdf(
                b, 0, e["sd(Intercept | g)"]
            )

        total += math.log(quad(density, -6, 6, epsabs=1e-14)[0])
    assert fit.score(NEW).total == pytest.approx(total, abs=1e-7)


def test_models_are_compared_on_new_groups_over_their_number():
    one, other = (th.fit(f"y ~ x + ({t} | g)", OLD) for t in ("1", "x"))
    found = one.compare(other, NEW)
    assert found.pair("this", "other").standard_error > 0
    assert found.scores["this"].group.unique().numel() == 4


def test_a_smooth_term_stands_at_its_coefficients():
    """The score is that of the same curve as an offset; without groups that of each row alone."""
    fit = th.fit("y ~ s(x, k=5) + (1 | g)", OLD, reml=True)
    e = fit.estimates
    line = fit.predict(NEW, groups="average")
    total = sum(
        multivariate_normal.logpdf(
            d["y"], line[d.index], np.eye(6) * e["scale"] ** 2 + e["sd(Intercept | g)"] ** 2
        )
        for _, d in NEW.groupby("g")
    )
    assert fit.score(NEW).total == pytest.approx(total, abs=1e-9)
    alone = th.fit("y ~ s(x, k=5)", OLD, reml=True)
    rows = norm.logpdf(NEW["y"], alone.predict(NEW), alone.estimates["scale"])
    assert np.allclose(alone.score(NEW).per_observation, rows)


def test_rows_of_a_group_that_was_fitted_are_refused_by_name():
    fit = th.fit("y ~ x + (1 | g)", OLD)
    with pytest.raises(
        th.errors.BadArgument, match=r"row 0 is of the group '11' of g, which was fitted \(6 such"
    ):
        fit.score(DATA[DATA["g"] >= 11])
