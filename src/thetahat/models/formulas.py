"""From a formula, data and a family to a Regression and its Table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .. import families
from ..data.collinear import without_collinear
from ..data.design import Design, build
from ..data.expressions import unquote, written
from ..data.formula import Predictors, read, with_others
from ..data.frame import Frame
from ..data.ordered import OrderedTable
from ..data.partitioned import PartitionedTable
from ..data.response import read_left, read_response
from ..data.selection import Selection, Sometimes
from ..data.smooths import SmoothCall, read_call
from ..data.strata import split_strata
from ..data.subsets import rows_of
from ..data.surv import FORMS, Surv, is_surv, read_surv
from ..data.table import Encoder, Extras, Table
from ..errors import BadArgument, BadFormula
from ..families.base import Family
from ..families.bernoulli import Bernoulli, Binomial
from ..families.censored import Censored
from ..families.logistic import Logistic
from ..protocols import Categories, Together
from ..types import Data, Levels, Plain, Settings
from .linear import check_together, linear, mixed, settled
from .mixed_formula import (
    Builder,
    Sides,
    check_curvature,
    check_normal_rows,
    check_quadrature,
    check_shared_parts,
    effects_read,
    needs_terms,
    sides,
)
from .regression import Regression

if TYPE_CHECKING:
    from .mixed import Mixed

_TIMES = (
    "family='weibull', 'cox', 'exponential', 'lognormal', 'loglogistic', 'gamma', or any other that has a cdf"
)
NUMBERS = (int, float, np.integer, np.floating)


def formula_model(
    formula: str,
    data: Data,
    family: Family,
    *,
    parameters: Mapping[str, str | float | int] | None = None,
    weights: str | None = None,
    carried: tuple[str, ...] = (),
    missing: str = "drop",
    trusted: bool = False,
    reml: bool = False,
    quadrature: int = 1,
    subset: Data = None,
    collinear: str = "raise",
) -> tuple[Regression | Mixed, Table]:
    """The model and the source that a formula names.

    BadFormula, BadArgument, and all of DataError

    Parameters
    ----------
    formula
        "y ~ x + C(region) + offset(log(exposure))": the response, and the predictors of the family's first
        parameter. A response Surv(time, event) (see `data.surv`) makes the family censored
    data
        whatever `data.Frame` reads
    parameters
        for each further parameter, "~ its own formula" or a number at which it is held; for each of the
        family's extras (trials, low …) the column that holds it, or a number
    weights
        a column of frequency weights
    carried
        columns that a weighting of the fit reads
    missing
        "drop" rows with a missing value, or "raise"
    trusted
        whether the formulas may hold any Python expression (`data.expressions`)
    reml, quadrature
        of random effects and smooth terms (`models.mixed`)
    collinear
        "raise", or "drop" columns that are sums of those before them (`data.collinear`)
    subset
        the rows that are fitted: a boolean a row, or an expression of columns (`data.subsets`)
    """
    if collinear not in ("raise", "drop"):
        raise BadArgument(f"collinear={collinear!r}. Accepted: 'raise', 'drop'.")
    left, right = _sides(formula)
    right, strata = split_strata(right)
    frame = Frame(data)
    family, given = settled(family, dict(parameters or {}))
    response = (
        read_surv(left, frame, trusted=trusted) if is_surv(left) else read_left(left, frame, trusted=trusted)
    )
    surv = response if isinstance(response, Surv) else None
    if isinstance(family, Together) or strata:
        check_together(family, surv, left, right, strata)
    elif surv is not None:
        family = _censored(family, surv.expression)
    if not isinstance(family, Categories):
        _sorted_out(family, dict(given), right, surv)  # what cannot be is refused before a row is read
    parts = _read(right, strata, family, given, frame, [*response.required, weights, *carried], trusted)
    own = {n: v for n, v in given.items() if isinstance(v, str) and n in family.extras}
    always = {
        *(() if surv else response.required),
        *parts.required,
        *carried,
        *([weights] if weights else []),
    }
    dates = frame.dates(sorted(parts.required))
    frame = frame.dated(dates)
    sometimes: list[Sometimes] = [Extras(own, family), *([surv] if surv else [])]
    rows = Selection(
        frame,
        sorted(always),
        weights=weights,
        carried=carried,
        missing=missing,
        sometimes=sometimes,
        subset=None if subset is None else rows_of(subset, frame, trusted=trusted),
    )
    found = response if isinstance(response, Surv) else read_response(response, rows, family)
    if found.levels is not None:
        family = _with_levels(family, found.expression, found.levels)
    formulas, fixed, extras = _sorted_out(family, given, right, surv)
    designs: list[Design] = []
    builder = Builder(rows, parts.effects, designs, family)
    slots = _built(formulas, family, parts, builder, rows, collinear)
    if strata:
        slots["strata"] = len(designs)
        designs.append(build(parts.predictors[strata], rows))
    if all(parts.apart[text].plain for text in formulas.values()):
        needs_terms(reml, quadrature)
        encoder = Encoder(found, tuple(designs), extras, weights, carried, dates=dates)
        table = _plain(rows, encoder, family, slots)
        return linear(family, encoder, slots, fixed, table), table
    random = [
        r
        for name, text in formulas.items()
        for r in (*builder.random(name, parts.apart[text].random), *builder.smooth(name, parts.smooth[text]))
    ]
    encoder = Encoder(
        found,
        tuple(designs),
        extras,
        weights,
        carried,
        tuple(builder.groupings),
        tuple(builder.curves),
        dates,
    )
    table = Table(rows, encoder, family, together=True)
    check_shared_parts(random, builder.curves)
    check_quadrature(random, quadrature, reml)
    check_curvature(random, family)
    check_normal_rows(random, builder.groupings, table.rows, family)
    return mixed(linear(family, encoder, slots, fixed, table), random, reml=reml, points=quadrature), table


@dataclass(frozen=True)
class _Parts:
    """Every right-hand side by its text: fixed predictors, random effects and smooth terms."""

    apart: dict[str, Sides]
    predictors: dict[str, Predictors]
    effects: dict[str, Predictors]
    smooth: dict[str, list[SmoothCall]]

    @property
    def required(self) -> set[str]:
        """The columns that they read."""
        return {
            *(name for p in (*self.predictors.values(), *self.effects.values()) for name in p.required),
            *(name for own in self.apart.values() for call in own.random for name in call.group),
            *(name for calls in self.smooth.values() for call in calls for name in call.columns),
        }


def _read(
    right: str,
    strata: str,
    family: Family,
    given: Settings,
    frame: Frame,
    used: Sequence[str | None],
    trusted: bool,
) -> _Parts:
    """The right-hand sides of all parameters, and strata, before a row is read."""
    further = (_predictors(n, v) for n, v in given.items() if isinstance(v, str) and n not in family.extras)
    apart = {text: sides(text) for text in dict.fromkeys([right, "1", *further])}
    others = _others(frame, used, apart.values(), given.values())
    apart = {text: replace(own, fixed=with_others(own.fixed, others)) for text, own in apart.items()}
    predictors = {text: read(own.fixed, frame, trusted=trusted) for text, own in apart.items()}
    effects = effects_read(apart, frame, trusted=trusted)
    smooth = {text: [read_call(each, frame.columns) for each in own.smooth] for text, own in apart.items()}
    frame.require(sorted({name for calls in smooth.values() for call in calls for name in call.columns}))
    if isinstance(family, Together):  # the baseline is their intercept, whether one is written or not
        predictors[right] = replace(predictors[right], coding=True)
    if strata:
        predictors[strata] = read(strata, frame)
    return _Parts(apart, predictors, effects, smooth)


def _built(
    formulas: Mapping[str, str],
    family: Family,
    parts: _Parts,
    builder: Builder,
    rows: Selection,
    collinear: str,
) -> dict[str, int]:
    """The designs, added to the builder's, and which of them each parameter has."""
    slots: dict[str, int] = {}
    built: dict[tuple[str, bool], int] = {}
    for name, text in formulas.items():
        key = (text, family.parameters[name].intercept)
        if key not in built:
            built[key] = len(builder.designs)
            design = build(parts.predictors[text], rows, intercept=key[1])
            if collinear == "drop":
                design = without_collinear(design, rows)
            curves = tuple(builder.curves[i] for i in builder.places(parts.smooth[text]))
            needed = tuple(sorted({*design.required, *(name for curve in curves for name in curve.required)}))
            builder.designs.append(replace(design, curves=curves, required=needed) if curves else design)
        slots[name] = built[key]
    return slots


