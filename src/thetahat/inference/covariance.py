"""The covariance of the estimates, on their natural scale.

    Var v̂ = G V Gᵀ,      G = ∂v/∂θ,      V that of θ̂:

    observed    J⁻¹, J = −∂²ℓ/∂θ² at θ̂ (priors included)
    expected    I⁻¹, Fisher's: J averaged over y under the fitted model
    sandwich    J⁻¹ K J⁻¹, K = Σ_i c_i w_i² s_i s_iᵀ: c the count (an observation seen c times adds c terms), w the weighting
    cluster     the same with K = f·Σ_g u_g u_gᵀ, u_g = Σ_{i in g} c_i w_i s_i,  f = G/(G − 1) · (n − 1)/(n − p),  G the number of clusters,
                n = Σ c, p the length of θ. By two columns: K_A + K_B − K_{A∩B}, each with its own f
    bootstrap   the covariance of refits to resampled rows (or clusters)

The factor f is Stata's and statsmodels' `cov_type="cluster"`; p counts every estimated parameter, a scale among them (a least-squares
program does not count it). The sandwich has no such factor: it is White's HC0.

Source: White (1982), Maximum likelihood estimation of misspecified models; Liang and Zeger (1986), Longitudinal data analysis using
generalized linear models; Cameron, Gelbach and Miller (2011), Robust inference with multiway clustering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument, FlatDirection, NoCurvature
from ..likelihood import Information, LogLikelihood, Objective, Trimmed, total
from ..likelihood.weights import Importance
from ..models.information import Factor
from ..models.taylor import scores
from ..solvers import closed_form, interior_point
from .expected import expected
from .natural import elementwise, jacobian, own_places, slopes
from .natural import natural as natural_of

KINDS = ("observed", "expected", "sandwich", "cluster", "bootstrap")
ILL = 1e-3  # a squared pivot below which J is an ill-conditioned matrix
SINGULAR = 1e-13  # a smaller squared pivot of the scaled information is exact collinearity: its inverse is rounding error
DRAWS = 999  # of a bootstrap covariance
KINKED = (
    "a prior has a kink at zero, where its density has no curvature, so that the maximum has no standard errors, no Wald intervals and tests, "
    "and no profile. fit.bootstrap() shows how the estimates vary; for errors, fit the coefficients that are not zero to other rows, or use a "
    "smooth prior such as th.priors.Normal."
)
EDGE = (
    "On that edge the estimates are not normal, however many rows there are: the maximum has no standard errors, no Wald intervals and tests. "
    "fit.bootstrap() shows how the estimates vary; a link that maps every linear predictor into the range (log, logit) has no edge."
)

Clusters = Sequence[np.ndarray] | None


def natural(objective: Objective, theta: Tensor, kind: str = "observed", clusters: Clusters = None) -> Tensor:
    """Var v̂, (q, q): the covariance of the estimates on their natural scale.

    Parameters
    ----------
    objective : at whose maximum θ̂ = `theta` stands, (p,)
    kind : one of `KINDS`
    clusters : for "cluster" one or two arrays of labels (for "bootstrap" one, or None), one label a row in the source's order

    Raises
    ------
    BadArgument : an unknown kind, or clusters that do not fit it
    FlatDirection : the information at θ̂ is not positive definite, so that there is no covariance
    NoCurvature : a prior has a kink, or the maximum lies on the edge of its parameters' ranges

    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> natural(fit.objective, fit.theta, "sandwich").diagonal().sqrt().tolist()
    [0.3014..., 0.0866...]
    """
    check(kind, clusters)
    objective = objective.at(theta)
    if kind == "bootstrap":
        return _spread_of(torch.stack([natural_of(objective, t) for t in _draws(objective, theta, clusters)]))
    return _between(objective, jacobian(objective, theta), kind, clusters)


def variances(objective: Objective, theta: Tensor, kind: str = "observed", clusters: Clusters = None) -> Tensor:
    """diag Var v̂, (q,). Of an elementwise model no p × p matrix is written: a category of thousands of levels stays eliminated."""
    check(kind, clusters)
    if kind in ("cluster", "bootstrap") or not elementwise(objective.model):
        return natural(objective, theta, kind, clusters).diagonal().clone()
    return slopes(objective, theta) ** 2 * of_theta(objective, theta, kind)[own_places(objective)]


def of_theta(objective: Objective, theta: Tensor, kind: str) -> Tensor:
    """diag V, (p,), on θ's own scale, for the kinds "observed", "expected", "sandwich"."""
    refuse_importance(objective, kind)
    objective = objective.at(theta)
    factor = bread(objective, kind)
    return _sandwich_diagonal(factor, meat(objective)) if kind == "sandwich" else factor.inverse_diagonal()


