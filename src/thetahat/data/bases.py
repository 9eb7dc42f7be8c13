"""Bases of smooth terms, each with its penalty: f(x) = Σ_j β_j b_j(x), and βᵀSβ measures how much f bends.

    cr   cubic regression spline: β the values at the knots        βᵀSβ = ∫ f″²
    cc   the same, cyclic: value, slope and curvature agree at both ends
    ps   P-spline: cubic B-splines on even knots                   βᵀSβ = Σ (Δ²β)²
    tp   thin plate regression spline, of one or several variables: the best basis of its size in ∫ |∂²f|²
    re   one coefficient a level, or a product of columns          βᵀSβ = Σ β²

Source: Wood (2017), Generalized Additive Models, 2nd ed., §5.3 to 5.5; Eilers and Marx (1996), for ps; Wood (2003), Thin
plate regression splines.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from ..errors import BadFormula

Array = np.ndarray
MOST = 2000  # different points from which a thin plate spline is made


COMPARED = 25  # knots up to which x is compared with each
HELD = 2**26  # bytes of a basis that is held from where it is built to where it is encoded


class Basis(Protocol):
    """Columns of x, (n, k), with penalties."""

    @property
    def size(self) -> int: ...

    @property
    def penalties(self) -> tuple[Array, ...]: ...

    def at(self, x: Array, derivative: int = 0) -> Array:
        """(n, k): b_j(x), or b_j′(x) of one variable. x (n,), or (n, d) of several."""
        ...


class Made:
    """A basis at the rows that it was built on, which are mostly those that are encoded next: held until then."""

    def __init__(self, x: Array, X: Array):
        self._held = (x, X) if X.nbytes <= HELD else None

    def taken(self, x: Array) -> Array | None:
        """The basis at x, if that is where it was made; it is not held any longer."""
        held, self._held = self._held, None
        return held[1] if held is not None and np.array_equal(held[0], x) else None


def knots_of(different: Array, k: int) -> Array:
    """k knots at even quantiles of the different values: of sorted ones in a fraction of the time."""
    return np.asarray(np.quantile(different, np.linspace(0, 1, k)))


def _interval(knots: Array, x: Array) -> Array:
    """Between which knots each x lies, 0 … of the first two, x not outside. A few comparisons cost less than a search."""
    if len(knots) > COMPARED:
        found: Array = np.searchsorted(knots[1:-1], x, side="right")
        return found
    out = np.zeros(len(x), dtype=np.int64)
    for knot in knots[1:-1]:
        out += x >= knot
    return out


@dataclass(frozen=True, eq=False)
class Cubic:
    """cr, or cc where cyclic. Wood (2017), §5.3.1 and 5.3.2."""

    knots: Array
    cyclic: bool = False

    @property
    def size(self) -> int:
        return len(self.knots) - int(self.cyclic)

    def _bands(self) -> tuple[Array, Array]:
        """B and D with B γ = D β, γ the second derivatives at the knots."""
        h, k = np.diff(self.knots), self.size
        if self.cyclic:
            B, D = np.zeros((k, k)), np.zeros((k, k))
            for j in range(k):
                before, own, up = h[j - 1], h[j], (j + 1) % k
                B[j, j - 1] += before / 6
                B[j, j] += (before + own) / 3
                B[j, up] += own / 6
                D[j, j - 1] += 1 / before
                D[j, j] -= 1 / before + 1 / own
                D[j, up] += 1 / own
            return B, D
        B, D = np.zeros((k - 2, k - 2)), np.zeros((k - 2, k))
        for j in range(k - 2):
            D[j, j : j + 3] = 1 / h[j], -1 / h[j] - 1 / h[j + 1], 1 / h[j + 1]
            B[j, j] = (h[j] + h[j + 1]) / 3
            if j + 1 < k - 2:
                B[j, j + 1] = B[j + 1, j] = h[j + 1] / 6
        return B, D

    @property
    def penalties(self) -> tuple[Array, ...]:
        B, D = self._bands()
        return (D.T @ np.linalg.solve(B, D),)

    def _curvatures(self) -> Array:
        """F with γ = F β at every knot."""
        B, D = self._bands()
        if self.cyclic:
            F = np.linalg.solve(B, D)
            return np.vstack([F, F[:1]])
        k = self.size
        if k > 2:
            inner = np.linalg.solve(B, D)
        else:
            inner = np.zeros((0, k))
        return np.vstack([np.zeros(k), inner, np.zeros(k)])

    def at(self, x: Array, derivative: int = 0) -> Array:
        t, F, k = self.knots, self._curvatures(), self.size
        if self.cyclic:
            x = t[0] + np.mod(x - t[0], t[-1] - t[0])
        inside = np.clip(x, t[0], t[-1])
        j = _interval(t, inside)
        low, high = t[j], t[j + 1]
        h, a, b = high - low, high - inside, inside - low
        # of values β and curvatures Fβ at the knots on either side
        slope = [-1 / h, 1 / h, (h**2 - 3 * a**2) / (6 * h), (3 * b**2 - h**2) / (6 * h)]
        if derivative:
            parts = slope
        else:
            parts = [a / h, b / h, (a**3 / h - h * a) / 6, (b**3 / h - h * b) / 6]
            beyond = x - inside
            if beyond.any():  # linear beyond the ends
                parts = [p + s * beyond for p, s in zip(parts, slope, strict=True)]
        m, n = len(t), len(j)
        values, places = np.empty((n, 4)), np.empty((n, 4), dtype=np.int32)
        for i, (part, first) in enumerate(zip(parts, (0, 1, m, m + 1), strict=True)):
            values[:, i] = part
            np.add(j, first, out=places[:, i], casting="unsafe")
        ends = np.arange(0, 4 * n + 1, 4, dtype=np.int32 if 4 * n < 2**31 else np.int64)
        local = sparse.csr_matrix((values.reshape(-1), places.reshape(-1), ends), shape=(n, 2 * m))
        value = np.eye(k)
        return np.asarray(local @ np.vstack([value, value[:1] if self.cyclic else value[:0], F]))


@dataclass(frozen=True, eq=False)
class PSpline:
    """ps: B-splines of degree m₁ + 1 on even knots, differences of order m₂."""

    knots: Array
    degree: int = 3
    order: int = 2

    @property
    def size(self) -> int:
        return len(self.knots) - self.degree - 1

    @property
    def penalties(self) -> tuple[Array, ...]:
        D = np.diff(np.eye(self.size), self.order, axis=0)
        return (D.T @ D,)

    def at(self, x: Array, derivative: int = 0) -> Array:
        from scipy.interpolate import BSpline  # takes long to load: only where it is needed

        low, high = self.knots[self.degree], self.knots[-self.degree - 1]
        inside = np.clip(x, low, high)
        spline = BSpline(self.knots, np.eye(self.size), self.degree)
        slope = spline(inside, 1)
        return np.asarray(slope if derivative else spline(inside) + slope * (x - inside)[:, None])


def pspline(x: Array, k: int, degree: int = 3, order: int = 2) -> PSpline:
    """With the knots that mgcv places."""
    low, high = float(x.min()), float(x.max())
    wide = (high - low) * 0.001
    low, high = low - wide, high + wide
    inner = k - degree + 1
    step = (high - low) / (inner - 1)
    return PSpline(np.linspace(low - step * degree, high + step * degree, inner + 2 * degree), degree, order)


@dataclass(frozen=True, eq=False)
class ThinPlate:
    """tp: the k eigenvectors of |η(‖x_i − x_j‖)| that are largest, and polynomials of degree below m.

    points (u, d), centre (d,), maps (u, k − M) from η to the columns; Wood (2017), §5.5.1
    """

    points: Array
    centre: Array
    maps: Array
    scale: Array  # (k − M,), the penalty's diagonal
    order: int

    @property
    def size(self) -> int:
        return len(self.scale) + len(_powers(self.points.shape[1], self.order))

    @property
    def penalties(self) -> tuple[Array, ...]:
        return (np.diag(np.concatenate([self.scale, np.zeros(self.size - len(self.scale))])),)

    def at(self, x: Array, derivative: int = 0) -> Array:
        x = (x[:, None] if x.ndim == 1 else x) - self.centre
        different, back = np.unique(x, axis=0, return_inverse=True)
        out = np.empty((len(different), self.size))
        for start in range(0, len(different), 4096):
            part = different[start : start + 4096]
            if derivative:
                gap = part[:, 0][:, None] - self.points[:, 0]
                eta = _eta(np.abs(gap), 1, self.order, derivative=True) * np.sign(gap)
                T = np.column_stack([j * part[:, 0] ** max(j - 1, 0) for j in range(self.order)])
            else:
                far = np.sqrt(((part[:, None, :] - self.points) ** 2).sum(-1))
                eta, T = _eta(far, x.shape[1], self.order), _polynomials(part, self.order)
            out[start : start + 4096] = np.hstack([eta @ self.maps, T])
        return out[back.reshape(-1)]


def thin_plate(x: Array, k: int, order: int | None = None) -> ThinPlate:
    """The basis of these rows."""
    x = x.reshape(len(x), -1)
    d = x.shape[1]
    order = (d + 1) // 2 + 1 if order is None else order
    centre = x.mean(0)
    points = np.unique(x - centre, axis=0)
    if len(points) > MOST:
        points = points[np.random.default_rng(0).choice(len(points), MOST, replace=False)]
    T = _polynomials(points, order)
    E = _eta(np.sqrt(((points[:, None, :] - points) ** 2).sum(-1)), d, order)
    values, vectors = np.linalg.eigh(E)
    top = np.argsort(-np.abs(values), kind="stable")[:k]
    U, D = vectors[:, top], values[top]
    Q = np.linalg.qr(U.T @ T, mode="complete")[0]
    Z = Q[:, T.shape[1] :]  # δ = Zδ₁ has TᵀUδ = 0
    S = Z.T @ (D[:, None] * Z)
    scale, turn = np.linalg.eigh(S)
    maps = U @ Z @ turn
    size = np.sqrt(((E @ maps) ** 2).mean(0))
    return ThinPlate(points, centre, maps / size, scale / size**2, order)


def _eta(r: Array, d: int, m: int, derivative: bool = False) -> Array:
    """The radial function whose Fourier transform is that of the penalty, Wood (2017), eq. 5.12."""
    power = 2 * m - d
    if d % 2:
        c = math.gamma(d / 2 - m) / (2 ** (2 * m) * math.pi ** (d / 2) * math.factorial(m - 1))
        return np.asarray(c * power * r ** (power - 1) if derivative else c * r**power)
    c = (-1) ** (m + 1 + d // 2) / (
        2 ** (2 * m - 1) * math.pi ** (d / 2) * math.factorial(m - 1) * math.factorial(m - d // 2)
    )
    safe = np.where(r > 0, r, 1.0)
    return np.asarray(c * safe**power * np.log(safe) * (r > 0))


def _powers(d: int, m: int) -> list[tuple[int, ...]]:
    return [p for p in itertools.product(range(m), repeat=d) if sum(p) < m]


def _polynomials(x: Array, m: int) -> Array:
    return np.column_stack([np.prod(x ** np.array(p), axis=1) for p in _powers(x.shape[1], m)])


@dataclass(frozen=True, eq=False)
class Levels:
    """re: a column a level; penalty the identity."""

    size: int

    @property
    def penalties(self) -> tuple[Array, ...]:
        return (np.eye(self.size),)

    def at(self, x: Array, derivative: int = 0) -> Array:
        return np.eye(self.size)[x.astype(np.int64)]


def build_basis(
    bs: str, x: Array, k: int, text: str, m: tuple[int, ...] = (), knots: Array | None = None
) -> Basis:
    """A basis of that kind on the rows fitted.

    Raises
    ------
    BadFormula
        too few different values for k, or k too small for the basis
    """
    one = x.ndim == 1 or x.shape[1] == 1
    values = np.unique(x.reshape(-1)) if one else np.unique(x, axis=0)
    different = len(values)
    least = {
        "cr": 3,
        "cc": 4,
        "ps": 4 if not m else m[0] + 2,
        "tp": len(_powers(x.reshape(len(x), -1).shape[1], 2)) + 1,
    }[bs]
    if different < 3:
        raise BadFormula(
            f"{text}: its variable has {different} different value{'s' * (different != 1)}: too few for a curve."
        )
    if k < least:
        raise BadFormula(f"{text}: k={k} is too small for bs={bs!r}. Accepted: at least {least}.")
    _check_order(bs, x, k, m, text)
    if k > different and knots is None:
        raise BadFormula(
            f"{text}: k={k} is larger than the {different} different values of its variable. Accepted: k up to {different}."
        )
    if knots is not None:
        if bs == "tp":
            raise BadFormula(
                f"{text}: bs='tp' takes no knots. Accepted: bs='cr', 'cc' or 'ps' with knots=[…]."
            )
        wanted = k if bs != "ps" else None
        if wanted is not None and len(knots) != wanted:
            raise BadFormula(f"{text}: {len(knots)} knots are given, and k={k} takes {wanted}.")
        if bool((np.diff(knots) <= 0).any()):
            raise BadFormula(f"{text}: the knots must rise.")
        _check_range(bs, x, np.asarray(knots), text)
        return PSpline(knots) if bs == "ps" else Cubic(np.asarray(knots, dtype=np.float64), bs == "cc")
    if bs in ("cr", "cc"):
        return Cubic(knots_of(values, k), bs == "cc")
    if bs == "ps":
        return pspline(x, k, (m[0] if m else 2) + 1, m[1] if len(m) > 1 else 2)
    return thin_plate(x, k, m[0] if m else None)


def _check_range(bs: str, x: Array, knots: Array, text: str) -> None:
    """Refuse knots that do not hold the rows.

    Raises
    ------
    BadFormula
    """
    if bs == "ps" and len(knots) < 8:
        raise BadFormula(f"{text}: {len(knots)} knots are too few for bs='ps'. Accepted: at least 8.")
    low, high = (knots[3], knots[-4]) if bs == "ps" else (knots[0], knots[-1])
    if bs == "cr":  # a straight line beyond its knots
        held = len(np.unique(x[(x >= low) & (x <= high)])) >= 3
    else:
        held = bool(((x >= low) & (x <= high)).all())
    if not held:
        wanted = "with at least 3 different values between them" if bs == "cr" else "that hold all of them"
        raise BadFormula(
            f"{text}: the knots hold the values from {low:g} to {high:g}, and the column's go from {x.min():g} to "
            f"{x.max():g}. Accepted: knots {wanted}."
        )


def _check_order(bs: str, x: Array, k: int, m: tuple[int, ...], text: str) -> None:
    """Refuse orders m that make no penalty.

    Raises
    ------
    BadFormula
    """
    if not m:
        return
    d = x.reshape(len(x), -1).shape[1]
    if bs == "tp" and not (2 * m[0] > d and len(_powers(d, m[0])) < k):
        raise BadFormula(
            f"{text}: m={m[0]} is not an order of a thin plate spline of {d} column{'s' * (d > 1)} with k={k}. Accepted: "
            f"2m > {d}, and fewer than k polynomials of degree below m."
        )
    if bs == "ps" and (m[0] < 0 or (len(m) > 1 and not 1 <= m[1] < k)):
        raise BadFormula(
            f"{text}: m={list(m)}. Accepted of bs='ps': [m₁, m₂], splines of degree m₁ + 1 ≥ 1 and differences of order "
            "m₂, 1 or more and below k."
        )
