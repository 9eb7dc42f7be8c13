"""Priors: log p(θ), coefficient by coefficient.

Normal is ridge regression, Laplace the lasso, ElasticNet lies between them; Student's t shrinks the small and
leaves the large. Each is a density that integrates to 1, so that the nats of two priors can be compared
(`inference.evidence`).

A prior with a kink, −κ·|z| in its log density, has no derivative at its location: the maximum can stand
exactly there, and it takes `solvers.Proximal` to find it. `taylor` gives every prior whole, at the kink with
the middle of its slopes, 0.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..data.source import Source
from ..errors import BadArgument, UnknownColumn
from ..models.base import coefficient_names, place_of
from ..models.information import Information
from ..models.taylor import Taylor
from ..protocols import HasSlopes, layout_of


@dataclass(frozen=True)
class Prior:
    """An independent prior on some coordinates of a model's θ (coefficients on the scale of their link).

    Parameters
    ----------
    scale
        of each coefficient
    location
        where it is centred
    on
        names of coefficients, * and ? allowed; None: every coefficient but intercepts and constants
    """

    scale: float = 1.0
    location: float = 0.0
    on: str | Sequence[str] | None = field(default=None, kw_only=True)
    concave: ClassVar[bool] = True  # whether log p is concave in θ

    @property
    def kink(self) -> float:
        """κ, the weight of −|z| in the log density; 0 of a smooth one."""
        return 0.0

    def __post_init__(self) -> None:
        numbers = all(isinstance(v, (int, float)) and math.isfinite(v) for v in (self.scale, self.location))
        if not (numbers and self.scale > 0):
            raise BadArgument(
                f"a prior's scale is a positive number and its location a number; received {self.scale!r}, "
                f"{self.location!r}."
            )

    def log_density(self, z: Tensor) -> Tensor:
        """log density of the standardised coefficient z = (θ − location)/scale, less log scale."""
        raise NotImplementedError

    def coordinates(self, model: nn.Module) -> Tensor:
        """Which coordinates of θ it is on."""
        names = coefficient_names(model)
        if self.on is None:
            free = model.slopes if isinstance(model, HasSlopes) else None
            keep = [bool(b) for b in free] if free is not None else [True] * len(names)
        else:
            patterns = [self.on] if isinstance(self.on, str) else list(self.on)
            keep = [False] * len(names)
            for pattern in patterns:
                one = place_of(pattern, names)
                found = (
                    [i for i, n in enumerate(names) if fnmatch.fnmatchcase(n, pattern)]
                    if one is None
                    else [one]
                )
                if not found:
                    raise UnknownColumn.named(pattern, names, where="the prior")
                for i in found:
                    keep[i] = True
        return torch.nonzero(torch.tensor(keep)).reshape(-1)

    def taylor(self, model: nn.Module, order: int = 2) -> Taylor:
        """log p(θ), its gradient and its information in the model's own θ."""
        theta = torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])
        on = self.coordinates(model)
        with torch.enable_grad():
            leaf = theta[on].clone().requires_grad_()
            each = self.log_density((leaf - self.location) / self.scale) - math.log(self.scale)
            slope = torch.autograd.grad(each.sum(), leaf, create_graph=True)[0]
            bend = (
                torch.autograd.grad(slope.sum(), leaf)[0] if slope.requires_grad else torch.zeros_like(leaf)
            )
        gradient, curvature = torch.zeros_like(theta), torch.zeros_like(theta)
        gradient[on], curvature[on] = slope.detach(), -bend
        return Taylor(each.sum().detach(), gradient, _diagonal(model, curvature) if order > 1 else None)


@dataclass(frozen=True)
class Normal(Prior):
    """log p(θ_j) = −½ log 2π − log s − (θ_j − m)² / 2s²: ridge regression with penalty 1/2s².

    References
    ----------
    Hoerl and Kennard (1970), Ridge Regression.

    Examples
    --------
    >>> str(Normal(2.5))
    'Normal(scale=2.5, location=0.0, on=None)'
    """

    def log_density(self, z: Tensor) -> Tensor:
        return -0.5 * math.log(2 * math.pi) - 0.5 * z**2


