"""What an answer is worth, beyond what the solver saw: flat directions, boundaries, separation, other recession directions.

Looked for only where something is odd: the information is singular, the solver could not certify, or some coefficient's standard error
has grown a thousandfold along the climb (1/√J against the largest J_jj met), as it does along every direction in which the likelihood
flattens for ever. A maximum with a well-conditioned information is a maximum, and needs no such search.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..likelihood import Objective
from ..likelihood.total import total
from ..models.base import coefficient_names, natural_of
from ..models.information import Information
from ..models.regression import Regression
from . import interior_point
from .certificate import Certificate, direction_text
from .failing import cause
from .interior_point import InteriorPoint
from .loop import iterate
from .newton import Newton
from .stochastic import Stochastic

SUSPICIOUS = 1e3
SINGULAR = 1e-9  # eigenvalues of the scaled information below this are looked at
PERFECT, PERFECT_AT = (
    1e-12,
    1e-10,
)  # the width of a density at which a fit is perfect, against the size of y; and that size where all y are 0
FAR = 23.0  # a linear predictor at which a log link is e⁻²³ = 10⁻¹⁰ from its boundary


def diagnose(objective: Objective, solver: Any, state: Any) -> tuple[Objective, Certificate]:
    """The objective at θ̂, and the solver's certificate, or the reason why there is no maximum to certify.

    Where the data push a parameter to its boundary, it is held there and the objective is that of the others.
    """
    certificate = solver.certificate(objective, state)
    ended = getattr(state, "ended", None)  # of a solver whose objective is not the one that it was given
    objective = objective.at(state.theta) if ended is None else ended
    if certificate.status == "stochastic" or isinstance(solver, Stochastic):
        kinked = "A prior's kink was climbed by its subgradient: no coefficient is exactly zero." if objective.kinked else ""
        return objective, replace(certificate, detail=f"{certificate.detail} {kinked}".strip())
    value = state.trace[-1][1] if state.trace else objective.value()  # the last step's: not a pass more
    if certificate.ok and not _finite(objective, value):
        certificate = replace(certificate, status="not converged", detail="The log-likelihood or an estimate is beyond float64.")
    begin = state.trace[0][1] if state.trace else 0.0
    if not certificate.ok and not math.isfinite(begin):
        return objective, replace(certificate, status="not converged", detail=_impossible(objective, begin))
    objective, certificate = _examined(objective, state, certificate)
    if certificate.status == "boundary" and not _finite(objective, objective.value()):
        certificate = replace(certificate, status="not converged", detail="The log-likelihood or an estimate is beyond float64.")
    extreme = "" if certificate.ok or not isinstance(objective.model, Regression) else _magnitudes(objective.model, objective)
    return objective, replace(certificate, status="not converged", detail=extreme) if extreme else certificate


def _examined(objective: Objective, state: Any, certificate: Certificate) -> tuple[Objective, Certificate]:
    model = objective.model
    own = None if objective.priors or len(objective.terms) != 1 else getattr(model, "recession", None)
    known = None if own is None else own(objective.terms[0].source)
    if known is not None:  # the model can prove it
        status, direction, detail = known
        lost = replace(certificate, status=status, directions=(direction,), detail=detail, concave=False)
        return objective, replace(lost, nats=None, standard_errors=None)
    perfect = None if certificate.ok or certificate.status == "no maximum" else _perfect(objective)
    if perfect:
        return objective, replace(certificate, status="no maximum", rows=perfect[0], detail=perfect[1], concave=False)
    at = _boundary(objective) if isinstance(model, Regression) else None
    if at and at[1].ok:
        return at
    if at:  # the others have no maximum there
        objective, certificate = at
        model = objective.model
    elif certificate.ok and not _suspicious(state):
        return objective, certificate
    if certificate.status == "no maximum" or certificate.directions or len(objective.terms) != 1 or objective.size > 5000:
        return objective, certificate
    held = torch.zeros(objective.size, dtype=torch.bool)  # by a prior, which falls for ever in every direction
    for prior in objective.priors:
        held[prior.prior.coordinates(prior.model)] = True
    information = objective.taylor(order=2).information
    assert information is not None
    weak, scale = _weak_directions(information)
    weak = weak[:, (weak[held].abs() < 1e-9).all(0)]
    vectors = weak / scale[:, None]
    flat = _flat(objective, model, weak, scale)
    found = _separated(model, objective, certificate, held) if isinstance(model, Regression) else None
    if found and flat:
        return objective, replace(found, detail=f"{found.detail} Besides, {_flat_certificate(flat, certificate).detail}")
    if found:
        return objective, found
    if flat:
        return objective, _flat_certificate(flat, certificate)
    recession = _recession(objective, vectors, state, certificate, held)
    if recession is None and isinstance(model, Regression) and weak.shape[1] and getattr(state, "factor", state) is None:
        near = direction_text(_named(model, vectors[:, 0]))
        near = f"The columns are nearly collinear along {near}: centre them, or drop one."
        return objective, replace(certificate, detail=f"{certificate.detail} {near}")
    return objective, recession or certificate


def _finite(objective: Objective, value: float) -> bool:
    """Whether the log-likelihood and every estimate are finite numbers."""
    natural = natural_of(objective.model, objective.theta) if len(objective.terms) == 1 else objective.theta
    return math.isfinite(value) and bool(torch.isfinite(natural).all())


def _impossible(objective: Objective, value: float) -> str:
    """Which row makes the log-likelihood infinite or NaN where the climb began."""
    seen, found = 0, ""
    for batch in objective.terms[0].source.batches(objective.model):
        with torch.no_grad():
            log_prob = objective.model.log_prob(batch).reshape(len(batch), -1).sum(-1)
        bad = torch.nonzero(~torch.isfinite(log_prob))
        if len(bad):
            found = f": row {seen + int(bad[0, 0])} has log p = {float(log_prob[bad[0, 0]]):g}"
            found += cause(objective.terms[0], batch, int(bad[0, 0]))
            break
        seen += len(batch)
    return f"the log-likelihood is {value:g} where the climb begins{found}. Begin where every row is possible."


def _perfect(objective: Objective) -> tuple[tuple[int, ...], str] | None:
    """The rows whose density stands within 10⁻¹² of y, where residuals are rounding: the scale runs to 0 there."""
    model, sizes, log_probs = objective.model, [], []
    target = getattr(model, "target", "y")
    if model.measure == "mass":
        return None
    for batch in objective.terms[0].source.batches(model):
        y = batch.tensors.get(target)
        if y is None or y.shape != batch.shape or len(batch.shape) != 1:
            return None
        with torch.no_grad():
            log_probs.append(model.log_prob(batch))
        sizes.append(y.abs().to(log_probs[-1].dtype))
    size = torch.cat(sizes)
    size = size.clamp(min=float(size.mean()) or PERFECT_AT)
    rows = torch.nonzero(torch.cat(log_probs) > -torch.log(PERFECT * size)).reshape(-1).numpy()
    if len(rows) == 0:
        return None
    kept = getattr(objective.terms[0].source, "kept", None)  # of a table with incomplete rows: which are complete
    rows = rows if kept is None else kept.nonzero()[0][rows]
    listed = ", ".join(map(str, rows[:10])) + (f", … ({len(rows)} in all)" if len(rows) > 10 else "")
    return tuple(int(r) for r in rows), (
        f"the likelihood has no maximum: the fit is perfect to rounding at rows {listed}, and their density grows without bound as the scale "
        "→ 0. Hold the scale (scale=value), or leave columns out."
    )


def _magnitudes(model: Regression, objective: Objective) -> str:
    """The columns whose squares float64 cannot hold, and what to do about them."""
    largest: dict[str, float] = {}
    for batch in objective.terms[0].source.batches():
        found = {model.encoder.response.expression: batch["y"]} if not model.family.support.integer else {}
        for p in model.predictors:
            dense = batch.tensors.get(f"x{p.slot}")
            names = p.design.names[int(p.design.intercept) :]
            found |= {name: dense[:, j] for j, name in enumerate(names[: p.design.columns])} if dense is not None else {}
        for name, column in found.items():
            largest[name] = max(largest.get(name, 0.0), float(column.abs().max()))
    extreme = [f"{name} ({size:.0e})" for name, size in largest.items() if size > 1e150 or 0 < size < 1e-150]
    return f"the squares of {', '.join(extreme)} are beyond float64: change the unit." if extreme else ""


def _suspicious(state: Any) -> bool:
    if not hasattr(state, "scale"):
        return False  # a solver without information to grow suspicious about
    factor = state.factor
    if factor is None:
        return True
    growth = factor.inverse_diagonal().clamp(min=0).sqrt() * state.scale
    return not bool((growth < SUSPICIOUS).all())


# ---- flat directions ---------------------------------------------------------------------------------------------------------


def _weak_directions(information: Information) -> tuple[Tensor, Tensor]:
    """Directions of scale·θ in which the scaled information nearly vanishes, columns (p, r), weakest first; and the scale, (p,)."""
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


def _flat(objective: Objective, model: Any, weak: Tensor, scale: Tensor) -> list[dict[str, float]]:
    """Those combinations of the weak directions that change no linear predictor (or, for other models, no log p), in echelon form."""
    if weak.shape[1] == 0:
        return []
    vectors = weak / scale[:, None]
    source = objective.terms[0].source
    if isinstance(model, Regression):
        moved, size = _moved(model, source, vectors)
        values, mixing = torch.linalg.eigh(moved / size)
        still = mixing[:, values < 1e-17]
    else:
        keep = [j for j in range(vectors.shape[1]) if _unchanged(objective, vectors[:, j])]
        still = torch.eye(vectors.shape[1], dtype=vectors.dtype)[:, keep]
    if still.shape[1] == 0:
        return []
    return [_named(model, v / scale) for v in _echelon(weak @ still)]


def _moved(model: Regression, source: Any, vectors: Tensor) -> tuple[Tensor, float]:
    """Vᵀ(Σ_a X_aᵀX_a)V of unit-size directions, and the size against which to call it zero."""
    theta = model.coefficients.detach()
    scale = vectors.abs().max(0).values

    def of(batch: Any) -> Tensor:
        batch = batch[batch.count > 0] if batch.counted else batch
        columns = []
        for p in model.predictors:
            none = p.eta(batch, torch.zeros_like(theta))
            columns.append(
                torch.stack([(p.eta(batch, v / s) - none).expand(len(batch)) for v, s in zip(vectors.T, scale, strict=True)])
            )
        moved = torch.cat(columns, 1)
        largest = sum(float(p.rows(batch, torch.float64).square().sum()) for p in model.predictors)
        return torch.cat([(moved @ moved.T).reshape(-1), moved.new_tensor([largest])])

    out = total(of, source)
    r = vectors.shape[1]
    unit = scale[:, None] * scale
    return out[:-1].view(r, r) * unit / float(scale.max() ** 2), max(float(out[-1]), 1e-300)


def _unchanged(objective: Objective, v: Tensor) -> bool:
    theta, here = objective.theta, objective.value()
    step = v / float(v.abs().max())
    # ±30: far out along a recession direction nothing changes near by either, but the way back does
    values = [objective.value(theta + t * step) for t in (-30.0, -1.0, -0.1, 0.1, 1.0, 30.0)]
    return all(abs(x - here) <= 1e-9 * (abs(here) + 1) for x in values)


def _echelon(V: Tensor) -> list[Tensor]:
    """A basis of the span of V's columns with as few coefficients each as elimination leaves, ending in the later columns."""
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


