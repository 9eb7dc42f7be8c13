"""Replay: transitions that an environment gave, drawn again and again, with a target that a frozen copy of
the model makes of them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import evaluating
from ..errors import BadArgument, BadSave
from ..types import ModelLike, Plain, Settings
from .environments import Environments, Transition
from .masks import best, drawn, given
from .rollouts import Actor, again, under_way
from .tensor_environments import TensorEnvironment

Array = np.ndarray
KEPT = ("state", "next", "action", "reward", "terminated", "ended", "count", "next_mask")


@runtime_checkable
class Bootstrapped(Protocol):
    """Acts, values actions, (n, A), and says what the data are: the target of transitions, given what it
    thinks of the states they lead to."""

    def act(
        self, state: Tensor, generator: torch.Generator | None = None, *, greedy: bool = False
    ) -> Plain: ...

    def worth(self, state: Tensor) -> Tensor: ...

    def projected(
        self,
        reward: Tensor,
        discount: Tensor,
        following: Tensor,
        terminated: Tensor,
        action: Tensor | None = None,
    ) -> Tensor: ...


class Replay:
    """What an environment did with the actions of the model, remembered, as a source that draws from the
    model.

    Each step plays a little (ε-greedily), draws a minibatch of all that is remembered, and makes of it terms
    (n,):

        state (n, …)   action (n,)   target (n, K): what Σ_{j<k} γʲ R_j + γᵏ Z(s_k, a*) is, by a frozen copy of the model (`projected`)

    k is `n_steps`, fewer where the episode (or what has been played so far) ends sooner. Where the
    environment terminated, nothing is to come; where it was only cut off, Z(s_k, ·) is, of the true state
    before the new episode. The target is data: no gradient goes through it. Where the environment gives action masks,
    what is drawn at random, played and followed (a*) is allowed in its state.

    Training that goes on from a checkpoint is bit for bit what it would have been: what is remembered, the
    frozen copy, the random numbers and the environments as they stand are kept. Where the state of an
    environment cannot be read (a simulator in C, processes of their own), that cannot be promised: episodes
    then begin anew, and a warning says so and why.

    Parameters
    ----------
    environment
        a name that gymnasium knows ("CartPole-v1"), or a function that makes an environment, with finitely
        many actions
    num_envs
        B, environments played side by side
    buffer_size
        transitions that are remembered, the latest
    learning_starts
        transitions before the first step of the run
    train_frequency
        transitions played a step of the run (0.5: two steps a transition)
    batch_size
        n
    n_steps
        k
    discount
        γ
    target_update_interval
        steps of the run between two copies of the model to the frozen one
    exploration
        ε at the start, at the end, and the transitions in which it falls from one to the other
    double
        a* is the best of the model as it now stands, not of the frozen one (it overestimates less)
    policy
        what plays, and chooses a*, if not the model itself: the return of a given policy (anything with
        `act`)
    seed
        of the environments, the actions and the minibatches
    settings
        handed to the environment
    vectorization
        "gymnasium" or "tensor", as of `Rollouts`

    Raises
    ------
    MissingExtra
        gymnasium is not installed
    BadArgument
        an environment that is not known, whose actions are not 0 … A − 1, or other than what is accepted

    References
    ----------
    Mnih et al. (2015), Human-level control through deep reinforcement learning; van Hasselt, Guez and Silver
    (2016), Deep reinforcement learning with double Q-learning; Sutton and Barto (2018), Reinforcement
    Learning, §7.1 (k steps).

    Examples
    --------
    >>> import thetahat as th
    >>> model = th.rl.C51(th.networks.mlp(4, 32, 2 * 21), 0.0, 100.0, atoms=21)
    >>> replay = Replay("CartPole-v1", 4, learning_starts=100, n_steps=3)
    >>> batch = next(replay.minibatches(model))
    >>> tuple(batch["target"].shape), round(float(batch["target"].sum(-1).mean()), 5)
    ((64, 21), 1.0)
    """

    drawn = True
    size = None
    units = "target"

    def __init__(
        self,
        environment: str | Callable[..., Plain] | TensorEnvironment,
        num_envs: int = 1,
        *,
        buffer_size: int = 50_000,
        learning_starts: int = 1_000,
        train_frequency: float = 1.0,
        batch_size: int = 64,
        n_steps: int = 1,
        discount: float = 0.99,
        target_update_interval: int = 500,
        exploration: tuple[float, float, int] = (1.0, 0.05, 10_000),
        double: bool = True,
        policy: Actor | None = None,
        seed: int = 0,
        settings: Settings | None = None,
        vectorization: str = "gymnasium",
    ):
        known = (
            ("learning_starts", learning_starts),
            ("batch_size", batch_size),
            ("n_steps", n_steps),
            ("target_update_interval", target_update_interval),
        )
        for name, value in known:
            if value < 1:
                raise BadArgument(f"{name}={value}. Accepted: 1 or more.")
        if not train_frequency > 0:
            raise BadArgument(
                f"train_frequency={train_frequency}. Accepted: a positive number of transitions a step."
            )
        if not 0 <= discount <= 1:
            raise BadArgument(f"discount={discount}. Accepted: 0 to 1.")
        if buffer_size < num_envs * n_steps:
            raise BadArgument(
                f"buffer_size={buffer_size} holds less than {n_steps} n_steps of {num_envs} num_envs."
            )
        first, last, within = exploration
        if not (0 <= first <= 1 and 0 <= last <= 1 and within >= 0):
            raise BadArgument(
                f"exploration={exploration}. Accepted: two probabilities, and a number of transitions."
            )
        self.environments = Environments(environment, num_envs, settings, vectorization)
        space = self.environments.actions
        if type(space).__name__ != "Discrete":
            raise BadArgument(f"{self.environments.name} has actions of {space}. Accepted: Discrete.")
        self.name, self.num_envs, self.actions = self.environments.name, num_envs, int(space.n)
        self.rows, self.learning_starts, self.train_frequency, self.batch_size = (
            buffer_size // num_envs,
            learning_starts,
            train_frequency,
            batch_size,
        )
        self.n_steps, self.discount, self.target_update_interval, self.exploration = (
            n_steps,
            discount,
            target_update_interval,
            exploration,
        )
        self.double, self.policy, self.seed = double, policy, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.played = self.written = self.taken = (
            0  # transitions; rows of all num_envs, ever; n_steps of the run
        )
        self.frozen: Plain = None
        self.memory: dict[str, Array] = {}
        self._under_way, self._remembered = False, dict[str, Tensor]()
        self._return, self._finished = np.zeros(num_envs), list[float]()

    @property
    def fingerprint(self) -> str:
        """Of how the data arise: they have no values before they are drawn."""
        known = (
            self.name,
            self.num_envs,
            self.rows,
            self.learning_starts,
            self.train_frequency,
            self.batch_size,
            self.n_steps,
            self.discount,
        )
        how = "/".join(
            map(str, (*known, self.target_update_interval, self.exploration, self.double, self.seed))
        )
        return hashlib.blake2b(how.encode(), digest_size=8).hexdigest()

    @property
    def epsilon(self) -> float:
        """ε as it now stands: the probability that an action is drawn at random."""
        first, last, within = self.exploration
        return last if self.played >= within else first + (last - first) * self.played / within

    # ---- what a run takes ----------------------------------------------------------------------------------

    def batches(self, model: Bootstrapped | None = None) -> Iterator[Batch]:
        """One minibatch."""
        yield next(self.minibatches(model))

    def minibatches(self, model: Bootstrapped | None) -> Iterator[Batch]:
        """Without end, a minibatch a step."""
        online = self._suited(model)
        self.frozen = copy.deepcopy(model)
        self.frozen.requires_grad_(False).train(False)
        if self._remembered:
            self.frozen.load_state_dict(self._remembered)
            self._remembered = {}
        while True:
            with evaluating(model), torch.no_grad():
                if self.taken % self.target_update_interval == 0:
                    self.frozen.load_state_dict(online.state_dict())
                while self.played < self.learning_starts + self.train_frequency * self.taken:
                    self._play(online)
                batch = self._minibatch(online)
            self.taken += 1
            yield batch

    def state(self) -> dict[str, Tensor]:
        kept = {
            f"memory.{name}": torch.from_numpy(array[: self.written]) for name, array in self.memory.items()
        }
        target = (
            {}
            if self.frozen is None
            else {f"target.{name}": t for name, t in self.frozen.state_dict().items()}
        )
        counts = torch.tensor([self.played, self.written, self.taken])
        made = torch.tensor(list(bytes.fromhex(self.fingerprint)), dtype=torch.uint8)
        played = {
            "return": torch.from_numpy(self._return.copy()),
            "finished": torch.tensor(self._finished, dtype=torch.float64),
        }
        known = {"generator": self.generator.get_state(), "counts": counts, "fingerprint": made}
        return known | kept | target | played | (under_way(self.environments) if self._under_way else {})

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises
        ------
        BadSave
            it was given by a replay of another environment or other settings
        """
        if bytes(tensors["fingerprint"].tolist()).hex() != self.fingerprint:
            raise BadSave(
                f"the checkpoint remembers another replay than this one of {self.name}: its settings are "
                "others."
            )
        self._under_way = again(self.environments, tensors)
        self.generator.set_state(tensors["generator"])
        self._return, self._finished = tensors["return"].numpy().copy(), tensors["finished"].tolist()
        self.played, self.written, self.taken = tensors["counts"].tolist()
        self.memory = {}
        for name in KEPT:
            if f"memory.{name}" in tensors:
                past = tensors[f"memory.{name}"].numpy()
                self.memory[name] = np.zeros((self.rows, *past.shape[1:]), dtype=past.dtype)
                self.memory[name][: len(past)] = past
        self._remembered = {
            name.removeprefix("target."): t for name, t in tensors.items() if name.startswith("target.")
        }

    def measured(self) -> dict[str, float]:
        """What was played since it was last asked: the mean return of the episodes that ended, exploring
        as they did."""
        found = {"played": float(self.played), "exploration": self.epsilon}
        if self._finished:
            found["training_return"] = float(np.mean(self._finished))
        self._finished.clear()
        return found

    # ---- play ----------------------------------------------------------------------------------------------

    def _suited(self, model: ModelLike) -> Plain:
        if not isinstance(model, Bootstrapped):
            raise BadArgument(
                "a replay is played by a model with act, worth and projected (C51, QRDQN, IQN); received "
                f"{type(model).__name__}."
            )
        if not self._under_way:
            self._begin()
        with evaluating(model), torch.no_grad():
            found = model.worth(torch.from_numpy(self.environments.state)).shape[-1]
        if found != self.actions:
            raise BadArgument(f"the model values {found} actions; {self.name} has {self.actions}.")
        return model

    def _begin(self) -> None:
        """New episodes in all environments; those under way are cut off where they stood."""
        self.environments.reset(int(torch.randint(2**31 - 1, (), generator=self.generator)))
        if self.written:
            self.memory["ended"][(self.written - 1) % self.rows] = True
        self._return[:], self._under_way = 0, True

    def _play(self, model: ModelLike) -> None:
        """One step of every environment."""
        epsilon = self.epsilon
        by_chance = torch.rand(self.num_envs, generator=self.generator).numpy() < epsilon
        mask = self.environments.mask
        if mask is None:
            action = torch.randint(self.actions, (self.num_envs,), generator=self.generator).numpy()
        else:
            action = drawn(mask, self.generator)
        if not by_chance.all():
            state = torch.from_numpy(self.environments.state)
            chosen = (
                model.act(state, greedy=True, **given(mask, model.act, self.name))
                if self.policy is None
                else self.policy.act(state, self.generator, **given(mask, self.policy.act, self.name))
            )
            action = np.where(by_chance, action, chosen)
        now = self.environments.step(action)
        self._remember(now)
        self.played += int(now.count.sum())
        self._return += now.reward * now.count
        if now.ended.any():
            self._finished.extend(self._return[now.ended].tolist())
            self._return[now.ended] = 0

    def _remember(self, now: Transition) -> None:
        shown = vars(now) | {"ended": now.ended}
        if not self.memory:
            self.memory = {
                name: np.zeros((self.rows, *shown[name].shape), dtype=shown[name].dtype)
                for name in KEPT
                if shown[name] is not None
            }
        at = self.written % self.rows
        for name, array in self.memory.items():
            array[at] = shown[name]
        self.written += 1

    # ---- draw ----------------------------------------------------------------------------------------------

    def _minibatch(self, model: ModelLike) -> Batch:
        row, env = self._places()
        reward, discount, last = self._summed(row, env)
        end = (last % self.rows, env)
        following = torch.from_numpy(self.memory["next"][end])
        action, mask = None, self.memory["next_mask"][end] if "next_mask" in self.memory else None
        if self.policy is not None:
            allowed = given(mask, self.policy.act, self.name)
            action = torch.as_tensor(self.policy.act(following, self.generator, **allowed))
        elif self.double:
            action = best(model.worth(following), None if mask is None else torch.from_numpy(mask))
        begin = (row % self.rows, env)
        terminated = torch.from_numpy(self.memory["terminated"][end])
        allowed = {} if action is not None else given(mask, self.frozen.projected, self.name)
        target = self.frozen.projected(
            torch.from_numpy(reward), torch.from_numpy(discount), following, terminated, action, **allowed
        )
        state, taken = (torch.from_numpy(self.memory[name][begin]) for name in ("state", "action"))
        return Batch({"state": state, "action": taken, "target": target})

    def _places(self) -> tuple[Array, Array]:
        """Rows (counted from the first ever) and environments of transitions, each as probable as any other,
        (n,)."""
        oldest = max(0, self.written - self.rows)
        held = (self.written - oldest) * self.num_envs
        flat = torch.randint(held, (self.batch_size,), generator=self.generator).numpy()
        while True:
            row, env = oldest + flat // self.num_envs, flat % self.num_envs
            none = ~self.memory["count"][row % self.rows, env]  # steps that only began an episode
            if not none.any():
                return row, env
            flat[none] = torch.randint(held, (int(none.sum()),), generator=self.generator).numpy()

    def _summed(self, row: Array, env: Array) -> tuple[Array, Array, Array]:
        """(Σ_{j<k} γʲ R_j, γᵏ, the row of the last of the k transitions): as many as `steps`, up to an end
        or to the latest, (n,) each."""
        total, power, last = np.zeros(len(row)), np.ones(len(row)), row.copy()
        going = np.ones(len(row), dtype=bool)
        for j in range(self.n_steps):
            going = going & (row + j < self.written)
            at = ((row + j) % self.rows, env)
            total += np.where(going, power * self.memory["reward"][at], 0.0)
            power = np.where(going, power * self.discount, power)
            last = np.where(going, row + j, last)
            going = going & ~self.memory["ended"][at]
        return total, power, last
