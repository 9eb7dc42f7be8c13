"""The incomplete gamma and beta functions, Stirling's remainder and invert_cdf, against mpmath."""

import itertools
import math

import mpmath
import pytest
import torch

from thetahat.families.incomplete import deviance, log_betainc, log_gammainc, stirling, trigamma
from thetahat.families.special import invert_cdf

from .checks import D


def derivatives(function, *arguments):
    """For each of the two tails: value, gradient and Hessian in the arguments, as autograd finds them."""
    leaves = [torch.tensor([x], dtype=D, requires_grad=True) for x in arguments]
    for value in function(*leaves):
        first = torch.autograd.grad(value.sum(), leaves, create_graph=True, retain_graph=True)
        second = [torch.autograd.grad(f.sum(), leaves, retain_graph=True) for f in first]
        yield value.item(), [f.item() for f in first], [[s.item() for s in row] for row in second]


def exact(function, *arguments):
    """The same in mpmath, by central differences, for one tail."""
    x = [mpmath.mpf(v) for v in arguments]
    step = [mpmath.mpf(10) ** -10 * min(v, 1 - v) if v < 1 else mpmath.mpf(10) ** -10 * v for v in x]

    def at(*moves):
        return mpmath.log(
            function(*(v + sum(s * step[i] for j, s in moves if j == i) for i, v in enumerate(x)))
        )

    k = range(len(x))
    first = [(at((i, 1)) - at((i, -1))) / (2 * step[i]) for i in k]
    second = [
        [
            sum(s * t * at((i, s), (j, t)) for s, t in itertools.product((1, -1), repeat=2))
            / (4 * step[i] * step[j])
            for j in k
        ]
        for i in k
    ]
    return float(at()), [float(f) for f in first], [[float(s) for s in row] for row in second]


def assert_all_close(found, expected, scales, rtol):
    """Derivatives relative to the size they would have for a function of the logarithms of the arguments."""
    assert found[0] == pytest.approx(expected[0], rel=rtol / 10, abs=1e-13)
    for i, scale in enumerate(scales):
        assert found[1][i] == pytest.approx(expected[1][i], rel=rtol, abs=1e-12 / scale)
        for j, other in enumerate(scales):
            assert found[2][i][j] == pytest.approx(expected[2][i][j], rel=rtol, abs=1e-11 / scale / other)


@pytest.mark.parametrize("a", [1e-3, 0.05, 0.5, 1.0, 3.0, 20.0, 150.0, 3000.0])
@pytest.mark.parametrize("u", [0.01, 0.9, 1.0, 1.1, 4.0])
def test_the_incomplete_gamma_function_is_exact_with_its_derivatives(a, u):
    """mpmath, 50 digits: P and Q, their gradient and Hessian in (a, x), to 1e-10."""
    with mpmath.workdps(50):
        expected = [
            exact(lambda a, x: mpmath.gammainc(a, 0, x, regularized=True), a, a * u),
            exact(lambda a, x: mpmath.gammainc(a, x, mpmath.inf, regularized=True), a, a * u),
        ]
    for found, truth in zip(derivatives(log_gammainc, a, a * u), expected, strict=True):
        if truth[0] < -1e-15:  # beyond, the other tail is all that float64 can tell
            assert_all_close(found, truth, (a, a * u), rtol=1e-10)


@pytest.mark.parametrize(
    ("a", "b"), [(0.05, 0.3), (0.5, 0.5), (1.0, 4.0), (4.0, 0.3), (60.0, 4.0), (3000.0, 60.0)]
)
@pytest.mark.parametrize("at", [-3.0, -0.01, 0.01, 2.0])
def test_the_incomplete_beta_function_is_exact_with_its_derivatives(a, b, at):
    """mpmath, 60 digits: both tails, their gradient and Hessian in (a, b, x), to 1e-10; x so many deviations
    from the mean."""
    mean = a / (a + b)
    deviation = math.sqrt(mean * (1 - mean) / (a + b + 1))
    x = min(max(mean + at * deviation, mean * 0.03), 1 - (1 - mean) * 0.03)
    with mpmath.workdps(60):
        expected = [
            exact(lambda a, b, x: mpmath.betainc(a, b, 0, x, regularized=True), a, b, x),
            exact(lambda a, b, x: mpmath.betainc(a, b, x, 1, regularized=True), a, b, x),
        ]
    for found, truth in zip(derivatives(log_betainc, a, b, x), expected, strict=True):
        assert_all_close(found, truth, (a, b, min(x, 1 - x)), rtol=1e-10)


@pytest.mark.parametrize(("a", "x"), [(5.0, 400.0), (1e4, 7e3), (2.0, 1e-200), (0.3, 700.0), (1e5, 1.1e5)])
def test_the_far_tails_of_the_incomplete_gamma_function_do_not_underflow(a, x):
    with mpmath.workdps(50):
        tails = (
            mpmath.gammainc(a, 0, x, regularized=True),
            mpmath.gammainc(a, x, mpmath.inf, regularized=True),
        )
        smaller = float(mpmath.log(min(tails)))
    found = min(t.item() for t in log_gammainc(torch.tensor(a, dtype=D), torch.tensor(x, dtype=D)))
    assert found == pytest.approx(smaller, rel=1e-11)


