"""Weights of a diffusion's terms, by how much noise there is: what is maximised is then no bound on log p,
and may draw better pictures.

    ½ ∫ w(λ) ‖ε − ε̂‖² dλ,      w = 1: the bound itself

A weighting of the log signal-to-noise ratio does not depend on the schedule by which t was drawn: log p of a
term has −dλ/dt in it.

References
----------
Kingma and Gao (2023), Understanding diffusion objectives as the ELBO with simple data augmentation, Table 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..types import ModelLike
from .schedule import Schedule


class Simple:
    """The objective of most pictures: ‖ε − ε̂‖² evenly over the times of the cosine schedule, given as a
    weight of the bound.

        w(λ) = sech(λ/2) = 2ασ

    A batch has to say the time of its terms, "t": `th.generative.Noised(source)`. What is held out is scored
    by the bound itself.

    Parameters
    ----------
    schedule
        `model.schedule`: turns a term's t into λ. Its ends are fixed, since a weighted sum would move them to
        where it is largest without telling anything of the data

    Raises
    ------
    BadArgument
        a learned schedule; a batch without "t"

    References
    ----------
    Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic models, eq. 14; Kingma and Gao (2023), Table
    1.

    Examples
    --------
    >>> from thetahat.generative.schedule import Linear
    >>> Simple(Linear(8.0, -8.0))(Batch({"t": torch.tensor([0.5, 0.0])}), torch.zeros(2))
    tensor([1.0000, 0.0366])
    """

    def __init__(self, schedule: Schedule):
        if not isinstance(schedule, Schedule):
            raise BadArgument(
                f"{type(self).__name__}(schedule): received {type(schedule).__name__}. Accepted: "
                "model.schedule."
            )
        if schedule.learned:
            raise BadArgument(
                f"{type(self).__name__} and a learned schedule: the ends of a schedule can be learned by the "
                "bound alone, which they tighten; a "
                "weighted sum is no bound, and is largest at ends that hide the data. Fix the ends, or give "
                "no weights."
            )
        self.schedule = schedule

    def of(self, log_snr: Tensor) -> Tensor:
        """w(λ)."""
        return 1 / torch.cosh(log_snr / 2)

    def check_model(self, model: ModelLike) -> None:
        """The schedule is that of the model: another would turn a term's t into another λ.

        Raises
        ------
        BadArgument
        """
        own = getattr(model, "schedule", None)
        if not isinstance(own, Schedule):
            return
        t = torch.linspace(0, 1, 9, dtype=torch.float64)
        if own.learned or not torch.allclose(own.log_snr(t), self.schedule.log_snr(t), rtol=1e-4, atol=1e-4):
            raise BadArgument(
                f"{type(self).__name__}(schedule): not the schedule of the model, by which a term's time is read. "
                f"Accepted: {type(self).__name__}(model.schedule), its ends fixed."
            )

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        if "t" not in batch:
            raise BadArgument(
                f"{type(self).__name__} weighs terms by their time, and the batch has no 't'. Wrap the data: "
                "th.generative.Noised(data)."
            )
        return self.of(self.schedule.log_snr(batch["t"]))


class MinSNR(Simple):
    """Simple's weight, held back where there is little noise: there a step would learn pixels' last digits
    alone.

        w(λ) = sech(λ/2) · min(1, γ e^{−λ})

    Parameters
    ----------
    schedule
        `model.schedule`, its ends fixed
    gamma
        γ > 0, the signal-to-noise ratio from which on terms count less

    References
    ----------
    Hang et al. (2023), Efficient diffusion training via min-SNR weighting strategy, eq. 8 (in terms of ε);
    Kingma and Gao (2023).

    Examples
    --------
    >>> from thetahat.generative.schedule import Linear
    >>> MinSNR(Linear(8.0, -8.0))(Batch({"t": torch.tensor([0.5, 0.0])}), torch.zeros(2))
    tensor([1.0000e+00, 6.1422e-05])
    """

    def __init__(self, schedule: Schedule, gamma: float = 5.0):
        super().__init__(schedule)
        if not gamma > 0:
            raise BadArgument(f"gamma={gamma}. Accepted: a positive number.")
        self.gamma = gamma

    def of(self, log_snr: Tensor) -> Tensor:
        return super().of(log_snr) * (self.gamma * torch.exp(-log_snr)).clamp(max=1)


class FlowMatching(Simple):
    """The objective of flow matching on the straight path, and of rectified flow, given as a weight of the
    bound.

        w(λ) = e^{−λ/2} = σ/α

    With `Straight(high, low)` as the schedule a weighted term is, but for a part without θ,

        w log p  =  −(τ_1 − τ_0) ‖(ε − x) − û(z_t, t)‖² + …,      û = ε̂ − x̂,      τ_1 − τ_0 → 1 as the ends go to ±∞

    With another schedule the objective is the same, and t is drawn from another density. The weight grows
    with the noise, up to e^{−low/2} (148 at low = −10): where nothing of x is left, û still has to find its
    mean.

    Parameters
    ----------
    schedule
        `model.schedule`, its ends fixed

    References
    ----------
    Lipman et al. (2023), Flow matching for generative modeling; Kingma and Gao (2023), Table 1 (FM-OT).

    Examples
    --------
    >>> from thetahat.generative.schedule import Straight
    >>> FlowMatching(Straight(8.0, -8.0))(Batch({"t": torch.tensor([0.5, 0.0])}), torch.zeros(2))
    tensor([1.0000, 0.0183])
    """

    def of(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr / 2)
