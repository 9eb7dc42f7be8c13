"""The covariance of the estimates, on their natural scale.

    Var v̂ = G V Gᵀ,      G = ∂v/∂θ,      V that of θ̂:

    observed    J⁻¹, J = −∂²ℓ/∂θ² at θ̂ (priors included)
    expected    I⁻¹, Fisher's: J averaged over y under the fitted model
    conditional of a normal mixed model: σ²(XᵀV⁻¹X)⁻¹ of β given the variances, as lme4 has it, with Satterthwaite's degrees of
                freedom (`satterthwaite`); of the variances J⁻¹ of their own block
    ols         of a normal linear model with estimated scale: s²(XᵀX)⁻¹, s² = Σ c r² / (n − p), where J⁻¹ has σ̂² = Σ c r² / n. With t of
                n − p degrees of freedom (and χ² for the scale) intervals and tests are exact
    sandwich    J⁻¹ K J⁻¹, K = Σ_i c_i w_i² s_i s_iᵀ: c the count (an observation seen c times adds c terms), w the weighting. White's HC0
    HC1         the same times n/(n − p)
    HC2, HC3    scores corrected for the leverage of their rows (`small_sample`)
    cluster     the sandwich with K = f·Σ_g u_g u_gᵀ, u_g = Σ_{i in g} c_i w_i s_i,  f = G/(G − 1) · (n − 1)/(n − p),  G the number of
                clusters. By two columns: K_A + K_B − K_{A∩B}, each with its own f
    CR2, CR3    scores of clusters, corrected for the leverage of the cluster (`small_sample`); no further factor
    HAC, HAC:4  the sandwich with scores correlated over time, up to a lag: Newey and West's; by a column of times with several rows
                each Driscoll and Kraay's (`serial`)
    sparsity    of quantile regression: Hendricks and Koenker's (`sparsity`)
    bootstrap   the covariance of refits to resampled rows (or clusters)

n = Σ c. p counts the coefficients of predictors and no constant (a scale, a dispersion): f is that of Stata's
`regress, vce(cluster)` and of statsmodels' cov_type="cluster"; Stata's commands for other models leave its
second part out.

References
----------
White (1982), Maximum likelihood estimation of misspecified models; Liang and Zeger (1986), Longitudinal data
analysis using generalized linear models; Cameron, Gelbach and Miller (2011), Robust inference with multiway
clustering.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..data import Source
from ..errors import BadArgument, NoCurvature
from ..families.links import Identity
from ..families.normal import Normal
from ..likelihood import Information, Objective, Trimmed
from ..likelihood.weights import Importance, Probability
from ..models.base import family_of
from ..models.information import Factor
from ..models.regression import Regression
from ..protocols import HasScores, is_separable
from ..solvers import quantile
from ..solvers.choice import DENSE
from ..types import name_of
from . import satterthwaite, serial, small_sample, sparsity
from .bread import Inverse, bread
from .clusters import Labels, held, labels
from .meat import cluster_sums, codes_of, meat, reduced, sandwich_diagonal
from .natural import elementwise, jacobian, own_places, slopes
from .natural import linear as free
from .natural import natural as natural_of

KINDS = (
    "observed", "expected", "conditional", "ols", "sandwich", "HC0", "HC1", "HC2", "HC3", "cluster", "CR2", "CR3", "HAC",
    "sparsity", "bootstrap"
)  # fmt: skip
CLUSTERED = ("cluster", "CR2", "CR3")
DRAWS = 999  # of a bootstrap covariance

Clusters = Sequence[Labels] | None


# ---- which kind --------------------------------------------------------------------------------------------


def default(objective: Objective) -> str:
    """The kind where none is asked for: the one that is right without further assumptions of the model
    fitted.

    "sandwich" of a robust fit and of one whose weights are not counts, "sparsity" of quantile regression,
    "ols" of a normal linear model, "observed" otherwise.
    """
    if importance(objective) or any(term.robust is not None for term in objective.terms):
        return "sandwich"
    if quantile.linear(objective):
        return "sparsity"
    if satterthwaite.applies(objective):
        return "conditional"
    return "ols" if linear(objective) else "observed"


def linear(objective: Objective) -> bool:
    """Whether this is a normal linear model whose scale is estimated, by one coefficient and without a
    prior."""
    model = objective.model
    if (
        not isinstance(model, Regression)
        or len(objective.terms) != 1
        or objective.priors
        or objective.terms[0].robust is not None
    ):
        return False
    if (
        not isinstance(model.family, Normal)
        or not isinstance(model.family.parameters["mean"].link, Identity)
        or model.fixed
    ):
        return False
    mean, scale = model.predictors
    weighting = objective.terms[0].weights
    return (
        mean.size > 0
        and scale.size == 1
        and scale.design.intercept
        and (weighting is None or _probability(weighting))
    )


def regressors(objective: Objective) -> int:
    """p: the coefficients of predictors, constants (a scale, a dispersion) not counted; elsewhere the
    parameters without a constraint."""
    model = objective.model
    if not isinstance(model, Regression) or len(objective.terms) != 1:
        return sum(free(objective)) or objective.size
    return sum(q.size for j, q in enumerate(model.predictors) if j == 0 or not q.design.constant)


def plain_kind(kind: str) -> str:
    """A kind without its setting: "HAC" of "HAC:4"."""
    return "HAC" if str(kind).startswith("HAC:") else kind


def check(kind: str, clusters: Clusters) -> None:
    """Refuse an unknown kind, and clusters that are missing, too many, or for another kind."""
    if plain_kind(kind) == "HAC":
        serial.lag_of(kind)
    kind = plain_kind(kind)
    if kind not in KINDS:
        near = {k.lower(): k for k in KINDS}.get(str(kind).lower()) or next(
            iter(difflib.get_close_matches(str(kind), KINDS, 1)), ""
        )
        hint = f" Nearest: {near!r}." if near else ""
        raise BadArgument(f"covariance {kind!r}.{hint} Accepted: {', '.join(map(repr, KINDS))}.")
    if kind in CLUSTERED and not clusters:
        raise BadArgument(
            f"the kind {kind!r} needs by: the column{', or two columns,' * (kind == 'cluster')} whose values "
            "identify clusters."
        )
    if clusters is not None and kind not in (*CLUSTERED, "HAC", "bootstrap"):
        raise BadArgument(
            f"by names clusters, and the kind is {kind!r}: it takes {', '.join(map(repr, CLUSTERED))}, 'HAC' or "
            "'bootstrap'."
        )
    most = 2 if kind == "cluster" else 1
    if clusters is not None and len(clusters) > most:
        raise BadArgument(f"by names {len(clusters)} columns; the kind {kind!r} clusters by at most {most}.")


def importance(objective: Objective) -> bool:
    """Whether rows weigh what they would in another population: J⁻¹, for which a weight is a count, is
    then no covariance."""
    return any(isinstance(t.weights, Importance | Probability) or _named(t.weights, "importance: ") or _probability(t.weights)
               for t in objective.terms)  # fmt: skip


def _probability(weighting: object) -> bool:
    return isinstance(weighting, Probability) or _named(weighting, "probability: ")


def _named(weighting: object, kind: str) -> bool:
    """Whether a saved fit's weighting, of which the name is known, was of this kind."""
    return name_of(weighting).startswith(kind)


