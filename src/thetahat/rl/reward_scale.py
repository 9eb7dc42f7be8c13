"""Rewards of a scale that nobody knows before the policy has played: divided by the standard deviation of the
discounted return.

    C_t = γ C_{t−1} + r_t,  0 before each episode,      r'_t = r_t / σ,  σ² = Var(C) over all that was played, this pass included

All rewards of a pass are divided by one σ, so that the gradient of a pass is that of the raw rewards, times
1/σ. The mean is not taken away: it would pay for long or for short episodes.

References
----------
Engstrom et al. (2020), Implementation matters in deep policy gradients: a case study on PPO and TRPO; Chan,
Golub and LeVeque (1983), Algorithms for computing the sample variance (the update).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument
from ..likelihood.weights.bounded import ROUNDING

Array = np.ndarray


class RewardScale:
    """σ, and the discounted return so far of each environment.

    Parameters
    ----------
    discount
        γ in [0, 1]
    num_envs
        B

    Examples
    --------
    >>> scale = RewardScale(0.5, 1)
    >>> scale(np.array([[2.0, 0.0, 3.0]]), np.zeros((1, 3), bool), np.ones((1, 3), bool)).round(3).tolist()
    [[1.947, 0.0, 2.92]]
    >>> round(scale.std, 4), round(float(np.std([2.0, 1.0, 3.5])), 4)
    (1.0274, 1.0274)
    """

    def __init__(self, discount: float, num_envs: int):
        if not 0 <= discount <= 1:
            raise BadArgument(
                f"normalise_rewards={discount}. Accepted: True, False, or a discount in [0, 1]."
            )
        self.discount = discount
        self.running = np.zeros(num_envs)
        self.n, self.mean, self.squares = 0, 0.0, 0.0  # of C; squares Σ (C − mean)²

    @property
    def std(self) -> float:
        """σ; 1 until the return has varied."""
        spread = (self.squares / self.n) ** 0.5 if self.n else 0.0
        return spread if spread > ROUNDING * abs(self.mean) else 1.0

    def begin(self) -> None:
        """New episodes in all environments."""
        self.running[:] = 0

    def __call__(self, reward: Array, ended: Array, played: Array) -> Array:
        """r / σ, (B, T), σ with these rewards among what was played.

        Parameters
        ----------
        reward, ended, played
            (B, T): r; whether the episode was over with it; whether it counts
        """
        found = np.zeros(reward.shape)
        for t in range(reward.shape[1]):
            self.running = np.where(played[:, t], self.discount * self.running + reward[:, t], self.running)
            found[:, t] = self.running
            self.running = np.where(ended[:, t], 0.0, self.running)
        C = found[played]
        if len(C):
            away, both = C.mean() - self.mean, self.n + len(C)
            self.squares += float(((C - C.mean()) ** 2).sum() + away**2 * self.n * len(C) / both)
            self.mean += float(away * len(C) / both)
            self.n = both
        return reward / self.std

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        known = torch.tensor([self.n, self.mean, self.squares], dtype=torch.float64)
        return {"reward_scale": known, "reward_running": torch.from_numpy(self.running.copy())}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        n, self.mean, self.squares = tensors["reward_scale"].tolist()
        self.n, self.running = int(n), tensors["reward_running"].numpy().copy()
