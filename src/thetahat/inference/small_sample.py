"""Sandwiches whose scores are corrected for leverage: HC2 and HC3 of rows, CR2 and CR3 of clusters;
Satterthwaite's degrees of freedom.

With I = L Lᵀ the expected information, s_u the score of a unit (a row, a cluster), I_u what it adds to I, and
M_u = L⁻¹ I_u L⁻ᵀ:

    K = Σ_u a_u a_uᵀ,      a_u = L (1 − M_u)^{−δ} L⁻¹ s_u,      δ = ½ (HC2, CR2), 1 (HC3, CR3)

Of a normal linear model a_u = X_uᵀ (1 − H_uu)^{−δ} r_u / σ², H the hat matrix: MacKinnon and White's, and
Bell and McCaffrey's with a working covariance of 1. I⁻¹a_u for δ = 1 is (I − I_u)⁻¹ s_u: one step of Newton's
method without the unit, the jackknife. Where 1 − M_u is singular (a unit alone decides a coefficient, and its
score there is 0) the inverse is Moore and Penrose's. Of a normal linear model the figures are those of R's
sandwich and clubSandwich; of others CR2 takes the root on the scale of working residuals over their standard
deviation, where clubSandwich takes another: standard errors differ by tenths of a percent.

Satterthwaite: cᵀV̂c is matched to a χ² whose degrees of freedom, under a working model of independent rows,
are (tr P)² / tr P²,

    P_uv = 1[u = v] q_uᵀM_u q_u − (M_u q_u)ᵀ(M_v q_v),      q_u = (1 − M_u)^{−δ} L⁻¹ c

References
----------
MacKinnon and White (1985), Some heteroskedasticity-consistent covariance matrix estimators with improved
finite sample properties; Bell and McCaffrey (2002), Bias reduction in standard errors for linear regression
with multi-stage samples; Pustejovsky and Tipton (2018), Small-sample methods for cluster-robust variance
estimation and hypothesis testing in fixed effects models, §2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument, FlatDirection
from ..likelihood import Objective
from ..models.regression import Regression
from ..solvers import quantile
from .expected import expected, outer_products
from .meat import codes_of, numbered

POWERS = {"HC2": 0.5, "HC3": 1.0, "CR2": 0.5, "CR3": 1.0}
ALONE = 1e-9  # an eigenvalue of 1 − M below this is zero: the unit alone decides a direction
CELLS = 2**25  # numbers of Σ_u (p, p) up to which clusters are held


@dataclass(frozen=True)
class Root:
    """L with L Lᵀ = I, the columns scaled before they are factored."""

    scale: Tensor
    factor: Tensor

    def inverse(self, x: Tensor) -> Tensor:
        """L⁻¹ x, x of (p, m)."""
        out: Tensor = torch.linalg.solve_triangular(self.factor, x / self.scale[:, None], upper=False)
        return out

    def times(self, x: Tensor) -> Tensor:
        """L x."""
        return self.scale[:, None] * (self.factor @ x)


def root_of(objective: Objective) -> Root:
    """L at the objective's θ.

    Raises
    ------
    FlatDirection
        the information is not positive definite
    """
    J = expected(objective).dense().to(torch.float64)
    scale = J.diagonal().clamp(min=1e-300).sqrt()
    factor, info = torch.linalg.cholesky_ex(J / scale[:, None] / scale)
    if int(info) != 0:
        raise FlatDirection(
            "the expected information is not positive definite at these estimates, so they have no "
            "covariance."
        )
    return Root(scale, factor)


def by_rows(objective: Objective, kind: str) -> Tensor:
    """K, (p, p), of HC2 or HC3: every row is a unit; one that was counted c times is c units."""
    model, term = _regression(objective, kind), objective.terms[0]
    root, power = root_of(objective), POWERS[kind]
    K = torch.zeros(objective.size, objective.size, dtype=torch.float64)
    for _, batch in numbered(objective, term):
        count, own = _weights(objective, batch)
        Z, e = _rows(model, batch, root, own)
        values, vectors = torch.linalg.eigh(Z @ Z.mT)  # (n, k, k), each row's hat matrix
        less = _power(1 - values, power)
        adjusted = torch.einsum("nab,nb,ncb,nc->na", vectors, less, vectors, e)
        a = torch.einsum("nap,na->np", Z, adjusted)
        K += a.T @ (a * count[:, None])
    return root.times(root.times(K).T)


@dataclass(frozen=True)
class Clustered:
    """Every cluster's L⁻¹ s_u, (G, p), and M_u, (G, p, p)."""

    root: Root
    scores: Tensor
    information: Tensor
    power: float

    def _corrections(self, power: float) -> Tensor:
        """(1 − M_u)^{−power}, (G, p, p)."""
        values, vectors = torch.linalg.eigh(self.information)
        out: Tensor = (vectors * _power(1 - values, power)[:, None, :]) @ vectors.mT
        return out

    def sums(self) -> Tensor:
        """a_u, (G, p)."""
        return self.root.times((self._corrections(self.power) @ self.scores[:, :, None])[:, :, 0].T).T

    def freedom(self, G: Tensor) -> Tensor:
        """Satterthwaite's degrees of freedom of each row of G, (m, p)."""
        v = self.root.inverse(G.T.contiguous())  # (p, m)
        q = self._corrections(self.power) @ v  # (G, p, m)
        u = self.information @ q
        d, square = (q * u).sum(1), (u * u).sum(1)  # (G, m)
        cross = torch.stack([(each.T @ each).square().sum() for each in u.permute(2, 0, 1)])
        return (d - square).sum(0) ** 2 / ((d * d - 2 * d * square).sum(0) + cross)


