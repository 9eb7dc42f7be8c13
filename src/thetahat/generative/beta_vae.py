"""A VAE that is trained by another objective than its bound: β-VAE and free bits. It is scored by its bound."""

from __future__ import annotations

import copy
import math
from typing import Self

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family
from ..models.base import Model
from ..types import Data
from .labels import Label
from .vae import VAE


class BetaVAE(Model):
    """A VAE trained with a weight β on the divergence, or with free bits λ in each component of z.

        maximised:  E log p(y | z) − β Σ_j max(λ, KL_j),      KL_j = mean over the batch of KL(q(z_j | y) ‖ p(z_j))

        log_prob:   log p(y) ≥ E log p(y | z) − KL(q(z | y) ‖ p(z)),      the bound of the VAE itself

    What is maximised is a training objective, not a likelihood. β > 1 asks for a z that says less of y, in components
    that are independent; β < 1 for better reconstructions. Free bits make the first λ nats of a component
    cost nothing, so that it is not given up early in the training. `log_prob`, and with it held-out
    evaluations, scores, comparisons and `restore_best`, is the bound, whatever β and λ are; `th.Stochastic` maximises
    `objective`.

    Free bits compare the mean of a batch, so that the objective of a row depends on the rows beside it: the
    batch is the part that is summed at once, a share of it with accumulation_steps or several processes. Its sum over a
    batch of n rows is Σ log p(y | z) − β n Σ_j max(λ, KL_j). A component at or below λ has no gradient from its
    divergence at all.

    Parameters
    ----------
    vae
        of K = 1, which has the divergence in closed form; `score(samples=K)` takes more draws
    beta
        β ≥ 0
    free_bits
        λ ≥ 0, nats (not bits) a component of z

    Raises
    ------
    BadArgument
        not a VAE of K = 1; a negative number

    References
    ----------
    Higgins et al. (2017), β-VAE: learning basic visual concepts with a constrained variational framework;
    Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling (2016), Improved variational inference with inverse
    autoregressive flow, eq. 15 (free bits).

    Examples
    --------
    >>> from torch import nn
    >>> model = BetaVAE(VAE(nn.Linear(6, 4), nn.Linear(2, 6), latent=2), beta=4.0)
    >>> model.maximises
    'E log p(y | z) − 4 KL(q(z | y) ‖ p(z))'
    >>> tuple(model.log_prob(Batch({"y": torch.zeros(3, 6)})).shape)
    (3,)
    """

    kind = "lower bound"

    def __init__(self, vae: VAE, beta: float = 1.0, free_bits: float = 0.0):
        super().__init__()
        if not isinstance(vae, VAE):
            raise BadArgument(f"BetaVAE(vae): received {type(vae).__name__}. Accepted: th.generative.VAE(…).")
        if vae.K != 1:
            raise BadArgument(
                f"BetaVAE of a VAE with K={vae.K}: β and free bits weigh the divergence, which stands in the bound of "
                "K=1 alone. Accepted: K=1; a score takes more draws, fit.score(samples=K)."
            )
        for name, value in (("beta", beta), ("free_bits", free_bits)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise BadArgument(f"{name}={value!r}. Accepted: a finite number, 0 or more.")
        self.vae, self.beta, self.free_bits = vae, beta, free_bits
        self.measure = vae.measure

    # ---- what is maximised, and what is scored -------------------------------------------------------------

    @property
    def maximises(self) -> str:
        """The objective in words; empty where it is the bound."""
        if self.beta == 1 and self.free_bits == 0:
            return ""
        times = "" if self.beta == 1 else f"{self.beta:g} "
        if self.free_bits == 0:
            return f"E log p(y | z) − {times}KL(q(z | y) ‖ p(z))"
        return f"E log p(y | z) − {times}Σ_j max({self.free_bits:g}, KL_j), KL_j the mean over a batch"

    def objective(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """log p(y | z) − β Σ_j of KL_j, or of λ where the mean of KL_j over the batch is not above it, (n,)."""
        reconstruction, divergence = self.vae.parts(batch, generator)
        if self.free_bits > 0:
            divergence = torch.where(_mean(divergence, batch) > self.free_bits, divergence, self.free_bits)
        return reconstruction - self.beta * divergence.sum(-1)

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The bound of the VAE, (n,): neither β nor free bits are in it."""
        return self.vae.log_prob(batch, generator)

    @property
    def K(self) -> int:
        """Draws of the bound."""
        return self.vae.K

    def tightened(self, K: int) -> Self:
        """The same model, θ shared, scored with K draws an observation."""
        other = copy.copy(self)
        other._modules = dict(self._modules)  # a copy shares the table of its modules
        other.vae = self.vae.tightened(K)
        return other

    # ---- the VAE's own -------------------------------------------------------------------------------------

    @property
    def family(self) -> Family:
        return self.vae.family

    @property
    def target(self) -> str:
        return self.vae.target

    @property
    def classes(self) -> int | None:
        """C of the VAE."""
        return self.vae.classes

    def check(self, batch: Batch) -> None:
        """Refuse labels that are no classes, before a compiled log p is called."""
        self.vae.check(batch)

    def draw(self, n: int, *, label: Label | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n observations, (n, d): `VAE.draw`."""
        return self.vae.draw(n, label=label, generator=generator)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean and the scale of q(z | y), (n, latent) each."""
        return self.vae.encode(batch)

    def reconstruct(self, batch: Batch) -> Tensor:
        """E[y | z] at the mean of q(z | y), (n, d)."""
        return self.vae.reconstruct(batch)

    def source(self, data: Data, weights: str | None = None) -> Source | None:
        """As of `VAE`."""
        return self.vae.source(data, weights)

    def extra_repr(self) -> str:
        return f"beta={self.beta!r}, free_bits={self.free_bits!r}"


def _mean(divergence: Tensor, batch: Batch) -> Tensor:
    """Over the rows, each as often as it counts, (latent,)."""
    if not batch.counted:
        return divergence.detach().mean(0)
    count = batch.count.to(divergence)[:, None]
    mean: Tensor = (count * divergence.detach()).sum(0) / count.sum()
    return mean
