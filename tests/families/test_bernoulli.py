"""Bernoulli, binomial and beta-binomial against scipy, mpmath and their limits."""

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch

from thetahat.families import Bernoulli, BetaBinomial, Binomial

from . import count_checks as checks
from .count_checks import D, tensors

LINKS = ("logit", "probit", "cloglog", "cauchit")
ROWS = torch.tensor(
    [[0.0, 9.0], [1.0, 9.0], [5.0, 9.0], [9.0, 9.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [400.0, 1000.0]],
    dtype=D,
)
Y, TRIALS = ROWS.T
REGIONS = [(0.3, 0.2), (0.02, 1.0), (0.9, 30.0), (0.5, 1e-5)]


def exact(y, m, mean, rho):
    """log p of the beta-binomial in 60 digits."""
    with mpmath.workdps(60):
        mu, r = mpmath.mpf(mean), mpmath.mpf(rho)
        successes = mpmath.fsum(mpmath.log(mu + r * k) for k in range(y))
        failures = mpmath.fsum(mpmath.log(1 - mu + r * k) for k in range(m - y))
        together = mpmath.fsum(mpmath.log1p(r * k) for k in range(m))
        return float(mpmath.log(mpmath.binomial(m, y)) + successes + failures - together)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("mean", [1e-6, 0.3, 0.99])
def test_binomial_is_scipys(link, mean):
    family, expected = Binomial(link=link), scipy.stats.binom(TRIALS.numpy(), mean).logpmf(Y.numpy())
    (eta,) = (p.link(t) for p, t in zip(family.parameters.values(), tensors(mean), strict=True))
    np.testing.assert_allclose(
        family.log_prob(Y, *tensors(mean), trials=TRIALS), expected, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(family.log_prob_eta(Y, eta, trials=TRIALS), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("link", LINKS)
def test_one_trial_is_bernoulli(link):
    y, eta, one = (
        torch.tensor([0.0, 1.0], dtype=D),
        torch.tensor([0.7, -1.9], dtype=D),
        torch.ones(2, dtype=D),
    )
    torch.testing.assert_close(
        Binomial(link=link).log_prob_eta(y, eta, trials=one), Bernoulli(link=link).log_prob_eta(y, eta)
    )


def test_binomial_tails_keep_their_digits_in_eta():
    """log p(y = 0) = −m·log(1 + e^η) and log p(y = m) = −m·log(1 + e^−η), however far out."""
    found = Binomial().log_prob_eta(
        *torch.tensor([[0.0, 5.0], [-60.0, -60.0]], dtype=D), trials=torch.tensor(5.0, dtype=D)
    )
    np.testing.assert_allclose(found, [-5 * np.exp(-60.0), -300.0], rtol=1e-13)


@pytest.mark.parametrize(("mean", "rho"), [*REGIONS, (0.3, 1e-9), (0.3, 1e-14), (0.4, 1e5)])
def test_beta_binomial_is_exact_for_every_dispersion(mean, rho):
    """mpmath, 60 digits."""
    found = BetaBinomial().log_prob(Y, *tensors(mean, rho), trials=TRIALS)
    expected = [exact(int(y), int(m), mean, rho) for y, m in ROWS]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_beta_binomial_is_scipys():
    found = BetaBinomial().log_prob(Y, *tensors(0.3, 0.2), trials=TRIALS)
    np.testing.assert_allclose(
        found,
        scipy.stats.betabinom(TRIALS.int().numpy(), 1.5, 3.5).logpmf(Y.int().numpy()),
        rtol=1e-10,
        atol=1e-12,
    )


def test_dispersion_0_is_binomial():
    expected = Binomial().log_prob(Y, *tensors(0.3), trials=TRIALS)
    np.testing.assert_allclose(
        BetaBinomial().log_prob(Y, *tensors(0.3, 1e-14), trials=TRIALS), expected, rtol=1e-8, atol=1e-12
    )
    np.testing.assert_allclose(
        BetaBinomial().log_prob(Y, *tensors(0.3, 0.0), trials=TRIALS), expected, rtol=1e-12, atol=1e-12
    )


def test_the_mass_sums_to_1_and_has_the_stated_moments():
    y, trials = torch.arange(13, dtype=D), torch.tensor(12.0, dtype=D)
    checks.mass_has_the_moments(Binomial(), tensors(0.3), y, trials=trials)
    for region in REGIONS:
        checks.mass_has_the_moments(BetaBinomial(), tensors(*region), y, trials=trials)


def test_what_no_trials_can_give_has_no_probability():
    y, trials = torch.tensor([-1.0, 0.5, 4.0], dtype=D), torch.tensor(3.0, dtype=D)
    for family, theta in ((Binomial(), tensors(0.4)), (BetaBinomial(), tensors(0.4, 0.2))):
        assert torch.isneginf(family.log_prob(y, *theta, trials=trials)).all()
        assert not family.in_support(y, trials).any()
        assert family.in_support(torch.tensor([0.0, 3.0]), trials).all()


def test_hand_written_derivatives_are_the_automatic_ones():
    for eta in (torch.linspace(-8, 8, 8, dtype=D), torch.tensor([0.4], dtype=D)):
        checks.hand_is_automatic(Binomial(), Y, [eta], {"trials": TRIALS})


@pytest.mark.parametrize("link", LINKS)
def test_automatic_scores_are_the_central_differences(link):
    eta = [torch.linspace(-2, 1.5, 7, dtype=D), torch.linspace(1, -9, 7, dtype=D)]
    extras = {"trials": TRIALS[:7]}
    checks.automatic_is_difference(Binomial(link=link), Y[:7], eta[:1], extras)
    checks.automatic_is_difference(BetaBinomial(link=link), Y[:7], eta, extras)


def test_no_eta_makes_nan():
    for family in (Binomial(), BetaBinomial()):
        checks.never_nan(family, Y, [-300.0, -40.0, 0.0, 40.0, 300.0], {"trials": TRIALS})
    checks.never_nan(Binomial(link="cauchit"), Y, [-1e6, 0.0, 1e6], {"trials": TRIALS})
    checks.never_nan(Binomial(link="cloglog"), Y, [-600.0, -30.0, 0.0, 30.0], {"trials": TRIALS})


@pytest.mark.parametrize("mean", [1e-4, 0.3, 0.97])
def test_binomial_tails_are_scipys(mean):
    y = torch.tensor([-1.0, 0.0, 3.0, 30.0, 70.0, 98.5, 100.0], dtype=D)
    trials, frozen = torch.tensor(100.0, dtype=D), scipy.stats.binom(100, mean)
    np.testing.assert_allclose(Binomial().cdf(y, *tensors(mean), trials=trials), frozen.cdf(y), rtol=1e-10)
    np.testing.assert_allclose(
        torch.exp(Binomial().log_survival(y, *tensors(mean), trials=trials)), frozen.sf(y), rtol=1e-10
    )


def test_beta_binomial_tails_are_sums_of_the_mass():
    y, trials = torch.arange(-1, 31, dtype=D), torch.tensor(30.0, dtype=D)
    for region in REGIONS:
        p = torch.exp(BetaBinomial().log_prob(y, *tensors(*region), trials=trials))
        np.testing.assert_allclose(
            BetaBinomial().cdf(y, *tensors(*region), trials=trials), p.cumsum(0), rtol=1e-11
        )
        survival = torch.exp(BetaBinomial().log_survival(y, *tensors(*region), trials=trials))
        np.testing.assert_allclose(survival[:-1], p.flip(0).cumsum(0).flip(0)[1:], rtol=1e-11)
        assert survival[-1] == 0


@pytest.mark.parametrize("family", [Binomial(), BetaBinomial()], ids=str)
def test_tails_are_differentiable(family):
    """∂ cdf/∂η against the derivative of the sum of the mass, on both sides of the mean."""
    y, k, trials = (
        torch.tensor([-1.0, 1.0, 3.0, 11.0, 12.0], dtype=D),
        torch.arange(13, dtype=D),
        torch.tensor(12.0, dtype=D),
    )
    theta = torch.tensor([0.35, 0.2][: len(family.parameters)], dtype=D, requires_grad=True)
    ours = torch.autograd.grad(family.cdf(y, *theta, trials=trials).sum(), theta)[0]
    mass = torch.exp(family.log_prob(k, *theta, trials=trials))
    direct = torch.autograd.grad(sum(mass[: int(t) + 1].sum() for t in y), theta)[0]
    torch.testing.assert_close(ours, direct, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        (Binomial(), (0.3,)),
        (BetaBinomial(), (0.3, 0.2)),
        (BetaBinomial(), (0.3, 500.0)),
        (BetaBinomial(), (0.6, 1e-9)),
    ],
)
def test_quantile_inverts_the_cdf_and_samples_have_the_moments(family, parameters):
    trials = torch.tensor(12.0, dtype=D)
    checks.quantile_inverts(family, tensors(*parameters), torch.arange(13, dtype=D), trials=trials)
    checks.draws_have_the_moments(family, tensors(*parameters), trials=trials)


@pytest.mark.parametrize("family", [Binomial(), BetaBinomial()], ids=str)
@pytest.mark.parametrize(
    ("y", "trials"), [([0.0, 0.0], 3.0), ([3.0], 3.0), ([0.0, 3.0], 3.0), ([0.0], 0.0), ([7.0, 1e9], 1e9)]
)
def test_a_start_lies_inside_the_range(family, y, trials):
    y = torch.tensor(y, dtype=D)
    start = family.start(y, torch.ones_like(y), torch.full_like(y, trials))
    for value, parameter in zip(start, family.parameters.values(), strict=True):
        assert np.isfinite(value)
        assert parameter.range.contains(torch.tensor(value, dtype=D))


def test_all_or_nothing_recedes_and_anything_between_pins():
    y, trials = torch.tensor([0.0, 3.0, 1.0, 0.0], dtype=D), torch.tensor([3.0, 3.0, 3.0, 0.0], dtype=D)
    A, equality = BetaBinomial().recession(y, trials)
    assert A[:, 0].tolist() == [[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert equality[:, 0].tolist() == [False, False, True, False]
    assert Binomial().recession(y, trials)[0].shape == (4, 1, 1)
    assert [Binomial(link=link).concave for link in LINKS] == [True, True, True, False]
