"""What a policy chooses: the distribution of an action whose parameters a network gives, for each kind of
action space.

    Discrete         π(a) = softmax(f)_a                                  f (…, K)
    MultiDiscrete    π(a) = Π_j softmax(f_j)_{a_j}                        f (…, Σ K_j)
    SquashedNormal   a = c + h ∘ tanh u,  u ~ Normal(m, e^s)              f = (m, s), (…, 2k);   c, h: middle and half-width of the box

A draw is a function of the parameters and of noise that does not depend on them, so that the noise of many draws can be
drawn beforehand:

    Discrete, MultiDiscrete    argmax_a softmax(f)_a / e_a,    e_a ~ Exponential(1)         (as torch.multinomial does)
    SquashedNormal             u = m + e^s z,    z ~ Normal(0, 1)

What is recorded of a squashed action is u: at the edge of the box tanh has no inverse in finite precision.
Its density is that of a,

    log π(a) = Σ_j log Normal(u_j | m_j, e^{s_j}) − log h_j − log(1 − tanh² u_j)

References
----------
Haarnoja et al. (2018), Soft actor-critic, appendix C (the squashed normal).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadArgument
from ..types import Data, Space


class Discrete:
    """One of K actions, from K logits."""

    measure = "mass"

    def __init__(self, K: int):
        self.K = self.outputs = K

    def log_prob(self, f: Tensor, action: Tensor) -> Tensor:
        """log π(a), (…)."""
        return _log_softmax_at(f, action)

    def noise(self, f: Tensor, generator: torch.Generator | None) -> Tensor:
        """What a draw needs, of the shape and type of f."""
        return torch.empty_like(f).exponential_(generator=generator)

    def drawn(self, f: Tensor, noise: Tensor) -> Tensor:
        """The action that this noise makes of the parameters."""
        return (torch.softmax(f, -1) / noise).argmax(-1)

    def draw(self, f: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.drawn(f, self.noise(f, generator))

    def mode(self, f: Tensor) -> Tensor:
        return f.argmax(-1)

    def taken(self, action: Tensor) -> Tensor:
        """As the environment takes it."""
        return action

    def sent(self, action: Tensor) -> np.ndarray:
        """The same as an array."""
        return action.cpu().numpy()


class MultiDiscrete:
    """k actions at once, one of K_j each, independent given the state."""

    measure = "mass"

    def __init__(self, sizes: Iterable[int]):
        self.sizes = [int(K) for K in sizes]
        self.outputs = sum(self.sizes)

    def log_prob(self, f: Tensor, action: Tensor) -> Tensor:
        each = [_log_softmax_at(part, action[..., j]) for j, part in enumerate(f.split(self.sizes, -1))]
        return torch.stack(each).sum(0)

    def noise(self, f: Tensor, generator: torch.Generator | None) -> Tensor:
        parts = [torch.empty_like(p, memory_format=torch.contiguous_format) for p in f.split(self.sizes, -1)]
        return torch.cat([p.exponential_(generator=generator) for p in parts], -1)

    def drawn(self, f: Tensor, noise: Tensor) -> Tensor:
        parts = zip(f.split(self.sizes, -1), noise.split(self.sizes, -1), strict=True)
        return torch.stack([(torch.softmax(p, -1) / e).argmax(-1) for p, e in parts], -1)

    def draw(self, f: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.drawn(f, self.noise(f, generator))

    def mode(self, f: Tensor) -> Tensor:
        return torch.stack([p.argmax(-1) for p in f.split(self.sizes, -1)], -1)

    def taken(self, action: Tensor) -> Tensor:
        return action

    def sent(self, action: Tensor) -> np.ndarray:
        return action.cpu().numpy()


class SquashedNormal:
    """k numbers in a box; the recorded action is u, (…, k).

    Parameters
    ----------
    low, high
        edges, (k,) or of the action's shape
    dtype
        of the actions that are sent, which lie within the edges in that type's own numbers (float32(0.1) is
        more than 0.1)

    Examples
    --------
    >>> box = SquashedNormal([-2.0], [2.0])
    >>> u = torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None]
    >>> a = 2 * torch.tanh(u[:, 0])
    >>> p = box.log_prob(torch.zeros(2, dtype=torch.float64).expand(len(u), 2), u).exp()
    >>> round(torch.trapezoid(p, a).item(), 4)
    1.0
    """

    measure = "density"

    def __init__(self, low: Data, high: Data, dtype: np.typing.DTypeLike = np.float32):
        self.low, self.high = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (low, high))
        if not (
            np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low < self.high).all()
        ):
            raise BadArgument(
                f"actions between {self.low} and {self.high}. Accepted: a box with finite edges, low < high."
            )
        self.shape = np.asarray(low).shape
        self.outputs = 2 * len(self.low)
        self.dtype = np.dtype(dtype)
        edges = _within(self.low, self.high, self.dtype)
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        self._box = tuple(torch.from_numpy(np.asarray(v)) for v in (middle, half, *edges))

    def log_prob(self, f: Tensor, action: Tensor) -> Tensor:
        m, s = f.chunk(2, -1)
        z = (action - m) * torch.exp(-s)
        half = torch.as_tensor((self.high - self.low) / 2, dtype=f.dtype, device=f.device)
        slope = 2 * (math.log(2) - action - F.softplus(-2 * action))  # log(1 − tanh² u)
        return (-0.5 * z.square() - s - 0.5 * math.log(2 * math.pi) - torch.log(half) - slope).sum(-1)

    def noise(self, f: Tensor, generator: torch.Generator | None) -> Tensor:
        m = f.chunk(2, -1)[0]
        return torch.randn(m.shape, generator=generator, dtype=m.dtype, device=m.device)

    def drawn(self, f: Tensor, noise: Tensor) -> Tensor:
        m, s = f.chunk(2, -1)
        return m + torch.exp(s) * noise

    def draw(self, f: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.drawn(f, self.noise(f, generator))

    def mode(self, f: Tensor) -> Tensor:
        return f.chunk(2, -1)[0]

    def taken(self, action: Tensor) -> Tensor:
        middle, half, low, high = self._box
        a = (middle + half * torch.tanh(action.double())).to(low.dtype)
        a = torch.minimum(torch.maximum(a, low), high)
        return a.reshape(*a.shape[:-1], *self.shape)

    def sent(self, action: Tensor) -> np.ndarray:
        return self.taken(action.cpu()).numpy()


def _log_softmax_at(f: Tensor, action: Tensor) -> Tensor:
    """log softmax(f)_a, (…)."""
    return torch.log_softmax(f, -1).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)


def _within(low: np.ndarray, high: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest numbers of a type that lie between two edges."""
    a, b = low.astype(dtype), high.astype(dtype)
    a = np.where(a.astype(np.float64) < low, np.nextafter(a, dtype.type(np.inf)), a)
    return a, np.where(b.astype(np.float64) > high, np.nextafter(b, dtype.type(-np.inf)), b)


Actions = Discrete | MultiDiscrete | SquashedNormal


def actions_of(space: Space) -> Actions:
    """The distribution for a space of gymnasium.

    Raises
    ------
    BadArgument
        a space that no distribution here covers
    """
    kind = type(space).__name__
    if kind == "Discrete" and int(space.start) == 0:
        return Discrete(int(space.n))
    if (
        kind == "MultiDiscrete"
        and np.asarray(space.nvec).ndim == 1
        and not np.any(getattr(space, "start", 0))
    ):
        return MultiDiscrete(space.nvec)
    if (
        kind == "Box"
        and np.isfinite(space.low).all()
        and np.isfinite(space.high).all()
        and space.dtype.kind == "f"
    ):
        return SquashedNormal(space.low, space.high, space.dtype)
    raise BadArgument(
        f"actions of {space} cannot be played. Accepted: Discrete and MultiDiscrete that begin at 0 "
        "(Rollouts(…).actions does, whatever the environment's, of MultiBinary and of a Box of whole numbers too), a Box of "
        "floats with finite edges. If the edges of a Box are infinite, wrap the environment so that they are finite: "
        "gymnasium.wrappers.TransformAction(env, np.sinh, gymnasium.spaces.Box(-3, 3, env.action_space.shape))."
    )
