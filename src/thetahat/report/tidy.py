"""Tidy tables of a fit: a row an estimate, one row a fit, a row an observation.

Source: Robinson (2014), broom: an R package for converting statistical analysis objects into tidy data frames,
whose three verbs these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..data.batch import Batch
from ..data.frame import Frame
from ..data.table import Table
from ..errors import BadArgument, FitError, ModelError, ThetahatError
from ..evaluation import new_data, predict, residuals
from ..evaluation.outliers import alignment_of
from ..families import Bernoulli, Binomial, NegativeBinomial, Normal, Poisson
from ..io.without_rows import Recalled
from ..likelihood.total import folded
from ..models import Regression
from ..models.base import family_of
from ..models.mixed import Mixed
from ..models.random_effects import RandomEffects
from ..protocols import Categories, encoder_of
from ..types import Data, ModelLike, Plain
from .facts import Line, constants, errors_of, is_network, known, lines_of
from .frames import whole
from .ratios import exponential

if TYPE_CHECKING:
    from ..inference.covariance import Covariance
    from ..result import Fit

COLUMNS = ("term", "estimate", "standard_error", "statistic", "p_value", "low", "high", "parameter")
ADDED = ("fitted", "linear", "standard_error", "quantile_residual", "leverage")
LIMITS = ("deviance", "r_squared", "marginal_r_squared", "conditional_r_squared")  # NaN where not known


def places(fit: Fit) -> list[tuple[str, str, str]]:
    """Of each estimate the family's parameter, its term there, and its grouping factor ("" of a fixed effect)."""
    model = fit.model
    regression = model.regression if isinstance(model, Mixed) else model
    found: list[tuple[str, str, str]] = []
    if isinstance(regression, Regression):
        constant = regression.constants
        for p in regression.predictors:
            label = regression.label(p.parameter)
            names = [label] if p.size and constant[p.start] else p.design.names
            found += [(label, name, "") for name in names]
    if isinstance(model, RandomEffects):
        own = model.effect_names()
        found += [("", name, "") for name in fit.names[len(found) : len(fit.names) - len(own)]]
        for r in model.random:
            found += [(r.parameter, name, r.label) for name in r.structure.names(r.effects, r.label)]
    return found or [("", name, "") for name in fit.names]


def as_written(fit: Fit) -> list[int]:
    """The positions of the estimates in the order of the formulas' terms."""
    model = fit.model
    regression = model.regression if isinstance(model, Mixed) else model
    order: list[int] = []
    if isinstance(regression, Regression):
        for p in regression.predictors:
            order += (p.start + p.design.as_written).tolist()
    return [*order, *range(len(order), len(fit.names))]


def estimates(fit: Fit, level: float, exponentiate: bool) -> tuple[list[Line], str]:
    """A line an estimate, and why there are no standard errors; exp(β̂) with its own error, in β̂'s place."""
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    table, without = errors_of(fit, level)
    lines = lines_of(fit, table)
    if not exponentiate:
        return lines, without
    return [
        line if kept else exponential(line) for line, kept in zip(lines, constants(fit), strict=True)
    ], without


def tidy(fit: Fit, level: float, exponentiate: bool) -> pd.DataFrame:
    """A row an estimate: `COLUMNS`, and of a mixed model the grouping factor."""
    lines, _ = estimates(fit, level, exponentiate)
    every = [
        (name, x.estimate, x.standard_error, x.z, x.p, x.low, x.high, parameter, group)
        for x, (parameter, name, group) in zip(lines, places(fit), strict=True)
    ]
    rows = [every[i] for i in as_written(fit)]
    out = pd.DataFrame(rows, columns=[*COLUMNS, "group"])
    out = out.astype(dict.fromkeys(COLUMNS[1:7], np.float64))
    return out if isinstance(fit.model, RandomEffects) else out.drop(columns="group")


# ---- one row a fit -----------------------------------------------------------------------------------------


def glance(fit: Fit) -> dict[str, float | str]:
    """What one row says of a fit; NaN where a number is not known."""
    certificate = fit.certificate
    small = not is_network(fit)
    counted = small and fit.robust is None and certificate.ok and not fit.objective.kinked
    criteria = fit.criteria if counted else {}  # under a prior with a kink the parameters cannot be counted
    out: dict[str, float | str] = {
        "observations": known(fit, "observations") if small else math.nan,
        "parameters": float(len(fit.theta)),
        "log_likelihood": known(fit, "log_likelihood") if small else math.nan,
        "AIC": criteria.get("AIC", math.nan),
        "BIC": criteria.get("BIC", math.nan),
        **dict.fromkeys(LIMITS, math.nan),
        "status": certificate.status,
        "gap": math.nan if certificate.nats is None else certificate.nats,
    }
    if not small or not isinstance(fit.source, Table) or isinstance(fit.objective, Recalled):
        return out
    if fit.robust is not None:  # rows that it leaves out would count
        return out
    out["deviance"] = deviance(fit)
    if isinstance(fit.model, Mixed):
        try:
            shares = fit.r_squared()
        except ThetahatError:  # of a family without a known residual variance
            return out
        out["marginal_r_squared"] = float(shares["marginal"])
        out["conditional_r_squared"] = float(shares["conditional"])
    elif _is_linear(fit.model):
        out["r_squared"] = r_squared(fit)
    return out


