"""The work that is timed: the same data for every library, made here, seeded; and each library's shortest
honest way to the answer.

A work is a function that makes the data; a contestant takes the data and returns (coefficients,
log-likelihood or None). Data are given in the form that the library takes most readily: a data frame for
formulas, arrays for those that want arrays. Further works are in works_families.py and works_effects.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass
class Data:
    """A data frame with the columns x0 …, y, and the true coefficients of x0 …"""

    frame: pd.DataFrame
    X: np.ndarray
    y: np.ndarray
    formula: str
    extra: dict[str, Any]


Contestant = Callable[[Data], tuple[np.ndarray, float | None]]


def dense(n: int, p: int, seed: int) -> tuple[np.ndarray, np.ndarray, pd.DataFrame, str]:
    """X, its linear predictor, both as a frame's columns x0 …, and the formula."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    beta = rng.normal(size=p) / np.sqrt(p)
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(p)])
    return X, X @ beta, frame, "y ~ " + " + ".join(frame.columns)


def logistic(n: int = 1_000_000, p: int = 30) -> Data:
    X, eta, frame, formula = dense(n, p, 0)
    y = (np.random.default_rng(1).random(n) < 1 / (1 + np.exp(0.5 - eta))).astype(float)
    return Data(frame.assign(y=y), X, y, formula, {"family": "bernoulli"})


def poisson(n: int = 1_000_000, p: int = 30) -> Data:
    X, eta, frame, formula = dense(n, p, 0)
    y = np.random.default_rng(1).poisson(np.exp(0.5 * eta - 0.5)).astype(float)
    return Data(frame.assign(y=y), X, y, formula, {"family": "poisson"})


def negative_binomial(n: int = 100_000, p: int = 30) -> Data:
    X, eta, frame, formula = dense(n, p, 0)
    mu = np.exp(0.5 * eta + 0.3)
    y = np.random.default_rng(1).negative_binomial(2, 2 / (2 + mu)).astype(float)
    return Data(frame.assign(y=y), X, y, formula, {"family": "negative_binomial"})


def student_t(n: int = 100_000, p: int = 10) -> Data:
    X, eta, frame, formula = dense(n, p, 0)
    y = eta + np.random.default_rng(1).standard_t(4, size=n)
    return Data(frame.assign(y=y), X, y, formula, {"family": "student_t"})


