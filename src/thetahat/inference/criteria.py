"""Information criteria: what the log-likelihood of the fitted data overstates, taken off."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import FitError, FlatDirection, NoCurvature
from ..families.cox import Cox
from ..likelihood import Objective
from ..models.base import family_of
from ..models.cox import CoxRegression
from ..models.information import Factor
from ..protocols import OfRows, ReadsInOrder, is_separable
from ..solvers import quantile
from . import sparsity
from .bread import bread
from .meat import meat, reduced


def criteria(
    objective: Objective, theta: Tensor, log_likelihood: float, observations: float
) -> dict[str, float]:
    """AIC, AICc, BIC and TIC, in units of −2 nats: smaller is better.

        AIC = −2ℓ + 2p        AICc = AIC + 2p(p + 1)/(n − p − 1)        BIC = −2ℓ + p·log n        TIC = −2ℓ + 2·tr(J⁻¹ K)

    p is the length of θ; under a prior the effective number tr((J + P)⁻¹J), which is smaller: a coefficient
    that its prior holds near zero is no free parameter.

    Parameters
    ----------
    objective, theta
        θ̂, (p,)
    log_likelihood
        ℓ(θ̂), priors not included, nats
    observations
        n = Σ count; of Cox's model the number of events takes its place (Volinsky and Raftery 2000; R's nobs of coxph, SAS)

    Returns
    -------
    dict[str, float]
        name → value. AICc is ∞ where n ≤ p + 1; TIC is NaN where the information is singular. J is the
        information of the objective and K the sum of squared scores (`covariance`): TIC is AIC where the
        model is true, and stays right where it is not.

    Raises
    ------
    NoCurvature
        a prior has a kink

    References
    ----------
    Gray (1992), Flexible methods for analyzing survival data using splines (the effective number); Akaike
    (1973); Hurvich and Tsai (1989); Schwarz (1978); Volinsky and Raftery (2000), Bayesian information criterion for censored
    survival models, Biometrics 56; Takeuchi (1976), Distribution of informational statistics
    and a criterion of model fitting.

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> {name: round(value, 3) for name, value in criteria(fit.objective, fit.theta, fit.log_likelihood, 5).items()}
    {'AIC': 21.157, 'AICc': 27.157, 'BIC': 20.376, 'TIC': 18.099}
    """
    if objective.kinked:
        raise NoCurvature(
            "AIC, BIC and TIC count the parameters of a maximum of the likelihood, and under a prior with a "
            "kink it is not known how many that "
            "are. Compare by rows held out: fit.score(data), or fit.choose_prior([…])."
        )
    n = events(objective)
    out = counted(parameters(objective, theta), log_likelihood, observations if n is None else n)
    apart = all(is_separable(t.model) and not isinstance(t.model, ReadsInOrder) for t in objective.terms)
    exact = any(
        isinstance(t.model, CoxRegression) and t.model.family.ties == "exact" for t in objective.terms
    )
    if apart and not exact:  # else there is no score of a row
        out["TIC"] = -2 * log_likelihood + 2 * effective(objective, theta)
    return out


def events(objective: Objective) -> float | None:
    """The number of events, of Cox's model: its information grows with them, and not with the rows; None of another."""
    term = objective.terms[0]
    if not isinstance(family_of(term.model), Cox):
        return None
    batches = term.source.batches(term.model)
    return sum(float((batch.count.to(torch.float64) * batch["event"]).sum()) for batch in batches)


def parameters(objective: Objective, theta: Tensor) -> float:
    """p: the length of θ; under a prior tr((J + P)⁻¹J) = p − tr((J + P)⁻¹P), NaN where J + P is singular.

    Raises
    ------
    NoCurvature
        a prior has a kink
    """
    priors = [
        p for p in objective.priors if not isinstance(p.prior, OfRows)
    ]  # Firth's takes no parameter away
    if not priors:
        return objective.size
    objective = objective.at(theta)
    priors = [p for p in objective.priors if not isinstance(p.prior, OfRows)]
    P = Objective([], priors).taylor(order=2).information
    assert P is not None
    spread = torch.zeros(objective.size, objective.size, dtype=torch.float64)
    at = torch.cat([objective.positions(p.model) for p in priors]).unique()
    spread[at[:, None], at] = P.dense()
    try:
        return objective.size - float(torch.trace(bread(objective).solve(spread)))
    except FlatDirection:
        return math.nan


def counted(p: float, log_likelihood: float, n: float) -> dict[str, float]:
    """AIC, AICc and BIC: those that need p and n alone, and no row of the data (a fit that was loaded from a
    file has them)."""
    deviance = -2 * log_likelihood
    aic = deviance + 2 * p
    aicc = aic + 2 * p * (p + 1) / (n - p - 1) if n > p + 1 else math.inf
    return {"AIC": aic, "AICc": aicc, "BIC": deviance + p * math.log(n)}


def effective(objective: Objective, theta: Tensor) -> float:
    """tr(J⁻¹ K), the effective number of parameters; NaN where J is singular."""
    objective = objective.at(theta)
    try:
        factor = sparsity.bread(objective) if quantile.linear(objective) else bread(objective)
    except FitError:
        return math.nan
    K = meat(objective)
    inner = reduced(factor, K)
    if inner is None:
        return float(torch.trace(factor.solve(K.dense())))
    assert isinstance(factor, Factor)
    J = factor.information
    assert J.D is not None
    assert K.D is not None
    # tr J⁻¹K = Σ D_K/D + tr S⁻¹ P K Pᵀ: J⁻¹ = diag(0, D⁻¹) + Pᵀ S⁻¹ P
    return float((K.D / J.D).sum() + torch.trace(factor._solve_small(inner)))
