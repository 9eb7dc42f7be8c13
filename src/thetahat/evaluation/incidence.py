"""Competing risks: the Aalen–Johansen estimate of the probability that cause k has happened by t.

With d_kj events of cause k among n_j at risk at t_j, h_kj = d_kj / n_j, h_j = Σ_k h_kj, and S the Kaplan–Meier curve of
all causes together:

    F_k(t) = Σ_{t_j ≤ t} S(t_j −) h_kj,          Σ_k F_k(t) + S(t) = 1

    Var F_k(t) = Σ_{t_j ≤ t} [ S_{j−1}² h_kj (1 − h_kj) − 2 S_{j−1} h_kj R_j + R_j² h_j / (1 − h_j) ] / n_j,      R_j = F_k(t) − F_k(t_j)

The variance is that of multinomial h_j, by the delta method (Greenwood's formula, where there is one cause).

References
----------
Aalen and Johansen (1978), An empirical transition matrix for non-homogeneous Markov chains; Andersen, Borgan, Gill
and Keiding (1993), Statistical Models Based on Counting Processes, §IV.4; Marubini and Valsecchi (1995), §10.
"""

from __future__ import annotations

import numpy as np

from .product_limit import Steps


def incidence(counts: Steps) -> tuple[np.ndarray, np.ndarray]:
    """F_k and its standard error at each time, (m, K) each.

    Examples
    --------
    >>> from thetahat.evaluation.product_limit import steps
    >>> found, error = incidence(steps(np.array([1.0, 2.0, 3.0]), np.array([1, 2, 0]), causes=2))
    >>> found[-1].round(6).tolist(), error[-1].round(6).tolist()
    ([0.333333, 0.333333], [0.272166, 0.272166])
    """
    n = np.where(counts.at_risk > 0, counts.at_risk, 1.0)[:, None]
    hk, h = counts.events / n, counts.hazard[:, None]
    S = np.concatenate([[1.0], counts.survival[:-1]])[:, None]
    F = np.cumsum(S * hk, axis=0)
    a = S**2 * hk * (1 - hk) / n
    b = -2 * S * hk / n
    # where all at risk have an event R is 0 from then on
    c = np.divide(h, (1 - h) * n, out=np.zeros_like(h), where=h < 1)
    # Σ_j a_j + b_j (F − F_j) + c_j (F − F_j)² as a polynomial in F: one pass
    variance = (
        np.cumsum(a - b * F + c * F**2, axis=0)
        + F * np.cumsum(b - 2 * c * F, axis=0)
        + F**2 * np.cumsum(np.broadcast_to(c, F.shape), axis=0)
    )
    return F, np.sqrt(np.maximum(variance, 0.0))
