"""The cumulative-link models against mpmath, R's polr and their own sums."""

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, OutOfSupport
from thetahat.families import Bernoulli, Ordinal
from thetahat.io.families import from_config, to_config

from . import count_checks as checks
from .count_checks import D, tensors

LINKS = ("logit", "probit", "cloglog")
THETA = (0.5, -1.0, 0.2, 1.5)
Y = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=D)
F = {
    "logit": lambda t: 1 / (1 + mpmath.exp(-t)),
    "probit": mpmath.ncdf,
    "cloglog": lambda t: -mpmath.expm1(-mpmath.exp(t)),
}


def exact(link, low, high):
    with mpmath.workdps(400):
        return float(mpmath.log(F[link](mpmath.mpf(high)) - F[link](mpmath.mpf(low))))


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("low", [-25.0, -6.0, -0.3, 0.2, 3.0, 6.0, 25.0])
@pytest.mark.parametrize("width", [1e-9, 1e-3, 0.02, 0.05, 1.0, 8.0])
def test_an_interval_is_exact_in_both_tails_and_when_it_is_narrow(link, low, width):
    """mpmath, 400 digits. A width of 1e-9 keeps the 7 digits that τ_2 − τ_1 itself has in float64."""
    if link == "cloglog" and low > 6:
        low /= 5  # exp(−exp(25)) is beyond every float
    high = low + width
    found = Ordinal(3, link=link).log_prob(torch.tensor(1.0, dtype=D), *tensors(0.0, low, high))
    np.testing.assert_allclose(found, exact(link, low, high), rtol=1e-13, atol=3e-13)


@pytest.mark.parametrize("link", LINKS)
def test_probabilities_sum_to_1_and_accumulate_to_the_cdf(link):
    family, theta = Ordinal(4, link=link), tensors(*THETA)
    p = family.probabilities(*theta)
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-14)
    np.testing.assert_allclose(family.cdf(Y, *theta), p.cumsum(0), rtol=1e-14)
    np.testing.assert_allclose(
        torch.exp(family.log_survival(Y, *theta)), 1 - p.cumsum(0), rtol=1e-13, atol=1e-15
    )
    assert family.cdf(torch.tensor(-1.0, dtype=D), *theta) == 0
    assert family.probabilities(torch.zeros(5, dtype=D), *theta[1:]).shape == (5, 4)


def test_two_categories_are_bernoulli():
    y, eta = torch.tensor([0.0, 1.0], dtype=D), torch.tensor([0.3, -2.0], dtype=D)
    for link in ("logit", "probit"):
        ours = Ordinal(2, link=link).log_prob(y, eta, torch.zeros(1, dtype=D))
        torch.testing.assert_close(ours, Bernoulli(link=link).log_prob_eta(y, eta))


@pytest.mark.parametrize("link", LINKS)
def test_thresholds_out_of_order_have_probability_0_and_no_nan(link):
    family, y = Ordinal(4, link=link), Y
    eta = [torch.tensor([v], dtype=D) for v in (0.1, 0.5, 0.5, -3.0)]
    value, score, curvature = family.derivatives(y, eta)
    assert torch.isneginf(value).all()
    for tensor in (*score, *curvature.values()):
        assert not tensor.isnan().any()
    assert torch.isneginf(family.log_prob(torch.tensor([-1.0, 4.0, 0.5]), *tensors(*THETA))).all()


@pytest.mark.parametrize("link", LINKS)
def test_automatic_scores_are_the_central_differences(link):
    eta = [
        torch.tensor([-1.5, 0.4, 0.2, 2.0], dtype=D),
        *(torch.full((4,), t, dtype=D) for t in (-1.0, 0.2, 0.225)),
    ]
    checks.automatic_is_difference(Ordinal(4, link=link), Y, eta)


@pytest.mark.parametrize("link", LINKS)
def test_no_eta_makes_nan(link):
    for location in (-200.0, -40.0, -5.0, 5.0, 40.0, 200.0):
        for width in (1e-8, 0.1, 50.0):
            eta = [torch.tensor([t], dtype=D) for t in (location, -width, width, 3 * width)]
            value, score, curvature = Ordinal(4, link=link).derivatives(Y, eta)
            for tensor in (value, *score, *curvature.values()):
                assert not tensor.isnan().any(), (location, width)