def by_clusters(objective: Objective, kind: str, labels: np.ndarray) -> Clustered:
    """What CR2 and CR3 are made of, from one pass over the rows."""
    model, term = _regression(objective, kind), objective.terms[0]
    codes, p = codes_of(objective, labels), objective.size
    groups = int(codes.max()) + 1
    if groups * p * p > CELLS:
        raise BadArgument(
            f"covariance={kind!r} holds a matrix of {p} × {p} for each of {groups} clusters: "
            f"{groups * p * p * 8 / 2**30:.1f} GiB. "
            "Use covariance='cluster'."
        )
    root = root_of(objective)
    scores, information = (
        torch.zeros(groups, p, dtype=torch.float64),
        torch.zeros(groups, p, p, dtype=torch.float64),
    )
    for start, batch in numbered(objective, term):
        here = torch.from_numpy(codes[start : start + len(batch)])
        count, own = _weights(objective, batch)
        Z, e = _rows(model, batch, root, own)
        scores.index_add_(0, here, torch.einsum("nap,na->np", Z, e * count[:, None]))
        for g in torch.unique(here).tolist():
            mine = here == g
            part = (Z[mine] * count[mine, None, None].sqrt()).reshape(-1, p)
            information[g] += part.T @ part
    return Clustered(root, scores, information, POWERS[kind])


def _rows(model: Regression, batch: Batch, root: Root, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Z = C^½ X L⁻ᵀ, (n, k, p), and e = C^−½ s, (n, k): C = w E[s sᵀ] of each row, so that ZᵀZ = M and Zᵀe
    = L⁻¹ Xᵀs."""
    n, k = len(batch), len(model.predictors)
    C = torch.zeros(n, k, k, dtype=torch.float64)
    for (a, b), value in outer_products(model, batch).items():
        C[:, a, b] = C[:, b, a] = value * weight
    values, vectors = torch.linalg.eigh(C)
    some = values > 1e-14 * values[:, -1:].clamp(min=1e-300)
    half = torch.where(some, values.clamp(min=0).sqrt(), 0.0)
    back = torch.where(some, 1 / half, 0.0)
    score = torch.stack([s.expand(n) for s in model.row_derivatives(batch, order=1)[1]], 1) * weight[:, None]
    ones, none = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    X = torch.stack(
        [model.gradient_rows(batch, [ones if i == j else none for i in range(k)]) for j in range(k)], 1
    )
    white = root.inverse(X.reshape(n * k, -1).T.contiguous()).T.reshape(n, k, -1)
    Z = torch.einsum("nab,nb,ncb,ncp->nap", vectors, half, vectors, white)
    return Z, torch.einsum("nab,nb,ncb,nc->na", vectors, back, vectors, score)


def _weights(objective: Objective, batch: Batch) -> tuple[Tensor, Tensor]:
    """How often each row was observed, and what a weighting makes of it besides."""
    count = batch.count.to(torch.float64)
    weight = objective.terms[0].weight(batch)
    if weight is None or objective.terms[0].weights is None:
        return count, torch.ones_like(count)
    return count, torch.where(count > 0, weight / count, 0.0)


def _power(values: Tensor, power: float) -> Tensor:
    """values^{−power}, 0 where they are zero."""
    return torch.where(values > ALONE, values.clamp(min=ALONE) ** -power, 0.0)


def _regression(objective: Objective, kind: str) -> Regression:
    model = objective.model
    if (
        not isinstance(model, Regression)
        or len(objective.terms) != 1
        or objective.terms[0].robust is not None
    ):
        raise BadArgument(
            f"covariance={kind!r} corrects for the leverage of rows in a regression; the model is a "
            f"{type(model).__name__}. "
            "Use 'sandwich', or 'cluster'."
        )
    if quantile.applies(objective):
        raise BadArgument(
            f"covariance={kind!r} is not that of quantile regression. Use 'sparsity', 'sandwich', or "
            "'cluster'."
        )
    return model
