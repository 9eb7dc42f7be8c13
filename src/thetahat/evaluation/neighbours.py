"""Entropy and divergence of samples whose density nobody has said, from the distances to their nearest
neighbours.

A ball around x_i that reaches to its k-th neighbour holds about k/n of the probability, so log p(x_i) ≈ log
k/n − log volume. Distances are of the maximum norm after each column was divided by its standard deviation,
whose logarithm is added back.

The standard error knows the spread of log p(x_i) and the noise of the distances, which neighbours share and
which therefore does not average out as independent noise would: its variance is SHARED[d]/n whatever the
density. It does not know the bias, which is small in one dimension, and grows with dimension and with sharp
edges of the support.

References
----------
Kozachenko and Leonenko (1987), Sample estimate of the entropy of a random vector; Kraskov, Stögbauer and
Grassberger (2004), Estimating mutual information, eqs. 20 and 22; Delattre and Fournier (2017), On the
Kozachenko–Leonenko entropy estimator (the variance is that of log p(x) plus a constant of k and d); Wang,
Kulkarni and Verdú (2009), Divergence estimation for multidimensional densities, eq. 17.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma, polygamma

from ..errors import BadArgument, NotFinite

K = 3  # neighbours: of more the bias is larger, of fewer the noise
# n·Var of the mean of d·log ε on a torus, where log p is constant: the noise that neighbours share. thousands
# of simulations of 300 points each
SHARED = {1: 0.61, 2: 0.63, 3: 0.62, 4: 0.66, 5: 0.66}
GROUP = 20  # rows that share their predictors, of which an entropy is told
GROUPS = 20  # of the jackknife


def columns(x: np.ndarray, what: str) -> np.ndarray:
    """Numbers as (n, d) that can have a density, or the reason why not.

    Raises
    ------
    NotFinite, BadArgument
        a value that is not a number; values that repeat; too many columns; too few rows
    """
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    n, d = x.shape
    if not np.isfinite(x).all():
        raise NotFinite(f"{what} is not finite in row {int(np.flatnonzero(~np.isfinite(x).all(1))[0])}.")
    if n < 2 * K + 2:
        raise BadArgument(f"{what} has {n} rows: distances to {K} neighbours need {2 * K + 2} or more.")
    if d not in SHARED:
        raise BadArgument(
            f"{what} has {d} columns, and distances say too little of an entropy beyond {max(SHARED)}. Fit a "
            "model: its cross-entropy on held-out "
            "rows is an upper bound."
        )
    twice = n - len(np.unique(x, axis=0))
    if twice:
        raise BadArgument(
            f"{twice} of the {n} rows of {what} repeat others, and of a density none would: the data are "
            "discrete, or rounded. Use "
            "method='plug_in' for discrete data; of rounded ones there is no entropy to be had from "
            "distances."
        )
    if not (x.std(0) > 0).all():
        raise BadArgument(
            f"column {int(np.flatnonzero(~(x.std(0) > 0))[0])} of {what} does not vary: it has no density."
        )
    return x


def local_entropy(x: np.ndarray) -> np.ndarray:
    """Of each row, what −log p(x_i) seems to be, (n,): their mean is the entropy (Kraskov's eq. 20).

    h_i = ψ(n) − ψ(k) + d·log ε_i,      ε_i twice the distance to the k-th neighbour
    """
    (n, d), scale = x.shape, x.std(0)
    diameter = 2 * _distance(x / scale, x / scale, own=True)
    out: np.ndarray = digamma(n) - digamma(K) + d * np.log(diameter) + np.log(scale).sum()
    return out


def local_within(x: np.ndarray, group: np.ndarray, what: str) -> np.ndarray:
    """The same among the rows of each group, (n,): their mean is the entropy given the group.

    Raises
    ------
    BadArgument
        a group of fewer than `GROUP` rows, or one whose rows do not vary
    """
    out = np.empty(len(x))
    for g in np.unique(group):
        own = group == g
        if own.sum() < GROUP:
            raise BadArgument(
                f"a group of {what} has {int(own.sum())} rows: distances within it need {GROUP} or more."
            )
        if not (x[own].std(0) > 0).all():
            raise BadArgument(f"{what} does not vary within a group: it has no density there.")
        out[own] = local_entropy(x[own])
    return out


def noise(n: int, d: int) -> float:
    """What the variance of a mean of local entropies has above that of n independent values of its own
    spread."""
    return (SHARED[d] - float(polygamma(1, K))) / n


def local_conditional(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Of each row, what −log p(y_i | x_i) seems to be, (n,): the entropy of (x, y) less that of x within the
    same distance, whose biases cancel.

    h_i = ψ(n_i + 1) − ψ(k) + d_y·log ε_i,      n_i how many x lie within ε_i/2
    """
    own, given = y / y.std(0), x / x.std(0)
    both = np.hstack([given, own])
    half = _distance(both, both, own=True)
    within = cKDTree(given).query_ball_point(given, np.nextafter(half, 0), p=np.inf, return_length=True) - 1
    out: np.ndarray = (
        digamma(within + 1) - digamma(K) + y.shape[1] * np.log(2 * half) + np.log(y.std(0)).sum()
    )
    return out


def divergence(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """KL(p ‖ q) of samples x ~ p and y ~ q, and its standard error by a delete-a-group jackknife of both,
    which errs on the large side.

    (d/n) Σ_i log(ν_i / ρ_i) + log(m / (n − 1)),      ρ_i, ν_i the distances of x_i to its k-th neighbour among x, among y
    """
    scale = np.vstack([x, y]).std(0)
    x, y = x / scale, y / scale
    turn = np.random.default_rng((0, GROUPS))  # no stream that the data may have been drawn from
    in_x, in_y = (turn.permutation(len(each)) % GROUPS for each in (x, y))
    left_out = np.array([_divergence(x[in_x != g], y[in_y != g]) for g in range(GROUPS)])
    return _divergence(x, y), math.sqrt((GROUPS - 1) * left_out.var())


def _divergence(x: np.ndarray, y: np.ndarray) -> float:
    n, d = x.shape
    ratio = _distance(x, y, own=False) / _distance(x, x, own=True)
    return float(d * np.log(ratio).mean() + math.log(len(y) / (n - 1)))


def _distance(x: np.ndarray, among: np.ndarray, *, own: bool) -> np.ndarray:
    """To the k-th neighbour of each row of x, in the maximum norm; `own`: the row itself is among them,
    and is none."""
    k = K + 1 if own else K
    out: np.ndarray = cKDTree(among).query(x, k, p=np.inf)[0][:, k - 1]
    return out