def project(objective: Objective, theta: Tensor, G: Tensor, kind: str = "observed", clusters: Clusters = None) -> Tensor:
    """G V Gᵀ, (m, m), for any G of (m, p): the covariance of linear functions of θ̂, V not written out where it need not be."""
    check(kind, clusters)
    objective = objective.at(theta)
    if kind == "bootstrap":
        return _spread_of(_draws(objective, theta, clusters) @ G.T)
    return _between(objective, G, kind, clusters)


def check(kind: str, clusters: Clusters) -> None:
    """Refuse an unknown kind, and clusters that are missing, too many, or for another kind."""
    if kind not in KINDS:
        raise BadArgument(f"covariance {kind!r}. Accepted: {', '.join(map(repr, KINDS))}.")
    if kind == "cluster" and not clusters:
        raise BadArgument("the kind 'cluster' needs by: the column, or two columns, that name the clusters.")
    if clusters is not None and kind not in ("cluster", "bootstrap"):
        raise BadArgument(f"by names clusters, and the kind is {kind!r}: it takes kind='cluster' (or 'bootstrap').")
    most = 2 if kind == "cluster" else 1
    if clusters is not None and len(clusters) > most:
        raise BadArgument(f"by names {len(clusters)} columns; the kind {kind!r} clusters by at most {most}.")


def importance(objective: Objective) -> bool:
    """Whether rows weigh what they would in another population: J⁻¹, for which a weight is a count, is then no covariance."""
    weightings = [term.weights for term in objective.terms]
    return any(
        isinstance(w, Importance) or getattr(w, "__name__", "").startswith("importance: ") for w in weightings
    )  # or a saved fit's


def default(objective: Objective) -> str:
    """The kind of covariance where none is asked for: "observed", but "sandwich" of a robust fit, where J⁻¹ is none."""
    return "sandwich" if any(term.robust is not None for term in objective.terms) else "observed"


def refuse_robust(objective: Objective, kind: str) -> None:
    robust = next((term.robust for term in objective.terms if term.robust is not None), None)
    if isinstance(robust, Trimmed) and robust.keep < 1:
        raise NoCurvature(
            f"{robust}: which rows are kept depends on the rows themselves, and no information of those kept alone says how the estimates vary. "
            "th.DensityPower(beta) bounds the outliers' weight and has standard errors."
        )
    if robust is not None and kind in ("observed", "expected"):
        raise BadArgument(
            f"{robust} maximises no likelihood, so that the {kind} information is no inverse covariance. Use 'sandwich'."
        )


def refuse_importance(objective: Objective, kind: str) -> None:
    refuse_robust(objective, kind)
    if kind in ("observed", "expected") and importance(objective):
        raise BadArgument(
            f"the rows have importance weights, which are no counts: the {kind} information says nothing of the error. Where a covariance can "
            "be chosen, choose 'sandwich'."
        )


# ---- bread -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inverse:
    """J⁻¹ written out, where another road than a factor of J found it."""

    matrix: Tensor

    def solve(self, b: Tensor) -> Tensor:
        return self.matrix @ b

    def inverse(self) -> Tensor:
        return self.matrix

    def inverse_diagonal(self) -> Tensor:
        return self.matrix.diagonal().clone()


def bread(objective: Objective, kind: str = "observed") -> Factor | Inverse:
    """A factor of J (of I, if expected) at the objective's θ, in float64.

    A normal linear model whose J is ill-conditioned gets J⁻¹ by QR of its columns instead, whose error is that of X and not of XᵀX.
    """
    if objective.kinked:
        raise NoCurvature(KINKED)
    edge = interior_point.edge(objective)
    if edge:
        raise NoCurvature(f"{edge} {EDGE}")
    J = expected(objective) if kind == "expected" else objective.taylor(order=2).information
    assert J is not None
    factor = double(J).factor()
    if (factor is None or factor.pivot < ILL) and closed_form.applies(objective):
        V = closed_form.covariance(objective)
        if bool(torch.isfinite(V).all()):
            return Inverse(V)
    if factor is None or factor.pivot < SINGULAR:
        raise FlatDirection(
            "the information is not positive definite at these estimates, so they have no covariance: a direction is flat, or this is no "
            "maximum. Read fit.certificate."
        )
    return factor


def double(J: Information) -> Information:
    """J in float64."""
    E, D = (None if t is None else t.to(torch.float64) for t in (J.E, J.D))
    return Information(J.A.to(torch.float64), E, D, J.eliminated)


