"""What a family is: p(y | its own parameters), and nothing that it need not be.

A family states its parameters (a name, a range, a link), the support of y, and `log_prob`. Scores and
curvatures of each row with respect to each parameter's linear predictor η come from automatic differentiation
of that one method, so a family of k parameters is fitted by the same Newton as a one-parameter GLM. A
hand-written `derivatives` is a speed-up only, and a test holds it to the automatic one.

A parameter outside its range makes every y impossible: log p = −∞, moments, distribution functions and
quantiles NaN, and no draw. `Family` sees to that for each subclass, whose methods are called with parameters
in their range only (see `ranges`).

Shapes: y (n,), every parameter and every η (n,) or broadcastable to it.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import BadArgument
from . import links
from .derivatives import TwiceOnly, differenced_third, gradient, traced_third
from .distribution import Distribution
from .links import Link
from .power import log_power_integral
from .ranges import Limits, Range, guarded, limits, real


@dataclass(frozen=True)
class Parameter:
    """A parameter θ of a family.

    Parameters
    ----------
    range
        where θ lives
    link
        the map g to its linear predictor, η = g(θ)
    boundary
        the end of the range at which the family becomes a simpler one (dispersion → 0), or None
    limit
        what it becomes there, in words ("Poisson")
    intercept
        whether formulas of this parameter carry an intercept
    own_predictors
        whether the parameter takes the main formula's predictors by default (as the first one does)
    """

    range: Range = real
    link: Link = links.identity
    boundary: float | None = None
    limit: str = ""
    intercept: bool = True
    own_predictors: bool = False

    @cached_property
    def limits(self) -> Limits:
        """The linear predictors that the link maps into the range.

        Examples
        --------
        >>> from thetahat.families.ranges import unit
        >>> Parameter(unit, link=links.log).limits.low, Parameter(unit, link=links.log).limits.high
        (-inf, 0.0)
        """
        return limits(self.range, self.link)


@dataclass(frozen=True)
class Support:
    """The set of y to which the family gives a positive density or mass. `low` and `high` belong to it where
    `closed` says so."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    closed: tuple[bool, bool] = (False, False)

    @property
    def binary(self) -> bool:
        """Whether y is 0 or 1."""
        return self.integer and (self.low, self.high) == (0.0, 1.0)

    def contains(self, y: Tensor) -> Tensor:
        if self.binary:
            return (y == 0.0) | (y == 1.0)
        above = (y >= self.low) if self.closed[0] and math.isfinite(self.low) else (y > self.low)
        below = (y <= self.high) if self.closed[1] and math.isfinite(self.high) else (y < self.high)
        inside = above & below  # so that neither NaN nor infinity is
        return inside & (y == torch.floor(y)) if self.integer else inside

    def __str__(self) -> str:
        return self.name


reals = Support("the real numbers")
positives = Support("the positive numbers", 0.0)
nonnegatives = Support("the non-negative numbers", 0.0, closed=(True, False))
units = Support("the numbers strictly between 0 and 1", 0.0, 1.0)
binary = Support("{0, 1}", 0.0, 1.0, integer=True, closed=(True, True))
counts = Support("the counts 0, 1, 2, …", 0.0, integer=True, closed=(True, False))


def categories(k: int) -> Support:
    """The codes 0, …, k − 1."""
    return Support(f"the codes 0 … {k - 1}", 0.0, k - 1.0, integer=True, closed=(True, True))


Derivatives = tuple[Tensor, list[Tensor], dict[tuple[int, int], Tensor]]


