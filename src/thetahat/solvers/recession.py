"""Why there may be no maximum: a perfect fit, separation (proven, by linear programming), or a direction
along which ℓ was never seen to fall."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..likelihood import Objective
from ..models.base import coefficient_names
from ..models.regression import Regression
from ..protocols import rows_kept, target_of
from .certificate import Certificate, direction_text
from .flat import named

# the width of a density at which a fit is perfect, against the size of y; and that size where all y are 0
PERFECT, PERFECT_AT = 1e-12, 1e-10
REPRODUCED = 1e-10  # of its mean, within which a y is it
EPS = torch.finfo(torch.float64).eps
FIRTH = (
    "Bernoulli",
    "Binomial",
    "Poisson",
)  # families of which separated rows have a maximum under Jeffreys' prior


# ---- a perfect fit -----------------------------------------------------------------------------------------


def perfect(objective: Objective) -> tuple[tuple[int, ...], str] | None:
    """The rows whose density stands within 10⁻¹² of y, where residuals are rounding, and grows as some scale
    runs to 0; or all of them, where each is its own mean, of a family that float64 does not follow so far."""
    if objective.model.measure in ("mass", "partial"):  # which are at most 1
        return None
    exact = reproduced(objective)
    if exact is not None:
        return _perfect_at(objective, *exact)
    seen = _densities(objective)
    if seen is None:
        return None
    log_prob, size = seen
    size = size.clamp(min=float(size.mean()) or PERFECT_AT)
    at = log_prob > -torch.log(PERFECT * size)
    narrowed = _grows(objective, log_prob, at) if bool(at.any()) else None
    if narrowed is None:
        return None
    return _perfect_at(objective, torch.nonzero(at).reshape(-1), coefficient_names(objective.model)[narrowed])


def _perfect_at(objective: Objective, where: Tensor, name: str) -> tuple[tuple[int, ...], str]:
    """The rows, and what is said of them."""
    hold = f"Hold it ({name}=value)" if name.isidentifier() else "Hold that parameter"
    rows = where.numpy()
    kept = rows_kept(objective.terms[0].source)  # of a table with incomplete rows: which are complete
    rows = rows if kept is None else kept.nonzero()[0][rows]
    listed = ", ".join(map(str, rows[:10])) + (f", … ({len(rows)} in all)" if len(rows) > 10 else "")
    return tuple(int(r) for r in rows), (
        f"the likelihood has no maximum: the fit is perfect to rounding at rows {listed}, and their density "
        f"grows without bound as {name} runs to the end of its range. {hold}, or leave columns out."
    )


def reproduced(objective: Objective) -> tuple[Tensor, str] | None:
    """All rows that count, and the parameter at whose end the family is a point at the mean, where every y is its mean to
    rounding and that parameter is free; else None."""
    model = objective.model
    alone = len(objective.terms) == 1 and not objective.priors and objective.terms[0].robust is None
    if not isinstance(model, Regression) or not alone:
        return None
    name = model.family.degenerate
    if name is None or name in model.fixed:
        return None
    seen, rows = 0, []
    for batch in objective.terms[0].source.batches(model):
        counts = torch.nonzero(batch.count > 0).reshape(-1)
        y, mean = batch["y"][counts], model.mean(batch)[counts]
        if not bool(((y - mean).abs() <= REPRODUCED * mean).all()):
            return None
        rows.append(seen + counts)
        seen += len(batch)
    return torch.cat(rows), name


def _densities(objective: Objective) -> tuple[Tensor, Tensor] | None:
    """log p and |y| of each row; None where a row is not one number."""
    model, sizes, log_probs = objective.model, [], []
    target = target_of(model)
    for batch in objective.terms[0].source.batches(model):
        y = batch.tensors.get(target)
        if y is None or y.shape != batch.shape or len(batch.shape) != 1:
            return None
        with torch.no_grad():
            log_probs.append(model.log_prob(batch))
        sizes.append(y.abs().to(log_probs[-1].dtype))
    return torch.cat(log_probs), torch.cat(sizes)


def _grows(objective: Objective, log_prob: Tensor, rows: Tensor) -> int | None:
    """Which coordinate of θ narrows those densities: a scale that is held does not, however large y is. Where float64
    ends on one side, they have grown up to there if they fall on the other, by as little as a density twenty times as wide."""
    theta = objective.theta

    def moved(j: int, step: float) -> Tensor:
        at = theta.clone()
        at[j] += step
        with objective.moved(at) as there:
            seen = _densities(there)
        return torch.full_like(log_prob[rows], torch.nan) if seen is None else seen[0][rows] - log_prob[rows]

    for j in range(min(len(theta), 50)):
        down, up = moved(j, -4.0), moved(j, 4.0)
        part = moved(j, -0.8647 * float(theta[j]))  # e⁻² of it: by its logarithm, or itself
        if any(bool((each > 1).all()) for each in (down, up, part)):
            return j
        for beyond, back in ((down, up), (up, down)):
            if not bool(torch.isfinite(beyond).any()) and bool(((back < -1) & (back > -100)).all()):
                return j
    return None


# ---- separation --------------------------------------------------------------------------------------------


def separated(
    model: Regression, objective: Objective, certificate: Certificate, held: Tensor, *, levels: bool = False
) -> Certificate | None:
    """The direction that separates rows, proven by a linear programme (levels: of whole levels of categories, by their sums):
    whatever θ, every larger multiple of it is more probable."""
    from .separation import levels_separated, separation  # brings scipy.optimize, which takes long to load

    source = objective.terms[0].source
    found = (levels_separated if levels else separation)(model, source, held.numpy())
    if found is None:
        return None
    direction = torch.from_numpy(found.direction)
    parts = named(model, direction)
    rows = found.rows
    kept = rows_kept(source)  # of a table with incomplete rows: which are complete
    if kept is not None:
        rows = kept.nonzero()[0][rows]
    family = type(model.family).__name__
    how = "completely" if found.complete else "quasi-completely"
    sides = " (all y = 1 above 0, all y = 0 below)" if family == "Bernoulli" and found.complete else ""
    if family in ("Bernoulli", "Binomial", "Categorical", "Ordinal", "BetaBinomial"):
        what = f"the rows are {how} separated by {direction_text(parts)}{sides}"
    elif bool((direction[model.predictors[0].size :] != 0).any()):
        what = f"{len(rows)} rows become ever more probable along {direction_text(parts)}"
    else:
        upward = direction_text({name: -value for name, value in parts.items()})
        what = f"{len(rows)} rows are separated by {upward} (all have y = 0 where it is above 0)"
    listed = ", ".join(map(str, rows[:10])) + (f", … ({len(rows)} in all)" if len(rows) > 10 else "")
    slopes = [n for n in parts if n != "Intercept"]
    drop = (
        f"drop {', '.join(slopes)}" if 0 < len(slopes) <= 3 else "drop the rows or the columns that make it"
    )
    firth = "; Firth's: prior=th.priors.Jeffreys(), --prior jeffreys" if family in FIRTH else ""
    detail = (
        f"the likelihood has no maximum: {what}. Rows: {listed}. Every larger multiple of that direction "
        "makes the data more probable. "
        f"Put a prior on it (prior=th.priors.Normal(2.5), --prior normal:2.5{firth}), {drop}, "
        'or ask for the limit (on_failure="return", --on-failure return) and read fit.certificate.'
    )
    return replace(
        certificate,
        status="no maximum",
        directions=(parts,),
        rows=tuple(int(r) for r in rows),
        detail=detail,
        concave=False,
        nats=None,
        standard_errors=None,
    )


# ---- what was only seen ------------------------------------------------------------------------------------


def never_falls(objective: Objective, vectors: Tensor, held: Tensor) -> tuple[dict[str, float], float] | None:
    """A direction along which ℓ was seen never to fall, out to 64 times its unit, and what it gains there:
    evidence, not proof."""
    theta, here = objective.theta, objective.value()
    noise = 64 * EPS * (abs(here) + 1)
    if noise > 1e-3:  # of so large a sum nothing can be seen
        return None
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
                if not math.isnan(values[-1]):
                    return named(objective.model, d), values[-1] - here
    return None


def unbounded(direction: dict[str, float], grows: float, certificate: Certificate) -> Certificate:
    """From a point where the iterations converged: no maximum that could be found."""
    detail = (
        f"the likelihood has no maximum that could be found: along {direction_text(direction)} it never "
        "falls "
        f"({'it is +∞ there' if math.isinf(grows) else f'{grows:.3g} nats more'} at 64 times that "
        "direction). "
        "A parameter runs to the end of its range: hold it (name=value), choose the simpler model, or put a "
        "prior on it "
        "(prior=th.priors.Normal(2.5), --prior normal:2.5)."
    )
    return replace(
        certificate,
        status="no maximum",
        directions=(direction,),
        detail=detail,
        concave=False,
        nats=None,
        standard_errors=None,
    )


def perhaps(direction: dict[str, float], grows: float, certificate: Certificate) -> Certificate:
    """From a point where they did not: what was seen, and no verdict."""
    rises = "it is +∞" if math.isinf(grows) else f"it is {grows:.3g} nats higher"
    seen = (
        f"Where they ended, the likelihood was not seen to fall along {direction_text(direction)} ({rises} "
        "at 64 times that direction): "
        "a parameter may be on its way to the end of its range, or the maximum far from here."
    )
    return replace(certificate, detail=f"{certificate.detail} {seen}".strip())
