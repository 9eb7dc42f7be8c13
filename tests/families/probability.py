"""Sums and integrals over p(y), and draws from it: the truths to which test_registry.py holds every
family."""

import functools
import itertools
import math
import zlib

import numpy as np
import pytest
import torch

from thetahat import families as f
from thetahat.families.base import Family
from thetahat.families.censored import Wrapper

D = torch.float64


def tensor(value):
    return torch.as_tensor(value, dtype=D)


def close(ours, theirs, rtol=1e-9, atol=1e-12):
    theirs = tensor(theirs)
    shape = torch.broadcast_shapes(ours.shape, theirs.shape)
    torch.testing.assert_close(ours.expand(shape), theirs.expand(shape), rtol=rtol, atol=atol)


def has(family, method):
    """Whether the family says something of its own: a wrapper does where the family inside does."""
    if isinstance(family, Wrapper):
        return has(family.family, method)
    return getattr(type(family), method) is not getattr(Family, method)


def at(parameters, extras, n=1):
    """θ as tensors, and the extras of each row: (n,)."""
    return [tensor(p).expand(n) for p in parameters], {
        name: tensor(v).expand(n) for name, v in extras.items()
    }


def supported(family, y, extras):
    return family.in_support(y, **at((), extras, len(y))[1])


def draw(family, parameters, extras, n):
    """n values of y, seeded by the case."""
    return _draw(family, parameters, tuple(extras.items()), n)


@functools.cache
def _draw(family, parameters, extras, n):
    seed = zlib.crc32(f"{family}{parameters}".encode())
    theta, rows = at(parameters, dict(extras), n)
    return family.sample(*theta, generator=torch.Generator().manual_seed(seed), **rows)


def eta_of(family, parameters):
    return [p.link(tensor(v)) for p, v in zip(family.parameters.values(), parameters, strict=True)]


def scattered(family, parameters, n, spread=0.3):
    """η of each row: around that of the example."""
    g = torch.Generator().manual_seed(7)
    return [e + spread * torch.randn(n, generator=g, dtype=D) for e in eta_of(family, parameters)]


# ---- sums and integrals over p -----------------------------------------------------------------------------

GAUSS = [tensor(x) for x in np.polynomial.legendre.leggauss(80)]
DOUBLE = torch.arange(-4.5, 4.5, 1 / 24, dtype=D)  # the t of double-exponential quadrature


def grid(family, extras):
    """All values of a discrete y, or as many as matter."""
    s = family.support
    low = s.low if math.isfinite(s.low) else -3000.0
    y = torch.arange(low, (s.high if math.isfinite(s.high) else low + 6000.0) + 1, dtype=D)
    return y[supported(family, y, extras)]


def ends(family, parameters, extras):
    if isinstance(family, f.VonMises):
        return parameters[0] - math.pi, parameters[0] + math.pi
    return extras.get("low", family.support.low), extras.get("high", family.support.high)


def gauss(a, b, low, high):
    """Gauss's rule on (a, b): in y, log(y − low) or the logit of y, as the density may be infinite at a
    finite end."""
    if math.isinf(low):
        return (a + b) / 2 + (b - a) / 2 * GAUSS[0], (b - a) / 2 * GAUSS[1]
    first, last = (torch.log(y - low) - (torch.log(high - y) if math.isfinite(high) else 0.0) for y in (a, b))
    u, weight = (first + last) / 2 + (last - first) / 2 * GAUSS[0], (last - first) / 2 * GAUSS[1]
    if math.isinf(high):
        return low + torch.exp(u), torch.exp(u) * weight
    return low + (high - low) * torch.sigmoid(u), (high - low) * torch.sigmoid(u) * torch.sigmoid(-u) * weight


