"""The wild cluster bootstrap of one coefficient of a linear model, for few clusters.

    y* = Xβ̃ + v_g ũ,      t* = (c·β̂* − r)/se*,      p = P(|t*| ≥ |t|)

β̃ and ũ are of the fit under the hypothesis c·β = r, v_g = ±1 with probability ½, one for each cluster g, se the cluster-robust
standard error. Of G clusters there are 2^G sign vectors: all are taken where they are no more than the draws, and p is then exact.
Nothing is fitted again: with A = (XᵀX)⁻¹, a = A c, s_g = X_gᵀ ũ_g and d = A Σ_g v_g s_g,

    c·β̂* − r = c·d,      se*² ∝ Σ_g (v_g aᵀs_g − aᵀX_gᵀX_g d)²

References
----------
Cameron, Gelbach and Miller (2008), Bootstrap-based improvements for inference with clustered errors, Rev. Econ. Stat. 90.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..errors import BadArgument
from ..likelihood import Objective
from ..models.base import names_of
from .covariance import linear
from .hypotheses import parse
from .meat import codes_of
from .tests import Test, of_term

TIES = 1e-10  # of t², by which two are the same
ENDLESS = 1e16  # a t² that is rounding alone


def wild_bootstrap(
    objective: Objective,
    theta: Tensor,
    hypothesis: str,
    clusters: np.ndarray,
    draws: int = 9999,
    seed: int = 0,
) -> Test:
    """A test of one restriction, "x = 0", by signs of the residuals of whole clusters under the hypothesis.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), of a normal linear model
    hypothesis
        one linear restriction on coefficients of the mean
    clusters
        one label a row
    draws
        sign vectors
    seed
        of the draws

    Returns
    -------
    Test
        the statistic is t² = F by cluster-robust errors, as `fit.test(…, by=)` has it; p_value is the bootstrap's

    Raises
    ------
    BadArgument
        another model, several restrictions, a restriction on the scale

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"y": [1.0, 2, 2, 5, 3, 6, 4, 7], "x": [0.0, 0, 1, 1, 2, 2, 3, 3], "g": [0.0, 0, 1, 1, 2, 2, 3, 3]}
    >>> print(th.fit("y ~ x", data).wild_bootstrap("x = 0", by="g"))
    x = 0: wild cluster bootstrap, F(1, 3) = 81.08, p = 0.1250 (all 16 sign vectors of 4 clusters)
    """
    model = objective.model
    if not linear(objective) or any(t.weights is not None for t in objective.terms):
        raise BadArgument(
            "wild_bootstrap is of a normal linear model with one scale and without a prior or weights."
        )
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 99:
        raise BadArgument(f"draws={draws!r}: a whole number of at least 99.")
    asked = of_term(objective, hypothesis) or parse(hypothesis, names_of(model))
    p = model.predictors[0].size
    if len(asked.r) != 1 or np.any(asked.R[0, p:]):
        raise BadArgument(
            f"the hypothesis {asked.text!r}: wild_bootstrap tests one restriction on coefficients of the mean."
        )
    codes = codes_of(objective, clusters)
    c, r = asked.R[0, :p], float(asked.r[0])
    XX, Xy, n = _sums(objective, codes, p)
    A = np.linalg.inv(XX.sum(0))
    beta = A @ Xy.sum(0)
    a, G = A @ c, len(XX)
    restricted = beta - a * (c @ beta - r) / (c @ a)
    s = Xy - XX @ restricted  # X_gᵀ ũ_g, (G, p)
    signs, exact = _signs(G, draws, seed)
    square = _squares(signs, s, XX, A, a, c)
    own = _squares(np.ones((1, G)), s, XX, A, a, c)[0]
    if not own < ENDLESS:
        raise BadArgument(
            f"by: the residuals of every cluster sum to 0 in the direction of {asked.text!r}, so that there is no cluster-robust "
            "error. More clusters are needed."
        )
    value = float(np.mean(square >= own * (1 - TIES)))
    value = value if exact else (1 + value * len(square)) / (1 + len(square))
    f = G / (G - 1) * (n - 1) / (n - p)
    note = (
        f"all {len(signs)} sign vectors of {G} clusters" if exact else f"{draws} sign vectors of {G} clusters"
    )
    return Test(asked.text, "wild_cluster_bootstrap", float(own / f), 1, value, note, df_error=float(G - 1))


def _sums(objective: Objective, codes: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray, float]:
    """X_gᵀX_g, (G, p, p), X_gᵀ(y − offset), (G, p), and n."""
    model, term, start = objective.model, objective.terms[0], 0
    predictor, groups = model.predictors[0], int(codes.max()) + 1
    XX, Xy = np.zeros((groups, p, p)), np.zeros((groups, p))
    for batch in term.source.batches(model):
        X = np.asarray(predictor.placed(batch, predictor.start + p)[:, predictor.start :].todense())
        offset = batch.tensors.get(f"offset{predictor.slot}")
        y = batch["y"].numpy() - (0.0 if offset is None else offset.numpy())
        count, own = batch.count.numpy(), codes[start : start + len(batch)]
        for g in np.unique(own):
            at = own == g
            XX[g] += (X[at] * count[at, None]).T @ X[at]
            Xy[g] += X[at].T @ (count[at] * y[at])
        start += len(batch)
    return XX, Xy, objective.observations


def _signs(groups: int, draws: int, seed: int) -> tuple[np.ndarray, bool]:
    """Sign vectors, (draws, G); all of them where they are no more than that."""
    if groups < 30 and 2**groups <= draws:
        bits = (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1
        return 1.0 - 2.0 * bits, True
    return np.random.default_rng(seed).choice([-1.0, 1.0], (draws, groups)), False


def _squares(
    signs: np.ndarray, s: np.ndarray, XX: np.ndarray, A: np.ndarray, a: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """t*², the factor f left out, (draws,)."""
    d = signs @ s @ A  # (draws, p)
    score = signs * (s @ a) - d @ (a @ XX).T  # aᵀ X_gᵀ u*_g, (draws, G)
    out: np.ndarray = (d @ c) ** 2 / np.maximum((score**2).sum(1), 1e-300)
    return out
