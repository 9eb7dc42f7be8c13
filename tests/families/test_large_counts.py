"""Counts of a thousand to a thousand billion: masses and scores that keep their digits, and fits that
converge."""

from __future__ import annotations

import itertools

import mpmath as mp
import numpy as np
import pytest
import torch

import thetahat as th

SHAPE = np.array([1.1, 3.2, 3.9, 20.3, 48.7, 30.1])
X = np.arange(6.0)


def negative_binomial(y, eta, alpha, trials):  # type: ignore[no-untyped-def]
    mean, a = mp.exp(eta), mp.exp(alpha)
    rising = mp.loggamma(y + 1 / a) - mp.loggamma(1 / a) - mp.loggamma(y + 1)
    return rising - mp.log(1 + a * mean) / a + y * mp.log(a * mean / (1 + a * mean))


def negative_binomial_1(y, eta, alpha, trials):  # type: ignore[no-untyped-def]
    return negative_binomial(y, eta, alpha - eta, trials)


def generalized_poisson(y, eta, alpha, trials):  # type: ignore[no-untyped-def]
    mean, a = mp.exp(eta), mp.exp(alpha)
    power = y * mp.log(mean / (1 + a * mean)) + (y - 1) * mp.log(1 + a * y)
    return power - mp.loggamma(y + 1) - mean * (1 + a * y) / (1 + a * mean)


def beta_binomial(y, eta, rho, trials):  # type: ignore[no-untyped-def]
    share, r = 1 / (1 + mp.exp(-eta)), mp.exp(rho)
    a, b = share / r, (1 - share) / r
    lgamma = mp.loggamma
    choose = lgamma(trials + 1) - lgamma(y + 1) - lgamma(trials - y + 1)
    return (
        choose
        + lgamma(y + a)
        + lgamma(trials - y + b)
        - lgamma(trials + a + b)
        - lgamma(a)
        - lgamma(b)
        + lgamma(a + b)
    )


MASSES = [negative_binomial, negative_binomial_1, generalized_poisson, beta_binomial]


@pytest.mark.parametrize("y", [3, 1100, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("mass", MASSES, ids=lambda f: f.__name__)
def test_masses_and_scores_of_large_counts_keep_their_digits(mass, y: int) -> None:  # type: ignore[no-untyped-def]
    """The definitions of the masses, and their derivatives, in 60 digits."""
    family, trials = th.families.get(mass.__name__), 3 * y
    extras = {"trials": torch.tensor([float(trials)], dtype=torch.float64)} if mass is beta_binomial else {}
    with mp.workdps(60):
        for relative, shape in itertools.product((0.3, 1.0, 2.0), (1e-9, 1e-3, 0.2, 5.0)):
            eta = float(
                mp.log(mp.mpf(y) * relative) if mass is not beta_binomial else mp.log(mp.mpf(relative) / 2)
            )
            log_shape = float(mp.log(shape)) + (eta if mass is negative_binomial_1 else 0.0)
            at = [torch.tensor([v], dtype=torch.float64) for v in (eta, log_shape)]
            value, score, _ = family.derivatives(
                torch.tensor([float(y)], dtype=torch.float64), at, extras, order=1
            )
            point = (mp.mpf(eta), mp.mpf(log_shape))

            def exact(a, b):  # type: ignore[no-untyped-def]
                return mass(y, a, b, trials)

            slopes = [mp.diff(exact, point, (1, 0)), mp.diff(exact, point, (0, 1))]
            # a rounding of η itself moves log p by |∂ log p/∂η| · eps·|η|, and the scores by as much of their
            # curvature
            bend = float(abs(mp.diff(exact, point, (2, 0))))
            assert float(value) == pytest.approx(
                float(exact(*point)), rel=1e-12, abs=1e-12 + 1e-14 * float(abs(slopes[0]))
            )
            for found, slope in zip(score, slopes, strict=True):
                assert float(found) == pytest.approx(float(slope), rel=1e-9, abs=1e-10 + 1e-13 * bend)


@pytest.mark.parametrize("size", [1e6, 1e9, 1e12])
def test_negative_binomial_regression_of_billions_has_the_answer_of_its_gamma_limit(size: float) -> None:
    """NB2 → a gamma variable of shape 1/α with log mean Xβ: its maximum by scipy, 20.976326, 0.798728, α =
    0.187186 at 10⁹."""
    from scipy.optimize import minimize
    from scipy.special import gammaln

    y = np.round(SHAPE * size)

    def loss(theta):  # type: ignore[no-untyped-def]
        shape, log_mean = np.exp(-theta[2]), np.log(size) + theta[0] + theta[1] * X
        log_rate = theta[2] + log_mean
        return -np.sum(-gammaln(shape) - shape * log_rate + (shape - 1) * np.log(y) - y * np.exp(-log_rate))

    best = minimize(loss, [0.0, 1.0, -1.0], method="BFGS", options={"gtol": 1e-10}).x
    best = minimize(
        loss, best, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 5000}
    ).x
    fit = th.fit("y ~ x", {"x": X, "y": y}, "negative_binomial")
    expected = [best[0] + np.log(size), best[1], np.exp(best[2])]
    assert fit.certificate.status == "certified maximum"
    assert fit.estimates.tolist() == pytest.approx(expected, rel=1e-5 if size < 1e9 else 3e-7)
    if size == 1e9:
        assert fit.estimates.tolist() == pytest.approx([20.976326, 0.798728, 0.187186], abs=5e-7)


@pytest.mark.parametrize("size", [1e9, 1e12])
@pytest.mark.parametrize(
    "name", ["negative_binomial", "negative_binomial_1", "generalized_poisson", "geometric", "beta_binomial"]
)
def test_regressions_of_counts_of_any_size_converge(name: str, size: float) -> None:
    """The score vanishes to rounding at an interior maximum, however large the counts."""
    data = {"x": X, "y": np.round(SHAPE * size), "n": np.full(6, np.round(60 * size))}
    fit = th.fit("y ~ x", data, name, **({"trials": "n"} if name == "beta_binomial" else {}))
    assert fit.certificate.status == "certified maximum"
    assert fit.certificate.standard_errors is not None
    assert fit.certificate.standard_errors < 1e-6
