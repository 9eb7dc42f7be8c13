"""The path of the lasso and of the elastic net: the fit under ever wider priors, from that at which every coefficient is zero.

    maximise ℓ(θ) − Σ_j (a/s)·|θ_j| + ½ ((1 − a)/s²)·θ_j²

At θ_j = 0 for all j, with the other coordinates at their maximum, that is the maximum if and only if max_j |∂ℓ/∂θ_j| ≤ a/s: the
first scale is s₀ = a / max_j |∂ℓ/∂θ_j|, and the others go up from it in equal ratios. Each fit begins where the one before ended.

Where ℓ is not concave (σ of a normal response estimated) that is a maximum, and another may be higher: there the first scale is
the largest of s₀·0.9ᵏ at which none is.

References
----------
Friedman, Hastie and Tibshirani (2010), Regularization paths for generalized linear models via coordinate descent, J. Stat. Softw. 33.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ..errors import BadArgument, NotConverged
from ..inference.natural import natural
from ..inference.tests import held_maximum
from ..likelihood import LogLikelihood, Objective
from ..likelihood.priors import ElasticNet, Laplace, Prior
from ..models.base import names_of
from ..models.regression import Regression
from ..notebook import Printed
from ..printable import encoded
from ..protocols import is_concave
from ..types import Chart
from .prior_choice import along

SHOWN = 12  # rows of a printed path
LESS, LEAST = 0.9, 60  # of a first scale, and how often


@dataclass(frozen=True)
class PriorPath(Printed):
    """Coefficients along scales of a prior. Prints itself.

    Parameters
    ----------
    table
        a row a scale, rising: log_likelihood, nonzero (coefficients that are not zero), then a column an estimate
    priors
        the prior of each row, which `fit.choose_prior` takes
    names
        the coefficients that the prior is on
    """

    table: pd.DataFrame
    priors: tuple[Prior, ...]
    names: tuple[str, ...]

    @property
    def entered(self) -> list[str]:
        """The coefficients in the order in which they leave zero; those that never do are left out."""
        values = self.table[list(self.names)].to_numpy() != 0
        first = {
            name: int(column.argmax())
            for name, column in zip(self.names, values.T, strict=True)
            if column.any()
        }
        return sorted(first, key=lambda name: first[name])

    @encoded
    def __str__(self) -> str:
        rows = np.unique(np.linspace(0, len(self.table) - 1, SHOWN).round().astype(int))
        head = (
            f"{len(self.table)} scales of {type(self.priors[0]).__name__}, on {len(self.names)} coefficients"
        )
        return f"{head}\n{self.table.iloc[rows].to_string(float_format=lambda v: f'{v:.4g}')}"

    def plot(self) -> Chart:
        """The coefficients against the scale: an Altair chart."""
        import altair as alt

        long = (
            self.table[list(self.names)]
            .reset_index()
            .melt("scale", var_name="coefficient", value_name="value")
        )
        return (
            alt.Chart(long)
            .mark_line()
            .encode(
                x=alt.X(
                    "scale:Q", title=f"scale of {type(self.priors[0]).__name__}", scale=alt.Scale(type="log")
                ),
                y=alt.Y("value:Q", title="coefficient"),
                color=alt.Color("coefficient:N", title=None, sort=list(self.names)),
                tooltip=["coefficient:N", "scale:Q", "value:Q"],
            )
            .properties(width=420, height=260)
        )


def prior_path(
    objective: Objective,
    mix: float = 1.0,
    points: int = 40,
    *,
    ratio: float | None = None,
    on: str | Sequence[str] | None = None,
) -> PriorPath:
    """The fit along scales of a lasso or an elastic net, in the place of its own priors.

    Parameters
    ----------
    objective
        of one term, a regression
    mix
        a: 1 is the lasso, between 0 and 1 an elastic net
    points
        scales
    ratio
        of the last scale to the first; None: 1000, or 100 where there are more coefficients than rows
    on
        names of coefficients, * and ? allowed; None: every coefficient but intercepts and constants. Columns are taken as they
        are: standardise those that differ in size

    Raises
    ------
    BadArgument
        another model, a mix, points or ratio out of range, no coefficient
    NotConverged
        a fit has no certified maximum

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"y": [1.0, 2.0, 3.5, 4.0], "x": [-1.5, -0.5, 0.5, 1.5], "z": [1.0, -1.0, -1.0, 1.0]}
    >>> path = th.fit("y ~ x + z", data, scale=1.0).prior_path(points=3)
    >>> path.entered, round(float(path.table.index[0]), 6)  # 1 / |Σ x (y − ȳ)| = 1 / 5.25
    (['x', 'z'], 0.190476)
    """
    if (
        not isinstance(objective.model, Regression)
        or len(objective.terms) != 1
        or objective.terms[0].robust is not None
    ):
        raise BadArgument(
            f"prior_path is of a regression by maximum likelihood; the model is a {type(objective.model).__name__}."
        )
    if not isinstance(mix, (int, float)) or isinstance(mix, bool) or not 0 < mix <= 1:
        raise BadArgument(
            f"mix={mix!r}: a number above 0, at which no coefficient would be zero, and up to 1, which is the lasso."
        )
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise BadArgument(f"points={points!r}: a whole number of at least 2.")
    term = objective.terms[0]
    plain = Objective([term])
    places = Laplace(1.0, on=on).coordinates(term.model)
    if not len(places):
        raise BadArgument("prior_path: the model has no coefficient but its intercepts and constants.")
    first = _first(term, places, mix / _steepest(plain, places), mix, on)
    rows = objective.rows
    ratio = (100.0 if rows is not None and len(places) >= rows else 1000.0) if ratio is None else ratio
    if not ratio > 1:
        raise BadArgument(f"ratio={ratio!r}: the last scale over the first, a number above 1.")
    scales = np.geomspace(first, first * ratio, points)
    priors = tuple(_prior(float(s), mix, on) for s in scales)
    records = []
    for scale, (certificate, ended) in zip(
        scales, along(term, term.source, [(p,) for p in priors]), strict=True
    ):
        if not certificate.ok:
            raise NotConverged(
                f"under the prior of scale {scale:.4g} the fit has no certified maximum: {certificate}",
                certificate,
            )
        value = Objective(ended.terms).value()
        estimates = dict(zip(names_of(ended.model), natural(ended, ended.theta).tolist(), strict=True))
        zero = int((ended.theta[places] != 0).sum())
        records.append({"log_likelihood": value, "nonzero": zero, **estimates})
    table = pd.DataFrame(records, index=pd.Index(scales, name="scale"))
    names = names_of(term.model)
    return PriorPath(table, priors, tuple(names[i] for i in places.tolist()))


def _first(
    term: LogLikelihood, places: torch.Tensor, scale: float, mix: float, on: str | Sequence[str] | None
) -> float:
    """The first scale, at which no maximum is higher than that where every coefficient is zero."""
    if is_concave(term.scored) and term.weights is None:
        return scale
    for k in range(LEAST):
        ((_, ended),) = along(term, term.source, [(_prior(scale * LESS**k, mix, on),)])
        if not bool((ended.theta[places] != 0).any()):
            return scale * LESS**k
    raise NotConverged(
        f"a prior as narrow as {scale * LESS**LEAST:.4g} leaves coefficients that are not zero: with the scale estimated the "
        "likelihood has no bound. Hold the family's scale (scale=value)."
    )


def _prior(scale: float, mix: float, on: str | Sequence[str] | None) -> Prior:
    return Laplace(scale, on=on) if mix == 1 else ElasticNet(scale, mix=mix, on=on)


def _steepest(objective: Objective, places: torch.Tensor) -> float:
    """max_j |∂ℓ/∂θ_j| where these coordinates are 0 and the others at their maximum."""
    origin = objective.theta.to(torch.float64)
    origin[places] = 0.0
    free = torch.ones(len(origin), dtype=torch.bool)
    free[places] = False
    _, at = held_maximum(objective, origin, free, origin[free])
    slope = float(objective.taylor(at, order=1).gradient[places].abs().max())
    if not slope > 0:
        raise BadArgument("prior_path: at zero no coefficient would gain anything: there is no path.")
    return slope
