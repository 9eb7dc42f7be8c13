"""Environments as tensors: a batch of environments is one state, (B, d), and a step of all of them one call.

    state (B, d), action (B, …)  →  next state (B, d), reward (B,), terminated (B,)

`TensorVector` does the rest as gymnasium does it in its mode "same step": limits of steps, and episodes that begin anew
in the step that ended the last ones. `Environments` plays it like any other of gymnasium's, so that rollouts, replay,
evaluation, several seeds and checkpoints are the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..data.source import told
from ..errors import BadArgument
from ..solvers.compiled import can_compile
from ..solvers.compiled import compiled as graph_of
from ..types import Named, Plain, Settings, Space, name_of
from .classic_control import CLASSIC

Array = np.ndarray
VECTORIZATIONS = ("gymnasium", "tensor")
BLOCK = 16  # first states of each environment that are drawn at once


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
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.generator = torch.Generator()
        self.state = self.fresh = torch.zeros(0)
        self.compiled = compiled and can_compile()
        self._played: Callable[..., tuple[Tensor, ...]] = graph_of(_played) if self.compiled else _played
        self.steps = np.zeros(num_envs, dtype=np.int64)

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
        self.fresh = self.state[:0]
        self.steps = np.zeros(self.num_envs, dtype=np.int64)
        return self.environment.observation(self.state).numpy(), {}

    def first_states(self, n: int) -> Tensor:
        """The next n first states: those of the episodes to come, in the order in which they begin. They are drawn in
        blocks, so that they are the same however many are asked for at once; `begin` takes them."""
        while len(self.fresh) < n:
            more = self.environment.reset(BLOCK * self.num_envs, self.generator)
            self.fresh = torch.cat((self.fresh, more)) if len(self.fresh) else more
        return self.fresh[:n]

    def begin(self, n: int) -> Tensor:
        """The same, once: they are the states of n episodes that begin now."""
        out, self.fresh = self.first_states(n), self.fresh[n:]
        return out

    @torch.no_grad()
    def step(self, action: Array) -> tuple[Array, Array, Array, Array, Settings]:
        """(observations, rewards, terminated, truncated, info); where an episode ended, a new one has begun, and what the
        last one showed at its end is in info["final_obs"]."""
        sent = torch.from_numpy(np.asarray(action, dtype=self.single_action_space.dtype))
        state, reward, ended, shown = self._played(self.environment, self.state, sent)
        terminated = ended.numpy()
        self.steps += 1
        truncated = np.zeros(self.num_envs, bool) if self.limit is None else self.steps >= self.limit
        over, info = terminated | truncated, {}
        if over.any():
            begun = np.flatnonzero(over)
            info["final_obs"] = shown.numpy()
            state = state.clone()  # an environment may show its state itself
            state[torch.from_numpy(begun)] = self.begin(len(begun))
            shown, self.steps[begun] = self.environment.observation(state), 0
        self.state = state
        return shown.numpy(), reward.numpy(), terminated, truncated, info

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