def _plain(rows: Selection, encoder: Encoder, family: Family, slots: Mapping[str, int]) -> Table:
    """The table of a model without random effects and smooth terms."""
    if rows.engine is not None:
        if isinstance(family, Together):
            rows.engine.refuse(f"the likelihood of {family}, which is of all rows together,")
        return PartitionedTable(rows, encoder, family)
    if not (isinstance(family, Together) and rows.streamed(encoder.required)):
        table = Table(rows, encoder, family)
        _refuse_yes_or_no(family, table)
        return table
    return OrderedTable(rows, encoder, family, slots.get("strata"))


def _others(
    frame: Frame, used: Sequence[str | None], parts: Iterable[Sides], given: Iterable[Plain]
) -> list[str]:
    """The columns that '.' stands for: all but the response, weights, the family's extras, groups, and variables of smooth
    terms."""
    taken = {*used, *(value for value in given if isinstance(value, str))}
    for own in parts:
        taken |= {name for call in own.random for name in call.group}
        taken |= {name for text in own.smooth for name in read_call(text, frame.columns).required}
    return [name for name in frame.columns if name not in taken]


def _refuse_yes_or_no(family: Family, table: Table) -> None:
    """Refuse the logistic density of a response that is 0 or 1, of which logistic regression is meant.

    Raises
    ------
    BadArgument
    """
    if type(family) is Logistic and table.whole is not None:
        y = table.whole["y"]
        if bool(((y == 0) | (y == 1)).all()):
            raise BadArgument(
                f"the response {table.units!r} is 0 or 1 in every row, and {family} is a density of any number. Logistic "
                "regression is family='bernoulli'."
            )