def claims(n: int = 678_000, levels: tuple[int, ...] = (2, 4, 6, 11, 12, 22), wide: int = 0) -> Data:
    """In the manner of the French motor claims: 5 numeric and 6 categorical columns, an exposure; and one
    category more of `wide` levels."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n, 5)), columns=[f"x{j}" for j in range(5)])
    eta = -2.5 + frame.to_numpy() @ np.array([0.1, -0.2, 0.05, 0.3, -0.1])
    for j, L in enumerate((*levels, wide) if wide else levels):
        codes = rng.integers(0, L, n)
        eta = eta + (rng.normal(size=L) * 0.2)[codes]
        frame[f"g{j}"] = pd.Categorical.from_codes(codes, [f"l{k:04d}" for k in range(L)])
    exposure = rng.uniform(0.1, 1.0, n)
    y = rng.poisson(np.exp(eta + (2 if wide else 0)) * exposure).astype(float)
    columns = list(frame.columns)
    formula = "y ~ " + " + ".join(columns) + " + offset(log(exposure))"
    return Data(
        frame.assign(exposure=exposure, y=y),
        np.empty(0),
        y,
        formula,
        {"family": "poisson", "columns": columns},
    )


def wide_claims(n: int = 678_000) -> Data:
    return claims(n, wide=5000)


def small_logistic(n: int = 1000) -> Data:
    return logistic(n, 5)


WORKS: dict[str, Callable[..., Data]] = {
    "logistic": logistic,
    "poisson": poisson,
    "claims": claims,
    "claims, 5,000 levels": wide_claims,
    "negative binomial": negative_binomial,
    "student t": student_t,
    "small logistic": small_logistic,
}


# ---- contestants -------------------------------------------------------------------------------------------


def thetahat(data: Data) -> tuple[np.ndarray, float | None]:
    import thetahat as th

    fit = th.fit(data.formula, data.frame, data.extra["family"], **data.extra.get("parameters", {}))
    return fit.theta.numpy(), fit.log_likelihood


def thetahat_summary(data: Data) -> tuple[np.ndarray, float | None]:
    import thetahat as th

    fit = th.fit(data.formula, data.frame, data.extra["family"])
    str(fit.summary())
    return fit.theta.numpy(), fit.log_likelihood


def thetahat_errors(data: Data) -> tuple[np.ndarray, float | None]:
    import thetahat as th

    fit = th.fit(data.formula, data.frame, data.extra["family"])
    fit.standard_errors()
    return fit.theta.numpy(), fit.log_likelihood


def thetahat_own(data: Data) -> tuple[np.ndarray, float | None]:
    """Student's t as a likelihood of one's own."""
    import torch

    import thetahat as th

    X = torch.from_numpy(np.column_stack([np.ones(len(data.y)), data.X]))

    @th.model(b=torch.zeros(X.shape[1]), scale=th.positive(1.0), df=th.positive(5.0))
    def regression(batch, b, scale, df):  # type: ignore[no-untyped-def]
        return th.families.StudentT().log_prob(batch["y"], batch["X"] @ b, scale, df)

    fit = th.fit(regression, {"X": X, "y": torch.from_numpy(data.y)})
    fit.standard_errors()
    return fit.theta.numpy(), fit.log_likelihood


def glum(data: Data) -> tuple[np.ndarray, float | None]:
    from glum import GeneralizedLinearRegressor

    family = {"bernoulli": "binomial", "poisson": "poisson"}[data.extra["family"]]
    model = GeneralizedLinearRegressor(
        family=family,
        alpha=0,
        fit_intercept=True,
        gradient_tol=data.extra.get("gradient_tol", 1e-6),
        drop_first=True,
    )
    if "columns" in data.extra:
        model.fit(data.frame[data.extra["columns"]], data.y, offset=np.log(data.frame["exposure"].to_numpy()))
    else:
        model.fit(data.X, data.y)
    return np.r_[model.intercept_, model.coef_], None


def sklearn(data: Data, solver: str) -> tuple[np.ndarray, float | None]:
    from sklearn.linear_model import LogisticRegression, PoissonRegressor

    if data.extra["family"] == "bernoulli":
        model = LogisticRegression(C=np.inf, solver=solver, tol=1e-6, max_iter=1000).fit(data.X, data.y)
        return np.r_[model.intercept_, model.coef_[0]], None
    model = PoissonRegressor(alpha=0.0, solver=solver, tol=1e-6, max_iter=1000).fit(data.X, data.y)
    return np.r_[model.intercept_, model.coef_], None


def sklearn_newton(data: Data) -> tuple[np.ndarray, float | None]:
    return sklearn(data, "newton-cholesky")


def sklearn_lbfgs(data: Data) -> tuple[np.ndarray, float | None]:
    return sklearn(data, "lbfgs")


def statsmodels(data: Data) -> tuple[np.ndarray, float | None]:
    import statsmodels.api as sm

    X = sm.add_constant(data.X)
    if data.extra["family"] == "bernoulli":
        fit = sm.GLM(data.y, X, family=sm.families.Binomial()).fit()
    elif data.extra["family"] == "poisson":
        fit = sm.GLM(data.y, X, family=sm.families.Poisson()).fit()
    else:
        fit = sm.NegativeBinomial(data.y, X).fit(disp=0, maxiter=200)
        return np.r_[fit.params[:-1], np.log(fit.params[-1])], float(fit.llf)
    return np.asarray(fit.params), float(fit.llf)


def statsmodels_summary(data: Data) -> tuple[np.ndarray, float | None]:
    import statsmodels.formula.api as smf

    fit = smf.logit(data.formula, data.frame).fit(disp=0)
    str(fit.summary())
    return np.asarray(fit.params), float(fit.llf)


def statsmodels_generic(data: Data) -> tuple[np.ndarray, float | None]:
    """GenericLikelihoodModel with BFGS as its documentation writes such models: scipy's logpdf, its own
    default start."""
    from scipy.stats import t

    return _generic(data, lambda z, df: t.logpdf(z, df), helped=False)


def statsmodels_helped(data: Data) -> tuple[np.ndarray, float | None]:
    """The same with the density written out by hand, and from a least-squares start: help that we do not
    get."""
    from scipy.special import gammaln

    def log_density(z: np.ndarray, df: float) -> np.ndarray:
        return (
            gammaln((df + 1) / 2)
            - gammaln(df / 2)
            - 0.5 * np.log(df * np.pi)
            - (df + 1) / 2 * np.log1p(z**2 / df)
        )

    return _generic(data, log_density, helped=True)


def _generic(
    data: Data, log_density: Callable[[np.ndarray, float], np.ndarray], helped: bool
) -> tuple[np.ndarray, float | None]:
    import statsmodels.api as sm
    from statsmodels.base.model import GenericLikelihoodModel

    class T(GenericLikelihoodModel):
        def loglikeobs(self, params: np.ndarray) -> np.ndarray:
            beta, scale, df = params[:-2], np.exp(params[-2]), np.exp(params[-1])
            return log_density((self.endog - self.exog @ beta) / scale, df) - np.log(scale)

    X = sm.add_constant(data.X)
    first = (
        {"start_params": np.r_[np.linalg.lstsq(X, data.y, rcond=None)[0], 0.0, np.log(5.0)]} if helped else {}
    )
    fit = T(data.y, X, extra_params_names=["scale", "df"]).fit(method="bfgs", disp=0, maxiter=500, **first)
    _ = fit.bse
    return np.asarray(fit.params), float(fit.llf)


def gram(data: Data) -> tuple[np.ndarray, float | None]:
    """One XᵀX, the unit of the bar: numpy's, in whichever of the two memory orders is faster here
    (columns)."""
    X = data.extra.setdefault("columns_first", np.asfortranarray(data.X))
    return (X.T @ X)[0], None


CONTESTS: dict[str, list[Contestant]] = {
    "logistic": [thetahat, glum, sklearn_newton, sklearn_lbfgs, statsmodels, gram],
    "poisson": [thetahat, glum, sklearn_newton, sklearn_lbfgs, statsmodels, gram],
    "claims": [thetahat, glum],
    "claims, 5,000 levels": [thetahat, glum],
    "negative binomial": [thetahat, statsmodels],
    "student t": [thetahat_errors, thetahat_own, statsmodels_generic, statsmodels_helped],
    "small logistic": [thetahat_summary, statsmodels_summary],
}
