"""Special functions that torch lacks, or has without derivatives. All are vectorised, in log space, and twice
differentiable."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def invert_cdf(cdf: Function, q: Tensor, low: float, high: float, survival: Function | None = None) -> Tensor:
    """The y with cdf(y) = q: quantiles of families whose cdf has no inverse in closed form.

    Bisection on the bit patterns of the floats halves the list of all 2⁶⁴ numbers, so it needs no scale to
    start from; it brings each root into a quarter of a binade, and Chandrupatla's method finishes it to the
    last digits. The first derivatives are those of the implicit function: dy = (dq − ∂cdf/∂θ dθ) / cdf′(y),
    for whatever q and cdf depend on.

    Parameters
    ----------
    cdf
        continuous and non-decreasing, evaluated row by row
    q
        probabilities; 0 and 1 give low and high
    low, high
        ends of the support, which may be infinite
    survival
        1 − cdf, exact where cdf is near 1: it then decides the roots of q > ½

    References
    ----------
    Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear
    function.

    Examples
    --------
    >>> invert_cdf(lambda y: -torch.expm1(-y), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), 0.0, torch.inf)
    tensor([0.0000, 0.6931,    inf], dtype=torch.float64)
    """

    def excess(y: Tensor) -> Tensor:
        """cdf(y) − q, by whichever tail is the smaller."""
        lower = cdf(y) - q
        return lower if survival is None else torch.where(q > 0.5, (1 - q) - survival(y), lower)

    with torch.no_grad():
        middle = 1.0 if low < 1.0 < high else (low + high) / 2
        shape = excess(torch.full_like(q, middle, dtype=torch.float64)).shape
        bits_low, bits_high = (
            _bits(torch.full(shape, end, dtype=torch.float64, device=q.device)) for end in (low, high)
        )
        for _ in range(14):  # 64 bits, less the 50 that tell apart the numbers within a quarter of a binade
            bits = (
                (bits_low >> 1) + (bits_high >> 1) + (bits_low & bits_high & 1)
            )  # their middle, where their sum would overflow
            below = excess(_unbits(bits)) < 0
            bits_low, bits_high = torch.where(below, bits, bits_low), torch.where(below, bits_high, bits)
        y = _chandrupatla(excess, _unbits(bits_low), _unbits(bits_high))
    inside = (q > 0) & (q < 1)
    residual = excess(y)  # 0 up to rounding, but for its derivatives
    if residual.requires_grad:
        root = torch.where(inside, y, middle).requires_grad_()
        slope = torch.autograd.grad(excess(root).sum(), root)[0]
        y = y - torch.where(inside, (residual - residual.detach()) / slope, 0.0)
    return torch.where(inside, y, torch.where(q <= 0, low, torch.where(q >= 1, high, torch.nan))).to(q.dtype)


def _bits(y: Tensor) -> Tensor:
    """The integers that order the floats as the floats are ordered."""
    bits = y.contiguous().view(torch.int64)
    return torch.where(bits < 0, -(2**63) - bits, bits)


def _unbits(bits: Tensor) -> Tensor:
    return torch.where(bits < 0, -(2**63) - bits, bits).view(torch.float64)


def _chandrupatla(f: Function, a: Tensor, b: Tensor) -> Tensor:
    """The root of f between a and b, row by row: inverse quadratic interpolation where it is safe, bisection
    where it is not."""
    fa, fb = f(a), f(b)
    c, fc, t = a, fa, torch.full_like(a, 0.5)
    for _ in range(60):
        step = a + t * (b - a)
        value = f(step)
        same = torch.sign(value) == torch.sign(fa)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = step, value
        best = torch.where(fa.abs() < fb.abs(), a, b)
        width = 2.0**-51 * best.abs() / (b - c).abs().clamp(min=torch.finfo(a.dtype).tiny)
        if not ((width < 0.5) & (fa != 0) & (fb != 0) & torch.isfinite(a + b)).any():
            break
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        quadratic = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = torch.where(safe, quadratic, 0.5)
        t = torch.minimum(torch.maximum(t, width), 1 - width).nan_to_num(0.5).clamp(0.0, 1.0)
    return torch.where(fa.abs() < fb.abs(), a, b)


LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """c₀ + c₁x + c₂x² + …, by Horner's rule."""
    value = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


