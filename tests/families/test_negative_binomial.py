"""The negative binomials and the geometric against scipy, mpmath and their limits."""

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch

from thetahat.families import Geometric, NegativeBinomial, NegativeBinomial1, Poisson
from thetahat.families.base import Family

from . import count_checks as checks
from .count_checks import D, tensors

COUNTS = torch.tensor([0.0, 1.0, 2.0, 5.0, 17.0, 60.0, 300.0], dtype=D)
REGIONS = [(2.5, 0.5), (40.0, 0.1), (0.2, 4.0), (7.0, 1e-5), (120.0, 30.0)]


def scipy_nb(mean, dispersion):
    return scipy.stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean))


def exact(y, mean, dispersion):
    """log p of NB2 in 60 digits."""
    with mpmath.workdps(60):
        m, a = mpmath.mpf(mean), mpmath.mpf(dispersion)
        product = mpmath.fsum(mpmath.log1p(a * k) for k in range(int(y)))
        return float(product - mpmath.loggamma(y + 1) + y * mpmath.log(m) - (y + 1 / a) * mpmath.log1p(a * m))


@pytest.mark.parametrize(
    ("mean", "dispersion"), [*REGIONS, (3.0, 1e-8), (3.0, 1e-12), (3.0, 1e-100), (0.5, 1e6)]
)
def test_nb2_is_exact_for_every_dispersion(mean, dispersion):
    """mpmath, 60 digits: where α → 0 the two lgammas of the textbook formula have nothing left in common but
    rounding."""
    found = NegativeBinomial().log_prob(COUNTS, *tensors(mean, dispersion))
    expected = [exact(int(y), mean, dispersion) for y in COUNTS]
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("mean", "dispersion"), REGIONS)
def test_nb1_is_nb2_with_dispersion_over_mean(mean, dispersion):
    """scipy.stats.nbinom with r = μ/α, p = 1/(1 + α)."""
    found = NegativeBinomial1().log_prob(COUNTS, *tensors(mean, dispersion))
    np.testing.assert_allclose(
        found, scipy.stats.nbinom(mean / dispersion, 1 / (1 + dispersion)).logpmf(COUNTS), rtol=1e-9
    )
    np.testing.assert_allclose(
        found, [exact(int(y), mean, dispersion / mean) for y in COUNTS], rtol=1e-13, atol=1e-14
    )


def test_geometric_is_nb2_with_dispersion_1():
    for mean in (0.01, 3.0, 500.0):
        found = Geometric().log_prob(COUNTS, *tensors(mean))
        np.testing.assert_allclose(found, scipy.stats.geom(1 / (1 + mean), loc=-1).logpmf(COUNTS), rtol=1e-12)
        np.testing.assert_allclose(
            found, NegativeBinomial().log_prob(COUNTS, *tensors(mean, 1.0)), rtol=1e-12
        )


@pytest.mark.parametrize("family", [NegativeBinomial(), NegativeBinomial1()], ids=str)
def test_dispersion_0_is_poisson(family):
    poisson = Poisson().log_prob(COUNTS, *tensors(3.0))
    np.testing.assert_allclose(family.log_prob(COUNTS, *tensors(3.0, 1e-13)), poisson, rtol=1e-8)
    np.testing.assert_allclose(family.log_prob(COUNTS, *tensors(3.0, 0.0)), poisson, rtol=1e-14)


@pytest.mark.parametrize("family", [NegativeBinomial(), NegativeBinomial1()], ids=str)
@pytest.mark.parametrize(("mean", "dispersion"), REGIONS[:4])
def test_the_mass_sums_to_1_and_has_the_stated_moments(family, mean, dispersion):
    y = torch.arange(20000, dtype=D)
    checks.mass_has_the_moments(family, tensors(mean, dispersion), y)


def test_what_is_no_count_has_no_probability():
    y = torch.tensor([-1.0, 0.5, 2.5], dtype=D)
    for family, parameters in (
        (NegativeBinomial(), (2.0, 0.5)),
        (NegativeBinomial1(), (2.0, 0.5)),
        (Geometric(), (2.0,)),
    ):
        assert torch.isneginf(family.log_prob(y, *tensors(*parameters))).all()


@pytest.mark.parametrize("log_dispersion", [-27.6, -9.0, -1.0, 0.7, 5.0])
@pytest.mark.parametrize("constant", [True, False])
def test_hand_written_derivatives_are_the_automatic_ones(log_dispersion, constant):
    """With one dispersion for all rows (running sums) and with one a row (Stirling's series)."""
    y = torch.tensor([0.0, 1.0, 3.0, 40.0, 2.0, 900.0], dtype=D)
    mean = torch.tensor([-3.0, 0.0, 1.0, 3.0, 9.0, 6.0], dtype=D)
    dispersion = torch.full((1,) if constant else (6,), log_dispersion, dtype=D)
    checks.hand_is_automatic(NegativeBinomial(), y, [mean, dispersion])


def test_hand_written_derivatives_accept_constants_and_counts_beyond_the_table():
    y = torch.tensor([0.0, 1.0, 12.0, 5000.0], dtype=D)
    for count in (y, y[:3]):
        checks.hand_is_automatic(
            NegativeBinomial(), count, [torch.tensor([2.0], dtype=D), torch.tensor([-0.4], dtype=D)]
        )
        checks.hand_is_automatic(Geometric(), count, [torch.tensor([2.0], dtype=D)])
    checks.hand_is_automatic(Geometric(), y, [torch.tensor([-30.0, 0.0, 2.0, 9.0], dtype=D)])