def test_both_functions_have_their_limits_at_the_ends_and_keep_nan():
    shape, x = torch.tensor(2.0, dtype=D), torch.tensor([-1.0, 0.0, 5e-324, math.inf, math.nan], dtype=D)
    lower, upper = log_gammainc(shape, x)
    assert lower[:2].tolist() == [-math.inf] * 2
    assert upper[:4].tolist() == [0.0, 0.0, 0.0, -math.inf]
    assert lower[3] == 0
    assert lower[4].isnan()
    assert upper[4].isnan()
    lower, upper = log_betainc(shape, shape, torch.tensor([0.0, 1.0], dtype=D))
    assert (lower.tolist(), upper.tolist()) == ([-math.inf, 0.0], [0.0, -math.inf])


def test_a_shape_for_all_rows_or_one_a_row_is_the_same():
    x = (
        torch.rand(40_000, generator=torch.Generator().manual_seed(1), dtype=D) * 9
    )  # more rows than are taken at a time
    one = log_gammainc(torch.tensor([2.3], dtype=D), x)
    torch.testing.assert_close(
        torch.stack(one), torch.stack(log_gammainc(torch.full_like(x, 2.3), x)), rtol=0, atol=0
    )
    assert log_gammainc(torch.tensor(2.3), torch.rand(3, 2))[0].shape == (3, 2)


@pytest.mark.parametrize("a", [1e-8, 0.3, 1.0, 2.0, 9.999, 10.0, 37.0, 1e5, 1e12])
def test_stirlings_remainder_is_exact_with_its_derivatives(a):
    leaf = torch.tensor(a, dtype=D, requires_grad=True)
    value = stirling(leaf)
    (first,) = torch.autograd.grad(value, leaf, create_graph=True)
    (second,) = torch.autograd.grad(first, leaf)
    with mpmath.workdps(60):
        m = mpmath.mpf(a)
        truth = mpmath.loggamma(m) - (m - 0.5) * mpmath.log(m) + m - mpmath.log(2 * mpmath.pi) / 2
        slope, bend = mpmath.psi(0, m) - mpmath.log(m) + 0.5 / m, mpmath.psi(1, m) - 1 / m - 0.5 / m**2
        assert value.item() == pytest.approx(float(truth), rel=1e-12)
        assert first.item() == pytest.approx(float(slope), rel=1e-11)
        assert second.item() == pytest.approx(float(bend), rel=1e-10)
        assert trigamma(leaf).item() == pytest.approx(float(mpmath.psi(1, m)), rel=1e-14)


def test_the_deviance_is_zero_to_second_order():
    k = torch.tensor([1.0, 1e8, 1e8], dtype=D)
    expected = torch.tensor([1.0, 1e8 + 1e3, 3e8], dtype=D)
    with mpmath.workdps(40):
        truth = [
            float(a * mpmath.log(a / e) - a + e)
            for a, e in zip(map(mpmath.mpf, k.tolist()), map(mpmath.mpf, expected.tolist()), strict=True)
        ]
    torch.testing.assert_close(deviance(k, expected), torch.tensor(truth, dtype=D), rtol=1e-10, atol=0)


def test_a_cdf_is_inverted_to_the_last_digits_at_any_scale():
    q = torch.tensor([1e-300, 1e-20, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-12], dtype=D)
    for scale in (1e-5, 1.0, 1e200):
        y = invert_cdf(
            lambda y, s=scale: -torch.expm1(-y / s), q, 0.0, math.inf, lambda y, s=scale: torch.exp(-y / s)
        )
        torch.testing.assert_close(y / scale, -torch.log1p(-q), rtol=1e-14, atol=0)
    torch.testing.assert_close(
        invert_cdf(torch.sigmoid, q[1:], -math.inf, math.inf), torch.logit(q[1:]), rtol=1e-10, atol=1e-15
    )
    ends = invert_cdf(torch.sigmoid, torch.tensor([0.0, 1.0, math.nan], dtype=D), -math.inf, math.inf)
    assert ends[:2].tolist() == [-math.inf, math.inf]
    assert ends[2].isnan()


def test_an_inverse_has_the_derivatives_of_the_implicit_function():
    q = torch.tensor([0.2, 0.7], dtype=D, requires_grad=True)
    scale = torch.tensor([1.5], dtype=D, requires_grad=True)
    y = invert_cdf(lambda y: torch.sigmoid(y / scale), q, -math.inf, math.inf)
    by_scale, by_q = torch.autograd.grad(y.sum(), (scale, q))
    torch.testing.assert_close(by_scale, torch.logit(q).sum()[None], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_q, 1.5 / (q * (1 - q)), rtol=1e-12, atol=0)