def refuse_robust(objective: Objective, kind: str) -> None:
    robust = next((term.robust for term in objective.terms if term.robust is not None), None)
    if isinstance(robust, Trimmed) and robust.keep < 1:
        raise NoCurvature(
            f"{robust}: which rows are kept depends on the rows themselves, and no information of those kept "
            "alone says how the estimates vary. "
            "th.DensityPower(beta) bounds the outliers' weight and has standard errors."
        )
    if robust is not None and plain_kind(kind) not in (
        "sandwich",
        "HC0",
        "HC1",
        "HAC",
        "cluster",
        "bootstrap",
    ):
        raise BadArgument(
            f"{robust} does not maximise a likelihood, so that covariance={kind!r} is not defined. Use "
            "'sandwich'."
        )


def refuse_importance(objective: Objective, kind: str) -> None:
    refuse_robust(objective, kind)
    if kind in ("observed", "expected", "ols") and importance(objective):
        raise BadArgument(
            f"the rows have weights that are not counts: the {kind} information says nothing of the error. "
            "Where a covariance can "
            "be chosen, choose 'sandwich'."
        )


# ---- V -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Covariance:
    """V of θ̂, made ready by one pass over the data for whatever is asked of it.

    Parameters
    ----------
    kind
        one of `KINDS`
    bread
        of an inverse information or a sandwich; None of a bootstrap
    stretch
        (p,), by which the rows and columns of the bread are multiplied ("ols"); None: 1
    meat
        K of a sandwich; None of an inverse information
    sums
        (f, U) of clusters: K = Σ f UᵀU
    refits
        θ of each draw of a bootstrap
    df
        of Student's t, to which estimates over errors are referred; ∞: the normal
    clusters
        of CR2 and CR3, whose degrees of freedom differ from one linear function to the next
    by_coordinate
        of a fit that was saved without its rows: df of each θ_j, (p,); a function of several has the least of
        theirs
    """

    kind: str
    bread: Factor | Inverse | None = None
    stretch: Tensor | None = None
    meat: Information | None = None
    sums: tuple[tuple[float, Tensor], ...] = ()
    refits: Tensor | None = None
    df: float = math.inf
    clusters: small_sample.Clustered | None = None
    by_coordinate: Tensor | None = None

    def of(self, G: Tensor) -> Tensor:
        """G V Gᵀ, (m, m), for any G of (m, p): V is not written out where it need not be."""
        if self.refits is not None:
            return spread_of(self.refits @ G.T)
        left, right = self._halves(G)
        out = left @ right
        return (out + out.T) / 2

    def diagonal(self, G: Tensor) -> Tensor:
        """diag G V Gᵀ, (m,)."""
        if self.refits is not None:
            return spread_of(self.refits @ G.T).diagonal().clone()
        left, right = self._halves(G)
        return (left.T * right).sum(0).clamp(min=0)

    def variances(self) -> Tensor:
        """diag V, (p,). A category of thousands of levels stays eliminated."""
        if (
            isinstance(self.bread, Factor)
            and self.meat is not None
            and reduced(self.bread, self.meat) is not None
        ):
            return sandwich_diagonal(self.bread, self.meat)
        if self.bread is None or self.meat is not None or self.sums:
            return self.diagonal(torch.eye(self.size, dtype=torch.float64))
        inverse = self.bread.inverse_diagonal()
        return inverse if self.stretch is None else inverse * self.stretch**2

    @property
    def size(self) -> int:
        """p."""
        if self.refits is not None:
            return self.refits.shape[1]
        return self.bread.matrix.shape[0] if isinstance(self.bread, Inverse) else self.bread.information.size  # type: ignore[union-attr]

    def freedom(self, G: Tensor) -> Tensor:
        """Degrees of freedom of t for each row of G, (m,)."""
        if self.clusters is not None:
            return self.clusters.freedom(G)
        if self.by_coordinate is not None:
            return torch.where(G != 0, self.by_coordinate, math.inf).amin(1)
        return torch.full((len(G),), self.df, dtype=torch.float64)

    def draws(self, z: Tensor) -> Tensor:
        """R z with R Rᵀ = V, for z of (p, r): independent standard normal z become draws of N(0, V)."""
        if isinstance(self.bread, Factor) and self.meat is None and not self.sums:
            moved = self.bread.root(z)
            return moved if self.stretch is None else moved * self.stretch[:, None]
        V = self.of(torch.eye(len(z), dtype=torch.float64))
        scale = V.diagonal().clamp(min=1e-300).sqrt()
        values, vectors = torch.linalg.eigh(
            V / scale[:, None] / scale
        )  # a sandwich of few rows or clusters may be singular
        out: Tensor = scale[:, None] * (vectors @ (values.clamp(min=0).sqrt()[:, None] * z))
        return out

    def _halves(self, G: Tensor) -> tuple[Tensor, Tensor]:
        """left (m, p) and right (p, m), whose product is G V Gᵀ."""
        assert self.bread is not None
        left = G.to(torch.float64) if self.stretch is None else G.to(torch.float64) * self.stretch
        if self.meat is None and not self.sums:
            return left, self.bread.solve(left.T.contiguous())
        if (
            self.size > DENSE
        ):  # of very many coefficients K alone may be written out, and of clusters not even that
            B = self.bread.solve(left.T.contiguous())
            return left, self.bread.solve(self._inside(B))
        return left, self._whole @ left.T

    @cached_property
    def _whole(self) -> Tensor:
        """V = J⁻¹ K J⁻¹, (p, p): what a saved fit keeps, so that it answers with the same bits."""
        assert self.bread is not None
        inverse = self.bread.inverse()
        V = inverse @ self._inside(inverse)
        return (V + V.T) / 2

    def _inside(self, B: Tensor) -> Tensor:
        """K B, (p, m)."""
        out = torch.zeros_like(B) if self.meat is None else self.meat.dense() @ B
        for f, U in self.sums:
            out = out + f * (U.T @ (U @ B))
        return out


