"""Rollouts: whole episodes of an environment, played by the model as it now stands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, MissingExtra
from .batch import Batch


class Actor(Protocol):
    """Chooses an action for each state."""

    def act(self, state: Tensor, generator: torch.Generator | None = None, *, greedy: bool = False) -> Tensor: ...


class Rollouts:
    """Episodes of an environment, as a source that draws from the model.

    Each pass plays `episodes` whole episodes anew and yields them as one batch of terms (B, T), B the episodes, T the longest:

        state (B, T, …)   action (B, T)   reward (B, T)   step (B, T)   terminated, truncated (B, T), at the last step of an episode

    The count is 1 on steps that were played and 0 on the padding after an episode's end. `terminated`: the environment has ended,
    nothing can follow; `truncated`: it was only cut off at its limit of steps, and rewards would have followed.

    Parameters
    ----------
    environment : a name that gymnasium knows ("CartPole-v1"); discrete actions
    episodes : B, played side by side
    seed : of the environments and the actions. The passes go on in one random sequence: a new Rollouts begins it again
    greedy : play the most probable action instead of drawing one
    settings : handed to the environment

    Raises
    ------
    MissingExtra : gymnasium is not installed
    BadArgument : an environment that is not known, or whose actions are not discrete

    Source: Sutton and Barto (2018), Reinforcement Learning: An Introduction, 2nd ed., §3.3; Towers et al. (2024), Gymnasium.

    >>> Rollouts("CartPole-v1", episodes=8).size is None
    True
    """

    drawn = True  # every pass is drawn from the model as it then stands: solvers must not keep or split it
    size = None
    units = "action"

    def __init__(
        self, environment: str, episodes: int = 16, *, seed: int = 0, greedy: bool = False, settings: dict[str, Any] | None = None
    ):
        try:
            import gymnasium
        except ImportError as error:
            raise MissingExtra.named("gymnasium", "rl") from error
        if episodes < 1:
            raise BadArgument(f"episodes={episodes}. Accepted: 1 or more.")
        try:
            self.environment = gymnasium.make_vec(environment, num_envs=episodes, **(settings or {}))
        except gymnasium.error.Error as error:
            raise BadArgument(f"gymnasium cannot make {environment!r}: {error}") from error
        if not isinstance(self.environment.single_action_space, gymnasium.spaces.Discrete):
            raise BadArgument(
                f"{environment} takes actions of {self.environment.single_action_space}; only discrete ones can be played here."
            )
        self.name, self.episodes, self.seed, self.greedy = environment, episodes, seed, greedy
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def fingerprint(self) -> str:
        """Of how the data arise: they have no values before they are drawn."""
        return hashlib.blake2b(f"{self.name}/{self.episodes}/{self.seed}/{self.greedy}".encode(), digest_size=8).hexdigest()

    def batches(self, model: Actor | None = None) -> Iterator[Batch]:
        if model is None or not hasattr(model, "act"):
            raise BadArgument("rollouts are played by a model: it must have act(state, generator).")
        yield self._play(model)

    def _play(self, model: Actor) -> Batch:
        """One episode in each environment. An environment that has ended goes on by itself until all have: what it does is left out."""
        seed = int(torch.randint(2**31 - 1, (), generator=self.generator))
        state, _ = self.environment.reset(seed=seed)
        playing = np.ones(self.episodes, dtype=bool)
        rows: list[dict[str, np.ndarray]] = []
        while playing.any():
            action = model.act(torch.from_numpy(np.asarray(state)), self.generator, greedy=self.greedy).cpu().numpy()
            following, reward, terminated, truncated, _ = self.environment.step(action)
            row = {"state": state, "action": action, "reward": np.asarray(reward, dtype=np.float64)}
            row |= {"terminated": terminated & playing, "truncated": truncated & playing, "count": playing.copy()}
            rows.append({name: np.array(value) for name, value in row.items()})
            playing &= ~(terminated | truncated)
            state = following
        whole = {name: torch.from_numpy(np.stack([row[name] for row in rows], 1)) for name in rows[0]}
        played = whole.pop("count")
        tensors = {name: _padded(tensor, played) for name, tensor in whole.items()}
        tensors["step"] = torch.arange(played.shape[1]).expand(played.shape)
        return Batch(tensors, count=played.to(torch.float64), dims=2)


def returns(model: Actor, environment: str, episodes: int = 16, *, seed: int = 0, greedy: bool = True) -> Tensor:
    """The undiscounted return of each of so many episodes played by the model, (episodes,)."""
    batch = next(Rollouts(environment, episodes, seed=seed, greedy=greedy).batches(model))
    return (batch["reward"] * batch.count).sum(1)


def _padded(values: Tensor, played: Tensor) -> Tensor:
    """values, 0 where nothing was played."""
    keep = played.reshape(*played.shape, *[1] * (values.ndim - 2))
    return torch.where(keep, values, torch.zeros_like(values))
