"""Variance weights: rows whose precision is known up to a factor, such as means of groups of different
size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import BadArgument
from ...types import ModelLike, Named, Settings

SPREAD = {  # family → its parameter of spread, and the power of it that the variance is proportional to
    "Normal": ("scale", 2.0),
    "LogNormal": ("scale", 2.0),
    "StudentT": ("scale", 2.0),
    "Logistic": ("scale", 2.0),
    "Gamma": ("dispersion", 1.0),
    "InverseGaussian": ("dispersion", 1.0),
    "Tweedie": ("dispersion", 1.0),
}


@dataclass(frozen=True)
class Variance:
    """How precise each row is: its variance is proportional to 1/w (analytic weights).

        scale_i = σ / √w_i  (normal),      dispersion_i = φ / w_i  (gamma, inverse Gaussian, Tweedie)

    It is a likelihood, and not a weighting of one: the same model as an offset of the spread's predictor,
    scale="~ 1 + offset(-log(w) / 2)". Estimates are those of weighted least squares. w = n_i where row i is a
    mean of n_i observations.

    Parameters
    ----------
    column
        that holds the weights, positive

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., §2.2.2 (prior weights).

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"y": [1.0, 2.5, 2.0], "n": [1.0, 2.0, 10.0]}
    >>> th.fit("y ~ 1", data, weights=Variance("n")).estimates.round(4).to_dict()     # 26 / 13, Σ n (y − 2)² / 3
    {'Intercept': 2.0, 'scale: Intercept': -0.3466}
    """

    column: str

    def __post_init__(self) -> None:
        if not isinstance(self.column, str):
            raise BadArgument(
                f"Variance(column): received {type(self.column).__name__}. Accepted: the name of a column."
            )

    def into(self, model: ModelLike, family: Any, parameters: Named) -> Settings:
        """The parameters of a fit with the spread's offset among them.

        Raises
        ------
        BadArgument
            no formula, a family that has no parameter of spread, or one whose spread is held
        """
        kind = type(family).__name__
        if not isinstance(model, str) or "~" not in model:
            raise BadArgument(
                "Variance weights are of a formula: th.fit('y ~ x', data, weights=th.weights.Variance('w'))."
            )
        if kind not in SPREAD:
            raise BadArgument(
                f"Variance weights divide a family's variance, and {family} has no parameter of spread "
                f"alone. Accepted: {', '.join(SPREAD)}."
            )
        name, power = SPREAD[kind]
        offset = f"offset(-log(`{self.column}`) / {power:g})"
        given = parameters.get(name, "~ 1")
        if not isinstance(given, str) or "~" not in given:
            raise BadArgument(
                f"{name}={given!r} is held, and Variance weights divide an estimated one. Give {name} a "
                "formula, or leave it out."
            )
        return {**parameters, name: f"{given} + {offset}"}
