"""What the tests of the discrete families have in common: hand against automatic derivatives, differences,
quantiles, draws."""

import torch

from thetahat.families import Family

D = torch.float64


def tensors(*values):
    return [torch.tensor(float(v), dtype=D) for v in values]


def hand_is_automatic(family, y, eta, extras=None):
    found, expected = family.derivatives(y, eta, extras), Family.derivatives(family, y, eta, extras)
    assert found[2].keys() == expected[2].keys()
    assert family.derivatives(y, eta, extras, order=1)[2] == {}
    for a, b in zip(
        [found[0], *found[1], *found[2].values()],
        [expected[0], *expected[1], *expected[2].values()],
        strict=True,
    ):
        torch.testing.assert_close(a.expand(y.shape), b.expand(y.shape), rtol=1e-10, atol=1e-13)


def automatic_is_difference(family, y, eta, extras=None):
    """Scores against central differences of log p, curvatures against those of the scores."""
    extras, h = extras or {}, 1e-5
    _, score, curvature = Family.derivatives(family, y, eta, extras)
    for a in range(len(eta)):
        up, down = ([e + sign * h * (i == a) for i, e in enumerate(eta)] for sign in (1, -1))
        difference = (family.log_prob_eta(y, *up, **extras) - family.log_prob_eta(y, *down, **extras)) / (
            2 * h
        )
        torch.testing.assert_close(score[a], difference, rtol=1e-7, atol=1e-8)
        above, below = (
            Family.derivatives(family, y, up, extras, 1)[1],
            Family.derivatives(family, y, down, extras, 1)[1],
        )
        for b in range(a, len(eta)):
            torch.testing.assert_close(curvature[a, b], (above[b] - below[b]) / (2 * h), rtol=1e-6, atol=1e-7)


def never_nan(family, y, grid, extras=None):
    """At every combination of the η of the grid: no NaN in the value, score or curvature, by hand and
    automatic."""
    k = len(family.parameters)
    for eta in torch.cartesian_prod(*[torch.tensor(grid, dtype=D)] * k).reshape(-1, k):
        rows = [e.expand(y.shape) for e in eta]
        for value, score, curvature in (
            family.derivatives(y, rows, extras),
            Family.derivatives(family, y, rows, extras),
        ):
            for tensor in (value, *score, *curvature.values()):
                assert not tensor.isnan().any(), eta


def quantile_inverts(family, theta, y, **extras):
    """The quantile of a probability strictly between cdf(y − 1) and cdf(y) is y."""
    above, below = family.cdf(y, *theta, **extras), family.cdf(y - 1, *theta, **extras)
    kept = above - below > 1e-12
    torch.testing.assert_close(family.quantile((above + below) / 2, *theta, **extras)[kept], y[kept])


def draws_have_the_moments(family, theta, n=100_000, **extras):
    """Mean and variance within five standard errors, and the same seed gives the same draws."""
    rows, wide = [t.expand(n) for t in theta], {name: t.expand(n) for name, t in extras.items()}
    y, again = (family.sample(*rows, generator=torch.Generator().manual_seed(1), **wide) for _ in range(2))
    assert torch.equal(y, again)
    assert family.in_support(y, **wide).all()
    mean, variance = family.expectation(*theta, **extras), family.variance(*theta, **extras)
    assert abs(y.mean() - mean) < 5 * (variance / n).sqrt()
    square = (y - mean) ** 2
    assert abs(square.mean() - variance) < 5 * square.std() / n**0.5


def mass_has_the_moments(family, theta, y, **extras):
    """Σ p = 1, Σ y p and Σ (y − mean)² p are the stated ones, over all of y that matters."""
    p = torch.exp(family.log_prob(y, *theta, **extras))
    mean, variance = family.expectation(*theta, **extras), family.variance(*theta, **extras)
    torch.testing.assert_close(p.sum(), torch.ones_like(mean), rtol=1e-12, atol=0.0)
    torch.testing.assert_close((p * y).sum(), mean, rtol=1e-10, atol=0.0)
    torch.testing.assert_close((p * (y - mean) ** 2).sum(), variance, rtol=1e-10, atol=0.0)
