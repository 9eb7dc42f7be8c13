"""Predictions with their intervals, and draws.

    confidence   of the prediction itself: h(θ̂) ± t·√(∇h V ∇hᵀ) on the scale of the link, mapped back
    prediction   of a new y: quantiles of draws y ~ p(· | θ), θ ~ N(θ̂, V), so that both the noise and the doubt about θ are in them; of a
                 normal linear model the formula, xᵀβ̂ ± t·√(s² + xᵀVx)
    plug-in      of a new y as if θ̂ were true: the family's own quantiles

References
----------
Oehlert (1992), A note on the delta method; King, Tomz and Wittenberg (2000), Making the most of statistical
analyses (the draws).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..distributions import student
from ..errors import BadArgument
from ..families.base import Family, Parameter
from ..inference.covariance import Clusters, Covariance, default, linear, prepare
from ..inference.natural import own_places
from ..likelihood import Objective
from ..models.base import family_of
from ..models.regression import Regression
from ..protocols import Categories, PredictsMean, Samples, Working
from ..types import ModelLike
from .fitted_values import (
    Function,
    as_levels,
    batches,
    centre,
    eta_of,
    extras_of,
    family_for,
    free_of,
    gradient_rows,
    levels_of,
    mean_of,
    natural_at,
    parameters_of,
    with_slopes,
)

KINDS = ("confidence", "prediction", "plug-in")
DRAWS = 2000
CELLS = 2**23  # numbers held at once: rows of gradients, draws of rows


def predict(
    objective: Objective,
    theta: Tensor,
    rows: Batch | Source,
    what: str = "mean",
    *,
    level: float | None = None,
    kind: str = "confidence",
    covariance: str | Covariance | None = None,
    clusters: Clusters = None,
    seed: int = 0,
) -> np.ndarray | pd.DataFrame:
    """What the model at θ̂ says of each row.

    Parameters
    ----------
    objective, theta
        θ̂, (p,)
    rows
        new rows, or a source
    what
        "mean" (E[y], on the scale of the response as the formula writes it; of a quantile regression the quantile), "linear" (η of the first
        parameter), "quantile" (of y, at `level`), "probabilities" (of each category), or the name of one of
        the family's further parameters
    level
        of the interval, between 0 and 1; None: no interval. For "quantile": which one
    kind
        one of `KINDS`; the last two are of a new y, and take what="mean"
    covariance, clusters
        V of θ̂ (`inference.covariance`); None: the fit's default
    seed
        of the draws

    Returns
    -------
    np.ndarray | pd.DataFrame
        (n,) values; with a level a data frame with columns value, low, high; for "probabilities" a data frame
        with a column a category

    Raises
    ------
    BadArgument
        an unknown name, a level outside (0, 1), or something that the family does not have
    FlatDirection
        an interval is asked for, and θ̂ has no covariance
    """
    model = objective.model
    if kind not in KINDS:
        raise BadArgument(f"predict kind {kind!r}. Accepted: {', '.join(map(repr, KINDS))}.")
    if level is not None and not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    objective = objective.at(theta)
    if what == "quantile":
        return _quantiles(model, rows, level)
    if level is None:
        if what == "probabilities":
            return _probabilities(model, rows)
        return np.concatenate([_values(model, batch, what) for batch in batches(rows, model)])
    if kind != "confidence" and what == "probabilities":
        raise BadArgument(
            f"kind={kind!r} is an interval of a new y, and a probability is not one. Accepted: 'confidence'."
        )
    if kind != "confidence" and what != "mean":
        raise BadArgument(
            f"kind={kind!r} is an interval of a new y; received what={what!r}. Accepted: 'mean'."
        )
    family = family_of(model)
    if kind != "confidence" and isinstance(family, Working):
        raise BadArgument(
            f"kind={kind!r}: {family.working} An interval of a new y is that between two fitted quantiles, of levels 0.025 and "
            "0.975 for 95%."
        )
    if kind == "plug-in":
        return _of_new(objective, theta, rows, level, None, seed)
    V = prepare(objective, covariance or default(objective), clusters)
    if what == "probabilities":
        return _probability_intervals(objective, rows, level, V)
    if kind == "confidence":
        return _intervals(objective, rows, lambda batch: _target(model, batch, what), level, V)
    return (
        _of_linear(objective, rows, level, V)
        if linear(objective)
        else _of_new(objective, theta, rows, level, V, seed)
    )


def sample(model: ModelLike, rows: Batch | Source, n: int | None = None, *, seed: int = 0) -> np.ndarray:
    """Draws of y from the model as it stands: (rows,), or (n, rows) with n. Categories come as their levels.

    Raises
    ------
    BadArgument
        the model cannot draw, or n is no whole number above 0
    """
    if not isinstance(model, Samples):
        raise BadArgument(f"a {type(model).__name__} has no sample(batch) method, which draws need.")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise BadArgument(f"n={n!r}. Accepted: a whole number of at least 1, or None for one draw a row.")
    generator = torch.Generator().manual_seed(seed)
    parts = []
    with torch.no_grad():
        for batch in batches(rows, model):
            if family_of(model) is not None:
                extras_of(model, batch)  # says what is missing
            parts.append(torch.stack([model.sample(batch, generator=generator) for _ in range(n or 1)]))
    drawn = torch.cat(parts, 1)
    return as_levels(model, (drawn[0] if n is None else drawn).cpu().numpy())


# ---- values ------------------------------------------------------------------------------------------------


def _values(model: ModelLike, batch: Batch, what: str) -> np.ndarray:
    if family_of(model) is None and what == "mean" and isinstance(model, PredictsMean):
        with torch.no_grad():
            return model.mean(batch).cpu().numpy()
    if what == "mean" and family_for(model, "mean").has("expectation"):
        return mean_of(model, batch).cpu().numpy()
    target = _target(model, batch, what)
    with torch.no_grad():
        eta = eta_of(model, batch)
        return target.back(target.forward(*eta), eta, True).to("cpu", torch.float64).numpy()


def _quantiles(model: ModelLike, rows: Batch | Source, level: float | None) -> np.ndarray:
    family = family_for(model, "quantile")
    if level is None:
        raise BadArgument("what='quantile' needs level: which quantile of y, such as level=0.9.")
    if not family.has("quantile"):
        raise BadArgument(f"{family} has no quantiles.")
    parts = []
    for batch in batches(rows, model):
        q = torch.full((len(batch),), level, dtype=torch.float64)
        parts.append(family.quantile(q, *parameters_of(model, batch), **extras_of(model, batch)).numpy())
    return as_levels(model, np.concatenate(parts))


def _probabilities(model: ModelLike, rows: Batch | Source) -> pd.DataFrame:
    """A column a category."""
    of = _shares(family_for(model, "probabilities"))
    with torch.no_grad():
        found = torch.cat([of(*parameters_of(model, batch)) for batch in batches(rows, model)])
    return pd.DataFrame(found.numpy(), columns=list(levels_of(model) or range(found.shape[-1])))


def _probability_intervals(
    objective: Objective, rows: Batch | Source, level: float, V: Covariance
) -> pd.DataFrame:
    """Of each category value, low and high, each interval on the logit scale."""
    model = objective.model
    family = family_for(model, "probabilities")
    of = _shares(family)

    def one(j: int) -> Callable[..., _Target]:
        def forward(*eta: Tensor) -> Tensor:
            p = of(*natural_at(family, eta))[..., j]
            return torch.log(p) - torch.log1p(-p)

        return lambda batch: _Target(forward, lambda t, eta, high: torch.sigmoid(t))

    first = next(iter(batches(rows, model)))
    size = of(*parameters_of(model, first[:1])).shape[-1]
    names = list(levels_of(model) or range(size))
    return pd.concat([_intervals(objective, rows, one(j), level, V) for j in range(size)], axis=1, keys=names)


def _shares(family: Family) -> Function:
    """The family's parameters → the probability of each category, (n, K)."""
    if isinstance(family, Categories):
        return family.probabilities
    if family.support.binary:
        return lambda mean: torch.stack([1 - mean, mean], -1)
    raise BadArgument(
        f"{family} has no probabilities of categories. Accepted: 'mean', 'linear', 'quantile', or a "
        "parameter's name."
    )


