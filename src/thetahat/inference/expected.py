"""Fisher's expected information of a regression, and of a normal likelihood of one's own.

    I = Σ_i w_i X_iᵀ E[s_i s_iᵀ] X_i,      s_i = ∂ log p(Y | η_i)/∂η,  Y ~ p(· | η_i)

E[s sᵀ] = −E[∂s/∂η] (Bartlett's second identity), and is positive semidefinite by construction. `quadrature`
takes the mean over y.

Of a likelihood of one's own that returns `Normal().log_prob(y, μ(θ), σ(θ))`:   I = Σ_i w_i (∂μ_i ∂μ_iᵀ + 2·∂σ_i ∂σ_iᵀ) / σ_i²

For a canonical link the curvature is free of y, and the expected information is the observed one.

References
----------
Efron and Hinkley (1978), Assessing the accuracy of the maximum likelihood estimator: observed versus expected
Fisher information.
"""

from __future__ import annotations

from functools import partial

import torch

from ..data.batch import Batch
from ..errors import BadArgument
from ..families.censored import Censored
from ..families.integration import Pairs, Rows
from ..likelihood import Information, LogLikelihood, Objective, total
from ..models.regression import Regression
from ..solvers.gauss_newton import normal_rows
from .quadrature import mean


@torch.no_grad()
def expected(objective: Objective) -> Information:
    """I at the objective's θ, priors' curvature included.

    Raises
    ------
    BadArgument
        the model is neither a Regression nor normal, or its family cannot say how y is distributed
    """
    model = objective.model
    first = next(iter(objective.terms[0].source.batches(model)))
    if (
        len(objective.terms) == 1
        and not isinstance(model, Regression)
        and normal_rows(model, first) is not None
    ):
        return _with_priors(
            objective, total(partial(_of_normal, objective.terms[0]), objective.terms[0].source, model)
        )
    if not isinstance(model, Regression) or len(objective.terms) != 1:
        raise BadArgument(
            "the expected information is that of a regression, or of a likelihood of one's own that returns "
            "Normal().log_prob(y, mean, scale) "
            f"itself; the model is a {type(model).__name__}. Use covariance='observed' or 'sandwich'."
        )
    if isinstance(model.family, Censored):
        raise BadArgument(
            f"{model.family} does not say when a row is censored, so nothing can be averaged over. Use "
            "covariance='observed'."
        )
    term = objective.terms[0]

    def of(batch: Batch) -> Information:
        weight = term.weight(batch)
        products = outer_products(model, batch)
        return model.assemble(batch, {ab: m if weight is None else m * weight for ab, m in products.items()})

    return _with_priors(objective, total(of, term.source, model))


def _with_priors(objective: Objective, information: Information) -> Information:
    if not objective.priors:
        return information
    prior = Objective([], objective.priors).taylor(order=2).information
    assert prior is not None
    return information + prior


def _of_normal(term: LogLikelihood, batch: Batch) -> Information:
    """Of log p = −log σ − (y − μ)²/2σ²: E[(y − μ)²] = σ² makes the cross products of μ and σ vanish."""
    rows = normal_rows(term.model, batch)
    assert rows is not None
    own = term.weight(batch)
    weight = (rows.count if own is None else own)[:, None]
    mean = rows.mean_slopes / rows.scale[:, None]
    return Information(mean.T @ (weight * mean) + 2 * rows.scale_slopes.T @ (weight * rows.scale_slopes))


@torch.no_grad()
def outer_products(model: Regression, batch: Batch) -> Pairs:
    """E[s_a s_b] of each row, a ≤ b over the estimated parameters, each (n,). Rows with equal η are evaluated
    once."""
    eta = [e.expand(len(batch)) for e in model.eta(batch, model.coefficients.detach())]
    extras = model.extras(batch)
    table, back = torch.unique(torch.stack([*eta, *extras.values()]), dim=1, return_inverse=True)
    free = [j for j, name in enumerate(model.family.parameters) if name not in model.fixed]
    k = len(eta)
    given = dict(zip(extras, table[k:], strict=True))
    found = mean(Rows(model.family, list(table[:k]), given, free))
    return {ab: value[back] for ab, value in found.items()}
