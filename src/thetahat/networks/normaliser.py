"""Normaliser: the first layer of a policy whose states have scales that nobody knows before it has played."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import BadArgument


class Normaliser(nn.Module):
    """(s − m) / √v, kept within ±limit: m and v are mean and variance of all states that were played, up to
    the pass that is learnt from.

    They are not part of θ and travel with the network. `Rollouts` hands over the states of a pass when the
    next one begins (`observe`), so that a pass is played and learnt from with one m and v, and its first
    ratio is 1; whatever else the network is asked, evaluation above all, leaves them as they are. Until a
    second state was seen it changes nothing.

    A value function on the same states takes the same layer: `nn.Sequential(normaliser, mlp(d, …))` twice,
    with one normaliser.

    Parameters
    ----------
    d
        numbers of a state
    limit
        states that are further out are cut

    References
    ----------
    Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance (the update); Andrychowicz et
    al. (2021), What matters for on-policy deep actor-critic methods (what it is worth).

    Examples
    --------
    >>> layer = Normaliser(1)
    >>> layer.observe(torch.tensor([[1000.0], [3000.0]]))
    >>> layer.observe(torch.tensor([[2000.0]]))
    >>> layer(torch.tensor([[2000.0], [1e9]])).tolist()
    [[0.0], [10.0]]
    """

    mean: Tensor
    squares: Tensor
    seen: Tensor

    def __init__(self, d: int, limit: float = 10.0):
        super().__init__()
        if d < 1 or not limit > 0:
            raise BadArgument(
                f"Normaliser({d}, limit={limit}). Accepted: 1 or more numbers, a positive limit."
            )
        self.limit = limit
        self.register_buffer("mean", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(d, dtype=torch.float64))  # Σ (s − m)²
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, states: Tensor) -> None:
        """States, (n, d), that were played."""
        x = states.to(self.mean)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise BadArgument(
                f"states of shape {tuple(states.shape)}; this normaliser has {len(self.mean)} columns: (n, "
                f"{len(self.mean)})."
            )
        n, mean = len(x), x.mean(0)
        if n == 0:
            return
        away, both = mean - self.mean, self.seen + n
        self.squares += (x - mean).square().sum(0) + away.square() * self.seen * n / both
        self.mean += away * n / both
        self.seen.copy_(both)

    def forward(self, state: Tensor) -> Tensor:
        spread = torch.sqrt(self.squares / self.seen.clamp(min=1))
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        out = ((state - self.mean.to(state)) / spread.to(state)).clamp(-self.limit, self.limit)
        return torch.where(self.seen < 2, state, out)  # no branch: under vmap each seed has its own `seen`