def test_the_score_of_a_tiny_dispersion_keeps_its_digits():
    """As α → 0, ∂ log p/∂ log α → α·((y − μ)² − y)/2."""
    y, mean = torch.tensor([0.0, 1.0, 7.0], dtype=D), 3.0
    limit = 0.5e-12 * ((y - mean) ** 2 - y)
    eta = [torch.tensor([mean], dtype=D).log(), torch.tensor([1e-12], dtype=D).log()]
    for derivatives in (
        NegativeBinomial().derivatives(y, eta),
        Family.derivatives(NegativeBinomial(), y, eta),
    ):
        np.testing.assert_allclose(derivatives[1][1], limit, rtol=1e-9)


@pytest.mark.parametrize(
    "family", [NegativeBinomial(), NegativeBinomial1(), NegativeBinomial(link="softplus")], ids=str
)
def test_automatic_scores_are_the_central_differences(family):
    y = torch.tensor([0.0, 1.0, 4.0, 30.0], dtype=D)
    eta = [torch.tensor([0.3, 1.0, 0.8, 3.0], dtype=D), torch.tensor([-2.0, 0.5, -6.0, 1.0], dtype=D)]
    checks.automatic_is_difference(family, y, eta)


@pytest.mark.parametrize("family", [NegativeBinomial(), NegativeBinomial1(), Geometric()], ids=str)
def test_no_eta_makes_nan(family):
    y = torch.tensor([0.0, 1.0, 5.0, 1e6], dtype=D)
    checks.never_nan(family, y, [-300.0, -50.0, 0.0, 50.0, 300.0])


@pytest.mark.parametrize(("mean", "dispersion"), [*REGIONS, (5000.0, 0.01)])
def test_nb2_tails_are_scipys(mean, dispersion):
    found, ours = scipy_nb(mean, dispersion), tensors(mean, dispersion)
    y = torch.tensor([0.0, 1.0, 3.0, 8.0, 30.0, 120.0, 4500.0], dtype=D)
    family = NegativeBinomial()
    np.testing.assert_allclose(family.cdf(y, *ours), found.cdf(y), rtol=1e-8)
    kept = found.sf(y) > 1e-290  # below it scipy's own tail underflows
    np.testing.assert_allclose(torch.exp(family.log_survival(y, *ours))[kept], found.sf(y)[kept], rtol=1e-8)
    np.testing.assert_allclose(
        family.cdf(torch.tensor([-1.0, 2.7], dtype=D), *ours), [0.0, found.cdf(2)], rtol=1e-8
    )


def test_tails_reach_where_probabilities_underflow():
    """For α = ½, P(Y > y) = q^(y+1)·(1 + (y + 1)p) with p = 1 − q = 1/(1 + αμ); for α = 1e-12, Poisson's."""
    (mean, dispersion), family = tensors(3.0, 0.5), NegativeBinomial()
    expected = 2001 * np.log(0.6) + np.log1p(2001 * 0.4)
    np.testing.assert_allclose(
        family.log_survival(torch.tensor(2000.0, dtype=D), mean, dispersion), expected, rtol=1e-13
    )
    limit = family.cdf(torch.tensor([0.0, 2.0, 9.0], dtype=D), *tensors(3.0, 1e-12))
    np.testing.assert_allclose(limit, scipy.stats.poisson(3.0).cdf([0, 2, 9]), rtol=1e-10)


def test_tails_are_differentiable():
    """∂ log P(Y ≤ y) against the derivative of the sum of the mass, on both sides of the mean."""
    y, k = torch.tensor([0.0, 2.0, 6.0, 25.0], dtype=D), torch.arange(26, dtype=D)
    eta = torch.tensor([np.log(6.0), np.log(0.3)], dtype=D, requires_grad=True)
    family = NegativeBinomial()
    ours = torch.autograd.grad(family.cdf(y, *torch.exp(eta)).sum(), eta)[0]
    mass = torch.exp(family.log_prob(k, *torch.exp(eta)))
    direct = torch.autograd.grad(sum(mass[: int(t) + 1].sum() for t in y), eta)[0]
    torch.testing.assert_close(ours, direct, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        (NegativeBinomial(), (6.0, 0.3)),
        (NegativeBinomial(), (0.1, 5.0)),
        (NegativeBinomial1(), (9.0, 2.0)),
        (Geometric(), (4.0,)),
    ],
)
def test_quantile_inverts_the_cdf_and_samples_have_the_moments(family, parameters):
    checks.quantile_inverts(family, tensors(*parameters), torch.arange(40, dtype=D))
    checks.draws_have_the_moments(family, tensors(*parameters))


@pytest.mark.parametrize("family", [NegativeBinomial(), NegativeBinomial1(), Geometric()], ids=str)
@pytest.mark.parametrize("y", [[0.0, 0.0], [4.0], [0.0, 1e9], [3.0, 3.0, 3.0]])
def test_a_start_lies_inside_the_range(family, y):
    start = family.start(torch.tensor(y, dtype=D), torch.ones(len(y), dtype=D))
    assert all(np.isfinite(s) and s > 0 for s in start)
    assert len(start) == len(family.parameters)


def test_zeros_recede_and_other_counts_pin_the_mean():
    A, equality = NegativeBinomial().recession(torch.tensor([0.0, 2.0], dtype=D))
    assert A.tolist() == [[[-1.0, 0.0]], [[-1.0, 0.0]]]
    assert equality.tolist() == [[False], [True]]
    assert Geometric().concave
    assert not NegativeBinomial().concave