# ---- confidence --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """A prediction as a number on a scale where its estimate is nearly normal, and the way back.

    forward : (η_1, …, η_k) → t, (n,)
    back : (t, η, whether t is an upper end) → the prediction
    """

    forward: Function
    back: Callable[[Tensor, Sequence[Tensor], bool], Tensor]


def _target(model: ModelLike, batch: Batch, what: str) -> _Target:
    family = family_for(model, f"{what!r} to predict")
    names = list(family.parameters)
    other = ", ".join(repr(name) for name in names if name != "mean")
    labels = {model.label(name): name for name in names} if isinstance(model, Regression) else {}
    if what == "linear":
        return _Target(lambda *eta: eta[0], lambda t, eta, high: t)
    if what != "mean" and (what in names or what in labels):
        j = names.index(what if what in names else labels[what])
        if len(eta_of(model, batch)) != len(names):
            raise BadArgument(f"the network gives {family} one logit a category: take what='probabilities'.")
        spec = family.parameters[names[j]]
        return _Target(lambda *eta: eta[j], lambda t, eta, high: _inverse(spec, t, eta[j], high))
    if what != "mean":
        raise BadArgument(
            f"predict has no what={what!r}. Accepted: {_plain(family)}{', ' * bool(other)}{other}; with times= 'survival', "
            "'cumulative_hazard', 'hazard', 'restricted_mean'."
            + " The median: what='quantile', level=0.5."
            * (what == "median" and family.has("quantile"))
        )
    if not family.has("expectation"):
        raise BadArgument(f"{family} has no mean. Accepted: {_plain(family)}, {', '.join(map(repr, names))}.")
    return _mean(model, family, batch)


def _plain(family: Family) -> str:
    """What can be predicted of the family besides its parameters."""
    own = {
        "mean": family.has("expectation"),
        "linear": True,
        "quantile": family.has("quantile"),
        "probabilities": isinstance(family, Categories) or family.support.binary,
    }
    return ", ".join(repr(name) for name, has in own.items() if has)


def _mean(model: ModelLike, family: Family, batch: Batch) -> _Target:
    """On the link's scale where the mean is a function of one estimated parameter; else log, logit or as
    it is, by the family's support."""
    extras = extras_of(model, batch)
    specs = list(family.parameters.values())

    def mean(*eta: Tensor) -> Tensor:
        return centre(family, natural_at(family, eta), **extras)

    with torch.no_grad():
        value = mean(*eta_of(model, batch))
    if value.ndim > 1:
        return _Target(mean, lambda t, eta, high: t)
    slopes = with_slopes(mean, eta_of(model, batch))[1]
    places = free_of(model, range(len(slopes)))
    moving = [j for j in places if bool((slopes[j] != 0).any())]
    if len(moving) == 1:
        j = moving[0]

        def back(t: Tensor, eta: Sequence[Tensor], high: bool) -> Tensor:
            parameters = family.natural(eta)
            parameters[j] = _inverse(specs[j], t, eta[j], high)
            return centre(family, parameters, **extras)

        return _Target(lambda *eta: eta[j], back)
    low, high = family.support.low, family.support.high
    if not math.isfinite(low):
        return _Target(mean, lambda t, eta, high: t)
    if not math.isfinite(high):
        return _Target(lambda *eta: torch.log(mean(*eta) - low), lambda t, eta, high: low + torch.exp(t))
    width = high - low
    return _Target(
        lambda *eta: torch.log(mean(*eta) - low) - torch.log(high - mean(*eta)),
        lambda t, eta, high: low + width * torch.sigmoid(t),
    )


