"""Cox's proportional hazards: a family of whole tables, whose likelihood is not a product over rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..errors import BadArgument
from .base import Family, Parameter

TIES = ("efron", "breslow", "exact")


@dataclass(frozen=True)
class Cox(Family):
    """The hazard is an unknown function of time, the same for all rows of a stratum, times exp(x·β):

        λ(t | x) = λ₀(t) exp(x·β)

    λ₀ is left out of the likelihood, by conditioning on the times at which events happened: what is left is the
    partial likelihood of which rows had them (`models.cox`).

    Parameters
    ----------
    ties
        what is done with events at the same time: "efron" (close to what breaking the ties in all orders would give,
        and exact where there are none), "breslow" (as if none changed the risk set of another), or "exact" (times
        are truly discrete: conditional logistic regression)

    References
    ----------
    Cox (1972), Regression models and life-tables; Efron (1977), The efficiency of Cox's likelihood function for
    censored data.

    Examples
    --------
    >>> str(Cox()), Cox("breslow").ties
    ('Cox(ties=efron)', 'breslow')
    """

    ties: str = "efron"

    log_hazard = Parameter(intercept=False)
    measure: ClassVar[str] = "partial"
    extras: ClassVar[Mapping[str, float | None]] = {"event": None, "entry": float("-inf")}
    outcome: ClassVar[frozenset[str]] = frozenset(extras)
    together: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.ties not in TIES:
            raise BadArgument(f"ties={self.ties!r}. Accepted: {', '.join(map(repr, TIES))}.")
        if self.link is not None:
            raise BadArgument(
                f"link={self.link!r}: Cox's hazard is proportional to exp(x·β), and has no other link."
            )

    @property
    def concave(self) -> bool:
        """Of all three: each term is x·β less the logarithm of a sum of exponentials with positive weights."""
        return True

    def log_prob(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        raise BadArgument(
            "Cox's partial likelihood is of all rows together: one row has none of its own, on which what was asked "
            "for rests. Fit it by th.fit('Surv(time, event) ~ x', data, family='cox'). Of covariances there are "
            "'observed', 'sandwich' (HC0), 'HC1', 'cluster' and 'bootstrap'."
        )
