"""Smooth terms of a fit: how many degrees of freedom each takes, a test of each, and its curve with a band.

    F = I − H⁻¹P,     edf = Σ_{j of the term} F_jj,     reference df = Σ_j (2F − FF)_jj

    test     T = f̂ᵀ V_f^{r−} f̂: the curve at the rows over its covariance, of which the r = reference df largest directions
             count; a fraction of r enters by a mixture of two, so that T is a weighted sum of χ²₁ where f = 0

Source: Wood (2017), Generalized Additive Models, 2nd ed., §6.1.2 (edf), 6.10.2 (bands); Wood (2013), On p-values for smooth
components of an extended generalized additive model, Biometrika 100 (the test); Imhof (1961) and Rice
(1980), for the weighted sum.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.integrate import quad

from ..data.frame import Frame
from ..data.random_terms import Grouping
from ..data.smooths import Curve
from ..distributions import chi2, fisher, norm
from ..errors import BadArgument, UnknownLevel
from ..likelihood import Objective
from ..models.blocks import multiplied, transposed
from ..models.elimination import Factored
from ..models.mixed import Mixed
from ..models.random_effects import Random
from ..protocols import Together
from ..types import Data
from .known_groups import Joint, Known, known
from .modes import Modes, rows_of

POINTS = 200  # of a curve where none are given
DRAWS = 10_000  # of a simultaneous band
GROUPS = 50  # whose curves are made unasked
WIDE = 2_000  # columns of one term that are written out


@dataclass(frozen=True)
class Term:
    """A smooth term in its own coordinates: free columns, then shrunk ones, and where both stand in θ = (β, b)."""

    random: Random
    curve: Curve
    places: np.ndarray
    number: int
    grouping: Grouping | None = None  # of a curve of each group, whose coefficients stand group by group

    @property
    def label(self) -> str:
        return self.curve.label

    def columns(self, frame: pd.DataFrame) -> np.ndarray:
        """All columns, (n, k); of a curve of each group those of every group.

        Raises
        ------
        BadArgument
            so many groups that they are not written out
        """
        if self.grouping is None:
            return self.curve.smooth.matrix(frame)
        if len(self.places) > WIDE:
            raise BadArgument(
                f"{self.label} has {len(self.places):,} columns, and at most {WIDE:,} are compared with those of other terms."
            )
        own = self.curve.smooth.matrix(frame)
        out = np.zeros((len(own), self.grouping.size, own.shape[1]))
        out[np.arange(len(own)), self.grouping.codes(frame)] = own
        return out.reshape(len(own), own.shape[1] * self.grouping.size)

    def coefficients(self, theta: np.ndarray) -> np.ndarray:
        """Of `columns`."""
        own = theta[self.places]
        if self.grouping is None:
            own = np.hstack([self.curve.N, self.curve.R]) @ own
        return np.asarray(own)


def terms_of(known_model: Known) -> list[Term]:
    """Every smooth term of every parameter.

    Raises
    ------
    BadArgument
        the model has none
    """
    model, out = known_model.mixed, []
    for i, r in enumerate(model.random):
        if r.each:
            curve, start, grouping = (
                model.encoder.smooths[r.curve],
                known_model.starts[i],
                model.groupings[r.source],
            )
            places = np.arange(start, start + grouping.size * len(r.effects))
            out.append(Term(r, curve, places, i, grouping))
        if not r.smooth:
            continue
        curve = model.encoder.smooths[r.source]
        p = next(q for q in model.regression.predictors if q.parameter == r.parameter)
        begin = p.start + int(p.design.intercept) + len(p.design.numeric) + len(p.design.dense_names)
        at = begin + p.design.curve_names.index(curve.names[0]) if curve.names else begin
        free = np.arange(at, at + len(curve.names))
        start = known_model.starts[i]
        out.append(Term(r, curve, np.concatenate([free, np.arange(start, start + curve.R.shape[1])]), i))
    if not out:
        raise BadArgument("the model has no smooth terms: s(x), te(x, z).")
    return out


def smooths(objective: Objective) -> pd.DataFrame:
    """A row a smooth term: edf, reference_df, statistic, p_value, by label.

    The statistic of a response with a known scale is referred to χ², of a normal one with an estimated scale to F, both
    with weights as the test has them. Of a curve of each group, bs="fs", there is none: its statistic and p_value are NaN
    (`test_random` tests its variances).
    """
    given, V = known(objective)
    model = given.model
    assert isinstance(model, Known)
    assert V.modes is not None
    found = terms_of(model)
    edf, reference = freedom(V.modes)
    roots = roots_of(objective, V.modes)
    # whose scale is estimated: a partial likelihood has none
    scaled = not model.family.support.integer and not isinstance(model.family, Together)
    residual = objective.observations - sum(edf.values()) - _unpenalised(model.mixed)
    rows = []
    for term in found:
        if term.grouping is not None:
            values = {"edf": edf[term.number], "reference_df": reference[term.number]}
            rows.append(
                {"term": _name(model.mixed, term), **values, "statistic": math.nan, "p_value": math.nan}
            )
            continue
        k0 = len(term.curve.names)
        own, ref = edf[term.number] + k0, reference[term.number] + k0
        R = roots[term.number]
        beta = model.all.detach().numpy()[term.places]
        statistic, p = _test(
            R, beta, _covariance(V, term), min(ref, R.shape[1]), residual if scaled else None
        )
        rows.append(
            {
                "term": _name(model.mixed, term),
                "edf": own,
                "reference_df": ref,
                "statistic": statistic,
                "p_value": p,
            }
        )
    return pd.DataFrame(rows).set_index("term")


def _unpenalised(model: Mixed) -> int:
    return sum(p.size for p in model.integrated if p.parameter == model.regression.predictors[0].parameter)


def _name(model: Mixed, term: Term) -> str:
    first = model.regression.predictors[0].parameter
    return term.label if term.random.parameter == first else f"{term.random.parameter}: {term.label}"


def roots_of(objective: Objective, modes: Modes) -> dict[int, np.ndarray]:
    """R of X = QR of each smooth term, by its number: X its columns at the rows that were fitted, free ones first."""
    model = modes.model
    assert isinstance(model, Mixed)
    out: dict[int, np.ndarray] = {}
    numbers = [i for i, r in enumerate(model.random) if r.smooth]
    if not numbers:
        return out
    if objective.remembered is not None:
        known: dict[int, np.ndarray] = objective.remembered.roots
        return known
    frame = rows_of(objective.terms[0].source)
    for i in numbers:
        curve = model.encoder.smooths[model.random[i].source]
        X = np.hstack(curve.columns(frame))
        out[i] = np.linalg.qr(X, mode="r")  # type: ignore[assignment]
    return out


def freedom(modes: Modes) -> tuple[dict[int, float], dict[int, float]]:
    """Σ F_jj and Σ (2F − FF)_jj over the shrunk columns of each smooth term, by its number.

    FF_jj = 1 − 2 (H⁻¹)_jj + Σ_k penalised (H⁻¹)_jk²
    """
    f, columns, order, random = modes.factored, modes.columns, modes.model.order, modes.model.random
    m = columns.penalised
    diagonal, squares = f.schur.freedom(m)
    each = f.eliminated_squares() if any(r.each for r in random) else []
    if each:
        squares += np.einsum("ij,jk,ki->i", f.inverse, sum(each), f.inverse)
    elif columns.grouped is not None:  # other smooth terms' columns are dense ones
        squares[columns.sparse_size :] += (f.T[1] ** 2).sum((0, 2))
    edf, reference = {}, {}
    for i, t, begin in zip(order.rest, columns.terms, columns.starts, strict=False):
        if random[i].smooth or random[i].each:
            own = slice(begin, begin + t.size)
            edf[i] = float((1 - diagonal[own]).sum())
            reference[i] = float((1 - squares[own]).sum())
    at = 0
    for i in order.first:
        own = slice(at, at + random[i].structure.width)
        at = own.stop
        if random[i].each:
            edf[i], reference[i] = _freedom_of_first(f, own, each, m)
    return edf, reference


def _freedom_of_first(f: Factored, own: slice, each: list[np.ndarray], m: int) -> tuple[float, float]:
    """Both sums over some effects of the eliminated factor: with C the part of (H⁻¹)_00 that is not D⁻¹, whose blocks are of
    every two levels,

        Σ (H⁻¹)² = Σ_level (D⁻¹ ∘ D⁻¹ + 2 D⁻¹ ∘ C) + Σ_every two levels C ∘ C + Σ_penalised rest (H⁻¹)_0r²
    """
    assert f.Linv is not None
    D = multiplied(transposed(f.Linv), f.Linv)[own]
    edf = float((1 - np.diagonal(f.first)[:, own]).sum())
    C = f.first[own] - D
    W, inverse = sum(each[own]), f.inverse
    squares = float((D * D + 2 * D * C).sum()) + float((W * (inverse @ sum(each) @ inverse)).sum())
    squares += float((W * (inverse[:, :m] @ inverse[:m])).sum())
    return edf, D.shape[0] * D.shape[2] - squares


def _covariance(V: Joint, term: Term) -> np.ndarray:
    G = torch.zeros(len(term.places), V.size, dtype=torch.float64)
    G[torch.arange(len(term.places)), torch.from_numpy(term.places)] = 1.0
    return V.of(G).numpy()


# ---- the test ----------------------------------------------------------------------------------------------


def _test(
    R: np.ndarray, beta: np.ndarray, V: np.ndarray, r: float, residual: float | None
) -> tuple[float, float]:
    """T and its p-value; residual degrees of freedom of an estimated scale, None of a known one."""
    values, vectors = np.linalg.eigh(R @ V @ R.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    if not values[0] > 0:  # its scale is 0 and nothing of it is free: the curve is 0
        return 0.0, 1.0
    full = int((values > values[0] * 1e-14).sum())
    k, part = math.floor(r), r - math.floor(r)
    if part < 1e-9 or full < k + 1:
        k, part = min(max(k, 1), full), 0.0
    z = (vectors.T @ (R @ beta))[: k + (part > 0)] / np.sqrt(values[: k + (part > 0)])
    if part == 0.0:
        statistic = float(z @ z)
        return statistic, _beyond(statistic, np.ones(k), residual)
    if k == 0:
        statistic = float(z[0] ** 2)
        return statistic, _beyond(statistic, np.ones(1), residual)
    # the last two directions share 1 + ν degrees of freedom; either sign of the mixture is as good
    rho = math.sqrt(max(part * (1 - part) / 2, 0.0))
    own, turn = np.linalg.eigh(np.array([[1.0, rho], [rho, part]]))
    root = turn @ np.diag(np.sqrt(np.maximum(own, 0.0))) @ turn.T
    head, pair = float(z[: k - 1] @ z[: k - 1]), z[k - 1 : k + 1]
    both = [
        head + float(((root @ (sign * pair)) ** 2).sum())
        for sign in (np.array([1.0, 1.0]), np.array([-1.0, 1.0]))
    ]
    up = part + 1
    first = (up + math.sqrt(up * (2 - up))) / 2
    weights = np.concatenate([np.ones(k - 1), [first, up - first]])
    return sum(both) / 2, sum(_beyond(t, weights, residual) for t in both) / 2


def _beyond(q: float, weights: np.ndarray, residual: float | None) -> float:
    """P(Σ w_j χ²₁ > q), of an estimated scale P(Σ w_j χ²₁ > q χ²_ν/ν), by integrals of the characteristic function."""
    if bool((weights == weights[0]).all()):
        k, ratio = len(weights), q / weights[0]
        return float(
            chi2.sf(ratio, k) if residual is None else fisher.sf(ratio / k, k, max(1, round(residual)))
        )
    if residual is None:
        return _beyond_fixed(q, weights)
    ones = max(1, round(residual))
    weights, df = np.append(weights, -q / ones), np.append(np.ones(len(weights)), ones)
    w = weights / float(np.abs(weights).max())

    def integrand(u: float) -> float:
        angle = 0.5 * float((df * np.arctan(w * u)).sum())
        return math.sin(angle) / u * math.exp(-0.25 * float((df * np.log1p((w * u) ** 2)).sum()))

    value, _ = quad(integrand, 0, np.inf, limit=1000, epsabs=1e-10)
    return float(min(max(0.5 + value / math.pi, 0.0), 1.0))


def _beyond_fixed(q: float, weights: np.ndarray) -> float:
    """P(Σ w_j χ²₁ > q), w > 0:  (1/2πi) ∫ e^{−sq} Π (1 − 2 w_j s)^−½ ds/s along the parabola s = c (1 + iy + y²), on which
    e^{−sq} falls like a normal density, where Imhof's integral oscillates for ever."""
    c = 0.25 / float(weights.max())

    def integrand(y: float) -> float:
        s = c * complex(1 + y * y, y)
        root = complex(np.sqrt(1 - 2 * weights * s).prod())
        return (cmath.exp(-s * q) / (root * s) * c * complex(2 * y, 1)).imag

    value, _ = quad(integrand, 0, np.inf, limit=1000, epsabs=1e-12)
    return float(min(max(value / math.pi, 0.0), 1.0))


