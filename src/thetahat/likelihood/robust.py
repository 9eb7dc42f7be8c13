"""Robust terms: what to maximise where some rows may come from elsewhere.

Under the log-likelihood a row that the model holds to be impossible weighs without bound. Two terms bound it:

    density power      Σ_i H_β(x_i | θ),      H_β = (p^β − 1)/β + 1 − (1/(1 + β)) ∫ p(y | x, θ)^(1 + β) dy
    trimmed            Σ over the h rows that are most probable under θ, of log p(x_i | θ),      h = ⌈keep·n⌉

Neither is a log-likelihood, so that a fit has no likelihood ratios and no AIC; its score, in nats, is what it
is for any model.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..data.source import Source
from ..errors import BadArgument
from ..families import Censored
from ..families.base import Family, Parameter
from ..models.base import family_of
from ..models.mixture import Recounted
from ..models.regression import Regression
from ..models.taylor import Taylor
from .objective import LogLikelihood

# ---- density power -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DensityPower:
    """Rows weigh by their own density to the power β: minimum density-power divergence.

        H_β(y) = (p(y)^β − 1)/β + 1 − (1/(1 + β)) ∫ p^(1 + β)  →  log p(y)  as β → 0,      ∂H_β/∂θ = p^β·s − E[p^β·s],   s = ∂ log p/∂θ

    The mean of H_β is highest, over all densities p, at the true one. A row that is improbable under θ has a
    weight p^β near 0. The price, where the model is true, is efficiency: `efficiency`.

    Parameters
    ----------
    beta
        β > 0; 0.5 gives up 16 % of the efficiency of a normal mean

    Raises
    ------
    BadArgument
        β is not a positive number

    References
    ----------
    Basu, Harris, Hjort and Jones (1998), Robust and efficient estimation by minimising a density power
    divergence, Biometrika 85; Ghosh and Basu (2013), Robust estimation for independent non-homogeneous
    observations using density power divergence with applications to linear regression, Electron. J. Statist.
    7.

    Examples
    --------
    >>> round(DensityPower(0.5).efficiency, 3)
    0.838
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if (
            isinstance(self.beta, bool)
            or not isinstance(self.beta, (int, float))
            or not 0 < self.beta < math.inf
        ):
            raise BadArgument(
                f"beta={self.beta!r}: a positive number such as 0.5. β → 0 is maximum likelihood, "
                "robust=None."
            )

    def __str__(self) -> str:
        return f"DensityPower({self.beta:g})"

    @property
    def efficiency(self) -> float:
        """Of a normal mean or regression coefficient: its variance under maximum likelihood over that
        under β, (1 + β²/(1 + 2β))^(−3/2)."""
        out: float = (1 + self.beta**2 / (1 + 2 * self.beta)) ** -1.5
        return out

    @property
    def efficiency_of_scale(self) -> float:
        """Of a normal scale: ½ over its asymptotic variance, as Basu et al. (1998), §4.1, give it."""
        b = self.beta
        bread = (2 + b * b) / (1 + b) ** 2.5
        meat = 2 * (1 + 2 * b * b) / (1 + 2 * b) ** 2.5 - b * b / (1 + b) ** 3
        return bread**2 / (2 * meat) if meat > 0 else 0.0

    def of(self, model: nn.Module, source: Source) -> LogLikelihood:
        """The term of a model and its data."""
        return DensityPowerTerm(model, source, self)


class RobustTerm(LogLikelihood, ABC):
    """A term that maximises something else than its model's log-likelihood, and weighs each row by what the
    model says of it."""

    @abstractmethod
    def row_weights(self) -> Tensor:
        """What each row weighs in the fit, (n,), 0 to 1."""


class DensityPowerTerm(RobustTerm):
    """Σ_i count_i · H_β(x_i | θ) of a regression."""

    def __init__(self, model: nn.Module, source: Source, robust: DensityPower):
        super().__init__(model, source)
        self.robust = robust
        family = family_of(model)
        if not isinstance(model, Regression) or not isinstance(family, Family):
            raise BadArgument(
                f"DensityPower needs ∫ p(y | x)^(1 + β) dy, which a {type(model).__name__} does not say: "
                "give a formula or a family. "
                "For any model: robust=th.Trimmed(keep)."
            )
        if isinstance(family, Censored):
            raise BadArgument(
                f"{family} does not say when a row is censored, so that ∫ p^(1 + β) is not known. Use "
                "th.Trimmed(keep)."
            )
        if not family.smooth:
            raise BadArgument(
                f"{family} has kinks, and p^β has them too: no curvature could certify a maximum. Take a "
                "smooth family (student_t, "
                "logistic, huber, normal), or th.Trimmed(keep)."
            )

    @property
    def scored(self) -> Regression:
        """The regression with H_β in the place of log p; its θ is the model's own."""
        twin = copy.copy(self.model)
        twin.family = Powered(self.model.family, self.robust.beta)
        out: Regression = twin
        return out

    def over(self, source: Source, model: nn.Module | None = None) -> LogLikelihood:
        return DensityPowerTerm(self.model if model is None else model, source, self.robust)

    @torch.no_grad()
    def row_weights(self) -> Tensor:
        """p^β of each row over that of the row of the largest, (n,)."""
        power = self.robust.beta * log_probs(self)
        return torch.exp(power - power.max())