@pytest.mark.parametrize("link", LINKS)
def test_quantile_inverts_the_cdf_and_samples_have_the_stated_probabilities(link):
    family, theta, n = Ordinal(4, link=link), tensors(*THETA), 100_000
    checks.quantile_inverts(family, theta, Y)
    rows = [t.expand(n) for t in theta]
    draws, again = (family.sample(*rows, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(draws, again)
    p = family.probabilities(*theta)
    share = torch.bincount(draws.long(), minlength=4) / n
    assert ((share - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("y", [[0.0, 1.0, 1.0, 2.0, 3.0], [2.0, 2.0], [3.0], [0.0]])
def test_a_start_has_increasing_thresholds(link, y):
    location, *thresholds = Ordinal(4, link=link).start(torch.tensor(y, dtype=D), torch.ones(len(y), dtype=D))
    assert location == 0
    assert np.isfinite(thresholds).all()
    assert (np.diff(thresholds) > 0).all()


def test_the_parameters_are_a_location_without_intercept_and_constant_thresholds():
    parameters = Ordinal(3, link="probit").parameters
    assert list(parameters) == ["location", "threshold_1", "threshold_2"]
    assert not parameters["location"].intercept
    assert not any(p.own_predictors for p in parameters.values())
    assert str(parameters["location"].link) == "identity"
    assert Ordinal(link="probit").with_categories(3) == Ordinal(3, link="probit")


def test_what_is_unknown_or_wrong_is_said():
    with pytest.raises(BadArgument, match="with_categories"):
        _ = Ordinal().parameters
    with pytest.raises(BadArgument, match="2 or more"):
        Ordinal(1)
    with pytest.raises(BadArgument, match="logit, probit and cloglog"):
        Ordinal(3, link="log")
    with pytest.raises(BadArgument, match="it was given 2"):
        Ordinal(3).log_prob(torch.zeros(2), torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize("link", LINKS)
def test_log_prob_is_concave_and_rises_along_the_recession_cone_only(link):
    family, generator = Ordinal(3, link=link), torch.Generator().manual_seed(2)
    y = torch.tensor([0.0, 1.0, 2.0], dtype=D)
    A, equality = family.recession(y)
    base = torch.tensor([0.0, -0.5, 0.5], dtype=D)
    assert family.concave
    assert not equality.any()
    for d in torch.randn(60, 3, dtype=D, generator=generator):
        path = torch.stack([family.log_prob(y, *(base + t * d)) for t in (0.0, 0.1, 1.0, 15.0, 500.0)])
        assert torch.equal(((A @ d) >= 0).all(1), (path.diff(dim=0) >= -1e-12).all(0))
        curvature = torch.autograd.functional.hessian(
            lambda theta: family.log_prob(y, *theta).sum(), base + 0.3 * d
        )
        assert torch.linalg.eigvalsh(curvature).max() < 1e-10


# MASS::housing: satisfaction (low, medium, high) of 1681 householders by influence, type of housing and
# contact
HOUSING = [
    [21, 21, 28], [34, 22, 36], [10, 11, 36], [61, 23, 17], [43, 35, 40], [26, 18, 54],
    [13, 9, 10], [8, 8, 12], [6, 7, 9], [18, 6, 7], [15, 13, 13], [7, 5, 11],
    [14, 19, 37], [17, 23, 40], [3, 5, 23], [78, 46, 43], [48, 45, 86], [15, 25, 62],
    [20, 23, 20], [10, 22, 24], [7, 10, 21], [57, 23, 13], [31, 21, 13], [5, 6, 13],
]  # fmt: skip


def test_polr_of_the_housing_data_matches_r():
    """R 4.3, MASS::polr(Sat ~ Infl + Type + Cont, weights = Freq, data = housing): residual deviance
    3479.149."""
    cells = torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3), torch.arange(3))
    contact, kind, influence, y = (cells[:, j].double() for j in range(4))
    X = torch.stack([*(influence == j for j in (1, 2)), *(kind == j for j in (1, 2, 3)), contact == 1], 1).to(
        D
    )  # (72, 6)
    weight, family = torch.tensor(HOUSING, dtype=D).reshape(-1), Ordinal(3)

    def log_likelihood(theta):
        return (weight * family.log_prob_eta(y, X @ theta[2:], *theta[:2, None])).sum()

    theta = torch.tensor([*family.start(y, weight)[1:], *[0.0] * 6], dtype=D)
    for _ in range(8):
        score = torch.autograd.functional.jacobian(log_likelihood, theta)
        theta = theta - torch.linalg.solve(torch.autograd.functional.hessian(log_likelihood, theta), score)
    np.testing.assert_allclose(-2 * log_likelihood(theta), 3479.149, atol=5e-4)
    np.testing.assert_allclose(theta[:2], [-0.4961, 0.6907], atol=1e-4)
    slopes = [0.5663944, 1.2888191, -0.5723501, -0.3661866, -1.0910149, 0.3602841]
    np.testing.assert_allclose(theta[2:], slopes, atol=2e-5)


def _graded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=90)
    code = np.digitize(x + rng.logistic(size=90), [-0.5, 1.0])
    return x, code, np.array(["low", "middle", "high"])[code]


def test_words_without_an_order_are_refused_for_the_alphabet_s_order_is_another_model() -> None:
    x, _, words = _graded()
    for y in (words, pd.Categorical(words)):
        with pytest.raises(OutOfSupport, match=r"nothing says the order.*'high', 'low', 'middle'.*levels="):
            th.fit("y ~ x", pd.DataFrame({"y": y, "x": x}), "ordinal")


def test_an_order_that_is_given_is_that_of_the_codes() -> None:
    """The same fit as to the codes 0, 1, 2, by levels= and by an ordered column; saved and loaded."""
    x, code, words = _graded()
    names = ("low", "middle", "high")
    said = th.fit("y ~ x", {"y": code, "x": x}, "ordinal").estimates.to_numpy()
    given = th.fit("y ~ x", {"y": words, "x": x}, Ordinal(levels=names))
    column = pd.DataFrame({"y": pd.Categorical(words, names, ordered=True), "x": x})
    for fit in (given, th.fit("y ~ x", column, "ordinal")):
        np.testing.assert_allclose(fit.estimates.to_numpy(), said, rtol=1e-10)
        assert tuple(fit.predict({"x": [0.0]}, "probabilities").columns) == names
    with pytest.raises(OutOfSupport, match="'middle', which is not one of levels"):
        th.fit("y ~ x", {"y": words, "x": x}, Ordinal(levels=("low", "high")))
    with pytest.raises(BadArgument, match="different categories"):
        Ordinal(levels=("low", "low"))
    assert from_config(to_config(given.model.family)) == given.model.family


def test_numbers_as_text_are_in_the_order_of_numbers() -> None:
    """10 after 9: the alphabet puts it first."""
    x, code, _ = _graded()
    fit = th.fit("y ~ x", {"y": (8 + code).astype(str), "x": x}, "ordinal")
    assert list(fit.predict({"x": [0.0]}, "probabilities").columns) == ["8", "9", "10"]
    assert fit.estimates["x"] == pytest.approx(th.fit("y ~ x", {"y": code, "x": x}, "ordinal").estimates["x"])