@dataclass(frozen=True)
class Conditional(Covariance):
    """Of a normal mixed model, with Satterthwaite's degrees of freedom for every linear function."""

    exact: satterthwaite.Freedom | None = None

    def freedom(self, G: Tensor) -> Tensor:
        assert self.exact is not None
        return self.exact.of(G)


def prepare(objective: Objective, kind: str | Covariance, clusters: Clusters = None) -> Covariance:
    """V at the θ at which the objective stands.

    Parameters
    ----------
    kind
        one of `KINDS`; or V itself, made ready before
    clusters
        for "cluster" one or two arrays of labels, for "CR2" and "CR3" one (for "bootstrap" one, or None), one
        label a row in the source's order

    Raises
    ------
    BadArgument
        an unknown kind, clusters that do not fit it, or a kind that the model does not have
    FlatDirection
        the information at θ̂ is not positive definite, so that there is no covariance
    NoCurvature
        a prior has a kink, or the maximum lies on the edge of its parameters' ranges
    """
    if isinstance(kind, Covariance):
        return kind
    kept = objective.spread
    if (
        kept is not None and kind == kept.kind and clusters is None
    ):  # of a fit that was saved without its rows
        return Covariance(kind, Inverse(kept.V), df=float(kept.df.min()), by_coordinate=kept.df)
    check(kind, clusters)
    shared = (
        t.model for t in objective.terms if not is_separable(t.model) and not isinstance(t.model, HasScores)
    )
    inseparable = next(shared, None)
    if inseparable is not None and kind not in ("observed", "conditional"):
        raise BadArgument(
            f"covariance={kind!r} is made of each row's own score, and the rows of a {type(inseparable).__name__} share what "
            "is not observed. Accepted: 'observed', or 'conditional' of a normal mixed model."
        )
    refuse_importance(objective, kind)
    if kind == "bootstrap":
        from .bootstrap import refits

        own, how = held(clusters, kind), "pairs" if clusters is None else "cluster"
        return Covariance(kind, refits=refits(objective, objective.theta, DRAWS, how, clusters=own)[0])
    if kind == "conditional":
        factor, freedom = satterthwaite.conditional(objective)
        every = freedom.of(torch.eye(objective.size, dtype=torch.float64))
        return Conditional(kind, factor, by_coordinate=every, exact=freedom)
    if kind in ("observed", "expected"):
        return Covariance(kind, bread(objective, kind))
    if kind == "ols":
        return _ols(objective)
    if kind == "sparsity" and not quantile.linear(objective):
        raise BadArgument(
            "covariance='sparsity' is that of quantile regression, family='laplace' or AsymmetricLaplace(q)."
        )
    if quantile.linear(objective) and kind not in ("HC2", "HC3", "CR2", "CR3"):
        inverse: Factor | Inverse = sparsity.bread(objective)
    else:
        inverse = bread(objective, "expected" if kind in small_sample.POWERS else "observed")
    if kind == "cluster":
        assert clusters is not None
        sums = tuple(cluster_sums(objective, clusters, regressors(objective)))
        return Covariance(kind, inverse, sums=sums, df=min(len(U) for _, U in sums[: len(clusters)]) - 1.0)
    own = held(clusters, f"covariance={kind!r}")
    df = _freedom(objective, kind, own)
    if kind in ("HC2", "HC3"):
        return Covariance(kind, inverse, meat=Information(small_sample.by_rows(objective, kind)), df=df)
    if kind in ("CR2", "CR3"):
        assert own is not None
        found = small_sample.by_clusters(objective, kind, own[0])
        return Covariance(kind, inverse, sums=((1.0, found.sums()),), df=df, clusters=found)
    if plain_kind(kind) == "HAC":
        K = serial.meat(objective, kind, None if own is None else own[0])
        return Covariance(kind, inverse, meat=K, df=df)
    K = meat(objective)
    if kind == "sparsity":
        K = sparsity.meat(objective, K)
    if kind == "HC1":
        n, p = objective.observations, regressors(objective)
        if n <= p:
            raise BadArgument(
                f"{n:g} observations and {p} coefficients leave no degree of freedom for covariance='HC1'."
            )
        K = K.times(n / (n - p))
    return Covariance(kind, inverse, meat=K, df=df)


