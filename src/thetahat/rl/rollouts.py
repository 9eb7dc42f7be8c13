"""Rollouts: what an environment does with the actions of the model as it now stands."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import evaluating, told
from ..errors import BadArgument, DataError
from ..protocols import Measured, Observes
from ..types import ModelLike, Plain, Settings
from .compiled_rollout import WholeRollout
from .environments import Environments, Transition
from .masks import given
from .reward_scale import RewardScale
from .snapshot import Opaque
from .tensor_environments import TensorEnvironment


@runtime_checkable
class Actor(Protocol):
    """Chooses an action for each state, as the environment takes it."""

    def act(
        self, state: Tensor, generator: torch.Generator | None = None, *, greedy: bool = False
    ) -> Plain: ...


@runtime_checkable
class Player(Protocol):
    """Chooses an action for each state, as it is recorded, and says how probable it was."""

    def play(
        self, state: Tensor, generator: torch.Generator | None = None, *, greedy: bool = False
    ) -> tuple[Tensor, Tensor]: ...

    def sent(self, action: Tensor) -> Plain: ...


Advantage = Callable[[Batch], tuple[Tensor, Tensor]]
LONGEST = 30_000  # steps of a whole episode
LEARNT = ("state", "action", "log_prob", "advantage", "return", "mask")  # what a step on rows reads


class Rollouts:
    """What an environment does with the actions of a policy, as a source that draws from the model.

    Each pass plays B environments side by side and yields one batch of terms (B, T):

        state (B, T, …)   action (B, T, …)   reward (B, T)   next (B, T, …)   terminated, truncated (B, T)   step (B, T)
        log_prob (B, T): log π(a | s) of the policy that played;    with `advantage`: advantage (B, T), return (B, T)
        mask (B, T, A): the actions that were allowed, where the environment says so (info["action_mask"], action_masks())

    `terminated`: the environment has ended, nothing can follow; `truncated`: it was only cut off at its limit
    of steps, and rewards would have followed from the state `next`. The count is 0 on what is no transition:
    padding after an episode's end, and the steps in which an environment does nothing but begin anew.

    The policy that plays is the model of the first term on this source; its `networks.Normaliser`, if it has
    one, sees the states of a pass when the next one begins.

    Training that goes on from a checkpoint is bit for bit what it would have been: a pass under way is kept,
    and with `num_steps` the environments as they stand (attributes, random numbers, limits of steps). Where
    the state of an environment cannot be read (a simulator in C, processes of their own), that cannot be
    promised: episodes then begin anew, and a warning says so and why.

    Parameters
    ----------
    environment
        a name that gymnasium knows ("CartPole-v1"), or a function that makes an environment
    num_envs
        B, environments side by side
    num_steps
        T, steps of each environment a pass; episodes go on from pass to pass. None: one whole episode of each
        environment, begun anew
    advantage
        what makes advantages and returns of a pass, as it is drawn (`weights.GAE(value)`)
    epochs, batch_size
        deal each pass out so many times, in random order, as terms (n,), n of them a step (PPO). None: whole,
        once
    seed
        of the environments, the actions and the order. The passes go on in one random sequence: a new
        Rollouts begins it again
    greedy
        play the most probable action instead of drawing one
    normalise_rewards
        divide the rewards of a pass by the running standard deviation of the discounted return (`reward_scale`): that of
        the advantage's discount (0.99 where it has none), or of the discount given here. What is measured, and what
        `returns` plays, stays in the environment's own units
    settings
        handed to the environment
    vectorization
        "gymnasium": environments as gymnasium makes many of one; "tensor": all of them are one tensor, of gymnasium's
        classic controls (the same dynamics, to the last digit) and of a `TensorEnvironment`
    compile
        by torch.compile, for environments that are tensors: with `num_steps` a whole pass, policy and environments, is one
        call; else their step (the first takes seconds)

    Raises
    ------
    MissingExtra
        gymnasium is not installed
    BadArgument
        an environment that is not known; an action that a mask does not allow; a policy that takes no mask
    NotFinite, DataError
        the environment gives what is not finite, or not of the shape it promised

    References
    ----------
    Sutton and Barto (2018), Reinforcement Learning: An Introduction, 2nd ed., §3.3; Schulman et al. (2017),
    Proximal policy optimization algorithms.

    Examples
    --------
    >>> Rollouts("CartPole-v1", 8).actions
    Discrete(2)
    """

    drawn = True  # every pass is drawn from the model as it then stands: solvers must not keep or split it
    size = None
    units = "action"

    def __init__(
        self,
        environment: str | Callable[..., Plain] | TensorEnvironment,
        num_envs: int = 16,
        *,
        num_steps: int | None = None,
        advantage: Advantage | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        greedy: bool = False,
        normalise_rewards: bool | float = False,
        settings: Settings | None = None,
        vectorization: str = "gymnasium",
        compile: bool = False,
    ):
        for name, value in (("num_steps", num_steps), ("epochs", epochs), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise BadArgument(f"{name}={value}. Accepted: 1 or more, or None.")
        if batch_size is not None and epochs is None:
            raise BadArgument(f"batch_size={batch_size} deals a pass out in parts: say how often, epochs=….")
        self.environments = Environments(environment, num_envs, settings, vectorization, compile)
        self.vectorization = vectorization
        self.name, self.num_envs, self.num_steps, self.advantage = (
            self.environments.name,
            num_envs,
            num_steps,
            advantage,
        )
        self.epochs, self.batch_size, self.seed, self.greedy = epochs, batch_size, seed, greedy
        self.generator = torch.Generator().manual_seed(seed)
        self.played, self.under_way = 0, False
        self._return, self._finished = np.zeros(num_envs), list[float]()
        self._scale: RewardScale | None = None
        if normalise_rewards is not False:
            known = getattr(advantage, "discount", 0.99) if normalise_rewards is True else normalise_rewards
            self._scale = RewardScale(float(known), num_envs)
        self._of_pass: dict[str, float] = {}  # what the advantage says of itself
        self._rows: Batch | None = None
        self._left: list[Tensor] = []  # rows of the pass under way, a step each
        self._restored = False
        whole = compile and num_steps is not None and self.environments.vector.compiled
        self._graph = WholeRollout(self.environments, num_steps or 1, greedy) if whole else None
        self._seen: Tensor | None = None  # the states of the last pass, which normalisers have not been shown

    @property
    def actions(self) -> Plain:
        """The space of one environment's actions."""
        return self.environments.actions

    @property
    def fingerprint(self) -> str:
        """Of how the data arise: they have no values before they are drawn."""
        how = f"{self.name}/{self.num_envs}/{self.num_steps}/{self.epochs}/{self.batch_size}/{self.seed}/{self.greedy}/{told(self.advantage)}"
        if self._scale is not None:
            how += f"/normalise_rewards={self._scale.discount}"
        if self.vectorization != "gymnasium":
            how += f"/{self.vectorization}"
        return hashlib.blake2b(how.encode(), digest_size=8).hexdigest()

    # ---- what a run takes ----------------------------------------------------------------------------------

    def batches(self, model: Player | None = None) -> Iterator[Batch]:
        """One pass, (B, T)."""
        if not isinstance(model, Player):
            raise BadArgument(
                "rollouts are played by a policy: the model must have play(state, generator) and "
                "sent(action)."
            )
        with evaluating(model):
            self._observed(model)
            batch = self._drawn(model)
            self._valued(batch)
        yield batch

    def _valued(self, batch: Batch) -> None:
        """With advantages and returns, where they are asked for."""
        if self.advantage is not None:
            batch.tensors["advantage"], batch.tensors["return"] = self.advantage(batch)
            self._of_pass = dict(self.advantage.measured()) if isinstance(self.advantage, Measured) else {}

    def minibatches(self, model: Player) -> Iterator[Batch]:
        """Without end, a batch a step: passes as they are drawn, or each in parts, so many times."""
        if not self._restored:  # what other training left was drawn from another policy
            self._left = []
        self._restored = False
        while True:
            if self._left:
                assert self._rows is not None
                part = self._left.pop(0)
                yield self._rows if self._undivided(len(self._rows)) else self._rows[part]
                continue
            (whole,) = self.batches(model)
            if self.epochs is None:
                yield whole
                continue
            self._rows = _rows(whole)
            self._left = self._order(len(self._rows))

    @property
    def equal_batches(self) -> bool:
        """Whether every step takes as many terms: no step of an environment does nothing but begin anew."""
        n = self.num_envs * (self.num_steps or 0)
        return (
            n > 0
            and self.environments.always_counts
            and (self._undivided(n) or n % (self.batch_size or 1) == 0)
        )

    def _order(self, n: int) -> list[Tensor]:
        """The rows of each step that a pass of n transitions is used for."""
        if self._undivided(n):
            return [torch.arange(n)] * (self.epochs or 0)
        orders = [torch.randperm(n, generator=self.generator) for _ in range(self.epochs or 0)]
        return [part for order in orders for part in order.split(self.batch_size)]

    def _undivided(self, n: int) -> bool:
        """Whether a step takes all of so many rows, in their order."""
        return self.batch_size is None or self.batch_size >= n

    def state(self) -> dict[str, Tensor]:
        """What the next batches depend on."""
        known = {"generator": self.generator.get_state(), "played": torch.tensor(self.played)}
        known |= {
            "return": torch.from_numpy(self._return.copy()),
            "finished": torch.tensor(self._finished, dtype=torch.float64),
        }
        known |= {
            f"of_pass.{name}": torch.tensor(v, dtype=torch.float64) for name, v in self._of_pass.items()
        }
        if self._scale is not None:
            known |= self._scale.state()
        if self._seen is not None:
            known["seen"] = self._seen
        if self._left:
            assert self._rows is not None
            known |= {f"pass.{name}": t for name, t in self._rows.tensors.items()}
            known |= {
                "left": torch.cat(self._left),
                "sizes": torch.tensor([len(part) for part in self._left]),
            }
        return known | (under_way(self.environments) if self.under_way and self.num_steps is not None else {})

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand where `state` was taken; with new episodes, and a warning, where those under way could not be
        kept.

        Raises
        ------
        BadSave
            it was taken of another environment
        """
        self.under_way = again(self.environments, tensors)
        self.generator.set_state(tensors["generator"])
        self.played, self._seen = int(tensors["played"]), tensors.get("seen")
        self._return, self._finished = tensors["return"].numpy().copy(), tensors["finished"].tolist()
        if self._scale is not None:
            self._scale.restore(tensors)
        self._of_pass = {
            name.removeprefix("of_pass."): float(t)
            for name, t in tensors.items()
            if name.startswith("of_pass.")
        }
        self._rows, self._left, self._restored = None, [], True
        if "left" in tensors:
            self._rows = Batch(
                {name.removeprefix("pass."): t for name, t in tensors.items() if name.startswith("pass.")}
            )
            self._left = list(tensors["left"].split(tensors["sizes"].tolist()))

    def measured(self) -> dict[str, float]:
        """Steps played so far, the mean return of the episodes that ended since it was last asked, which the
        policy played as it learnt, what rewards are divided by, and what the advantage says of itself."""
        found = {"played": float(self.played)}
        if self._scale is not None:
            found["reward_std"] = self._scale.std
        if self._finished:
            found["training_return"] = float(np.mean(self._finished))
        self._finished.clear()
        return found | self._of_pass

    # ---- play ----------------------------------------------------------------------------------------------

    def _observed(self, model: ModelLike) -> None:
        """Normalisers are shown the states of the last pass."""
        if self._seen is not None:
            for layer in _normalisers(model):
                layer.observe(self._seen)
        self._seen = None

    def _drawn(self, model: Player) -> Batch:
        whole = self._whole(model) if self._graph is not None else None
        if whole is not None:
            return whole
        steps = self._steps(model)
        state, mask = next(steps)
        while True:
            try:
                allowed = given(mask, model.play, self.name)
                chosen = model.play(state, self.generator, greedy=self.greedy, **allowed)
                state, mask = steps.send(chosen)
            except StopIteration as ended:
                return ended.value  # type: ignore[no-any-return]

    def _begin(self) -> None:
        """New episodes, where none is to go on."""
        if self.num_steps is None or not self.under_way:
            self.environments.reset(int(torch.randint(2**31 - 1, (), generator=self.generator)))
            self._return[:], self.under_way = 0, True
            if self._scale is not None:
                self._scale.begin()

    def _whole(self, model: Plain) -> Batch | None:
        """A pass by one compiled call; None where there is none for it, and nothing was played."""
        assert self._graph is not None
        self._begin()
        played = self._graph(model, self.generator, torch.from_numpy(self._return))
        if played is None:
            return None
        tensors = played._asdict()
        earned = tensors.pop("earned").numpy()
        ended = (played.terminated | played.truncated).numpy()
        self.played += ended.size
        self._return = np.where(ended[:, -1], 0.0, earned[:, -1])
        self._finished.extend(earned.T[ended.T].tolist())
        return self._shown(model, self._completed(tensors, torch.ones(ended.shape, dtype=torch.bool)))

    def _shown(self, model: Plain, batch: Batch) -> Batch:
        """The batch, whose states the normalisers are to see."""
        if _normalisers(model):
            self._seen = batch["state"][batch.count > 0]
        return batch

    def _steps(
        self, model: Plain
    ) -> Generator[tuple[Tensor, np.ndarray | None], tuple[Tensor, Tensor], Batch]:
        """A pass, step by step: yields the states and their action masks, is sent (actions, their log π), and returns
        the batch. Several seeds play side by side by it (`seeds`)."""
        self._begin()
        taken: list[tuple[Transition, Tensor, Tensor]] = []
        playing, ended = np.ones(self.num_envs, dtype=bool), np.zeros(self.num_envs, dtype=bool)
        while playing.any() if self.num_steps is None else len(taken) < self.num_steps:
            if self.num_steps is None:
                _endless(self.environments)
            action, log_prob = yield torch.from_numpy(self.environments.state), self.environments.mask
            now = self.environments.step(model.sent(action))
            if self.num_steps is None:
                now.count, ended = playing.copy(), now.ended & playing
                playing &= ~ended
            else:
                ended = now.ended
            self._count(now, ended)
            taken.append((now, action, log_prob))
        return self._shown(model, self._batch(taken))

    def _count(self, now: Transition, ended: np.ndarray) -> None:
        self.played += int(now.count.sum())
        self._return += now.reward * now.count
        if ended.any():
            self._finished.extend(self._return[ended].tolist())
            self._return[ended] = 0

    def _batch(self, taken: list[tuple[Transition, Tensor, Tensor]]) -> Batch:
        count = torch.from_numpy(np.stack([now.count for now, _, _ in taken], 1))
        tensors = {
            name: torch.from_numpy(np.stack([vars(now)[name] for now, _, _ in taken], 1))
            for name in ("state", "reward", "next", "terminated", "truncated")
        }
        tensors |= {
            "action": torch.stack([a for _, a, _ in taken], 1),
            "log_prob": torch.stack([p for _, _, p in taken], 1),
        }
        if taken[0][0].mask is not None:
            tensors["mask"] = torch.from_numpy(np.stack([vars(now)["mask"] for now, _, _ in taken], 1))
        return self._completed(tensors, count)

    def _completed(self, tensors: dict[str, Tensor], count: Tensor) -> Batch:
        """The batch of a pass, (B, T): its rewards scaled, its padding 0."""
        if self._scale is not None:
            over = (tensors["terminated"] | tensors["truncated"]).numpy()
            tensors["reward"] = torch.from_numpy(self._scale(tensors["reward"].numpy(), over, count.numpy()))
        if not bool(count.all()):
            tensors = {name: _padded(tensor, count) for name, tensor in tensors.items()}
            if "mask" in tensors:  # of padding everything is allowed: a softmax of nothing has no gradient
                tensors["mask"] |= ~count[..., None]
        tensors["step"] = torch.arange(count.shape[1]).expand(count.shape)
        return Batch(tensors, count=count.to(torch.float64), dims=2)


def returns(
    model: Actor,
    environment: str | Callable[..., Plain] | TensorEnvironment,
    episodes: int = 16,
    *,
    seed: int = 0,
    greedy: bool = True,
    max_steps: int | None = None,
    vectorization: str = "gymnasium",
    **settings: Plain,
) -> Tensor:
    """The undiscounted return of each of so many whole episodes that the model plays in environments of their
    own, (episodes,).

    Parameters
    ----------
    max_steps
        after so many steps an episode that has not ended counts what it has earned so far, with a warning; None: an
        episode of more than 30,000 steps is an error
    vectorization
        "gymnasium" or "tensor", as of `Rollouts`
    settings
        handed to the environment (max_episode_steps=200)

    Warns
    -----
    RuntimeWarning
        an episode did not end within `max_steps`

    Examples
    --------
    >>> import thetahat as th
    >>> returns(th.rl.Policy(th.networks.mlp(4, 8, 2)), "CartPole-v1", 3, max_episode_steps=5).tolist()
    [5.0, 5.0, 5.0]
    """
    found, unfinished = played(
        model,
        environment,
        episodes,
        seed=seed,
        greedy=greedy,
        max_steps=max_steps,
        vectorization=vectorization,
        **settings,
    )
    if unfinished.any():
        name = Environments(environment, 1, settings, vectorization).name
        warnings.warn(
            f"{int(unfinished.sum())} of {episodes} episodes of {name} did not end within {max_steps} "
            "steps: what they earned so far is counted.",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def played(
    model: Actor,
    environment: str | Callable[..., Plain] | TensorEnvironment,
    episodes: int,
    *,
    seed: int = 0,
    greedy: bool = True,
    max_steps: int | None = None,
    vectorization: str = "gymnasium",
    **settings: Plain,
) -> tuple[Tensor, Tensor]:
    """(the return of each episode, whether it was still under way after `max_steps`), each (episodes,): `returns`."""
    environments = Environments(environment, episodes, settings, vectorization)
    generator = torch.Generator().manual_seed(seed)
    environments.reset(seed)
    total, playing = np.zeros(episodes), np.ones(episodes, dtype=bool)
    with evaluating(model):
        while playing.any() and (max_steps is None or environments.steps < max_steps):
            if max_steps is None:
                _endless(environments)
            mask = given(environments.mask, model.act, environments.name)
            state = torch.from_numpy(environments.state)
            now = environments.step(model.act(state, generator, greedy=greedy, **mask))
            total += now.reward * playing
            playing &= ~now.ended
    environments.close()
    return torch.from_numpy(total), torch.from_numpy(playing)


def under_way(environments: Environments) -> dict[str, Tensor]:
    """Episodes under way as tensors of a checkpoint; the reason, where they cannot be kept."""
    try:
        return {"environments": torch.from_numpy(environments.kept().copy())}
    except Opaque as error:
        return {"opaque": torch.tensor(list(str(error).encode()), dtype=torch.uint8)}


def again(environments: Environments, tensors: dict[str, Tensor]) -> bool:
    """Whether the episodes that a checkpoint kept go on; a warning where there were some and they could
    not be kept."""
    if "environments" in tensors:
        environments.restore(tensors["environments"].numpy())
        return True
    if "opaque" in tensors:
        why = bytes(tensors["opaque"].tolist()).decode()
        warnings.warn(
            f"the episodes of {environments.name} that were under way could not be kept ({why}, whose state "
            "cannot be read): new ones begin, and "
            "training goes on from the checkpoint, but not as it would have without the interruption.",
            stacklevel=2,
        )
    return False


def _normalisers(model: ModelLike) -> list[Plain]:
    """The layers of a policy that are shown what was played."""
    return (
        [layer for layer in model.modules() if isinstance(layer, Observes)]
        if isinstance(model, nn.Module)
        else []
    )


def _endless(environments: Environments) -> None:
    """A policy that walks into a wall for ever is an error, not a wait."""
    if environments.steps >= LONGEST:
        raise DataError(
            f"an episode of {environments.name} has not ended after {LONGEST:,} steps: give it a limit, "
            "max_episode_steps=… among its settings."
        )


def _rows(whole: Batch) -> Batch:
    """The transitions of a pass as terms (n,), with what a step reads, in the precision of the states."""
    played: Plain = whole.count > 0
    every = bool(played.all())
    wide = whole["state"].dtype if whole["state"].is_floating_point() else torch.float32
    kept = {
        name: whole[name].flatten(0, 1) if every else whole[name][played] for name in LEARNT if name in whole
    }
    return Batch({name: t.to(wide) if t.is_floating_point() else t for name, t in kept.items()})


def _padded(values: Tensor, played: Tensor) -> Tensor:
    """values, 0 where nothing was played."""
    keep = played.reshape(*played.shape, *[1] * (values.ndim - 2))
    return torch.where(keep, values, torch.zeros((), dtype=values.dtype))
