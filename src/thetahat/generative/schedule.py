"""Noise schedules: which signal-to-noise ratio belongs to which time.

    z_t = α_t x + σ_t ε,      α² = sigmoid(λ_t),  σ² = sigmoid(−λ_t),      λ_t = log α²/σ²,  falling from `high` at t = 0 to `low` at t = 1

The bound of a diffusion model depends on a schedule by its two ends alone; what lies between decides how
noisy one draw of t makes it.

References
----------
Kingma, Salimans, Poole and Ho (2021), Variational diffusion models, §5.1; Nichol and Dhariwal (2021),
Improved denoising diffusion probabilistic models, eq. 17 (the cosine schedule; its log-SNR: Kingma and Gao,
2023, Table 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..errors import BadArgument


class Schedule(nn.Module, ABC):
    """λ_t, a falling function of t in [0, 1]. A subclass says `log_snr(t)` and `fall(t)` = −dλ/dt > 0.

    Parameters
    ----------
    high, low
        λ at t = 0 and at t = 1; a `high` of None is set by the model that the schedule is given to
    learned
        whether both are parameters, which the bound itself then decides
    """

    def __init__(self, high: float | None = None, low: float = -10.0, *, learned: bool = False):
        super().__init__()
        if high is not None and not (math.isfinite(high) and math.isfinite(low) and low < high):
            raise BadArgument(f"high={high}, low={low}: a log signal-to-noise ratio falls from high to low.")
        self._high, self._low, self.learned = high, low, learned
        self.ends: nn.Parameter | None = None
        if high is not None:
            self.settle(high)

    def settle(self, high: float) -> None:
        """Set `high` where the caller left it open."""
        if self._high is None and not high > self._low:
            raise BadArgument(f"low={self._low}: λ falls from {high:.4g} at t = 0, so that low is below it.")
        self._high = high if self._high is None else self._high
        if self.learned and self.ends is None:
            self.ends = nn.Parameter(torch.tensor([self._high, self._low], dtype=torch.float32))

    @property
    def high(self) -> Tensor:
        """λ_0, ()."""
        return torch.tensor(self._high, dtype=torch.float64) if self.ends is None else self.ends[0]

    @property
    def low(self) -> Tensor:
        """λ_1, ()."""
        return torch.tensor(self._low, dtype=torch.float64) if self.ends is None else self.ends[1]

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """λ_t, of t's shape."""

    @abstractmethod
    def fall(self, t: Tensor) -> Tensor:
        """−dλ/dt, of t's shape."""


class Linear(Schedule):
    """λ_t = high + (low − high)·t.

    Examples
    --------
    >>> Linear(8.0, -8.0).log_snr(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [8.0, 0.0, -8.0]
    """

    def log_snr(self, t: Tensor) -> Tensor:
        return self.high.to(t) + (self.low - self.high).to(t) * t

    def fall(self, t: Tensor) -> Tensor:
        return (self.high - self.low).to(t) * torch.ones_like(t)


class Cosine(Schedule):
    """λ_t = shift − 2 log tan φ_t, the angle φ_t growing evenly from one end to the other: most times are
    spent where λ is near `shift`.

        tan φ = e^{(shift − λ)/2},      −dλ/dt = 2 (φ_1 − φ_0) / (sin φ_t cos φ_t)

    With shift = 0 and both ends infinite, α_t = cos(πt/2): the cosine schedule.

    Examples
    --------
    >>> Cosine(8.0, -8.0).log_snr(torch.tensor([0.0, 0.5, 1.0])).round(decimals=3).tolist()
    [8.0, 0.0, -8.0]
    """

    def __init__(
        self, high: float | None = None, low: float = -10.0, *, shift: float = 0.0, learned: bool = False
    ):
        super().__init__(high, low, learned=learned)
        self.shift = shift

    def _angles(self, t: Tensor) -> tuple[Tensor, Tensor]:
        first, last = (torch.atan(torch.exp((self.shift - end.to(t)) / 2)) for end in (self.high, self.low))
        return first + (last - first) * t, last - first

    def log_snr(self, t: Tensor) -> Tensor:
        return self.shift - 2 * torch.log(torch.tan(self._angles(t)[0]))

    def fall(self, t: Tensor) -> Tensor:
        phi, width = self._angles(t)
        return 4 * width / torch.sin(2 * phi)


class Straight(Schedule):
    """The path of flow matching and of rectified flow: x and noise are mixed in shares that change evenly.

        (1 − τ) x + τ ε  =  z_t/(α_t + σ_t),      τ = τ_0 + (τ_1 − τ_0) t,      λ_t = 2 log((1 − τ)/τ)

        −dλ/dt = 2 (τ_1 − τ_0) / (τ (1 − τ)),      τ_0 = sigmoid(−high/2),  τ_1 = sigmoid(−low/2)

    A step of "ddim" on this schedule is Euler's step along (1 − τ) x + τ ε. With the weights
    `FlowMatching(schedule)` the objective is that of flow matching.

    References
    ----------
    Lipman, Chen, Ben-Hamu, Nickel and Le (2023), Flow matching for generative modeling, §4.1 (with t = 1 − τ);
    Liu, Gong and Liu (2023), Flow straight and fast: learning to generate and transfer data with rectified
    flow.

    Examples
    --------
    >>> Straight(8.0, -8.0).log_snr(torch.tensor([0.0, 0.5, 1.0])).round(decimals=3).tolist()
    [8.0, 0.0, -8.0]
    """

    def _shares(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1 − τ and τ, each without a difference of numbers near 1, and τ_1 − τ_0."""
        high, low = self.high.to(t), self.low.to(t)
        signal = torch.sigmoid(high / 2) * (1 - t) + torch.sigmoid(low / 2) * t
        noise = torch.sigmoid(-high / 2) * (1 - t) + torch.sigmoid(-low / 2) * t
        return signal, noise, torch.sigmoid(-low / 2) - torch.sigmoid(-high / 2)

    def log_snr(self, t: Tensor) -> Tensor:
        signal, noise, _ = self._shares(t)
        return 2 * (torch.log(signal) - torch.log(noise))

    def fall(self, t: Tensor) -> Tensor:
        signal, noise, width = self._shares(t)
        return 2 * width / (signal * noise)


SCHEDULES = {"linear": Linear, "cosine": Cosine, "straight": Straight}


def signal(log_snr: Tensor) -> Tensor:
    """α."""
    return torch.sigmoid(log_snr).sqrt()


def noise(log_snr: Tensor) -> Tensor:
    """σ."""
    return torch.sigmoid(-log_snr).sqrt()
