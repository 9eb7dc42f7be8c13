"""Evidence: how probable the data are under the priors, whatever θ is. By it, priors are compared on the very
data that are fitted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import BadArgument, FlatDirection, NoCurvature
from ..likelihood import Objective
from ..models.base import coefficient_names
from ..models.information import Factor
from ..protocols import OfRows
from .bread import SINGULAR, double


def evidence(objective: Objective, theta: Tensor, *, flat: bool = False) -> float:
    """The log marginal likelihood, by Laplace's approximation.

        log ∫ p(data | θ) p(θ) dθ  ≈  ℓ(θ̂) + log p(θ̂) + (p/2) log 2π − ½ log det J,      J = −∂²(ℓ + log p)/∂θ² at θ̂

    Exact where the posterior is normal: a normal linear model of known scale under normal priors. Elsewhere
    its error falls as 1/n.

    Parameters
    ----------
    objective
        a sum of log-likelihoods and priors, at whose maximum θ̂ = `theta` stands, (p,)
    flat
        whether coordinates of θ may be without a prior. The integral then runs over them as it is, and is
        known up to a constant only, which is the same for all priors that leave those coordinates out: what
        `choose_prior` needs

    Returns
    -------
    float
        nats

    Raises
    ------
    BadArgument
        a coordinate has no prior, so that the integral diverges or has no scale; or a weighting is not a
        number of observations
    NoCurvature
        a prior has a kink, where J says nothing of the density's width
    FlatDirection
        J is not positive definite

    References
    ----------
    Laplace (1774), Mémoire sur la probabilité des causes par les événements; Tierney and Kadane (1986),
    Accurate approximations for posterior moments and marginal densities; MacKay (1992), Bayesian
    interpolation.

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"y": [0.5, -1.0, 2.0], "x": [1.0, -1.0, 2.0]}
    >>> fit = th.fit("y ~ x - 1", data, scale=1.0, prior=th.priors.Normal(2.0))
    >>> C = torch.eye(3) + 4.0 * torch.outer(*2 * [torch.tensor(data["x"])])  # of y = xβ + ε: 1 + 2²·x xᵀ
    >>> known = torch.distributions.MultivariateNormal(torch.zeros(3), C).log_prob(torch.tensor(data["y"]))
    >>> abs(fit.evidence - float(known)) < 1e-5
    True
    """
    if objective.kinked:
        raise NoCurvature(
            "a prior has a kink at zero, and the evidence by Laplace's approximation needs the curvature "
            "there, which it lacks. Choose its "
            "scale by rows held out: fit.choose_prior([…], by='held out')."
        )
    if any(t.weights is not None or t.robust is not None for t in objective.terms):
        raise BadArgument(
            "the terms are weighted by a function, or robust, so that the objective is not a log-probability of "
            "data: it has no evidence."
        )
    if any(isinstance(p.prior, OfRows) for p in objective.priors):
        raise BadArgument(
            "Jeffreys' prior has no constant: the evidence under it is known up to a factor only."
        )
    missing = unheld(objective)
    if missing and not flat:
        raise BadArgument(
            f"the evidence is an integral over θ, and {_listed(missing)} "
            f"{'has' if len(missing) == 1 else 'have'} no prior: over them it has no "
            f"finite value. Give each one, such as th.priors.Normal(10.0, on={missing[0]!r}) (of a constant, "
            "on the scale of its link)."
        )
    objective = objective.at(theta)
    found = objective.taylor(order=2)
    assert found.information is not None
    factor: Factor | None = double(found.information).factor()
    if factor is None or factor.pivot < SINGULAR:
        raise FlatDirection(
            "the information is not positive definite at these estimates, so that Laplace's approximation "
            "has no volume."
        )
    return (
        float(found.value)
        + 0.5 * objective.size * math.log(2 * math.pi)
        - 0.5 * float(factor.log_determinant())
    )


def unheld(objective: Objective) -> list[str]:
    """The coordinates of θ that no prior is on, by name."""
    held = torch.zeros(objective.size, dtype=torch.bool)
    names = [f"θ[{j}]" for j in range(objective.size)]
    for model in [t.model for t in objective.terms] + [p.model for p in objective.priors]:
        places = objective.positions(model).tolist()
        own = coefficient_names(model)
        for at, name in zip(places, own, strict=False):
            names[at] = name
    for each in objective.priors:
        held[objective.positions(each.model)[each.prior.coordinates(each.model)]] = True
    return [name for name, h in zip(names, held, strict=True) if not h]


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(map(repr, names[:most])) + (f", … ({len(names)} in all)" if len(names) > most else "")
