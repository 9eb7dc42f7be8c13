"""Partial residuals of a smooth term: what the data say of its curve, the other terms taken as they are.

    f(x_i) + r_i,      r_i = s_i / E[s_i²],      s_i = ∂log p/∂η_i

r_i is a step of Fisher's scoring in the row's own linear predictor: y − μ of a normal mean, (y − μ)/μ of a Poisson with log
link, ((y − μ)²/σ² − 1)/2 of the logarithm of a normal scale. Of a mean these are the working residuals of a generalised
linear model.

Source: Larsen and McCleary (1972), The use of partial residual plots in regression analysis; Wood (2017), §7.
"""

from __future__ import annotations

import pandas as pd
import torch

from ..errors import BadArgument
from ..families.integration import Rows
from ..inference.quadrature import mean
from ..likelihood import Objective
from ..protocols import Together
from .fitted_values import eta_of, extras_of
from .known_groups import Known, known
from .modes import rows_of, whole
from .smooth_terms import curve, terms_of


def partial_residuals(objective: Objective, label: str) -> pd.DataFrame:
    """A row of the data a row: the columns that the term reads, its curve there, and the partial residual.

    Raises
    ------
    BadArgument
        no term of that name, a partial likelihood, whose rows have no log p of their own, or a family that does not say
        how y is distributed (censored)
    """
    given, _ = known(objective)
    model = given.model
    assert isinstance(model, Known)
    out = curve(objective, label, rows_of(objective.terms[0].source))
    if isinstance(model.family, Together):
        raise BadArgument(
            f"a row of {model.family} has no likelihood of its own, and so no partial residual."
        )
    first = model.mixed.first
    term = next(
        t
        for t in terms_of(model)
        if label == (t.label if t.random.parameter == first else f"{t.random.parameter}: {t.label}")
    )
    j = list(model.family.parameters).index(term.random.parameter)
    batch = whole(objective)
    with torch.no_grad():
        eta, extras = [e.detach() for e in eta_of(model, batch)], extras_of(model, batch)
        score = model.family.derivatives(batch["y"], eta, extras, 1)[1][j]
        (variance,) = mean(Rows(model.family, eta, extras, [j])).values()
    step = (score / variance).expand(len(batch)).numpy()
    kept = out.drop(columns=["standard_error", "low", "high", "outside"])
    return kept.assign(residual=kept["value"].to_numpy() + step)