def _ols(objective: Objective) -> Covariance:
    """The mean's part of J⁻¹, in which σ̂² = Σ c r²/n, times n/(n − p); the scale's as it is."""
    if not linear(objective):
        raise BadArgument(
            "covariance='ols' is that of a normal linear model with identity link, an estimated constant "
            "scale and no prior; the model is "
            f"{family_of(objective.model) or type(objective.model).__name__}. Use 'observed'."
        )
    n, p = objective.observations, objective.model.predictors[0].size
    stretch = torch.ones(objective.size, dtype=torch.float64)
    stretch[:p] = math.sqrt(n / (n - p)) if n > p else math.nan
    return Covariance("ols", bread(objective), stretch, df=max(n - p, 0.0))


def _freedom(objective: Objective, kind: str, clusters: Sequence[np.ndarray] | None) -> float:
    """t's degrees of freedom: G − 1 of clusters (of the fewer, by two columns); n − p of a normal linear
    model; else ∞, the normal."""
    if clusters is not None and (plain_kind(kind) != "HAC" or len(np.unique(clusters[0])) < len(clusters[0])):
        return float(min(int(codes_of(objective, c).max()) for c in clusters))
    if not linear(objective):
        return math.inf
    n, p = objective.observations, objective.model.predictors[0].size
    return n - p if n > p else math.inf


