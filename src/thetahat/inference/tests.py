"""Tests of hypotheses on the estimates: Wald's, the likelihood ratio, the score; and Vuong's of two models
that are not nested.

With H: R θ = r of m restrictions, θ̃ the maximum under H, J the information:

    wald                (Rθ̂ − r)ᵀ (R V Rᵀ)⁻¹ (Rθ̂ − r);      divided by m it is F_{m, ν} where V has ν degrees of freedom
    likelihood_ratio    2(ℓ(θ̂) − ℓ(θ̃))
    score               ∂ℓ(θ̃)ᵀ J(θ̃)⁻¹ ∂ℓ(θ̃)

each χ²_m where H is true. ν is that of `covariance` (n − p of a normal linear model, G − 1 of clusters; of
CR2 and CR3 the least of Satterthwaite's over the restrictions). A restriction on an estimate that is a
function of one θ_j ("scale = 1") is one on θ_j (log scale = 0).

References
----------
Wald (1943); Wilks (1938); Rao (1948); Engle (1984), Wald, likelihood ratio, and Lagrange multiplier tests in
econometrics.
"""

# ruff: noqa: PT028 (`test` is not pytest's)
from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..distributions import chi2, norm
from ..distributions import fisher as f
from ..errors import BadArgument, FlatDirection, NotConverged
from ..likelihood import Objective
from ..likelihood.restricted import Restricted
from ..models.base import names_of
from ..notebook import block
from ..printable import encoded, printable
from ..solvers import quantile
from ..solvers.boundary import FAR
from ..solvers.loop import iterate
from ..solvers.newton import Newton
from ..types import Settings
from .bread import Inverse, bread
from .covariance import Clusters, Covariance, check, natural, prepare
from .hypotheses import Restrictions, parse
from .natural import coordinates, linear, parameter, unconstrained
from .natural import natural as natural_values
from .terms import matching, model_terms, regression_of

KINDS = ("wald", "likelihood_ratio", "score")
NOUGHT = re.compile(r"\s*==?\s*0(\.0*)?\s*$")  # the "= 0" of a hypothesis that is a term's name


