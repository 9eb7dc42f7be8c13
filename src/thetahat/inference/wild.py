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

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument
from ..likelihood import Objective
from ..models.base import names_of
from .covariance import linear
from .hypotheses import parse
from .meat import codes_of
from .tests import Test, of_term

TIES = 1e-10  # of t², by which two are the same
CELLS = 4 * 10**6  # of a block of sign vectors
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
    c, r, n = asked.R[0, :p], float(asked.r[0]), objective.observations
    X, y, count = _rows(objective)
    A = np.linalg.inv((X * count[:, None]).T @ X)
    beta = theta[:p].to(torch.float64).numpy()
    a = A @ c
    restricted = beta - a * (c @ beta - r) / (c @ a)
    G = int(codes.max()) + 1
    s, M = np.zeros((G, p)), np.zeros((G, p))  # X_gᵀ ũ_g and X_gᵀX_g a
    np.add.at(s, codes, X * (count * (y - X @ restricted))[:, None])
    np.add.at(M, codes, X * (count * (X @ a))[:, None])
    own = _squares(np.ones((1, G)), s, M, A, c)[0]
    if not own < ENDLESS:
        raise BadArgument(
            f"by: the residuals of every cluster sum to 0 in the direction of {asked.text!r}, so that there is no cluster-robust "
            "error. More clusters are needed."
        )
    exact = G < 30 and draws >= 2**G
    many = 2**G if exact else draws
    beyond = sum(
        int((_squares(v, s, M, A, c) >= own * (1 - TIES)).sum()) for v in _signs(G, many, exact, seed)
    )
    value = beyond / many if exact else (1 + beyond) / (1 + many)
    f = G / (G - 1) * (n - 1) / (n - p)
    note = f"{'all ' if exact else ''}{many} sign vectors of {G} clusters"
    return Test(asked.text, "wild_cluster_bootstrap", float(own / f), 1, value, note, df_error=float(G - 1))


def _rows(objective: Objective) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, (n, p), y less the offset, and the counts, (n,)."""
    model, parts = objective.model, []
    predictor = model.predictors[0]
    for batch in objective.terms[0].source.batches(model):
        X = predictor.placed(batch, predictor.start + predictor.size)[:, predictor.start :].toarray()
        offset = batch.tensors.get(f"offset{predictor.slot}")
        y = batch["y"].numpy() - (0.0 if offset is None else offset.numpy())
        parts.append((X, y, batch.count.to(torch.float64).numpy()))
    X, y, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    return X, y, count


def _signs(groups: int, many: int, exact: bool, seed: int) -> Iterator[np.ndarray]:
    """Sign vectors, (·, G), block by block: all of them, or drawn."""
    rng, step = np.random.default_rng(seed), max(1, CELLS // groups)
    for start in range(0, many, step):
        size = min(step, many - start)
        bits = (
            (np.arange(start, start + size)[:, None] >> np.arange(groups)) & 1
            if exact
            else rng.integers(0, 2, (size, groups))
        )
        yield 1.0 - 2.0 * bits


def _squares(signs: np.ndarray, s: np.ndarray, M: np.ndarray, A: np.ndarray, c: np.ndarray) -> np.ndarray:
    """t*², the factor f left out, (draws,)."""
    d = signs @ s @ A  # (draws, p)
    score = signs * (s @ (A @ c)) - d @ M.T  # aᵀ X_gᵀ u*_g, (draws, G)
    out: np.ndarray = (d @ c) ** 2 / np.maximum((score**2).sum(1), 1e-300)
    return out
