"""The terms of a formula, and which coordinates of θ are theirs.

A term is tested by all of its coefficients together: a factor of five levels has four, and so has each of them in every
logit of a categorical response. A term contains another if it has all of its factors: a:b contains a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from formulaic.parser.types import Term

from ..data.design import Design
from ..data.expressions import shown
from ..data.formula import column_of, terms_of
from ..errors import BadArgument
from ..likelihood import Objective
from ..models.mixed import Mixed
from ..models.regression import Predictor, Regression


@dataclass(frozen=True)
class ModelTerm:
    """A term, its factors, and its coordinates in θ."""

    name: str
    factors: frozenset[str]
    places: tuple[int, ...]

    def contains(self, other: ModelTerm) -> bool:
        """Whether the other is marginal to it."""
        return other.factors < self.factors


def regression_of(objective: Objective) -> Regression | None:
    """The regression whose coefficients stand first in θ; None of other models."""
    model = objective.model
    regression = model.regression if isinstance(model, Mixed) else model
    return regression if isinstance(regression, Regression) and len(objective.terms) == 1 else None


def predictors_of(objective: Objective, parameter: str | None, what: str) -> list[Predictor]:
    """The linear predictors that are meant: one parameter's; None: the first's, with those that share its columns.

    Raises
    ------
    BadArgument
        the model has no linear predictors, or no such parameter
    """
    model = regression_of(objective)
    if model is None or not model.predictors:
        raise BadArgument(
            f"{what} is of the terms of a formula, and the model is a {type(objective.model).__name__}, which has none. Of its "
            "parameters: fit.test('b = 0', 'likelihood_ratio')."
        )
    if parameter is None:
        first = model.predictors[0].parameter
        return [p for p in model.predictors if p.spec.own_predictors or p.parameter == first]
    found = [p for p in model.predictors if p.parameter == parameter]
    if not found:
        own = ", ".join(repr(p.parameter) for p in model.predictors)
        raise BadArgument(f"parameter={parameter!r} of {what} is not estimated here. Accepted: {own}.")
    return found


def model_terms(
    objective: Objective, parameter: str | None = None, what: str = "a test of terms"
) -> list[ModelTerm]:
    """The terms of a family's parameter, in the order of the formula, main effects first; without the intercept, and
    without the columns of smooth terms.

    Examples
    --------
    >>> import thetahat as th
    >>> ships = th.data.shipped("ships")
    >>> fit = th.fit("incidents ~ type + period + offset(log(service))", ships, "poisson")
    >>> [(term.name, term.places) for term in model_terms(fit.objective)]
    [('type', (1, 2, 3, 4)), ('period', (5,))]
    """
    predictors = predictors_of(objective, parameter, what)
    places: dict[str, list[int]] = {}
    factors: dict[str, frozenset[str]] = {}
    for predictor in predictors:
        for name, own, at in _of_design(predictor.design):
            factors[name] = own
            places.setdefault(name, []).extend(predictor.start + i for i in at)
    return [ModelTerm(name, factors[name], tuple(at)) for name, at in places.items()]


def _of_design(design: Design) -> list[tuple[str, frozenset[str], list[int]]]:
    """(name, factors, columns among the design's names) of each term."""
    first = int(design.intercept)
    if design.dense is None and not design.coded:  # columns as they are, of which there may be thousands
        return [(name, frozenset([name]), [first + i]) for i, name in enumerate(design.numeric)]
    at: dict[str, list[int]] = {}
    dense = first + len(design.numeric) - int(design.dense_has_intercept)
    for term, columns in design.dense.term_indices.items() if design.dense is not None else ():
        at[str(term)] = [dense + i for i in columns]
    start = first + design.columns
    for coded in design.coded:
        at[coded.term] = list(range(start, start + coded.size))
        start += coded.size
    out = []
    for term in terms_of(design.formula):
        column, explicit = column_of(next(iter(term.factors)))
        plain = len(term.factors) == 1 and not explicit and column in design.numeric
        own = [first + design.numeric.index(str(column))] if plain else at.get(str(term), [])
        own = own or at.get(shown(str(term)), [])
        if own:
            out.append((shown(str(term)), factors_of(term), own))
    return sorted(out, key=lambda each: len(each[1]))


def factors_of(term: Term) -> frozenset[str]:
    """A term's factors as the user knows them: columns by their own names."""
    return frozenset(shown(str(f.expr)) for f in term.factors)


def matching(name: str, terms: Sequence[ModelTerm]) -> ModelTerm | None:
    """The term of that name; None where there is none."""
    plain = _folded(name)
    return next((t for t in terms if _folded(t.name) == plain), None)


def _folded(name: str) -> frozenset[str]:
    return frozenset(part.replace(" ", "").replace("`", "") for part in name.split(":"))
