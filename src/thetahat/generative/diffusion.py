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
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, ModelError
from ..protocols import dimensions_of
from ..types import ModelLike
from .bound import Bound
from .labels import Label, check_classes, check_guidance, check_network, labels
from .nearest_levels import log_mass, near
from .samplers import sample
from .schedule import SCHEDULES, Cosine, Linear, Schedule, noise, signal

Denoised = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (z (n, d), λ (n,)) → (x̂, ε̂), (n, d) each

PREDICTIONS = ("epsilon", "v", "velocity", "levels")
DROP = 0.1  # of labels in training, where nothing else is said: Ho and Salimans (2022), §4
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

    With classes, the same of y given the batch's "label" c, (n,), 0 … C − 1, and the network is also called
    with the label. In training each label is replaced by C, "no class", with probability `drop_label`, so
    that

        (1 − drop_label) Σ log p(y_i | c_i) + drop_label Σ log p(y_i)

    is what a fit maximises in expectation, each by its bound: one network learns p(y | c) and p(y), which
    guidance draws from. A label is dropped in training mode alone, where a gradient is taken and no generator
    is given: a score has the labels as they are.

    Parameters
    ----------
    network
        (z (n, d), λ (n,)) → what is predicted; with classes (z, λ, label (n,) int64, 0 … C)
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
    classes
        C: the model is of y given its class; None: of y alone
    drop_label
        the probability with which a label is replaced in training; None: 0.1 with classes. 0: the network
        never learns p(y), and cannot be guided

    Raises
    ------
    BadArgument, ModelError
    UnknownColumn, UnknownLevel, WrongType
        labels are missing, or not 0 … C − 1

    References
    ----------
    Kingma et al. (2021), eq. 17 and §3; Salimans and Ho (2022), Progressive distillation for fast sampling
    (v); Gulrajani and Hashimoto (2023), Likelihood-based diffusion language models (the output prior behind
    "levels"); Ho and Salimans (2022), Classifier-free diffusion guidance (labels that are dropped).

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
        classes: int | None = None,
        drop_label: float | None = None,
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
        check_classes(classes)
        check_network(network, classes, "Diffusion", "z", "log_snr", "label")
        if drop_label is not None and (classes is None or not 0 <= drop_label < 1):
            raise BadArgument(
                f"drop_label={drop_label}, classes={classes}. Accepted: a probability below 1, of a model with classes."
            )
        self.classes = classes
        self.drop_label = (0.0 if classes is None else DROP) if drop_label is None else float(drop_label)
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
        # of a schedule that is learnt λ_0 moves, and all levels are summed
        self.near = (
            None if levels is None or self.schedule.learned else near(float(self.schedule.high), levels)
        )
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

    def denoised(self, z: Tensor, log_snr: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x̂, ε̂), (n, d) each, which satisfy z = α x̂ + σ ε̂; λ (n,).

        Parameters
        ----------
        label
            (n,) of a model with classes, 0 … C − 1; None: no class
        """
        return self.shared(z, log_snr, self._out(z, log_snr, label))

    def shared(self, z: Tensor, log_snr: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """(x̂, ε̂), (n, d) each, of what the network gave."""
        alpha, sigma = signal(log_snr[:, None]), noise(log_snr[:, None])
        if self.predict == "epsilon":
            return (z - sigma * out) / alpha, out
        if self.predict == "v":
            return alpha * z - sigma * out, alpha * out + sigma * z
        if self.predict == "velocity":
            return (z - sigma * out) / (alpha + sigma), (z + alpha * out) / (alpha + sigma)
        x = self._mean_level(out, z / alpha, log_snr)
        return x, (z - alpha * x) / sigma

    def guided(self, label: Tensor | None, guidance: float = 1.0) -> Denoised:
        """(z, λ) → (x̃, ε̃), led towards a class: what a sampler follows in the place of `denoised`.

            ε̃ = ε̂(z, ∅) + guidance · (ε̂(z, c) − ε̂(z, ∅)),      z = α x̃ + σ ε̃

        guidance = 1 is the conditional model itself, and 0 that without a class; w of Ho and Salimans is
        guidance − 1. With the best possible ε̂, −ε̃/σ is the gradient of log p(z)^(1 − guidance) p(z |
        c)^guidance at each level of noise. These are not the marginals of one diffusion of any p(y), so that
        what is drawn has no likelihood that is known: guidance is for draws alone.

        Parameters
        ----------
        label
            (n,), 0 … C − 1; None: no class
        guidance
            0 or more

        Raises
        ------
        BadArgument
            no label, or a network that has not learnt p(y) (drop_label=0), and guidance is not 1
        """
        check_guidance(guidance)
        if guidance == 1:
            return lambda z, log_snr: self.denoised(z, log_snr, label)
        if label is None or self.drop_label == 0:
            raise BadArgument(
                f"guidance={guidance:g} leads from the model without a class to that of the label: it needs a label "
                f"(received {'none' if label is None else 'one'}) and a model that learnt both, classes=C and "
                f"drop_label above 0 (here classes={self.classes}, drop_label={self.drop_label:g})."
            )

        def denoised(z: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
            pairs = zip(self.denoised(z, log_snr, label), self.denoised(z, log_snr), strict=True)
            x, epsilon = (without + guidance * (given - without) for given, without in pairs)
            return x, epsilon

        return denoised

    def _out(self, z: Tensor, log_snr: Tensor, label: Tensor | None) -> Tensor:
        out = self.network(*self.inputs(z, log_snr, label))
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

    def inputs(self, z: Tensor, log_snr: Tensor, label: Tensor | None) -> tuple[Tensor, ...]:
        """What the network is called with."""
        if self.classes is None:
            return z, log_snr
        return z, log_snr, self._no_class(z) if label is None else label

    def _no_class(self, z: Tensor) -> Tensor:
        if self.drop_label == 0:
            raise BadArgument(
                "the network never learnt p(y) without a class: drop_label=0. Give a label, or fit with "
                f"drop_label={DROP}."
            )
        return torch.full((len(z),), self.classes or 0, dtype=torch.int64, device=z.device)

    def _mean_level(self, logits: Tensor, ratio: Tensor, log_snr: Tensor) -> Tensor:
        x = self.values()
        closeness = -0.5 * torch.exp(log_snr)[:, None, None] * (ratio[..., None] - x) ** 2
        return torch.softmax(logits.reshape(closeness.shape) + closeness, -1) @ x

    def _error(self, x: Tensor, epsilon: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        """‖ε − ε̂‖², (n,), by whichever form loses no digits."""
        alpha, sigma = signal(log_snr[:, None]), noise(log_snr[:, None])
        z = alpha * x + sigma * epsilon
        out = self._out(z, log_snr, label)
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
        x, label = self.encode(y), labels(batch, self.classes, self)
        total = x.new_zeros(len(x))
        for t in self._times(batch, x, generator):
            epsilon = _normal(x, generator)
            error = self._error(x, epsilon, self.schedule.log_snr(t), self._dropped(label, generator))
            total = total + self._decoded(y, x, epsilon) - 0.5 * self.schedule.fall(t) * error
        value = total / self.K - self._end(x)
        if self.levels is None:
            return value - torch.log(self.scale.to(x)).expand(x.shape[1]).sum()
        fits = ((y >= 0) & (y < self.levels) & (y == torch.floor(y))).all(1)
        return torch.where(fits, value, -math.inf)

    def check(self, batch: Batch) -> None:
        """Refuse labels that are no classes, before a compiled log p is called."""
        labels(batch, self.classes, self)

    def _dropped(self, label: Tensor | None, generator: torch.Generator | None) -> Tensor | None:
        """The labels of a step of training, some of them replaced by C; of a score as they are."""
        training = self.training and torch.is_grad_enabled() and generator is None
        if label is None or self.classes is None or self.drop_label == 0 or not training:
            return label
        out = torch.rand(len(label), dtype=torch.float32).to(label.device) < self.drop_label
        return torch.where(out, self.classes, label)

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
        if self.near is not None:
            return log_mass(y, ratio, high, self.values(), self.near).sum(1)
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
        self,
        n: int,
        *,
        label: Label | None = None,
        guidance: float = 1.0,
        steps: int = 100,
        method: str = "ancestral",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n observations, (n, d): see `samplers.sample`."""
        return sample(
            self, n, label=label, guidance=guidance, steps=steps, method=method, generator=generator
        )


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
