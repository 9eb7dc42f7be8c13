"""Environments: several of one kind, stepped side by side, as transitions that mean the same whatever
gymnasium's autoreset does.

gymnasium (1.0 and later) begins a new episode by itself in one of three ways; a transition (s, a, r, s',
ended) is the same in all of them:

    next step    the step after an end ignores its action and gives the first state of a new episode: that step is no transition, count 0
    same step    the state that comes with an end is already the new episode's; s' is in info["final_obs"]
    disabled     nothing happens by itself: those that ended are reset here

References
----------
Towers et al. (2024), Gymnasium: a standard interface for reinforcement learning environments.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, BadSave, DataError, MissingExtra, NotFinite
from ..types import Named, Plain, Settings, Space, name_of
from . import snapshot
from .masks import Masks
from .tensor_environments import VECTORIZATIONS, TensorEnvironment, tensor_vector
from .wrapping import register

Array = np.ndarray


@dataclass
class Transition:
    """One step of every environment, (B, …). `count` is 0 where nothing was done but to begin a new episode.

    terminated : the environment has ended, nothing can follow; truncated : it was only cut off, and rewards
    would have followed; mask, next_mask : the actions that are allowed in `state` and in `next`, (B, A), None where the
    environment does not say
    """

    state: Array
    action: Array
    reward: Array
    next: Array
    terminated: Array
    truncated: Array
    count: Array
    mask: Array | None = None
    next_mask: Array | None = None

    @property
    def ended(self) -> Array:
        out: Array = self.terminated | self.truncated
        return out


class Environments:
    """So many environments of one kind.

    `state` is what the environments now show, (B, …): of a Box numbers, floating whatever the Box's type; of
    a Discrete 0 … S − 1; of a Dict, a Tuple, a MultiDiscrete or a MultiBinary one row of numbers, as gymnasium
    flattens them (what is Discrete in it by indicators). `actions` is the space of one environment's actions as they
    are given here: a Discrete space that begins elsewhere is numbered from 0, and a Box of whole numbers and a
    MultiBinary are MultiDiscrete. `mask` is which of them are allowed now, (B, A), or None where the environment does
    not say (`masks`). `scale` is the largest number of a state in absolute value, 1 where there is no largest.

    Parameters
    ----------
    environment
        a name that gymnasium knows, a function that makes one, or an environment, of which copies are made; or a
        `TensorEnvironment`
    num_envs
        B, environments side by side
    settings
        handed to gymnasium.make_vec (to the function)
    vectorization
        "gymnasium": as gymnasium.make_vec makes many of one; "tensor": all of them are one tensor, of gymnasium's classic
        controls and of `TensorEnvironment`s
    compile
        the step of environments that are tensors by torch.compile

    Raises
    ------
    MissingExtra
        gymnasium is not installed, or the package of a name (ALE/…, MinAtar/…) is not
    BadArgument
        an environment that is not known, or whose states are not arrays of numbers; an action that it lacks, or that its
        mask does not allow
    NotFinite, DataError
        along the way, a state or reward that is not finite or not of the promised shape; a mask that allows nothing or
        is of the wrong length; an error of its own

    Examples
    --------
    >>> poles = Environments("CartPole-v1", 2)
    >>> poles.reset(seed=0).shape, poles.step(np.array([0, 1])).reward.tolist()
    ((2, 4), [1.0, 1.0])
    """

    mask: Array | None = None
    scale: float = 1.0

    def __init__(
        self,
        environment: str | Callable[..., Plain] | TensorEnvironment,
        num_envs: int = 1,
        settings: Named | None = None,
        vectorization: str = "gymnasium",
        compile: bool = False,
    ):
        try:
            import gymnasium
        except ImportError as error:
            raise MissingExtra.named("gymnasium", "rl") from error
        if num_envs < 1:
            raise BadArgument(f"num_envs={num_envs}. Accepted: 1 or more.")
        if vectorization not in VECTORIZATIONS:
            raise BadArgument(
                f"vectorization={vectorization!r}. Accepted: {', '.join(map(repr, VECTORIZATIONS))}."
            )
        self.name = _name(environment)
        given = dict(settings or {})
        as_tensors = vectorization == "tensor" or (
            isinstance(environment, TensorEnvironment) and not isinstance(environment, type)
        )
        if compile and not as_tensors:
            raise BadArgument(
                "compile=True of gymnasium's environments. Accepted: with vectorization='tensor'."
            )
        if not as_tensors:
            register(environment)
        try:
            self.vector: Plain = (
                tensor_vector(environment, num_envs, given, compile)
                if as_tensors
                else _vector(environment, num_envs, given)
            )
            if not as_tensors and isinstance(self.vector.single_observation_space, _flattened()):
                self.vector.close()
                self.vector = _vector(environment, num_envs, given, flat=True)
        except (BadArgument, MissingExtra):
            raise
        except (
            Exception
        ) as error:  # gymnasium's own, a module that is not there, whatever the environment's code raises
            said = (
                str(error) if isinstance(error, gymnasium.error.Error) else f"{type(error).__name__}: {error}"
            )
            raise BadArgument(f"gymnasium cannot make {environment!r}: {said}") from error
        space = self.vector.single_observation_space
        if not isinstance(space, (gymnasium.spaces.Box, gymnasium.spaces.Discrete)):
            raise BadArgument(
                f"{self.name} shows states of {space}. Accepted: Box, Discrete, MultiDiscrete, MultiBinary, and a Dict or Tuple of "
                "them."
            )
        self.num_envs, self.shape = num_envs, tuple(space.shape or ())
        self.actions, self.offset, self.sizes = _from_zero(self.vector.single_action_space)
        self.type = self.vector.single_action_space.dtype
        self.levels = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else None
        self._first = int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0
        if isinstance(space, gymnasium.spaces.Box):
            most = max(float(np.abs(v.astype(float)).max(initial=0.0)) for v in (space.low, space.high))
            self.scale = most if np.isfinite(most) and most > 0 else 1.0
        self._wide = _wide(space.dtype) if self.levels is None else np.dtype(np.int64)
        modes = gymnasium.vector.AutoresetMode
        self.mode = self.vector.metadata.get("autoreset_mode", modes.NEXT_STEP)
        self._next, self._same = self.mode == modes.NEXT_STEP, self.mode == modes.SAME_STEP
        self._masks = Masks(self.name, self.vector, self.sizes, self._same)
        self.state: Array = np.zeros(0)
        self.over, self.steps = np.zeros(num_envs, dtype=bool), 0

    @property
    def always_counts(self) -> bool:
        """Whether every step of every environment is a transition."""
        return not self._next

    def reset(self, seed: int) -> Array:
        """New episodes in all environments: their first states, (B, …)."""
        self.steps = 0
        self.state, info = self._done(self.vector.reset, seed=seed)
        self.state = self._checked(self.state, "state")
        none = np.zeros(self.num_envs, dtype=bool)
        self.mask = self._masks.read(self.vector, info, none, None, True)
        self.over, self.steps = np.zeros(self.num_envs, dtype=bool), 0
        return self.state

    def step(self, action: Array) -> Transition:
        """What the actions, (B,) or (B, k), led to."""
        before, over, mask = self.state, self.over, self.mask
        if not (self._next or self._same) and over.any():
            before, info = self._done(self.vector.reset, options={"reset_mask": over})
            before = self._checked(before, "state")
            fresh = None if mask is None else self._masks.read(self.vector, info, ~over, mask, False)
            mask = None if mask is None or fresh is None else np.where(over[:, None], fresh, mask)
            over = np.zeros_like(over)
        if mask is not None:
            self._masks.check(mask, action, over)
        shown, reward, terminated, truncated, info = self._done(self.vector.step, self._sent(action))
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
        self.mask, ahead = self._allowed(info, np.asarray(terminated), mask)
        self.state = shown
        count = ~over if self._next else np.ones(self.num_envs, dtype=bool)
        return Transition(
            before,
            action,
            reward,
            following,
            np.asarray(terminated),
            np.asarray(truncated),
            count,
            mask,
            ahead,
        )

    def went_on(self, shown: Tensor, reward: Tensor, ended: Tensor) -> None:
        """Many steps were made at once: what they led to, (B, T, …), is checked, and they are counted.

        Raises
        ------
        NotFinite, DataError
            as `step`
        """
        T, fine = reward.shape[1], bool(torch.isfinite(shown).all()) and bool(torch.isfinite(reward).all())
        for t in range(T):
            self.steps += 1
            if not fine or t == 0:
                self._checked(shown[:, t].numpy(), "state")
                self._checked(reward[:, t].numpy(), "reward")
        self.over = ended[:, -1].numpy()

    def _allowed(
        self, info: Settings, terminated: Array, before: Array | None
    ) -> tuple[Array | None, Array | None]:
        """The masks of the states that are now shown, and of those that the step led to, (B, A): all true where the
        environment terminated."""
        over = np.zeros_like(self.over) if self._same else self.over
        now = self._masks.read(self.vector, info, over, before, False)
        if now is None:
            return None, None
        ahead = now.copy()
        if self._same and self.over.any():
            none = ~self.over | terminated
            last = self._masks.read(self.vector, info.get("final_info", {}), none, now, False)
            assert last is not None
            ahead[self.over] = last[self.over]
        ahead[terminated] = True
        return now, ahead

    def _sent(self, action: Array) -> Array:
        """Actions as the environment numbers them."""
        if self.sizes is None:
            return action
        action = np.asarray(action)
        bad = (action < 0) | (action >= self.sizes)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            most = int(np.broadcast_to(self.sizes, action.shape)[at]) - 1
            raise BadArgument(
                f"action {action[at]} was chosen in environment {at[0]}; {self.name} has the actions 0 … "
                f"{most}: give the "
                "policy's network as many outputs."
            )
        out: Array = (action + self.offset).astype(self.type)
        return out

    def _done(self, what: Callable[..., Plain], *given: Plain, **settings: Plain) -> Plain:
        """What the environment's own code does; what it raises is said to be its own."""
        try:
            return what(*given, **settings)
        except Exception as error:
            states = "" if self.levels is not None else f" It promises states of shape {self.shape}."
            raise DataError(
                f"{self.name} failed after {self.steps} steps of {self.num_envs} environments: "
                f"{type(error).__name__}: {error}.{states}"
            ) from error

    def _checked(self, values: Plain, what: str) -> Array:
        shape = (self.num_envs, *(self.shape if what == "state" else ()))
        values = np.asarray(
            values, order="C"
        )  # products of floats round by the layout, and a checkpoint has but one
        if what == "state" and values.dtype != self._wide and values.dtype.kind in "biuf":
            values = values.astype(self._wide, order="C")
        if (
            what == "state"
            and self.levels is not None
            and values.dtype.kind in "iu"
            and values.shape == shape
        ):
            values = values - self._first
            bad = (values < 0) | (values >= self.levels)
            if bad.any():
                i = int(np.argmax(bad))
                raise DataError(
                    f"{self.name} gave the state {values[i] + self._first} in environment {i} after "
                    f"{self.steps} steps; it promises "
                    f"{self._first} … {self._first + self.levels - 1}."
                )
        if values.shape != shape:
            raise DataError(
                f"{self.name} gave a {what} of shape {values.shape} after {self.steps} steps; it promises "
                f"{shape} ({self.num_envs} copies)."
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise NotFinite(
                f"{self.name} gave the {what} {values[at]} in environment {at[0]} after {self.steps} steps"
                + (f" (entry {', '.join(map(str, at[1:]))})." if at[1:] else ".")
            )
        out: Array = values
        return out

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def kept(self) -> Array:
        """What the environments and their random numbers stand at, as bytes.

        Raises
        ------
        snapshot.Opaque
            part of it cannot be read (a simulator in C, a process); the message names it
        """
        return np.frombuffer(snapshot.taken(self), dtype=np.uint8)

    def restore(self, kept: Array) -> None:
        """Stand where `kept` was taken.

        Raises
        ------
        BadSave
            it was taken of another environment
        """
        name, masks = self.name, self._masks
        self.reset(seed=0)  # what an environment makes when it begins is there
        try:
            snapshot.given_back(self, kept.tobytes())
        except (snapshot.Other, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise BadSave(f"the checkpoint holds another environment than this {name}: {error}.") from error
        self._masks = masks  # checkpoints of earlier versions have none

    def close(self) -> None:
        self.vector.close()


def _from_zero(space: Space) -> tuple[Space, Plain, Plain]:
    """(the space with actions from 0, what is added to them for the environment, how many there are);
    (space, 0, None) of any other."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(space.n), int(space.start), int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return (
            spaces.MultiDiscrete(space.nvec),
            np.asarray(getattr(space, "start", 0)),
            np.asarray(space.nvec),
        )
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        sizes = np.full(space.shape, 2)
        return spaces.MultiDiscrete(sizes), 0, sizes
    if isinstance(space, spaces.Box) and space.dtype.kind in "iu" and len(space.shape) == 1:
        sizes = space.high.astype(np.int64) - space.low.astype(np.int64) + 1
        if int(sizes.max()) <= 1 << 16:
            return spaces.MultiDiscrete(sizes), space.low.astype(np.int64), sizes
    return space, 0, None


def _name(environment: Plain) -> str:
    if isinstance(environment, str):
        return environment
    import gymnasium

    made = isinstance(environment, gymnasium.Env) and environment.spec is not None
    return str(environment.spec.id) if made else name_of(environment)


def _flattened() -> tuple[type, ...]:
    """Spaces whose values are flattened to a row of numbers."""
    from gymnasium import spaces

    return (spaces.Dict, spaces.Tuple, spaces.MultiBinary, spaces.MultiDiscrete)


def _vector(environment: Plain, num_envs: int, given: Settings, flat: bool = False) -> Plain:
    import gymnasium

    wrap: Plain = gymnasium.wrappers.FlattenObservation
    if isinstance(environment, str):
        wrapped: Settings = {"wrappers": [wrap]} if flat else {}
        return gymnasium.make_vec(environment, num_envs=num_envs, **(given | wrapped))
    made = isinstance(environment, gymnasium.Env)
    if made and given:
        raise BadArgument(
            f"settings={given} cannot be used: they are for the function that makes an environment, and an environment "
            "that is already made was received. Leave them out."
        )

    def one() -> Plain:
        own = copy.deepcopy(environment) if made else environment(**given)
        return wrap(own) if flat else own

    return gymnasium.vector.SyncVectorEnv([one for _ in range(num_envs)])


def _wide(dtype: np.typing.DTypeLike) -> Plain:
    """The floating type of a Box's numbers: its own; of whole numbers one that has them all (float32 up to 16
    bits)."""
    kind = np.dtype(dtype)
    return (
        kind
        if kind.kind == "f"
        else np.dtype(np.float32 if kind.itemsize <= 2 or kind.kind == "b" else np.float64)
    )