def _between(objective: Objective, G: Tensor, kind: str, clusters: Clusters) -> Tensor:
    refuse_importance(objective, kind)
    factor = bread(objective, kind)
    B = factor.solve(G.T.to(torch.float64).contiguous())  # (p, m)
    if kind in ("observed", "expected"):
        out = G @ B
    elif kind == "sandwich":
        out = B.T @ meat(objective).dense() @ B
    else:
        assert clusters is not None
        out = _clustered(objective, B, clusters)
    return (out + out.T) / 2


def _sandwich_diagonal(factor: Factor | Inverse, K: Information) -> Tensor:
    """diag J⁻¹ K J⁻¹ by the blocks of both.

    With R = E D⁻¹ and S the Schur complement, J⁻¹ = F + Pᵀ S⁻¹ P, F = diag(0, D⁻¹), P = [I, −Rᵀ]. K has the same zero pattern as J
    (two levels of a category never meet in a row), so every product below is (L, m) or smaller.
    """
    inner = reduced(factor, K)
    if inner is None:
        B = factor.inverse()
        return ((B @ K.dense()) * B).sum(1)
    assert isinstance(factor, Factor)
    J, R = factor.information, factor.ratio
    assert J.D is not None
    assert K.D is not None
    assert K.E is not None
    assert R is not None
    small = factor._solve_small(torch.eye(len(factor.L), dtype=factor.L.dtype))  # S⁻¹
    middle = small @ inner @ small
    out = J.A.new_empty(J.size)
    out[J.kept()] = middle.diagonal()
    cross = (K.E - K.D[:, None] * R) @ small  # rows of K Pᵀ S⁻¹ that belong to the levels
    out[J.eliminated] = K.D / J.D**2 - 2 * (cross * R).sum(1) / J.D + ((R @ middle) * R).sum(1)
    return out


def reduced(factor: Factor | Inverse, K: Information) -> Tensor | None:
    """P K Pᵀ, (m, m), with P = [I, −Rᵀ], R = E D⁻¹; None where nothing is eliminated."""
    if (
        isinstance(factor, Inverse)
        or factor.ratio is None
        or K.D is None
        or K.E is None
        or K.eliminated != factor.information.eliminated
    ):
        return None
    R = factor.ratio
    return K.A - R.T @ K.E - K.E.T @ R + R.T @ (K.D[:, None] * R)


# ---- meat --------------------------------------------------------------------------------------------------------------------


def meat(objective: Objective) -> Information:
    """K = Σ c w² s sᵀ over independent units: rows, or the groups that the batches name.

    Terms over one source share its rows, so their scores add before they are squared.
    """
    out: Information | None = None
    for terms in sharing(objective):
        term = terms[0]
        outer = getattr(term.scored, "outer", None)
        first = next(iter(term.source.batches(term.model)))
        if first.grouped:
            U = _sums(objective, terms, lambda batch, start: batch.group.reshape(len(batch), -1)[:, 0].numpy())
            part = Information(U.T @ U)
        elif outer is not None and len(terms) == 1 and len(first.shape) == 1:
            part = total(_squared(term, outer), term.source, term.model)
            part = _spread(objective, part, objective.positions(term.model))
        else:
            part = Information(total(partial(_outer, objective, terms), term.source, term.model))
        out = part if out is None else out + part
    assert out is not None
    return out


def _spread(objective: Objective, part: Information, at: Tensor) -> Information:
    """A model's own K among the coordinates of the objective's θ."""
    if len(at) == objective.size and bool((at == torch.arange(len(at))).all()):
        return part
    A = torch.zeros(objective.size, objective.size, dtype=torch.float64)
    A[at[:, None], at] = part.dense()
    return Information(A)


def sharing(objective: Objective) -> list[list[LogLikelihood]]:
    """The terms, those over one source together."""
    groups: dict[int, list[LogLikelihood]] = {}
    for term in objective.terms:
        groups.setdefault(id(term.source), []).append(term)
    return list(groups.values())


def _squared(term: LogLikelihood, outer: Callable[[Batch, Tensor | None], Information]) -> Callable[[Batch], Information]:
    return lambda batch: outer(batch, _meat_weight(term, batch))


def _meat_weight(term: LogLikelihood, batch: Batch) -> Tensor | None:
    """c · w²."""
    weight = term.weight(batch)
    return weight if weight is None or term.weights is None else torch.where(batch.count > 0, weight**2 / batch.count, 0.0)


def unit_scores(objective: Objective, terms: list[LogLikelihood], batch: Batch) -> Tensor:
    """c · w · s of each entry of the first index, (n, p), summed over the terms and over the further indices of a term (time)."""
    out = torch.zeros(len(batch), objective.size, dtype=torch.float64)
    for term in terms:
        s = scores(term.scored, batch).to(torch.float64)
        weight = term.weight(batch)
        if weight is not None:
            s = s * weight.reshape(-1, 1)
        out[:, objective.positions(term.model)] += s.reshape(len(batch), -1, s.shape[-1]).sum(1)
    return out


