"""Default 95 % intervals hold the truth about 95 times in 100. benchmarks/interval_coverage.py is the same of every
family, with more replicates."""

from __future__ import annotations

import numpy as np
import pytest

import thetahat as th


def coverage(draw, truth, family, replicates):
    """The share of replicates in which each estimate's default interval holds the truth, (q,)."""
    hits = np.zeros(len(truth))
    for k in range(replicates):
        ends = (
            th.fit("y ~ x", draw(np.random.default_rng((7, k))), family).intervals().to_numpy()[: len(truth)]
        )
        hits += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    return hits / replicates


def test_intervals_of_a_normal_linear_model_are_exact_with_eight_rows():
    """Student's t and χ²: 95 %, to four simulation errors of 400 replicates; the normal distribution with
    σ̂² = RSS/n has 85 %."""

    def draw(rng):
        x = rng.uniform(-1, 1, 8)
        return {"x": x, "y": 1 + 0.5 * x + 0.8 * rng.normal(size=8)}

    found = coverage(draw, np.array([1.0, 0.5, 0.8]), "normal", 400)
    assert (np.abs(found - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)).all(), found


@pytest.mark.parametrize("spread", [lambda x: 1.0, lambda x: 1.2 + x], ids=["equal", "growing"])
def test_intervals_of_a_median_hold_whatever_the_spread_of_the_errors(spread):
    """Errors that are not Laplace, of equal spread and of one that grows with x: the truth in 95 %, to four
    simulation errors of 150."""

    def draw(rng):
        x = rng.uniform(-1, 1, 80)
        return {"x": x, "y": 1 + 0.5 * x + spread(x) * rng.standard_t(5, 80)}

    found = coverage(draw, np.array([1.0, 0.5]), "laplace", 150)
    assert (found > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 150)).all(), found
