"""The probability flow of a diffusion model: the same marginals without noise, hence an exact density.

    dz/dφ = v̂(z, λ) = α ε̂ − σ x̂,      tan φ = σ/α = e^{−λ/2},      z at φ_1 ~ N(0, I),      x = z_0/α_0

    log p(x) = log N(z_1; 0, I) + ∫ tr(∂v̂/∂z) dφ + d log α_0        along the path from z_0 = α_0 x to z_1

In the angle φ the path turns at a speed of about ‖z‖ everywhere: nothing is stiff but the network. It is
integrated in float64 by the embedded method of Dormand and Prince; every sample has steps of its own, each
accepted if its own error is within tolerance, so that no value depends on what else is in the batch.

References
----------
Song et al. (2021), Score-based generative modeling through stochastic differential equations, §4.3; Salimans
and Ho (2022), Progressive distillation (the angle); Grathwohl et al. (2019), FFJORD (the probes); Hairer,
Nørsett and Wanner (1993), Solving ordinary differential equations I, §II.4–5.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..allocation import kept_memory
from ..data.batch import Batch
from ..data.devices import CPU, device_of, widest
from ..errors import BadArgument, ModelError
from ..models.base import Model
from ..protocols import HasJacobianDiagonal
from .diffusion import Diffusion
from .labels import Label, asked, labels

Field = Callable[
    [Tensor, Tensor, Tensor], Tensor
]  # (φ (m,), state (m, s), which samples (m,)) → its slope (m, s)


ROWS = 256  # rows that the exact trace takes back through the network at once
IMAGES = 16  # whose diagonal a network that knows it is asked for at a time


@dataclass(frozen=True)
class Paths:
    """Where the path of each sample led.

    Parameters
    ----------
    log_prob
        (n,) nats
    error
        (n,) standard error of each that the probes leave; 0 with the exact trace
    end
        z_1, (n, d)
    steps
        (n,) accepted steps
    """

    log_prob: Tensor
    error: Tensor
    end: Tensor
    steps: Tensor


class ProbabilityFlow(Model):
    """A fitted diffusion of real vectors as an exact density, by the ordinary differential equation that
    shares its marginals.

    With the best possible ε̂ it is the density of what was observed, but for noise of variance e^{−λ_0}.
    Otherwise it is another model than the one whose bound was maximised, and may be above or below it.

    Of a diffusion with classes it is p(y | label), of the batch's "label". There is none of a guided one: the
    guided field is not the score of any density that is known, so that `guidance` is refused.

    Parameters
    ----------
    diffusion
        of real vectors (levels=None); it is copied to float64, and no gradient reaches it
    probes
        None: the exact trace, d derivatives a slope. P: unbiased, tr J ≈ mean over P random signs e of eᵀJe
        (Hutchinson), the same along the whole path
    tolerance
        of a step, absolute and relative, in every coordinate and in the logarithm
    guidance
        None or 1, which are the diffusion as it is: all else is refused, and is for `Diffusion.draw` alone

    Raises
    ------
    BadArgument
        a diffusion of levels, which has a mass and no density; guidance

    Examples
    --------
    >>> class White(torch.nn.Module):                                # x ~ N(0, I): the best ε̂ is σz
    ...     def forward(self, z, log_snr):
    ...         return torch.sigmoid(-log_snr[:, None]).sqrt() * z
    >>> flow = ProbabilityFlow(Diffusion(White(), predict="epsilon"))
    >>> round(flow.log_prob(Batch({"y": torch.zeros(1, 1)})).item(), 3)          # log N(0; 0, 1)
    -0.919
    """

    measure = "density"
    max_steps = 20_000

    def __init__(
        self,
        diffusion: Diffusion,
        *,
        probes: int | None = None,
        tolerance: float = 1e-6,
        guidance: float | None = None,
    ):
        super().__init__()
        if guidance not in (None, 1):
            raise BadArgument(
                f"guidance={guidance!r}: the guided field is not the score of any density that is known, so that the "
                "flow along it has no likelihood of the data. Guidance is for draws: "
                "Diffusion.draw(n, label=…, guidance=…)."
            )
        if not isinstance(diffusion, Diffusion) or diffusion.levels is not None:
            raise BadArgument(
                "ProbabilityFlow takes a Diffusion of real vectors (levels=None): levels have a mass, and "
                "its bound."
            )
        if (probes is not None and probes < 1) or not 0 < tolerance < 1:
            raise BadArgument(
                f"probes={probes}, tolerance={tolerance}. Accepted: None or 1 or more; a number in (0, 1)."
            )
        own = copy.deepcopy(diffusion)
        if (
            widest(device_of(own)) != torch.float64
        ):  # the path is integrated in float64, wherever there is one
            own = own.to(CPU)
        self.diffusion = own.to(torch.float64).eval().requires_grad_(False)
        self.probes, self.tolerance = probes, tolerance

    @property
    def kind(self) -> str:
        return "exact" if self.probes is None else "estimate"

    @property
    def K(self) -> int | None:
        """Probes a sample."""
        return self.probes

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        label = labels(batch, self.classes, self)
        return self.solve(batch["y"], label=label, generator=generator).log_prob

    @property
    def classes(self) -> int | None:
        """C of the diffusion."""
        return self.diffusion.classes

    def solve(
        self, y: Tensor, *, label: Label | None = None, generator: torch.Generator | None = None
    ) -> Paths:
        """log p of each row of y, (n, d), with what is known of its error.

        Parameters
        ----------
        label
            of a model with classes: the class of all rows, or of each, (n,). None: log p(y) without a class,
            which a network that was fitted with drop_label above 0 has learnt
        """
        x = self.diffusion.encode(y)
        given = self._asked(label, len(x))
        n, d = x.shape
        first, last = self._ends()
        signs = None
        if self.probes is not None:
            signs = (torch.rand(n, self.probes, d, generator=generator, dtype=x.dtype) < 0.5).to(x) * 2 - 1
        state = torch.cat([math.cos(first) * x, x.new_zeros(n, self.probes or 1)], 1)
        with kept_memory():
            state, steps = integrate(
                self._field(d, signs, given), state, first, last, self.tolerance, self.max_steps
            )
        end, traces = state[:, :d], state[:, d:]
        log_end = -0.5 * (end.square().sum(1) + d * math.log(2 * math.pi))
        units = d * math.log(math.cos(first)) - torch.log(self.diffusion.scale.to(x)).expand(d).sum()
        error = (
            traces.std(1) / (self.probes or 1) ** 0.5 if traces.shape[1] > 1 else x.new_full((n,), math.nan)
        )
        return Paths(log_end + traces.mean(1) + units, x.new_zeros(n) if signs is None else error, end, steps)

    def draw(self, n: int, *, label: Label | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n observations, (n, d): noise led back along the flow; `label` as of `solve`."""
        d = self.diffusion.dimensions
        if d is None:
            raise BadArgument("Diffusion does not know the length of its vectors: give it dimensions=.")
        z = torch.randn(n, d, generator=generator, dtype=torch.float64).to(self.diffusion.scale.device)
        first, last = self._ends()
        given = self._asked(label, n)

        def field(phi: Tensor, z: Tensor, which: Tensor) -> Tensor:
            return self.slope(phi, z, None if given is None else given[which])

        z, _ = integrate(field, z, last, first, self.tolerance, self.max_steps)
        return self.diffusion.decode(z / math.cos(first))

    def _asked(self, label: Label | None, n: int) -> Tensor | None:
        own = self.diffusion
        return asked(label, n, own.classes, self, own.scale.device, marginal=own.drop_label > 0)

    def slope(self, phi: Tensor, z: Tensor, label: Tensor | None = None) -> Tensor:
        """v̂, (m, d)."""
        return _turned(phi, *self.diffusion.denoised(z, _log_snr(phi), label))

    def _ends(self) -> tuple[float, float]:
        """φ at t = 0 and at t = 1."""
        schedule = self.diffusion.schedule
        return math.atan(math.exp(-float(schedule.high) / 2)), math.atan(math.exp(-float(schedule.low) / 2))

    def _field(self, d: int, signs: Tensor | None, label: Tensor | None) -> Field:
        """The slope of (z, log-determinant): of each probe, or exactly."""

        def field(phi: Tensor, state: Tensor, which: Tensor) -> Tensor:
            if signs is None:
                return self._traced(phi, state[:, :d], None if label is None else label[which])
            with torch.enable_grad():
                z = state[:, :d].detach().requires_grad_()
                v = self.slope(phi, z, None if label is None else label[which])
                e = signs[which]
                pulled = [
                    torch.autograd.grad(v, z, e[:, j], retain_graph=True)[0] * e[:, j]
                    for j in range(e.shape[1])
                ]
                traces = torch.stack([each.sum(1) for each in pulled], 1)
            return torch.cat([v.detach(), traces], 1)

        return field

    def _traced(self, phi: Tensor, z: Tensor, label: Tensor | None) -> Tensor:
        """v̂ and tr(∂v̂/∂z) = Σ_j ∂v̂_j/∂z_j, (m, d + 1): by the network's own diagonal, or several j in one backward pass."""
        m, d = z.shape
        own = self._known(phi, z, label)
        if own is not None:
            return own
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            v = self.slope(phi, z, label)
            together = 1 if _loops(self.diffusion) else max(1, ROWS // m)
            parts = torch.eye(d, dtype=z.dtype, device=z.device).split(together)
            slopes = [_diagonal(v, z, part) for part in parts]
        return torch.cat([v.detach(), torch.cat(slopes).sum(0)[:, None]], 1)

    def _known(self, phi: Tensor, z: Tensor, label: Tensor | None) -> Tensor | None:
        """The same by ∂f_j/∂z_j of a network that knows it: v̂_j sees of z and f their j alone,

        ∂v̂_j/∂z_j + ∂v̂_j/∂f_j · ∂f_j/∂z_j
        """
        own, log_snr = self.diffusion, _log_snr(phi)
        if not isinstance(own.network, HasJacobianDiagonal):
            return None
        known: list[tuple[Tensor, Tensor]] = []
        for inputs in zip(*(each.split(IMAGES) for each in own.inputs(z, log_snr, label)), strict=True):
            found = own.network.jacobian_diagonal(*inputs)
            if found is None:
                return None
            known.append(found)
        f, diagonal = (torch.cat([pair[i] for pair in known]) for i in (0, 1))
        with torch.enable_grad():
            z, f = z.detach().requires_grad_(), f.detach().requires_grad_()
            v = _turned(phi, *own.shared(z, log_snr, f))
            by_z, by_f = torch.autograd.grad(v.sum(), (z, f))
        return torch.cat([v.detach(), (by_z + by_f * diagonal).sum(1, keepdim=True)], 1)


def _log_snr(phi: Tensor) -> Tensor:
    return -2 * torch.log(torch.tan(phi))


def _turned(phi: Tensor, x: Tensor, epsilon: Tensor) -> Tensor:
    """v̂ of x̂ and ε̂."""
    return torch.cos(phi)[:, None] * epsilon - torch.sin(phi)[:, None] * x


def _loops(module: torch.nn.Module) -> bool:
    """Whether images lie channel beside channel: torch then takes a group norm's backward pass for one slope after another,
    and copies what it hands over (a tenth slower than one slope at a time)."""
    images = (p for p in module.parameters() if p.ndim == 4)
    return any(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in images)


def _diagonal(v: Tensor, z: Tensor, units: Tensor) -> Tensor:
    """∂v_j/∂z_j, (k, m), of the components j that the units (k, d) are of."""
    if len(units) > 1:
        try:
            with (
                warnings.catch_warnings()
            ):  # torch says where it takes a loop of its own: the values are the same
                warnings.simplefilter("ignore")
                e = units[:, None].expand(-1, *v.shape)
                (pulled,) = torch.autograd.grad(v, z, e, retain_graph=True, is_grads_batched=True)
            return torch.einsum("kmd,kd->km", pulled, units)
        except RuntimeError:
            pass  # a layer whose backward pass torch cannot take for several at once
    each = [torch.autograd.grad(v, z, e.expand_as(v), retain_graph=True)[0] @ e for e in units]
    return torch.stack(each)


# ---- Dormand and Prince, 5(4) ------------------------------------------------------------------------------

_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # fifth order less fourth


@torch.no_grad()
def integrate(
    field: Field, state: Tensor, start: float, stop: float, tolerance: float, max_steps: int = 20_000
) -> tuple[Tensor, Tensor]:
    """The solution of d state/dφ = field at φ = stop, and how many steps each sample took.

        a step is accepted if   max_j |e_j| / (tol + tol·max(|y_j|, |y'_j|)) ≤ 1,      e: fifth order less fourth, for each sample by itself

    Parameters
    ----------
    field
        (φ (m,), state (m, s), which of the n samples (m,)) → slope (m, s)
    state
        (n, s), float64
    start, stop
        of φ, in either direction

    Raises
    ------
    ModelError
        the slope is not finite, or a sample needs more than max_steps steps

    References
    ----------
    Dormand and Prince (1980), A family of embedded Runge-Kutta formulae.

    Examples
    --------
    >>> y, steps = integrate(lambda t, y, _: y, torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, 1e-9)
    >>> round(y.item(), 8)
    2.71828183
    """
    n, way = len(state), math.copysign(1.0, stop - start)
    state, at = state.clone(), state.new_full((n,), start)
    h = state.new_full((n,), abs(stop - start) / 100)
    steps = torch.zeros(n, dtype=torch.int64, device=state.device)
    live = torch.arange(n, device=state.device)
    slope = field(at, state, live)
    for _ in range(max_steps):
        y, phi = state[live], at[live]
        left = (stop - phi).abs()
        last = h[live] >= left
        width = way * torch.where(last, left, h[live])
        k = [slope]
        for c, row in zip(_C[1:], _A[1:], strict=True):
            moved = sum(a * each for a, each in zip(row, k, strict=True))
            k.append(field(phi + c * width, y + width[:, None] * moved, live))
        new = y + width[:, None] * sum(a * each for a, each in zip(_A[-1], k[:-1], strict=True))
        error = width[:, None] * sum(e * each for e, each in zip(_E, k, strict=True))
        size = (error.abs() / (tolerance + tolerance * torch.maximum(y.abs(), new.abs()))).amax(1)
        if not bool(torch.isfinite(size).all()):
            i = int(torch.nonzero(~torch.isfinite(size))[0, 0])
            raise ModelError(
                f"the slope of sample {int(live[i])} is not finite near φ = {float(phi[i]):.4g} (of "
                f"{start:.4g} to {stop:.4g})."
            )
        accepted = size <= 1
        h[live] = width.abs() * (0.9 * size.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
        done = live[accepted]
        state[done], at[done] = new[accepted], torch.where(last, stop, phi + width)[accepted]
        steps[done] += 1
        slope = torch.where(
            accepted[:, None], k[-1], slope
        )  # the last slope of an accepted step is the next one's first
        going = ~(accepted & last)
        live, slope = live[going], slope[going]
        if len(live) == 0:
            return state, steps
    i = int(live[0])
    raise ModelError(
        f"sample {i} stands at φ = {float(at[i]):.4g} (of {start:.4g} to {stop:.4g}) after {max_steps} "
        "steps. Accepted: a larger "
        f"tolerance than {tolerance:g}, or a smoother network."
    )
