"""Works of further families, on the designs of `works.py`: gamma, Tweedie with its power given and estimated, ordinal, multinomial and
quantile regression of 100,000 × 30, zero-inflated and hurdle negative binomial regression of 20,000 × 5.

A contestant returns the intercept (where the model has one) and the slopes, or, where libraries write the coefficients
differently, none and the log-likelihood. None of the peers estimates a Tweedie power by maximum likelihood: statsmodels's
moment estimate of it, and a fit with that power, stand for it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from works import Contestant, Data, dense, thetahat

POWER, LEVEL = 1.5, 0.75


# ---- data --------------------------------------------------------------------------------------------------


def _data(
    n: int, p: int, draw: Callable[[np.random.Generator, np.ndarray], Any], family: Any, **more: Any
) -> Data:
    X, eta, frame, formula = dense(n, p, 0)
    y = draw(np.random.default_rng(1), eta)
    codes = np.asarray(y.codes if isinstance(y, pd.Categorical) else y, dtype=float)
    return Data(frame.assign(y=y), X, codes, formula, {"family": family} | more)


def gamma(n: int = 100_000, p: int = 30) -> Data:
    return _data(n, p, lambda rng, eta: rng.gamma(2.0, np.exp(0.5 * eta) / 2), "gamma")


def _compound(rng: np.random.Generator, eta: np.ndarray) -> np.ndarray:
    """Tweedie of power 1.5 and dispersion 1: a Poisson number, 2√μ, of gamma amounts of shape 1 and scale ½√μ."""
    root = np.exp(0.25 * eta)
    number = rng.poisson(2 * root)
    return np.where(number > 0, rng.gamma(np.maximum(number, 1), root / 2), 0.0)


def tweedie(n: int = 100_000, p: int = 30) -> Data:
    return _data(
        n, p, _compound, "tweedie", parameters={"power": "~ 0"}
    )  # 0 on the logit scale of (1, 2): 1.5


def tweedie_free(n: int = 100_000, p: int = 30) -> Data:
    return _data(n, p, _compound, "tweedie")


def ordinal(n: int = 100_000, p: int = 30) -> Data:
    def draw(rng: np.random.Generator, eta: np.ndarray) -> pd.Categorical:
        latent = eta + rng.logistic(size=n)
        return pd.Categorical.from_codes(np.digitize(latent, [-1.5, 0.0, 1.0]), list("abcd"), ordered=True)

    return _data(n, p, draw, "ordinal")


def multinomial(n: int = 100_000, p: int = 30) -> Data:
    def draw(rng: np.random.Generator, eta: np.ndarray) -> pd.Categorical:
        utility = np.outer(eta, [0.0, 0.5, 1.0, -0.5]) + rng.gumbel(size=(n, 4))
        return pd.Categorical.from_codes(utility.argmax(1), list("abcd"))

    return _data(n, p, draw, "categorical")


def quantile(n: int = 100_000, p: int = 30) -> Data:
    return _data(n, p, lambda rng, eta: eta + rng.standard_t(4, size=n), "asymmetric_laplace")


def zero_inflated(n: int = 20_000, p: int = 5) -> Data:
    def draw(rng: np.random.Generator, eta: np.ndarray) -> np.ndarray:
        mu = np.exp(0.5 * eta + 1)
        return np.where(rng.random(n) < 0.3, 0, rng.negative_binomial(2, 2 / (2 + mu)))

    return _data(n, p, draw, "zero_inflated_negative_binomial")


def hurdle(n: int = 20_000, p: int = 5) -> Data:
    data = zero_inflated(n, p)
    zero = {"zero": data.formula.removeprefix("y ")}
    return Data(
        data.frame, data.X, data.y, data.formula, {"family": "hurdle_negative_binomial", "parameters": zero}
    )


# ---- contestants -------------------------------------------------------------------------------------------

Answer = tuple[np.ndarray, float | None]


def _formula_fit(data: Data, family: Any) -> Any:
    import thetahat as th

    return th.fit(data.formula, data.frame, family, **data.extra.get("parameters", {}))


def thetahat_slopes(data: Data) -> Answer:
    """Those of the first predictor, without the intercept."""
    fit = _formula_fit(data, data.extra["family"])
    places = [fit.names.index(name) for name in data.frame.columns.drop("y")]
    return fit.theta[places].numpy(), fit.log_likelihood


def thetahat_value(data: Data) -> Answer:
    fit = _formula_fit(data, data.extra["family"])
    return np.empty(0), fit.log_likelihood


def thetahat_quantile(data: Data) -> Answer:
    import thetahat as th

    fit = _formula_fit(data, th.families.AsymmetricLaplace(LEVEL))
    return fit.theta[: data.X.shape[1] + 1].numpy(), None


def glum(data: Data) -> Answer:
    from glum import GeneralizedLinearRegressor, TweedieDistribution

    family: Any = TweedieDistribution(POWER) if data.extra["family"] == "tweedie" else "gamma"
    model = GeneralizedLinearRegressor(family=family, link="log", alpha=0, gradient_tol=1e-6).fit(
        data.X, data.y
    )
    return np.r_[model.intercept_, model.coef_], None


def sklearn_newton(data: Data) -> Answer:
    from sklearn.linear_model import GammaRegressor, LogisticRegression, TweedieRegressor

    settings: dict[str, Any] = {"solver": "newton-cholesky", "tol": 1e-6, "max_iter": 1000}
    if data.extra["family"] == "categorical":
        return np.empty(0), _log_score(LogisticRegression(C=np.inf, **settings).fit(data.X, data.y), data)
    if data.extra["family"] == "gamma":
        model = GammaRegressor(alpha=0.0, **settings).fit(data.X, data.y)
    else:
        model = TweedieRegressor(power=POWER, link="log", alpha=0.0, **settings).fit(data.X, data.y)
    return np.r_[model.intercept_, model.coef_], None


def sklearn_lbfgs(data: Data) -> Answer:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf, solver="lbfgs", tol=1e-6, max_iter=1000).fit(data.X, data.y)
    return np.empty(0), _log_score(model, data)


def _log_score(model: Any, data: Data) -> float:
    return float(model.predict_log_proba(data.X)[np.arange(len(data.y)), data.y.astype(int)].sum())


def sklearn_quantile(data: Data) -> Answer:
    """By linear programming, its default."""
    from sklearn.linear_model import QuantileRegressor

    model = QuantileRegressor(quantile=LEVEL, alpha=0.0, solver="highs").fit(data.X, data.y)
    return np.r_[model.intercept_, model.coef_], None


def pyfixest_quantile(data: Data) -> Answer:
    """By Frisch and Newton's interior points."""
    import pyfixest as pf

    fit = pf.quantreg(data.formula, data.frame, quantile=LEVEL, method="fn", vcov="nid")
    return fit.coef().to_numpy(), None


