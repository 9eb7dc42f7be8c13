"""DiscreteDiffusion: the variational bound of a diffusion of T steps, as it was published and trained.

    log p(x)  ≥  E log p(x | z_1)  −  Σ_{t=2}^{T} KL(q(z_{t−1} | z_t, x) ‖ p(z_{t−1} | z_t))  −  KL(q(z_T | x) ‖ N(0, I))

    z_t = √ᾱ_t x + √(1 − ᾱ_t) ε,      p(z_{t−1} | z_t) = N(c_t x̂ + c'_t z_t, σ_t² I),      q's own mean with x̂ for x

References
----------
Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic models, eq. 5, 7, 13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from ..data.batch import Batch
from ..data.devices import device_of, widest
from ..errors import BadArgument, ModelError
from ..types import Plain
from .bound import Bound

PREDICTIONS = ("epsilon", "v_prediction", "sample")
VARIANCES = ("fixed_small", "fixed_large")


@dataclass(frozen=True)
class Terms:
    """The terms of the bound, (n,) nats each.

    Parameters
    ----------
    chain
        −Σ KL, the end at T included
    mass
        E log P(y | z_1) by the discretised Gaussian; None of real vectors
    density
        E log p(x | z_1) by the Gaussian itself, per unit of x
    loss
        mean over t and numbers of (target − network)²: the training loss "simple"; not in nats
    """

    chain: Tensor
    mass: Tensor | None
    density: Tensor
    loss: Tensor


class DiscreteDiffusion(Bound):
    """p(x) by a diffusion of T steps with fixed variances; `log_prob` is its variational bound, in nats.

        KL_t = ½ Σ_j (log σ_t²/β̃_t − 1 + β̃_t/σ_t² + c_t² (x − x̂)²/σ_t²),      c_t = √ᾱ_{t−1} β_t/(1 − ᾱ_t)

    β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) β_t. Whole numbers 0 … L − 1 (`levels=L`), x = (y − shift)/scale, have a mass:
    the Gaussian N(x̂(z_1), β̃_2) over the cell of half a level on each side, the first and the last cell
    open outwards (Ho et al., 2020, eq. 13; β̃_2 as in their code, since β̃_1 is 0). Real vectors have a density.

    All T steps are summed with one draw of ε each; only ε is random. `times=m` draws m of the T − 1 steps of
    an image instead: the same expectation, cheaper and noisier.

    Parameters
    ----------
    network
        called as diffusers' UNet2DModel is: network(z (n, *shape), t (n,) whole numbers 0 … T − 1), and gives
        a tensor of z's shape, or an object that has it as `.sample`
    alphas_cumprod
        ᾱ_1 … ᾱ_T, falling, in (0, 1); (T,)
    levels
        L, of whole numbers; None: a density of real vectors
    prediction_type
        what the network gives: "epsilon", "v_prediction" (√ᾱ ε − √(1 − ᾱ) x) or "sample" (x̂)
    variance_type
        σ_t²: "fixed_small", β̃_t, or "fixed_large", β_t
    clip
        x̂ is kept within ±clip; None: it is not
    shift, scale
        of y, numbers or (d,)
    shape
        of one observation as the network sees it; None: (d,)
    times
        steps that are drawn for each observation; None: all of them
    K
        draws, which are averaged

    Raises
    ------
    BadArgument, ModelError

    Examples
    --------
    >>> model = DiscreteDiffusion(lambda z, t: torch.zeros_like(z), [0.9, 0.5, 0.01], levels=4, scale=1.5, shift=1.5)
    >>> tuple(model.log_prob(Batch({"y": torch.zeros(5, 2)})).shape)
    (5,)
    """

    def __init__(
        self,
        network: Plain,
        alphas_cumprod: Tensor | Sequence[float],
        *,
        levels: int | None,
        prediction_type: str = "epsilon",
        variance_type: str = "fixed_small",
        clip: float | None = None,
        shift: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        shape: Sequence[int] | None = None,
        times: int | None = None,
        K: int = 1,
    ):
        super().__init__()
        if not callable(network):
            raise BadArgument(
                f"DiscreteDiffusion(network): received {type(network).__name__}, not a torch.nn.Module."
            )
        for name, value, accepted in (
            ("prediction_type", prediction_type, PREDICTIONS),
            ("variance_type", variance_type, VARIANCES),
        ):
            if value not in accepted:
                raise BadArgument(f"{name}={value!r}. Accepted: {', '.join(map(repr, accepted))}.")
        for name, count, least in (("levels", levels, 2), ("times", times, 1), ("K", K, 1)):
            if count is not None and count < least:
                raise BadArgument(f"{name}={count}. Accepted: {least} or more.")
        if clip is not None and not clip > 0:
            raise BadArgument(f"clip={clip}. Accepted: a positive number, or None.")
        self.network, self.levels, self.times, self.K = network, levels, times, K
        self.prediction_type, self.variance_type, self.clip = prediction_type, variance_type, clip
        self.shape = None if shape is None else tuple(int(s) for s in shape)
        # of no module's buffers: they stay in float64 whatever the network is converted to
        self.alphas_cumprod = checked(alphas_cumprod, prediction_type)
        self.shift, self.scale = (torch.as_tensor(v, dtype=torch.float64).cpu() for v in (shift, scale))
        if not bool((self.scale > 0).all()):
            raise BadArgument(f"scale={scale}: it is positive.")
        self.measure = "density" if levels is None else "mass"

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        y = batch["y"]
        if y.ndim != 2:
            raise ModelError(
                f"y has the shape {tuple(y.shape)}. Accepted: (n, d), a vector or an image a row."
            )
        parts = [self.terms(y, generator) for _ in range(self.K)]
        if self.levels is None:
            units = torch.log(self.scale).expand(y.shape[1]).sum().to(parts[0].chain)
            return torch.stack([t.chain + t.density for t in parts]).mean(0) - units
        value = torch.stack([t.chain + t.mass for t in parts if t.mass is not None]).mean(0)
        fits = ((y >= 0) & (y < self.levels) & (y == torch.floor(y))).all(1)
        return torch.where(fits, value, -math.inf)

    def terms(self, y: Tensor, generator: torch.Generator | None = None) -> Terms:
        """The bound of one draw of ε a step, by its terms; y (n, d)."""
        device = device_of(self.network)
        wide = widest(device)
        x = self._encoded(y, device, wide)
        bar = self.alphas_cumprod
        last = bar[-1].to(x)
        chain = -0.5 * (last * (x.square() - 1) - torch.log1p(-last)).sum(1)
        found, losses = self._predicted(x, torch.zeros(len(x), dtype=torch.int64), generator)
        before, first = bar[1], bar[0]  # the decoder's variance is β̃ of the second step
        spread = float(((1 - first) / (1 - before) * (1 - before / first)).sqrt())
        density = (-0.5 * ((x - found) / spread).square() - math.log(spread * math.sqrt(2 * math.pi))).sum(1)
        mass = None if self.levels is None else self._mass(y.to(device), found, spread)
        steps = len(bar) - 1
        weight = 1.0 if self.times is None else steps / self.times
        for k in self._steps(len(x), steps, generator):
            found, loss = self._predicted(x, k, generator)
            losses = losses + weight * loss
            chain = chain - weight * self._divergence((x - found).square().sum(1), k, x.shape[1])
        return Terms(chain, mass, density, losses / (steps + 1))

    # ---- the parts -----------------------------------------------------------------------------------------

    def _encoded(self, y: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        return ((y.to("cpu", torch.float64) - self.shift) / self.scale).to(device, dtype)

    def _steps(self, n: int, steps: int, generator: torch.Generator | None) -> list[Tensor]:
        """Which of 1 … T − 1 each observation takes, (n,) a time: all, or evenly spaced ones after a draw."""
        if self.times is None:
            return [torch.full((n,), k) for k in range(1, steps + 1)]
        u = torch.rand((), generator=generator, dtype=torch.float64)
        spread = torch.randperm(n, generator=generator) / (n * self.times)
        return [1 + ((u + spread + i / self.times) % 1 * steps).long() for i in range(self.times)]

    def _predicted(self, x: Tensor, k: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """x̂ (n, d), and the mean square error of what the network gives (n,), at steps k (n,) of 0 … T − 1."""
        epsilon = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        bar = self.alphas_cumprod[k].to(x)[:, None]
        alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
        z = alpha * x + sigma * epsilon
        out = called(self.network, z, k.to(x.device), self.shape)
        if self.prediction_type == "epsilon":
            target, found = epsilon, (z - sigma * out) / alpha
        elif self.prediction_type == "v_prediction":
            target, found = alpha * epsilon - sigma * x, alpha * z - sigma * out
        else:
            target, found = x, out
        loss = (target - out).square().mean(1)
        return (found if self.clip is None else found.clamp(-self.clip, self.clip)), loss

    def _divergence(self, squares: Tensor, k: Tensor, d: int) -> Tensor:
        """KL_t, (n,), of ‖x − x̂‖² (n,)."""
        bar, before = self.alphas_cumprod[k], self.alphas_cumprod[k - 1]
        beta = 1 - bar / before
        own = (1 - before) / (1 - bar) * beta  # β̃
        variance = own if self.variance_type == "fixed_small" else beta
        ratio = own / variance
        constant = 0.5 * d * (ratio - 1 - torch.log(ratio))
        c = before.sqrt() * beta / (1 - bar)
        return constant.to(squares) + (0.5 * c.square() / variance).to(squares) * squares

    def _mass(self, y: Tensor, mean: Tensor, spread: float) -> Tensor:
        """log P(y | z_1) of the discretised Gaussian, (n,)."""
        y = y.to(mean)
        low, high = (
            ((y + half).to("cpu", torch.float64) - self.shift).div(self.scale).to(mean)
            for half in (-0.5, 0.5)
        )
        low = torch.where(y <= 0, -math.inf, (low - mean) / spread)
        high = torch.where(y >= (self.levels or 0) - 1, math.inf, (high - mean) / spread)
        # in the tail that is nearer, where a difference of probabilities keeps its digits
        low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
        inside: Tensor = log_ndtr(high) + torch.log1p(-torch.exp(log_ndtr(low) - log_ndtr(high)))
        return inside.sum(1)


def called(network: Plain, z: Tensor, t: Tensor, shape: Sequence[int] | None) -> Tensor:
    """What a network of diffusers' or score_sde's calling convention gives, flat (n, d), in z's type.

    Raises
    ------
    ModelError
        a tensor of another shape than z
    """
    own = dtype_of(network) or z.dtype
    device = device_of(network) if isinstance(network, nn.Module) else z.device
    seen = z.to(device, own).reshape(len(z), *(shape or z.shape[1:]))
    out = network(seen, t.to(device, own) if t.is_floating_point() else t.to(device))
    out = getattr(out, "sample", out) if not isinstance(out, Tensor) else out
    out = out[0] if isinstance(out, tuple) else out
    if not isinstance(out, Tensor) or out.shape != seen.shape:
        what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ModelError(
            f"the network gives {what} for images of shape {tuple(seen.shape)}. Accepted: a tensor of the same "
            "shape, or an object that has it as .sample; a network that also gives a variance is not supported."
        )
    found: Tensor = out.reshape(z.shape).to(z)
    return found


def dtype_of(network: Plain) -> torch.dtype | None:
    """In which a network computes: the type of its first floating parameter or buffer."""
    if not isinstance(network, nn.Module):
        return None
    held = [*network.parameters(), *network.buffers()]
    return next((t.dtype for t in held if t.is_floating_point()), None)


def checked(alphas_cumprod: Plain, prediction_type: str) -> Tensor:
    """ᾱ as float64, (T,).

    Raises
    ------
    BadArgument
        ᾱ does not fall, or leaves (0, 1)
    """
    try:
        bar = (
            alphas_cumprod
            if isinstance(alphas_cumprod, Tensor)
            else torch.as_tensor(np.asarray(alphas_cumprod))
        )
        bar = bar.detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadArgument(
            f"alphas_cumprod is {type(alphas_cumprod).__name__}. Accepted: numbers, (T,)."
        ) from error
    if bar.ndim != 1 or len(bar) < 2:
        raise BadArgument(
            f"alphas_cumprod has the shape {tuple(bar.shape)}. Accepted: (T,), 2 or more steps."
        )
    if (
        not bool(torch.isfinite(bar).all())
        or not bool((bar[1:] < bar[:-1]).all())
        or not 0 <= bar[-1] < bar[0] < 1
    ):
        raise BadArgument(
            f"alphas_cumprod goes from {float(bar[0]):g} to {float(bar[-1]):g}. Accepted: numbers in (0, 1) that "
            "fall from each step to the next; of betas, torch.cumprod(1 - betas, 0)."
        )
    if bar[-1] == 0 and prediction_type == "epsilon":
        raise BadArgument(
            "alphas_cumprod ends at 0, where prediction_type='epsilon' says nothing of x. Accepted: "
            "'v_prediction', 'sample'."
        )
    return bar
