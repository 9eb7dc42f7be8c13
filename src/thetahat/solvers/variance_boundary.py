"""Variances of random effects at 0, and correlations at ±1: maxima at the boundary, by name.

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
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..likelihood import LogPrior, Objective
from ..likelihood.restricted import Restricted
from ..models.base import names_of
from ..models.elimination import NotPositiveDefinite
from ..models.latent import DescribedLatent
from ..models.mixed import Mixed
from ..models.random_effects import EDGE, Random, RandomEffects
from ..models.scales import Penalised, Unstructured
from ..types import StateLike
from . import limits
from .boundary import pushed, simpler
from .certificate import Certificate
from .choice import of_likelihood
from .loop import iterate
from .newton import Newton

SMALL = 1e-3  # of a typical scale: where the slope at 0 is read off
SAME = 1e-6  # nats by which a point with a scale at 0 may be lower than one that was not certified

Ended = tuple[Objective, StateLike, Certificate]

FLAT = (
    10.0  # variance of a random effect given the data, relative to that before: at most 1 of a concave log p
)


def at_boundary(objective: Objective, state: StateLike, certificate: Certificate) -> Ended:
    """The objective, its state and its certificate, with the variances at 0, the correlations at ±1 and the family's
    parameters at their boundary named."""
    model = objective.model
    if not isinstance(model, RandomEffects) or len(objective.terms) != 1:
        return objective, state, certificate
    if isinstance(model, DescribedLatent):
        return objective, state, _with_limits(objective, _named(objective, certificate))
    if not isinstance(model, Mixed):
        return objective, state, _named(objective, certificate)
    ended, found = _of_variances(objective, state, certificate), dict[str, str]()
    while type(model) is Mixed:
        held = _holding(ended[0])
        if held is None:
            break
        objective, name, limit = held
        found[name] = limit
        solver = of_likelihood(objective)
        state = iterate(solver, objective)
        ended = _of_variances(objective.at(state.theta), state, solver.certificate(objective, state))
    if not found:
        return ended
    last = ended[2]
    status = "boundary" if last.ok else last.status
    return ended[0], ended[1], replace(last, status=status, boundary={**found, **last.boundary})


def _holding(objective: Objective) -> tuple[Objective, str, str] | None:
    """The objective with a constant of the family held at its boundary, where the data push it there; its name, and what the
    family is there. None: there is none."""
    model, term = objective.model, objective.terms[0]
    random = {r.parameter for r in model.random}
    for p in model.regression.predictors:
        eta = None if p.parameter in random else pushed(objective, p, p.start)
        if eta is None:
            continue
        held = model.holding(p.parameter, float(p.spec.link.inverse(eta)))
        priors = [LogPrior(each.prior, held) for each in objective.priors]
        return Objective([term.over(term.source, held)], priors), p.parameter, simpler(p.parameter, p.spec)
    return None


def _with_limits(objective: Objective, certificate: Certificate) -> Certificate:
    """The certificate with the parameters of the distribution that are at their boundary in every row, latent variables 0."""
    model = objective.model
    batch = next(iter(objective.terms[0].source.batches(model)))
    with torch.no_grad():
        found = model.at(batch, model.coefficients.detach(), model.nothing(batch)).parameters
    within = limits.AT if certificate.ok else limits.NEAR
    return limits.with_limits(certificate, dict(limits.at_limit(model.family, found, within)))


def _of_variances(objective: Objective, state: StateLike, certificate: Certificate) -> Ended:
    """The same of a mixed model's variances and correlations."""
    if not certificate.ok:
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
            elif "corr(" in name and abs(value) > 1 - EDGE:
                found[name] = "one whose effects are multiples of each other"
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
        return replace(
            certificate, status="boundary", boundary=found, detail=f"{certificate.detail} {detail}".strip()
        )
    zero = next((n for n in found if "corr(" not in n), None)
    if zero is not None and not torch.isfinite(torch.tensor(values)).all():
        text = f"{zero} is 0, so that its correlations are not defined: write (0 + x | g) or (x || g) for the others."
        return replace(certificate, detail=f"{certificate.detail} {text}".strip(), boundary=found)
    return certificate


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
    if not isinstance(r.structure, Penalised):
        return "the one without this effect"
    if r.structure.size == 1:
        return "the one with its unpenalised part alone"
    return f"the one whose {r.label} has only what {r.structure.of_what[i]} leaves free"
