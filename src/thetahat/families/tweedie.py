"""Tweedie's compound Poisson–gamma: a total that is often exactly zero, and otherwise positive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import links
from .base import Derivatives, Parameter, Tailed, nonnegatives, weighted_mean, weighted_variance
from .incomplete import DEPTH, by_rows, jet, log_gammainc, moments, stirling_jets, stirling_value
from .ranges import Range, nonnegative, positive
from .special import invert_cdf, log1mexp, log_gamma_sample
from .tabulated import tabulated


@dataclass(frozen=True)
class Tweedie(Tailed):
    """The sum of a Poisson number of gamma amounts: insurance totals, rainfall, catches.

        P(0 | μ, φ, p) = exp(−λ),      λ = μ^(2−p) / φ(2 − p)
        log p(y | μ, φ, p) = −log y − D/φ + ½ log A − log 2π + log Σ_{j≥1} exp(−(1 + A)·d(j, ĵ) − δ(j) − δ(jA)),      y > 0

    with A = (2 − p)/(p − 1) the shape of each amount, ĵ = y^(2−p) / φ(2 − p) the place of the largest term,
    d(j, ĵ) = j·log(j/ĵ) − j + ĵ, and D = μ^(2−p)·[(u − 1) − (u^(2−p) − 1)/(2 − p)]/(p − 1), u = y/μ, half the
    unit deviance. This is the series of Dunn and Smyth with Stirling's formula put into its terms (δ: what
    that leaves of log Γ), so that nothing cancels. Mean μ, variance φμ^p. p → 1 is a scaled Poisson, p → 2
    the gamma.

    Parameters
    ----------
    mean
        μ ≥ 0, link log
    dispersion
        φ > 0, link log
    power
        1 < p < 2, link logit on (1, 2)

    References
    ----------
    Dunn and Smyth (2005), Series evaluation of Tweedie exponential dispersion model densities, Stat. Comput.
    15.

    Examples
    --------
    >>> round(Tweedie().log_prob(*(torch.tensor(x, dtype=torch.float64) for x in (0.0, 2.0, 0.5, 1.5))).item(), 6)
    -5.656854
    """

    mean = Parameter(nonnegative, link=links.log)
    dispersion = Parameter(positive, link=links.log)
    power = Parameter(Range(1.0, 2.0), link=links.Scaled(1.0, 2.0), boundary=2.0, limit="Gamma")
    support = nonnegatives
    measure = "mixed"
    degenerate = "dispersion"  # the sum of the series has no digits left where φ < 10⁻¹⁵ μ^(2−p)

    def log_prob(self, y: Tensor, mean: Tensor, dispersion: Tensor, power: Tensor) -> Tensor:
        return self._log_prob(y, torch.log(mean), torch.log(dispersion), power - 1, 2 - power)

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        log_mean, log_dispersion = (
            p.link.log_inverse(e) for p, e in zip(list(self.parameters.values())[:2], eta[:2], strict=True)
        )
        return self._log_prob(
            y, log_mean, log_dispersion, torch.sigmoid(eta[2]), torch.sigmoid(-eta[2])
        )  # p − 1 and 2 − p

    def _log_prob(
        self, y: Tensor, log_mean: Tensor, log_dispersion: Tensor, over: Tensor, under: Tensor
    ) -> Tensor:
        """over = p − 1, under = 2 − p: apart, so that p near 1 or 2 keeps its digits."""
        log_y = torch.log(torch.where(y > 0, y, 1.0))
        z, shape = log_y - log_mean, under / over
        scale = torch.exp(under * log_mean - log_dispersion)  # μ^(2−p)/φ
        deviance = scale * (torch.expm1(z) - torch.expm1(under * z) / under) / over
        log_peak = under * log_y - log_dispersion - torch.log(under)
        log_peak, shape = torch.broadcast_tensors(log_peak, shape)
        value, *d = _series(log_peak, shape)
        series = jet(value, [log_peak, shape], d[:2], {(0, 0): d[2], (0, 1): d[3], (1, 1): d[4]})
        positive = -log_y - deviance + 0.5 * torch.log(shape) - math.log(2 * math.pi) + series
        return torch.where(y > 0, positive, torch.where(y == 0, -scale / under, -math.inf))

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        """With a = p − 1, b = 2 − p, s = μ^b/φ and D/φ = s·G, G = E/a − h/a, E = e^z − 1, h = (e^(bz) − 1)/b; ′ along a for G, along
        η₃ = logit a otherwise: a′ = ab, A′ = −A. Of y = 0: −s/b."""
        if self.link is not None:
            return super().derivatives(y, eta, extras, order)
        m, f = eta[0], eta[1]
        a, b = torch.sigmoid(eta[2]), torch.sigmoid(-eta[2])
        none, q = y == 0, a * b
        log_y = torch.log(torch.where(y > 0, y, 1.0))
        z, scale = log_y - m, torch.exp(b * m - f)
        excess, power = torch.expm1(z), torch.expm1(b * z)
        h = power / b
        G = (excess - h) / a
        h1 = (z * (1 + power) - h) / b
        G1 = (h1 - G) / a
        deviance, zero = scale * G, scale / b
        # along η₃: s′/s, of the log of the largest term's place, of log(s/b)
        s1, c1, k = -q * m, a - q * log_y, a - q * m
        deviance1 = scale * (s1 * G + q * G1)
        V, Vc, VA, Vcc, VcA, VAA = _series(b * log_y - f - torch.log(b), b / a)
        A = torch.exp(-eta[2])
        value = torch.where(none, -zero, V - deviance - log_y - 0.5 * eta[2] - math.log(2 * math.pi))
        slope = scale * excess  # of y = 0 too: −s
        slope = torch.where(none, -scale, slope)
        score = [
            slope,
            torch.where(none, zero, deviance - Vc),
            torch.where(none, -zero * k, Vc * c1 - VA * A - deviance1 - 0.5),
        ]
        value = torch.where(y < 0, -math.inf, value)
        if order < 2:
            return value, score, {}
        q1 = q * (b - a)
        s2, c2 = s1**2 - q1 * m, q - q1 * log_y
        G2 = ((2 * h1 - z**2 * (1 + power)) / b - 2 * G1) / a
        deviance2 = scale * (s2 * G + (2 * s1 * q + q1) * G1 + q**2 * G2)
        power2 = Vcc * c1**2 - 2 * VcA * c1 * A + VAA * A**2 + Vc * c2 + VA * A - deviance2
        return value, score, {
            (0, 0): torch.where(none, -b * scale, -scale * (a * (1 + excess) + b)),
            (0, 1): -slope,
            (0, 2): slope * s1,
            (1, 1): torch.where(none, -zero, Vcc - deviance),
            (1, 2): torch.where(none, zero * k, deviance1 - Vcc * c1 + VcA * A),
            (2, 2): torch.where(none, -zero * (k**2 + q - q1 * m), power2),
        }  # fmt: skip

    def sample(
        self, mean: Tensor, dispersion: Tensor, power: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        mean, dispersion, power = torch.broadcast_tensors(mean, dispersion, power)
        rate, shape, scale = self._compound(mean, dispersion, power)
        number = torch.poisson(rate, generator=generator)
        some = number > 0
        return torch.where(
            some, scale * torch.exp(log_gamma_sample(torch.where(some, number, 1.0) * shape, generator)), 0.0
        )

    def expectation(self, mean: Tensor, dispersion: Tensor, power: Tensor) -> Tensor:
        return mean + 0 * dispersion * power

    def variance(self, mean: Tensor, dispersion: Tensor, power: Tensor) -> Tensor:
        return dispersion * mean**power

    def quantile(self, q: Tensor, mean: Tensor, dispersion: Tensor, power: Tensor) -> Tensor:
        lower, upper = (
            lambda y, tail=tail: torch.exp(self.tails(y, mean, dispersion, power)[tail]) for tail in (0, 1)
        )
        rate = self._compound(mean, dispersion, power)[0]
        some = q > torch.exp(-rate)
        return torch.where(some, invert_cdf(lower, torch.where(some, q, 0.0), 0.0, math.inf, upper), 0.0)

    def _compound(self, mean: Tensor, dispersion: Tensor, power: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rate of the Poisson number; shape and scale of each gamma amount."""
        rate = mean ** (2 - power) / (dispersion * (2 - power))
        return rate, (2 - power) / (power - 1), dispersion * (power - 1) * mean ** (power - 1)

    def tails(self, y: Tensor, mean: Tensor, dispersion: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """log P(Y ≤ y), P(Y ≤ y) = e^(−λ) + Σ_{j≥1} Poisson(j; λ)·P(jA, y/scale), and its complement: Q
        for P, and no atom."""
        y, mean, dispersion, power = torch.broadcast_tensors(y, mean, dispersion, power)
        some = (y > 0) & (y < math.inf)
        y_in = torch.where(some, y, mean)
        rate, shape, scale = self._compound(mean, dispersion, power)
        upper = y_in > mean
        with torch.no_grad():  # terms peak between λ and the density's ĵ
            peak = y_in ** (2 - power) / (dispersion * (2 - power))
            peak = torch.where(upper, torch.maximum(peak, rate), torch.minimum(peak, rate))
            deviation = torch.sqrt(peak / (1 + shape))
            j, step = _window(
                peak.reshape(-1), torch.full_like(peak, DEPTH).reshape(-1), deviation.reshape(-1)
            )
            j, step = j.reshape(*y.shape, -1), step.reshape(y.shape)
        log_poisson = j * torch.log(rate)[..., None] - rate[..., None] - torch.lgamma(j + 1)
        lower_gamma, upper_gamma = log_gammainc(j * shape[..., None], (y_in / scale)[..., None])
        log_gamma = torch.where(upper[..., None], upper_gamma, lower_gamma)
        total = torch.logsumexp(log_poisson + log_gamma, -1) + torch.log(step)
        lower = torch.where(upper, log1mexp(torch.where(upper, total, -1.0)), torch.logaddexp(total, -rate))
        higher = torch.where(upper, total, log1mexp(torch.where(upper, -1.0, lower)))
        lower = torch.where(some, lower, torch.where(y > 0, 0.0, torch.where(y == 0, -rate, -math.inf)))
        return lower, torch.where(
            some, higher, torch.where(y > 0, -math.inf, torch.where(y == 0, log1mexp(-rate), 0.0))
        )

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        mean = weighted_mean(y, weight) or 1.0
        return (
            mean,
            min(max(weighted_variance(y / mean, weight), 1e-3), 1e4) * math.sqrt(mean),
            1.5,
        )  # variance φμ^1.5


LARGEST = 1e15  # a peak beyond which neighbouring terms are one number


def _window(peak: Tensor, depth: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Points j (n, K) that carry a sum over j = 1, 2, … of smooth terms with their largest at `peak`, and
    their step (n,).

    The ends are where d(j, peak) = depth at the latest, by d ≥ t²/(2·peak + 2t/3), t = j − peak. The step is
    1 while the sum is short. A long one is subsampled, at real j: by Poisson's summation formula Σ f(j) and
    h·Σ f(jh) differ by the Fourier transform of f at 1/h, which for terms like a normal density of deviation
    s is e^(−2π²s²/h²) of the sum; here h = s/2.

    Parameters
    ----------
    deviation
        the least that the terms can have at the peak
    """
    # where a parameter has run away nothing is summed: the terms themselves are NaN there
    peak, depth, deviation = (
        torch.where(torch.isfinite(v) & (peak < LARGEST), v, 1.0) for v in (peak, depth, deviation)
    )
    low = torch.floor(peak - torch.sqrt(2 * depth * peak))
    step = torch.where(low > 1, (deviation / 2).clamp(min=1.0), 1.0)
    low, high = low.clamp(min=1.0), peak.clamp(min=1.0)
    high = high + depth / 3 + torch.sqrt(depth**2 / 9 + 2 * depth * high)
    count = int(((high - low) / step).max()) + 2
    return low[:, None] + step[:, None] * torch.arange(count, dtype=peak.dtype, device=peak.device), step


def _series(log_peak: Tensor, shape: Tensor) -> list[Tensor]:
    """V of `_series_jets` and its derivatives for all rows: where all have one power, as where the shape is one number, from a table.

    Σ_j exp(…) is Wright's function of e^((1 + A)·c), times the exponential of an entire function, and the zeros of Wright's function are
    real and negative: log of it is analytic for |Im c| < π/(1 + A).
    """
    log_peak, shape = log_peak.detach(), shape.detach().to(torch.float64).reshape(-1)
    if shape.numel() and bool((shape == shape[0]).all()):
        table = tabulated(
            lambda c: tuple(by_rows(_series_jets, c, shape[:1].expand_as(c))),
            log_peak.to(torch.float64).reshape(-1),
            math.pi / (1 + float(shape[0])),
        )
        if table is not None:
            return [column.reshape(log_peak.shape).to(log_peak.dtype) for column in table]
    return by_rows(_series_jets, log_peak, shape.reshape(-1).expand(log_peak.numel()).reshape(log_peak.shape))


def _series_jets(log_peak: Tensor, shape: Tensor) -> tuple[Tensor, ...]:
    """V(c, A) = log Σ_j exp(−(1 + A)·d(j, e^c) − δ(j) − δ(jA)), and V_c, V_A, V_cc, V_cA, V_AA, as moments
    over the terms."""
    peak = torch.exp(log_peak)
    j, step = _window(peak, DEPTH / (1 + shape), torch.sqrt(peak / (1 + shape)))
    c, peak, shape = log_peak[:, None], peak[:, None], shape[:, None]
    z = c - torch.log(j)
    excess = j * (torch.expm1(z) - z)  # d(j, ĵ)
    delta, delta1, delta2 = stirling_jets(j * shape)
    log_term = -(1 + shape) * excess - stirling_value(j) - delta
    p = torch.softmax(log_term, 1)
    by_peak, by_shape = (1 + shape) * (j - peak), -excess - j * delta1
    (first_c, square_c), (first_a, square_a) = moments(p, by_peak), moments(p, by_shape)
    product = (p * (by_peak - first_c[:, None]) * (by_shape - first_a[:, None])).sum(1)
    second_c = square_c - ((1 + shape) * peak)[:, 0]
    second_ca = product + (p * (j - peak)).sum(1)
    second_a = square_a - (p * j**2 * delta2).sum(1)
    return torch.logsumexp(log_term, 1) + torch.log(step), first_c, first_a, second_c, second_ca, second_a
