"""The terms that a fit lacks, each added to its formula and fitted to exactly the same rows (R's add1)."""

from __future__ import annotations

import math

import pandas as pd
from torch import Tensor

from ..data.expressions import shown, unquote, written
from ..data.formula import read
from ..data.frame import Frame
from ..data.table import Table
from ..errors import BadArgument, NotConverged
from ..likelihood import LogLikelihood, Objective
from ..models.formulas import formula_model
from ..models.mixed import Mixed
from ..solvers import choose, optimise
from ..types import Levels, Named
from .anova import chosen_test, row_of, table
from .terms import ModelTerm, model_terms, regression_of


def add1(
    objective: Objective, theta: Tensor, call: Named, scope: str, test: str | None = None
) -> pd.DataFrame:
    """What the fit gains by each term of a scope, a row a term: degrees_of_freedom, log_likelihood and AIC of the fit with it,
    statistic, p_value. The first row is of the fit as it is.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum
    call
        by which it was fitted
    scope
        terms, "x + z + x:z". Those that the fit has are left out, and so are interactions whose margins it lacks
    test
        "likelihood_ratio" or "F"; None: "F" of a normal linear model

    Raises
    ------
    BadArgument
        no term can be added, the rows are not at hand, or a new column is missing in rows that were fitted
    NotConverged
        a larger fit has no certified maximum

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("loss ~ air_flow", th.data.shipped("stackloss"))
    >>> fit.add1("water_temperature + acid")["statistic"].round(3).to_dict()
    {'none': nan, 'water_temperature': 12.425, 'acid': 0.581}
    """
    test = chosen_test(objective, test)
    if test == "wald":
        raise BadArgument(
            "test='wald' is of coefficients that the fit has, and add1 adds others. Accepted: 'likelihood_ratio', 'F'."
        )
    source, formula = objective.terms[0].source, call.get("formula")
    if not isinstance(source, Table) or not isinstance(formula, str) or regression_of(objective) is None:
        raise BadArgument("add1 adds to a formula, and fits again to its rows: the fit has not both.")
    whole = source.frame.whole
    asked = read(scope, whole, trusted=bool(call.get("trusted")))
    known = model_terms(objective, None, "add1")
    wanted = _addable(asked.terms, known, scope)
    columns = sorted({*source.encoder.required, *asked.required})
    rows = whole.read(columns)[columns]
    rows = rows if source.kept is None else rows[source.kept]
    _refuse_missing(rows, asked.required, source.kept)
    value, n = objective.value(theta), objective.observations
    out = [{"log_likelihood": value, "AIC": -2 * value + 2 * objective.size}]
    for name in wanted:
        larger = _with(objective, call, formula, name, rows)
        found, df = larger.value(), larger.size - objective.size
        statistic = max(2 * (found - value), 0.0)
        row = (
            row_of(df, statistic) if test == "likelihood_ratio" else _f(larger, df, math.expm1(statistic / n))
        )
        out.append({**row, "log_likelihood": found, "AIC": -2 * found + 2 * larger.size})
    return table(out, ["none", *(shown(unquote(name)) for name in wanted)])


def _f(larger: Objective, df: int, excess: float) -> dict[str, float]:
    """F of the larger fit's residuals: (RSS₀ − RSS₁)/df over RSS₁/(n − p₁)."""
    regression = regression_of(larger)
    assert regression is not None
    error = larger.observations - regression.predictors[0].size
    return row_of(df, excess * error / df, error)


def _addable(terms: Levels, known: list[ModelTerm], scope: str) -> list[str]:
    """The terms, as they may be written, that the fit lacks and whose margins it has."""
    own = {t.factors for t in known}
    margins = {frozenset([f]) for t in known for f in t.factors}
    every = [frozenset(str(f.expr) for f in t.factors) for t in terms]
    out = []
    for term, factors in zip(terms, every, strict=True):
        needed = [e for e in every if e < factors]  # margins that the scope itself has
        lacking = [e for e in needed if e not in own]
        if (
            factors in own
            or lacking
            or (len(factors) > 1 and any(frozenset([f]) not in margins for f in factors))
        ):
            continue
        out.append(written(str(term)))
    if not out:
        raise BadArgument(
            f"the scope {scope!r} has no term to add: the fit has them ({', '.join(t.name for t in known)}), or it lacks "
            "the main effects of their interactions."
        )
    return out


def _refuse_missing(rows: pd.DataFrame, columns: tuple[str, ...], kept: object) -> None:
    for name in columns:
        gone = rows[name].isna().to_numpy()
        if gone.any():
            raise BadArgument(
                f"the column {name!r} is missing in {int(gone.sum())} of the {len(rows)} rows that were fitted, the first of them "
                f"row {rows.index[int(gone.argmax())]}: fits of different rows cannot be compared. Fit again to the rows that have it."
            )


def _with(objective: Objective, call: Named, formula: str, term: str, rows: pd.DataFrame) -> Objective:
    """The fit with one term more, at its maximum."""
    model = objective.model
    old = objective.terms[0].source
    reml, points = (model.reml, model.points) if isinstance(model, Mixed) else (False, 1)
    built, source = formula_model(
        f"{formula} + {term}",
        Frame(rows),
        model.family,
        parameters=call.get("parameters"),
        weights=call.get("weights"),
        trusted=bool(call.get("trusted")),
        reml=reml,
        quadrature=points,
    )
    if source.rows != old.size or source.fingerprint != old.fingerprint:
        raise BadArgument(
            f"with {term!r} the fit has {source.rows} rows, and without it {old.size}: they cannot be compared."
        )
    larger = Objective([LogLikelihood(built, source)])
    found, certificate, _ = optimise(larger, choose(larger))
    if not certificate.ok:
        raise NotConverged(f"the fit with {term!r} has no certified maximum: {certificate}", certificate)
    return found
