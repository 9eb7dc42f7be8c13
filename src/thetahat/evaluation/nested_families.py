"""Families that lie within others: what the larger has more, and the value at which it is the smaller.

    Poisson(μ) = NegativeBinomial(μ, α → 0),   F = ZeroInflated(F, π = 0),   Normal(μ, σ) = StudentT(μ, σ, ν → ∞)
    Exponential(μ) = Gamma(μ, φ = 1) = Weibull(μ, k = 1),   Geometric(μ) = NegativeBinomial(μ, α = 1)

A parameter on the edge of its range has half a point of probability mass there: its likelihood ratio is ½·χ²(0) + ½·χ²(1)
(Self and Liang 1987). Of two, w₁ = ½ and w₂ ≤ ½ whatever their correlation: ½·χ²(1) + ½·χ²(2) bounds the p-value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import BadArgument
from ..families.base import Family
from ..families.bernoulli import BetaBinomial, Binomial
from ..families.gamma import Exponential, Gamma
from ..families.generalized_poisson import GeneralizedPoisson
from ..families.negative_binomial import Geometric, NegativeBinomial, NegativeBinomial1
from ..families.normal import Normal
from ..families.poisson import Poisson
from ..families.student_t import StudentT
from ..families.weibull import Weibull
from ..families.zeros import Hurdle, ZeroInflated
from ..inference.variance_components import chi_bar
from ..models.regression import Regression

AT = 1e-8  # from its edge a held parameter stands at it; of an infinite one its reciprocal


@dataclass(frozen=True)
class Nesting:
    """How a family lies within another.

    Parameters
    ----------
    names
        parameter of the smaller → that of the larger
    edges, inside
        parameter that the larger has more → its value under the smaller, at the edge of its range, or inside it
    """

    names: Mapping[str, str]
    edges: Mapping[str, float] = field(default_factory=dict)
    inside: Mapping[str, float] = field(default_factory=dict)


_MEAN = {"mean": "mean"}
_DISPERSION = Nesting(_MEAN, edges={"dispersion": 0.0})
PAIRS: dict[tuple[type[Family], type[Family]], Nesting] = {
    (Poisson, NegativeBinomial): _DISPERSION,
    (Poisson, NegativeBinomial1): _DISPERSION,
    (Poisson, GeneralizedPoisson): _DISPERSION,
    (Binomial, BetaBinomial): _DISPERSION,
    (Geometric, NegativeBinomial): Nesting(_MEAN, inside={"dispersion": 1.0}),
    (Exponential, Gamma): Nesting(_MEAN, inside={"dispersion": 1.0}),
    (Exponential, Weibull): Nesting({"mean": "scale"}, inside={"shape": 1.0}),
    (Normal, StudentT): Nesting({"mean": "location", "scale": "scale"}, edges={"df": math.inf}),
}


def nesting(small: Family, large: Family) -> Nesting | None:
    """How the smaller lies within the larger, of equal links; None: it is not known to.

    Examples
    --------
    >>> from thetahat.families import Normal, Poisson, StudentT, ZeroInflated
    >>> nesting(Normal(), StudentT()).edges, nesting(Poisson(), ZeroInflated(Poisson())).edges
    ({'df': inf}, {'inflation': 0.0})
    >>> nesting(Poisson(), Normal()) is None
    True
    """
    found = _nesting(small, large)
    if found is None:
        return None
    mine, theirs = small.parameters, large.parameters
    same = all(mine[a].link == theirs[b].link for a, b in found.names.items())
    return found if same else None


def _nesting(small: Family, large: Family) -> Nesting | None:
    if small == large:
        return Nesting({name: name for name in small.parameters})
    for wrapper, own in ((ZeroInflated, "inflation"), (Hurdle, "zero")):
        if isinstance(small, wrapper) and isinstance(large, wrapper):
            inner = _nesting(small.family, large.family)
            return None if inner is None else replace(inner, names={**inner.names, own: own})
    if isinstance(large, ZeroInflated):
        inner = _nesting(small, large.family)
        return None if inner is None else replace(inner, edges={**inner.edges, "inflation": 0.0})
    return PAIRS.get((type(small), type(large)))


def edges(model: Regression) -> int:
    """How many parameters of a fit are held where the data pushed them, at the edge of their range: they were estimated."""
    specs = model.family.parameters
    return sum(_at(value, specs[name].boundary) for name, value in model.fixed.items())


def _at(value: float, edge: float | None) -> bool:
    if edge is None:
        return False
    return abs(value) >= 1 / AT if math.isinf(edge) else abs(value - edge) <= AT


def mixture(large: Regression, how: Nesting, names: str) -> tuple[dict[int, float], bool]:
    """The mixture of χ² of the parameters that the larger family has more, and whether its p-value is an upper bound.

    Raises
    ------
    BadArgument
        a parameter that has predictors, of which nothing is known at its edge; one that is held elsewhere; three at their edges
    """
    sizes = {p.parameter: p.size for p in large.predictors}
    free, more = 0, 0
    for parameter, value in {**how.edges, **how.inside}.items():
        at_edge = parameter in how.edges
        if parameter not in sizes:
            held = large.fixed[parameter]
            if at_edge and _at(held, value):
                free += 1
            elif held != value:
                raise BadArgument(
                    f"{names}: {parameter} of {large.family} is held at {held:g}, and the smaller is that at {value:g}: they are "
                    "not nested. Let it be estimated."
                )
        elif sizes[parameter] != 1:
            raise BadArgument(
                f"{names}: the smaller is {large.family} at {parameter} = {value:g}, where the predictors of {parameter} have no "
                f"effect that could be tested. Fit the larger with {parameter} a constant, or compare by fit.compare(other)."
            )
        elif at_edge:
            free += 1
        else:
            more += 1
    if free > 2:
        raise BadArgument(
            f"{names} differ by {free} parameters at the edge of their range: compare them one at a time."
        )
    weights, bound = ({1: 0.5, 2: 0.5}, True) if free == 2 else chi_bar(free, 0)
    return {k + more: w for k, w in (weights if free else {0: 1.0}).items()}, bound