def _named(model: Any, v: Tensor) -> dict[str, float]:
    v = v / float(v.abs().max())
    return {name: float(x) for name, x in zip(coefficient_names(model), v, strict=True) if x != 0}


def _flat_certificate(flat: list[dict[str, float]], certificate: Certificate) -> Certificate:
    shown = "; ".join(direction_text(d) for d in flat[:4]) + (f" … ({len(flat)} in all)" if len(flat) > 4 else "")
    last = [max(d, key=lambda name: list(d).index(name)) for d in flat]
    drop = ", ".join(list(dict.fromkeys(last))[:8]) + (" …" if len(set(last)) > 8 else "")
    detail = (
        f"the data cannot tell some coefficients apart: the likelihood is constant along {shown}. "
        f"Drop {drop}, or put a prior on it (prior=th.priors.Normal(2.5))."
    )
    size = certificate.size or 0
    return replace(
        certificate, status="flat direction", rank=size - len(flat), directions=tuple(flat), detail=detail, concave=False
    )


# ---- boundaries ----------------------------------------------------------------------------------------------------------------


def _boundary(objective: Objective) -> tuple[Objective, Certificate] | None:
    """The objective with every constant that the data push to its boundary held there, at the maximum of the others."""
    found: dict[str, str] = {}
    for p in list(objective.model.predictors):
        model: Regression = objective.model
        edge = p.spec.boundary
        if edge is None or not p.design.constant or objective.priors or len(objective.terms) != 1:
            continue
        theta = objective.theta
        j = next(q.start for q in model.predictors if q.parameter == p.parameter)
        value = float(p.spec.link.inverse(theta[j]))
        if (math.isfinite(edge) and abs(value - edge) > 1e-3) or (not math.isfinite(edge) and abs(value) < 1e4):
            continue
        far, here = theta.clone(), objective.value()
        far[j] = FAR if edge > value else -FAR
        if not objective.value(far) >= here - 1e-6:
            continue
        term, held = objective.terms[0], model.holding(p.parameter, float(p.spec.link.inverse(far[j])))
        objective = Objective([term.over(term.source, held)])
        found[p.parameter] = p.spec.limit or f"that of {p.parameter} → {edge:g}"
    if not found:
        return None
    solver: Newton | InteriorPoint = InteriorPoint() if interior_point.applies(objective) else Newton()
    state = iterate(solver, objective)
    certificate = solver.certificate(objective, state)
    objective = objective.at(state.theta)
    return objective, replace(certificate, status="boundary", boundary=found) if certificate.ok else certificate


