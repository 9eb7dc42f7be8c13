"""Parameters of families at the end of their range, in models that cannot hold one there: mixtures, hidden Markov models, and
likelihoods of one's own. Which they are, and what the family is there; `boundary` holds those of regressions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from ..families.base import Family
from ..likelihood import Objective
from ..models.density import Density
from ..models.described import Described
from ..models.hmm import HMM
from ..models.mixture import Mixture
from ..models.regression import Regression
from ..types import ModelLike
from .boundary import simpler
from .certificate import Certificate

# of a finite end, or 1 over an infinite one. Nearer than the first the family is its limit to the digits of log p; nearer than
# the second it is so for what iterations may have meant that ended without a maximum
AT, NEAR = 1e-8, 1e-4


def named(objective: Objective, certificate: Certificate) -> Certificate:
    """The certificate with the parameters that stand at their boundary, and what the model is there."""
    if len(objective.terms) != 1 or certificate.status == "stochastic":
        return certificate
    return with_limits(certificate, dict(_found(objective, AT if certificate.ok else NEAR)))


def with_limits(certificate: Certificate, found: dict[str, str]) -> Certificate:
    """A maximum is one at the boundary; of what is none, the detail says where a parameter has run to."""
    if not found:
        return certificate
    if certificate.ok:
        return replace(certificate, status="boundary", boundary={**certificate.boundary, **found})
    text = " ".join(
        f"{name} has run to the end of its range, where the family is {limit}: use that."
        for name, limit in found.items()
    )
    return replace(certificate, detail=f"{certificate.detail} {text}".strip())


def at_limit(
    family: Family, parameters: Sequence[Tensor], within: float, label: str = ""
) -> Iterator[tuple[str, str]]:
    """The parameters that are at their boundary in every row, each (n,), and what the family is there."""
    for (name, spec), value in zip(family.parameters.items(), parameters, strict=True):
        edge = spec.boundary
        if edge is None:
            continue
        near = 1 / value.abs() if math.isinf(edge) else (value - edge).abs()
        if bool((near <= within).all()):
            yield label + name, simpler(name, spec)


def _found(objective: Objective, within: float) -> Iterator[tuple[str, str]]:
    model = objective.model
    parts: list[tuple[str, ModelLike]] = []
    if isinstance(model, Described):
        parts = [("", model)]
    elif isinstance(model, Mixture):
        parts = [(f"{k}: ", each) for k, each in enumerate(model.components)]
    elif isinstance(model, HMM):
        parts = [(f"state {k + 1}: ", each) for k, each in enumerate(model.components)]
    if not parts:
        return
    batch = next(iter(objective.terms[0].source.batches(model)))
    for label, each in parts:
        if isinstance(each, (Density, Regression, Described)):
            yield from at_limit(each.family, each.parameters_at(batch), within, label)
