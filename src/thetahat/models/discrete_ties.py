"""The exact partial likelihood of tied events, for times that are truly discrete.

Of the n rows at risk d have their event at one time. Given that it is d of them, which?

    log p = Σ_{i in D} η_i − log Σ_{S ⊂ R, |S| = d} exp(Σ_{i in S} η_i)

The sum over all subsets is found through independent coins: let N = Σ_i Bernoulli(p_i) with p_i = σ(η_i + λ), and
λ such that E[N] = d. Then

    log Σ_S exp(Σ_S η) = log P(N = d) + Σ_i log(1 + exp(η_i + λ)) − d λ

and P(N = d) is largest near its mean, so that no digit is lost. With z_l = exp(2πi l/L) and φ_l = Π_i (1 − p_i +
p_i z_l),

    P(N = d) = 1/L Σ_l z_l^(−d) φ_l        exactly, but for P(N = d ± L), …

and, N having a variance of at most d, L = 48 + 10 √d leaves less than rounding of these (Bernstein's inequality).
Half of the l are enough: the others are complex conjugates. Who is among the d, given N = d, has the first and second
moments that the gradient and the information need, from the same numbers: with r_il = p_i z_l / (1 − p_i + p_i z_l)
and κ_l = z_l^(−d) φ_l / (L P(N = d)),

    P(i in S) = Σ_l κ_l r_il,      P(i and j in S) = Σ_l κ_l r_il r_jl

The cost is n √d, and n d p² is that of the recursion over rows in use elsewhere.

References
----------
Kalbfleisch and Prentice (2002), The Statistical Analysis of Failure Time Data, 2nd ed., §4.3; Gail, Lubin and
Rubinstein (1981), Likelihood calculations for matched case-control studies; Hong (2013), On computing the
distribution function for the Poisson binomial distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CELLS = 2**22  # complex numbers in memory at once


@dataclass(frozen=True)
class Subsets:
    """log Σ_S exp(Σ_S η); each row's probability to be in S, (n,); and the covariance of Σ_{i in S} x_i, (p, p)
    (None: it was not asked for)."""

    log_sum: float
    inside: Tensor
    covariance: Tensor | None


def subsets(eta: Tensor, count: Tensor, d: int, X: Tensor | None) -> Subsets:
    """The sum over all subsets of d, and the moments of one drawn with probability ∝ exp(Σ_S η).

    Parameters
    ----------
    eta, count
        (n,) and how many rows each stands for, whole numbers
    d
        1 ≤ d ≤ Σ count
    X
        (p, n); None: the covariance is not needed

    Examples
    --------
    >>> found = subsets(torch.log(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)), torch.ones(3), 2, None)
    >>> round(math.exp(found.log_sum), 12), found.inside.numpy().round(6)  # 1·2 + 1·3 + 2·3
    (11.0, array([0.454545, 0.727273, 0.818182]))
    """
    n = float(count.sum())
    if d == round(n):  # every row: there is one such subset
        zero = None if X is None else X.new_zeros(len(X), len(X))
        return Subsets(float((count * eta).sum()), torch.ones_like(eta), zero)
    tilt = _tilt(eta, count, d)
    p, q = torch.sigmoid(eta + tilt), torch.sigmoid(-eta - tilt)
    L = _roots(d)
    half = torch.arange(L // 2 + 1)
    angle = 2 * math.pi * half.to(torch.float64) / L
    z = torch.polar(torch.ones_like(angle), angle)
    step = max(1, CELLS // L)
    counted = bool((count != 1).any())
    phi = torch.ones(len(z), dtype=torch.complex128)  # what underflows is nothing beside P(N = d)
    for a in range(0, len(eta), step):
        here = slice(a, a + step)
        factor = q[here, None] + p[here, None] * z
        phi *= torch.exp((count[here, None] * torch.log(factor)).sum(0)) if counted else factor.prod(0)
    # the exponents of z are taken modulo L: an angle of d·2πl/L would lose digits
    back = torch.polar(torch.ones_like(angle), -2 * math.pi * ((d * half) % L).to(angle.dtype) / L)
    kappa = phi * back * torch.where(half > 0, 2.0, 1.0) / L
    chance = float(kappa.sum().real)
    kappa = kappa / chance
    inside, spread = torch.empty_like(eta), torch.empty_like(eta)
    sums = torch.zeros(len(z), 0 if X is None else len(X), dtype=torch.complex128)
    for a in range(0, len(eta), step):
        here = slice(a, a + step)
        r = p[here, None] * z / (q[here, None] + p[here, None] * z)
        inside[here] = (r @ kappa).real
        if X is not None:
            spread[here] = ((r - r * r) @ kappa).real
            sums += (r * count[here, None]).T @ X[:, here].T.to(torch.complex128)
    log_sum = math.log(chance) + float((count * torch.nn.functional.softplus(eta + tilt)).sum()) - d * tilt
    if X is None:
        return Subsets(log_sum, inside, None)
    # of centred sums: E[(Σx)(Σx)ᵀ] − E[Σx] E[Σx]ᵀ would cancel
    centre = X @ (count * inside)
    sums = sums - centre.to(torch.complex128)
    covariance = ((sums * kappa[:, None]).T @ sums).real + (X * (count * spread)) @ X.T
    return Subsets(log_sum, inside, (covariance + covariance.T) / 2)


def work(n: Tensor, d: Tensor) -> float:
    """Complex numbers that the sums over sets of n rows and d events take."""
    return float((n * (24 + 5 * d.sqrt())).sum())


def _roots(d: int) -> int:
    """L, odd: z = −1, at which a factor may vanish, is not among the roots."""
    return 2 * (24 + 5 * (math.isqrt(d) + 1)) + 1


def _tilt(eta: Tensor, count: Tensor, d: int) -> float:
    """λ with Σ count σ(η + λ) = d, to within what P(N = d) needs: a root of a rising function, by bisection."""
    n = float(count.sum())
    middle = math.log(d / (n - d))
    low, high = middle - float(eta.max()), middle - float(eta.min())
    for _ in range(200):
        tilt = (low + high) / 2
        if float((count * torch.sigmoid(eta + tilt)).sum()) < d:
            low = tilt
        else:
            high = tilt
        if high - low <= 1e-6:
            break
    return (low + high) / 2