def quantreg(data: Data) -> tuple[np.ndarray, float | None, float]:
    """R's, by Frisch and Newton's interior points, as its documentation advises for so many rows; the seconds are R's own of
    the fit."""
    if shutil.which("Rscript") is None:
        raise RuntimeError("there is no Rscript")
    n, p = data.X.shape
    with tempfile.NamedTemporaryFile() as file:
        np.column_stack([data.y, data.X]).T.astype("<f8").tofile(file.name)
        script = f"""
            suppressMessages(library(quantreg))
            m <- matrix(readBin("{file.name}", "double", {n * (p + 1)}, size = 8, endian = "little"), {n})
            d <- data.frame(y = m[, 1], m[, -1])
            seconds <- system.time({{ f <- rq(y ~ ., tau = {LEVEL}, data = d, method = "fn") }})[["elapsed"]]
            cat(sprintf("%.17g", c(seconds, coef(f))))
        """
        said = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=True).stdout
    seconds, *coefficients = map(float, said.split())
    return np.array(coefficients), None, seconds


def statsmodels_quantile(data: Data) -> Answer:
    import statsmodels.api as sm

    fit = sm.QuantReg(data.y, sm.add_constant(data.X)).fit(q=LEVEL)
    return np.asarray(fit.params), None


def statsmodels_tweedie(data: Data) -> Answer:
    import statsmodels.api as sm

    X, link = sm.add_constant(data.X), sm.families.links.Log()
    model = sm.GLM(data.y, X, family=sm.families.Tweedie(link=link, var_power=POWER))
    fit = model.fit()
    if "parameters" not in data.extra:
        power = model.estimate_tweedie_power(fit.mu)
        fit = sm.GLM(data.y, X, family=sm.families.Tweedie(link=link, var_power=power)).fit()
    return np.asarray(fit.params), None


