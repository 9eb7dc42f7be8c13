"""Functions read from a table against themselves, and Tweedie's series of many rows against 40 digits."""

import math

import mpmath
import numpy as np
import pytest
import torch

from thetahat.families import Tweedie
from thetahat.families.tabulated import tabulated

from .test_tweedie import series

D = torch.float64


def test_analytic_functions_are_met_below_rounding_and_few_rows_are_refused():
    x = torch.as_tensor(np.random.default_rng(0).normal(size=5_000) * 3)
    shift = 1 + x**2
    got = tabulated(lambda x: (torch.log(1 + x**2), 1 / (1 + x**2)), x, 1.0)  # singular at ±i
    assert got is not None
    assert float((got[0] - torch.log(shift)).abs().max()) < 4e-15 * float(torch.log(shift).max())
    assert float((got[1] - 1 / shift).abs().max()) < 4e-15
    assert tabulated(lambda x: (x,), x[:30], 1.0) is None
    assert tabulated(lambda x: (x,), x, 0.01) is None  # as many nodes as rows
    assert tabulated(lambda x: (x,), torch.tensor([math.inf] * 5_000, dtype=D), 1.0) is None


def test_a_row_does_not_depend_on_the_rows_beside_it():
    x = torch.linspace(-2, 2, 5_000, dtype=D)
    one, other = (tabulated(lambda x: (torch.tanh(x),), part, 1.5) for part in (x, x[:1_000]))
    assert one is not None
    assert other is not None
    assert float((one[0][:1_000] - other[0]).abs().max()) < 3e-16


@pytest.mark.parametrize("power", [1.05, 1.3, 1.5, 1.8, 1.95])
def test_the_log_density_of_many_rows_is_that_of_the_series_in_40_digits(power):
    rng = np.random.default_rng(1)
    y, mean = np.exp(rng.normal(size=20_000)), np.exp(rng.normal(size=20_000))
    got = Tweedie().log_prob(
        torch.as_tensor(y), torch.as_tensor(mean), torch.tensor(0.7, dtype=D), torch.tensor(power, dtype=D)
    )
    with mpmath.workdps(40):
        for i in range(0, 20_000, 1_000):
            exact = series(*(mpmath.mpf(float(v)) for v in (y[i], mean[i], 0.7, power)))
            assert float(got[i]) == pytest.approx(float(exact), rel=1e-12, abs=1e-13)


def test_derivatives_of_many_rows_are_those_of_each_alone():
    rng = np.random.default_rng(2)
    y = torch.as_tensor(np.exp(2 * rng.normal(size=4_000)))
    eta = [torch.full((4_000,), v, dtype=D) for v in (0.3, -0.2, 0.4)]
    _, score, curvature = Tweedie().derivatives(y, eta)
    for i in range(0, 4_000, 400):
        row = slice(i, i + 1)
        _, own_score, own_curvature = Tweedie().derivatives(y[row], [e[row] for e in eta])
        assert torch.allclose(
            torch.stack(list(score), -1)[row], torch.stack(list(own_score), -1), rtol=1e-10, atol=1e-11
        )
        assert all(
            float(curvature[ab][i]) == pytest.approx(float(own_curvature[ab]), rel=1e-9, abs=1e-10)
            for ab in curvature
        )
