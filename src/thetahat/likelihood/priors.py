"""Priors: log p(θ), coefficient by coefficient. Normal is ridge; Student's t shrinks the small and leaves the large."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import BadArgument, UnknownColumn
from ..models.information import Information
from ..models.taylor import Taylor


@dataclass(frozen=True)
class Prior:
    """An independent prior on some coordinates of a model's θ (coefficients on the scale of their link).

    Parameters
    ----------
    scale : of each coefficient
    location : where it is centred
    on : names of coefficients, * and ? allowed; None: every coefficient but intercepts and constants
    """

    scale: float = 1.0
    location: float = 0.0
    on: str | Sequence[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        numbers = all(isinstance(v, (int, float)) and math.isfinite(v) for v in (self.scale, self.location))
        if not (numbers and self.scale > 0):
            raise BadArgument(
                f"a prior's scale is a positive number and its location a number; received {self.scale!r}, {self.location!r}."
            )

    def log_density(self, z: Tensor) -> Tensor:
        """log density of the standardised coefficient z = (θ − location)/scale, less log scale."""
        raise NotImplementedError

    def coordinates(self, model: nn.Module) -> Tensor:
        """Which coordinates of θ it is on."""
        names = list(
            getattr(model, "coefficient_names", None) or [n for n, p in model.named_parameters() for _ in range(p.numel())]
        )
        if self.on is None:
            free = getattr(model, "slopes", None)
            keep = [bool(b) for b in free] if free is not None else [True] * len(names)
        else:
            patterns = [self.on] if isinstance(self.on, str) else list(self.on)
            for pattern in patterns:
                if not any(fnmatch.fnmatchcase(n, pattern) or n == pattern for n in names):
                    raise UnknownColumn.named(pattern, names, where="the prior")
            keep = [any(fnmatch.fnmatchcase(n, p) or n == p for p in patterns) for n in names]
        return torch.nonzero(torch.tensor(keep)).reshape(-1)

    def taylor(self, model: nn.Module, order: int = 2) -> Taylor:
        """log p(θ), its gradient and its information in the model's own θ."""
        theta = torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])
        on = self.coordinates(model)
        with torch.enable_grad():
            leaf = theta[on].clone().requires_grad_()
            each = self.log_density((leaf - self.location) / self.scale) - math.log(self.scale)
            slope = torch.autograd.grad(each.sum(), leaf, create_graph=True)[0]
            bend = torch.autograd.grad(slope.sum(), leaf)[0] if slope.requires_grad else torch.zeros_like(leaf)
        gradient, curvature = torch.zeros_like(theta), torch.zeros_like(theta)
        gradient[on], curvature[on] = slope.detach(), -bend
        return Taylor(each.sum().detach(), gradient, _diagonal(model, curvature) if order > 1 else None)


@dataclass(frozen=True)
class Normal(Prior):
    """log p(θ_j) = −½ log 2π − log s − (θ_j − m)² / 2s²: ridge regression with penalty 1/2s².

    Source: Hoerl and Kennard (1970), Ridge Regression.

    >>> str(Normal(2.5))
    'Normal(scale=2.5, location=0.0, on=None)'
    """

    def log_density(self, z: Tensor) -> Tensor:
        return -0.5 * math.log(2 * math.pi) - 0.5 * z**2


@dataclass(frozen=True)
class StudentT(Prior):
    """Student's t with `df` degrees of freedom: weakly informative for logistic coefficients at df = 1 … 7, scale 2.5.

    Source: Gelman, Jakulin, Pittau and Su (2008), A weakly informative default prior distribution for logistic and other regression models.
    """

    df: float = field(default=4.0, kw_only=True)

    def log_density(self, z: Tensor) -> Tensor:
        half = (self.df + 1) / 2
        constant = math.lgamma(half) - math.lgamma(self.df / 2) - 0.5 * math.log(self.df * math.pi)
        return constant - half * torch.log1p(z**2 / self.df)


def _diagonal(model: nn.Module, curvature: Tensor) -> Information:
    """diag(curvature) in the block structure that the model's own information has, so that the two add without being written out."""
    layout = getattr(model, "layout", None)
    if layout is None or layout.eliminated is None:
        return Information(torch.diag(curvature))
    gone = layout.eliminated
    kept = layout.position >= 0
    E = curvature.new_zeros(gone.stop - gone.start, layout.kept)
    return Information(torch.diag(curvature[kept]), E, curvature[gone], gone)