@dataclass(frozen=True)
class Test:
    """A statistic, and how probable one at least as large is where the hypothesis is true.

    Parameters
    ----------
    hypothesis
        as it was written
    kind
        "wald", "likelihood_ratio", "score", "vuong"
    statistic
        χ² for the first three (F, which is χ² / df, where df_error is finite), z for Vuong's
    df
        degrees of freedom; None for a z
    p_value
        two-sided for a z
    note
        what else must be known of the reference distribution
    df_error
        of an F, the degrees of freedom of its denominator; None of a χ² and a z
    """

    __test__ = False  # pytest collects classes of this name

    hypothesis: str
    kind: str
    statistic: float
    df: int | None
    p_value: float
    note: str = ""
    df_error: float | None = None

    @encoded
    def __str__(self) -> str:
        shown = f"{self._which()} = {self.statistic:.4g}"
        note = f" ({self.note})" if self.note else ""
        return printable(f"{self.hypothesis}: {self._kind()}, {shown}, p = {self._p()}{note}")

    def _repr_html_(self) -> str:
        row = [self.hypothesis, self._kind(), f"{self.statistic:.4g}".replace("-", "−"), self._p()]
        return block("", ["hypothesis", "test", self._which(), "p"], [row], [self.note], left=(0, 1))

    def _kind(self) -> str:
        return self.kind.replace("_", " ")

    def _which(self) -> str:
        if self.df is None:
            return "z"
        return f"χ²({self.df})" if self.df_error is None else f"F({self.df}, {self.df_error:.4g})"

    def _p(self) -> str:
        return f"{self.p_value:.4f}" if self.p_value >= 1e-4 else f"{self.p_value:.1e}"

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def test(
    objective: Objective,
    theta: Tensor,
    hypothesis: str | Sequence[str],
    kind: str = "wald",
    *,
    covariance: str | Covariance = "observed",
    clusters: Clusters = None,
) -> Test:
    """A test of linear restrictions on the estimates.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum
    hypothesis
        "x = 0", "x = z", "2*x + z = 1", ["x = 0", "z = 1"], "scale = 1", "dispersion = 0"
        (`inference.hypotheses`); the name of a term of the formula: all its coefficients are 0
    kind
        one of `KINDS`
    covariance, clusters
        V of Wald's; for the score "observed" or "expected" information at θ̃; the likelihood ratio takes none

    Returns
    -------
    Test
        At a family's own boundary ("dispersion = 0") the likelihood ratio is a mixture of χ²'s, which `note`
        states.

    Raises
    ------
    BadArgument
        what cannot be read; a restriction that is not linear in θ ("scale = x"); a kind that does not apply
    NotConverged
        the restricted maximum could not be certified

    References
    ----------
    as above; Self and Liang (1987), Asymptotic properties of maximum likelihood estimators and likelihood
    ratio tests under nonstandard conditions, case 5.

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> print(test(fit.objective, fit.theta, "x = 0", "likelihood_ratio"))
    x = 0: likelihood ratio, χ²(1) = 7.654, p = 0.0057
    """
    if kind not in KINDS:
        raise BadArgument(f"kind {kind!r} of test. Accepted: {', '.join(map(repr, KINDS))}.")
    if not isinstance(covariance, Covariance):
        check(covariance, clusters)
    if kind != "wald":
        check_likelihood(objective, kind)
    if kind == "likelihood_ratio" and covariance != "observed":
        raise BadArgument(
            f"a likelihood ratio takes no covariance; received {covariance!r}. Use kind='wald'."
        )
    if kind == "score" and covariance not in ("observed", "expected"):
        raise BadArgument(
            f"the score test takes covariance='observed' or 'expected'; received {covariance!r}. Use "
            "kind='wald'."
        )
    objective = objective.at(theta)
    asked = of_term(objective, hypothesis) or parse(hypothesis, names_of(objective.model))
    places = coordinates(objective)
    if any(places[i] is None for i in np.flatnonzero(asked.R.any(0)).tolist()):
        return _natural_wald(objective, theta, asked, kind, covariance, clusters)
    R, r = _on_theta(objective, asked, places)
    if not np.isfinite(r).all():
        return _boundary(objective, theta, asked, R, r, kind)
    if kind == "wald":
        return _wald(objective, theta, asked, R, r, covariance, clusters)
    if kind == "likelihood_ratio":
        restricted, _ = restricted_maximum(objective, theta, R, r)
        statistic = _ratio(objective.value(theta), restricted)
        return _chi2(asked.text, kind, statistic, len(R))
    assert isinstance(covariance, str)  # by the refusals above
    return _score(objective, theta, asked, R, r, covariance)


def check_likelihood(
    objective: Objective, kind: str, instead: str = "Use kind='wald', covariance='sandwich'."
) -> None:
    """Refuse a test by the likelihood where what was maximised is none: a robust sum, a weighted one, a kink."""
    if any(t.robust is not None for t in objective.terms):
        raise BadArgument(f"a robust fit does not maximise a likelihood, and has no χ² {kind}. {instead}")
    if any(t.weights is not None for t in objective.terms):
        raise BadArgument(
            f"the terms are weighted, and a weighted log-likelihood has no χ² {kind}. {instead}"
        )
    if quantile.applies(objective):
        raise BadArgument(quantile.KINK.format(family=objective.model.family, what=kind))


def check_maximum(objective: Objective, what: str, instead: str = "") -> None:
    """Refuse what is of a maximum of the likelihood alone, where something else was maximised."""
    for term in objective.terms:
        if term.robust is not None:
            raise BadArgument(
                f"{what} is of a maximum of the likelihood, and the robust {term.robust} maximised something else.{instead}"
            )
        if term.weights is not None:
            raise BadArgument(f"{what} is of a maximum of the likelihood, and here rows are weighted.")