def _outer(objective: Objective, terms: list[LogLikelihood], batch: Batch) -> Tensor:
    s = unit_scores(objective, terms, batch)
    if batch.counted and len(batch.shape) == 1:  # a row counted c times is c units, not one of weight c
        count = batch.count.to(torch.float64)
        return s.T @ (s * torch.where(count > 0, 1 / count, 0.0)[:, None])
    return s.T @ s


def _sums(objective: Objective, terms: list[LogLikelihood], label: Any) -> Tensor:
    """u_g = Σ_{i in g} c w s, a row a group. `label(batch, first row)` names the group of each row."""
    found: dict[Any, int] = {}
    parts: list[tuple[Tensor, Tensor]] = []
    for start, batch in _numbered(objective, terms[0]):
        own = label(batch, start)
        codes = torch.tensor([found.setdefault(g, len(found)) for g in own.tolist()], dtype=torch.long)
        here, back = torch.unique(codes, return_inverse=True)
        s = unit_scores(objective, terms, batch)
        parts.append((here, torch.zeros(len(here), s.shape[1], dtype=s.dtype).index_add_(0, back, s)))
    out = torch.zeros(len(found), objective.size, dtype=torch.float64)
    for here, sums in parts:
        out.index_add_(0, here, sums)
    return out


def _numbered(objective: Objective, term: LogLikelihood) -> Iterator[tuple[int, Batch]]:
    """Batches, cut so that their scores (n, p) stay small, and the number of their first row."""
    start, step = 0, max(256, 2**24 // max(objective.size, 1))
    for batch in term.source.batches(term.model):
        for at in range(0, len(batch), step):
            yield start + at, batch[at : at + step]
        start += len(batch)


def _clustered(objective: Objective, B: Tensor, clusters: Sequence[np.ndarray]) -> Tensor:
    """Bᵀ K B for the cluster's K: the scores of each cluster are added and projected, and K itself is never written."""
    labels = [codes_of(objective, c) for c in clusters]
    if len(labels) == 2:
        both = np.unique(np.stack(labels), axis=1, return_inverse=True)[1].reshape(-1)
        return _one_way(objective, B, labels[0]) + _one_way(objective, B, labels[1]) - _one_way(objective, B, both)
    return _one_way(objective, B, labels[0])


def codes_of(objective: Objective, labels: np.ndarray) -> np.ndarray:
    """Cluster labels as codes 0 … G − 1, one a row of every source.

    Raises
    ------
    BadArgument : not one label a row, a missing label, or fewer than two clusters
    """
    labels = np.asarray(labels).reshape(-1)
    rows = {t[0].source.size for t in sharing(objective)}
    if rows != {len(labels)}:
        raise BadArgument(f"by has {len(labels)} labels, and the fit {', '.join(map(str, rows))} rows: one label a row.")
    codes, seen = pd.factorize(labels)
    if (codes < 0).any():
        raise BadArgument(
            f"by is missing in row {int(np.flatnonzero(codes < 0)[0])} of those that were fitted. Every row needs a cluster."
        )
    if len(seen) < 2:
        raise BadArgument(f"by has one value only ({seen[0]!r}): a covariance needs several clusters.")
    return codes


def _one_way(objective: Objective, B: Tensor, codes: np.ndarray) -> Tensor:
    groups = int(codes.max()) + 1
    U = torch.zeros(groups, B.shape[1], dtype=torch.float64)
    for terms in sharing(objective):
        for start, batch in _numbered(objective, terms[0]):
            own = torch.from_numpy(codes[start : start + len(batch)])
            U.index_add_(0, own, unit_scores(objective, terms, batch) @ B)
    n, p = objective.observations, objective.size
    if n <= p:
        raise BadArgument(
            f"{n:g} observations and {p} parameters leave no degree of freedom for the cluster's small-sample factor."
        )
    return (groups / (groups - 1)) * ((n - 1) / (n - p)) * (U.T @ U)


# ---- bootstrap ---------------------------------------------------------------------------------------------------------------


def _draws(objective: Objective, theta: Tensor, clusters: Clusters) -> Tensor:
    from .bootstrap import refits  # which clusters by what stands above

    return refits(objective, theta, DRAWS, "pairs" if clusters is None else "cluster", clusters=clusters)[0]


def _spread_of(draws: Tensor) -> Tensor:
    """The covariance of the rows, failed draws (NaN) left out."""
    draws = draws[torch.isfinite(draws).all(1)]
    return torch.atleast_2d(torch.cov(draws.T))