def statsmodels_gamma(data: Data) -> Answer:
    import statsmodels.api as sm

    family = sm.families.Gamma(link=sm.families.links.Log())
    fit = sm.GLM(data.y, sm.add_constant(data.X), family=family).fit()
    return np.asarray(fit.params), None


def statsmodels_ordinal(data: Data) -> Answer:
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    fit = OrderedModel(data.y.astype(int), data.X, distr="logit").fit(method="bfgs", disp=0, maxiter=500)
    return np.asarray(fit.params)[: data.X.shape[1]], float(fit.llf)


def statsmodels_multinomial(data: Data) -> Answer:
    import statsmodels.api as sm

    fit = sm.MNLogit(data.y.astype(int), sm.add_constant(data.X)).fit(disp=0)
    return np.empty(0), float(fit.llf)


def statsmodels_zero_inflated(data: Data) -> Answer:
    from statsmodels.api import add_constant
    from statsmodels.discrete.count_model import ZeroInflatedNegativeBinomialP

    model = ZeroInflatedNegativeBinomialP(data.y, add_constant(data.X))  # its zeros have an intercept alone
    fit = model.fit(method="bfgs", disp=0, maxiter=1000)
    return np.asarray(fit.params)[1:-1], float(fit.llf)


def statsmodels_hurdle(data: Data) -> Answer:
    """Its two parts: a logistic regression of y = 0, and the truncated negative binomial regression of the others."""
    import statsmodels.api as sm
    from statsmodels.discrete.truncated_model import TruncatedLFNegativeBinomialP

    X, above = sm.add_constant(data.X), data.y > 0
    zero = sm.Logit((~above).astype(float), X).fit(disp=0)
    rest = TruncatedLFNegativeBinomialP(data.y[above], X[above]).fit(method="bfgs", disp=0, maxiter=1000)
    return np.asarray(rest.params)[:-1], float(zero.llf + rest.llf)


WORKS: dict[str, Callable[..., Data]] = {
    "gamma": gamma,
    "Tweedie, power 1.5": tweedie,
    "Tweedie, power estimated": tweedie_free,
    "ordinal": ordinal,
    "multinomial": multinomial,
    "quantile": quantile,
    "zero-inflated negative binomial": zero_inflated,
    "hurdle negative binomial": hurdle,
}

CONTESTS: dict[str, list[Contestant]] = {
    "gamma": [thetahat, glum, sklearn_newton, statsmodels_gamma],
    "Tweedie, power 1.5": [thetahat, glum, sklearn_newton, statsmodels_tweedie],
    "Tweedie, power estimated": [thetahat, statsmodels_tweedie],
    "ordinal": [thetahat_slopes, statsmodels_ordinal],
    "multinomial": [thetahat_value, sklearn_newton, sklearn_lbfgs, statsmodels_multinomial],
    "quantile": [thetahat_quantile, statsmodels_quantile, pyfixest_quantile, quantreg, sklearn_quantile],
    "zero-inflated negative binomial": [thetahat, statsmodels_zero_inflated],
    "hurdle negative binomial": [thetahat, statsmodels_hurdle],
}