def _inverse(spec: Parameter, t: Tensor, eta: Tensor, high: bool) -> Tensor:
    """The parameter of a linear predictor; where an interval of it leaves the link's range, the
    parameter's own end; NaN where η̂ does."""
    value = spec.link.inverse(t)
    value = torch.where(
        spec.range.contains(value), value, spec.range.high if high == spec.link.increasing else spec.range.low
    )
    return torch.where(spec.limits.outside(eta), torch.nan, value)


def _intervals(
    objective: Objective,
    rows: Batch | Source,
    target_of: Callable[[Batch], _Target],
    level: float,
    V: Covariance,
) -> pd.DataFrame:
    """t̂ ± q·√(∇t V ∇tᵀ), q the quantile of Student's t with the degrees of freedom of V, mapped back, row by
    row."""
    model, places = objective.model, own_places(objective)
    parts = []
    for batch in _cut(rows, model, objective.size):
        target = target_of(batch)
        eta, t, G = _linearised(objective, batch, target.forward, places)
        half = _quantile(V, G, level) * V.diagonal(G).sqrt()
        ends = torch.stack([target.back(t - half, eta, False), target.back(t + half, eta, True)])
        parts.append(torch.stack([target.back(t, eta, True), ends.amin(0), ends.amax(0)], 1))
    return pd.DataFrame(torch.cat(parts).numpy(), columns=["value", "low", "high"])