def regression(formula: str, data: Data, family: Family, **settings: Plain) -> tuple[Regression, Table]:
    """`formula_model` without random effects and smooth terms, where these have no place.

    Raises
    ------
    BadFormula
        there are some
    """
    model, table = formula_model(formula, data, family, **settings)
    if not isinstance(model, Regression):
        raise BadFormula(
            f"the formula {formula!r} has random effects or smooth terms, which are fitted by th.fit alone."
        )
    return model, table


def family_of_formula(formula: str, family: str | Family | None) -> Family:
    """The family that was named; where none was, Normal, but of times, which are seldom normal, one has to be
    named."""
    if family is None and is_surv(formula):
        raise BadArgument(
            f"the response of {formula!r} is a time, and no family is given. Accepted: {_TIMES}."
        )
    return families.get("normal" if family is None else family)


def _censored(family: Family, response: str) -> Family:
    """The family of times that are not all seen to their end."""
    if isinstance(family, Censored):
        return family
    if not family.has("cdf") or isinstance(family, (Bernoulli, Binomial, Categories)):
        raise BadArgument(
            f"the response {response!r} is a time, and {family} describes {family.support}"
            f"{'' if family.has('cdf') else ', without a cdf'}. Accepted: {_TIMES}."
        )
    return Censored(family)


def _with_levels(family: Family, response: str, levels: Levels) -> Family:
    """The family with as many categories as the response has levels."""
    if len(levels) == 1:
        raise BadArgument(
            f"the response {response!r} has one level only ({levels[0]!r}): there is nothing to tell apart."
        )
    if not isinstance(family, Categories):
        return family
    k = family.categories
    if k is not None and k != len(levels):
        raise BadArgument(
            f"{family} describes {k} categories, and the response {response!r} has {len(levels)}: "
            f"{', '.join(map(repr, levels[:8]))}."
        )
    return family if k is not None else family.with_categories(len(levels))