# ---- no maximum ----------------------------------------------------------------------------------------------------------------


def _separated(model: Regression, objective: Objective, certificate: Certificate, held: Tensor) -> Certificate | None:
    from .separation import separation  # brings scipy.optimize, which takes long to load

    source = objective.terms[0].source
    found = separation(model, source, held.numpy())
    if found is None:
        return None
    direction = torch.from_numpy(found.direction)
    named = _named(model, direction)
    rows = found.rows
    kept = getattr(source, "kept", None)  # of a table with incomplete rows: which are complete
    if kept is not None:
        rows = kept.nonzero()[0][rows]
    family = type(model.family).__name__
    how = "completely" if found.complete else "quasi-completely"
    sides = " (all y = 1 above 0, all y = 0 below)" if family == "Bernoulli" and found.complete else ""
    if family in ("Bernoulli", "Binomial", "Categorical", "Ordinal", "BetaBinomial"):
        what = f"the rows are {how} separated by {direction_text(named)}{sides}"
    else:
        upward = direction_text({name: -value for name, value in named.items()})
        what = f"{len(rows)} rows are separated by {upward} (all have y = 0 where it is above 0)"
    listed = ", ".join(map(str, rows[:10])) + (f", … ({len(rows)} in all)" if len(rows) > 10 else "")
    slopes = [n for n in named if n != "Intercept"]
    drop = f"drop {', '.join(slopes)}" if 0 < len(slopes) <= 3 else "drop the rows or the columns that make it"
    detail = (
        f"the likelihood has no maximum: {what}. Rows: {listed}. Every larger multiple of that direction makes the data more probable. "
        f"Put a prior on it (prior=th.priors.Normal(2.5)), {drop}, "
        'or ask for the limit (on_failure="return") and read fit.certificate.'
    )
    return replace(
        certificate,
        status="no maximum",
        directions=(named,),
        rows=tuple(int(r) for r in rows),
        detail=detail,
        concave=False,
        nats=None,
        standard_errors=None,
    )