def _is_linear(model: ModelLike) -> bool:
    """A normal linear model with one variance, whose R² is a share of the sum of squares."""
    if not isinstance(model, Regression) or not isinstance(model.family, Normal) or not model.predictors:
        return False
    first, *others = model.predictors
    return (
        first.parameter == "mean"
        and str(first.spec.link) == "identity"
        and first.design.offset is None
        and all(p.design.constant for p in others)
    )


def _squares(fit: Fit, kind: str) -> float:
    """Σ c r² of residuals r."""
    model = fit.model

    def of(batch: Batch) -> float:
        return float(batch.count.numpy() @ residuals.residuals(model, batch, kind) ** 2)

    return folded(of, fit.source, model)


def _spread(fit: Fit) -> float:
    """Σ c (y − ȳ)², of a model without an intercept Σ c y²."""

    def sums(batch: Batch) -> np.ndarray:
        return np.array([float(batch.count.sum()), float(batch.count @ batch["y"])])

    n, total = folded(sums, fit.source, fit.model)
    centre = total / n if fit.model.predictors[0].design.intercept else 0.0
    return folded(lambda batch: float(batch.count @ (batch["y"] - centre) ** 2), fit.source, fit.model)


def deviance(fit: Fit) -> float:
    """2(Σ log p(y | μ = y) − Σ log p(y | μ̂)) of counts and shares; Σ (y − μ̂)² of a normal response, as in R; else NaN."""
    family = family_of(fit.model)
    if not isinstance(fit.model, Regression) or any(t.weights is not None for t in fit.objective.terms):
        return math.nan
    if _is_linear(fit.model):
        return _squares(fit, "response")
    elif isinstance(family, (Bernoulli, Binomial, Poisson, NegativeBinomial)):
        return _squares(fit, "deviance")
    return math.nan


def r_squared(fit: Fit) -> float:
    """1 − Σ (y − μ̂)² / Σ (y − ȳ)²; without an intercept over Σ y², as in R."""
    total = _spread(fit)
    share = 1 - _squares(fit, "response") / total if total > 0 else math.nan
    return 0.0 if abs(share) < 1e-12 else share  # rounding of a fit without slopes, as of a lasso


# ---- a row an observation ----------------------------------------------------------------------------------


def augment(fit: Fit, data: Data) -> Data:
    """The rows, and beside them what the fit says of each (`ADDED`)."""
    frame = _given(fit) if data is None else Frame(data)
    table = frame.read(list(frame.columns))[list(frame.columns)]
    taken = [name for name in ADDED if name in table.columns]
    if taken:
        raise BadArgument(
            f"augment adds a column {taken[0]!r}, and the data have one of that name. Rename it: "
            f"augment(data.rename(columns={{{taken[0]!r}: …}}))."
        )
    out = table.set_axis(pd.RangeIndex(len(table)))
    for name, values in _answers(fit, data, frame):
        out[name] = np.asarray(values, dtype=np.float64)
    found = frame.like(out if frame.index is None else out.set_axis(frame.index))
    return whole(found) if isinstance(found, pd.DataFrame) else found


def _given(fit: Fit) -> Frame:
    source = fit.source
    if not isinstance(source, Table) or source.streamed:
        raise BadArgument("augment(): the fit holds no table of its rows. Give it: augment(data).")
    return source.frame.whole


def _answers(fit: Fit, data: Data, frame: Frame) -> list[tuple[str, np.ndarray]]:
    """(column, one value a row that was given); what the model does not have is left out."""
    model = fit.model
    objective = fit._of_rows()
    source, alignment = new_data.aligned(model, fit.source, frame if data is not None else None)
    found: list[tuple[str, np.ndarray]] = []
    family = family_of(model)
    if isinstance(family, Categories):
        shares = fit.predict(frame if data is not None else None, "probabilities")
        assert isinstance(shares, pd.DataFrame)
        found += [(f"fitted[{name}]", shares[name].to_numpy()) for name in shares]
    elif family is None or not family.has("expectation"):  # of Cox's model, say
        found.append(("linear", alignment(predict.predict(objective, objective.theta, source, "linear"))))
    else:
        found.append(("fitted", alignment(predict.predict(objective, objective.theta, source))))
        V = _covariance(fit)
        if V is not None:
            found.append(("standard_error", alignment(predict.standard_errors(objective, source, V))))
    found += _seen(fit, data, frame)
    return [(name, np.asarray(values)) for name, values in found]


def _covariance(fit: Fit) -> Covariance | None:
    try:
        return fit._joint(None) if isinstance(fit.model, RandomEffects) else fit._prepared(None, None)
    except ThetahatError:  # a kink, a flat direction: no standard errors
        return None


def _seen(fit: Fit, data: Data, frame: Frame) -> list[tuple[str, np.ndarray]]:
    """What takes the response: of the rows that were fitted, or of new ones that have it."""
    if data is None:
        return [
            *_where_defined("quantile_residual", fit.residuals),
            *_where_defined("leverage", lambda: fit.influence()["leverage"]),
        ]
    encoder = encoder_of(fit.model)
    if not isinstance(fit.model, Regression) or not set(encoder.response.required) <= set(frame.columns):
        return []
    source = new_data.source_like(fit.model, frame)
    own = alignment_of(source)
    return list(_where_defined("quantile_residual", lambda: own(residuals.residuals(fit.model, source))))


def _where_defined(name: str, compute: Callable[[], Plain]) -> Iterator[tuple[str, np.ndarray]]:
    """A column; none where the model has no such thing (the leverage of a mixed model, the cdf of a category)."""
    with suppress(ModelError, FitError):
        yield name, np.asarray(compute())