def _sides(formula: str) -> tuple[str, str]:
    """Left and right of the ~, quoted columns under their aliases: a name may hold a ~ itself."""
    code = unquote(formula) if isinstance(formula, str) else ""
    depth, at = 0, []
    for i, character in enumerate(code):
        depth += (character in "([{") - (character in ")]}")
        at += [i] if character == "~" and depth == 0 else []
    if depth != 0:
        raise BadFormula(f"the formula {formula!r} cannot be read: its brackets do not match.")
    if len(at) != 1:
        raise BadFormula(f"the formula {formula!r} must be 'response ~ predictors'.")
    left, right = code[: at[0]].strip(), code[at[0] + 1 :].strip()
    if not left:
        raise BadFormula(f"the formula {formula!r} names no response before the ~.")
    if not right:
        raise BadFormula(
            f"the formula {formula!r} names no predictors after the ~. For none of them write "
            f"'{written(left)} ~ 1'."
        )
    return left, right


def _sorted_out(
    family: Family, given: Settings, right: str, surv: Surv | None
) -> tuple[dict[str, str], dict[str, float], dict[str, str | float]]:
    """What is given for each name: a formula, a fixed value, or an extra column."""
    formulas: dict[str, str] = {}
    fixed: dict[str, float] = {}
    for j, (name, spec) in enumerate(family.parameters.items()):
        value = given.pop(name, None)
        if value is None:
            formulas[name] = right if j == 0 or spec.own_predictors else "1"
        elif isinstance(value, str):
            formulas[name] = _predictors(name, value)
            if j == 0 and right != "1":
                raise BadFormula(
                    f"the formula gives {name} the predictors {written(right)!r}, and {name}={value!r} gives "
                    "it others. Give one of them."
                )
        elif isinstance(value, NUMBERS) and not isinstance(value, bool):
            if j == 0 and right != "1":
                raise BadFormula(
                    f"the formula gives {name} the predictors {written(right)!r}, and {name}={value} holds "
                    "it. For the latter write '~ 1'."
                )
            if not spec.range.low < value < spec.range.high:
                raise BadArgument(f"{name}={value:g} is outside the range {spec.range} of {family}'s {name}.")
            fixed[name] = float(value)
        else:
            raise BadArgument(
                f"{name}={value!r}: a parameter is given as a formula ('~ age') or as the number at which it "
                "is held."
            )
    extras: dict[str, str | float] = {}
    for name in family.extras:
        value = given.pop(name, None)
        if name in family.outcome and value is not None:
            raise BadArgument(f"{name}= is not given beside the response but in it: {FORMS}.")
        if isinstance(value, str) or (isinstance(value, NUMBERS) and not isinstance(value, bool)):
            extras[name] = value if isinstance(value, str) else float(value)
        elif value is not None:
            raise BadArgument(
                f"{name} is the name of a column, or one number for all rows; received "
                f"{type(value).__name__}."
            )
    lacking = family.lacking({*extras, *(family.outcome if surv else ())})
    if "status" in given:
        raise BadArgument(
            f"status= is not known. Write the response as {FORMS}; event 1 (or True) means that it happened."
        )
    if lacking is not None:
        raise BadArgument(f"{family} needs {lacking}.")
    if given:
        wanted = [*family.parameters, *(name for name in family.extras if name not in family.outcome)]
        raise BadArgument(f"{family} has no parameter {next(iter(given))!r}. It has: {', '.join(wanted)}.")
    return formulas, fixed, extras


def _predictors(name: str, text: str) -> str:
    """The right-hand side that is given for a further parameter: '~ age', or 'age'."""
    left, _, right = unquote(text).rpartition("~")
    if left.strip():
        raise BadFormula(
            f"{name}={text!r}: a parameter is given its predictors alone, '~ {written(right.strip())}'."
        )
    return right.strip() or "1"