def of_term(objective: Objective, hypothesis: str | Sequence[str]) -> Restrictions | None:
    """That all coefficients of a term are 0, where its name is all that was written, or its name and "= 0": "ns(x, df=3)",
    "g = 0", "inflation: g" of a further parameter."""
    if not isinstance(hypothesis, str) or regression_of(objective) is None:
        return None
    name = NOUGHT.sub("", hypothesis)
    if name != hypothesis and name.strip() in names_of(objective.model):
        return None  # "name = 0" is of the estimate of that name, where there is one
    found, prefix = matching(name, model_terms(objective)), ""
    parameter, colon, rest = name.partition(":")
    if found is None and colon and parameter.strip() in _further(objective):
        prefix = f"{parameter.strip()}: "
        found = matching(rest, model_terms(objective, parameter.strip()))
    if found is None:
        return None
    term = replace(found, name=prefix + found.name)
    R = np.zeros((len(term.places), len(names_of(objective.model))))
    for k, place in enumerate(term.places):
        R[k, coordinates(objective).index(place)] = 1.0
    return Restrictions(R, np.zeros(len(R)), f"{term.name} = 0")


def _further(objective: Objective) -> list[str]:
    """The family's parameters after its first that have terms of their own."""
    model = regression_of(objective)
    return [] if model is None else [p.parameter for p in model.predictors[1:] if p.size]


# ---- restrictions on θ -------------------------------------------------------------------------------------


def _on_theta(
    objective: Objective, asked: Restrictions, places: Sequence[int | None]
) -> tuple[np.ndarray, np.ndarray]:
    """R (m, p) and r (m,) in the coordinates of θ: r is ±∞ at a boundary."""
    R, r = np.zeros((len(asked.r), objective.size)), asked.r.copy()
    plain, names = linear(objective), names_of(objective.model)
    for k, row in enumerate(asked.R):
        used = np.flatnonzero(row).tolist()
        curved = [names[i] for i in used if not plain[i]]
        if curved and len(used) > 1:
            raise BadArgument(
                f"the hypothesis {asked.text!r} puts {', '.join(curved)}, which is estimated on the scale of "
                "its link, into a sum: that is no "
                f"linear restriction. Accepted: '{curved[0]} = number'. For a function of several estimates: "
                "fit.delta."
            )
        if curved:
            i = int(used[0])
            r[k] = unconstrained(objective, i, float(r[k] / row[i]))
            R[k, _known(places[i])] = 1.0
        else:
            if not math.isfinite(r[k]):
                raise BadArgument(f"the hypothesis {asked.text!r} sets a coefficient to infinity.")
            R[k, [_known(places[i]) for i in used]] = row[used]
    return R, r


def _known(place: int | None) -> int:
    assert place is not None  # estimates without a coordinate go to _natural_wald
    return place


def _natural_wald(
    objective: Objective,
    theta: Tensor,
    asked: Restrictions,
    kind: str,
    covariance: str | Covariance,
    clusters: Clusters,
) -> Test:
    """Wald's test where an estimate is not a function of one θ_j (a part of a simplex, of an ordered
    vector): on the natural scale."""
    if kind != "wald":
        raise BadArgument(
            f"the hypothesis {asked.text!r} is on an estimate that is a function of several coordinates of "
            "θ: no linear restriction. Use kind='wald'."
        )
    R, r = torch.from_numpy(asked.R), torch.from_numpy(asked.r)
    V = natural(objective, theta, covariance, clusters)
    return wald(asked.text, R @ natural_values(objective, theta) - r, R @ V @ R.T, math.inf)


def _wald(
    objective: Objective,
    theta: Tensor,
    asked: Restrictions,
    R: np.ndarray,
    r: np.ndarray,
    covariance: str | Covariance,
    clusters: Clusters,
) -> Test:
    G = torch.from_numpy(R)
    miss = G @ theta.to(torch.float64) - torch.from_numpy(r)
    prepared = prepare(objective, covariance, clusters)
    return wald(asked.text, miss, prepared.of(G), float(prepared.freedom(G).min()))


def wald(text: str, miss: Tensor, V: Tensor, freedom: float) -> Test:
    """missᵀ V⁻¹ miss, as χ²; over the number of restrictions, as F, where V has so many degrees of
    freedom."""
    scale = V.diagonal().clamp(min=0).sqrt()
    L, info = torch.linalg.cholesky_ex(V / scale[:, None] / scale)
    if int(info) != 0 or not bool((L.diagonal() > 1e-7).all()):
        raise BadArgument(
            f"the covariance of the restrictions {text!r} is singular: fewer clusters than restrictions, or "
            "a perfect fit."
        )
    z = torch.linalg.solve_triangular(L, (miss / scale)[:, None], upper=False)
    statistic, m = float((z**2).sum()), len(miss)
    if math.isinf(freedom):
        return _chi2(text, "wald", statistic, m)
    return Test(text, "wald", statistic / m, m, float(f.sf(statistic / m, m, freedom)), df_error=freedom)