def log_mills(z: Tensor) -> Tensor:
    """log Φ(−z)/φ(z), Mills' ratio, for z ≥ 0; twice differentiable to about 12 digits.

        z ≤ 10      log ½ erfc(z/√2) + z²/2 + ½ log 2π
        z > 10      −log z + log1p(−1/z² + 3/z⁴ − 15/z⁶ + …)

    References
    ----------
    Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 26.2.12.

    Examples
    --------
    >>> round(log_mills(torch.tensor(1e6, dtype=torch.float64)).exp().item() * 1e6, 9)
    1.0
    """
    far = z > 10
    near, beyond = torch.where(far, 0.0, z), torch.where(far, z, 10.0)
    square = beyond**-2
    direct = torch.log(torch.erfc(near / math.sqrt(2)) / 2) + near * near / 2 + LOG_ROOT_2PI
    return torch.where(far, torch.log1p(square * polynomial(square, _MILLS)) - torch.log(beyond), direct)


_MILLS = [(-1.0) ** k * math.prod(range(1, 2 * k, 2)) for k in range(1, 21)]


def log_ndtr(x: Tensor) -> Tensor:
    """log Φ(x). torch.special.log_ndtr has the same value, but its second derivative is lost to cancellation
    below −1000.

    Examples
    --------
    >>> round(log_ndtr(torch.tensor(-10.0, dtype=torch.float64)).item(), 6)
    -53.231285
    """
    below, above = torch.where(x < 0, x, 0.0), torch.where(x < 0, 0.0, x)
    upper = torch.log1p(-torch.erfc(above / math.sqrt(2)) / 2)
    return torch.where(x < 0, log_mills(-below) - below * below / 2 - LOG_ROOT_2PI, upper)


def log_gamma_half_step(a: Tensor) -> Tensor:
    """log Γ(a + ½) − log Γ(a) − ½ log a, which is −1/(8a) + 1/(192a³) − … and would drown in the rounding of
    log Γ for large a.

    References
    ----------
    Tricomi and Erdélyi (1951), The asymptotic expansion of a ratio of gamma functions, Pacific J. Math. 1.

    Examples
    --------
    >>> round(log_gamma_half_step(torch.tensor(1e6, dtype=torch.float64)).item() * 1e6, 6)
    -0.125
    """
    large = a > 10
    inside = torch.where(large, 1.0, a)
    at = torch.where(large, a, inside + 10)
    inverse = 1 / at
    series = inverse * polynomial(inverse * inverse, _HALF_STEP)
    # Γ(a + ½)/Γ(a), carried 10 steps up (torch's trigamma is good to 9 digits only, so that log Γ would spoil
    # second derivatives)
    ratio = torch.ones_like(a)
    for j in range(10):
        ratio = ratio * (inside + j) / (inside + (j + 0.5))
    return torch.where(large, series, torch.log(ratio) + 0.5 * torch.log(at / inside) + series)


# −(1 − 4⁻ᵏ) B₂ₖ / (k(2k − 1)), k = 1 … 8: below 1e-15 of the first term for a > 10
_HALF_STEP = [
    -1 / 8,
    1 / 192,
    -1 / 640,
    17 / 14336,
    -31 / 18432,
    691 / 180224,
    -5461 / 425984,
    929569 / 15728640,
]


def log_tail(log_density: Callable[[Tensor], Tensor], scale: Tensor) -> Tensor:
    """log ∫₀^∞ exp(log_density(x)) dx, for an integrand that falls about as exp(−x/scale) or faster;
    differentiable.

    The trapezoidal rule in t, x = scale·exp(t − e^(−t)): doubly exponential at 0, so that an integrand that
    bends near 0 does no harm; about 13 digits for the tails in this package.

    Parameters
    ----------
    log_density
        takes x (n, K), gives (n, K)
    scale
        (n,)

    References
    ----------
    Mori and Sugihara (2001), The double-exponential transformation in numerical analysis, J. Comput. Appl.
    Math. 127.

    Examples
    --------
    >>> round(log_tail(lambda x: -3.0 * x, torch.tensor([0.5], dtype=torch.float64)).exp().item(), 12)
    0.333333333333
    """
    step = 0.12
    t = torch.arange(-3.6, 4.2, step, dtype=scale.dtype, device=scale.device)
    log_x = t - torch.exp(-t)
    log_weight = log_x + torch.log(step * (1 + torch.exp(-t)))
    return torch.logsumexp(log_density(scale[..., None] * torch.exp(log_x)) + log_weight, -1) + torch.log(
        scale
    )


