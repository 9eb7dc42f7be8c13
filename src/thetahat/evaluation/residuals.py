"""Residuals and influence.

    quantile   Φ⁻¹(u), u = F(y); where y has a mass, u is uniform between F(y−) and F(y): standard normal if the model is true
    response   y − E[y]
    pearson    (y − E[y]) / √Var[y]
    deviance   sign(y − θ₁)·√(2(max log p(y | θ₁) − log p(y))), the maximum over the first parameter, which is at θ₁ = y

A deviance residual is of the likelihood itself: of a normal it is (y − μ)/σ, a generalised linear model's own
divided by √dispersion.

References
----------
Dunn and Smyth (1996), Randomized quantile residuals; Cook (1977), Detection of influential observation in
linear regression; Williams (1987), Generalized linear model diagnostics using the deviance and single case
deletions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtri_exp
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument, FlatDirection, NoCurvature
from ..families.base import Family
from ..families.censored import Censored, log_tail
from ..families.truncated import Truncated
from ..inference.bread import KINKED, double
from ..likelihood import LogLikelihood, Objective
from ..models import HMM
from ..models.regression import Regression
from ..protocols import Categories, Steers, Working
from ..types import ModelLike
from .fitted_values import batches, eta_of, extras_of, family_for, mean_of, parameters_of, response_of

KINDS = ("quantile", "response", "pearson", "deviance")
NEAR = 1e-4  # how far from θ₁ = y the saturated value is checked to be lower
CELLS = 2**22  # entries of a block of gradient rows


def residuals(
    model: ModelLike, source: Batch | Source, kind: str = "quantile", *, seed: int = 0
) -> np.ndarray:
    """One residual a row.

    Parameters
    ----------
    model
        at θ̂
    source
        with the response
    kind
        one of `KINDS`
    seed
        of the uniform numbers that spread a mass

    Returns
    -------
    np.ndarray
        (n,)

    Raises
    ------
    BadArgument
        an unknown kind, or a family without what it needs (a cdf, a mean, a variance, a first parameter that
        y estimates)
    """
    if kind not in KINDS:
        raise BadArgument(f"residuals kind {kind!r}. Accepted: {', '.join(map(repr, KINDS))}.")
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, HMM):
        return np.concatenate([_hidden(model, batch, kind, generator) for batch in batches(source, model)])
    family_for(model, "residuals")
    return np.concatenate([_of(model, batch, kind, generator) for batch in batches(source, model)])


def _of(model: ModelLike, batch: Batch, kind: str, generator: torch.Generator) -> np.ndarray:
    family, y = model.family, response_of(model, batch)
    if kind == "quantile":
        v = torch.rand(len(y), dtype=torch.float64, generator=generator)
        return quantile(family, y, v, parameters_of(model, batch), extras_of(model, batch))
    if isinstance(family, Censored) and bool((batch["event"] != 1).any()):
        raise BadArgument(
            f"a {kind} residual of a censored row does not exist: y was not seen. Accepted: 'quantile'."
        )
    if kind == "deviance":
        return deviance(model, batch, y).numpy()
    if kind == "pearson" and isinstance(family, Working):
        raise BadArgument(f"{family.working} It has no Pearson residual. Accepted: 'quantile', 'response'.")
    residual = y - mean_of(model, batch)
    if kind == "response":
        return residual.numpy()
    if not family.has("variance"):
        raise BadArgument(
            f"{family} has no variance, and a Pearson residual divides by it. Accepted: 'quantile', "
            "'response'."
        )
    out: np.ndarray = (
        residual / family.variance(*parameters_of(model, batch), **extras_of(model, batch)).sqrt()
    ).numpy()
    return out


def _hidden(model: HMM, batch: Batch, kind: str, generator: torch.Generator) -> np.ndarray:
    """One-step-ahead residuals of a hidden Markov model: y_t given y_1 … y_{t−1} is a mixture of its states' families.
    NaN where y is missing."""
    if kind not in ("quantile", "response"):
        raise BadArgument(
            f"a {kind} residual is of a family, and y given the past is a mixture of {model.k}. Accepted: 'quantile', "
            "'response'."
        )
    y, seen = response_of(model, batch), model.seen(batch)
    weight = model.predicted(batch)
    if kind == "response":
        return (y - model.mixed(batch, weight)).numpy()
    lacking = [c.family for c in model.states if not c.family.has("cdf")]
    if lacking:
        raise BadArgument(f"{lacking[0]} has no cdf: there are no quantile residuals of it.")
    rows, v = batch[seen], torch.rand(len(y), dtype=torch.float64, generator=generator)[seen]
    with torch.no_grad():
        parts = [
            torch.stack(tails(c.family, y[seen], parameters_of(c, rows), extras_of(c, rows)))
            for c in model.states
        ]
        mixed = torch.logsumexp(torch.stack(parts) + torch.log(weight[:, seen])[:, None], 0)
    out = np.full(len(y), np.nan)
    out[seen.numpy()] = _from_tails(mixed[0], mixed[1], mixed[2], v)
    return out


# ---- quantile ----------------------------------------------------------------------------------------------


def quantile(
    family: Family, y: Tensor, v: Tensor, theta: Sequence[Tensor], extras: dict[str, Tensor]
) -> np.ndarray:
    """Φ⁻¹(F(y−) + v·p(y)), each (n,), from whichever tail has the digits: v spreads a mass, and does
    nothing to a density."""
    if not family.has("cdf"):
        raise BadArgument(
            f"{family} has no cdf: its y has no order, or none is known. There are no quantile residuals of "
            "it."
        )
    with torch.no_grad():
        return _from_tails(*tails(family, y, theta, extras), v)


def _from_tails(log_below: Tensor, log_mass: Tensor, log_above: Tensor, v: Tensor) -> np.ndarray:
    """Φ⁻¹ of log P(below), log P(what was seen), log P(above)."""
    log_u = torch.logaddexp(log_below, torch.log(v) + log_mass)
    log_rest = torch.logaddexp(log_above, torch.log1p(-v) + log_mass)
    lower = ndtri_exp(log_u.clamp(max=0.0).numpy())
    upper = -ndtri_exp(log_rest.clamp(max=0.0).numpy())
    out: np.ndarray = np.where(log_u.numpy() < log_rest.numpy(), lower, upper)
    return out


def tails(
    family: Family, y: Tensor, theta: Sequence[Tensor], extras: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """log P(Y < what was seen), log P(what was seen), log P(Y > what was seen); the middle is −∞ where Y
    has a density there."""
    if isinstance(family, Censored):
        inside, inner = _entered(family, extras)
        below, mass, above = tails(inside, y, theta, inner)
        event, upper = extras["event"], extras.get("upper", torch.full_like(y, torch.inf))
        right, left, between = event == 0, event == 2, event == 3
        beyond = log_tail(inside, torch.where(between, upper, y), True, theta, inner)
        below = torch.where(
            left, -torch.inf, torch.where(right | between, log_tail(inside, y, False, theta, inner), below)
        )
        above = torch.where(right, -torch.inf, torch.where(left | between, beyond, above))
        return below, torch.where(event == 1, mass, family.log_prob(y, *theta, **extras)), above
    above = log_tail(family, y, True, theta, extras)
    if family.measure == "mass":
        return log_tail(family, y - 1, False, theta, extras), family.log_prob(y, *theta, **extras), above
    below = log_tail(family, y, False, theta, extras)
    if family.measure == "density":
        return below, torch.full_like(y, -torch.inf), above
    atom = y == family.support.low
    mass = torch.where(atom, family.log_prob(y, *theta, **extras), -torch.inf)
    return torch.where(atom, -torch.inf, below), mass, above


def _entered(family: Censored, extras: dict[str, Tensor]) -> tuple[Family, dict[str, Tensor]]:
    """The family of the true value given that it entered, y > entry, and its extras."""
    inner = family.inner(extras)
    if "entry" not in extras:
        return family.family, inner
    if not isinstance(family.family, Truncated):
        return Truncated(family.family), {**inner, "low": extras["entry"]}
    low, high = family.family.window(inner)
    return family.family, {
        **inner,
        "low": torch.maximum(low, extras["entry"]),
        "high": high.expand(extras["entry"].shape),
    }


# ---- deviance ----------------------------------------------------------------------------------------------


def deviance(model: ModelLike, batch: Batch, y: Tensor) -> Tensor:
    """Signed square roots of twice what log p would gain if the first parameter fitted this row alone, (n,).

    Raises
    ------
    BadArgument
        log p is not largest at θ₁ = y (a shape, a rate, a beta's mean): there is no closed form to compare
        with
    """
    family = model.family
    name, spec = next(iter(family.parameters.items()))
    theta, extras = parameters_of(model, batch), extras_of(model, batch)
    if name not in ("mean", "location") or isinstance(family, Categories):
        raise BadArgument(
            f"a deviance residual compares with {name} = y, which {family} does not allow. Accepted: "
            "'quantile', 'pearson'."
        )
    own = y / extras["trials"] if "trials" in extras else y
    tiny = torch.finfo(torch.float64)
    low, high = (
        spec.range.low + tiny.tiny,
        spec.range.high - tiny.eps,
    )  # y = 0 of a Poisson: the limit of a vanishing mean

    def log_p(first: Tensor) -> Tensor:
        out: Tensor = family.log_prob(y, first.clamp(low, high), *theta[1:], **extras)
        return out

    with torch.no_grad():
        most = log_p(own)
        step = NEAR * own.abs().clamp(min=NEAR)
        if bool(((log_p(own + step) > most + 1e-12) | (log_p(own - step) > most + 1e-12)).any()):
            raise BadArgument(
                f"log p of {family} is not largest at {name} = y, so a deviance residual has no closed form. "
                "Accepted: 'quantile', 'pearson'."
            )
        fitted = family.log_prob_eta(y, *eta_of(model, batch), **extras)
        out: Tensor = torch.sign(own - theta[0]) * (2 * (most - fitted)).clamp(min=0).sqrt()
        return out


# ---- influence ---------------------------------------------------------------------------------------------


def influence(objective: Objective, theta: Tensor) -> pd.DataFrame:
    """How much each row pulls at the coefficients of the first parameter.

        leverage  h_i = tr(J_i J⁻¹)          cook  D_i = s_iᵀ J⁻¹ s_i / (p (1 − h_i)²)

    J_i, J and s_i are the row's information, the whole (priors included) and the row's score, in the
    coefficients of the first parameter (and of those that share its predictors, the logits of a categorical
    family); p is how many they are. A row counted c times is the c of them together. Of a generalised linear
    model h_i is the diagonal of the hat matrix by the observed information, and Σ h_i = p. D_i is Cook's
    distance after one Newton step, with the dispersion that maximises the likelihood.

    Returns
    -------
    pd.DataFrame
        columns leverage and cook, a row a row

    Raises
    ------
    BadArgument
        the model has no linear predictors
    FlatDirection
        the information is singular
    NoCurvature
        a prior has a kink
    """
    objective = objective.at(theta)
    model = objective.model
    if isinstance(model, Steers):
        raise BadArgument(
            "the rows of a mixed model share random effects, so that none has an information of its own: its leverage and Cook's "
            "distance are not defined as those of a regression are. Fit again without a group, or see fit.outliers()."
        )
    if not isinstance(model, Regression) or len(objective.terms) != 1:
        raise BadArgument(
            "influence is of a regression, whose rows have predictors; the model is a "
            f"{type(model).__name__}."
        )
    if objective.kinked:
        raise NoCurvature(KINKED)
    information = objective.taylor(order=2).information
    assert information is not None
    block = [j for j, p in enumerate(model.predictors) if j == 0 or p.spec.own_predictors]
    free = torch.cat(
        [
            torch.arange(model.predictors[j].start, model.predictors[j].start + model.predictors[j].size)
            for j in block
        ]
    )
    factor = double(information).restrict(free).factor()
    if factor is None:
        raise FlatDirection(
            "the information is singular: no row's leverage is defined. Read fit.certificate."
        )
    term, parts = objective.terms[0], []
    step = max(1, CELLS // (len(free) * len(block)))
    for batch in batches(term.source, model):
        for start in range(0, len(batch), step):
            parts.append(_influence(term, model, batch[start : start + step], block, free, factor))
    leverage, cook = torch.cat(parts, 1).numpy()
    return pd.DataFrame({"leverage": leverage, "cook": cook})


def _influence(
    term: LogLikelihood, model: Regression, batch: Batch, block: list[int], free: Tensor, factor: Any
) -> Tensor:
    """(2, n): h and D of one block of rows."""
    n, one = len(batch), torch.ones(len(batch), dtype=torch.float64)
    _, score, curvature = model.row_derivatives(batch)
    weight = term.weight(batch)
    w = one if weight is None else weight

    def rows(slopes: dict[int, Tensor]) -> Tensor:
        """∂/∂θ, (n, q), of a function with these slopes in the predictors."""
        zero = torch.zeros(n, dtype=torch.float64)
        full = [slopes.get(j, zero) for j in range(len(model.predictors))]
        return model.gradient_rows(batch, full)[:, free]

    X = {j: rows({j: one}) for j in block}
    Z = {j: factor.solve(X[j].T.contiguous()).T for j in block}
    leverage = torch.zeros(n, dtype=torch.float64)
    for a in block:
        for b in block:
            leverage -= w * curvature[min(a, b), max(a, b)].expand(n) * (X[a] * Z[b]).sum(1)
    s = rows({j: w * score[j].expand(n) for j in block})
    pull = (s * factor.solve(s.T.contiguous()).T).sum(1)
    return torch.stack([leverage, pull / (len(free) * (1 - leverage) ** 2)])
