"""The random effects of a mixed model: their conditional modes, and what is known of them.

    b̂ = Λ û,      Var(b | y, θ̂) = Λ H⁻¹ Λᵀ      (times σ² of a normal response)

With `fixed` H is of the random and the fixed effects together, so that the doubt about β is in it: that is the covariance
of a prediction. Without, β is taken as known, as R's `ranef(…, condVar = TRUE)` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pandas as pd

from ..data.batch import Batch
from ..data.source import Source
from ..data.table import Table
from ..errors import BadArgument, FlatDirection
from ..likelihood import Objective
from ..models.elimination import Array, Columns, Factored, NotPositiveDefinite, Scales
from ..models.random_effects import RandomEffects


@dataclass(frozen=True)
class Modes:
    """û of the rows that were fitted, with the factor of H.

    Parameters
    ----------
    first, rest
        b̂ of the eliminated factor (q, L), and of the other columns (m,)
    factor
        of H, the fixed columns part of it; None: a fit that was saved without it
    sigma
        of a normal response, else 1
    lack
        says what is missing, where the factor is
    """

    model: RandomEffects
    columns: Columns
    first: Array | None
    rest: Array
    factor: Factored | None
    sigma: float
    lack: Callable[[], NoReturn] | None = None

    @property
    def factored(self) -> Factored:
        if self.factor is None:
            assert self.lack is not None
            self.lack()
        return self.factor

    @property
    def scales(self) -> Scales:
        return self.factored.scales


def modes_of(objective: Objective) -> Modes:
    """At the θ at which the objective stands.

    Raises
    ------
    BadArgument
        the model has no random effects
    FlatDirection
        at that θ they have no modes, or their equations with the fixed effects are singular
    """
    model = objective.model
    if not isinstance(model, RandomEffects):
        raise BadArgument(f"a {type(model).__name__} has no random effects and no smooth terms.")
    if objective.remembered is not None:
        known: Modes = objective.remembered.modes
        return known
    batch = whole(objective)
    weight = objective.terms[0].weight(batch)
    beta, phi = model.coefficients.detach(), model.covariance.detach()
    try:
        (u0, rest), factored, sigma = model.evaluator(batch, weight).modes(beta, phi)
    except NotPositiveDefinite as error:
        raise FlatDirection(
            "the equations of the random and the fixed effects are singular at these estimates, so that nothing can be computed of "
            "them. Read fit.certificate; where columns are collinear, such as x beside s(x), leave one of them out."
        ) from error
    columns = model.columns(batch)
    b0, brest = factored.scales.times(u0, rest[: columns.penalised], columns)
    return Modes(model, columns, b0, brest, factored, sigma)


def rows_of(source: Source) -> pd.DataFrame:
    """The rows of a table that the fit used."""
    assert isinstance(source, Table)
    return pd.concat(list(source.frames()))


def whole(objective: Objective) -> Batch:
    """All rows of the first term."""
    return next(iter(objective.terms[0].source.batches(objective.model)))


def random_effects(objective: Objective, group: str | None = None) -> pd.DataFrame:
    """A row a group and an effect: factor, group, effect, mode, standard_error.

    Parameters
    ----------
    group
        of that grouping factor alone

    Raises
    ------
    BadArgument
        no random effects, or none of that factor
    """
    modes = modes_of(objective)
    model, order = modes.model, modes.model.order
    known = list(dict.fromkeys(r.label for r in model.random if not r.smooth and not r.each))
    if group is not None and group not in known:
        raise BadArgument(
            f"no random effects are grouped by {group!r}. Grouping factors: {', '.join(known) or 'none'}."
        )
    random = modes.factored.without_fixed()
    parts: dict[int, tuple[Array, Array]] = {}  # term → modes and standard errors, (levels, width)
    at = 0
    for i in order.first:
        r, lam = model.random[i], random.scales.first
        assert lam is not None
        assert modes.first is not None
        own = slice(at, at + r.structure.width)
        V = np.einsum("ka,abx,kb->kx", lam, random.first, lam, optimize=True)[own]
        parts[i] = modes.first[own].T, modes.sigma * np.sqrt(V).T
        at += r.structure.width
    of_rest = zip(order.rest, modes.columns.terms, modes.columns.starts, random.scales.rest, strict=False)
    for place, (i, t, begin, lam) in enumerate(of_rest):
        own = slice(begin, begin + t.size)
        V = np.einsum("ka,lab,kb->lk", lam, random.diagonal_blocks(place), lam, optimize=True)
        parts[i] = modes.rest[own].reshape(t.levels, t.width), modes.sigma * np.sqrt(V)
    frames = []
    for i, r in enumerate(model.random):
        if r.smooth or r.each or (group is not None and r.label != group):
            continue
        mode, error = parts[i]
        names = model.groupings[r.source].names
        frames.append(
            pd.DataFrame(
                {
                    "parameter": r.parameter,
                    "factor": r.label,
                    "group": np.repeat(names, len(r.effects)),
                    "effect": list(r.effects) * len(names),
                    "mode": mode.reshape(-1),
                    "standard_error": error.reshape(-1),
                }
            )
        )
    if not frames:
        each = any(r.each for r in model.random)
        raise BadArgument(
            "the model has smooth terms and no random effects"
            + (" but those: fit.curve(term) has the curve of each group." if each else ".")
        )
    return pd.concat(frames, ignore_index=True)
