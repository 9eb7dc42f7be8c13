"""The average information: what steers Newton's method in the parameters of Λ.

Of observed and expected information the difficult parts, traces of products, cancel in the mean. Where y is normal,

    J_ab = ½ (V_a V⁻¹r)ᵀ V⁻¹ (V_b V⁻¹r) / σ²,      V_a V⁻¹ r = Z b_a,      b_a = ∂Λ_a u + Λ ∂Λ_aᵀ e,   e = ZᵀW(r − ZΛu)

with one solution for each φ_a; elsewhere the same of the working response at the mode, with W the rows' curvatures and
e = Zᵀs their scores. It vanishes where y varies less than the model says: then half of the least that is expected is taken,

    ½ tr (V⁻¹V_a)²  ≥  ½ (tr V⁻¹V_a)² / rank V_a

Source: Gilmour, Thompson and Cullis (1995), Average information REML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .elimination import Array, Factored

if TYPE_CHECKING:
    from .random_effects import RandomEffects

Vector = tuple[Array | None, Array]  # of the eliminated factor, (q, L), and of the rest


def average_information(
    model: RandomEffects, factored: Factored, u: Vector, e: Vector, phi: Tensor, slopes: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """J_φφ (k, k), J_φβ (k, p) of the fixed columns, and bᵀe (k,), each without the factor 1/σ².

    Parameters
    ----------
    factored
        of H, the fixed columns part of it
    u, e
        the modes, and ZᵀW(r − ZΛu)
    slopes
        ½ ∂ log det H/∂φ, for the floor; None: without it
    """
    columns, cross, scales, m = factored.columns, factored.cross, factored.scales, factored.m
    random, p = factored.without_fixed(), columns.starts[-1] - factored.m
    b: list[Vector] = []
    V: list[Vector] = []
    for changed in model.scale_slopes(phi):
        d0, drest = changed.times(u[0], u[1][:m], columns)
        t0, trest = scales.times(*changed.back(e[0], e[1][:m], columns), columns)
        b.append((None if d0 is None or t0 is None else d0 + t0, drest + trest))
        g0, grest = cross.times(b[-1][0], np.concatenate([b[-1][1], np.zeros(p)]))
        c0, crest = scales.back(g0, grest[:m], columns)
        s0, srest = random.solve(None if c0 is None else c0[..., None], crest[:, None])
        w0, wrest = scales.times(None if s0 is None else s0[..., 0], srest[:, 0], columns)
        f0, frest = cross.times(w0, np.concatenate([wrest, np.zeros(p)]))
        V.append((None if g0 is None or f0 is None else g0 - f0, grest - frest))  # (Z, X)ᵀV⁻¹Z b
    J = torch.zeros(len(phi), len(phi), dtype=torch.float64)
    for i in range(len(phi)):
        for j in range(i + 1):
            J[i, j] = J[j, i] = 0.5 * dot(b[i], (V[j][0], V[j][1][:m]))
        if slopes is not None:
            J[i, i] = max(float(J[i, i]), float(slopes[i] ** 2) / model.ranks[i])
    fixed = np.stack([own[1][m:] for own in V]) if V else np.zeros((0, p))
    return J, torch.from_numpy(fixed), torch.tensor([dot(each, e) for each in b], dtype=torch.float64)


def dot(a: Vector, b: Vector) -> float:
    """aᵀb; where b is longer, of a's columns alone."""
    first = 0.0 if a[0] is None or b[0] is None else float((a[0] * b[0]).sum())
    return first + float(a[1] @ b[1][: len(a[1])])
