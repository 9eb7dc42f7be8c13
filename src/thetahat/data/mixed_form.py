"""The coordinates of a smooth term in which it is a part of a mixed model: what its penalties leave free, and random effects.

Source: Wood (2017), Generalized Additive Models, 2nd ed., §5.4.2 and 5.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .bases import Array


def mixed_form(penalties: Sequence[Array]) -> tuple[Array, Array, tuple[Array, ...]]:
    """N (k, k₀), R (k, k − k₀) and the penalties in b, with β = N a + R b.

    N is an orthonormal basis of what no penalty touches. In b the penalties are diagonal, of one RᵀSR = I. Those of a
    product of curves are Kronecker products of one margin's with identities, and so have common axes.

    Examples
    --------
    >>> N, R, (S,) = mixed_form([np.diag([0.0, 4.0])])
    >>> np.abs(N[:, 0]).tolist(), np.abs(R[:, 0]).tolist(), S.round(12).tolist()
    ([1.0, 0.0], [0.0, 0.5], [[1.0]])
    """
    sizes = [max(float(np.linalg.norm(S)), 1e-300) for S in penalties]
    values, vectors = np.linalg.eigh(sum(S / size for S, size in zip(penalties, sizes, strict=True)))
    free = values < 1e-9 * max(float(values[-1]), 1e-300)
    N, R = vectors[:, free], vectors[:, ~free] / np.sqrt(values[~free])
    # one combination of matrices with common axes has those axes, unless it was chosen to be degenerate
    mixed = sum(math.sqrt(2 + m) * S / size for m, (S, size) in enumerate(zip(penalties, sizes, strict=True)))
    R = R @ np.linalg.eigh(R.T @ mixed @ R)[1]
    if len(penalties) == 1:
        R = R / math.sqrt(sizes[0])
        return N, R, (np.eye(R.shape[1]),)
    found = []
    for S, size in zip(penalties, sizes, strict=True):
        own = R.T @ S @ R
        d = np.diag(own).copy()
        assert float(np.abs(own - np.diag(d)).max()) < 1e-6 * size, "penalties without common axes"
        own_values = np.linalg.eigvalsh(S)
        rank = int((own_values > 1e-11 * own_values[-1]).sum())
        d[np.argsort(d)[: len(d) - rank]] = 0.0  # what it does not reach, free of rounding
        found.append(np.diag(d))
    return N, R, tuple(found)


def curve_of_each(
    X: Array, S: Array, x: Array, counts: Array | None = None
) -> tuple[Array, tuple[Array, ...]]:
    """Z (K, K) and M + 1 penalties, diag of 0 and 1: the coordinates of one group's curve, random as a whole.

        f_g = Σ_j b_gj (XZ)_j,      b_gj ~ N(0, τ₀²) where the curve bends, N(0, τ_m²) of each polynomial left free

    The columns that bend come first, with ZᵀSZ ∝ I and orthogonal over the rows to what the penalty leaves free; then the
    orthonormal polynomials of x, the constant, the line …, that are left free. Each part has the mean square 1 over the
    rows, so that its τ is how far curves lie from the average one in it. mgcv has the same parts but leaves the rotation among the
    polynomials to the eigenvalue routine, where any is as good; it matters to the likelihood. A row of frequency weight w
    counts as w rows.

    Source: Wood (2017), §5.4.2 (the coordinates), 7.7.4 (a curve of each group as a random effect).

    Examples
    --------
    >>> x = np.linspace(0, 1, 9)
    >>> Z, (bend, *rest) = curve_of_each(np.vander(x, 4, increasing=True), np.diag([0.0, 0, 1, 2]), x)
    >>> (np.vander(x, 4, increasing=True) @ Z)[:2].round(3).tolist(), [np.diag(S).tolist() for S in (bend, *rest)]
    ([[...], [...]], [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    """
    N, R, _ = mixed_form([S])
    M = N.shape[1]
    w = np.full(len(x), 1 / len(x)) if counts is None else counts / counts.sum()
    centred = x - w @ x
    root, powers = np.sqrt(w)[:, None], np.vander(centred / np.sqrt(w @ centred**2), M, increasing=True)
    Q, T = np.linalg.qr(root * powers)
    X = root * X  # XᵀX is then the mean over the rows
    N = N @ np.linalg.lstsq(X @ N, Q * np.sign(np.diag(T)), rcond=None)[0]
    R = R - N @ (N.T @ X.T @ (X @ R))
    R = R / math.sqrt(((X @ R) ** 2).sum())
    of_part = np.maximum(np.arange(len(S)) - R.shape[1] + 1, 0)
    return np.hstack([R, N]), tuple(np.diag((of_part == m).astype(np.float64)) for m in range(M + 1))


def without_constant(Z: Array, penalties: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """The coordinates of `curve_of_each` but for the constant: of a second curve of the same groups. Of two constants the
    likelihood holds the sum of the variances alone, so that leaving one out leaves its maximum where it is."""
    bend, constant, *rest = penalties
    kept = np.flatnonzero(np.diag(constant) == 0)
    return Z[:, kept], tuple(S[np.ix_(kept, kept)] for S in (bend, *rest))
