"""The nonparametric maximum-likelihood estimate of a distribution whose draws are known only up to intervals.

    maximise over p ≥ 0, Σ_j p_j = 1:      ℓ(p) = Σ_i w_i log P_i,      P_i = Σ_{a_i ≤ j < b_i} p_j

All mass lies in the innermost intervals (Turnbull): those between a lower end and an upper end with no other end
between them. In their order each row covers a range a_i … b_i − 1 of them, so that P is a difference of two
cumulative sums, and no matrix of rows by intervals is made: a pass costs O(n + m).

    ∂ℓ/∂p_j = Σ_i w_i 1{a_i ≤ j < b_i} / P_i
    gap:    ℓ(p*) − ℓ(p) ≤ max_j ∂ℓ/∂p_j − Σ w          (ℓ is concave; Gentleman and Geyer)

The masses are unique: each innermost interval is the last that some row covers, so that the differences of the
cumulative sums, which the P_i determine, connect every one of them with the first.

The steps alternate EM, p_j ← p_j ∂ℓ/∂p_j / Σ w, with the iterative convex minorant: a weighted isotonic regression
of a Newton step of the cumulative sums, as long as ℓ rises. When the set of intervals with mass stands still, a
Newton step in their masses alone gives the last digits.

References
----------
Turnbull (1976), The empirical distribution function with arbitrarily grouped, censored and truncated data;
Gentleman and Geyer (1994), Maximum likelihood for interval censored data: consistency and computation; Wellner and
Zhan (1997), A hybrid algorithm for computation of the nonparametric maximum likelihood estimator from censored data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import isotonic_regression

from ..types import Settings
from .certificate import Certificate

TOLERANCE = 1e-8  # nats: iterations end when the maximum can be no more than this higher
ACCEPTED = 1e-5  # nats: up to which the masses are certified where they ended at the limit of the steps
STEPS = 2000
DENSE = 1500  # intervals with mass up to which the Newton step is taken
MASS = 1e-9  # of a row: below this share an interval whose derivative is negative loses its mass


@dataclass(frozen=True)
class Innermost:
    """The intervals that can have mass, and which of them each different observation covers.

    Parameters
    ----------
    left, right
        (m,): left < t ≤ right; equal: the time itself. left −∞, right ∞: no bound
    first, last
        (r,): observation i covers first_i … last_i − 1
    weight
        (r,): how often it was observed
    """

    left: np.ndarray
    right: np.ndarray
    first: np.ndarray
    last: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Masses:
    """p̂ of each innermost interval, (m,), with ℓ(p̂) in nats and its certificate."""

    where: Innermost
    mass: np.ndarray
    log_likelihood: float
    certificate: Certificate


def innermost(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray) -> Innermost:
    """The innermost intervals of observations lower < t ≤ upper (equal: t was seen), (n,) each.

    Examples
    --------
    >>> found = innermost(np.array([0.0, 1.0, 3.0]), np.array([2.0, 4.0, np.inf]), np.ones(3))
    >>> found.left.tolist(), found.right.tolist()
    ([1.0, 3.0], [2.0, 4.0])
    """
    exact = lower == upper
    values, place = np.unique(np.concatenate([lower, upper]), return_inverse=True)
    n = len(lower)
    # at one value v, in order: just before v (an exact lower end), v itself (an upper end), just after v
    begin = 3 * place[:n] + np.where(exact, 0, 2)
    end = 3 * place[n:] + 1
    keys = np.unique(np.concatenate([begin, end]))
    opens = keys % 3 != 1
    at = np.flatnonzero(opens[:-1] & ~opens[1:])
    left, right = keys[at], keys[at + 1]
    first, last = np.searchsorted(left, begin), np.searchsorted(right, end, side="right")
    code, inverse = np.unique(first * (len(left) + 1) + last, return_inverse=True)
    first, last = np.divmod(code, len(left) + 1)
    return Innermost(
        values[left // 3], values[right // 3], first, last, np.bincount(inverse, weight, minlength=len(code))
    )


def turnbull(
    lower: np.ndarray,
    upper: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    tolerance: float = TOLERANCE,
    steps: int = STEPS,
) -> Masses:
    """The masses that maximise the likelihood.

    Parameters
    ----------
    lower, upper
        (n,): lower < t ≤ upper; equal: t was seen; ∓∞ where there is no bound
    weight
        how often each was observed, (n,)
    tolerance
        nats: the iterations end when the gap to the maximum is no larger
    steps
        the most iterations

    Returns
    -------
    Masses
        whose certificate is "certified maximum" with the gap in nats, a bound, or "not converged"

    Examples
    --------
    >>> found = turnbull(np.array([0.0, 1.0, 3.0]), np.array([2.0, 4.0, np.inf]))
    >>> found.mass.round(6).tolist(), round(found.log_likelihood, 6)
    ([0.5, 0.5], -1.386294)
    """
    w = np.ones(len(lower)) if weight is None else weight
    where = innermost(lower[w > 0], upper[w > 0], w[w > 0])
    m, total = len(where.left), float(where.weight.sum())
    p = np.full(m, 1.0 / m)
    step, gap, still = 0, np.inf, 0
    while True:
        value, gradient, _ = _derivatives(where, p)
        gap = max(float(gradient.max()) - total, 0.0)
        if gap <= tolerance or step >= steps:
            break
        step += 1
        p = p * gradient / total  # EM: ℓ never falls
        p = p / p.sum()
        p = _minorant(where, p)
        support = int((p > 0).sum())
        still += 1
        if still >= 5 and support <= DENSE:
            p, still = _newton(where, p, total), 0
    value, gradient, _ = _derivatives(where, p)
    gap = max(float(gradient.max()) - total, 0.0)
    return Masses(where, p, value, _certificate(where, p, gap, tolerance, step))


def _derivatives(where: Innermost, p: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """ℓ, ∂ℓ/∂p (m,), and P (r,)."""
    P = _probability(where, p)
    with np.errstate(divide="ignore"):
        value = float(where.weight @ np.log(P))
        share = where.weight / P
    return value, _spread(where, share, len(p)), P


def _probability(where: Innermost, p: np.ndarray) -> np.ndarray:
    """P_i, (r,): of a row that covers one interval, its mass itself, without a difference."""
    F = np.concatenate([[0.0], np.cumsum(p)])
    back = np.concatenate([np.cumsum(p[::-1])[::-1], [0.0]])
    # the difference of the sums that are smaller loses fewer digits
    upper = F[where.last] > back[where.first]
    out: np.ndarray = np.where(upper, back[where.first] - back[where.last], F[where.last] - F[where.first])
    single = where.last - where.first == 1
    out[single] = p[where.first[single]]
    return out


def _spread(where: Innermost, values: np.ndarray, m: int) -> np.ndarray:
    """Σ_i values_i 1{a_i ≤ j < b_i}, (m,)."""
    change = np.bincount(where.first, values, minlength=m + 1) - np.bincount(
        where.last, values, minlength=m + 1
    )
    out: np.ndarray = np.cumsum(change)[:m]
    return out


def _minorant(where: Innermost, p: np.ndarray) -> np.ndarray:
    """One step of the iterative convex minorant, halved until ℓ rises.

    In F_j = p_1 + … + p_j: a Newton step with the diagonal of the Hessian, projected on rising F by isotonic
    regression with that diagonal as weights.
    """
    m = len(p)
    if m < 2:
        return p
    value, _, P = _derivatives(where, p)
    F = np.cumsum(p)[:-1]
    w = where.weight
    slope = np.bincount(where.last, w / P, minlength=m + 1) - np.bincount(where.first, w / P, minlength=m + 1)
    curve = np.bincount(where.last, w / P**2, minlength=m + 1) + np.bincount(
        where.first, w / P**2, minlength=m + 1
    )
    g, h = slope[1:m], np.maximum(curve[1:m], 1e-300)
    found = np.clip(isotonic_regression(F + g / h, weights=h).x, 0.0, 1.0)
    step = np.diff(np.concatenate([[0.0], found, [1.0]])) - p
    size = 1.0
    for _ in range(12):
        q: np.ndarray = np.maximum(p + size * step, 0.0)
        q /= q.sum()
        P = _probability(where, q)
        if (P > 0).all() and float(w @ np.log(P)) > value:
            return q
        size /= 2
    return p


def _newton(where: Innermost, p: np.ndarray, total: float) -> np.ndarray:
    """A Newton step in the masses of the intervals that have some, on Σ p = 1, cut where a mass would be negative; p
    itself where ℓ does not rise.

    An interval that would lose all of its mass, or whose derivative is below the others', leaves the set.
    """
    value, gradient, P = _derivatives(where, p)
    rise = gradient > total * (1 + 1e-12)
    on = np.flatnonzero((p > MASS) | (rise & (p > 0)))
    C = np.concatenate([[0], np.cumsum(np.isin(np.arange(len(p)), on))])
    first, last = C[where.first], C[where.last]
    if (first == last).any():
        return p
    H = _information(first, last, where.weight, P, len(on))
    try:
        factor = cho_factor(H + 1e-12 * np.diag(H).max() * np.eye(len(on)))
    except (LinAlgError, ValueError):
        return p
    # ℓ(p + d) ≈ ℓ + g·d − ½ d·H·d with Σ d = 0; at the start H p = g and p·g = n
    a, b = cho_solve(factor, gradient[on]), cho_solve(factor, np.ones(len(on)))
    off = p.copy()
    off[on] = 0.0
    d = a - (a.sum() - off.sum()) / b.sum() * b
    size = 1.0
    down = d < 0
    if down.any():
        size = min(1.0, float((p[on][down] / -d[down]).min()))
    for _ in range(20):
        q = np.zeros_like(p)
        q[on] = np.maximum(p[on] + size * d, 0.0)
        q /= q.sum()
        P = _probability(where, q)
        if (P > 0).all() and float(where.weight @ np.log(P)) > value:
            return q
        size /= 2
    return p


def _information(
    first: np.ndarray, last: np.ndarray, weight: np.ndarray, P: np.ndarray, k: int
) -> np.ndarray:
    """−∂²ℓ/∂p∂pᵀ = Σ_i w_i/P_i² 1_i 1_iᵀ, (k, k): each row a square on the diagonal, summed as differences."""
    D = np.zeros((k + 1, k + 1))
    v = weight / P**2
    np.add.at(D, (first, first), v)
    np.add.at(D, (first, last), -v)
    np.add.at(D, (last, first), -v)
    np.add.at(D, (last, last), v)
    out: np.ndarray = D.cumsum(0).cumsum(1)[:k, :k]
    return out


def _certificate(where: Innermost, p: np.ndarray, gap: float, tolerance: float, steps: int) -> Certificate:
    size = int((p > 0).sum())
    known: Settings = {"nats": gap, "concave": True, "rank": size, "size": size}
    known |= {"steps": steps, "passes": 4 * steps}
    if gap > max(tolerance, ACCEPTED):
        detail = (
            f"After {steps} iterations the log-likelihood may still be {gap:.2g} nats below its maximum, and "
            f"{max(tolerance, ACCEPTED):g} are accepted."
        )
        return Certificate(status="not converged", detail=detail, **known)
    detail = "The gap is a bound: the largest derivative less the number of observations (duality)."
    return Certificate(status="certified maximum", detail=detail, **known)
