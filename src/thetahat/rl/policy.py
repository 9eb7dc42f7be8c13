"""Policy: the probability of an action, given what is seen. Its likelihood, weighted by returns, is what
REINFORCE, A2C and PPO maximise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, ModelError
from ..models.base import Model, applied, unpadded
from ..types import Plain
from .actions import Actions, Discrete, MultiDiscrete, SquashedNormal, actions_of
from .masks import empty, masked, refuse_empty


class Policy(Model):
    """A distribution over actions.

        log π(a | s)

    The gradient of Σ_t w_t log π(a_t | s_t), w_t a return less a baseline and held fixed, is the policy
    gradient: with `weights.RewardToGo`, maximising this likelihood on rollouts of the policy itself is
    REINFORCE; with `weights.Advantage`, A2C; with `weights.Clipped`, PPO.

    Parameters
    ----------
    network
        s (…, d) → parameters of the distribution (…, K)
    actions
        what is chosen: an action space of gymnasium (`rollouts.actions`) or a distribution of
        `models.actions`; None: one of K

    Raises
    ------
    ModelError
        the network's output does not match the terms
    BadArgument
        an action space that is not supported

    References
    ----------
    Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement
    learning.

    Examples
    --------
    >>> policy = Policy(nn.Linear(4, 2))
    >>> batch = Batch({"state": torch.zeros(3, 7, 4), "action": torch.zeros(3, 7, dtype=torch.long)}, dims=2)
    >>> tuple(policy.log_prob(batch).shape)
    (3, 7)
    """

    target = "action"

    def __init__(self, network: nn.Module, actions: Plain = None):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise BadArgument(f"Policy(network): network is {type(network).__name__}, not a torch.nn.Module.")
        self.network = network
        self.actions: Actions | None = (
            actions if actions is None or isinstance(actions, Actions) else actions_of(actions)
        )

    @property
    def measure(self) -> str:
        return "mass" if self.actions is None else self.actions.measure

    def parameters_of(self, state: Tensor, mask: Tensor | None = None) -> tuple[Actions, Tensor]:
        """The distribution of the action at each state, and its parameters, (…, K); with a mask, (…, K), −∞ for what
        it does not allow."""
        f = _output(self.network, state)
        actions = _OneOf(f.shape[-1]) if self.actions is None else self.actions
        if mask is None:
            return actions, f
        if isinstance(actions, SquashedNormal):
            raise BadArgument(
                "the batch has a 'mask', and the actions are numbers in a box. Accepted: masks of Discrete and MultiDiscrete."
            )
        return actions, masked(f, mask)

    def logits(self, state: Tensor) -> Tensor:
        """f_θ(s), (…, K)."""
        return self.parameters_of(state)[1]

    def log_prob(self, batch: Batch) -> Tensor:
        """log π(a | s) of each term, (n,) or (B, T); exactly 0 where the count is 0 (padding).

        With "mask" in the batch, (…, A), probability is shared among the actions that it allows, as when they were
        drawn; log π of any other is −∞.
        """
        mask = batch.tensors.get("mask")
        actions, f = self.parameters_of(batch["state"], mask)
        fits = f.shape[-1] >= 2 if self.actions is None else f.shape[-1] == actions.outputs
        if tuple(f.shape[:-1]) != batch.shape or not fits:
            wanted = "K), K actions, 2 or more" if self.actions is None else f"{actions.outputs})"
            raise ModelError(
                f"the network gives a tensor of shape {tuple(f.shape)} for terms of shape {batch.shape}. "
                f"Accepted: ({', '.join(map(str, batch.shape))}, {wanted}."
            )
        out = actions.log_prob(f, batch["action"])
        if mask is not None:
            out = torch.where(empty(mask, _parts(actions)).to(out.device), -torch.inf, out)
        return unpadded(out, batch)

    def _allowed(self, state: Tensor, mask: Tensor | None) -> tuple[Actions, Tensor]:
        """`parameters_of`, where an action is to be chosen."""
        actions, f = self.parameters_of(state, mask)
        if mask is not None:
            refuse_empty(mask, _parts(actions))
        return actions, f

    # ---- play ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def play(
        self,
        state: Tensor,
        generator: torch.Generator | None = None,
        *,
        greedy: bool = False,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(actions as they are recorded, (n, …), their log π, (n,)): drawn from π, or (greedy) its mode (of a
        squashed normal: its median); mask, (n, A): those that are allowed."""
        actions, f = self._allowed(state, mask)
        action = actions.mode(f) if greedy else actions.draw(f, generator)
        return action, actions.log_prob(f, action)

    def sent(self, action: Tensor) -> np.ndarray:
        """Recorded actions as an environment takes them."""
        return action.cpu().numpy() if self.actions is None else self.actions.sent(action)

    @torch.no_grad()
    def act(
        self,
        state: Tensor,
        generator: torch.Generator | None = None,
        *,
        greedy: bool = False,
        mask: Tensor | None = None,
    ) -> np.ndarray:
        """Actions as an environment takes them, (n, …): drawn from π, or (greedy) its mode; mask, (n, A): those that
        are allowed."""
        actions, f = self._allowed(state, mask)
        return self.sent(actions.mode(f) if greedy else actions.draw(f, generator))


