"""The model of a family with linear predictors: `Regression`, or for a family of whole tables its own class."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..data.expressions import written
from ..data.surv import Surv
from ..errors import BadArgument, BadFormula, DataError
from ..families.base import Family
from ..families.cox import Cox
from ..protocols import Together
from ..types import Settings
from .cox import CoxRegression
from .cox_streamed import CoxStreamed
from .regression import Regression

if TYPE_CHECKING:
    from ..data.table import Encoder, Table
    from .mixed import Mixed
    from .random_effects import Random

CLASSES: dict[type[Family], type[Regression]] = {Cox: CoxRegression}
SEEN = "Surv(time, event) or Surv(start, stop, event)"


def linear(
    family: Family,
    encoder: Encoder,
    slots: Mapping[str, int],
    fixed: Mapping[str, float] | None = None,
    table: Table | None = None,
    *,
    density: bool = False,
) -> Regression:
    """The model that this family has of linear predictors.

    Parameters
    ----------
    table
        the rows, in which a family of whole tables looks for events; None: they are not at hand

    Raises
    ------
    DataError
        no event was seen
    """
    if isinstance(family, Together) and table is not None and not table.events.get(1):
        raise DataError(
            f"no event was seen in any of the {table.rows} rows of {encoder.response.expression}: the partial "
            "likelihood is of which row had each event. Check how events are coded (1 or True: it happened)."
        )
    if table is not None and table.ordered:
        return CoxStreamed(family, encoder, slots, fixed, whole=table.fractional == 0)
    return CLASSES.get(type(family), Regression)(family, encoder, slots, fixed, density=density)


def mixed(regression: Regression, random: Sequence[Random], *, reml: bool, points: int) -> Mixed:
    """The regression with its random effects and smooth terms."""
    if isinstance(regression, CoxRegression):
        from .cox_mixed import CoxMixed

        return CoxMixed(regression, random, reml=reml, points=points)
    from .mixed import Mixed  # brings scipy, which takes long to load

    return Mixed(regression, random, reml=reml, points=points)


def settled(family: Family, given: Settings) -> tuple[Family, Settings]:
    """A family of whole tables with those of its settings that are given as arguments of the fit (ties="breslow"),
    and what else is given."""
    if not isinstance(family, Together):
        return family, given
    own = {f.name for f in dataclasses.fields(family)} & set(given)
    changed = dataclasses.replace(family, **{name: given[name] for name in own})
    return changed, {name: value for name, value in given.items() if name not in own}


def check_together(family: Family, surv: Surv | None, left: str, right: str, strata: str) -> None:
    """Refuse what a family of whole tables cannot take, or strata of another family, before a row is read."""
    if not isinstance(family, Together):
        raise BadFormula(
            f"strata(…) gives each stratum a baseline hazard of its own, which {family} does not have. Accepted "
            "with family='cox'; else write the columns themselves, C(column)."
        )
    response = written(left)
    if surv is None:
        raise BadArgument(
            f"the response {response!r} does not say which times are events. For family='cox' write {SEEN}."
        )
    if surv.kind not in ("right", "counting"):
        raise BadArgument(
            f"the response {response!r} is of type {surv.kind!r}, of times that were not seen exactly: there are no "
            f"risk sets of them. For family='cox' write {SEEN}; for such times take family='weibull', 'lognormal', "
            "'loglogistic', or any other that has a cdf."
        )
    found = re.search(r"\b(cluster|frailty|tt|pspline|ridge)\s*\(", right)
    if found:
        instead = {
            "cluster": "Give covariance='cluster', by='column' beside the formula.",
            "frailty": "Write (1 | column), a normal random effect on the log hazard.",
            "pspline": "Write s(column), a smooth term.",
            "ridge": "Give prior=th.priors.Normal(…) beside the formula.",
        }.get(found.group(1), "It is not available.")
        raise BadFormula(f"the formula has {found.group(1)}(…), which is R's and not known here. {instead}")
