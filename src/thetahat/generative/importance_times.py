"""Importance-sampled times: more draws of t where the terms of the bound are large, each divided by the density.

    ∫_0^1 L_t dt = E_{u ~ U(0, 1)} L_t / q(t),      t = Q⁻¹(u),  Q(t) = ∫_0^t q

Drawing t from q and dividing by q is another schedule between the same ends, λ'_u = λ_t with −dλ'/du = (−dλ/dt)/q(t):
the expected objective does not change, and whatever is right for a schedule (evenly spaced times, K, weights
of λ, samplers, the probability flow) is right here.

    Var L_t/q(t) = ∫ E[L_t²]/q(t) dt − (∫ E L_t dt)²      is least for   q(t) ∝ √E[L_t²]

q is fixed while a model is trained: it is found from the terms of a model as it stands, between two runs. (One
that changed from step to step would be seen by the model and by its weights at different values.)

References
----------
Nichol and Dhariwal (2021), Improved denoising diffusion probabilistic models, eq. 18; Kingma, Salimans, Poole and
Ho (2021), Variational diffusion models, §5.1 (a schedule is a sampler of λ).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.devices import device_of, widest
from ..errors import BadArgument, NotFinite
from ..types import Data
from .labels import labels
from .noise_weights import Simple
from .schedule import Schedule

if TYPE_CHECKING:
    from .diffusion import Diffusion

ENOUGH = 10  # terms of a bin, for its second moment (Nichol and Dhariwal)
ROWS = 256  # of a batch that a network sees at once


class ImportanceTimes(Schedule):
    """A schedule whose times are drawn from a density q that is constant on B equal bins of [0, 1].

        λ'_u = λ_t,      −dλ'/du = (−dλ/dt) / q(t),      t = Q⁻¹(u)

    The bound keeps its expected value, whatever q; its noise falls where q follows the size of the terms
    (`fitted`). Steps of a sampler, evenly spaced in u, follow q too.

    Parameters
    ----------
    schedule
        the one whose times they are; its ends may be learned
    density
        q on each bin, B positive numbers, of any scale

    Raises
    ------
    BadArgument
        not a schedule; a number that is not positive

    Examples
    --------
    >>> from thetahat.generative.schedule import Linear
    >>> times = ImportanceTimes(Linear(8.0, -8.0), [3.0, 1.0])     # three of four draws have t < 1/2, so λ > 0
    >>> times.log_snr(torch.tensor([0.0, 0.75, 1.0])).tolist()
    [8.0, 0.0, -8.0]
    """

    edges: Tensor  # Q at the edges of the bins, (B + 1,)
    q: Tensor  # (B,)

    def __init__(self, schedule: Schedule, density: Sequence[float] | Tensor):
        if not isinstance(schedule, Schedule):
            raise BadArgument(
                f"ImportanceTimes(schedule): received {type(schedule).__name__}. Accepted: model.schedule, Linear(), "
                "Cosine(), Straight()."
            )
        super().__init__(None)
        q = torch.as_tensor(density, dtype=torch.float64).detach().cpu().clone()
        if q.ndim != 1 or len(q) == 0 or not bool(((q > 0) & torch.isfinite(q)).all()):
            raise BadArgument(
                f"density={density}. Accepted: a positive number for each bin of [0, 1], one bin or more."
            )
        self.schedule, self.learned = schedule, schedule.learned
        q = q / q.mean()
        edges = torch.cat([q.new_zeros(1), q.cumsum(0) / len(q)])
        edges[-1] = 1.0
        self.register_buffer("q", q, persistent=False)
        self.register_buffer("edges", edges, persistent=False)

    @classmethod
    @torch.no_grad()
    def fitted(
        cls,
        model: Diffusion,
        data: Data,
        *,
        weights: Simple | None = None,
        bins: int = 32,
        draws: int = 1,
        uniform: float = 0.01,
        seed: int = 0,
    ) -> Self:
        """The times of a model's schedule, drawn by the size of its terms on data.

            q_b = (1 − uniform) √m_b / mean √m  +  uniform,      m_b = mean of (w ½ (−dλ/dt) ‖ε − ε̂‖²)² over the draws with t in bin b

        Parameters
        ----------
        model
            as it stands; give the result to a model of the same network, Diffusion(model.network,
            schedule=…), to train on
        data
            observations, of which a sample is enough
        weights
            those of the training objective (`Simple`, `MinSNR`, `FlowMatching`); None: the bound
        bins
            B
        draws
            of (t, ε) an observation
        uniform
            share of a uniform density in q, in (0, 1]: no term weighs more than 1/uniform
        seed
            of t and ε

        Raises
        ------
        BadArgument
            fewer than 10 terms a bin
        NotFinite
            a term is infinite or NaN

        Examples
        --------
        >>> from thetahat.generative import Denoiser, Diffusion
        >>> model = Diffusion(Denoiser(2, width=8, blocks=1))
        >>> times = ImportanceTimes.fitted(model, {"y": torch.randn(400, 2)}, bins=8)
        >>> again = Diffusion(model.network, schedule=times)
        """
        from ..evaluation.new_data import source_like

        if bins < 1 or draws < 1 or not 0 < uniform <= 1:
            raise BadArgument(
                f"bins={bins}, draws={draws}, uniform={uniform}. Accepted: 1 or more, 1 or more, a share in (0, 1]."
            )
        schedule = model.schedule
        base = copy.deepcopy(schedule.schedule if isinstance(schedule, ImportanceTimes) else schedule)
        generator = torch.Generator().manual_seed(seed)
        source = source_like(model, data)
        moments, seen = torch.zeros(bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)
        training = model.training
        model.eval()
        try:
            for batch in source.batches(model):
                for rows in torch.arange(len(batch)).split(ROWS):
                    part, count = batch[rows], batch.count[rows].to("cpu", torch.float64)
                    for _ in range(draws):
                        t, size = _sizes(model, base, weights, part, generator)
                        bin_ = (t * bins).long().clamp(max=bins - 1)
                        moments.index_add_(0, bin_, count * size.square())
                        seen.index_add_(0, bin_, count)
        finally:
            model.train(training)
        if float(seen.min()) < ENOUGH:
            raise BadArgument(
                f"bins={bins}, draws={draws}: a bin has {int(seen.min())} terms, and its second moment needs {ENOUGH}. "
                "Accepted: fewer bins, more draws, more data."
            )
        root = (moments / seen).sqrt()
        if not bool(torch.isfinite(root).all()):
            raise NotFinite("a term of the bound is infinite or NaN on these data: nothing to draw times by.")
        share = root / root.mean() if float(root.max()) > 0 else torch.ones_like(root)
        return cls(base, ((1 - uniform) * share + uniform).tolist())

    def settle(self, high: float) -> None:
        """Set `high` of the inner schedule where the caller left it open."""
        if hasattr(self, "schedule"):
            self.schedule.settle(high)

    @property
    def high(self) -> Tensor:
        """λ_0, ()."""
        return self.schedule.high

    @property
    def low(self) -> Tensor:
        """λ_1, ()."""
        return self.schedule.low

    def time(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """t = Q⁻¹(u) and q(t), of u's shape."""
        edges, q = self.edges.to(u), self.q.to(u)
        b = (torch.searchsorted(edges, u.detach().contiguous(), right=True) - 1).clamp(0, len(q) - 1)
        return ((b + len(q) * (u - edges[b]) / q[b]) / len(q)).clamp(0, 1), q[b]

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(self.time(t)[0])

    def fall(self, t: Tensor) -> Tensor:
        at, q = self.time(t)
        return self.schedule.fall(at) / q

    def extra_repr(self) -> str:
        """q, by which a checkpoint of a run with another q is known."""
        return f"density=({', '.join(f'{each:.9g}' for each in self.q.tolist())})"


def _sizes(
    model: Diffusion, base: Schedule, weights: Simple | None, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Evenly spaced times of the base schedule in a random order, (n,), and w ½ (−dλ/dt) ‖ε − ε̂‖² at them, (n,)."""
    device = device_of(model)
    x = model.encode(batch["y"].to(device))
    label = labels(batch.to(device), model.classes, model)
    n = len(x)
    spread = torch.randperm(n, generator=generator).to(torch.float64) / n
    t = (torch.rand((), generator=generator, dtype=torch.float64) + spread) % 1
    at = t.to(widest(device)).to(device).to(x.dtype)
    epsilon = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(device)
    log_snr = base.log_snr(at)
    size = 0.5 * base.fall(at) * model._error(x, epsilon, log_snr, label)
    size = size if weights is None else size * weights.of(log_snr)
    return t, size.to("cpu", torch.float64)
