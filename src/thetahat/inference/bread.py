"""The inverse information: what every covariance of θ̂ has on its outside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FlatDirection, NoCurvature
from ..likelihood import Information, Objective
from ..models.information import Factor
from ..solvers import closed_form, interior_point
from .expected import expected

ILL = 1e-3  # a squared pivot below which J is an ill-conditioned matrix
# a smaller squared pivot of the scaled information is exact collinearity: its inverse is rounding error
SINGULAR = 1e-13
KINKED = (
    "a prior has a kink at zero, where its density has no curvature, so that the maximum has no standard "
    "errors, no Wald intervals and tests, "
    "and no profile. fit.bootstrap() shows how the estimates vary; for errors, fit the coefficients that are "
    "not zero to other rows, or use a "
    "smooth prior such as th.priors.Normal."
)
EDGE = (
    "On that edge the estimates are not normal, however many rows there are: the maximum has no standard "
    "errors, no Wald intervals and tests. "
    "fit.bootstrap() shows how the estimates vary; a link that maps every linear predictor into the range "
    "(log, logit) has no edge."
)


@dataclass(frozen=True)
class Inverse:
    """J⁻¹ written out, where another road than a factor of J found it."""

    matrix: Tensor

    def solve(self, b: Tensor) -> Tensor:
        return self.matrix @ b

    def inverse(self) -> Tensor:
        return self.matrix

    def inverse_diagonal(self) -> Tensor:
        return self.matrix.diagonal().clone()


def bread(objective: Objective, kind: str = "observed") -> Factor | Inverse:
    """A factor of J (of I, if expected) at the objective's θ, in float64.

    A normal linear model whose J is ill-conditioned gets J⁻¹ by QR of its columns instead, whose error is
    that of X and not of XᵀX.
    """
    if objective.kinked:
        raise NoCurvature(KINKED)
    edge = interior_point.edge(objective)
    if edge:
        raise NoCurvature(f"{edge} {EDGE}")
    J = expected(objective) if kind == "expected" else objective.taylor(order=2).information
    assert J is not None
    factor = double(J).factor()
    if (factor is None or factor.pivot < ILL) and closed_form.applies(objective):
        V = closed_form.covariance(objective)
        if bool(torch.isfinite(V).all()):
            return Inverse(V)
    if factor is None or factor.pivot < SINGULAR:
        raise FlatDirection(
            "the information is not positive definite at these estimates, so they have no covariance: a "
            "direction is flat, or this is no "
            "maximum. Read fit.certificate."
        )
    return factor


def double(J: Information) -> Information:
    """J in float64."""
    if all(t.dtype == torch.float64 for t in J.tensors()):
        return J
    E = None if J.E is None else J.E.to(torch.float64)
    D = None if J.D is None else J.D.to(torch.float64)
    return Information(J.A.to(torch.float64), E, D, J.eliminated)
