"""Environments as tensors: a batch of environments is one state, (B, d), and a step of all of them one call.

    state (B, d), action (B, …)  →  next state (B, d), reward (B,), terminated (B,)

`TensorVector` does the rest as gymnasium does it: limits of steps, and episodes that begin anew in the step after
the one that ended them. `Environments` plays it like any other of gymnasium's, so that rollouts, replay, evaluation,
several seeds and checkpoints are the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..data.source import told
from ..errors import BadArgument
from ..solvers.compiled import compiled as graph_of
from ..types import Named, Plain, Settings, Space, name_of
from .classic_control import CLASSIC

Array = np.ndarray
VECTORIZATIONS = ("gymnasium", "tensor")


@runtime_checkable
class TensorEnvironment(Protocol):
    """Many environments of one kind at once, as functions of tensors; nothing is remembered between calls.

    observation_space, action_space : of one environment, gymnasium's
    max_episode_steps : steps after which an episode is cut off, or None

    Examples
    --------
    >>> from gymnasium import spaces
    >>> class Walk:
    ...     '''Left or right on a line, until 3 or −3; 3 pays 1.'''
    ...     observation_space = spaces.Box(-3, 3, (1,), np.float32)
    ...     action_space = spaces.Discrete(2)
    ...     max_episode_steps = 50
    ...     def reset(self, n, generator):
    ...         return torch.randint(-1, 2, (n, 1), generator=generator)
    ...     def observation(self, state):
    ...         return state.float()
    ...     def step(self, state, action):
    ...         state = state + 2 * action[:, None] - 1
    ...         return state, (state[:, 0] == 3).double(), state[:, 0].abs() == 3
    >>> from thetahat.rl import Rollouts
    >>> isinstance(Walk(), TensorEnvironment), Rollouts(Walk(), 4).actions
    (True, Discrete(2))
    """

    @property
    def observation_space(self) -> Space: ...

    @property
    def action_space(self) -> Space: ...

    @property
    def max_episode_steps(self) -> int | None: ...

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        """n first states, (n, …)."""

    def observation(self, state: Tensor) -> Tensor:
        """What each state shows, (n, …) of the observation space, in its type."""

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(next states, rewards (n,), whether each episode terminated (n,)); the arguments stay as they are."""


class TensorVector:
    """B tensor environments with the methods of a gymnasium.vector.VectorEnv.

    Parameters
    ----------
    environment
        what is played
    num_envs
        B
    max_episode_steps
        steps after which an episode is cut off; None: the environment's own limit
    compiled
        a step by torch.compile: the first takes seconds
    """

    def __init__(
        self,
        environment: TensorEnvironment,
        num_envs: int,
        max_episode_steps: int | None = None,
        compiled: bool = False,
    ):
        from gymnasium.vector import AutoresetMode

        own = environment.max_episode_steps
        self.environment, self.num_envs = environment, num_envs
        self.limit = own if max_episode_steps is None else max_episode_steps
        if self.limit is not None and self.limit < 1:
            raise BadArgument(f"max_episode_steps={self.limit}. Accepted: 1 or more, or None.")
        self.single_observation_space, self.single_action_space = (
            environment.observation_space,
            environment.action_space,
        )
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.generator = torch.Generator()
        self.state = torch.zeros(0)
        self._played: Callable[..., tuple[Tensor, ...]] = graph_of(_played) if compiled else _played
        self.steps, self.over = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=bool)

    @property
    def unwrapped(self) -> TensorVector:
        """Itself: it has no wrappers."""
        return self

    @property
    def spec(self) -> str:
        """What is played, in words: of two that are equal the same."""
        return f"{told(self.environment) or name_of(type(self.environment))}, {self.limit} steps"

    def reset(self, *, seed: int | None = None, options: Named | None = None) -> tuple[Array, Settings]:
        """First states of all environments, drawn with this seed."""
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state = self.environment.reset(self.num_envs, self.generator)
        self.steps = np.zeros(self.num_envs, dtype=np.int64)
        self.over = np.zeros(self.num_envs, dtype=bool)
        return self.environment.observation(self.state).numpy(), {}

    @torch.no_grad()
    def step(self, action: Array) -> tuple[Array, Array, Array, Array, Settings]:
        """(observations, rewards, terminated, truncated, nothing else); where an episode ended in the step before, a
        new one begins and nothing else happens."""
        sent = torch.from_numpy(np.asarray(action, dtype=self.single_action_space.dtype))
        state, reward, ended, shown = self._played(self.environment, self.state, sent)
        rewards, terminated = reward.numpy(), ended.numpy()
        self.steps += 1
        truncated = np.zeros(self.num_envs, bool) if self.limit is None else self.steps >= self.limit
        if self.over.any():
            begun = np.flatnonzero(self.over)
            # copies: an environment may have given a tensor of its own, or its arguments
            state, rewards, terminated = state.clone(), rewards.copy(), terminated.copy()
            state[torch.from_numpy(begun)] = self.environment.reset(len(begun), self.generator)
            shown = self.environment.observation(state)
            rewards[begun], terminated[begun], truncated[begun], self.steps[begun] = 0.0, False, False, 0
        self.state, self.over = state, terminated | truncated
        return shown.numpy(), rewards, terminated, truncated, {}

    def close(self) -> None:
        """Nothing is open."""


def _played(
    environment: TensorEnvironment, state: Tensor, action: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(next state, reward, terminated, what the next state shows)."""
    state, reward, terminated = environment.step(state, action)
    return state, reward, terminated, environment.observation(state)


def tensor_vector(environment: Plain, num_envs: int, given: Named, compiled: bool = False) -> TensorVector:
    """Environments as tensors: of a name, of an environment of one's own, or of a function that makes one.

    Parameters
    ----------
    given
        settings: max_episode_steps, and those of what makes the environment

    Raises
    ------
    BadArgument
        there is no such environment as tensors, or it takes no such setting
    """
    own = {name: v for name, v in given.items() if name not in ("max_episode_steps", "render_mode")}
    if given.get("render_mode") is not None:
        raise BadArgument(
            f"render_mode={given['render_mode']!r}: tensors are not drawn. Accepted: vectorization='gymnasium'."
        )
    made = environment
    if isinstance(environment, str):
        made = CLASSIC.get(environment)
    if isinstance(made, TensorEnvironment) and not isinstance(made, type):
        if own:
            raise BadArgument(
                f"settings={own} cannot be used: the environment is already made. Accepted: max_episode_steps."
            )
    elif callable(made):
        try:
            made = made(**own)
        except TypeError as error:
            raise BadArgument(
                f"{name_of(environment) if callable(environment) else environment}: {error}."
            ) from error
    if not isinstance(made, TensorEnvironment):
        shown = environment if isinstance(environment, str) else name_of(environment)
        raise BadArgument(
            f"vectorization='tensor' of {shown}. Accepted: {', '.join(CLASSIC)}; or what has the attributes and methods "
            "of rl.TensorEnvironment, or a function that makes it. Any other: vectorization='gymnasium'."
        )
    return TensorVector(made, num_envs, given.get("max_episode_steps"), compiled)