@dataclass(frozen=True)
class StudentT(Prior):
    """Student's t with `df` degrees of freedom: weakly informative for logistic coefficients at df = 1 … 7,
    scale 2.5.

    References
    ----------
    Gelman, Jakulin, Pittau and Su (2008), A weakly informative default prior distribution for logistic and
    other regression models.
    """

    df: float = field(default=4.0, kw_only=True)
    concave: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.df < math.inf:
            raise BadArgument(f"df={self.df}. Accepted: a positive number.")

    def log_density(self, z: Tensor) -> Tensor:
        half = (self.df + 1) / 2
        constant = math.lgamma(half) - math.lgamma(self.df / 2) - 0.5 * math.log(self.df * math.pi)
        return constant - half * torch.log1p(z**2 / self.df)


@dataclass(frozen=True)
class Laplace(Prior):
    """log p(θ_j) = −|θ_j − m| / s − log 2s: the lasso, with penalty 1/s. Coefficients of which the data say
    little are exactly m.

    References
    ----------
    Tibshirani (1996), Regression shrinkage and selection via the lasso.

    Examples
    --------
    >>> round(Laplace(0.5).log_density(torch.tensor(3.0)).item(), 6)
    -3.693147
    """

    @property
    def kink(self) -> float:
        return 1.0

    def log_density(self, z: Tensor) -> Tensor:
        return -_size(z) - math.log(2)


@dataclass(frozen=True)
class ElasticNet(Prior):
    """Between ridge and lasso: coefficients are exactly m as under Laplace, and columns alike share their
    coefficient as under Normal.

        log p(θ_j) = −a·|z| − (1 − a)·z²/2 − log s − log Z,      z = (θ_j − m)/s,      Z = √(2π/b) · e^{a²/2b} · erfc(a/√2b),  b = 1 − a

    The penalty λ₁|θ| + ½ λ₂ θ² has λ₁ = a/s and λ₂ = (1 − a)/s². mix = 0 is Normal, 1 is Laplace.

    Parameters
    ----------
    scale, location, on
        as of every prior
    mix
        a, between 0 and 1

    References
    ----------
    Zou and Hastie (2005), Regularization and variable selection via the elastic net.

    Examples
    --------
    >>> ElasticNet(1.0, mix=1.0).log_density(torch.zeros(1)).item() == Laplace(1.0).log_density(torch.zeros(1)).item()
    True
    """

    mix: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.mix, bool) or not isinstance(self.mix, (int, float)) or not 0 <= self.mix <= 1:
            raise BadArgument(
                f"mix={self.mix!r}: the weight of |z|, a number between 0 (Normal) and 1 (Laplace)."
            )

    @classmethod
    def of_penalty(
        cls, l1: float, l2: float, *, location: float = 0.0, on: str | Sequence[str] | None = None
    ) -> ElasticNet:
        """The prior of a penalty l1·|θ − m| + ½·l2·(θ − m)² on the sum of nats: s is the positive root of
        l2·s² + l1·s = 1, and a = l1·s.

        Examples
        --------
        >>> prior = ElasticNet.of_penalty(3.0, 4.0)
        >>> prior.scale, prior.mix
        (0.25, 0.75)
        """
        if not (l1 >= 0 and l2 >= 0 and 0 < l1 + l2 < math.inf):
            raise BadArgument(f"l1={l1!r}, l2={l2!r}: penalties are not negative, and not both 0.")
        scale = 2 / (l1 + math.sqrt(l1**2 + 4 * l2))
        return cls(scale, location, mix=min(l1 * scale, 1.0), on=on)

    @property
    def kink(self) -> float:
        return float(self.mix)

    def log_density(self, z: Tensor) -> Tensor:
        a, b = self.mix, 1 - self.mix
        return -a * _size(z) - 0.5 * b * z**2 - self._log_constant()

    def _log_constant(self) -> float:
        """log Z; erfcx(x) = exp(x²)·erfc(x) does not overflow where b is small."""
        a, b = self.mix, 1 - self.mix
        if b == 0:
            return math.log(2)
        scaled = torch.special.erfcx(torch.tensor(a / math.sqrt(2 * b), dtype=torch.float64))
        return 0.5 * math.log(2 * math.pi / b) + float(scaled.log())


