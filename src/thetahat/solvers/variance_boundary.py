"""Variances of random effects at 0, and correlations at ±1: maxima at the boundary, by name.

The likelihood is even in a scale s, so that s = 0 is a stationary point whatever the data. It is the maximum where the
likelihood curves downward there, and that is the one-sided derivative in the variance:

    ∂ℓ/∂(s²) at 0  =  ½ ∂²ℓ/∂s²  =  −½ J_ss  <  0
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..likelihood import Objective
from ..models.base import names_of
from ..models.random_effects import EDGE, RandomEffects
from .certificate import Certificate


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