# ---- curves ------------------------------------------------------------------------------------------------


def curve(
    objective: Objective,
    label: str,
    data: Data = None,
    *,
    level: float = 0.95,
    simultaneous: bool = False,
    derivative: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """The term's own part of its linear predictor: the columns it reads, value, standard_error, low, high, outside.

    Parameters
    ----------
    label
        of `smooths`
    data
        rows at which it is wanted; None: 200 even points of the range of its one variable
    simultaneous
        a band that holds the whole curve with that probability, rather than each point
    derivative
        of f′ instead, of one variable
    seed
        of the draws of a simultaneous band

    Raises
    ------
    BadArgument
        no term of that name, or no rows of a term of several columns
    """
    given, V = known(objective)
    model = given.model
    assert isinstance(model, Known)
    terms = {_name(model.mixed, term): term for term in terms_of(model)}
    if label not in terms:
        raise BadArgument(f"no smooth term is called {label!r}. Terms: {', '.join(terms)}.")
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    term = terms[label]
    call = term.curve.smooth.call
    if term.grouping is not None:
        return _of_each(term, V, model, data, level, simultaneous, derivative, seed)
    if data is None:
        if len(call.required) > 1 or not term.curve.smooth.limits:
            raise BadArgument(f"{label} reads {', '.join(call.required)}: say at which rows with data=.")
        low, high = term.curve.smooth.limits[0]
        frame = pd.DataFrame({call.variables[0]: np.linspace(low, high, POINTS)})
    else:
        frame = Frame(data).read(list(call.required))
    smooth = term.curve.smooth
    B = smooth.derivative(frame) if derivative else smooth.matrix(frame)
    X = np.hstack([B @ term.curve.N, B @ term.curve.R])
    own = _covariance(V, term)
    value = X @ model.all.detach().numpy()[term.places]
    error, wide = _band(X, own, level, seed if simultaneous else None)
    out = frame[list(call.required)].reset_index(drop=True)
    out["value"], out["standard_error"] = value, error
    out["low"], out["high"] = value - wide * error, value + wide * error
    out["outside"] = smooth.outside(frame) if smooth.limits else False
    return out


def _band(X: np.ndarray, V: np.ndarray, level: float, seed: int | None) -> tuple[np.ndarray, float]:
    """The standard error of each Xb, b of covariance V, and how many of them wide the band is; with a seed that of all
    points together."""
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", X, V, X), 0.0))
    if seed is None:
        return error, float(norm.ppf((1 + level) / 2))
    z = np.random.default_rng(seed).standard_normal((len(V), DRAWS))
    values, vectors = np.linalg.eigh(V)
    deviation = X @ (vectors @ (np.sqrt(np.maximum(values, 0.0))[:, None] * z))
    with np.errstate(divide="ignore", invalid="ignore"):
        largest = np.nanmax(np.abs(deviation) / np.where(error > 0, error, np.nan)[:, None], axis=0)
    return error, float(np.quantile(largest, level))


def _of_each(
    term: Term,
    V: Joint,
    model: Known,
    data: Data,
    level: float,
    simultaneous: bool,
    derivative: bool,
    seed: int,
) -> pd.DataFrame:
    """`curve` of a curve of each group; a band of all points is one of each group's points."""
    smooth, grouping = term.curve.smooth, term.grouping
    assert grouping is not None
    assert smooth.call.factor is not None
    names = [*smooth.call.required, smooth.call.factor]
    if data is None:
        if grouping.size > GROUPS:
            raise BadArgument(
                f"{term.label} has {grouping.size:,} curves, and at most {GROUPS} are made unasked: say at which rows with data=."
            )
        at = np.linspace(*smooth.limits[0], POINTS)
        levels = pd.Index(grouping.levels[0]).take(grouping.cells)
        frame = pd.DataFrame({names[0]: np.tile(at, len(levels)), names[1]: np.repeat(levels, POINTS)})
    else:
        frame = Frame(data).read(names)
    code = grouping.codes(frame)
    if bool((code < 0).any()):
        value = frame[names[1]].iloc[int(np.flatnonzero(code < 0)[0])]
        raise UnknownLevel(
            f"{term.label}: column {names[1]!r} has the level {value}, which the fit has not seen. Accepted: levels that were "
            "fitted; of a new one the curve is 0 on average."
        )
    X = smooth.derivative(frame) if derivative else smooth.matrix(frame)
    theta, k = model.all.detach().numpy(), X.shape[1]
    value, error, wide = (np.zeros(len(X)) for _ in range(3))
    for g in np.unique(code):
        rows = np.flatnonzero(code == g)
        own = replace(term, places=term.places[g * k : (g + 1) * k])
        value[rows] = X[rows] @ theta[own.places]
        error[rows], wide[rows] = _band(X[rows], _covariance(V, own), level, seed if simultaneous else None)
    out = frame[names].reset_index(drop=True)
    out["value"], out["standard_error"] = value, error
    out["low"], out["high"] = value - wide * error, value + wide * error
    out["outside"] = smooth.outside(frame)
    return out