class Value(Model):
    """What is still to come, given what is seen: a Normal whose mean is the value function.

        log p(G | s) = log Normal(G | V_θ(s), σ²)

    Fitted beside a policy on the same rollouts: `LogLikelihood(policy, rollouts, weights) +
    LogLikelihood(value, rollouts)`. σ weighs the two where they share parameters; the gradient is that of −(G
    − V)²/2σ².

    Reads "state" and "return", what `Rollouts` makes of rewards with `advantage=`.

    Parameters
    ----------
    network
        s (…, d) → V (…) or (…, 1)
    scale
        σ

    Examples
    --------
    >>> value = Value(nn.Linear(4, 1))
    >>> tuple(value.of(torch.zeros(3, 7, 4), (3, 7)).shape)
    (3, 7)
    """

    target = "return"

    def __init__(self, network: nn.Module, scale: float = 1.0):
        super().__init__()
        if not scale > 0:
            raise BadArgument(f"scale={scale}. Accepted: a positive number.")
        self.network, self.scale = network, scale

    def of(self, state: Tensor, shape: Sequence[int]) -> Tensor:
        """V(s) of states that lie in a tensor of this leading shape."""
        V = _output(self.network, state)
        if tuple(V.shape) not in (tuple(shape), (*shape, 1)):
            raise ModelError(
                f"the network gives a tensor of shape {tuple(V.shape)} for states of {tuple(shape)}: one "
                "value each."
            )
        return V.reshape(tuple(shape))

    def log_prob(self, batch: Batch) -> Tensor:
        z = (batch["return"] - self.of(batch["state"], batch.shape)) / self.scale
        out = -0.5 * z.square() - float(np.log(self.scale) + 0.5 * np.log(2 * np.pi))
        return unpadded(out, batch)


class _OneOf(Discrete):
    """One of as many actions as a network has outputs. Its construction is not remembered (`made`), so that a graph of
    torch.compile can make it."""

    def __init__(self, K: int):
        self.K = self.outputs = K


def _parts(actions: Actions) -> list[int]:
    """How many actions each part of a mask is about."""
    return actions.sizes if isinstance(actions, MultiDiscrete) else [actions.outputs]


def _output(network: nn.Module, state: Tensor) -> Tensor:
    """What a network makes of states; a network with a hidden state, which gives two things, is refused."""
    out: Plain = applied(network, state)
    if not isinstance(out, Tensor):
        raise ModelError(
            f"{type(network).__name__} gives a {type(out).__name__}, as a recurrent network does with its hidden state. "
            "Accepted: a network that gives one tensor. Recurrent policies are left out: no hidden state is kept from "
            "step to step. Stack frames: gymnasium.wrappers.FrameStackObservation."
        )
    return out
