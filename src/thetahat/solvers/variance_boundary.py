"""Variances of random effects at 0, and correlations at an end of their range: maxima at the boundary, by name.

The likelihood is even in a scale s, so that s = 0 is a stationary point whatever the data. It is the maximum where the
likelihood curves downward there, and that is the one-sided derivative in the variance:

    ∂ℓ/∂(s²) at 0  =  ½ ∂²ℓ/∂s²  =  −½ J_ss  <  0

Several scales of one smooth term that are 0 together reach some coefficients together, and ℓ is not differentiable
there; it has a slope in every direction w of their variances, and has to fall in all:

    lim_{t→0} [ℓ(s² = t w) − ℓ(0)] / t  =  lim ½ sᵀ∇ℓ(s) / t,     s = √(t w)

Where Newton's method ends without a maximum, because a scale is 0 on which others depend (an effect's correlations, the
other penalties of a surface), it is held at 0, those leave θ, and the rest is maximised.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..likelihood import LogLikelihood, Objective
from ..likelihood.restricted import Restricted
from ..models.base import names_of
from ..models.elimination import NotPositiveDefinite
from ..models.information import Information
from ..models.latent import DescribedLatent
from ..models.mixed import Mixed, predictor_columns
from ..models.random_effects import EDGE, Random, RandomEffects
from ..models.scales import OfCurve, OneCorrelation, Penalised, Unstructured
from ..protocols import Together
from ..types import StateLike
from . import limits
from .boundary import reduced, slope
from .certificate import Certificate
from .flat import flat_certificate, flat_directions, weak_directions
from .loop import iterate
from .newton import Newton

SMALL = 1e-3  # of a typical scale: where the slope at 0 is read off
RISES = 1e-6  # nats per unit of a constant, from its boundary: less is rounding
SAME = 1e-6  # nats by which a point with a scale at 0 may be lower than one that was not certified

Ended = tuple[Objective, StateLike, Certificate]

FLAT = (
    10.0  # variance of a random effect given the data, relative to that before: at most 1 of a concave log p
)


def at_boundary(objective: Objective, state: StateLike, certificate: Certificate) -> Ended:
    """The objective, its state and its certificate, with the variances at 0, the correlations at an end of their range and the
    family's constants at theirs named."""
    held = reduced(objective, state)
    if held is None:
        return _of_variances(objective, state, certificate)
    own = held.solver.certificate(held.objective, held.state)
    end = _of_variances(held.objective, held.state, own)
    return _with_constants(objective, end, held.found) if end[2].ok else end


def _with_constants(objective: Objective, end: Ended, found: Mapping[str, str]) -> Ended:
    """The certificate with the constants that are held at their boundaries: the maximum is there where the log-likelihood
    falls as they leave it. Where it rises, the iterations go on inside."""
    at, state, certificate = end
    falls = []
    for name in found:
        rise, full = slope(at, name)
        if rise > RISES:
            return _inside(objective, full, name)
        falls.append(f"{-rise:.3g} nats per unit of {_unit(full, name)}")
    detail = f"From the boundary the log-likelihood falls by {', '.join(falls)}."
    return (
        at,
        state,
        replace(
            certificate,
            status="boundary",
            boundary={**found, **certificate.boundary},
            detail=f"{certificate.detail} {detail}".strip(),
        ),
    )


def _unit(full: Objective, name: str) -> str:
    edge = full.model.family.parameters[name].boundary
    return name if math.isfinite(edge) else f"1/{name}"


def _inside(objective: Objective, full: Objective, name: str) -> Ended:
    """From a point inside, where the log-likelihood is higher than at the boundary."""
    j = next(p.start for p in full.model.constant_predictors if p.parameter == name)
    theta, step = full.theta.clone(), 1.0 if float(objective.theta[j]) < 0 else -1.0
    best = full.value()
    while True:  # away from the boundary, e-fold by e-fold
        trial = theta.clone()
        trial[j] += step
        value = full.value(trial)
        if not value > best:
            break
        theta, best = trial, value
    solver = Newton(begin=theta, thin_above=10**18, float32_above=10**18)
    state = iterate(solver, full)
    here = full.at(state.theta)
    return _of_variances(here, state, solver.certificate(here, state))