@dataclass(frozen=True)
class Powered(Family):
    """H_β in the place of a family's log p: no density, but all that Newton's method needs of one.

    Parameters
    ----------
    family
        p
    beta
        β > 0
    """

    family: Family
    beta: float

    @property
    def parameters(self) -> dict[str, Parameter]:
        return self.family.parameters

    @property
    def extras(self) -> Any:
        return self.family.extras

    def log_prob(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._value(self.family.log_prob(y, *parameters, **extras), parameters, extras)

    def log_prob_eta(self, y: Tensor, *eta: Tensor, **extras: Tensor) -> Tensor:
        return self._value(
            self.family.log_prob_eta(y, *eta, **extras), tuple(self.family.natural(eta)), extras
        )

    def _value(self, log_prob: Tensor, parameters: tuple[Tensor, ...], extras: dict[str, Tensor]) -> Tensor:
        log_integral = self.family.log_power_integral(self.beta, *parameters, **extras)
        # (p^β − 1)/β + (1 − ∫ p^(1+β)/(1 + β)), both as differences from 1 so that β → 0 is exact
        return torch.expm1(self.beta * log_prob) / self.beta - torch.expm1(
            log_integral - math.log1p(self.beta)
        )


# ---- trimmed -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trimmed:
    """The rows that the model finds least probable are left out: maximum trimmed likelihood. Of the normal
    family it is least trimmed squares.

        maximise over θ:   Σ_{i ≤ h} log p(x_(i) | θ),      log p(x_(1)) ≥ log p(x_(2)) ≥ …,      h = ⌈keep·n⌉

    It breaks down where more than n − h rows come from elsewhere. A scale is that of the h rows kept: at the
    normal, too small by `consistency`, which is stated, and applied nowhere but in the cut-off of `reweight`.

    Parameters
    ----------
    keep
        the share of rows that is kept, from ½ to 1
    reweight
        None; or a level such as 0.975: the fit goes on to maximum likelihood of all rows of a normal
        regression within its two-sided quantile of the (consistent) scale
    starts
        elemental subsets from which rows are concentrated
    seed
        of them; same seed, same numbers

    Raises
    ------
    BadArgument
        an argument out of its range

    References
    ----------
    Rousseeuw (1984), Least median of squares regression, J. Amer. Statist. Assoc. 79; Neykov and Müller
    (2003), Breakdown point and computation of trimmed likelihood estimators in generalized linear models;
    Rousseeuw and Van Driessen (2006), Computing LTS regression for large data sets.

    Examples
    --------
    >>> Trimmed(0.5).rows(21), round(Trimmed(0.5).consistency, 3)
    (11, 2.648)
    """

    keep: float = 0.75
    reweight: float | None = None
    starts: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            isinstance(self.keep, bool)
            or not isinstance(self.keep, (int, float))
            or not 0.5 <= self.keep <= 1
        ):
            raise BadArgument(f"keep={self.keep!r}: the share of rows that is kept, from 0.5 to 1.")
        if self.reweight is not None and not 0.5 < self.reweight < 1:
            raise BadArgument(
                f"reweight={self.reweight!r}: None, or a level between 0.5 and 1, such as 0.975."
            )
        if isinstance(self.starts, bool) or not isinstance(self.starts, int) or self.starts < 1:
            raise BadArgument(f"starts={self.starts!r}: a whole number of at least 1.")

    def __str__(self) -> str:
        return f"Trimmed({self.keep:.4g}{'' if self.reweight is None else f', reweight={self.reweight:g}'})"

    def rows(self, n: int) -> int:
        """h = ⌈keep·n⌉."""
        return min(n, math.ceil(self.keep * n - 1e-9))

    @property
    def consistency(self) -> float:
        """By how much a normal scale of the share kept is too small: (1 − 2qφ(q)/keep)^(−½), q = Φ⁻¹((1 +
        keep)/2).

        References
        ----------
        Croux and Rousseeuw (1992), A class of high-breakdown scale estimators based on subranges.
        """
        return consistency(self.keep)

    def of(self, model: nn.Module, source: Source) -> LogLikelihood:
        """The term of a model and its data."""
        return TrimmedTerm(model, source, self)