@dataclass(frozen=True)
class Jeffreys(Prior):
    """Jeffreys' prior of a regression, log p(θ) = ½ log |I(θ)|: Firth's penalised likelihood.

    Separated rows have a maximum under it, and estimates lose their bias of order 1/n. It is on all coefficients, the intercept
    too, and has no scale; it is a density of no finite integral in general, so that nats are up to a constant. Of Bernoulli,
    binomial, Poisson and exponential regressions. Intervals: kind="profile", since the penalised likelihood is seldom a parabola
    where it is needed.

    References
    ----------
    Firth (1993), Bias reduction of maximum likelihood estimates, Biometrika 80; Heinze and Schemper (2002), A solution to the
    problem of separation in logistic regression, Statist. Med. 21.

    Examples
    --------
    >>> import thetahat as th
    >>> table = {"y": [0.0, 0, 0, 1, 1, 1, 1], "x": [0.0, 0, 0, 0, 1, 1, 1]}  # 1 of 4 where x = 0, 3 of 3 where x = 1
    >>> fit = th.fit("y ~ x", table, "bernoulli", prior=Jeffreys())
    >>> round(float(fit.estimates["x"]), 6), round(math.log(3.5 / 0.5) - math.log(1.5 / 3.5), 6)  # ½ added to each cell
    (2.793208, 2.793208)
    """

    scale: float = field(default=1.0, init=False, repr=False)
    location: float = field(default=0.0, init=False, repr=False)
    on: str | Sequence[str] | None = field(default=None, init=False, repr=False)
    concave: ClassVar[bool] = False

    def coordinates(self, model: nn.Module) -> Tensor:
        """All."""
        return torch.arange(sum(p.numel() for p in model.parameters() if p.requires_grad))

    def of_rows(self, model: nn.Module, source: Source, order: int = 2) -> Taylor:
        """log p(θ), its gradient and its information, which the rows make (`protocols.OfRows`)."""
        from .jeffreys import taylor  # which sums over data, and reads regressions

        return taylor(model, source, order)

    def taylor(self, model: nn.Module, order: int = 2) -> Taylor:
        raise BadArgument(
            "Jeffreys' prior is made of the information of all rows together, and takes no batches of them: leave the solver out. "
            "Accepted with th.Stochastic(…): th.priors.Normal(scale)."
        )


registry: dict[str, type[Prior]] = {
    "normal": Normal,
    "student_t": StudentT,
    "laplace": Laplace,
    "elastic_net": ElasticNet,
    "jeffreys": Jeffreys,
}


def _size(z: Tensor) -> Tensor:
    """|z|, with the slope 0 at 0 and no curvature. (The second derivative of torch.abs loads torch's
    compiler: seconds.)
    """
    return z * z.detach().sign()


def _diagonal(model: nn.Module, curvature: Tensor) -> Information:
    """diag(curvature) in the block structure that the model's own information has, so that the two add
    without being written out."""
    layout = layout_of(model)
    if layout is None or layout.eliminated is None:
        return Information(torch.diag(curvature))
    gone = layout.eliminated
    kept = layout.position >= 0
    E = curvature.new_zeros(gone.stop - gone.start, layout.kept)
    return Information(torch.diag(curvature[kept]), E, curvature[gone], gone)