def weighted_quantile(y: Tensor, weight: Tensor, level: float) -> float:
    """The smallest y at or below which a share `level` of the weight lies.

    Examples
    --------
    >>> weighted_quantile(torch.tensor([3.0, 1.0, 2.0]), torch.ones(3), 0.5)
    2.0
    """
    return weighted_quantiles(y, weight, (level,))[0]


def weighted_quantiles(y: Tensor, weight: Tensor, levels: Sequence[float]) -> list[float]:
    """Several of them, from one sort."""
    order = torch.argsort(y)
    share = torch.cumsum(weight[order], 0)
    first = torch.searchsorted(share, share.new_tensor(list(levels)) * share[-1]).clamp(max=len(y) - 1)
    return y[order[first]].tolist()


def median_and_spread(y: Tensor, weight: Tensor) -> tuple[float, float]:
    """The median and half the interquartile range; where that is 0, the mean distance to the median, and
    where that is 0, 1."""
    lower, centre, upper = weighted_quantiles(y, weight, (0.25, 0.5, 0.75))
    half_range = (upper - lower) / 2
    distance = float((weight * (y - centre).abs()).sum() / weight.sum())
    spread = next((s for s in (half_range, distance) if 0 < s < math.inf), 1.0)
    return centre, spread


def log1mexp(x: Tensor) -> Tensor:
    """log(1 − eˣ) for x < 0, exact near 0 and for x → −∞; −∞ at 0.

    References
    ----------
    Mächler (2012), Accurately Computing log(1 − exp(−|a|)).

    Examples
    --------
    >>> log1mexp(torch.tensor(-1e-20, dtype=torch.float64)).item()
    -46.05170185988...
    """
    near = x > -math.log(2)
    return torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, x))),
    )


def bennett(u: Tensor) -> Tensor:
    """χ(u) = ((1 + u)·log(1 + u) − u) / u² = ½ − u/6 + u²/12 − …, for u ≥ 0; smooth at 0, where the closed
    form is 0/0."""
    small = u < 0.1
    s = torch.where(small, u, 0.0)
    series = polynomial(s, [(-1) ** k / (k * (k - 1)) for k in range(2, 18)])
    b = torch.where(small, 1.0, u)
    return torch.where(small, series, ((1 + 1 / b) * torch.log1p(b) - 1) / b)


def log1p_remainder(u: Tensor, log1p_u: Tensor | None = None) -> Tensor:
    """(u − log(1 + u)) / u² = ½ − u/3 + u²/4 − …, for u > −1; smooth at 0, where the closed form is 0/0.

    Parameters
    ----------
    log1p_u
        log(1 + u), where the caller knows it better than from u (u near −1)

    Examples
    --------
    >>> log1p_remainder(torch.tensor([0.0, 1.0], dtype=torch.float64))
    tensor([0.5000, 0.3069], dtype=torch.float64)
    """
    small = u.abs() < 0.1
    s, b = torch.where(small, u, 0.0), torch.where(small, 1.0, u)
    series = polynomial(s, [(-1) ** k / (k + 2) for k in range(18)])
    log = torch.log1p(b) if log1p_u is None else torch.where(small, math.log(2), log1p_u)
    return torch.where(small, series, (b - log) / (b * b))


# counts beyond which a mass is written by its deviance: y·log μ − μ − log y! subtracts numbers of the size
# y·log y
MANY = 1024


def many(y: Tensor, *eta: Tensor) -> Tensor:
    """The rows whose mass is to be written by its deviance: large counts, and logarithms of parameters
    short of overflow."""
    out = (y > MANY) & torch.isfinite(y)
    for e in eta:
        out = out & (e.abs() < 60)
    return out


def log_poisson(y: Tensor, mean: Tensor, gap: Tensor | None = None) -> Tensor:
    """log of the Poisson mass for large y, in which nothing of the size of y is subtracted (Loader's
    saddle-point form).

        log p(y | μ) = −½ log 2πy − s(y) − δ²·h(δ/y)/y,      δ = μ − y,   h(u) = (u − log(1 + u))/u²,   s Stirling's series

    Parameters
    ----------
    gap
        δ, where the caller knows it better than as a difference

    References
    ----------
    Loader (2000), Fast and accurate computation of binomial probabilities.

    Examples
    --------
    >>> round(log_poisson(torch.tensor(2000.0, dtype=torch.float64), torch.tensor(2000.0, dtype=torch.float64)).item(), 6)
    -4.719431
    """
    gap = mean - y if gap is None else gap
    u = gap / y
    deviance = gap * u * log1p_remainder(u, torch.log(mean / y))
    return -LOG_ROOT_2PI - 0.5 * torch.log(y) - _stirling(1 / y) - deviance


