"""Tests of the terms of a formula: analysis of variance and of deviance.

With S(A) the statistic of the hypothesis that all coefficients of the terms A are 0, a term T is tested by

    S(T ∪ A) − S(A),      A = the terms after T (type "sequential", R's anova), those that contain T (2), none (3)

    likelihood_ratio    S(A) = 2(ℓ − ℓ_A),  ℓ_A the maximum without A
    wald                S(A) = β_Aᵀ V_A⁻¹ β_A;  the difference is that of the part of T ∪ A which is independent of A
    F                   S(A) = (RSS_A − RSS)/s² = (n − p)(exp((2ℓ − 2ℓ_A)/n) − 1)  of a normal linear model

The first two are χ² of as many degrees of freedom as T has coefficients (F where V has degrees of freedom), the last over
them is F exactly. A smaller model is fitted with coefficients held at 0, on the rows and the columns of the fit. Under
Jeffreys' prior ℓ is Firth's penalised log-likelihood, with the information of all columns in ℓ_A too (Heinze and Schemper 2002):
no log-likelihood and no AIC are shown.

References
----------
Fox (2016), Applied Regression Analysis and Generalized Linear Models, 3rd ed., 8.2 and 15.1 (types 2 and 3; R's car::Anova);
Nelder (1977), A reformulation of linear models (marginality).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..distributions import chi2
from ..distributions import fisher as f
from ..errors import BadArgument, NotConverged
from ..likelihood import Objective
from ..models.random_effects import RandomEffects
from ..protocols import OfRows
from .covariance import Covariance, linear
from .terms import ModelTerm, model_terms, predictors_of
from .tests import check_likelihood, restricted_maximum

TYPES = ("sequential", 2, 3)
TESTS = ("likelihood_ratio", "wald", "F")


def anova(
    objective: Objective,
    theta: Tensor,
    type: str | int = "sequential",
    test: str | None = None,
    *,
    covariance: Covariance | None = None,
    parameter: str | None = None,
) -> pd.DataFrame:
    """A row a term: degrees_of_freedom, statistic, p_value.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum
    type
        "sequential", each term after those before it; 2, after all that do not contain it; 3, after all others, which
        depends on how categories are coded
    test
        one of `TESTS`; None: "F" of a normal linear model, else "likelihood_ratio"
    covariance
        V of Wald's test
    parameter
        of the family, whose terms they are; None: its first

    Returns
    -------
    pd.DataFrame
        besides, of "F" sum_of_squares and a row of residuals; of sequential likelihood ratios the log_likelihood and AIC
        of the terms so far, with a row of none of them

    Raises
    ------
    BadArgument
        an unknown type or test, or a test that the model does not have

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("loss ~ air_flow + water_temperature", th.data.shipped("stackloss"))
    >>> anova(fit.objective, fit.theta)["statistic"].round(3).to_dict()
    {'air_flow': 166.859, 'water_temperature': 12.425, 'Residuals': nan}
    """
    if type not in TYPES or isinstance(type, bool):
        raise BadArgument(f"type={type!r} of anova. Accepted: 'sequential', 2, 3.")
    test = chosen_test(objective, test)
    terms = model_terms(objective, parameter, "anova")
    if not terms:
        raise BadArgument("the formula has no terms besides its intercept: there is nothing to test.")
    found = Statistics(objective, theta, test, covariance)
    sets = [_after(terms, k, type) for k in range(len(terms))]
    rows = [found.row(term, rest) for term, rest in zip(terms, sets, strict=True)]
    index = [term.name for term in terms]
    if type == "sequential" and test == "likelihood_ratio" and not objective.priors:
        several = any(p.design.intercept for p in predictors_of(objective, parameter, "anova"))
        rows = [found.model(terms)] + [r | found.model(s) for r, s in zip(rows, sets, strict=True)]
        index = ["Intercept" if several else "none", *index]
    if test == "F":
        rows.append(found.residuals())
        index.append("Residuals")
    return table(rows, index)


def _after(terms: Sequence[ModelTerm], k: int, type: str | int) -> list[ModelTerm]:
    """A of the k-th term."""
    if type == "sequential":
        return list(terms[k + 1 :])
    return [t for t in terms if t.contains(terms[k])] if type == 2 else []


def drop1(
    objective: Objective,
    theta: Tensor,
    test: str | None = None,
    *,
    covariance: Covariance | None = None,
    parameter: str | None = None,
) -> pd.DataFrame:
    """What the fit loses without each term that no other contains, a row a term: degrees_of_freedom, log_likelihood and AIC of
    the fit without it (not of "wald"), statistic, p_value. The first row is of the fit as it is.

    Parameters
    ----------
    objective, theta, test, covariance, parameter
        as of `anova`

    Examples
    --------
    >>> import thetahat as th
    >>> ships = th.data.shipped("ships")
    >>> fit = th.fit("incidents ~ type + period + offset(log(service))", ships, "poisson")
    >>> drop1(fit.objective, fit.theta)["statistic"].round(2).to_dict()
    {'none': nan, 'type': 42.66, 'period': 20.79}
    """
    test = chosen_test(objective, test)
    terms = model_terms(objective, parameter, "drop1")
    found = Statistics(objective, theta, test, covariance)
    free = [t for t in terms if not any(other.contains(t) for other in terms)]
    plain = test == "wald" or bool(objective.priors)
    rows = [{} if plain else found.model(())]
    rows += [found.row(t, ()) | ({} if plain else found.model([t])) for t in free]
    return table(rows, ["none", *(t.name for t in free)])


def chosen_test(objective: Objective, test: str | None) -> str:
    """The test that is meant, refused where the model does not have it."""
    normal = linear(objective) and all(t.weights is None for t in objective.terms)
    test = test.replace(" ", "_") if isinstance(test, str) else "F" if normal else "likelihood_ratio"
    if test not in TESTS:
        raise BadArgument(f"test={test!r}. Accepted: {', '.join(map(repr, TESTS))}.")
    if test == "F" and not normal:
        raise BadArgument(
            "test='F' is of a normal linear model with one estimated scale, where it is exact. Accepted here: "
            "'likelihood_ratio', 'wald'."
        )
    if test != "wald":
        check_likelihood(objective, test, "Use test='wald', whose covariance is the sandwich's.")
        if not all(isinstance(p.prior, OfRows) for p in objective.priors):
            raise BadArgument(
                f"the fit is under a prior, and the maximum is not of the likelihood alone: {test} is not defined. "
                "Use test='wald'."
            )
        refuse_reml(objective)
    return test


def refuse_reml(objective: Objective) -> None:
    model = objective.model
    if isinstance(model, RandomEffects) and model.reml:
        raise BadArgument(
            "the fit is by reml=True: restricted likelihoods of other fixed effects are of other contrasts of the data, and "
            "cannot be compared. Fit with reml=False, or test a fit's terms by test='wald'."
        )


class Statistics:
    """S(A), each computed once.

    Parameters
    ----------
    objective, theta
        θ̂
    test
        one of `TESTS`
    covariance
        V of Wald's test
    """

    def __init__(self, objective: Objective, theta: Tensor, test: str, covariance: Covariance | None):
        self.objective, self.theta, self.test, self.covariance = objective, theta, test, covariance
        self.best = objective.value(theta)
        self.n = objective.observations
        self._maxima: dict[tuple[int, ...], float] = {(): self.best}
        if test == "F":
            self.error = self.n - sum(p.size for p in predictors_of(objective, None, "F"))
            if self.error <= 0:
                raise BadArgument(
                    f"{self.n:g} observations leave no degree of freedom for the residuals: there is no F test."
                )
            self.rss = self.n * _sigma(objective, theta) ** 2

    def row(self, term: ModelTerm, rest: Iterable[ModelTerm]) -> dict[str, float]:
        """The test of a term after all but itself and the rest."""
        without = _places(rest)
        both = tuple(sorted({*without, *term.places}))
        df = len(term.places)
        if self.test == "wald":
            return self._wald(both, without, term.places)
        if self.test == "likelihood_ratio":
            try:
                statistic = max(2 * (self.maximum(without) - self.maximum(both)), 0.0)
            except NotConverged as error:  # a smaller model may have no maximum where the larger has one
                raise NotConverged(
                    f"the likelihood ratio of {term.name!r}: {error} Of this term alone test='wald' needs no smaller fit.",
                    error.certificate,
                ) from error
            return row_of(df, statistic)
        squares = self.rss * (self._excess(both) - self._excess(without))
        return {"degrees_of_freedom": df, "sum_of_squares": squares} | row_of(
            df, squares / df / (self.rss / self.error), self.error
        )

    def _excess(self, places: tuple[int, ...]) -> float:
        """RSS_A/RSS − 1."""
        return math.expm1(max(2 * (self.best - self.maximum(places)), 0.0) / self.n)

    def _wald(
        self, both: tuple[int, ...], without: tuple[int, ...], own: tuple[int, ...]
    ) -> dict[str, float]:
        assert self.covariance is not None
        statistic = max(self._quadratic(both) - self._quadratic(without), 0.0)
        freedom = float(self.covariance.freedom(self._unit(own)).min())
        df = len(own)
        return row_of(df, statistic) if math.isinf(freedom) else row_of(df, statistic / df, freedom)

    def _quadratic(self, places: tuple[int, ...]) -> float:
        """β_Aᵀ V_A⁻¹ β_A."""
        assert self.covariance is not None
        if not places:
            return 0.0
        V = self.covariance.of(self._unit(places))
        scale = V.diagonal().clamp(min=0).sqrt()
        L, info = torch.linalg.cholesky_ex(V / scale[:, None] / scale)
        if int(info) != 0 or not bool((L.diagonal() > 1e-7).all()):
            raise BadArgument(
                f"the covariance of {len(places)} coefficients is singular: fewer clusters than coefficients, or a "
                "perfect fit. Use test='likelihood_ratio'."
            )
        beta = self.theta[list(places)].to(torch.float64) / scale
        return float((torch.linalg.solve_triangular(L, beta[:, None], upper=False) ** 2).sum())

    def _unit(self, places: tuple[int, ...]) -> Tensor:
        G = torch.zeros(len(places), self.objective.size, dtype=torch.float64)
        G[torch.arange(len(places)), list(places)] = 1.0
        return G

    def maximum(self, places: tuple[int, ...]) -> float:
        """ℓ_A, nats."""
        if places not in self._maxima:
            R = np.zeros((len(places), self.objective.size))
            R[np.arange(len(places)), list(places)] = 1.0
            self._maxima[places], _ = restricted_maximum(self.objective, self.theta, R, np.zeros(len(places)))
        return self._maxima[places]

    def model(self, without: Iterable[ModelTerm]) -> dict[str, float]:
        """The log-likelihood and AIC of the fit without these terms."""
        places = _places(without)
        value = self.maximum(places)
        return {"log_likelihood": value, "AIC": -2 * value + 2 * (self.objective.size - len(places))}

    def residuals(self) -> dict[str, float]:
        return {"degrees_of_freedom": self.error, "sum_of_squares": self.rss}


def _sigma(objective: Objective, theta: Tensor) -> float:
    """σ̂ = √(RSS/n): of rows of known precision that of a row of precision 1."""
    scale = predictors_of(objective, "scale", "F")[0]
    return float(scale.spec.link.inverse(theta[scale.start].to(torch.float64)))


def row_of(df: float, statistic: float, error: float = math.inf) -> dict[str, float]:
    """A statistic with its p-value: χ², or F where the denominator has degrees of freedom."""
    p = float(chi2.sf(statistic, df)) if math.isinf(error) else float(f.sf(statistic, df, error))
    out = {"degrees_of_freedom": df, "statistic": statistic, "p_value": p}
    return out if math.isinf(error) else out | {"error_degrees_of_freedom": error}


def _places(terms: Iterable[ModelTerm]) -> tuple[int, ...]:
    return tuple(sorted({i for term in terms for i in term.places}))


ORDER = ("degrees_of_freedom", "sum_of_squares", "log_likelihood", "AIC", "statistic", "error_degrees_of_freedom", "p_value")  # fmt: skip


def table(rows: Sequence[dict[str, float]], index: Sequence[str]) -> pd.DataFrame:
    """The rows under their terms, columns in one order."""
    out = pd.DataFrame(list(rows), index=pd.Index(list(index), name="term"))
    kept = [
        c for c in ORDER if c in out and not (c == "error_degrees_of_freedom" and "sum_of_squares" in out)
    ]
    return out[kept].astype(float)