@dataclass(frozen=True)
class Family:
    """p(y | θ₁, …, θ_k). A subclass is a frozen dataclass: its fields are its settings, its `Parameter`s are
    class attributes.

        class Exponential(Family):
            mean = Parameter(positive, link=links.log)
            support, measure = positives, "density"
            def log_prob(self, y, mean): return -torch.log(mean) - y / mean

    Parameters
    ----------
    link
        another link for the first parameter, by name or as an object
    """

    link: Link | str | None = field(default=None, kw_only=True)

    support: ClassVar[Support] = reals
    measure: ClassVar[str] = "density"  # "density", "mass", or "mixed" (a density with atoms)
    smooth: ClassVar[bool] = (
        True  # False: log p has kinks in η, and the fit smooths it or takes another solver than Newton
    )
    extras: ClassVar[
        Mapping[str, float | None]
    ] = {}  # further data of each row, with defaults; None: must be given
    outcome: ClassVar[frozenset[str]] = (
        frozenset()
    )  # those extras that say what was seen of y: a prediction has none
    # the parameter at whose end p is a point at the mean, of a density that float64 does not follow that far
    degenerate: ClassVar[str | None] = None
    _parameters: ClassVar[dict[str, Parameter]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Parameter)}
        cls._parameters = own or cls._parameters
        for name, method in guarded.items():
            if name in vars(cls):
                setattr(cls, name, method(vars(cls)[name]))

    # ---- what a family must say ----------------------------------------------------------------------------

    def log_prob(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """log p(y | θ) in nats, one value a row. −inf outside the support."""
        raise NotImplementedError

    # ---- what it may say besides ---------------------------------------------------------------------------

    def sample(
        self, *parameters: Tensor, generator: torch.Generator | None = None, **extras: Tensor
    ) -> Tensor:
        """One draw of y a row."""
        raise self._lacks("sample")

    def expectation(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """E[y | θ]; NaN or infinity where it does not exist."""
        raise self._lacks("expectation")

    def variance(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """Var[y | θ]; NaN or infinity where it does not exist."""
        raise self._lacks("variance")

    def cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """P(Y ≤ y | θ)."""
        raise self._lacks("cdf")

    def log_cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """log P(Y ≤ y | θ). Override where the lower tail needs it."""
        return torch.log(self.cdf(y, *parameters, **extras))

    def log_survival(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """log P(Y > y | θ). Override where the upper tail needs it."""
        return torch.log1p(-self.cdf(y, *parameters, **extras))

    def quantile(self, q: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """The smallest y with P(Y ≤ y | θ) ≥ q."""
        raise self._lacks("quantile")

    def log_power_integral(self, beta: float, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """log ∫ p(y | θ)^(1 + β) dy, a sum for a mass; ∞ where it diverges. Override where there is a
        formula."""
        return log_power_integral(self, beta, parameters, extras)

    def in_support(self, y: Tensor, **extras: Tensor) -> Tensor:
        """Row by row: whether y has positive probability for some parameters. Override where the extras
        bound it (trials)."""
        return self.support.contains(y)

    def lacking(self, given: Container[str]) -> str | None:
        """What of each row's data must be given besides y and is not among the names given, in words; None:
        nothing is."""
        name = next((n for n, default in self.extras.items() if default is None and n not in given), None)
        return None if name is None else f"{name}: the column that holds it, or a number ({name}='column')"

    def needs(self, name: str, extras: Mapping[str, Tensor]) -> Tensor | bool:
        """Which rows need that extra, (n,): in the others NaN and ±∞ stand for none. All rows, unless
        overridden."""
        return True

    def start(self, y: Tensor, weight: Tensor, **extras: Tensor) -> tuple[float, ...]:
        """Constant parameters from which a run may begin: one value a parameter, on its own scale."""
        return tuple(p.range.middle for p in self.parameters.values())

    def maximum(self, y: Tensor, weight: Tensor, **extras: Tensor) -> tuple[float, ...] | None:
        """The constant parameters that maximise Σ w log p(y | θ), where they have a formula; None where they
        have none.

        On their own scale, in order. An end of a range (a scale of 0), or NaN, where the likelihood has no
        maximum.
        """
        return None

    @property
    def concave(self) -> bool:
        """Whether log p is concave in (η₁, …, η_k) for every y: then every stationary point is a global
        maximum."""
        return False

    def concave_with(self, held: Container[str]) -> bool:
        """Whether log p is concave in the η of the other parameters where those named are held."""
        return self.concave

    def recession(self, y: Tensor, **extras: Tensor) -> tuple[Tensor, Tensor] | None:
        """The directions d of (η₁, …, η_k) along which log p(y | η + t·d) never falls, t → ∞: a cone a row,
        for separation.

        column of A is zero throughout takes no part. None: the family has no such direction, or does not
        know.

        Returns
        -------
        A
            (n, m, k), and equality : (n, m), boolean. The cone is {d : A d ≥ 0, and A d = 0 where equality}.
            A parameter whose
        """
        return None

    @property
    def categories(self) -> int | None:
        """k, of a family of categories; None: of another, or of one that takes k from the data."""
        return None

    def with_categories(self, k: int) -> Family:
        """The same family for k categories; only categorical responses have them."""
        raise BadArgument(f"{self} does not describe a categorical response.")

    # ---- what follows --------------------------------------------------------------------------------------

    def at(self, *parameters: Tensor | float, **extras: Tensor) -> Distribution:
        """The distribution at these parameters, on their own scales: what a likelihood of one's own returns, so that
        its fit predicts, draws and has residuals (`th.model`).

        Parameters
        ----------
        parameters
            in the order of `parameters`, each (n,), or one number for all rows
        extras
            what the family asks of each row besides y: trials=batch["n"]

        Raises
        ------
        BadArgument
            too many or too few parameters; an extra that the family does not have

        Examples
        --------
        >>> from thetahat.families import Normal
        >>> Normal().at(1.0, 2.0).mean
        tensor(1., dtype=torch.float64)
        """
        names = list(self.parameters)
        if len(parameters) != len(names):
            raise BadArgument(
                f"{self}.at(…) takes {len(names)} parameters ({', '.join(names)}); received {len(parameters)}."
            )
        unknown = next((name for name in extras if name not in self.extras), None)
        if unknown is not None:
            known = ", ".join(f"{name}=" for name in self.extras) or "none"
            raise BadArgument(
                f"{self}.at(…) has no argument {unknown}=. Besides its parameters it takes: {known}."
            )
        values = tuple(
            torch.as_tensor(p, dtype=None if isinstance(p, Tensor) else torch.float64) for p in parameters
        )
        return Distribution(self, values, extras)

    @property
    def length(self) -> int | None:
        """How many components y has; None where it is one number."""
        return None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Name → Parameter, in the order in which `log_prob` takes them."""
        if self.link is None:
            return self._parameters
        first = next(iter(self._parameters))
        return {
            n: replace(p, link=links.get(self.link)) if n == first else p for n, p in self._parameters.items()
        }

    @cached_property
    def _limits(self) -> tuple[Limits, ...] | None:
        """Of each parameter, the η that its link maps into its range; None where every link maps every η
        there."""
        found = tuple(p.limits for p in self.parameters.values())
        return found if any(each.finite for each in found) else None

    @cached_property
    def _ranges(self) -> tuple[Limits, ...]:
        """Of each parameter, its range: the limits of the identity."""
        return tuple(limits(p.range, links.identity) for p in self.parameters.values())

    def impossible(self, y: Tensor, j: int, high: bool, **extras: Tensor) -> Tensor:
        """Which y have probability 0 where parameter j stands at a closed end of its range, at the high one
        or the low one.

        A mean at its end makes one y certain: 0 or, at the high end, the largest. Other parameters only make
        the family a simpler one.
        """
        if j > 0:
            return torch.zeros_like(y, dtype=torch.bool)
        return y != (self.support.high if high else self.support.low)

    def natural(self, eta: Sequence[Tensor]) -> list[Tensor]:
        """θ_j = g_j⁻¹(η_j); NaN where the link does not map η_j into the range."""
        if self._limits is None:
            return [p.link.inverse(e) for p, e in zip(self.parameters.values(), eta, strict=True)]
        out = []
        for p, limit, e in zip(self.parameters.values(), self._limits, eta, strict=True):
            bad = limit.outside(e)
            value = p.link.inverse(torch.where(bad, limit.middle, limit.rounded(e)))
            out.append(torch.where(bad, torch.nan, value) if limit.finite else p.link.inverse(e))
        return out

    @guarded["log_prob_eta"]
    def log_prob_eta(self, y: Tensor, *eta: Tensor, **extras: Tensor) -> Tensor:
        """log p(y | η), η the linear predictors. Override where going through θ would lose digits."""
        if self._limits is None:  # every link leads into the range: what sees to the rest has nothing to do
            log_prob: Callable[..., Tensor] = getattr(type(self).log_prob, "__wrapped__", type(self).log_prob)
            return log_prob(self, y, *self.natural(eta), **extras)
        return self.log_prob(y, *self.natural(eta), **extras)

    def log_prob_outputs(self, y: Tensor, outputs: Tensor, **extras: Tensor) -> Tensor:
        """log p(y | η), all of η in one tensor, (…, k), as a network hands it out. Override where taking it
        apart costs time."""
        return self.log_prob_eta(floating(y, outputs), *outputs.unbind(-1), **extras)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        """log p, its score and its curvature in each row's η: the whole of what Newton's method needs to know
        of a family.

        Returns
        -------
        Derivatives
            log_prob (n,); score, k tensors (n,): ∂/∂η_a; curvature {(a, b): (n,)}, a ≤ b: ∂²/∂η_a∂η_b (empty
            if order < 2).
        """
        extras = extras or {}
        with torch.enable_grad():
            leaves = [e.detach().expand(y.shape[: max(1, e.ndim)]).clone().requires_grad_() for e in eta]
            value = self.log_prob_eta(y, *leaves, **extras)
            score = gradient(value.sum(), leaves, create_graph=order > 1)
            curvature = {}
            for a in range(len(leaves) if order > 1 else 0):
                row = gradient(score[a].sum(), leaves[a:], create_graph=False)
                curvature.update({(a, a + j): second for j, second in enumerate(row)})
            if curvature and self._limits is not None:
                # at the end of a range y is certain whatever the other parameters: only the slope along η
                # itself is left
                inside = functools.reduce(
                    torch.logical_and, (~m.at_end(e) for m, e in zip(self._limits, leaves, strict=False))
                )
                curvature = {ab: torch.where(inside, c, 0.0) for ab, c in curvature.items()}
        return value.detach(), [s.detach() for s in score], curvature

    def third(
        self,
        y: Tensor,
        eta: Sequence[Tensor],
        v: Mapping[tuple[int, int], Tensor],
        extras: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Third derivatives of log p, summed over two of their indices: what Laplace's approximation needs to know
        of a family besides `derivatives`.

            t_c = Σ_ab v_ab ∂³log p/∂η_a∂η_b∂η_c

        Automatic differentiation of `log_prob_eta`, unless a family has formulas; differences of the curvatures where
        log p holds an incomplete gamma or beta function, or log Γ, whose third derivatives are not known.

        Parameters
        ----------
        v
            {(a, b): (n,)}, a ≤ b: the upper half of a symmetric v

        Returns
        -------
        list[Tensor]
            t_c of each parameter, (n,) or broadcastable to it
        """
        leaves = [e.expand(y.shape[: max(1, e.ndim)]) for e in eta]
        try:
            return traced_third(lambda *own: self.log_prob_eta(y, *own, **(extras or {})), leaves, v)
        except TwiceOnly:
            return differenced_third(lambda own: self.derivatives(y, own, extras)[2], leaves, v)

    def __str__(self) -> str:
        settings = [f"{k}={v}" for k, v in vars(self).items() if v is not None and not k.startswith("_")]
        return f"{type(self).__name__}({', '.join(settings)})"

    def has(self, what: str) -> bool:
        """Whether the family says what this class only declares: "sample", "expectation", "variance", "cdf",
        "quantile".

        Examples
        --------
        >>> from thetahat.families import MultivariateNormal, Normal
        >>> Normal().has("cdf"), MultivariateNormal(2).has("cdf")
        (True, False)
        """
        return getattr(type(self), what) is not getattr(Family, what)

    def _lacks(self, what: str) -> BadArgument:
        return BadArgument(f"{self} has no {what}.")


class Tailed(Family):
    """A family whose two tails are found together: the smaller by its own series or fraction, the larger
    as its complement."""

    @abstractmethod
    def tails(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> tuple[Tensor, Tensor]:
        """log P(Y ≤ y | θ) and log P(Y > y | θ)."""

    def cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return torch.exp(self.tails(y, *parameters, **extras)[0])

    def log_cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.tails(y, *parameters, **extras)[0]

    def log_survival(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self.tails(y, *parameters, **extras)[1]


def floating(y: Tensor, like: Tensor) -> Tensor:
    """Whole numbers and booleans in the precision of `like`: a family computes with real numbers (log Γ of an
    int64 is float32)."""
    return y if y.is_floating_point() else y.to(like.dtype)


def weighted_mean(y: Tensor, weight: Tensor) -> float:
    """Σ w y / Σ w, over the rows with positive weight."""
    return float((weight * y).sum() / weight.sum())


def weighted_variance(y: Tensor, weight: Tensor) -> float:
    """Σ w (y − ȳ)² / Σ w."""
    return float((weight * (y - weighted_mean(y, weight)) ** 2).sum() / weight.sum())
