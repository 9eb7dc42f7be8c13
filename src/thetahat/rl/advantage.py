"""Advantages as weights: how much better an action turned out than what its state promised. A2C and PPO are
likelihoods weighted by them.

    δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t)
    A_t = δ_t + γ λ (1 − ended_t) A_{t+1}  =  Σ_{k≥0} (γλ)^k δ_{t+k}  to the end of the episode,      G_t = A_t + V(s_t)

An episode that was only cut off is followed by V(s') of the state in which it was; one that terminated is
followed by nothing.

References
----------
Schulman et al. (2016), High-dimensional continuous control using generalized advantage estimation; Schulman
et al. (2017), Proximal policy optimization algorithms; Pardo et al. (2018), Time limits in reinforcement
learning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import evaluating
from ..errors import BadArgument
from ..likelihood.weights.bounded import ROUNDING, bounded
from ..protocols import ValuesStates
from ..types import Plain


@dataclass(frozen=True)
class GAE:
    """Generalised advantage estimates, by the value function as it stands when a pass is drawn: `Rollouts(…,
    advantage=GAE(value))`.

    Parameters
    ----------
    value
        a `rl.Value`: V(s) = value.of(s, shape)
    discount
        γ in [0, 1]
    gae_lambda
        λ in [0, 1]; 1: returns less V; 0: one step
    normalise
        A less its mean, by its standard deviation, both over all of the pass

    Returns
    -------
    (A, G), each (B, T), 0 on padding: G is what the value function is then fitted to.
    """

    value: Plain
    discount: float = 0.99
    gae_lambda: float = 0.95
    normalise: bool = False
    _found: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (0 <= self.discount <= 1 and 0 <= self.gae_lambda <= 1):
            raise BadArgument(
                f"discount={self.discount}, gae_lambda={self.gae_lambda}. Accepted: numbers in [0, 1]."
            )
        if not isinstance(self.value, ValuesStates):
            raise BadArgument(f"GAE(value): received {type(self.value).__name__}. Accepted: a rl.Value.")

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), evaluating(self.value):
            return self._of(batch)

    def _of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        played, terminated = (batch.count > 0).numpy(), batch["terminated"].numpy()
        ended = terminated | batch["truncated"].numpy()
        V = self.value.of(batch["state"], batch.shape).double().numpy()
        beyond = np.zeros_like(V)
        beyond[:, :-1] = V[:, 1:]
        last = ended.copy()
        last[:, -1] = True
        if played.shape[1] > 1:
            last[:, :-1] |= played[:, :-1] & ~played[:, 1:]
        beyond[last] = (
            self.value.of(batch["next"][torch.from_numpy(last)], (int(last.sum()),)).double().numpy()
        )
        delta = np.where(
            played, batch["reward"].numpy() + self.discount * np.where(terminated, 0.0, beyond) - V, 0.0
        )
        keep = self.discount * self.gae_lambda * (played & ~ended)
        A, ahead = np.empty_like(delta), np.zeros(len(delta))
        for t in range(delta.shape[1] - 1, -1, -1):
            ahead = delta[:, t] + keep[:, t] * ahead
            A[:, t] = ahead
        G = np.where(played, A + V, 0.0)
        whole = G[played].var()
        self._found["explained_variance"] = float(1 - A[played].var() / whole) if whole > 0 else math.nan
        if self.normalise:
            own = A[played]
            spread = own.std()
            same = spread <= ROUNDING * max(np.abs(G).max(), np.abs(V[played]).max())
            A = np.where(played & (not same), (A - own.mean()) / (1.0 if same else spread), 0.0)
        return torch.from_numpy(A), torch.from_numpy(G)

    def measured(self) -> dict[str, float]:
        """explained_variance of the last pass: 1 − Var(G − V)/Var(G); 1 where V is right, 0 where it says no more than
        a constant, less where it misleads."""
        return dict(self._found)


@dataclass(frozen=True)
class Advantage:
    """A2C's weight: w = A − c log π(a | s), the advantage that was found when the data were drawn, and a
    bonus for entropy.

    E ∇ Σ w log π  with  −c log π  in w is the gradient of c · entropy, where the data are the policy's own.

    Parameters
    ----------
    entropy_coef
        c ≥ 0

    References
    ----------
    Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
    """

    entropy_coef: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.entropy_coef < math.inf:
            raise BadArgument(f"entropy_coef={self.entropy_coef}. Accepted: a number of 0 or more.")

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        w = _advantage(batch, self)
        return w - self.entropy_coef * log_prob if self.entropy_coef else w


@dataclass(frozen=True)
class Clipped:
    """PPO's weight: the gradient of its clipped surrogate is that of a weighted log-likelihood.

        w = ρ A · 1[not (A > 0 and ρ > 1 + ε)] · 1[not (A < 0 and ρ < 1 − ε)] − c ρ log π,      ρ = π(a | s) / π_played(a | s)
        ∇ Σ min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) = Σ w ∇ log π                                          (c = 0)

    Reads "advantage" and "log_prob" of the batch. A weight beyond the numbers of its type (ρ = e^{89} in
    float32) is the largest of them.

    Parameters
    ----------
    clip_coef
        ε > 0
    entropy_coef
        c ≥ 0, of a bonus for entropy: E[−ρ log π ∇log π] is its gradient
    clip_coef_high
        ε of the upper end, 1 + ε; None: the same as below. A larger one lets an improbable action of a positive
        advantage grow ("clip-higher", Yu et al. 2025, DAPO)

    References
    ----------
    Schulman et al. (2017), Proximal policy optimization algorithms, eq. 7.

    Examples
    --------
    >>> batch = Batch({"advantage": torch.tensor([1.0, 1.0, -1.0]), "log_prob": torch.zeros(3)})
    >>> Clipped(0.2)(batch, torch.tensor([0.1, 0.3, 0.3]))
    tensor([ 1.1052,  0.0000, -1.3499])
    """

    clip_coef: float = 0.2
    entropy_coef: float = 0.0
    clip_coef_high: float | None = None
    # of one entry always: for a compiled step an empty list is another graph
    _last: list[Tensor] = field(
        default_factory=lambda: [torch.zeros(4)], init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        high = self.clip_coef if self.clip_coef_high is None else self.clip_coef_high
        if not min(self.clip_coef, high) > 0 or not 0 <= self.entropy_coef < math.inf:
            raise BadArgument(
                f"clip_coef={self.clip_coef}, clip_coef_high={self.clip_coef_high}, entropy_coef={self.entropy_coef}. "
                "Accepted: clip_coef > 0, clip_coef_high > 0 or None, entropy_coef of 0 or more."
            )

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        A = _advantage(batch, self)
        if "log_prob" not in batch:
            raise BadArgument(
                "Clipped needs the log π of the policy that played, 'log_prob', in the batch: rl.Rollouts "
                "gives it."
            )
        ratio = bounded(torch.exp(log_prob - batch["log_prob"]))
        clipped = ((A > 0) & (ratio > 1 + self.high)) | ((A < 0) & (ratio < 1 - self.clip_coef))
        w = torch.where(clipped, 0.0, bounded(ratio * A))
        self._see(batch, log_prob, ratio)
        return (
            bounded(w - self.entropy_coef * torch.where(ratio == 0, 0.0, ratio * log_prob))
            if self.entropy_coef
            else w
        )

    @property
    def high(self) -> float:
        """ε of the upper end."""
        return self.clip_coef if self.clip_coef_high is None else self.clip_coef_high

    def _see(self, batch: Batch, log_prob: Tensor, ratio: Tensor) -> None:
        """Sums of what is measured of a step, which wait for no accelerator."""
        c = batch.count.to(log_prob.dtype)
        log_ratio = log_prob - batch["log_prob"]
        outside = ((ratio > 1 + self.high) | (ratio < 1 - self.clip_coef)).to(log_prob.dtype)
        each = ((ratio - 1) - log_ratio, outside, -ratio * log_prob)
        sums = [c.sum(), *(torch.where(c > 0, c * v, 0.0).sum() for v in each)]
        self._last[0] = torch.stack(sums).detach()

    def measured(self) -> dict[str, float]:
        """Of the last step, means over its terms.

        approx_kl       E[(ρ − 1) − log ρ], which estimates KL(π_played ‖ π) (Schulman 2020)
        clip_fraction   how often ρ is outside 1 ± ε
        entropy         −E[ρ log π(a | s)], nats (of a density it may be negative)
        """
        n, *sums = self._last[0].tolist()
        if not n:
            return {}
        return dict(zip(("approx_kl", "clip_fraction", "entropy"), (s / n for s in sums), strict=True))


def _advantage(batch: Batch, of: Any) -> Tensor:
    if "advantage" not in batch:
        raise BadArgument(
            f"{type(of).__name__} weighs terms by their advantage, and the batch has none: rl.Rollouts(…, "
            "advantage=rl.GAE(value))."
        )
    out: Tensor = batch["advantage"]
    return out
