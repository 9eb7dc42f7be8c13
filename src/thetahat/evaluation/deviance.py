"""The deviance, and the R² that are made of likelihoods and of means.

    D = φ·Σ c d²,      d² = 2(log p(y | μ = y) − log p(y | μ̂)),      X² = φ·Σ c (y − μ̂)² / Var[y]

φ is the constant dispersion (σ² of a normal, φ of a gamma, an inverse Gaussian, a Tweedie distribution; 1 elsewhere): D is then
a generalised linear model's, and RSS of a normal linear model. The null fit has the intercept alone.

    McFadden    1 − ℓ/ℓ₀        Cox and Snell  1 − exp(2(ℓ₀ − ℓ)/n),  which is R² of a normal linear model
    Nagelkerke  Cox and Snell's over the largest that it can be, 1 − exp(2ℓ₀/n)
    Efron       1 − Σ c (y − μ̂)² / Σ c (y − ȳ)²
    Tjur        the mean of P(y = 1) where y = 1 less that where y = 0

References
----------
McCullagh and Nelder (1989), Generalized Linear Models; McFadden (1974); Cox and Snell (1989), The Analysis of Binary Data, 2nd
ed., p. 208; Nagelkerke (1991); Efron (1978), Regression and ANOVA with zero-one data; Tjur (2009), Coefficients of determination
in logistic regression models.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..families.base import Family
from ..families.bernoulli import Bernoulli
from ..families.cox import Cox
from ..families.gamma import Gamma
from ..families.inverse_gaussian import InverseGaussian
from ..families.normal import Normal
from ..families.tweedie import Tweedie
from ..inference.covariance import linear
from ..inference.terms import predictors_of, regression_of
from ..inference.tests import check_maximum, restricted_maximum
from ..likelihood import Objective
from ..likelihood.total import folded
from ..models.regression import Predictor, Regression
from ..protocols import Working
from . import residuals
from .fitted_values import extras_of, mean_of, parameters_of, response_of

DISPERSION: dict[type[Family], tuple[str, float]] = {  # the parameter, and which power of it φ is
    Normal: ("scale", 2.0),
    Gamma: ("dispersion", 1.0),
    InverseGaussian: ("dispersion", 1.0),
    Tweedie: ("dispersion", 1.0),
}


def deviance(objective: Objective, theta: Tensor) -> pd.Series:
    """The deviance of a fit, as R's glm has it.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum

    Returns
    -------
    pd.Series
        deviance, degrees_of_freedom (n − p, p the coefficients of the first parameter), null_deviance,
        null_degrees_of_freedom, pearson (X²), dispersion (X²/(n − p)). Further parameters (a negative binomial's
        dispersion) are those of the fit, in the null deviance too. Of a dispersion with predictors of its own φ is 1: the
        deviance is scaled. X² is NaN of a family without a variance

    Raises
    ------
    BadArgument
        a model without a deviance: log p is not largest at mean = y, random effects, a prior, weights, a robust fit

    Examples
    --------
    >>> import thetahat as th
    >>> ships = th.data.shipped("ships")
    >>> fit = th.fit("incidents ~ type + built + period + offset(log(service))", ships, "poisson")
    >>> deviance(fit.objective, fit.theta).round(3).to_dict()["deviance"]
    38.695
    """
    model = _regression(objective, "the deviance")
    objective = objective.at(theta)
    model = _regression(objective, "the deviance")
    n, p = objective.observations, model.predictors[0].size
    phi = _dispersion(model)
    own = phi * _summed(objective, lambda m, b, y: residuals.deviance(m, b, y) ** 2)
    null, q = _null_mean(objective, theta)
    other = phi * _summed(objective.at(null), lambda m, b, y: residuals.deviance(m, b, y) ** 2)
    pearson = phi * _summed(objective, _pearson) if model.family.has("variance") else math.nan
    values = {
        "deviance": own,
        "degrees_of_freedom": n - p,
        "null_deviance": other,
        "null_degrees_of_freedom": n - q,
        "pearson": pearson,
        "dispersion": pearson / (n - p) if n > p else math.nan,
    }
    return pd.Series(values, name="deviance")


def _regression(objective: Objective, what: str) -> Regression:
    model = objective.model
    check_maximum(objective, what)
    if not isinstance(model, Regression) or regression_of(objective) is None:
        raise BadArgument(
            f"{what} is of a formula's regression; the model is a {type(model).__name__}. Of any fit: fit.score(), fit.criteria."
        )
    if objective.priors:
        raise BadArgument(f"the fit is under a prior: {what} is of a maximum of the likelihood.")
    if isinstance(model.family, Cox) and what != "R²":
        raise BadArgument(f"{what} is of rows with a distribution each, which Cox's model has not.")
    return model


def _dispersion(model: Regression) -> float:
    """φ̂ where it is a constant."""
    name, power = DISPERSION.get(type(model.family), ("", 1.0))
    if name in model.fixed:
        return math.pow(model.fixed[name], power)
    found = next((p for p in model.predictors if p.parameter == name), None)
    if found is None or found.size != 1 or not found.design.intercept:
        return 1.0
    own = model.coefficients.detach()[found.start : found.start + 1]
    return math.pow(float(found.spec.link.inverse(own)), power)


def _summed(objective: Objective, each: Callable[[Regression, Batch, Tensor], Tensor]) -> float:
    """Σ c f."""
    model = objective.model

    def of(batch: Batch) -> Tensor:
        value = each(model, batch, response_of(model, batch)).to(torch.float64)
        return (torch.where(batch.count > 0, value, 0.0) * batch.count).sum()

    return float(folded(of, objective.terms[0].source, model))


def _pearson(model: Regression, batch: Batch, y: Tensor) -> Tensor:
    variance = model.family.variance(*parameters_of(model, batch), **extras_of(model, batch))
    return (y - mean_of(model, batch)) ** 2 / variance


def _slopes(predictor: Predictor) -> list[int]:
    first = int(predictor.design.intercept)
    return list(range(predictor.start + first, predictor.start + predictor.size))


def _held(objective: Objective, theta: Tensor, places: list[int], values: Tensor) -> tuple[float, Tensor]:
    """The maximum with some coordinates held."""
    if not places:
        return objective.value(theta), theta
    R = np.zeros((len(places), objective.size))
    R[np.arange(len(places)), places] = 1.0
    return restricted_maximum(objective, theta, R, values.numpy())


def _null_mean(objective: Objective, theta: Tensor) -> tuple[Tensor, int]:
    """θ with the intercept alone in the first parameter, the other parameters as they are; and how many coefficients it has."""
    first = predictors_of(objective, None, "the deviance")[0]
    intercept = first.start if first.design.intercept else None
    places = [i for i in range(objective.size) if i != intercept]
    values = theta.to(torch.float64).clone()
    values[_slopes(first)] = 0.0
    return _held(objective, theta, places, values[places])[1], int(intercept is not None)


def null_log_likelihood(objective: Objective, theta: Tensor) -> float:
    """ℓ₀: every parameter with its intercept alone, at its maximum."""
    places = [i for p in _regression(objective, "R²").predictors for i in _slopes(p)]
    return _held(objective, theta, places, torch.zeros(len(places), dtype=torch.float64))[0]


def r_squared(objective: Objective, theta: Tensor) -> pd.Series:
    """R² by name: of a normal linear model R² and the adjusted one; of others Cox and Snell's, of probabilities McFadden's and
    Nagelkerke's, of families with a mean Efron's, of a binary response Tjur's.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum

    Raises
    ------
    BadArgument
        no regression, a prior, weights, a robust fit

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("loss ~ air_flow + water_temperature", th.data.shipped("stackloss"))
    >>> r_squared(fit.objective, fit.theta).round(4).to_dict()
    {'R²': 0.9088, 'adjusted R²': 0.8986}
    """
    model = _regression(objective, "R²")
    if isinstance(model.family, Working):
        raise BadArgument(f"R²: {model.family.working} Two fits of one level: their criteria.")
    objective = objective.at(theta)
    value, null, n = objective.value(theta), null_log_likelihood(objective, theta), objective.observations
    snell = -math.expm1(2 * (null - value) / n)
    if linear(objective):
        first = model.predictors[0]
        total, p = n - int(first.design.intercept), first.size
        adjusted = 1 - (1 - snell) * total / (n - p) if n > p else math.nan
        return pd.Series({"R²": snell, "adjusted R²": adjusted}, name="R²")
    out = {}
    if model.family.measure in ("mass", "partial"):
        out["McFadden"] = 1 - value / null
    out["Cox–Snell"] = snell
    if model.family.measure in ("mass", "partial"):
        out["Nagelkerke"] = snell / -math.expm1(2 * null / n)
    if model.family.has("expectation") and not model.family.outcome:
        out |= _of_means(objective)
    return pd.Series(out, name="R²")


def _of_means(objective: Objective) -> dict[str, float]:
    """Efron's, and Tjur's of a binary response."""
    model, source = objective.model, objective.terms[0].source

    def sums(batch: Batch) -> Tensor:
        y, c = response_of(model, batch), batch.count.to(torch.float64)
        return torch.stack([c @ y, c.sum()])

    total, n = folded(sums, source, model).tolist()
    middle = total / n

    def squares(batch: Batch) -> Tensor:
        y, mean, c = response_of(model, batch), mean_of(model, batch), batch.count.to(torch.float64)
        return torch.stack([c @ (y - mean) ** 2, c @ (y - middle) ** 2, (c * y) @ mean, (c * (1 - y)) @ mean])

    left, whole, ones, zeros = folded(squares, source, model).tolist()
    out = {"Efron": 1 - left / whole}
    if isinstance(model.family, Bernoulli):
        out["Tjur"] = ones / total - zeros / (n - total)
    return out
