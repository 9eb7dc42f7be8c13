"""The second derivative of ½ log det H in Λ, from the factor that gave the first one.

With H = P + ΛᵀGΛ, S, R, E and B as in `elimination`, M = Λ0Λ0ᵀ and, of one level, N = (I + G_00 M)⁻¹, C = N G_00, and for
each parameter a   M_a = ∂(Λ0Λ0ᵀ),   W_a = Eᵀ NᵀM_aN E,   Γ_a = Λ⁻¹∂Λ of the other factors, and A = S⁻¹:

    first, first    ½ Σ tr (C − NBNᵀ) M_ab − ½ Σ tr C M_a C M_b + Σ tr M_a C M_b NBNᵀ − ½ tr A W_a A W_b
    first, rest     − tr Γ_b A W_a A
    rest, rest      − tr (I − A) Γ_a (I − A) Γ_b + tr A Γ_aᵀ (I − A) Γ_b

One dense product for each parameter of the eliminated factor, and none for the others. Λ is taken as linear in its
parameters: what its own second derivative adds is ⟨Q, ∂²Λ⟩, with Q the slopes.

Source: Harville (1977), Maximum likelihood approaches to variance component estimation, for the traces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .blocks import Array, multiplied, transposed
from .elimination import Factored, Scales
from .gram import Bordered

MOST = 2**27  # numbers of all dense products together
SINGULAR = 1e-3  # of Λ with rows of length 1: the least singular value that is inverted


def regular(scales: Scales) -> bool:
    """Whether every Λ can be inverted without loss."""
    for lam in (*([] if scales.first is None else [scales.first]), *scales.rest):
        length = np.sqrt((lam**2).sum(1))
        if not length.min() > 0 or np.linalg.svd(lam / length[:, None], compute_uv=False)[-1] < SINGULAR:
            return False
    return True


def determinant_curvature(f: Factored, slopes: Sequence[Scales]) -> Array | None:
    """D²(½ log det H)[∂Λ_a, ∂Λ_b], (k, k); None where Λ is near a singular one, the products need too much memory, or S is sparse.

    Parameters
    ----------
    f
        the factor of H
    slopes
        ∂Λ/∂φ_a of each of the k parameters
    """
    first = [a for a, s in enumerate(slopes) if s.first is not None and bool(s.first.any())]
    if f.columns.gram is not None:  # traces of products of the whole of S⁻¹
        return None
    if not regular(f.scales) or len(first) * f.size**2 > MOST:
        return None
    out = np.zeros((len(slopes), len(slopes)))
    gamma = [
        [
            (a, np.linalg.solve(lam, s.rest[i]))
            for a, s in enumerate(slopes)
            if bool(s.rest[i].any())  # one parameter moves one term
        ]
        for i, lam in enumerate(f.scales.rest)
    ]
    _of_rest(out, f, gamma)
    if first:
        _of_first(out, f, slopes, first, gamma)
    return out


def _of_rest(out: Array, f: Factored, gamma: list[list[tuple[int, Array]]]) -> None:
    """The pairs of two parameters of further terms."""
    terms, starts = f.columns.terms, f.columns.starts
    for i, own in enumerate(gamma):
        for j, other in enumerate(gamma[: i + 1]):
            t, s = terms[i], terms[j]
            A = f.inverse[starts[i] : starts[i] + t.size, starts[j] : starts[j] + s.size]
            A = A.reshape(t.levels, t.width, s.levels, s.width)
            same = np.einsum("lalb->ab", A) if i == j else None  # Σ of the diagonal blocks
            for a, Ga in own:
                symmetric = _left(Ga + Ga.T, A)
                for b, Gb in other:
                    value = -float(np.vdot(symmetric, _right(A, Gb.T)))
                    if same is not None:
                        both = np.einsum("ij,jk->ik", Ga, Gb)
                        value -= t.levels * float(np.trace(both))
                        value += float(np.trace(same @ (both + Gb @ Ga + Ga.T @ Gb)))
                    out[a, b] = out[b, a] = value


def _left(G: Array, A: Array) -> Array:
    """G of each level times A (levels, width, …)."""
    if G.size == 1:
        scaled: Array = G[0, 0] * A
        return scaled
    return np.ascontiguousarray(np.einsum("ab,lbkc->lakc", G, A))


def _right(A: Array, G: Array) -> Array:
    """A (…, width) times G."""
    out: Array = G[0, 0] * A if G.size == 1 else A @ G
    return out


def _of_first(
    out: Array,
    f: Factored,
    slopes: Sequence[Scales],
    first: list[int],
    gamma: list[list[tuple[int, Array]]],
) -> None:
    """The pairs with a parameter of the eliminated factor."""
    assert f.scales.first is not None
    assert f.cross.G00 is not None
    lam = f.scales.first
    q = len(lam)
    N = multiplied(np.linalg.inv(lam).T, transposed(f.X))
    C = multiplied(N, f.cross.G00)
    moved = multiplied(N, multiplied(f.B, transposed(N))) if f.size else np.zeros_like(C)
    CC = (C.reshape(q * q, -1) @ C.reshape(q * q, -1).T).reshape(q, q, q, q)
    CB = (C.reshape(q * q, -1) @ moved.reshape(q * q, -1).T).reshape(q, q, q, q)
    level = (C - moved).sum(2)
    change = {a: s.first for a, s in enumerate(slopes) if a in first and s.first is not None}
    M = {a: d @ lam.T + lam @ d.T for a, d in change.items()}
    Q = {a: f.inverse @ _product(f, N, M[a]) for a in first} if f.size else {}
    for a in first:
        for b in (b for b in first if b <= a):
            value = float((level * (change[a] @ change[b].T + change[b] @ change[a].T)).sum())
            value -= float(np.einsum("ijkl,jk,li->", CC, M[a], M[b]))
            value += 2 * float(np.einsum("jkli,ij,kl->", CB, M[a], M[b]))
            value -= float(np.vdot(Q[a], Q[b].T)) if Q else 0.0
            out[a, b] = out[b, a] = 0.5 * value
        for t, begin, own in zip(f.columns.terms, f.columns.starts, gamma, strict=False):
            at = slice(begin, begin + t.size)
            left = Q[a][at].reshape(t.levels, t.width, -1)
            right = f.inverse[at].reshape(t.levels, t.width, -1)
            Z = np.tensordot(left, right, axes=((0, 2), (0, 2))) if t.width > 1 else np.vdot(left, right)
            for b, G in own:
                out[a, b] = out[b, a] = -float((G.T * Z).sum())


def _product(f: Factored, N: Array, M: Array) -> Array:
    """Eᵀ NᵀMN E, (size, size)."""
    X = multiplied(transposed(N), multiplied(M, N))
    E, dense = f.scaled
    at = None if E is None else multiplied(X[:, :, f.columns.pattern[0].rows], E[:, None])[:, 0]
    out = f.inner((at, multiplied(X, dense)), (E, dense))
    assert not isinstance(out, Bordered)
    return out
