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
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.integrate import quad
from scipy.stats import chi2, norm
from scipy.stats import f as fisher

from ..data.frame import Frame
from ..data.smooths import Curve
from ..errors import BadArgument
from ..likelihood import Objective
from ..models.mixed import Mixed
from ..models.random_effects import Random
from ..protocols import Together
from ..types import Data
from .known_groups import Joint, Known, known
from .modes import Modes, rows_of

POINTS = 200  # of a curve where none are given
DRAWS = 10_000  # of a simultaneous band


@dataclass(frozen=True)
class Term:
    """A smooth term in its own coordinates: free columns, then shrunk ones, and where both stand in θ = (β, b)."""

    random: Random
    curve: Curve
    places: np.ndarray
    number: int

    @property
    def label(self) -> str:
        return self.random.label


def terms_of(known_model: Known) -> list[Term]:
    """Every smooth term of every parameter.

    Raises
    ------
    BadArgument
        the model has none
    """
    model, out = known_model.mixed, []
    for i, r in enumerate(model.random):
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
    with weights as the test has them.
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
    if objective.remembered is not None:
        known: dict[int, np.ndarray] = objective.remembered.roots
        return known
    model = modes.model
    assert isinstance(model, Mixed)
    out: dict[int, np.ndarray] = {}
    numbers = [i for i, r in enumerate(model.random) if r.smooth]
    if not numbers:
        return out
    frame = rows_of(objective.terms[0].source)
    for i in numbers:
        curve = model.encoder.smooths[model.random[i].source]
        X = np.hstack(curve.columns(frame))
        out[i] = np.linalg.qr(X, mode="r")  # type: ignore[assignment]
    return out


def freedom(modes: Modes) -> tuple[dict[int, float], dict[int, float]]:
    """Σ F_jj and Σ (2F − FF)_jj over the shrunk columns of each smooth term, by its number."""
    f, columns, order = modes.factored, modes.columns, modes.model.order
    inverse, m = f.inverse, columns.penalised
    diagonal = np.diag(inverse)
    squares = (inverse[:, :m] ** 2).sum(1)
    if columns.grouped is not None:  # smooth terms' columns are dense ones
        squares[columns.sparse_size :] += (f.T[1] ** 2).sum((0, 2))
    edf, reference = {}, {}
    for i, t, begin in zip(order.rest, columns.terms, columns.starts, strict=False):
        own = slice(begin, begin + t.size)
        edf[i] = float((1 - diagonal[own]).sum())
        # FF_jj = 1 − 2 (H⁻¹)_jj + Σ_k penalised (H⁻¹)_jk²
        reference[i] = float((1 - squares[own]).sum())
    kept = {i for i in order.rest if modes.model.random[i].smooth}
    return {i: v for i, v in edf.items() if i in kept}, {i: v for i, v in reference.items() if i in kept}


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
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", X, own, X), 0.0))
    wide = float(norm.ppf((1 + level) / 2))
    if simultaneous:
        z = np.random.default_rng(seed).standard_normal((len(own), DRAWS))
        values, vectors = np.linalg.eigh(own)
        deviation = X @ (vectors @ (np.sqrt(np.maximum(values, 0.0))[:, None] * z))
        with np.errstate(divide="ignore", invalid="ignore"):
            largest = np.nanmax(np.abs(deviation) / np.where(error > 0, error, np.nan)[:, None], axis=0)
        wide = float(np.quantile(largest, level))
    out = frame[list(call.required)].reset_index(drop=True)
    out["value"], out["standard_error"] = value, error
    out["low"], out["high"] = value - wide * error, value + wide * error
    out["outside"] = smooth.outside(frame) if smooth.limits else False
    return out
