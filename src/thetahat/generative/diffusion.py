"""Diffusion: noise is added to x until nothing is left of it, and a network undoes it; what it says of x is a
lower bound on log p(x).

    z_t = α_t x + σ_t ε,  ε ~ N(0, I),      λ_t = log α_t²/σ_t²  falling in t (`schedule.py`)

    log p(x)  ≥  E log p(x | z_0)  −  KL(q(z_1 | x) ‖ N(0, I))  −  ½ E_{t, ε} (−dλ/dt) ‖ε − ε̂(z_t, λ_t)‖²

The chain has no smallest step: this is the bound of infinitely many. With the best possible ε̂ it is log p(x)
itself, as far as noise at λ_0 leaves x known.

References
----------
Kingma, Salimans, Poole and Ho (2021), Variational diffusion models, eq. 17; Kingma and Gao (2023),
Understanding diffusion objectives as the ELBO with simple data augmentation.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, ModelError
from ..protocols import dimensions_of
from ..types import ModelLike
from .bound import Bound
from .samplers import sample
from .schedule import SCHEDULES, Cosine, Linear, Schedule

PREDICTIONS = ("epsilon", "v", "velocity", "levels")
HELD = 2**25  # numbers of a (rows, d, levels) tensor that are held at once


class Diffusion(Bound):
    """p(x) by a continuous-time diffusion; `log_prob` is its variational bound, in nats.

        log p(x) ≥ mean over k = 1 … K of   log p(x | z_0) − KL_1 − ½ (−dλ/dt) ‖ε_k − ε̂(z_{t_k}, λ_{t_k})‖²

    K is the number of draws of (t, ε) over which the bound is *averaged*: its expectation is the same for
    every K, and only its noise falls. It is no importance-weighted bound, which would grow with K. The times
    of one observation are evenly spaced, t_k = u + k/K mod 1, and so are the u of a batch: each is uniform,
    together they cover [0, 1] (Kingma et al., 2021, §I.1).

    Whole numbers, 0 … L − 1 (`levels=L`), have a mass, which sums to 1 over the levels of each pixel; x = (2y
    − L + 1)/(L − 1):

        p(y_j | z_0) = softmax_l (−½ e^{λ_0} (z_0j/α_0 − x(l))²) at l = y_j

    Real vectors have a density, p(y | z_0) = N(x; z_0/α_0, e^{−λ_0} I)/∏ scale, x = (y − shift)/scale.

    A batch that holds "t" (`th.generative.Noised`, so that a weighting can see the time of a term) is scored
    at its times, unless draws are asked of a generator.

    Parameters
    ----------
    network
        (z (n, d), λ (n,)) → what is predicted
    levels
        L, of whole numbers; None: a density of real vectors
    predict
        "epsilon": ε̂ (n, d). "v": v̂ (n, d), v = αε − σx, so that ε̂ = αv̂ + σz. "velocity": û (n, d), that of
        the straight path, u = ε − x, so that ε̂ = (z + αû)/(α + σ). "levels": logits a (n, d·L), to which
        what z itself says of its pixel is added: x̂ = Σ_l x(l) softmax_l(a_l − (z − αx(l))²/2σ²)
    schedule
        "linear", "cosine", "straight", or a `Schedule`, whose ends may be learned, without weights. None:
        linear for real vectors, where there is as much to learn at every λ; for levels the cosine about λ = log(L − 1),
        midway from the picture as a whole to single levels
    K
        draws of (t, ε) an observation
    shift, scale
        of real vectors, numbers or (d,)
    dimensions
        d, for draws; None: the network's own `dimensions`

    Raises
    ------
    BadArgument, ModelError

    References
    ----------
    Kingma et al. (2021), eq. 17 and §3; Salimans and Ho (2022), Progressive distillation for fast sampling
    (v); Gulrajani and Hashimoto (2023), Likelihood-based diffusion language models (the output prior behind
    "levels").

    Examples
    --------
    >>> model = Diffusion(lambda z, log_snr: torch.zeros_like(z), levels=None, predict="epsilon", dimensions=2)
    >>> tuple(model.log_prob(Batch({"y": torch.zeros(5, 2)})).shape)
    (5,)
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        network: ModelLike,
        *,
        levels: int | None = None,
        predict: str = "v",
        schedule: str | Schedule | None = None,
        K: int = 1,
        shift: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        dimensions: int | None = None,
    ):
        super().__init__()
        if predict not in PREDICTIONS or (predict == "levels" and levels is None):
            raise BadArgument(
                f"predict={predict!r}, levels={levels}. Accepted: 'epsilon', 'v', 'velocity', and 'levels' "
                "where there are levels."
            )
        if levels is not None and levels < 2:
            raise BadArgument(f"levels={levels}. Accepted: 2 or more; None for real vectors.")
        if K < 1:
            raise BadArgument(f"K={K}. Accepted: 1 or more draws an observation.")
        if isinstance(schedule, str) and schedule not in SCHEDULES:
            raise BadArgument(
                f"schedule={schedule!r}. Accepted: {', '.join(map(repr, SCHEDULES))}, a Schedule."
            )
        if not callable(network):
            raise BadArgument(
                f"Diffusion(network): received {type(network).__name__}, not a torch.nn.Module."
            )
        self.network, self.levels, self.predict, self.K = network, levels, predict, K
        if schedule is None:
            schedule = Linear() if levels is None else Cosine(shift=math.log(levels - 1))
        self.schedule = SCHEDULES[schedule]() if isinstance(schedule, str) else schedule
        # z_0/α_0 lies nearest to another level with probability Φ(−4) on each side
        self.schedule.settle(10.0 if levels is None else 2 * math.log(4 * (levels - 1)))
        half = None if levels is None else (levels - 1) / 2
        shift, scale = (shift, scale) if half is None else (half, half)
        self.register_buffer("shift", torch.as_tensor(shift, dtype=torch.float64), persistent=levels is None)
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64), persistent=levels is None)
        if not bool((self.scale > 0).all()):
            raise BadArgument(f"scale={scale}: it is positive.")
        self.measure = "density" if levels is None else "mass"
        self.dimensions = dimensions_of(network) if dimensions is None else dimensions

    # ---- x, z, ε̂ ------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """In which the network computes."""
        own = self.network if isinstance(self.network, nn.Module) else self
        held = itertools.chain(own.parameters(), own.buffers())
        return next((t.dtype for t in held if t.is_floating_point()), torch.get_default_dtype())

    def encode(self, y: Tensor) -> Tensor:
        """x, (n, d)."""
        return ((y.to(self.shift.dtype) - self.shift) / self.scale).to(self.dtype)

    def decode(self, x: Tensor) -> Tensor:
        """y, (n, d): of levels the nearest."""
        y = x * self.scale.to(x) + self.shift.to(x)
        return y if self.levels is None else y.round().clamp(0, self.levels - 1).to(torch.int64)

    def values(self) -> Tensor:
        """x(l), (L,)."""
        return self.encode(torch.arange(self.levels or 0, device=self.scale.device))

    def denoised(self, z: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """(x̂, ε̂), (n, d) each, which satisfy z = α x̂ + σ ε̂; λ (n,)."""
        alpha, sigma = signal(log_snr[:, None]), noise(log_snr[:, None])
        out = self._out(z, log_snr)
        if self.predict == "epsilon":
            return (z - sigma * out) / alpha, out
        if self.predict == "v":
            return alpha * z - sigma * out, alpha * out + sigma * z
        if self.predict == "velocity":
            return (z - sigma * out) / (alpha + sigma), (z + alpha * out) / (alpha + sigma)
        x = self._mean_level(out, z / alpha, log_snr)
        return x, (z - alpha * x) / sigma

    def _out(self, z: Tensor, log_snr: Tensor) -> Tensor:
        out = self.network(z, log_snr)
        n, d = z.shape
        shapes = ((n, d),) if self.predict != "levels" else ((n, d * (self.levels or 0)), (n, d, self.levels))
        if tuple(out.shape) not in shapes:
            raise ModelError(
                f"the network gives a tensor of shape {tuple(out.shape)} for z of shape {(n, d)} and "
                f"predict={self.predict!r}. Accepted: "
                f"{' or '.join(map(str, shapes))}."
            )
        found: Tensor = out
        return found

    def _mean_level(self, logits: Tensor, ratio: Tensor, log_snr: Tensor) -> Tensor:
        x = self.values()
        closeness = -0.5 * torch.exp(log_snr)[:, None, None] * (ratio[..., None] - x) ** 2
        return torch.softmax(logits.reshape(closeness.shape) + closeness, -1) @ x

    def _error(self, x: Tensor, epsilon: Tensor, log_snr: Tensor) -> Tensor:
        """‖ε − ε̂‖², (n,), by whichever form loses no digits."""
        alpha, sigma = signal(log_snr[:, None]), noise(log_snr[:, None])
        z = alpha * x + sigma * epsilon
        out = self._out(z, log_snr)
        if self.predict == "epsilon":
            return (epsilon - out).square().sum(1)
        if self.predict == "v":
            return (alpha * (alpha * epsilon - sigma * x - out)).square().sum(1)
        if self.predict == "velocity":
            return (alpha / (alpha + sigma) * (epsilon - x - out)).square().sum(1)
        return torch.exp(log_snr) * (x - self._mean_level(out, z / alpha, log_snr)).square().sum(1)

    # ---- the bound -----------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        y = batch["y"]
        if y.ndim != 2:
            raise ModelError(
                f"y has the shape {tuple(y.shape)}. Accepted: (n, d), a vector or an image a row."
            )
        x = self.encode(y)
        total = x.new_zeros(len(x))
        for t in self._times(batch, x, generator):
            epsilon = _normal(x, generator)
            part = self._decoded(y, x, epsilon) - 0.5 * self.schedule.fall(t) * self._error(
                x, epsilon, self.schedule.log_snr(t)
            )
            total = total + part
        value = total / self.K - self._end(x)
        if self.levels is None:
            return value - torch.log(self.scale.to(x)).expand(x.shape[1]).sum()
        fits = ((y >= 0) & (y < self.levels) & (y == torch.floor(y))).all(1)
        return torch.where(fits, value, -math.inf)

    def _times(self, batch: Batch, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """t_k of each observation, (K, n), in [0, 1)."""
        k = torch.arange(self.K, device=x.device, dtype=x.dtype)[:, None] / self.K
        if "t" in batch and generator is None:
            out: Tensor = (batch["t"].to(x.dtype) + k) % 1
            return out
        n = len(x)
        u = torch.rand((), generator=generator, dtype=x.dtype).to(x.device)
        # within a batch in an order of its own, so that no place in it has its time next to its neighbour's
        spread = torch.randperm(n, generator=generator).to(x.device, x.dtype) / (n * self.K)
        return (u + spread + k) % 1

    def _end(self, x: Tensor) -> Tensor:
        """KL(q(z_1 | x) ‖ N(0, I)), (n,): what is still known of x at t = 1."""
        low = self.schedule.low.to(x)
        return 0.5 * (torch.sigmoid(low) * (x.square() - 1) - F.logsigmoid(-low)).sum(1)

    def _decoded(self, y: Tensor, x: Tensor, epsilon: Tensor) -> Tensor:
        """log p(x | z_0), (n,); of real vectors its mean over ε, which is known."""
        high = self.schedule.high.to(x)
        if self.levels is None:
            return (0.5 * x.shape[1] * (high - 1 - math.log(2 * math.pi))).expand(len(x))
        ratio = x + torch.exp(-high / 2) * epsilon  # z_0/α_0
        rows = max(1, HELD // (x.shape[1] * self.levels))
        at = y.long().clamp(0, self.levels - 1)
        return torch.cat(
            [
                self.log_levels(r).gather(-1, l[..., None]).squeeze(-1).sum(1)
                for r, l in zip(ratio.split(rows), at.split(rows), strict=True)
            ]
        )

    def log_levels(self, ratio: Tensor) -> Tensor:
        """log p(l | z_0) of every level of every pixel, (n, d, L), at z_0/α_0 (n, d)."""
        high = self.schedule.high.to(ratio)
        return torch.log_softmax(-0.5 * torch.exp(high) * (ratio[..., None] - self.values()) ** 2, -1)

    # ---- draws ---------------------------------------------------------------------------------------------

    def draw(
        self, n: int, *, steps: int = 100, method: str = "ancestral", generator: torch.Generator | None = None
    ) -> Tensor:
        """n observations, (n, d): see `samplers.sample`."""
        return sample(self, n, steps=steps, method=method, generator=generator)


def signal(log_snr: Tensor) -> Tensor:
    """α."""
    return torch.sigmoid(log_snr).sqrt()


def noise(log_snr: Tensor) -> Tensor:
    """σ."""
    return torch.sigmoid(-log_snr).sqrt()


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
