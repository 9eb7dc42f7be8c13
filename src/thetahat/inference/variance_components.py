"""Variance components with profile intervals, and the likelihood-ratio test of a variance at its boundary.

The profiles are those of `variance_profiles`.

Where one variance is 0 under the hypothesis, and k − 1 covariances with it, 2Δℓ ~ ½χ²_{k−1} + ½χ²_k.

Source: Self and Liang (1987), Asymptotic properties of maximum likelihood
estimators and likelihood ratio tests under nonstandard conditions; Stram and Lee (1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ..distributions import chi2
from ..errors import BadArgument
from ..likelihood import Objective
from ..models.base import names_of
from ..models.latent import LatentModel
from ..models.mixed import Mixed
from ..models.random_effects import Random, RandomEffects
from ..models.scales import Diagonal, OfCurve, Penalised, Unstructured
from ..models.series import RandomWalk
from ..notebook import Printed
from . import intervals as wald
from .variance_profiles import interval, mixed, residual_scale, without

KINDS = ("profile", "wald")


def components(objective: Objective, level: float = 0.95, intervals: str | None = "profile") -> pd.DataFrame:
    """A row a standard deviation and a correlation: parameter, group, term, sd, variance, correlation, low, high.

    low and high are of the standard deviation, or of the correlation; an end of the range (0, ±1) where the data do not
    exclude it, NaN where a profile was not found. Of a correlation with a standard deviation of 0 nothing is known: −1 to 1.
    Wald's are 0 and NaN of a standard deviation that is less than half its interval's width from 0.

    Raises
    ------
    BadArgument
        no random effects, an unknown kind of interval, a level outside (0, 1)
    """
    model = mixed(objective)
    if intervals is not None and intervals not in KINDS:
        raise BadArgument(f"intervals={intervals!r}. Accepted: 'profile', 'wald', None.")
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    theta, names = objective.theta, names_of(model)
    values = model.natural(theta)
    rows, at = [], len(model.coefficients)
    for r in model.random:
        own = r.structure.names(r.effects, r.label)
        for i, short in enumerate(own):
            value, corr = float(values[at + i]), short.startswith("corr(")
            term = short[short.index("(") + 1 : short.rindex(" |")] if " |" in short else r.label
            low, high = math.nan, math.nan
            if intervals == "profile":
                low, high = interval(objective, at + i, value, level, corr)
            elif intervals == "wald":
                found = wald.intervals(objective, theta, level, parameters=[names[at + i]])
                low, high = float(found["low"].iloc[0]), float(found["high"].iloc[0])
            rows.append(
                {
                    "parameter": r.parameter,
                    "group": r.label,
                    "term": term,
                    "sd": math.nan if corr else value,
                    "variance": math.nan if corr else value**2,
                    "correlation": value if corr else math.nan,
                    "low": low,
                    "high": high,
                }
            )
        at += len(own)
    if model.normal:
        rows.append(_residual(objective, level, intervals))
    return pd.DataFrame(rows)


def _residual(objective: Objective, level: float, intervals: str | None) -> dict[str, object]:
    model = mixed(objective)
    place = residual_scale(model)
    sigma = float(model.sigma(objective.theta[: len(model.coefficients)]))
    low, high = math.nan, math.nan
    if intervals == "profile":
        low, high = interval(objective, place, sigma, level, False)
    elif intervals == "wald":
        found = wald.intervals(objective, objective.theta, level, parameters=[names_of(model)[place]])
        low, high = float(found["low"].iloc[0]), float(found["high"].iloc[0])
    return {
        "parameter": "scale",
        "group": "Residual",
        "term": "",
        "sd": sigma,
        "variance": sigma**2,
        "correlation": math.nan,
        "low": low,
        "high": high,
    }


# ---- profile -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VarianceTest(Printed):
    """A likelihood-ratio test that a term's variances are 0. Prints itself.

    Parameters
    ----------
    term
        what is left out under the hypothesis
    statistic
        2(ℓ₁ − ℓ₀)
    weights
        degrees of freedom → its weight in the mixture of χ²
    p_value
        P(mixture ≥ statistic)
    bound
        whether p is an upper bound, because the mixture's weights are not known
    """

    term: str
    statistic: float
    weights: dict[int, float]
    p_value: float
    bound: bool = False

    def __str__(self) -> str:
        mixture = " + ".join(f"{w:g}·χ²({k})" for k, w in self.weights.items())
        sign = "≤" if self.bound else "="
        return f"without {self.term}: 2Δℓ = {self.statistic:.4f}, referred to {mixture}, p {sign} {self.p_value:.4g}"


def test_random(objective: Objective, term: str) -> VarianceTest:
    """Whether a term of random effects, one effect of it, or a smooth term's bend, is needed: the model fitted again without
    it.

    Parameters
    ----------
    term
        as the formula has it, "(1 | Subject)" (or without its brackets, where no effect has that name), or its group, "Subject",
        or a smooth term, "s(x)"; "Days | Subject" or "sd(Days | Subject)": that effect and its covariances alone (Stram and Lee
        1994: ½χ²(q − 1) + ½χ²(q) of q effects)

    Raises
    ------
    BadArgument
        no term of that name
    """
    model = mixed(objective)
    wanted = term.replace(" ", "")
    one = _effect(model, wanted) if isinstance(model, Mixed) else None
    if one is not None:
        return _test_effect(objective, *one)
    own = isinstance(model, LatentModel)
    mine = [
        r
        for r in model.random
        if wanted in (r.text.replace(" ", ""), r.label, f"({r.label})", _curve_label(model, r))
        or f"({wanted})" == r.text.replace(" ", "")
        or (own and wanted == r.parameter)
    ]
    if not mine:
        known = ", ".join(dict.fromkeys(r.text for r in model.random))
        raise BadArgument(f"no random or smooth term is called {term!r}. Terms: {known}.")
    top = objective.value()
    value = without(objective, mine)
    _refuse_local(mine[0].text, value, top)
    statistic = max(2 * (top - value), 0.0)
    weights, bound = mixture(mine)
    return VarianceTest(mine[0].text, statistic, weights, beyond(statistic, weights), bound=bound)


def mixture(gone: Sequence[Random]) -> tuple[dict[int, float], bool]:
    """The mixture of χ², degrees of freedom → weight, to which 2(ℓ₁ − ℓ₀) is referred where these terms' variances are 0, and
    whether p is an upper bound only."""
    variances = sum(len(r.structure.scale_places()) for r in gone)
    weights, bound = chi_bar(variances, sum(r.structure.size for r in gone) - variances)
    plain = (Diagonal, Unstructured, Penalised, OfCurve, RandomWalk)
    correlated = any(not isinstance(r.structure, plain) for r in gone)
    return weights, correlated or bound


def chi_bar(variances: int, covariances: int) -> tuple[dict[int, float], bool]:
    """The mixture where so many variances are 0 and with them so many covariances; of several of both its weights are not
    known, and p is an upper bound (Self and Liang 1987; Stram and Lee 1994)."""
    if variances == 0:
        return {covariances: 1.0}, False
    if variances == 1:
        return {covariances: 0.5, covariances + 1: 0.5}, False
    if covariances == 0:
        return {k: math.comb(variances, k) * 0.5**variances for k in range(variances + 1)}, False
    return {variances + covariances - 1: 0.5, variances + covariances: 0.5}, True


def _curve_label(model: RandomEffects, r: Random) -> str | None:
    """Of a curve of each group "s(x,g)", as `fit.smooths` has it."""
    return str(model.encoder.smooths[r.curve].label) if isinstance(model, Mixed) and r.each else None


def _effects(r: Random) -> tuple[str, ...]:
    """What each scale of a term is of, where each has its own."""
    if isinstance(r.structure, OfCurve):
        return r.structure.parts
    return r.effects if isinstance(r.structure, (Diagonal, Unstructured)) and not r.smooth else ()


def _effect(model: Mixed, wanted: str) -> tuple[Random, int] | None:
    """The term and the number of an effect that is named as its standard deviation is."""
    wanted = wanted[3:-1] if wanted.startswith("sd(") and wanted.endswith(")") else wanted
    for r in model.random:
        effects = _effects(r)
        for i, effect in enumerate(effects if len(effects) > 1 else ()):
            if wanted == f"{effect}|{r.label}".replace(" ", ""):
                return r, i
    return None


def _test_effect(objective: Objective, r: Random, effect: int) -> VarianceTest:
    top, value = objective.value(), without(objective, [r], effect)
    name = f"{_effects(r)[effect]} | {r.label}"
    _refuse_local(name, value, top)
    statistic = max(2 * (top - value), 0.0)
    k = len(r.effects) - 1 if isinstance(r.structure, Unstructured) else 0
    weights = {k: 0.5, k + 1: 0.5}
    return VarianceTest(name, statistic, weights, beyond(statistic, weights))


def beyond(statistic: float, weights: dict[int, float]) -> float:
    """P(Σ w χ²_k ≥ statistic)."""
    return sum(
        w * (float(chi2.sf(statistic, k)) if k else float(statistic < 1e-9)) for k, w in weights.items()
    )


def _refuse_local(text: str, value: float, top: float) -> None:
    if value > top + 1e-6:
        raise BadArgument(
            f"the fit without {text} has a higher likelihood, by {value - top:.3g} nats: the fit stands at a local maximum, and "
            "the ratio of the two is not a test."
        )


def r_squared(objective: Objective) -> pd.Series:
    """Marginal and conditional R² of Nakagawa and Schielzeth, and the intraclass correlation.

        marginal = Var_f / (Var_f + Var_r + Var_e),   conditional = (Var_f + Var_r) / (…),   icc = Var_r / (Var_r + Var_e)

    The share of each grouping factor, "icc(g)", is that of its own terms' variance in the denominator of icc.

    Var_f of the fixed part's linear predictor over the rows, Var_r the mean over the rows of zᵀΣz, Var_e the residual
    variance of a normal response, π²/3 of a logit link, 1 of a probit one, log(1 + 1/μ̄) of a Poisson with log link.

    Raises
    ------
    BadArgument
        no residual variance is known for the family

    Source: Nakagawa, Johnson and Schielzeth (2017); Johnson (2014), for random slopes.
    """
    from ..models.mixed import effect_columns

    model = mixed(objective)
    if not isinstance(model, Mixed):
        raise BadArgument(
            "R² and the intraclass correlation are of a linear predictor, and a likelihood of one's own has none."
        )
    batch = next(iter(objective.terms[0].source.batches(model)))
    theta = objective.theta
    p = len(model.coefficients)
    eta = model.regression.eta(batch, theta[:p])[0].expand(len(batch))
    fixed, sigma = float(eta.var()), float(model.sigma(theta[:p]))
    shares: dict[str, float] = {}
    for r, at in zip(model.random, model.places, strict=True):
        if r.parameter != model.regression.predictors[0].parameter or r.smooth:
            continue
        z = effect_columns(model, r, batch)
        lam = sigma * r.structure.factor(theta[p:][at]).numpy()
        shares[r.label] = shares.get(r.label, 0.0) + float(((lam.T @ z) ** 2).sum(0).mean())
    random = sum(shares.values())
    residual = _residual_variance(model, sigma, eta, random)
    total = fixed + random + residual
    return pd.Series(
        {
            "marginal": fixed / total,
            "conditional": (fixed + random) / total,
            "icc": random / (random + residual),
            **{f"icc({label})": own / (random + residual) for label, own in shares.items()},
        },
        name="R²",
    )


def _residual_variance(model: Mixed, sigma: float, eta: Tensor, random: float) -> float:
    family, link = type(model.family).__name__, str(next(iter(model.family.parameters.values())).link)
    if model.normal:
        return sigma**2
    if family in ("Bernoulli", "Binomial") and link in ("logit", "probit"):
        return math.pi**2 / 3 if link == "logit" else 1.0
    if family == "Poisson" and link == "log":
        return math.log1p(1 / float(torch.exp(eta.mean() + 0.5 * random)))
    raise BadArgument(
        f"R² and the intraclass correlation need a residual variance on the link's scale, which is not known for {model.family} "
        f"with link {link}. Known: normal; Bernoulli and binomial with logit or probit; Poisson with log."
    )