def _with_limits(objective: Objective, certificate: Certificate) -> Certificate:
    """The certificate with the parameters of the distribution that are at their boundary in every row, latent variables 0."""
    model = objective.model
    batch = next(iter(objective.terms[0].source.batches(model)))
    with torch.no_grad():
        found = model.at(batch, model.coefficients.detach(), model.nothing(batch)).parameters
    within = limits.AT if certificate.ok else limits.NEAR
    return limits.with_limits(certificate, dict(limits.at_limit(model.family, found, within)))


def _of_variances(objective: Objective, state: StateLike, certificate: Certificate) -> Ended:
    """With the variances and correlations of a mixed or latent model alone."""
    model = objective.model
    if not isinstance(model, RandomEffects) or len(objective.terms) != 1:
        return objective, state, certificate
    if isinstance(model, DescribedLatent):
        return objective, state, _with_limits(objective, _named(objective, certificate))
    if not isinstance(model, Mixed):
        return objective, state, _named(objective, certificate)
    if not certificate.ok:
        flat = collinear(objective, certificate)
        if flat is not None:
            return objective, state, flat
        held = _held(objective)
        if held is not None:
            objective, state, certificate = held
    up = _upward(objective) if certificate.ok else None
    if up is not None:
        state = iterate(Newton(begin=up), objective)
        objective, certificate = objective.at(state.theta), Newton().certificate(objective, state)
        if _upward(objective) is not None:
            certificate = replace(certificate, status="not converged")
    return objective, state, _named(objective, certificate)


def collinear(objective: Objective, certificate: Certificate) -> Certificate | None:
    """That of fixed effects which the data cannot tell apart, whatever the random ones; None: there are none."""
    model = objective.model
    if not isinstance(model, Mixed) or objective.priors or len(objective.terms) != 1:
        return None
    source = objective.terms[0].source
    if isinstance(model.family, Together):  # a constant column has no effect either
        alone = Objective([LogLikelihood(model.regression, source)]).at(model.regression.start(source))
        information = alone.taylor(order=2).information
        assert information is not None
        flat = flat_directions(alone, alone.model, *weak_directions(information))
        return flat_certificate(flat, certificate) if flat else None
    batch = next(iter(source.batches(model)))
    J = torch.zeros(len(model.coefficients), len(model.coefficients), dtype=torch.float64)
    for p in model.regression.predictors:
        own = slice(p.start, p.start + p.size)
        X = torch.from_numpy(predictor_columns(p, batch))
        J[own, own] = X.T @ X
    flat = flat_directions(objective, model.regression, *weak_directions(Information(J)))
    return flat_certificate(flat, certificate) if flat else None


def _held(objective: Objective) -> Ended | None:
    """The maximum with those scales at 0 which cost nothing, and what depends on them left out; None: there are none, or
    it is not a maximum either."""
    model, theta, value = objective.model, objective.theta.clone(), objective.value()
    first, done = len(model.coefficients), False
    rows = torch.zeros(len(theta) - first, dtype=torch.bool)  # φ that are 0
    for r, place in zip(model.random, model.places, strict=True):
        for i in r.structure.scale_places():
            own = torch.tensor([i])
            if isinstance(r.structure, Unstructured):  # the row of Λ that is this effect's
                k = i if not i else round((math.sqrt(8 * i + 1) - 1) / 2)
                own = torch.arange(i - k, i + 1)
            trial = theta.clone()
            trial[first + place.start + own] = 0.0
            if objective.value(trial) >= value - SAME:
                theta, done = trial, True
                rows[place.start + own] = True
    if not done:
        return None
    model, theta, rows = _reordered(model, theta, rows)
    term = objective.terms[0]
    objective = Objective([term.over(term.source, model)], list(objective.priors)).at(theta)
    free = torch.cat([torch.ones(first, dtype=torch.bool), ~rows])
    for r, place in zip(model.random, model.places, strict=True):
        for i in r.structure.idle(theta[first:][place]):
            free[first + place.start + i] = False
    inner = Restricted(objective, theta, free)
    state = iterate(Newton(), inner)
    whole = objective.at(inner.lift(state.theta))
    certificate = Newton().certificate(inner, state)
    full = Newton(tolerance=math.inf).start(
        whole
    )  # the information of all, whose diagonal holds the slopes at 0
    if not certificate.ok or full.factor is None:
        return None
    return whole, state, replace(certificate, size=whole.size, rank=whole.size)