def _recession(objective: Objective, vectors: Tensor, state: Any, certificate: Certificate, held: Tensor) -> Certificate | None:
    """A direction along which ℓ was seen never to fall, out to 64 times the size of θ: evidence, not proof, and called so."""
    theta, here = objective.theta, objective.value()
    noise = 1e-10 * (abs(here) + 1)
    candidates = [vectors[:, j] for j in range(vectors.shape[1])] + [
        torch.eye(len(theta), dtype=theta.dtype)[j] for j in range(min(len(theta), 50)) if not held[j]
    ]
    for v in candidates:
        for sign in (1.0, -1.0):
            d = sign * v / float(v.abs().max())
            values = [here]
            for t in (1.0, 4.0, 16.0, 64.0):
                values.append(objective.value(theta + t * d))
                if not values[-1] >= values[-2] - noise:
                    break
            else:
                if math.isnan(values[-1]):
                    continue
                named = _named(objective.model, d)
                grows = values[-1] - here
                detail = (
                    f"the likelihood has no maximum that could be found: along {direction_text(named)} it never falls "
                    f"({'it is +∞ there' if math.isinf(grows) else f'{grows:.3g} nats more'} at 64 times that direction). "
                    "A parameter runs to the end of its range: hold it (name=value), choose the simpler model, or put a prior on it "
                    "(prior=th.priors.Normal(2.5))."
                )
                return replace(certificate, status="no maximum", directions=(named,), detail=detail, concave=False)
    return None
