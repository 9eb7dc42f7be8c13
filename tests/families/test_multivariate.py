"""The multivariate normal and the Dirichlet against scipy, their one-dimensional kin, and the closed form of
their maximum."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from thetahat.errors import BadArgument
from thetahat.families import Beta, Dirichlet, Family, MultivariateNormal, Normal

from . import checks
from .checks import D

MEAN, FACTOR = [0.3, -1.0, 2.0], [[1.7, 0.0, 0.0], [0.4, 0.5, 0.0], [-0.2, 0.9, 1.1]]
THETA = (*MEAN, *(FACTOR[i][j] for i in range(3) for j in range(i + 1)))
SHARES = (0.4, 1.0, 3.0, 20.0)
N3, D4 = MultivariateNormal(3), Dirichlet(4)


def draws(family, parameters, n):
    return family.sample(
        *(t.expand(n) for t in checks.tensors(parameters)), generator=torch.Generator().manual_seed(5)
    )


def test_the_multivariate_normal_is_scipys():
    y = draws(N3, THETA, 30)
    frozen = scipy.stats.multivariate_normal(MEAN, np.array(FACTOR) @ np.array(FACTOR).T)
    torch.testing.assert_close(
        N3.log_prob(y, *checks.tensors(THETA)),
        torch.from_numpy(frozen.logpdf(y.numpy())),
        rtol=1e-12,
        atol=1e-12,
    )


def test_in_one_dimension_it_is_the_normal():
    y = torch.tensor([-3.0, 0.2, 9.0], dtype=D)
    found = MultivariateNormal(1).log_prob(y[:, None], *checks.tensors((0.3, 1.7)))
    torch.testing.assert_close(found, Normal().log_prob(y, *checks.tensors((0.3, 1.7))), rtol=1e-14, atol=0)


def test_the_dirichlet_is_scipys_and_with_two_shares_the_beta():
    y = draws(D4, SHARES, 30)
    expected = torch.tensor([scipy.stats.dirichlet(SHARES).logpdf(row / row.sum()) for row in y.numpy()])
    torch.testing.assert_close(D4.log_prob(y, *checks.tensors(SHARES)), expected, rtol=1e-11, atol=1e-11)
    share = torch.tensor([0.01, 0.4, 0.97], dtype=D)
    found = Dirichlet(2).log_prob(torch.stack([share, 1 - share], -1), *checks.tensors((0.9, 2.1)))
    torch.testing.assert_close(
        found, Beta().log_prob(share, *checks.tensors((0.3, 3.0))), rtol=1e-13, atol=1e-14
    )


@pytest.mark.parametrize(("family", "parameters"), [(N3, THETA), (D4, SHARES)], ids=str)
def test_derivatives_are_the_limits_of_differences(family, parameters):
    """Rows are y.shape[0]; each η is one number or one a row."""
    y = draws(family, parameters, 6)
    eta = checks.linear_predictors(family, parameters)
    value, score, curvature = family.derivatives(y, eta)
    by_row = Family.derivatives(family, y, [e.expand(6) for e in eta])
    torch.testing.assert_close(value, by_row[0])
    step = 1e-5
    for a in range(len(eta)):
        assert score[a].shape == (6,)
        up, down = ([e + s * step * (j == a) for j, e in enumerate(eta)] for s in (1, -1))
        up, down = family.derivatives(y, up), family.derivatives(y, down)
        torch.testing.assert_close(score[a], (up[0] - down[0]) / (2 * step), rtol=1e-6, atol=1e-6)
        for b in range(a, len(eta)):
            torch.testing.assert_close(
                curvature[a, b], (up[1][b] - down[1][b]) / (2 * step), rtol=1e-6, atol=1e-6
            )


@pytest.mark.parametrize(("family", "parameters"), [(N3, THETA), (D4, SHARES)], ids=str)
def test_samples_have_the_mean_and_the_covariance(family, parameters):
    n = 40_000
    y, theta = draws(family, parameters, n), checks.tensors(parameters)
    mean, covariance = family.expectation(*theta)[0], family.variance(*theta)[0]
    assert family.in_support(y).all()
    assert torch.equal(covariance, covariance.T)
    assert ((y.mean(0) - mean).abs() < 5 * (covariance.diagonal() / n).sqrt()).all()
    products = (y - mean)[:, :, None] * (y - mean)[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / math.sqrt(n)).all()


def test_the_dirichlets_covariance_is_scipys():
    covariance = D4.variance(*checks.tensors(SHARES))[0]
    torch.testing.assert_close(
        covariance, torch.from_numpy(scipy.stats.dirichlet(SHARES).cov()), rtol=1e-12, atol=1e-16
    )


def test_the_dirichlet_integrates_to_one():
    """Over the triangle of three shares, by Gauss–Legendre in (y₁, y₂/(1 − y₁)); polynomial densities, so to
    rounding."""
    node, weight = (torch.from_numpy(x) / 2 for x in np.polynomial.legendre.leggauss(20))
    first, second = (x.reshape(-1) for x in torch.meshgrid(node + 0.5, node + 0.5, indexing="ij"))
    y = torch.stack([first, (1 - first) * second, (1 - first) * (1 - second)], -1)
    density = torch.exp(Dirichlet(3).log_prob(y, *checks.tensors((2.0, 3.0, 4.0)))) * (1 - first)
    assert (density * torch.outer(weight, weight).reshape(-1)).sum().item() == pytest.approx(1.0, abs=1e-13)


def test_large_concentrations_keep_their_digits():
    """mpmath, 50 digits, at α = 1e6 · (2, 3, 5): log Γ of ten million is a hundred million, the answer
    eleven."""
    y = torch.tensor([[0.2003, 0.2998, 0.4999]], dtype=D)
    found = Dirichlet(3).log_prob(y, *checks.tensors((2e6, 3e6, 5e6)))
    import mpmath

    with mpmath.workdps(50):
        a = [mpmath.mpf(x) for x in (2e6, 3e6, 5e6)]
        front = mpmath.loggamma(sum(a)) - sum(map(mpmath.loggamma, a))
        exact = front + sum(
            (k - 1) * mpmath.log(mpmath.mpf(v)) for k, v in zip(a, y[0].tolist(), strict=True)
        )
    assert found.item() == pytest.approx(float(exact), abs=1e-8)


def test_the_start_of_the_multivariate_normal_is_the_maximum():
    """μ̂ and Σ̂ are the weighted moments, and the score there is zero."""
    y = draws(N3, THETA, 50)
    weight = torch.arange(50, dtype=D) % 4
    theta = N3.start(y, weight)
    eta = checks.linear_predictors(N3, theta)
    _, score, _ = N3.derivatives(y, eta, order=1)
    for s in score:
        assert (weight * s).sum().item() == pytest.approx(0.0, abs=1e-9)
    covariance = N3.variance(*checks.tensors(theta))[0]
    np.testing.assert_allclose(covariance, np.cov(y.numpy().T, aweights=weight.numpy(), ddof=0), rtol=1e-10)


@pytest.mark.parametrize(
    "y",
    [
        [[1.0, 2.0, 3.0]],
        [[1.0, 2.0, 3.0]] * 4,
        [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [5.0, 10.0, 15.0]],
        [[1e8, 0.0, 0.0], [-1e8, 1e-8, 0.0], [3.0, 1.0, 0.0]],
    ],
    ids=["one row", "constant", "singular", "scales"],
)
def test_the_start_of_the_multivariate_normal_is_inside_where_the_covariance_is_singular(y):
    y = torch.tensor(y, dtype=D)
    theta = N3.start(y, torch.ones(len(y), dtype=D))
    assert torch.isfinite(N3.log_prob(y, *checks.tensors(theta))).all()
    for value, parameter in zip(theta, N3.parameters.values(), strict=True):
        assert math.isfinite(value)
        assert parameter.range.low < value < parameter.range.high


def test_the_start_of_the_dirichlet_is_near_and_inside():
    y = draws(D4, SHARES, 5000)
    start = torch.tensor(D4.start(y, torch.ones(5000, dtype=D)))
    assert ((start / torch.tensor(SHARES)).log().abs() < 0.3).all()
    for rows in (y[:1], y[:1].expand(4, 4), torch.tensor([[1 - 3e-12, 1e-12, 1e-12, 1e-12]], dtype=D)):
        start = D4.start(rows, torch.ones(len(rows), dtype=D))
        assert all(0 < a < math.inf for a in start)
        assert torch.isfinite(D4.log_prob(rows, *checks.tensors(start))).all()


def test_parameters_are_named_by_component():
    assert list(MultivariateNormal(2).parameters) == ["mean_1", "mean_2", "scale_11", "scale_21", "scale_22"]
    assert len(MultivariateNormal(12).parameters) == 12 + 78
    assert list(Dirichlet(3).parameters) == ["concentration_1", "concentration_2", "concentration_3"]
    assert Dirichlet(3, link="identity").concave
    assert not D4.concave


def test_what_is_off_the_simplex_or_of_another_length_is_refused():
    y = torch.tensor(
        [[0.2, 0.3, 0.5, 0.0], [0.2, 0.3, 0.4, 0.2], [math.nan, 0.3, 0.4, 0.3], [0.1, 0.2, 0.3, 0.4]], dtype=D
    )
    assert D4.in_support(y).tolist() == [False, False, False, True]
    assert D4.log_prob(y[:1], *checks.tensors(SHARES)).item() == -math.inf
    assert N3.in_support(torch.tensor([[0.0, math.inf, 1.0], [0.0, 1.0, 2.0]], dtype=D)).tolist() == [
        False,
        True,
    ]
    for family, length in ((N3, 2), (D4, 3)):
        with pytest.raises(BadArgument, match="components"):
            family.in_support(torch.zeros(5, length))
    for family, size in ((MultivariateNormal, 0), (Dirichlet, 1)):
        with pytest.raises(BadArgument, match=f"is {size}"):
            family(size)
