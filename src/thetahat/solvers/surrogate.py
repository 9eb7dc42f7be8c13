"""Newton's step where each pass reads a file or an engine, corrected by the rows that are in memory.

    d = argmax  k ℓ_s(θ + d) + (g − k g_s)ᵀd − ½ dᵀ(J − k J_s)d,        k = rows / rows of the sample

ℓ_s, g_s, J_s are of the sample, g and J of all rows, at θ. The function has their gradient and information at θ, and the sample's higher
derivatives: its maximum is nearer to that of ℓ than Newton's step by the factor √(1/rows of the sample), so that one pass of four is saved.

References
----------
Jordan, Lee and Yang (2019), Communication-efficient distributed statistical inference, Journal of the American Statistical Association.
Shamir, Srebro and Zhang (2014), Communication-efficient distributed optimization using an approximate Newton-type method, ICML.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.processes import world
from ..likelihood import Objective
from ..models.information import Factor, Information
from ..protocols import Partitioned, Sampled
from ..types import ObjectiveLike

FEW = 50  # rows of a sample for each coefficient, at least
SOLVES = 4  # by J at θ, each of which leaves the relative change of J along d of the error


def held(objective: ObjectiveLike) -> Objective | None:
    """The objective on the rows of its sources that are in memory; None: all are, or too few are, or each process holds others (they
    would have to agree on whether there are enough)."""
    if (
        world() > 1
        or not isinstance(objective, Objective)
        or not objective.streamed
        or len(objective.terms) > 1
    ):
        return None
    source = objective.terms[0].source
    known = isinstance(source, Partitioned) or (isinstance(source, Sampled) and source.sample is not None)
    sample = objective.thinned(1) if known else None
    return sample if sample is not None and (sample.rows or 0) >= FEW * objective.size else None


def corrected(
    objective: Objective,
    sample: Objective,
    theta: Tensor,
    information: Information,
    factor: Factor,
    d: Tensor,
) -> Tensor:
    """The step d = J⁻¹g at θ, corrected; itself where the correction is not small beside it."""
    k = (objective.rows or 0) / (sample.rows or 1)
    here = sample.taylor(theta, order=2)
    assert here.information is not None
    gradient = information.multiply(d)  # of all rows at θ, of which d is Newton's step
    step = d
    for _ in range(SOLVES):
        there = sample.taylor(theta + step, order=1).gradient
        change = there - here.gradient + here.information.multiply(step)  # third and higher derivatives
        step = step + factor.solve(gradient + k * change - information.multiply(step))
    away = step - d
    small = bool(torch.isfinite(away).all()) and float(away @ information.multiply(away)) <= 0.25 * float(
        d @ gradient
    )
    return step if small else d
