"""Flat directions: combinations of θ of which the data say nothing.

Of a regression that is proven: a direction is flat if it moves no linear predictor on which the log p of its
row depends, at whatever θ. Of other models it is seen: ℓ does not change along it, near or far.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..data.batch import Batch
from ..likelihood import Objective
from ..likelihood.total import total
from ..models.base import coefficient_names
from ..models.information import Information
from ..models.regression import Regression
from ..protocols import Together
from ..types import ModelLike, SourceLike
from .certificate import Certificate, direction_text

SINGULAR = 1e-9  # eigenvalues of the scaled information below this are looked at


def weak_directions(information: Information) -> tuple[Tensor, Tensor]:
    """Directions of scale·θ in which the scaled information nearly vanishes, columns (p, r), weakest
    first; and the scale, (p,)."""
    scale = information.diagonal().abs().sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    J = information.dense() / scale[:, None] / scale
    if not bool(torch.isfinite(J).all()):
        return J.new_zeros(len(J), 0), torch.ones_like(scale)
    values, vectors = torch.linalg.eigh(J)
    weak = vectors[:, values < max(SINGULAR, 1e-13 * len(J))]
    if weak.shape[1] == 0:
        weak = vectors[:, :1]
    return weak, scale


def flat_directions(
    objective: Objective, model: ModelLike, weak: Tensor, scale: Tensor
) -> list[dict[str, float]]:
    """Those combinations of the weak directions that change no linear predictor (or, for other models, no log
    p), in echelon form."""
    if weak.shape[1] == 0:
        return []
    vectors = weak / scale[:, None]
    source = objective.terms[0].source
    if isinstance(model, Regression) and not isinstance(model, Together):
        moved, size = _moved(model, source, vectors)
        values, mixing = torch.linalg.eigh(moved / size)
        still = mixing[:, values < 1e-17]
    else:
        keep = [j for j in range(vectors.shape[1]) if _unchanged(objective, vectors[:, j])]
        still = torch.eye(vectors.shape[1], dtype=vectors.dtype)[:, keep]
    if still.shape[1] == 0:
        return []
    return [named(model, v / scale) for v in _echelon(weak @ still)]


def _moved(model: Regression, source: SourceLike, vectors: Tensor) -> tuple[Tensor, float]:
    """Vᵀ(Σ_a X_aᵀX_a)V of unit-size directions over the rows that depend on η_a, and the size against
    which to call it zero."""
    theta = model.coefficients.detach()
    scale = vectors.abs().max(0).values
    begin = model.start(source)

    def of(batch: Batch) -> Tensor:
        batch = batch[batch.count > 0] if batch.counted else batch
        columns = []
        for p, bears in zip(model.predictors, _bearing(model, batch, begin), strict=True):
            none = p.eta(batch, torch.zeros_like(theta))
            by = [
                (p.eta(batch, v / s) - none).expand(len(batch)) for v, s in zip(vectors.T, scale, strict=True)
            ]
            columns.append(torch.stack(by) * bears)
        moved = torch.cat(columns, 1)
        largest = sum(float(p.rows(batch, torch.float64).square().sum()) for p in model.predictors)
        return torch.cat([(moved @ moved.T).reshape(-1), moved.new_tensor([largest])])

    out = total(of, source)
    r = vectors.shape[1]
    unit = scale[:, None] * scale
    return out[:-1].view(r, r) * unit / float(scale.max() ** 2), max(float(out[-1]), 1e-300)


def _bearing(model: Regression, batch: Batch, begin: Tensor) -> list[Tensor]:
    """Which rows' log p depends on the η of each estimated parameter (a hurdle's zeros say nothing of the
    mean of the others).

    Looked at where nothing is saturated: at the start, and beside it. A row whose score and curvature are
    exactly 0 at both does not.
    """
    bears: list[Tensor] = []
    for shift in (0.0, 0.37):
        with torch.no_grad():
            eta = [e + shift for e in model.eta(batch, begin)]
            _, score, curvature = model.family.derivatives(batch["y"], eta, model.extras(batch))
        free = [j for j, name in enumerate(model.family.parameters) if name not in model.fixed]
        here = [((score[j] != 0) | (curvature[j, j] != 0)).expand(len(batch)) for j in free]
        bears = here if not bears else [a | b for a, b in zip(bears, here, strict=True)]
    return bears


def _unchanged(objective: Objective, v: Tensor) -> bool:
    theta, here = objective.theta, objective.value()
    step = v / float(v.abs().max())
    # far out along a recession direction nothing changes near by either, but the way back does
    back = 2 * float(theta.abs().max()) + 30
    values = [objective.value(theta + t * step) for t in (-back, -30.0, -1.0, -0.1, 0.1, 1.0, 30.0, back)]
    return all(abs(x - here) <= 1e-9 * (abs(here) + 1) for x in values)


def _echelon(V: Tensor) -> list[Tensor]:
    """A basis of the span of V's columns with as few coefficients each as elimination leaves, ending in the
    later columns."""
    M = V.T.clone()
    rows: list[Tensor] = []
    for j in reversed(range(M.shape[1])):
        if len(M) == 0:
            break
        size = M.abs().max()
        i = int(M[:, j].abs().argmax())
        if float(M[i, j].abs()) < 1e-6 * float(size):
            continue
        pivot = M[i] / M[i, j]
        M = torch.cat([M[:i], M[i + 1 :]])
        M = M - M[:, j : j + 1] * pivot
        rows = [r - r[j] * pivot for r in rows]
        rows.append(pivot)
    return [torch.where(r.abs() < 1e-7 * r.abs().max(), torch.zeros_like(r), r) for r in rows]


def named(model: ModelLike, v: Tensor) -> dict[str, float]:
    v = v / float(v.abs().max())
    return {name: float(x) for name, x in zip(coefficient_names(model), v, strict=True) if x != 0}


def flat_certificate(flat: list[dict[str, float]], certificate: Certificate) -> Certificate:
    shown = "; ".join(direction_text(d) for d in flat[:4]) + (
        f" … ({len(flat)} in all)" if len(flat) > 4 else ""
    )
    last = [max(d, key=lambda name: list(d).index(name)) for d in flat]
    drop = ", ".join(list(dict.fromkeys(last))[:8]) + (" …" if len(set(last)) > 8 else "")
    detail = (
        f"the data cannot tell some coefficients apart: the likelihood is constant along {shown}. "
        f"Drop {drop}, or put a prior on it (prior=th.priors.Normal(2.5), --prior normal:2.5)."
    )
    size = certificate.size or 0
    return replace(
        certificate,
        status="flat direction",
        rank=size - len(flat),
        directions=tuple(flat),
        detail=detail,
        concave=False,
    )
