"""Special functions that torch lacks, or has without derivatives. All are vectorised, in log space, and twice differentiable."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def invert_cdf(cdf: Function, q: Tensor, low: float, high: float, survival: Function | None = None) -> Tensor:
    """The y with cdf(y) = q: quantiles of families whose cdf has no inverse in closed form.

    Bisection on the bit patterns of the floats halves the list of all 2⁶⁴ numbers, so it needs no scale to start from; it brings
    each root into a quarter of a binade, and Chandrupatla's method finishes it to the last digits. The first derivatives are those
    of the implicit function: dy = (dq − ∂cdf/∂θ dθ) / cdf′(y), for whatever q and cdf depend on.

    Parameters
    ----------
    cdf : continuous and non-decreasing, evaluated row by row
    q : probabilities; 0 and 1 give low and high
    low, high : ends of the support, which may be infinite
    survival : 1 − cdf, exact where cdf is near 1: it then decides the roots of q > ½

    Source: Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function.

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
        bits_low, bits_high = (_bits(torch.full(shape, end, dtype=torch.float64, device=q.device)) for end in (low, high))
        for _ in range(14):  # 64 bits, less the 50 that tell apart the numbers within a quarter of a binade
            bits = (bits_low >> 1) + (bits_high >> 1) + (bits_low & bits_high & 1)  # their middle, where their sum would overflow
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
    """The root of f between a and b, row by row: inverse quadratic interpolation where it is safe, bisection where it is not."""
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
