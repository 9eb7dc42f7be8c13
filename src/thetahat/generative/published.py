"""Published networks as models of this library: a scheduler's steps and the SDEs of score_sde as schedules.

    z̃_t = m_t x + s_t ε  of any such process is, divided by κ_t = √(m_t² + s_t²),  z = α x + σ ε,  λ = 2 log m_t/s_t

so that its score gives ε̂ = −s_t ∇ log p_t(z̃), and its probability flow is that of a `Diffusion`.

References
----------
Song et al. (2021), Score-based generative modeling through stochastic differential equations, §3.4 and App.
B; Kingma, Salimans, Poole and Ho (2021), Variational diffusion models, §5.1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import device_of, widest
from ..errors import BadArgument
from ..types import Plain
from .diffusion import Diffusion
from .discrete import called
from .probability_flow import ProbabilityFlow
from .schedule import Linear, noise, signal


class SDE(ABC):
    """A process z̃_t = m_t x + s_t ε: which time has which log-SNR λ = 2 log m_t/s_t, and how it ends.

    Parameters
    ----------
    span
        t at which the data are scored, and t of the end
    prior
        standard deviation of z̃ at the end, as the publication has it
    sentence
        how it reads
    """

    def __init__(self, span: tuple[float, float], prior: float, sentence: str):
        self.span, self.prior, self.sentence = span, prior, sentence
        self.high, self.low = self.log_snr(torch.tensor(span, dtype=torch.float64)).tolist()

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """λ of t."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """t of λ, as the network takes it."""

    def size(self, log_snr: Tensor) -> Tensor:
        """κ = √(m² + s²) of λ: 1 where the variance is preserved."""
        return torch.ones_like(log_snr)


class VP(SDE):
    """The variance-preserving SDE: m_t² = e^{−B}, s_t² = 1 − e^{−B}, B = β_min t + ½ (β_max − β_min) t².

    Parameters
    ----------
    beta_min, beta_max
        β at t = 0 and t = 1
    start
        the t at which the data are scored (score_sde: 1e-5)

    Examples
    --------
    >>> sde = VP(0.1, 20.0)
    >>> round(sde.low, 3), sde.time(sde.log_snr(torch.tensor([0.25, 1.0]))).tolist()
    (-10.05, [0.25, 1.0])
    """

    name = "VP"

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, *, start: float = 1e-5):
        if not 0 <= beta_min <= beta_max < math.inf or beta_max == 0 or not 0 < start < 1:
            raise BadArgument(
                f"beta_min={beta_min}, beta_max={beta_max}, start={start}. Accepted: 0 ≤ beta_min ≤ beta_max, "
                "beta_max above 0, and a start in (0, 1)."
            )
        self.beta_min, self.width = beta_min, beta_max - beta_min
        super().__init__((start, 1.0), 1.0, f"{self.name} SDE (beta {beta_min:g} to {beta_max:g})")

    def _total(self, t: Tensor) -> Tensor:
        """B."""
        return self.beta_min * t + 0.5 * self.width * t.square()

    def _solved(self, total: Tensor) -> Tensor:
        """t of B, by the form of the root that loses no digits near 0."""
        return 2 * total / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * self.width * total))

    def log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(torch.expm1(self._total(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        return self._solved(F.softplus(-log_snr))


class SubVP(VP):
    """The sub-variance-preserving SDE: m_t² = e^{−B} as for `VP`, and s_t = 1 − e^{−B}.

    Parameters
    ----------
    beta_min, beta_max, start
        as of `VP`

    Examples
    --------
    >>> sde = SubVP(0.1, 20.0)
    >>> [round(t, 6) for t in sde.time(sde.log_snr(torch.tensor([0.25, 1.0]))).tolist()]
    [0.25, 1.0]
    """

    name = "sub-VP"

    def log_snr(self, t: Tensor) -> Tensor:
        total = self._total(t)
        return -total - 2 * torch.log(-torch.expm1(-total))

    def time(self, log_snr: Tensor) -> Tensor:
        # m/s = 1/(2 sinh(B/2))
        return self._solved(2 * torch.asinh(torch.exp(-log_snr / 2) / 2))

    def size(self, log_snr: Tensor) -> Tensor:
        inverse = torch.exp(-log_snr / 2)  # s/m
        mean = 2 / (inverse + torch.sqrt(inverse.square() + 4))
        return mean * torch.sqrt(1 + inverse.square())


class VE(SDE):
    """The variance-exploding SDE: m_t = 1, s_t = σ_min (σ_max/σ_min)^t; at the end N(0, σ_max² I).

    Parameters
    ----------
    sigma_min, sigma_max
        s at t = 0 and t = 1
    start
        the t at which the data are scored (score_sde: 1e-5)

    Examples
    --------
    >>> sde = VE(0.01, 50.0)
    >>> sde.time(sde.log_snr(torch.tensor([0.25, 1.0]))).tolist()
    [0.25, 1.0]
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, *, start: float = 1e-5):
        if not 0 < sigma_min < sigma_max < math.inf or not 0 <= start < 1:
            raise BadArgument(
                f"sigma_min={sigma_min}, sigma_max={sigma_max}, start={start}. Accepted: 0 < sigma_min < "
                "sigma_max, and a start in [0, 1)."
            )
        self.smallest, self.growth = math.log(sigma_min), math.log(sigma_max / sigma_min)
        super().__init__((start, 1.0), sigma_max, f"VE SDE (sigma {sigma_min:g} to {sigma_max:g})")

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * (self.smallest + self.growth * t)

    def time(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2 - self.smallest) / self.growth

    def size(self, log_snr: Tensor) -> Tensor:
        return torch.sqrt(1 + torch.exp(-log_snr))


