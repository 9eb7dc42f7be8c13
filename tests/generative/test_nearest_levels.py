"""The mass of a level by those that lie near it, against scipy's sum over all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch

from thetahat.data import Batch
from thetahat.generative import Denoiser, Diffusion
from thetahat.generative.nearest_levels import log_mass, near
from thetahat.generative.schedule import Cosine


@pytest.mark.parametrize("levels", [5, 17, 256])
@pytest.mark.parametrize("less", [0.0, 1.5, 4.0])
def test_the_mass_is_that_of_the_sum_over_all_levels(levels, less):
    """scipy.special.log_softmax over all levels, of r within the range and far outside it, of every level."""
    log_snr = torch.tensor(2 * math.log(4 * (levels - 1)) - less, dtype=torch.float64)
    many = near(float(log_snr), levels)
    if many is None:
        assert less > 0 or levels < 5
        pytest.skip("all levels are summed")
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    ratio = torch.cat(
        [torch.linspace(-1.3, 1.3, 4001, dtype=torch.float64), values, values + 1 / (levels - 1)]
    )
    y = torch.randint(levels, ratio.shape, generator=torch.Generator().manual_seed(0))
    exponents = -0.5 * math.exp(log_snr) * (ratio.numpy()[:, None] - values.numpy()) ** 2
    exact = np.take_along_axis(scipy.special.log_softmax(exponents, 1), y.numpy()[:, None], 1)[:, 0]
    found = log_mass(y, ratio, log_snr, values, many)
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-14, atol=1e-15)


def test_three_levels_are_enough_at_the_end_of_a_diffusion():
    assert [near(2 * math.log(4 * (levels - 1)), levels) for levels in (3, 4, 17, 256)] == [None, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_is_the_same_by_near_levels_and_by_all(dtype):
    model = Diffusion(Denoiser(6, width=8, blocks=1, dtype=dtype), levels=256)
    batch = Batch({"y": torch.randint(256, (200, 6), generator=torch.Generator().manual_seed(0))})
    assert model.near == 1
    found = model.log_prob(batch, generator=torch.Generator().manual_seed(1))
    model.near = None
    whole = model.log_prob(batch, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, whole, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0)


def test_a_schedule_that_is_learnt_sums_over_all_levels():
    """λ_0 moves, and its slope is that of the whole sum: autograd through it against a difference quotient."""
    schedule = Cosine(learned=True)
    model = Diffusion(Denoiser(3, width=8, blocks=1, dtype=torch.float64), levels=17, schedule=schedule)
    schedule.double()
    assert model.near is None
    y = torch.randint(17, (20, 3), generator=torch.Generator().manual_seed(0))
    epsilon = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def decoded() -> torch.Tensor:
        return model._decoded(y, model.encode(y), epsilon).sum()

    (slope,) = torch.autograd.grad(decoded(), schedule.ends)
    with torch.no_grad():
        schedule.ends[0] += 1e-5
        above = float(decoded())
        schedule.ends[0] -= 2e-5
        below = float(decoded())
    assert float(slope[0]) == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-12)