def pieces(family, parameters, extras):
    """(a, b, quadrature nodes, weights) for a density: Gauss between quantiles of a sample,
    double-exponential to the ends."""
    y = draw(family, parameters, extras, 4001)
    y = y[y != 0] if family.measure == "mixed" else y
    cuts = torch.quantile(y, tensor([0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999]))
    kinks = tensor([v for v in (parameters[0], 0.0) if cuts[0] < v < cuts[-1]])
    cuts = torch.unique(torch.cat([cuts, kinks]))
    low, high = ends(family, parameters, extras)
    for a, b in itertools.pairwise(cuts):
        yield a, b, *gauss(a, b, low, high)
    scale = (cuts[-1] - cuts[0]) / 4
    sinh, cosh = math.pi / 2 * torch.sinh(DOUBLE), math.pi / 2 * torch.cosh(DOUBLE) / 24
    for end, cut, sign in ((low, cuts[0], -1), (high, cuts[-1], 1)):
        if math.isinf(end):
            away = scale * torch.exp(sinh)
            yield cut, tensor(end), cut + sign * away, away * cosh
        else:
            span = abs(end - float(cut))
            away = span * torch.sigmoid(2 * sinh)
            weight = 2 * away * torch.sigmoid(-2 * sinh) * cosh
            yield (
                cut,
                tensor(end),
                torch.where(sinh > 0, end - sign * span * torch.sigmoid(-2 * sinh), cut + sign * away),
                weight,
            )


def plane(family, parameters):
    """Quadrature nodes and weights for a density of two dimensions: the trapezoidal rule, in coordinates
    without bounds."""
    theta, _ = at(parameters, {})
    if isinstance(family, f.MultivariateNormal):
        line = torch.arange(-9, 9.01, 0.1, dtype=D)
        factor = torch.linalg.cholesky(family.variance(*theta)[0])
        return family.expectation(*theta) + torch.cartesian_prod(
            line, line
        ) @ factor.T, 0.01 * torch.linalg.det(factor)
    line = torch.arange(-60, 60.01, 0.25, dtype=D)  # y₁ = σ(a), y₂ = σ(−a)·σ(b), y₃ = σ(−a)·σ(−b)
    a, b = torch.cartesian_prod(line, line).T
    y = torch.stack(
        [torch.sigmoid(a), torch.sigmoid(-a) * torch.sigmoid(b), torch.sigmoid(-a) * torch.sigmoid(-b)], 1
    )
    return y, 0.0625 * y.prod(1)


@functools.cache
def _points(family, parameters, extras):
    extras = dict(extras)
    if draw(family, parameters, extras, 200).ndim > 1:
        y, weight = plane(family, parameters)
    elif family.measure == "mass":
        y, weight = grid(family, extras), tensor(1.0)
    else:
        y, weight = (torch.cat(x) for x in list(zip(*pieces(family, parameters, extras), strict=True))[2:])
        inside = supported(family, y, extras)  # quadrature may round a node to an end, or overflow
        y, weight = y[inside], weight[inside]
    theta, rows = at(parameters, extras, len(y))
    value = torch.exp(family.log_prob(y, *theta, **rows)) * weight
    zero = tensor([0.0])
    if family.measure == "mixed" and not isinstance(family, f.Censored) and supported(family, zero, extras):
        theta, rows = at(parameters, extras)
        y, value = torch.cat([zero, y]), torch.cat([torch.exp(family.log_prob(zero, *theta, **rows)), value])
    return y, value


def points(family, parameters, extras):
    """(y, probability) pairs whose sums are the sums or integrals over p."""
    y = draw(family, parameters, extras, 200)
    if y.ndim > 1 and y.shape[1] != (2 if isinstance(family, f.MultivariateNormal) else 3):
        pytest.skip("not of two dimensions")
    return _points(family, parameters, tuple(extras.items()))


def moments(family, parameters, extras):
    y, p = points(family, parameters, extras)
    mean = p @ y
    return mean, p @ (y - mean) ** 2 if y.ndim == 1 else ((y - mean).T * p) @ (y - mean)