# ---- of the estimates --------------------------------------------------------------------------------------


def natural(
    objective: Objective, theta: Tensor, kind: str | Covariance = "observed", clusters: Clusters = None
) -> Tensor:
    """Var v̂, (q, q): the covariance of the estimates on their natural scale.

    Parameters
    ----------
    objective
        at whose maximum θ̂ = `theta` stands, (p,)
    kind, clusters
        as of `prepare`, whose errors it raises

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> natural(fit.objective, fit.theta, "sandwich").diagonal().sqrt().tolist()
    [0.3014..., 0.0866...]
    """
    objective = objective.at(theta)
    prepared = prepare(objective, kind, clusters)
    if prepared.refits is not None:
        return spread_of(torch.stack([natural_of(objective, t) for t in prepared.refits]))
    return prepared.of(jacobian(objective, theta))


def variances(
    objective: Objective, theta: Tensor, kind: str | Covariance = "observed", clusters: Clusters = None
) -> Tensor:
    """diag Var v̂, (q,). Of an elementwise model no p × p matrix is written: a category of thousands of
    levels stays eliminated."""
    objective = objective.at(theta)
    prepared = prepare(objective, kind, clusters)
    if prepared.refits is not None or not elementwise(objective.model):
        return natural(objective, theta, prepared).diagonal().clone()
    return slopes(objective, theta) ** 2 * prepared.variances()[own_places(objective)]


def freedom(
    objective: Objective, theta: Tensor, kind: str | Covariance = "observed", clusters: Clusters = None
) -> Tensor:
    """t's degrees of freedom of each estimate, (q,)."""
    objective = objective.at(theta)
    prepared = prepare(objective, kind, clusters)
    if prepared.clusters is None and prepared.by_coordinate is None:
        return torch.full((len(natural_of(objective, theta)),), prepared.df, dtype=torch.float64)
    return prepared.freedom(jacobian(objective, theta))


def project(
    objective: Objective,
    theta: Tensor,
    G: Tensor,
    kind: str | Covariance = "observed",
    clusters: Clusters = None,
) -> Tensor:
    """G V Gᵀ, (m, m), for any G of (m, p): the covariance of linear functions of θ̂."""
    return prepare(objective.at(theta), kind, clusters).of(G)


def spread_of(draws: Tensor) -> Tensor:
    """The covariance of the rows, failed draws (NaN) left out."""
    draws = draws[torch.isfinite(draws).all(1)]
    out: Tensor = torch.atleast_2d(torch.cov(draws.T))
    return out


def check_clusters(kind: str, by: str | Sequence[str] | None, source: Source) -> None:
    """Refuse a kind of covariance, or clusters, that a fit of this source could not have."""
    check(kind, labels(by, source))
