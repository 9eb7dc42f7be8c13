"""Vectors: the multivariate normal and the Dirichlet. y is (n, d); every parameter is (n,) or
broadcastable to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument
from . import links
from .base import Family, Parameter, Support, reals
from .incomplete import stirling
from .links import Identity
from .ranges import positive, real
from .special import LOG_ROOT_2PI, log_gamma_sample


@dataclass(frozen=True)
class MultivariateNormal(Family):
    """The normal distribution of a vector, by its mean and the Cholesky factor of its covariance.

        log p(y | μ, L) = −(d/2)·log 2π − Σ_i log L_ii − ½ |z|²,      L z = y − μ

    Covariance Σ = L Lᵀ, L lower triangular.

    Parameters
    ----------
    dim
        d, the length of y
    mean_1 … mean_d
        μ, link identity (or `link`)
    scale_11, scale_21, scale_22, …
        L row by row; its diagonal positive, link log; the rest real

    References
    ----------
    Pinheiro and Bates (1996), Unconstrained parametrizations for variance-covariance matrices, Stat. Comput.
    6.

    Examples
    --------
    >>> round(MultivariateNormal(2).log_prob(torch.tensor([[1.0, 2.0]]), *torch.tensor([0.0, 0.0, 1.0, 0.5, 2.0])).item(), 6)
    -3.312274
    """

    dim: int = 2

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise BadArgument(f"dim is {self.dim}; a vector has 1 or more components.")

    @property
    def length(self) -> int:
        return self.dim

    @property
    def parameters(self) -> dict[str, Parameter]:
        mean = Parameter(real, link=links.get(self.link or links.identity), own_predictors=True)
        diagonal, below = Parameter(positive, link=links.log), Parameter(real)
        means = {f"mean_{i}": mean for i in range(1, self.dim + 1)}
        apart = "_" if self.dim > 9 else ""
        return means | {
            f"scale_{i + 1}{apart}{j + 1}": diagonal if i == j else below for i, j in self._entries()
        }

    def _entries(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.dim) for j in range(i + 1)]

    def log_prob(self, y: Tensor, *parameters: Tensor) -> Tensor:
        scale = dict(zip(self._entries(), parameters[self.dim :], strict=True))
        value, z = torch.full_like(y[..., 0], -self.dim * LOG_ROOT_2PI), list[Tensor]()
        for i in range(self.dim):
            rest = y[..., i] - parameters[i]
            for j in range(i):
                rest = rest - scale[i, j] * z[j]
            z.append(rest / scale[i, i])
            value = value - torch.log(scale[i, i]) - 0.5 * z[i] ** 2
        return value

    def sample(self, *parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, factor = self._unpack(parameters)
        noise = torch.normal(torch.zeros_like(mean), 1.0, generator=generator)
        return mean + (factor @ noise[..., None])[..., 0]

    def expectation(self, *parameters: Tensor) -> Tensor:
        return self._unpack(parameters)[0]

    def variance(self, *parameters: Tensor) -> Tensor:
        """The covariance, (n, d, d)."""
        factor = self._unpack(parameters)[1]
        return factor @ factor.mT

    def _unpack(self, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """μ (…, d) and L (…, d, d)."""
        flat = torch.stack(torch.broadcast_tensors(*parameters), -1)
        factor = flat.new_zeros(*flat.shape[:-1], self.dim, self.dim)
        rows, columns = zip(*self._entries(), strict=True)
        factor[..., rows, columns] = flat[..., self.dim :]
        return flat[..., : self.dim], factor

    def in_support(self, y: Tensor) -> Tensor:
        return _of_length(self, y, self.dim) & reals.contains(y).all(-1)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        """The maximum of the likelihood of constant parameters, or close to it where the covariance is
        singular."""
        share = (weight / weight.sum())[:, None]
        mean = (share * y).sum(0)
        deviation = ((share * (y - mean) ** 2).sum(0)).sqrt()
        deviation = torch.where(deviation > 0, deviation, 1.0)
        z = (y - mean) / deviation
        correlation, identity = (share * z).T @ z, torch.eye(self.dim, dtype=y.dtype, device=y.device)
        for shrink in (0.0, *(10.0**k for k in range(-12, 1))):
            factor, failed = torch.linalg.cholesky_ex((1 - shrink) * correlation + shrink * identity)
            if not failed and float(factor.diagonal().min()) > 1e-6:
                break
        factor = deviation[:, None] * factor
        return (*mean.tolist(), *(float(factor[i, j]) for i, j in self._entries()))

    def maximum(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        share = (weight / weight.sum())[:, None]
        mean = (share * y).sum(0)
        rest = share.sqrt() * (y - mean)
        deviation = rest.square().sum(0).sqrt()
        z = rest / deviation  # NaN where a component does not vary
        factor, failed = torch.linalg.cholesky_ex(z.T @ z)
        if (
            int(failed) or not float(factor.diagonal().min()) > 1e-6
        ):  # rounding decides below: the covariance is singular
            factor = torch.full_like(factor, math.nan)
        factor = deviation[:, None] * factor
        return (*mean.tolist(), *(float(factor[i, j]) for i, j in self._entries()))

    @property
    def concave(self) -> bool:
        return False


@dataclass(frozen=True)
class Dirichlet(Family):
    """Shares that sum to one.

        log p(y | α) = log Γ(s) − Σ_j log Γ(α_j) + Σ_j (α_j − 1)·log y_j,      s = Σ_j α_j

    Mean α/s; the density is on the simplex, with respect to the first k − 1 shares. k = 2 is the beta
    distribution.

    Parameters
    ----------
    k
        the number of shares
    concentration_1 … concentration_k
        α_j > 0, link log (or `link`)

    References
    ----------
    Minka (2000), Estimating a Dirichlet distribution.

    Examples
    --------
    >>> round(Dirichlet(3).log_prob(torch.tensor([[0.2, 0.3, 0.5]]), *torch.tensor([1.0, 2.0, 3.0])).item(), 6)
    1.504077
    """

    k: int = 3

    support = Support("the vectors of positive shares that sum to one", 0.0, 1.0)

    def __post_init__(self) -> None:
        if self.k < 2:
            raise BadArgument(f"k is {self.k}; a whole has 2 or more shares.")

    @property
    def length(self) -> int:
        return self.k

    @property
    def parameters(self) -> dict[str, Parameter]:
        concentration = Parameter(positive, link=links.get(self.link or links.log), own_predictors=True)
        return {f"concentration_{j}": concentration for j in range(1, self.k + 1)}

    def log_prob(self, y: Tensor, *parameters: Tensor) -> Tensor:
        inside = (y > 0).all(-1)
        log_y = torch.log(torch.where(inside[..., None], y, 1.0))
        total = torch.stack(torch.broadcast_tensors(*parameters)).sum(0)
        # with Stirling's formula in each log Γ, all that is left of the large terms is −Σ α·log((α/s) / y)
        value = LOG_ROOT_2PI - 0.5 * torch.log(total) + stirling(total)
        for j, alpha in enumerate(parameters):
            value = value - alpha * (torch.log(alpha / total) - log_y[..., j])
            value = value + 0.5 * torch.log(alpha) - LOG_ROOT_2PI - stirling(alpha) - log_y[..., j]
        return torch.where(inside, value, -math.inf)

    def sample(self, *parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        alpha = torch.stack(torch.broadcast_tensors(*parameters), -1)
        return torch.softmax(log_gamma_sample(alpha, generator), -1).clamp(min=torch.finfo(alpha.dtype).tiny)

    def expectation(self, *parameters: Tensor) -> Tensor:
        alpha = torch.stack(torch.broadcast_tensors(*parameters), -1)
        return alpha / alpha.sum(-1, keepdim=True)

    def variance(self, *parameters: Tensor) -> Tensor:
        """The covariance, (n, k, k), of rank k − 1."""
        alpha = torch.stack(torch.broadcast_tensors(*parameters), -1)
        total = alpha.sum(-1)[..., None, None]
        mean = self.expectation(*parameters)
        return (torch.diag_embed(mean) - mean[..., :, None] * mean[..., None, :]) / (1 + total)

    def in_support(self, y: Tensor) -> Tensor:
        return _of_length(self, y, self.k) & ((y > 0) & (y < 1)).all(-1) & ((y.sum(-1) - 1).abs() < 1e-6)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        share = (weight / weight.sum())[:, None]
        mean = (share * y).sum(0)
        spread = float((share * (y - mean) ** 2).sum())  # Σ_j mean_j·(1 − mean_j) / (1 + s)
        total = min(max(float((mean * (1 - mean)).sum()) / spread - 1, 0.1), 1e4) if spread > 0 else 1e4
        return tuple(max(total * m, 1e-3) for m in mean.tolist())

    @property
    def concave(self) -> bool:
        return isinstance(next(iter(self.parameters.values())).link, Identity)  # α is the natural parameter


def _of_length(family: Family, y: Tensor, length: int) -> Tensor:
    if y.ndim < 2 or y.shape[-1] != length:
        raise BadArgument(
            f"{family} describes vectors of {length} components; y has the shape {tuple(y.shape)}."
        )
    return torch.ones(y.shape[:-1], dtype=torch.bool, device=y.device)