# B_2m / (2m(2m − 1)) of Stirling's series
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)


def _stirling(inverse: Tensor) -> Tensor:
    """lgamma(z) − (z − ½)·log z + z − ½ log 2π at z = 1/inverse ≥ 10, to 3e-17."""
    return inverse * polynomial(inverse * inverse, STIRLING)


def stirling_error(z: Tensor, inverse: Tensor) -> Tensor:
    """lgamma(z) − (z − ½)·log z + z − ½ log 2π for every z > 0, given 1/z besides, which may be 0 (z = ∞).

    Examples
    --------
    >>> round(stirling_error(*torch.tensor([1.0, 1.0], dtype=torch.float64)).item(), 12)      # 1 − ½ log 2π
    0.081061466795
    """
    large = inverse <= 0.1
    inside = torch.where(large, 1.0, z)
    up = inside + 10  # lgamma is carried ten steps up, where the series holds
    total = (inside - 0.5) * torch.log1p(10 / inside) - 10 + _stirling(1 / up) + torch.log(up / inside)
    for j in range(1, 10):
        total = total - torch.log1p((j - 10) / up)
    return torch.where(large, _stirling(torch.where(large, inverse, 0.1)), total)


def log_rising(y: Tensor, a: Tensor) -> Tensor:
    """log Π_{k<y} (1 + a·k) = lgamma(y + 1/a) − lgamma(1/a) + y·log a, for counts y and a ≥ 0, to any order
    of derivative in a.

    With R = 1/a + 10 and u = y/R the two lgammas are Stirling's, whose leading terms cancel by hand, so that
    a → 0 is exact:

        R·((1 + u)·log(1 + u) − u) − ½·log(1 + u) + s(R + y) − s(R) + y·log(1 + 10a) − Σ_{j<10} log(1 + ya/(1 + ja))

    Examples
    --------
    >>> log_rising(torch.tensor(3.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)).exp()
    tensor(3.0000, dtype=torch.float64)
    """
    shift = 10
    inverse = a / (1 + shift * a)
    u = y * inverse
    total = y * u * bennett(u) - 0.5 * torch.log1p(u) + _stirling(inverse / (1 + u)) - _stirling(inverse)
    total = total + y * torch.log1p(shift * a)
    for j in range(shift):
        total = total - torch.log1p(y * a / (1 + j * a))
    return total


def beta_fraction(a: Tensor, b: Tensor, x: Tensor, gap: Tensor) -> Tensor:
    """I_x(a, b)·B(a, b) / (xᵃ (1 − x)ᵇ), for gap = a − (a + b)·x ≥ 0, given apart because it cancels.

    The even part of the classical continued fraction, which keeps its digits when a or b → ∞ (Poisson's
    limits). Its length is doubled until the value stands still, and only the last round is differentiated.

    References
    ----------
    DiDonato and Morris (1992), Algorithm 708: Significant digit computation of the incomplete beta function
    ratios, §4.

    Examples
    --------
    >>> half = torch.tensor(0.5, dtype=torch.float64)
    >>> round((beta_fraction(half, half, half, 0 * half) * 0.5).item() / torch.pi, 12)          # I_½(½, ½) = ½, B(½, ½) = π
    0.5
    """

    def fraction(terms: int) -> Tensor:
        total = torch.ones_like(gap)
        for n in range(terms, -1, -1):
            c = a + 2 * n
            beta = n + n * (b - n) * x / (c - 1) if n else torch.zeros_like(gap)
            beta = beta + (a + n) / (c + 1) * (gap + 1 + n * (2 - x))
            m = n + 1
            alpha = (a + n) / (c + 1) * ((a + b + n) / (c + 1)) * (m * (b - m)) * x * x
            total = beta + alpha / total
        return 1 / total

    terms, before = 16, torch.zeros(())
    with torch.no_grad():
        now = fraction(8)
        while terms < 16384:
            before, now = now, fraction(terms)
            if not bool(
                ((now - before).abs() > 5 * torch.finfo(now.dtype).eps * now.abs()).any()
            ):  # NaN stops it too
                break
            terms *= 2
    return fraction(terms)