def _linearised(
    objective: Objective, batch: Batch, forward: Function, places: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """η, t = forward(η) and ∂t/∂θ, (n, p)."""
    model = objective.model
    eta = [e.detach() for e in eta_of(model, batch)]
    t, slopes = with_slopes(forward, eta)
    if t.ndim > 1:
        raise BadArgument(
            f"the mean of {model.family} is a vector, and an interval is of a number. Leave level out."
        )
    G = torch.zeros(len(batch), objective.size, dtype=torch.float64)
    G[:, places] = gradient_rows(model, batch, slopes)
    return eta, t, G


def standard_errors(objective: Objective, rows: Batch | Source, V: Covariance) -> np.ndarray:
    """√(∇μ V ∇μᵀ) of the mean μ of each row, on the scale of the response: the delta method, (n,).

    Raises
    ------
    BadArgument
        the family has no mean, or a vector of them
    """
    model, places = objective.model, own_places(objective)
    family = family_for(model, "mean")
    if not family.has("expectation"):
        raise BadArgument(f"{family} has no mean, and so no standard error of one.")
    parts = []
    for batch in _cut(rows, model, objective.size):
        extras = extras_of(model, batch)

        def mean(*eta: Tensor, extras: dict[str, Tensor] = extras) -> Tensor:
            return centre(family, natural_at(family, eta), **extras)

        parts.append(V.diagonal(_linearised(objective, batch, mean, places)[2]).sqrt())
    return torch.cat(parts).numpy()


def _quantile(V: Covariance, G: Tensor, level: float) -> Tensor:
    """Student's (1 + level)/2 quantile for each row of G."""
    return torch.from_numpy(student.ppf((1 + level) / 2, V.freedom(G).numpy()))


def _cut(rows: Batch | Source, model: ModelLike, width: int) -> Iterator[Batch]:
    """Batches of at most so many rows that (rows, width) fits."""
    step = max(256, CELLS // max(width, 1))
    for batch in batches(rows, model):
        for start in range(
            0, max(len(batch), 1), step
        ):  # of no rows one batch without any: a table without rows
            yield batch[start : start + step]


# ---- of a new y --------------------------------------------------------------------------------------------


def _of_new(
    objective: Objective, theta: Tensor, rows: Batch | Source, level: float, V: Covariance | None, seed: int
) -> pd.DataFrame:
    """Columns value (the mean; the median where there is none), low and high of a new y; V = None: as if
    θ̂ were true."""
    model = objective.model
    family = family_for(model, "new y to predict")
    if not family.has("cdf"):
        raise BadArgument(
            f"{family} describes a y without an order: it has no interval. Take what='probabilities'."
        )
    q = torch.tensor([0.5, (1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = None
    if V is not None:  # θ ~ N(θ̂, V)
        z = torch.randn(objective.size, DRAWS, dtype=torch.float64, generator=generator)
        drawn = (theta[:, None] + V.draws(z)).T
    parts = []
    for batch in _cut(rows, model, 1 if drawn is None else len(drawn)):
        if drawn is None:
            parameters, extras = parameters_of(model, batch), extras_of(model, batch)
            found = torch.stack([family.quantile(v.expand(len(batch)), *parameters, **extras) for v in q])
        else:
            found = _simulated(objective, batch, theta, drawn, q, generator)
        if family.has("expectation") and levels_of(model) is None:
            found[0] = mean_of(model, batch)
        parts.append(found)
    value, low, high = torch.cat(parts, 1).numpy()
    return pd.DataFrame(
        {"value": as_levels(model, value), "low": as_levels(model, low), "high": as_levels(model, high)}
    )


def _of_linear(objective: Objective, rows: Batch | Source, level: float, V: Covariance) -> pd.DataFrame:
    """A new y of a normal linear model: xᵀβ̂ ± t·√(s² + xᵀVx), s² = σ̂² n/(n − p), exact where V is
    s²(XᵀX)⁻¹."""
    model = objective.model
    n, p = objective.observations, model.predictors[0].size
    parts = []
    for batch in _cut(rows, model, objective.size):
        mean, scale = parameters_of(model, batch)
        one = torch.ones(len(batch), dtype=torch.float64)
        G = torch.zeros(len(batch), objective.size, dtype=torch.float64)
        G[:, own_places(objective)] = gradient_rows(model, batch, [one, 0 * one])
        half = _quantile(V, G, level) * (scale**2 * (n / (n - p)) + V.diagonal(G)).sqrt()
        parts.append(torch.stack([mean, mean - half, mean + half], 1))
    return pd.DataFrame(torch.cat(parts).numpy(), columns=["value", "low", "high"])


def _simulated(
    objective: Objective, batch: Batch, theta: Tensor, drawn: Tensor, q: Tensor, generator: torch.Generator
) -> Tensor:
    """Quantiles (3, n) of y ~ p(· | θ_d) over the draws; a draw that leaves a parameter's range is left
    out."""
    family, extras = objective.model.family, extras_of(objective.model, batch)
    centre = parameters_of(objective.model, batch)
    columns: list[list[Tensor]] = []
    with torch.no_grad():
        for one in drawn:
            with objective.moved(one) as here:  # a constant is a view of θ, which moves on
                columns.append([v.clone() for v in natural_at(family, eta_of(here.model, batch))])
    parameters = [torch.stack(each) for each in zip(*columns, strict=True)]  # k of (DRAWS, n)
    return quantiles_of_draws(family, parameters, centre, extras, q, generator)


def quantiles_of_draws(
    family: Family,
    parameters: Sequence[Tensor],
    centre: Sequence[Tensor],
    extras: dict[str, Tensor],
    q: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Quantiles (q, n) of y ~ p(· | parameters) over the draws, (DRAWS, n) each; a draw that leaves a parameter's range is
    left out, and a row whose centre (n,) does is NaN."""
    inside = torch.ones_like(parameters[0], dtype=torch.bool)
    specs = list(family.parameters.values())
    for value, own, spec in zip(parameters, centre, specs, strict=False):
        inside &= spec.range.contains(value) & spec.range.contains(own)
    middles = [spec.range.middle for spec in specs] or [0.0] * len(parameters)
    parameters = [
        torch.where(inside, value, middle) for value, middle in zip(parameters, middles, strict=True)
    ]
    shape = parameters[0].shape
    y = family.sample(
        *parameters, generator=generator, **{name: e.expand(shape) for name, e in extras.items()}
    )
    known = inside.any(0)
    y = torch.where(inside | ~known, y, torch.nan)
    method = "inverted_cdf" if family.measure == "mass" else "linear"
    found = torch.from_numpy(np.nanquantile(y.numpy(), q.numpy(), axis=0, method=method))  # type: ignore[call-overload]
    return torch.where(known, found, torch.nan)