def _reordered(model: Mixed, theta: Tensor, rows: Tensor) -> tuple[Mixed, Tensor, Tensor]:
    """Unstructured terms with their zero effects last, whose φ are then free: a maximum like any other."""
    first, random = len(model.coefficients), []
    theta, rows = theta.clone(), rows.clone()
    for r, place in zip(model.random, model.places, strict=True):
        structure = r.structure
        own = theta[first:][place]
        if isinstance(structure, Unstructured) and bool(rows[place].any()):
            structure, moved = structure.without(own)
            theta[first + place.start : first + place.stop] = moved
            rows[place] = False
        random.append(replace(r, structure=structure))
    new = type(model)(model.regression, random, reml=model.reml, points=model.points)
    return new, theta, rows


def _upward(objective: Objective) -> Tensor | None:
    """A θ at which several scales of one term, which are 0, are not, and ℓ is higher; None: it falls in every direction."""
    model = objective.model
    first, theta = len(model.coefficients), objective.theta
    typical = model.moderate(model.columns(next(iter(objective.terms[0].source.batches(model)))))[1]
    for r, place in zip(model.random, model.places, strict=True):
        phi = theta[first:][place]
        zero = [i for i in range(r.structure.size) if float(phi[i].abs()) < EDGE * float(typical[place][i])]
        if not isinstance(r.structure, Penalised) or len(zero) < 2:
            continue
        if not bool(((r.structure.diagonals[zero] > 0).sum(0) > 1).any()):
            continue  # none reaches what another does: the slopes of each alone tell
        at = torch.tensor([first + place.start + i for i in zero])
        size = typical[place][zero]
        for w in _directions(len(zero)):
            trial = theta.clone()
            trial[at] = SMALL * size * w.sqrt()
            if float(trial[at] @ objective.taylor(trial, order=1).gradient[at]) > 0:
                trial[at] = 0.1 * size * w.sqrt()
                return trial
    return None


def _directions(k: int) -> Iterator[Tensor]:
    """Ratios of k variances, even in their logarithms: what they do together changes with those by no more than a
    logistic function does."""
    steps = torch.linspace(-8.0, 8.0, 33 if k == 2 else 9)
    for logs in itertools.product(steps.tolist(), repeat=k - 1):
        yield torch.softmax(torch.tensor([0.0, *logs], dtype=torch.float64), 0)


