"""Environments made with gymnasium's wrappers: frames stacked, Atari's preprocessing; and the packages that
bring environments under a name.

In Python no help is needed: wherever an environment is taken, a function that makes one is taken, with whatever
wrappers.

References
----------
Mnih et al. (2015), Human-level control through deep reinforcement learning; Machado et al. (2018), Revisiting
the Arcade Learning Environment.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import SupportsFloat

import numpy as np

from ..errors import BadArgument, MissingExtra
from ..types import Plain, Settings, name_of

# namespace of a name → the module that brings it, what registers it, how it is installed
PACKAGES: dict[str, tuple[str, str | None, str]] = {
    "ALE": ("ale_py", None, 'pip install "gymnasium[atari]"'),
    "MinAtar": ("minatar.gym", "register_envs", "pip install minatar"),
}


def register(environment: Plain) -> None:
    """A name's package makes itself known to gymnasium.

    Raises
    ------
    MissingExtra
        the package is not installed
    """
    import gymnasium

    space = environment.partition("/")[0] if isinstance(environment, str) else ""
    if space not in PACKAGES or environment in gymnasium.registry:
        return
    module, function, install = PACKAGES[space]
    found = _imported(module, environment, install)
    if function is not None and environment not in gymnasium.registry:
        getattr(found, function)()


def _imported(module: str, environment: str, install: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{environment} needs {module.partition('.')[0]}, which is not installed. {install}"
        ) from error


@dataclass(frozen=True)
class Wrapped:
    """A function that makes an environment, with wrappers.

        environment → limit of steps → Atari's preprocessing → sign of the reward → K frames stacked

    Stacked images keep an axis of frames, (K, H, W) or (K, H, W, C); stacked rows of numbers become one row, (K·d,).

    Parameters
    ----------
    environment
        a name that gymnasium knows, or a function that makes one
    frame_stack
        K, the latest frames that a state shows; 1: the latest alone
    atari
        gymnasium.wrappers.AtariPreprocessing: up to 30 steps without action at the start, 4 frames a step, the larger of the
        last two, 84 × 84 grey levels
    clip_rewards
        each reward is replaced by its sign

    Raises
    ------
    MissingExtra
        a package is not installed
    BadArgument
        frame_stack < 1, or Atari's preprocessing of what is not a name

    Examples
    --------
    >>> Wrapped("CartPole-v1", frame_stack=3)(max_episode_steps=50).observation_space.shape
    (12,)
    """

    environment: str | Callable[..., Plain]
    frame_stack: int = 1
    atari: bool = False
    clip_rewards: bool = False

    def __post_init__(self) -> None:
        if self.frame_stack < 1:
            raise BadArgument(f"frame_stack={self.frame_stack}. Accepted: 1 or more.")
        if self.atari and not isinstance(self.environment, str):
            raise BadArgument(
                f"atari=True with {name_of(self.environment)}. Accepted: a name of the Arcade Learning Environment, "
                "ALE/Breakout-v5."
            )

    @property
    def __name__(self) -> str:
        """For messages and fingerprints."""
        of = self.environment if isinstance(self.environment, str) else name_of(self.environment)
        more = [f"frame_stack={self.frame_stack}"] * (self.frame_stack > 1)
        more += ["atari"] * self.atari + ["clip_rewards"] * self.clip_rewards
        return f"{of} ({', '.join(more)})" if more else of

    def __call__(self, *, max_episode_steps: int | None = None) -> Plain:
        """One environment."""
        from gymnasium import wrappers

        env = self._made(max_episode_steps)
        if self.atari:
            env = wrappers.AtariPreprocessing(env)
        if self.clip_rewards:
            env = wrappers.TransformReward(env, sign)
        if self.frame_stack > 1:
            alone = len(env.observation_space.shape or ()) == 1
            env = wrappers.FrameStackObservation(env, self.frame_stack)
            env = wrappers.FlattenObservation(env) if alone else env
        return env

    def _made(self, max_episode_steps: int | None) -> Plain:
        import gymnasium

        if self.atari:
            _imported("ale_py", str(self.environment), PACKAGES["ALE"][2])
            if importlib.util.find_spec("cv2") is None:
                raise MissingExtra(
                    f"Atari's preprocessing of {self.environment} needs opencv-python, which is not installed. "
                    "pip install opencv-python"
                )
        if isinstance(self.environment, str):
            register(self.environment)
            more: Settings = {"frameskip": 1} if self.atari else {}
            return gymnasium.make(self.environment, max_episode_steps=max_episode_steps, **more)
        env = self.environment()
        if not isinstance(env, gymnasium.Env):
            raise BadArgument(
                f"{name_of(self.environment)}() gave a {type(env).__name__}. Accepted: a gymnasium.Env."
            )
        if max_episode_steps is None:
            return env
        return gymnasium.wrappers.TimeLimit(env, max_episode_steps)


def sign(reward: SupportsFloat) -> float:
    """−1, 0 or 1."""
    return float(np.sign(float(reward)))
