"""What the tests of the continuous families have in common: a family held to scipy, to itself and to central
differences."""

import math

import torch

from thetahat.families import Family

D = torch.float64
RESIDUALS = torch.tensor([-30.0, -5.0, -1.3, -0.4, 0.01, 0.7, 2.0, 8.0, 30.0], dtype=D)


def tensors(parameters):
    return [torch.tensor([p], dtype=D) for p in parameters]


def linear_predictors(family, parameters):
    return [p.link(t) for p, t in zip(family.parameters.values(), tensors(parameters), strict=True)]


def matches_scipy(family, parameters, frozen, y, rtol=1e-12):
    """log_prob, the tails in logs, and the moments, as scipy has them."""
    theta = tensors(parameters)

    def close(ours, theirs, rtol=rtol):
        torch.testing.assert_close(
            ours, torch.as_tensor(theirs, dtype=D).broadcast_to(ours.shape), rtol=rtol, atol=1e-14
        )

    close(family.log_prob(y, *theta), frozen.logpdf(y.numpy()))
    close(family.cdf(y, *theta), frozen.cdf(y.numpy()))
    close(family.log_cdf(y, *theta), frozen.logcdf(y.numpy()))
    close(family.log_survival(y, *theta), frozen.logsf(y.numpy()))
    close(family.expectation(*theta), frozen.mean())
    close(family.variance(*theta), frozen.var())


def integrates_to_one(family, parameters):
    """∫ p(y) dy, by the trapezoidal rule in t, y = μ + σ sinh t."""
    theta = tensors(parameters)
    t = torch.linspace(-40, 40, 80001, dtype=D)
    y = theta[0] + theta[1] * torch.sinh(t)
    total = torch.trapezoid(torch.exp(family.log_prob(y, *theta)) * theta[1] * torch.cosh(t), t)
    assert abs(float(total) - 1) < 1e-6


def derivatives_agree(family, parameters, y, rtol=1e-9):
    """By hand, by automatic differentiation, and by central differences; with each η given once and given for
    each row."""
    eta = linear_predictors(family, parameters)
    automatic = Family.derivatives(family, y, eta)
    for shaped in (eta, [e.expand(y.shape) for e in eta]):
        value, score, curvature = family.derivatives(y, shaped)
        assert family.derivatives(y, shaped, order=1)[2] == {}
        for ours, theirs in [(value, automatic[0]), *zip(score, automatic[1], strict=True)]:
            torch.testing.assert_close(ours.expand(y.shape), theirs, rtol=rtol, atol=1e-12)
        assert curvature.keys() == automatic[2].keys()
        for key, ours in curvature.items():
            torch.testing.assert_close(ours.expand(y.shape), automatic[2][key], rtol=rtol, atol=1e-12)
    step = 1e-5
    for a in range(len(eta)):
        up, down = ([e + sign * step * (j == a) for j, e in enumerate(eta)] for sign in (1, -1))
        slope = (family.log_prob_eta(y, *up) - family.log_prob_eta(y, *down)) / (2 * step)
        torch.testing.assert_close(slope, automatic[1][a], rtol=1e-6, atol=1e-6)
        rise = [
            p - q
            for p, q in zip(
                Family.derivatives(family, y, up, order=1)[1],
                Family.derivatives(family, y, down)[1],
                strict=True,
            )
        ]
        for b in range(a, len(eta)):
            torch.testing.assert_close(rise[b] / (2 * step), automatic[2][a, b], rtol=1e-6, atol=1e-6)


def cdf_agrees(family, parameters, y, rtol=1e-9):
    """d cdf/dy = p(y); log_cdf and log_survival have the slopes of central differences in the parameters; no
    tail is lost."""
    theta = tensors(parameters)
    at = y.clone().requires_grad_()
    (density,) = torch.autograd.grad(family.cdf(at, *theta).sum(), at)
    torch.testing.assert_close(density, torch.exp(family.log_prob(y, *theta)), rtol=rtol, atol=1e-15)
    total = torch.exp(family.log_cdf(y, *theta)) + torch.exp(family.log_survival(y, *theta))
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0.0)
    step = 1e-5
    for function in (family.log_cdf, family.log_survival):
        for a in range(len(theta)):
            leaf = theta[a].clone().requires_grad_()
            given = [leaf.expand(y.shape) if j == a else t for j, t in enumerate(theta)]
            (slope,) = torch.autograd.grad(function(y, *given).sum(), leaf)
            up, down = ([t + sign * step * (j == a) for j, t in enumerate(theta)] for sign in (1, -1))
            torch.testing.assert_close(
                slope[0], (function(y, *up) - function(y, *down)).sum() / (2 * step), rtol=1e-5, atol=1e-6
            )


def quantile_inverts(family, parameters, least=1e-12, rtol=1e-10):
    theta = tensors(parameters)
    q = torch.tensor([least, 1e-3, 0.2, 0.5, 0.7, 0.999], dtype=D)
    y = family.quantile(q, *theta)
    torch.testing.assert_close(family.cdf(y, *theta), q, rtol=rtol, atol=0.0)
    assert bool((family.quantile(q[1:], *theta) > y[:-1]).all())


def samples_follow(family, parameters, n=40_000):
    """P(Y ≤ y) of draws is uniform: its first two moments within five standard errors; so are mean and
    variance where finite."""
    theta = [t.expand(n) for t in tensors(parameters)]
    y = family.sample(*theta, generator=torch.Generator().manual_seed(7))
    again = family.sample(*theta, generator=torch.Generator().manual_seed(7))
    assert y.shape == (n,)
    assert torch.equal(y, again)
    u = family.cdf(y, *tensors(parameters))
    assert abs(float(u.mean()) - 1 / 2) < 5 * math.sqrt(1 / 12 / n)
    assert abs(float((u**2).mean()) - 1 / 3) < 5 * math.sqrt(4 / 45 / n)
    mean, variance = family.expectation(*theta)[0], family.variance(*theta)[0]
    if torch.isfinite(variance):
        assert abs(float(y.mean() - mean)) < 5 * math.sqrt(float(variance) / n)
        square = (y - mean) ** 2
        assert abs(float(square.mean() - variance)) < 5 * float(square.std()) / math.sqrt(n)


def never_nan(family, parameters, y):
    eta = linear_predictors(family, parameters)
    for method in (family.derivatives, lambda *a: Family.derivatives(family, *a)):
        value, score, curvature = method(y, eta)
        for tensor in [value, *score, *curvature.values()]:
            assert not torch.isnan(tensor).any()


def starts_inside(family):
    for y in ([3.0], [0.0, 0.0, 0.0], [1e300, -1e300, 5.0], [1.0, 2.0, 4.0, 100.0]):
        y = torch.tensor(y, dtype=D)
        theta = family.start(y, torch.ones_like(y))
        assert len(theta) == len(family.parameters)
        for value, parameter in zip(theta, family.parameters.values(), strict=True):
            assert math.isfinite(value)
            assert bool(parameter.range.contains(torch.tensor(value, dtype=D)))
