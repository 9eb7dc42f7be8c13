"""KL(p ‖ q) of two members of one family, where it has a formula: in nats, exact, row by row.

Each function takes the parameters of p and of q on their own scales, in the family's order. The tests hold
every one of them to the integral or sum of p·(log p − log q), over the families' own examples.

References
----------
Gil, Alajaji and Linder (2013), Rényi divergence measures for commonly used univariate continuous
distributions, Table 2; Bauckhage (2013), Computing the Kullback–Leibler divergence between two Weibull
distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, digamma, lgamma
from torch.special import i0e, i1e

from ..families import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Dirichlet,
    Exponential,
    Family,
    Gamma,
    Geometric,
    Gumbel,
    InverseGaussian,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    VonMises,
    Weibull,
)

GAMMA = 0.5772156649015329  # Euler's

Values = Sequence[Tensor]
Form = Callable[[Family, Values, Values, Mapping[str, Tensor]], Tensor]


def closed_form(
    p: Family, own: Values, q: Family, other: Values, extras: Mapping[str, Tensor]
) -> Tensor | None:
    """KL(p ‖ q), (n,), or None where it has no formula here: two families, or one that is not in the
    table."""
    form = FORMS.get(type(p))
    alike = type(p) is type(q) and p.length == q.length and len(p.parameters) == len(q.parameters)
    return None if form is None or not alike else form(p, own, other, extras)


def relative(a: Tensor, b: Tensor) -> Tensor:
    """a·log(a/b) − a + b ≥ 0; b where a = 0. In terms of a/b − 1, so that nothing cancels where a and b are
    near."""
    out: Tensor = torch.special.xlogy(a, a / b) - a + b
    return out


def _bernoulli(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    return relative(p[0], q[0]) + relative(1 - p[0], 1 - q[0])


def _binomial(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    return extras["trials"] * _bernoulli(family, p, q, extras)


def _categorical(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    log_p, log_q = (torch.log_softmax(torch.stack([torch.zeros_like(v[0]), *v], -1), -1) for v in (p, q))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _poisson(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    return relative(p[0], q[0])


def _geometric(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    return relative(p[0], q[0]) - relative(1 + p[0], 1 + q[0])


def _normal(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    (m, s), (n, t) = p, q
    return torch.log(t / s) + (torch.square(s / t) - 1) / 2 + torch.square((m - n) / t) / 2


def _multivariate_normal(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(family, MultivariateNormal)
    (m, L), (n, M) = family._unpack(p), family._unpack(q)
    Z = torch.linalg.solve_triangular(M, L, upper=False)  # M⁻¹ L: tr (MMᵀ)⁻¹LLᵀ = |M⁻¹L|²
    z = torch.linalg.solve_triangular(M, (m - n)[..., None], upper=False)
    apart = torch.log(M.diagonal(dim1=-2, dim2=-1) / L.diagonal(dim1=-2, dim2=-1)).sum(-1)
    out: Tensor = apart + (Z.square().sum((-2, -1)) + z.square().sum((-2, -1)) - family.dim) / 2
    return out


def _exponential(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    return p[0] / q[0] - 1 - torch.log(p[0] / q[0])


def _gamma(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    (m, n), (a, b) = (p[0], q[0]), (1 / p[1], 1 / q[1])  # means and shapes; the rates are a/m and b/n
    return (a - b) * digamma(a) - lgamma(a) + lgamma(b) + b * torch.log(a * n / (b * m)) + b * m / n - a


def _beta(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    return _dirichlet(family, [p[1] * p[0], p[1] * (1 - p[0])], [q[1] * q[0], q[1] * (1 - q[0])], extras)


def _dirichlet(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    s, t = torch.stack(list(p)).sum(0), torch.stack(list(q)).sum(0)
    out = lgamma(s) - lgamma(t)
    for a, b in zip(p, q, strict=True):
        out = out - lgamma(a) + lgamma(b) + (a - b) * (digamma(a) - digamma(s))
    return out


def _laplace(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    (m, s), (n, t) = p, q
    d = (m - n).abs()
    return torch.log(t / s) + d / t + s / t * torch.exp(-d / s) - 1


def _gumbel(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    (m, s), (n, t) = p, q
    return torch.log(t / s) - GAMMA - 1 + (m - n + s * GAMMA) / t + torch.exp((n - m) / t + lgamma(1 + s / t))


def _weibull(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    """−log y is Gumbel: location −log λ, scale 1/k."""
    return _gumbel(family, [-torch.log(p[0]), 1 / p[1]], [-torch.log(q[0]), 1 / q[1]], extras)


def _inverse_gaussian(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    (m, f), (n, g) = p, q
    return (torch.log(g / f) - 1 + f / g + torch.square(m / n - 1) / (g * m)) / 2


def _von_mises(family: Family, p: Values, q: Values, extras: Mapping[str, Tensor]) -> Tensor:
    (m, k), (n, c) = p, q
    away = (k - c * torch.cos(m - n)) * i1e(k) / i0e(k)
    out: Tensor = away - torch.log(i0e(k) / i0e(c)) - (k - c)
    return out


FORMS: dict[type[Family], Form] = {
    Bernoulli: _bernoulli,
    Binomial: _binomial,
    Categorical: _categorical,
    Poisson: _poisson,
    Geometric: _geometric,
    Normal: _normal,
    LogNormal: _normal,
    MultivariateNormal: _multivariate_normal,
    Exponential: _exponential,
    Gamma: _gamma,
    Beta: _beta,
    Dirichlet: _dirichlet,
    Laplace: _laplace,
    Gumbel: _gumbel,
    Weibull: _weibull,
    InverseGaussian: _inverse_gaussian,
    VonMises: _von_mises,
}


def vector_entropy(family: Family, p: Values) -> Tensor | None:
    """−E log p, (n,), of the families of vectors, which no rule here integrates; None of others.

    Normal: d/2·log 2πe + Σ log L_ii.    Dirichlet: log B(α) + (s − k)·ψ(s) − Σ (α_j − 1)·ψ(α_j).
    """
    if isinstance(family, MultivariateNormal):
        factor = family._unpack(p)[1]
        return family.dim / 2 * (1 + math.log(2 * math.pi)) + torch.log(
            factor.diagonal(dim1=-2, dim2=-1)
        ).sum(-1)
    if isinstance(family, Dirichlet):
        s, out = torch.stack(list(p)).sum(0), torch.zeros_like(p[0])
        for a in p:
            out = out + lgamma(a) - (a - 1) * digamma(a)
        return out - lgamma(s) + (s - family.k) * digamma(s)
    return None
