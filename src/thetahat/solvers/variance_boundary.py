"""Variances of random effects at 0, and correlations at ±1: maxima at the boundary, by name.

The likelihood is even in a scale s, so that s = 0 is a stationary point whatever the data. It is the maximum where the
likelihood curves downward there, and that is the one-sided derivative in the variance:

    ∂ℓ/∂(s²) at 0  =  ½ ∂²ℓ/∂s²  =  −½ J_ss  <  0
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..likelihood import Objective
from ..models.base import names_of
from ..models.elimination import NotPositiveDefinite
from ..models.random_effects import EDGE, RandomEffects
from .certificate import Certificate

FLAT = (
    10.0  # variance of a random effect given the data, relative to that before: at most 1 of a concave log p
)


def at_boundary(objective: Objective, certificate: Certificate) -> Certificate:
    """The certificate, with the variances at 0 and the correlations at ±1 named."""
    model = objective.model
    if not isinstance(model, RandomEffects) or len(objective.terms) != 1:
        return certificate
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
                found[name] = (
                    "the one without this effect"
                    if not r.smooth
                    else "the one with its unpenalised part alone"
                )
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
