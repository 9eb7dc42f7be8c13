"""Student's t distribution: the normal with heavy tails."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import links
from .base import Derivatives, Family, Parameter
from .ranges import positive, real
from .special import LOG_ROOT_2PI, invert_cdf, log_gamma_half_step, log_tail, median_and_spread, polynomial

# h(u) = log(1 + u) − u/(1 + u) = Σ_{k≥2} w^k/k, w = u/(1 + u): its direct form is lost to cancellation for
# small u
_H = [0.0, 0.0] + [1 / k for k in range(2, 11)]


@dataclass(frozen=True)
class StudentT(Family):
    """Student's t: a normal whose tails are heavy enough to shrug off an outlier.

        log p(y | μ, σ, ν) = log Γ((ν+1)/2) − log Γ(ν/2) − ½ log νπ − log σ − (ν+1)/2 · log(1 + z²/ν),      z = (y − μ)/σ

    Mean μ where ν > 1, variance σ²ν/(ν − 2) where ν > 2. ν = 1 is Cauchy; ν → ∞ is Normal: the boundary that
    the certificate reports. In η = log ν all derivatives stay exact as ν → ∞ (where the score itself falls as
    1/ν).

    Parameters
    ----------
    location
        μ, link identity
    scale
        σ > 0, link log
    df
        ν > 0, the degrees of freedom; link log

    References
    ----------
    Lange, Little and Taylor (1989), Robust statistical modeling using the t distribution, J. Amer. Statist.
    Assoc. 84.

    Examples
    --------
    >>> round(StudentT().log_prob(*torch.tensor([1.0, 0.0, 1.0, 3.0])).item(), 6)
    -1.576253
    """

    location = Parameter(real)
    scale = Parameter(positive, link=links.log)
    df = Parameter(positive, link=links.log, boundary=math.inf, limit="Normal")

    def log_prob(self, y: Tensor, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        return _log_standard((y - location) / scale, df) - torch.log(scale)

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        location = self.parameters["location"].link.inverse(eta[0])
        return _log_standard((y - location) * torch.exp(-eta[1]), torch.exp(eta[2])) - eta[1]

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        location, log_scale, log_df = eta
        precision = torch.exp(-log_scale)
        df, z = _finite(torch.exp(log_df), (y - location) * precision)
        square = z * z
        v = 1 / (df + square)
        w = square * v  # u/(1 + u) with u = z²/ν, and 1 − w = νv
        log1p_u = torch.log1p(square / df)
        c, c1, c2 = _normaliser(df, order)
        pull = (df + 1) * precision * z * v
        value = c - LOG_ROOT_2PI - log_scale - (df + 1) / 2 * log1p_u
        half_h = df / 2 * _h(w, log1p_u, df)
        score = [pull, (df + 1) * w - 1, c1 - half_h + w / 2]
        if order < 2:
            return value, score, {}
        rest = df * v
        spread = w * rest
        curvature = {
            (0, 0): (df + 1) * precision**2 * v * (2 * w - 1),
            (0, 1): -2 * pull * rest,
            (0, 2): precision * z * v * rest * (square - 1),
            (1, 1): -2 * (df + 1) * spread,
            (1, 2): spread * (square - 1),
            (2, 2): c2 - half_h + (df * w * w - spread) / 2,
        }
        return value, score, curvature

    def sample(
        self, location: Tensor, scale: Tensor, df: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        location, scale, df = torch.broadcast_tensors(location, scale, df)
        normal = torch.randn(df.shape, generator=generator, dtype=df.dtype, device=df.device)
        # χ²_ν/ν by way of Gamma(ν/2) = Gamma(ν/2 + 1)·U^(2/ν), in logs: Gamma(ν/2) itself underflows for
        # small ν
        half = _finite(df, df)[0] / 2
        gamma = torch._standard_gamma(half + 1, generator=generator)
        log_uniform = torch.log1p(
            -torch.rand(df.shape, generator=generator, dtype=df.dtype, device=df.device)
        )
        return location + scale * normal * torch.exp(-0.5 * (torch.log(gamma / half) + log_uniform / half))

    def expectation(self, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        return torch.where(df > 1, location + 0 * scale, math.nan)

    def variance(self, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        finite = scale**2 / (1 - 2 / torch.where(df > 2, df, math.inf)) + 0 * location
        return torch.where(df > 2, finite, torch.where(df > 1, math.inf, math.nan))

    def cdf(self, y: Tensor, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        z = (y - location) / scale
        tail = torch.exp(_log_tail(z, df))
        return torch.where(z < 0, tail, 1 - tail)

    def log_cdf(self, y: Tensor, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        z = (y - location) / scale
        log_tail = _log_tail(z, df)
        return torch.where(z < 0, log_tail, torch.log1p(-torch.exp(log_tail)))

    def log_survival(self, y: Tensor, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        return self.log_cdf(2 * location - y, location, scale, df)

    def quantile(self, q: Tensor, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        def lower(z: Tensor) -> Tensor:
            return self.cdf(z, torch.zeros_like(df), torch.ones_like(df), df)

        return location + scale * invert_cdf(lower, q, -math.inf, math.inf, lambda z: lower(-z))

    def log_power_integral(self, beta: float, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        # c^(1+β) σ^(−β) √(νπ) Γ(a)/Γ(a + ½), c the constant of the density and a = (ν(1 + β) + β)/2
        df = _finite(df, df)[0]
        a = (df * (1 + beta) + beta) / 2
        log_c = log_gamma_half_step(df / 2) - LOG_ROOT_2PI
        ratio = 0.5 * torch.log(df * math.pi / a) - log_gamma_half_step(a)
        return (1 + beta) * log_c + ratio - beta * torch.log(scale) + 0 * location

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        centre, spread = median_and_spread(y, weight)
        return centre, 1.4 * spread, 6.0


def _log_standard(z: Tensor, df: Tensor) -> Tensor:
    """log p(z | 0, 1, ν), by (ν+1)·log(1+u) = ν·h(u) + νw + log(1+u), so that automatic differentiation in ν
    cancels nothing."""
    df, z = _finite(df, z)
    square = z * z
    u = square / df
    log1p_u = torch.log1p(u)
    nu_w = square / (1 + u)
    h = _h(u / (1 + u), log1p_u, df)
    return log_gamma_half_step(df / 2) - LOG_ROOT_2PI - 0.5 * (df * h + nu_w + log1p_u)


def _finite(df: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """ν short of what overflows, where the family is Normal to the last digit; z short of what overflows when
    squared."""
    largest = torch.finfo(z.dtype).max
    return df.clamp(max=largest**0.3), z.clamp(-(largest**0.49), largest**0.49)


def _h(w: Tensor, log1p_u: Tensor, df: Tensor) -> Tensor:
    direct = log1p_u - w
    if not bool((df > 100).any()):  # ν·h is then exact to 1e-14 by the direct form, at half the cost
        return direct
    return torch.where(w < 0.02, polynomial(w, _H), direct)


def _normaliser(df: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """c(ν) = log Γ((ν+1)/2) − log Γ(ν/2) − ½ log(ν/2), and its first and second derivative in log ν."""
    if df.numel() == 1 and df.dtype == torch.float64:
        return _normaliser_of_one(float(df))
    return _normalisers(df, order)


@functools.lru_cache(maxsize=64)
def _normaliser_of_one(df: float) -> tuple[Tensor, Tensor, Tensor]:
    """Remembered: a constant ν is asked for once a block of rows, and its small tensors would cost more
    than the rows."""
    return _normalisers(torch.tensor([df], dtype=torch.float64), 2)


def _normalisers(df: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        leaf = df.detach().log().requires_grad_()
        c = log_gamma_half_step(torch.exp(leaf) / 2)
        (first,) = torch.autograd.grad(c.sum(), leaf, create_graph=order > 1)
        second = torch.autograd.grad(first.sum(), leaf)[0] if order > 1 else first
    return c.detach(), first.detach(), second.detach()


def _log_tail(z: Tensor, df: Tensor) -> Tensor:
    """log P(T > |z|) = log ∫ p(√ν sinh φ)·√ν cosh φ dφ over φ > asinh(|z|/√ν): in φ every tail is
    exponential."""
    z, df = torch.broadcast_tensors(z, df)
    root = torch.sqrt(df)
    start = torch.asinh(torch.where(z < 0, -z, z) / root)
    log_constant = log_gamma_half_step(df / 2) - LOG_ROOT_2PI + 0.5 * torch.log(df)
    scale = 1 / (df * torch.tanh(start) + df / torch.sqrt(1 + df))
    return log_constant + log_tail(lambda x: -df[..., None] * _log_cosh(start[..., None] + x), scale)


def _log_cosh(x: Tensor) -> Tensor:
    """log cosh x for x ≥ 0, exact in the relative sense near 0."""
    near = torch.where(x < 1, x, 0.0)
    return torch.where(
        x < 1, 0.5 * torch.log1p(torch.sinh(near) ** 2), x + torch.log1p(torch.exp(-2 * x)) - math.log(2)
    )
