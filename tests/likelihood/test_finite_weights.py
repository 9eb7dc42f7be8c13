"""Weights made of ratios stay finite whatever the ratio: 0 · ∞, ∞ − ∞ and e^{1000} are not numbers, and a
weight must be one."""

from __future__ import annotations

import itertools

import pytest
import torch

from thetahat.data import Batch
from thetahat.language import Penalised, kl_estimate
from thetahat.rl import Advantage, Clipped

WEIGHTINGS = [
    Clipped(0.2),
    Clipped(0.2, entropy_coef=0.01),
    Advantage(),
    Advantage(entropy_coef=0.01),
    *(Penalised(each, 0.5, k) for each in (Clipped(0.2), Advantage()) for k in ("k1", "k2", "k3")),
]
LOGS = [0.0, -1e-8, -1.0, -80.0, -89.0, -120.0, -750.0, -1e4, -1e30]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=str)
def test_every_weight_is_finite_at_every_ratio_and_advantage(weighting, dtype):
    cases = torch.tensor(
        list(itertools.product(LOGS, LOGS, LOGS, [0.0, 1.0, -1.0, 1e20, -1e20])), dtype=dtype
    )
    now, before, reference, A = cases.unbind(1)
    w = weighting(Batch({"advantage": A, "log_prob": before, "reference": reference}), now)
    assert bool(torch.isfinite(w).all())


def test_without_an_advantage_the_clipped_weight_is_zero_however_large_the_ratio():
    """min(ρ·0, clip(ρ)·0) = 0: its gradient is 0."""
    w = Clipped(0.2)(
        Batch({"advantage": torch.zeros(3), "log_prob": torch.tensor([-200.0, -1.0, 0.0])}),
        torch.tensor([0.0, 0.0, -200.0]),
    )
    assert w.tolist() == [0, 0, 0]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimates_of_the_divergence_are_finite(estimator):
    d = torch.tensor([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4, 1e30])
    assert bool(torch.isfinite(kl_estimate(d, torch.zeros(7), estimator)).all())


def test_the_slope_of_k3_is_that_of_its_definition_where_that_is_a_number():
    """k3'(d) = 1 − e^{−d}, by hand at d = −2 and 3."""
    d = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    w = Penalised(lambda b, lp: torch.zeros_like(lp), 1.0, "k3")(
        Batch({"reference": torch.zeros(2, dtype=torch.float64)}), d
    )
    torch.testing.assert_close(w, torch.tensor([6.38905609893065, -0.950212931632136], dtype=torch.float64))