def _chi2(text: str, kind: str, statistic: float, df: int, note: str = "") -> Test:
    return Test(text, kind, statistic, df, float(chi2.sf(statistic, df)), note)


# ---- the restricted maximum --------------------------------------------------------------------------------


def restricted_maximum(
    objective: Objective, theta: Tensor, R: np.ndarray, r: np.ndarray
) -> tuple[float, Tensor]:
    """ℓ(θ̃) and θ̃, from where the quadratic model at θ̂ has its restricted maximum: θ̂ − V Rᵀ(R V
    Rᵀ)⁻¹(Rθ̂ − r)."""
    G, at = torch.from_numpy(R), torch.from_numpy(r)
    factor = bread(objective)
    B = factor.solve(G.T.contiguous()) if not isinstance(factor, Inverse) else factor.matrix @ G.T
    origin = theta - B @ torch.linalg.solve(G @ B, G @ theta - at)
    single = (R != 0).sum(1) == 1
    if single.all():  # held coordinates: a category of thousands of levels stays eliminated
        held = torch.from_numpy(R.argmax(1) if (R.max(1) > 0).all() else np.abs(R).argmax(1))
        origin[held] = at / G[torch.arange(len(R)), held]
        basis = torch.ones(len(theta), dtype=torch.bool)
        basis[held] = False
        start = origin[basis]
    else:
        _, _, Vt = np.linalg.svd(R)
        basis = torch.from_numpy(Vt[len(R) :].T.copy())
        start = torch.zeros(basis.shape[1], dtype=torch.float64)
    return held_maximum(objective, origin, basis, start)


def held_maximum(objective: Objective, origin: Tensor, basis: Tensor, start: Tensor) -> tuple[float, Tensor]:
    restricted = Restricted(objective, origin, basis)
    if len(start) == 0:
        return objective.value(origin), origin
    solver = Newton(begin=start, thin_above=10**18)
    state = iterate(solver, restricted)
    certificate = solver.certificate(restricted, state)
    if not certificate.ok:
        raise NotConverged(
            f"under the hypothesis the maximum could not be certified: {str(certificate).rstrip('.')}.",
            certificate,
        )
    return state.value, restricted.lift(state.theta)


def _ratio(whole: float, restricted: float) -> float:
    statistic = 2 * (whole - restricted)
    if statistic < -1e-6 - 1e-9 * abs(whole):
        raise NotConverged(
            f"the objective is {-statistic / 2:.3g} nats higher under the hypothesis than at the fit: the "
            "fit is a local maximum. "
            "Fit again from other starts."
        )
    return max(statistic, 0.0)


def _score(
    objective: Objective, theta: Tensor, asked: Restrictions, R: np.ndarray, r: np.ndarray, covariance: str
) -> Test:
    _, tilde = restricted_maximum(objective, theta, R, r)
    objective = objective.at(tilde)
    g = objective.taylor(tilde, order=1).gradient.to(torch.float64)
    try:
        step = bread(objective, covariance).solve(g)
    except FlatDirection as error:
        raise NotConverged(
            f"the {covariance} information at the maximum under {asked.text!r} is not positive definite, so "
            "the score has no norm there. "
            "Use covariance='expected', or kind='likelihood_ratio'."
        ) from error
    return _chi2(asked.text, "score", float(g @ step), len(R))