def consistency(keep: float) -> float:
    """(1 − 2qφ(q)/keep)^(−½): the standard deviation of a normal over that of its central share `keep`."""
    if keep >= 1:
        return 1.0
    q = float(torch.special.ndtri(torch.tensor((1 + keep) / 2, dtype=torch.float64)))
    out: float = (1 - 2 * q * math.exp(-q * q / 2) / math.sqrt(2 * math.pi) / keep) ** -0.5
    return out


class TrimmedTerm(RobustTerm):
    """The sum of the h largest log p, as a function of θ: which rows they are changes with θ. Once `held`
    says which, it does not."""

    def __init__(self, model: nn.Module, source: Source, robust: Trimmed):
        super().__init__(model, source)
        self.robust = robust
        self.held: Tensor | None = None  # rows that stay the kept ones whatever θ is
        if source.size is None:
            raise BadArgument("Trimmed ranks all rows, and these data have no end.")
        if (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_world_size() > 1
        ):
            raise BadArgument(
                "Trimmed ranks all rows, and of several processes each has a part of them. Fit in one "
                "process."
            )

    def over(self, source: Source, model: nn.Module | None = None) -> LogLikelihood:
        return TrimmedTerm(self.model if model is None else model, source, self.robust)

    def holding(self, kept: Tensor) -> TrimmedTerm:
        """The term of these rows, (n,) boolean, whatever θ is."""
        out = TrimmedTerm(self.model, self.source, self.robust)
        out.held = kept
        return out

    @cached_property
    def lengths(self) -> list[int]:
        """Of the batches."""
        out = []
        for batch in self.source.batches(self.model):
            if batch.counted:
                raise BadArgument(
                    "Trimmed keeps or leaves out whole rows, and these have weights. Repeat the rows "
                    "instead, or use th.DensityPower."
                )
            if len(batch.shape) != 1:
                raise BadArgument("Trimmed ranks rows, and these are made of several terms each.")
            out.append(len(batch))
        return out

    @property
    def h(self) -> int:
        """How many rows are kept."""
        out: int = self.robust.rows(sum(self.lengths))
        return out

    def kept(self) -> Tensor:
        """Which rows are kept at the model's θ, (n,) boolean; of equally probable ones the first."""
        if self.held is not None:
            return self.held
        return largest(log_probs(self), self.h)

    def on(self, kept: Tensor) -> LogLikelihood:
        """The log-likelihood of some rows, the others counted 0."""
        return LogLikelihood(
            self.model, Recounted(self.source, list(kept.to(torch.float64).split(self.lengths)))
        )

    def taylor(self, order: int, precision: torch.dtype = torch.float64) -> Taylor:
        return self.on(self.kept()).taylor(order, precision)

    def row_weights(self) -> Tensor:
        """1 of the rows that are kept, 0 of the others, (n,)."""
        return self.kept().to(torch.float64)


def largest(log_prob: Tensor, h: int) -> Tensor:
    """The h largest, (…, n) boolean; of ties the first. What is not a number comes last."""
    order = torch.argsort(log_prob.nan_to_num(nan=-math.inf), dim=-1, descending=True, stable=True)
    out = torch.zeros(log_prob.shape, dtype=torch.bool)
    return out.scatter_(-1, order[..., :h], True)


@torch.no_grad()
def log_probs(term: LogLikelihood) -> Tensor:
    """log p of every row, (n,), at the model's θ."""
    return torch.cat(
        [
            term.model.log_prob(batch).reshape(-1).to(torch.float64)
            for batch in term.source.batches(term.model)
        ]
    )


# ---- by name -----------------------------------------------------------------------------------------------


def get(robust: DensityPower | Trimmed | str | None) -> DensityPower | Trimmed | None:
    """The setting of that name: "density_power:0.5", "trimmed:0.75"; without a number, the default.

    Examples
    --------
    >>> get("trimmed:0.6").keep
    0.6
    """
    if robust is None or isinstance(robust, (DensityPower, Trimmed)):
        return robust
    name, _, number = robust.partition(":") if isinstance(robust, str) else ("", "", "")
    kinds: dict[str, type[DensityPower] | type[Trimmed]] = {"density_power": DensityPower, "trimmed": Trimmed}
    try:
        return kinds[name](float(number)) if number else kinds[name]()
    except (KeyError, ValueError) as error:
        if isinstance(error, BadArgument):
            raise
        raise BadArgument(
            f"robust={robust!r}. Accepted: th.DensityPower(beta), th.Trimmed(keep), 'density_power:0.5', "
            "'trimmed:0.75', None."
        ) from error