class Steps(SDE):
    """The T steps of a scheduler as a continuous process: between two steps λ is linear in t.

    Parameters
    ----------
    alphas_cumprod
        ᾱ, (T,), in (0, 1)

    Examples
    --------
    >>> Steps(torch.tensor([0.9, 0.5, 0.1])).time(torch.logit(torch.tensor([0.5, 0.1]))).tolist()
    [1.0, 2.0]
    """

    def __init__(self, alphas_cumprod: Tensor):
        if alphas_cumprod[-1] == 0:
            raise BadArgument("alphas_cumprod ends at 0: a continuous process needs a last step above 0.")
        self.grid = torch.logit(alphas_cumprod)
        last = len(self.grid) - 1
        super().__init__((0.0, float(last)), 1.0, f"{last + 1} steps made continuous")

    def log_snr(self, t: Tensor) -> Tensor:
        grid = self.grid.to(t)
        left = t.detach().long().clamp(0, len(grid) - 2)
        return grid[left] + (t - left) * (grid[left + 1] - grid[left])

    def time(self, log_snr: Tensor) -> Tensor:
        grid = self.grid.to(log_snr)
        right = torch.searchsorted(-grid, -log_snr.detach()).clamp(1, len(grid) - 1)
        left = right - 1
        return left + (grid[left] - log_snr) / (grid[left] - grid[right])


class Converted(nn.Module):
    """ε̂ (n, d) at (z (n, d), λ (n,)) of a network that is called with (z̃ (n, *shape), t (n,)).

    The network keeps its own type: it is no submodule here, which a conversion to float64 would reach.
    """

    def __init__(self, network: Plain, process: SDE, prediction_type: str, shape: Sequence[int]):
        super().__init__()
        self.held, self.process = (network,), process
        self.prediction_type, self.shape = prediction_type, tuple(shape)
        # by it `Diffusion.dtype`, in which z is, is float64 whatever the network's own
        self.register_buffer("precision", torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        alpha, sigma = signal(log_snr)[:, None], noise(log_snr)[:, None]
        size = self.process.size(log_snr)[:, None]
        out = called(self.held[0], z * size, self.process.time(log_snr), self.shape)
        if self.prediction_type == "score":
            return -sigma * size * out
        if self.prediction_type == "v_prediction":
            return alpha * out + sigma * z
        return (z - alpha * out) / sigma if self.prediction_type == "sample" else out


def continuous(
    network: Plain, process: SDE, prediction_type: str, shape: Sequence[int], *, K: int = 1
) -> Diffusion:
    """A published network as a `Diffusion` of real vectors, in float64 around the network."""
    model = Diffusion(
        Converted(network, process, prediction_type, shape),
        predict="epsilon",
        schedule=Linear(process.high, process.low),
        dimensions=math.prod(shape),
        K=K,
    )
    device = device_of(network)
    return model.to(device) if widest(device) == torch.float64 else model


def by_flow(flow: ProbabilityFlow, process: SDE, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """log p(x) by the probability flow, (n,), whose end is N(0, prior²) in units of z̃."""
    paths = flow.solve(x.to(flow.diffusion.scale.device), generator=generator)
    s = _prior(process)
    return paths.log_prob - (0.5 * paths.end.square() * (1 / s**2 - 1) + math.log(s)).sum(1)


def by_bound(diffusion: Diffusion, process: SDE, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """The variational bound of log p(x), (n,), whose end is N(0, prior²) in units of z̃."""
    x = x.to(diffusion.scale.device)
    s, low = _prior(process), torch.tensor(process.low, dtype=torch.float64)
    second = torch.sigmoid(low).to(x) * x.square() + torch.sigmoid(-low).to(x)
    value = diffusion.log_prob(Batch({"y": x}), generator)
    return value - (0.5 * second * (1 / s**2 - 1) + math.log(s)).sum(1)


def loss(diffusion: Diffusion, process: SDE, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Mean over t and numbers of (ε − ε̂)², (n,): what such networks are trained by. t is uniform."""
    x = x.to(diffusion.scale.device)
    first, last = process.span
    u = torch.rand((), generator=generator, dtype=torch.float64)
    u = (u + torch.randperm(len(x), generator=generator) / len(x)) % 1
    log_snr = process.log_snr(first + (last - first) * u).to(x)
    epsilon = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    z = signal(log_snr)[:, None] * x + noise(log_snr)[:, None] * epsilon
    return (epsilon - diffusion.denoised(z, log_snr)[1]).square().mean(1)


def _prior(process: SDE) -> float:
    """The standard deviation of z = z̃/κ at the end."""
    return process.prior / float(process.size(torch.tensor(process.low, dtype=torch.float64)))