def _boundary(
    objective: Objective, theta: Tensor, asked: Restrictions, R: np.ndarray, r: np.ndarray, kind: str
) -> Test:
    """The likelihood ratio at a family's boundary: half the time the maximum is there, and the statistic
    has one degree less."""
    edge = np.flatnonzero(~np.isfinite(r))
    index = int(np.flatnonzero(asked.R[edge[0]])[0])
    spec, name = parameter(objective, index), names_of(objective.model)[index]
    if (
        spec is None
        or spec.boundary is None
        or float(asked.r[edge[0]] / asked.R[edge[0], index]) != spec.boundary
    ):
        raise BadArgument(
            f"the hypothesis {asked.text!r} puts {name} at the end of its range, where the model has no "
            "limit."
        )
    if kind != "likelihood_ratio":
        raise BadArgument(
            f"{name} is at its boundary under {asked.text!r}, where a {kind} test is not defined. Use "
            "kind='likelihood_ratio'."
        )
    if len(edge) > 1:
        raise BadArgument(
            f"the hypothesis {asked.text!r} puts several parameters at their boundaries: test one at a time."
        )
    at = r.copy()
    at[edge[0]] = math.copysign(FAR, r[edge[0]])
    value, _ = restricted_maximum(objective, theta, R, at)
    statistic, df = _ratio(objective.value(theta), value), len(R)
    below = float(chi2.sf(statistic, df - 1)) if df > 1 else float(statistic <= 0)
    p = 0.5 * below + 0.5 * float(chi2.sf(statistic, df))
    limit = f", where the model is {spec.limit}" if spec.limit else ""
    note = f"{name} at its boundary{limit}: ½χ²({df - 1}) + ½χ²({df})"
    return Test(asked.text, kind, statistic, df, p, note)


# ---- models that are not nested ----------------------------------------------------------------------------


def vuong(
    a: Tensor | np.ndarray,
    b: Tensor | np.ndarray,
    *,
    count: Tensor | np.ndarray | None = None,
    sizes: tuple[int, int] | None = None,
    correction: str | None = None,
) -> Test:
    """Vuong's test that two models that are not nested are equally near the truth.

        z = (Σ c m − k) / (ω √n),     m_i = log p_a(x_i) − log p_b(x_i),     ω² = Σ c m²/n − (Σ c m/n)²,     n = Σ c

    Positive z favours a. The correction k is 0, or p_a − p_b ("aic"), or (p_a − p_b)·½ log n ("bic").

    Parameters
    ----------
    a, b
        log p of each row under either model, (n,), nats, of the same rows in the same order
    count
        how often each row was observed; None: once
    sizes
        (p_a, p_b), how many parameters either has; needed for a correction
    correction
        None, "aic" or "bic"

    Raises
    ------
    BadArgument
        rows that do not match, values that are not finite, or two models that agree on every row

    References
    ----------
    Vuong (1989), Likelihood ratio tests for model selection and non-nested hypotheses, Econometrica 57, eq.
    5.6.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=200)
    >>> str(vuong(-0.5 * y**2 - 0.919, -np.abs(y) - 0.693).kind)
    'vuong'
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise BadArgument(
            f"the two models score {a.shape} and {b.shape} rows: one log p a row, of the same rows, is "
            "needed."
        )
    c = np.ones(len(a)) if count is None else np.asarray(count, dtype=np.float64)
    if c.shape != a.shape:
        raise BadArgument(f"count has shape {c.shape}, and the rows {a.shape}.")
    a, b, c = a[c > 0], b[c > 0], c[c > 0]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise BadArgument(
            "a row has log p that is not finite: the model that calls an observed row impossible has already "
            "lost."
        )
    if correction not in (None, "aic", "bic"):
        raise BadArgument(f"correction={correction!r}. Accepted: None, 'aic', 'bic'.")
    if correction is not None and sizes is None:
        raise BadArgument(f"correction={correction!r} needs sizes=(p_a, p_b).")
    n, m = float(c.sum()), a - b
    mean = float(c @ m) / n
    omega = math.sqrt(float(c @ (m - mean) ** 2) / n)
    if omega <= 1e-12 * (1 + float(np.abs(a).max())):
        raise BadArgument("the two models differ by the same amount on every row: there is nothing to test.")
    k = (
        0.0
        if sizes is None or correction is None
        else (sizes[0] - sizes[1]) * (1.0 if correction == "aic" else 0.5 * math.log(n))
    )
    z = (n * mean - k) / (omega * math.sqrt(n))
    note = "" if correction is None else f"corrected as {correction.upper()}"
    return Test("both models are equally near the truth", "vuong", z, None, float(2 * norm.sf(abs(z))), note)
