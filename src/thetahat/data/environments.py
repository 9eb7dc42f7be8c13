"""Environments: copies of one, stepped side by side, as transitions that mean the same whatever gymnasium's autoreset does.

gymnasium (1.0 and later) begins a new episode by itself in one of three ways; a transition (s, a, r, s', ended) is the same in all of them:

    next step    the step after an end ignores its action and gives the first state of a new episode: that step is no transition, count 0
    same step    the state that comes with an end is already the new episode's; s' is in info["final_obs"]
    disabled     nothing happens by itself: the copies that ended are reset here

Source: Towers et al. (2024), Gymnasium: a standard interface for reinforcement learning environments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BadArgument, DataError, MissingExtra, NotFinite

Array = np.ndarray


@dataclass
class Transition:
    """One step of every copy, (B, …). `count` is 0 where nothing was done but to begin a new episode.

    terminated : the environment has ended, nothing can follow; truncated : it was only cut off, and rewards would have followed
    """

    state: Array
    action: Array
    reward: Array
    next: Array
    terminated: Array
    truncated: Array
    count: Array

    @property
    def ended(self) -> Array:
        return self.terminated | self.truncated


class Environments:
    """So many copies of an environment.

    Parameters
    ----------
    environment : a name that gymnasium knows, or a function that makes one
    copies : B
    settings : handed to gymnasium.make_vec (to the function)

    `state` is what the copies now show, (B, …); `actions` the space of one copy's actions.

    Raises
    ------
    MissingExtra : gymnasium is not installed
    BadArgument : an environment that is not known, or whose states are not arrays of numbers
    NotFinite, DataError : along the way, a state or reward that is not finite or not of the promised shape; an error of its own

    >>> poles = Environments("CartPole-v1", 2)
    >>> poles.reset(seed=0).shape, poles.step(np.array([0, 1])).reward.tolist()
    ((2, 4), [1.0, 1.0])
    """

    def __init__(self, environment: str | Callable[..., Any], copies: int = 1, settings: Mapping[str, Any] | None = None):
        try:
            import gymnasium
        except ImportError as error:
            raise MissingExtra.named("gymnasium", "rl") from error
        if copies < 1:
            raise BadArgument(f"copies={copies}. Accepted: 1 or more.")
        self.name = environment if isinstance(environment, str) else getattr(environment, "__name__", "environment")
        given = dict(settings or {})
        try:
            if isinstance(environment, str):
                self.vector: Any = gymnasium.make_vec(environment, num_envs=copies, **given)
            else:
                self.vector = gymnasium.vector.SyncVectorEnv([lambda: environment(**given) for _ in range(copies)])
        except Exception as error:  # gymnasium's own, a module that is not there, whatever the environment's code raises
            said = str(error) if isinstance(error, gymnasium.error.Error) else f"{type(error).__name__}: {error}"
            raise BadArgument(f"gymnasium cannot make {environment!r}: {said}") from error
        space = self.vector.single_observation_space
        if not isinstance(space, (gymnasium.spaces.Box, gymnasium.spaces.Discrete)):
            raise BadArgument(f"{self.name} shows states of {space}. Accepted: Box, Discrete.")
        self.copies, self.actions, self.shape = copies, self.vector.single_action_space, tuple(space.shape or ())
        self.levels = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else None
        modes = gymnasium.vector.AutoresetMode
        self.mode = self.vector.metadata.get("autoreset_mode", modes.NEXT_STEP)
        self._next, self._same = self.mode == modes.NEXT_STEP, self.mode == modes.SAME_STEP
        self.state: Array = np.zeros(0)
        self.over, self.steps = np.zeros(copies, dtype=bool), 0

    def reset(self, seed: int) -> Array:
        """New episodes in all copies: their first states, (B, …)."""
        self.steps = 0
        self.state, _ = self._done(self.vector.reset, seed=seed)
        self.state = self._checked(self.state, "state")
        self.over, self.steps = np.zeros(self.copies, dtype=bool), 0
        return self.state

    def step(self, action: Array) -> Transition:
        """What the actions, (B,) or (B, k), led to."""
        before, over = self.state, self.over
        if not (self._next or self._same) and over.any():
            before = self._checked(self._done(self.vector.reset, options={"reset_mask": over})[0], "state")
            over = np.zeros_like(over)
        shown, reward, terminated, truncated, info = self._done(self.vector.step, action)
        self.steps += 1
        shown = self._checked(shown, "state")
        reward = self._checked(np.asarray(reward, dtype=np.float64), "reward")
        following = shown
        self.over = np.asarray(terminated | truncated)
        if self._same and self.over.any():
            following = shown.copy()
            for i in np.flatnonzero(self.over):
                following[i] = info["final_obs"][i]
            following = self._checked(following, "state")
        self.state = shown
        count = ~over if self._next else np.ones(self.copies, dtype=bool)
        return Transition(before, action, reward, following, np.asarray(terminated), np.asarray(truncated), count)

    def _done(self, what: Callable[..., Any], *given: Any, **settings: Any) -> Any:
        """What the environment's own code does; what it raises is said to be its own."""
        try:
            return what(*given, **settings)
        except Exception as error:
            states = "" if self.levels is not None else f" It promises states of shape {self.shape}."
            raise DataError(
                f"{self.name} failed after {self.steps} steps of {self.copies} copies: {type(error).__name__}: {error}.{states}"
            ) from error

    def _checked(self, values: Any, what: str) -> Array:
        shape = (self.copies, *(self.shape if what == "state" else ()))
        values = np.asarray(values)
        if values.shape != shape:
            raise DataError(
                f"{self.name} gave a {what} of shape {values.shape} after {self.steps} steps; it promises {shape} ({self.copies} copies)."
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise NotFinite(
                f"{self.name} gave the {what} {values[at]} in copy {at[0]} after {self.steps} steps"
                + (f" (entry {', '.join(map(str, at[1:]))})." if at[1:] else ".")
            )
        return values

    def close(self) -> None:
        self.vector.close()