def _named(objective: Objective, certificate: Certificate) -> Certificate:
    model = objective.model
    names, values = names_of(model), model.natural(objective.theta).tolist()
    first = len(model.coefficients)
    columns = model.columns(next(iter(objective.terms[0].source.batches(model))))
    typical, found = model.moderate(columns)[1], {}
    sigma = float(model.sigma(objective.theta[:first]))
    at = first
    for r, place in zip(model.random, model.places, strict=True):
        own = names[at : at + len(r.structure.names(r.effects, r.label))]
        scale = float(typical[place].max()) * sigma
        for name, value in zip(own, values[at : at + len(own)], strict=True):
            if "corr(" not in name and value < EDGE * scale:
                found[name] = _simpler(r, own.index(name))
            elif "corr(" in name and value > r.structure.correlations[1] - EDGE:
                found[name] = "one whose effects are multiples of each other"
            elif "corr(" in name and value < r.structure.correlations[0] + EDGE:
                one_sum = r.structure.correlations[0] > -1.0
                found[name] = "one whose effects " + (
                    "sum to 0 in each group" if one_sum else "are multiples of each other"
                )
        at += len(own)
    if not certificate.ok and not model.normal:
        flat = _flat_group(objective, model)
        if flat:
            return replace(certificate, detail=f"{certificate.detail} {flat}".strip(), boundary=found)
    if not found:
        return certificate
    if certificate.ok:
        J = objective.taylor(order=2).information
        assert J is not None
        steep = []
        for r, place in zip(model.random, model.places, strict=True):
            for i in r.structure.scale_places():
                phi = model.covariance.detach()[place]
                if i in r.structure.idle(phi):
                    continue
                small = EDGE * float(typical[place].max())
                if float(phi[i].abs()) < small and float(model.structure_row(r, phi, i)) < small:
                    steep.append(0.5 * float(J.diagonal()[first + place.start + i]))
        unit = "of the ratio of variances" if model.normal else "of variance"
        text = ", ".join(f"{s:.3g}" for s in steep)
        detail = f"From 0 the log-likelihood falls by {text} nats per unit {unit}." if steep else ""
        ends = _slopes_at_ends(model, J, found)
        if ends:
            text = ", ".join(f"{s:.3g}" for s in ends)
            detail = (
                f"{detail} From the end of its range it falls by {text} nats per unit of correlation.".strip()
            )
        return replace(
            certificate, status="boundary", boundary=found, detail=f"{certificate.detail} {detail}".strip()
        )
    zero = next((n for n in found if "corr(" not in n), None)
    if zero is not None and not torch.isfinite(torch.tensor(values)).all():
        text = f"{zero} is 0, so that its correlations are not defined: write (0 + x | g) or (x || g) for the others."
        return replace(certificate, detail=f"{certificate.detail} {text}".strip(), boundary=found)
    return certificate


def _slopes_at_ends(model: RandomEffects, J: Information, found: Mapping[str, str]) -> list[float]:
    """How steeply the log-likelihood falls in a correlation that is at an end of its range, ρ = m + h sin z with h half the
    range: −∂ℓ/∂ρ = J_zz / h there."""
    out, at, first = [], 0, len(model.coefficients)
    names = model.effect_names()
    for r, place in zip(model.random, model.places, strict=True):
        own = names[at : at + len(r.structure.names(r.effects, r.label))]
        at += len(own)
        low, high = r.structure.correlations
        if isinstance(r.structure, OneCorrelation) and own[1] in found:
            out.append(float(J.diagonal()[first + place.start + 1]) * 2 / (high - low))
    return out


def _flat_group(objective: Objective, model: RandomEffects) -> str:
    """Which group's effects have a density that is nearly flat at its mode, where Laplace's approximation fails: of log p
    concave in them H ≥ I there."""
    batch = next(iter(objective.terms[0].source.batches(model)))
    try:
        _, factored, _ = model.evaluator(batch, objective.terms[0].weight(batch)).modes(
            model.coefficients.detach(), model.covariance.detach()
        )
    except NotPositiveDefinite:
        return "At θ the density of the random effects given the data has no mode that is found."
    r = model.random[model.order.first[0]] if model.order.first else None
    if r is None or factored.first is None:
        return ""
    widest = np.linalg.eigvalsh(factored.first.transpose(2, 0, 1))[:, -1]
    at = int(widest.argmax())
    if not widest[at] > FLAT:
        return ""
    return (
        f"The random effects of group {model.groupings[r.source].names[at]} of {r.label} have a density that is nearly flat at "
        "its mode: Laplace's approximation does not hold there, and its value may rise without bound. Use quadrature= (one "
        "grouping factor), or another parametrisation."
    )


def _simpler(r: Random, i: int) -> str:
    """The model with a scale at 0."""
    if isinstance(r.structure, OfCurve):
        return "the one whose curves do not differ in it"
    if not isinstance(r.structure, Penalised):
        return "the one without this effect"
    if r.structure.size == 1:
        return "the one with its unpenalised part alone"
    return f"the one whose {r.label} has only what {r.structure.of_what[i]} leaves free"