def log_sum(log_term: Function, first: Tensor, last: Tensor, block: int = 256) -> Tensor:
    """log Σ_{k=first}^{last} exp(log_term(k)), row by row; −∞ where first > last. log_term sees k as (block,
    *rows)."""
    total = torch.full_like(first, -math.inf)
    longest = float((last - first).max()) + 1 if first.numel() else 0.0
    for begin in range(0, int(max(longest, 0)), block):
        size = min(block, int(longest) - begin)
        step = torch.arange(begin, begin + size, dtype=first.dtype, device=first.device).reshape(
            -1, *[1] * first.ndim
        )
        k = first + step
        inside = k <= last
        terms = torch.where(inside, log_term(torch.where(inside, k, 0.0)), -math.inf)
        some = inside.any(0)
        # a row without a term would be −∞ − (−∞) in logsumexp's gradient
        here = torch.where(some, torch.logsumexp(torch.where(some, terms, 0.0), 0), -math.inf)
        total = here if begin == 0 else torch.where(some, torch.logaddexp(total, here), total)
    return total


def log_sum_above(log_term: Function, first: Tensor, most: int = 1 << 15) -> Tensor:
    """log Σ_{k ≥ first} exp(log_term(k)) for terms that end by falling geometrically, until the rest is below
    1e-17 of it."""
    size = 128
    total = log_sum(log_term, first, first + (size - 1))
    while size < most:
        with torch.no_grad():
            edge = log_term(first + (size - 1))
            rest = edge - log1mexp((log_term(first + size) - edge).clamp(max=-1e-9))
            if not bool((rest >= total - 39).any()):
                break
        total = torch.logaddexp(total, log_sum(log_term, first + size, first + (2 * size - 1)))
        size *= 2
    return total


def count_quantile(cdf: Function, q: Tensor, limit: Tensor | float = math.inf) -> Tensor:
    """The smallest count y with cdf(y) ≥ q: brackets by doubling, then halves. `limit`: the largest y
    there is."""
    limit = torch.as_tensor(limit, dtype=q.dtype, device=q.device)
    low, high = torch.full_like(q, -1.0), torch.minimum(torch.ones_like(q), limit)
    with torch.no_grad():
        for _ in range(60):
            short = (cdf(high) < q) & (high < limit)
            if not bool(short.any()):
                break
            low, high = (
                torch.where(short, high, low),
                torch.where(short, torch.minimum(2 * high, limit), high),
            )
        while bool((high - low > 1).any()):
            middle = torch.floor((low + high) / 2)
            enough = cdf(middle.clamp(min=0)) >= q
            wide = high - low > 1
            high, low = torch.where(wide & enough, middle, high), torch.where(wide & ~enough, middle, low)
    return high


def log_gamma_sample(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """log of a Gamma(shape, 1) draw, finite even for shape → 0, where the draw itself underflows: Γ(a) ~
    Γ(a + 1)·U^(1/a)."""
    u = 1 - torch.rand(shape.shape, dtype=shape.dtype, device=shape.device, generator=generator)
    return torch.log(torch._standard_gamma(shape + 1, generator=generator)) + torch.log(u) / shape


@functools.cache
def _factorials() -> Tensor:
    """log 0!, …, log 1024!."""
    return torch.lgamma(torch.arange(1, 1026, dtype=torch.float64))


def log_factorial(y: Tensor) -> Tensor:
    """log y! for counts y ≥ 0: looked up where they are small, since lgamma costs more than all the rest of a
    Poisson's log p.

    Examples
    --------
    >>> log_factorial(torch.tensor([0.0, 3.0], dtype=torch.float64)).exp().round()
    tensor([1., 6.], dtype=torch.float64)
    """
    if (
        y.requires_grad
        or y.dtype != torch.float64
        or not y.numel()
        or float(y.amax()) > 1024
        or float(y.amin()) < 0
    ):
        return torch.lgamma(y + 1)
    index = y.to(torch.int32)
    looked_up = _factorials().index_select(0, index.reshape(-1)).reshape(y.shape)
    return looked_up if bool((index == y).all()) else torch.lgamma(y + 1)
