"""`thetahat fit policy`: a policy and a value function on the policy's own rollouts, a likelihood weighted by
advantages.

    ppo         clipped ratios of advantages, over several epochs of each pass
    a2c         advantages, each pass once
    reinforce   returns of whole episodes, each pass once

Each method is its own settings: what does not apply to it is not offered.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from ..errors import BadArgument
from ..types import OF_SEED, ModelLike, Named, ObjectiveLike, SourceLike, Space
from .system import Schedule, Sizes, System

IQM = "iqm_of_greedy_return"
Method = Literal["ppo", "a2c", "reinforce"]
LONGEST_EVALUATION = (
    20_000  # steps after which an evaluation counts what it has: a greedy policy may walk on for ever
)


@dataclass(frozen=True, kw_only=True)
class Policy(System):
    """What the three methods share."""

    name: ClassVar[str] = "policy"
    draws_nothing: ClassVar[str] = "which plays: thetahat play RUN"
    env: Annotated[str, arg(metavar="NAME")] = "CartPole-v1"
    """An environment that gymnasium knows."""
    max_episode_steps: Annotated[
        int | None, arg(metavar="STEPS", help_behavior_hint="(default: the environment's)")
    ] = None
    """Steps after which an episode is cut off."""
    method: Method = "ppo"
    """The options shown are those of one method; thetahat fit policy --method a2c --help shows those of another."""
    seeds: int = 1
    """Independent runs that are trained together, of the seeds SEED, SEED + 1, …; each is what it is alone."""
    num_envs: int = 32
    """Environments of each run, that play side by side."""
    learning_rate: float = 3e-3
    """Learning rate of the first step."""
    lr_schedule: Schedule = "linear"
    """How the learning rate falls to 0 at the last step; constant: it does not."""
    max_grad_norm: float = 0.5
    """A longer gradient is scaled down to this norm."""
    discount: float = 0.98
    """Discount factor of future rewards (gamma)."""
    width: int = 64
    """Units of each of the two hidden layers of the policy and of the value function."""
    normalise: Annotated[bool, arg(help_behavior_hint="")] = False
    """Standardise states by their running mean and standard deviation; both are held fixed in evaluation."""
    eval_episodes: int = 20
    """Whole greedy episodes, in environments of their own, at each evaluation. Nothing is chosen by them."""

    def read(self) -> tuple[Sizes, Any]:
        from ..rl.environments import Environments

        counts = (
            "seeds",
            "num_envs",
            "eval_episodes",
            "width",
            "num_steps",
            "epochs",
            "batch_size",
            "total_timesteps",
            "passes",
        )
        for name, value in vars(self).items():
            if name in counts and value < 1:
                raise BadArgument(f"--{name.replace('_', '-')} {value}. Accepted: 1 or more.")
        shown = Environments(self.env, 1, self.made_with)
        if shown.levels is None and len(shown.shape) not in (1, 3):
            raise BadArgument(
                f"--env {self.env} shows states of shape {shown.shape}. Accepted here: rows of numbers, images, or "
                "numbered states."
            )
        if self.normalise and len(shown.shape) == 3:
            raise BadArgument(f"--normalise: the states of {self.env} are images, which are scaled by 255.")
        if self.normalise and shown.levels is not None:
            raise BadArgument(f"--normalise: the states of {self.env} are numbered, and have no scale.")
        inputs = shown.levels if shown.levels is not None else shown.shape[0]
        return {
            "inputs": inputs,
            "numbered": shown.levels is not None,
            "shape": list(shown.shape),
            "outputs": self._actions(shown.actions).outputs,
        }, None

    @property
    def made_with(self) -> dict[str, Any]:
        """Settings of the environment."""
        return {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}

    @staticmethod
    def _actions(space: Space) -> Any:
        from ..rl.actions import actions_of

        return actions_of(space)

    def _network(self, sizes: Sizes, outputs: int, seed: int, beside: Any = None) -> Any:
        """beside : a network whose normaliser this one takes too"""
        from torch import nn

        from ..networks import Convolution, Normaliser, mlp

        if sizes["numbered"]:
            return nn.Embedding(sizes["inputs"], outputs)
        if len(sizes.get("shape", ())) == 3:
            return Convolution(sizes["shape"], outputs, width=self.width, seed=seed)
        network = mlp(sizes["inputs"], (self.width, self.width), outputs, "tanh", seed=seed)
        if not self.normalise:
            return network
        return nn.Sequential(Normaliser(sizes["inputs"]) if beside is None else beside[0], *network)

    def model(self, sizes: Sizes) -> ModelLike:
        import torch

        from .. import rl
        from ..rl.environments import Environments

        if self.seeds > 1:
            each = [self.of_seed(s).model(sizes) for s in range(self.seeds)]
            stack = rl.Seeds(each[0], self.seeds)
            for s, one in enumerate(each[1:], 1):
                stack.load(s, one)
            return stack
        network = self._network(sizes, sizes["outputs"], self.seed)
        last = list(network.parameters())[-1 if sizes["numbered"] else -2]
        with torch.no_grad():
            last.mul_(0.01)  # all actions about equally probable at the start
        return rl.Policy(network, self._actions(Environments(self.env, 1, self.made_with).actions))

    def of_seed(self, s: int) -> Policy:
        """The command of the s-th of several runs alone."""
        return dataclasses.replace(self, seed=self.seed + s, seeds=1)

    def _together(self, model: Any, sizes: Sizes) -> ObjectiveLike:
        """The objectives of all seeds as one."""
        from .. import rl

        found = rl.stacked(
            [self.of_seed(s).objective(one, None, sizes) for s, one in enumerate(model.members)]
        )
        model.member = found.model.member  # what is trained is what the command made, and measures
        return found

    def other(self, path: Path, sizes: Sizes) -> Any:
        raise BadArgument("a policy is not scored on data, it plays: thetahat play RUN.")

    def _solver(self, steps: int) -> Any:
        from ..solvers import Stochastic

        return Stochastic(
            steps=steps,
            learning_rate=self.learning_rate,
            lr_schedule=self.lr_schedule,
            max_grad_norm=self.max_grad_norm,
            held_out=None,
            seed=self.seed,
        )

    def measure(self, model: ModelLike) -> dict[str, float]:
        """Greedy returns, apart from those of the play that was learnt from; and how many episodes had
        not ended after LONGEST_EVALUATION steps. Of several seeds the interquartile mean, with its interval, of
        the mean return of each."""
        from ..rl.performance import iqm
        from ..rl.rollouts import played

        found, unfinished = played(
            model,
            self.env,
            self.seeds * self.eval_episodes,
            seed=self.seed + 10_000,
            max_steps=LONGEST_EVALUATION,
            **self.made_with,
        )
        if self.seeds > 1:
            each = found.reshape(self.seeds, -1).mean(1).tolist()
            middle = iqm(each)
            return {
                IQM: middle.value,
                f"{IQM}_low": middle.low,
                f"{IQM}_high": middle.high,
                "unfinished_episodes": float(unfinished.sum()),
                **{f"greedy_return{OF_SEED}{self.seed + s}": mean for s, mean in enumerate(each)},
            }
        error = float(found.std()) / self.eval_episodes**0.5 if self.eval_episodes > 1 else float("nan")
        return {
            "greedy_return": float(found.mean()),
            "greedy_return_error": error,
            "unfinished_episodes": float(unfinished.sum()),
        }

    def each(self, measured: Named) -> dict[str, float]:
        names = {s: f"greedy_return{OF_SEED}{s}" for s in range(self.seed, self.seed + self.seeds)}
        return {str(s): float(measured[name]) for s, name in names.items() if name in measured}


@dataclass(frozen=True, kw_only=True)
class Reinforce(Policy):
    """log π weighted by the rewards that followed, standardised."""

    method: Method = "reinforce"
    passes: int = 100
    """Gradient steps; each is of one whole episode of every environment."""

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        from .. import rl
        from ..likelihood import LogLikelihood, Objective

        if self.seeds > 1:
            return self._together(model, sizes)
        rollouts = rl.Rollouts(self.env, self.num_envs, seed=self.seed, settings=self.made_with)
        return Objective([LogLikelihood(model, rollouts, rl.RewardToGo(self.discount, normalise=True))])

    def solver(self) -> Any:
        return self._solver(self.passes)


@dataclass(frozen=True, kw_only=True)
class A2C(Policy):
    """log π weighted by advantages, beside the likelihood of the returns under a value function."""

    method: Method = "a2c"
    total_timesteps: int = 50_000
    """Steps of all environments of a run together."""
    num_steps: int = 32
    """Steps of each environment between two gradient steps."""
    gae_lambda: float = 0.9
    """Lambda of generalised advantage estimation: 1 sums all rewards, 0 trusts the value function after one step."""
    entropy_coef: float = 0.0
    """Weight of a bonus for the policy's entropy."""

    @property
    def passes(self) -> int:
        return max(1, self.total_timesteps // (self.num_envs * self.num_steps))

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        return self._actor_critic(model, sizes)

    def _actor_critic(self, model: ModelLike, sizes: Sizes, **play: Any) -> ObjectiveLike:
        from .. import rl
        from ..likelihood import LogLikelihood, Objective

        if self.seeds > 1:
            return self._together(model, sizes)
        value = rl.Value(self._network(sizes, 1, self.seed + 1, model.network))
        advantage = rl.GAE(value, self.discount, self.gae_lambda, normalise=True)
        rollouts = rl.Rollouts(
            self.env,
            self.num_envs,
            num_steps=self.num_steps,
            advantage=advantage,
            seed=self.seed,
            settings=self.made_with,
            **play,
        )
        return Objective([LogLikelihood(model, rollouts, self.weighting()), LogLikelihood(value, rollouts)])

    def weighting(self) -> Any:
        from .. import rl

        return rl.Advantage(self.entropy_coef)

    def solver(self) -> Any:
        return self._solver(self.passes)


@dataclass(frozen=True, kw_only=True)
class PPO(A2C):
    """log π weighted by clipped ratios times advantages, over several epochs of each pass."""

    method: Method = "ppo"
    num_steps: int = 32
    """Steps of each environment in a pass."""
    epochs: int = 8
    """Times that each pass is learnt from."""
    batch_size: int = 256
    """Transitions of a gradient step."""
    clip_coef: float = 0.2
    """Ratios of probabilities outside 1 ± this have no gradient."""

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        return self._actor_critic(model, sizes, epochs=self.epochs, batch_size=self.batch_size)

    def weighting(self) -> Any:
        from .. import rl

        return rl.Clipped(self.clip_coef, self.entropy_coef)

    def solver(self) -> Any:
        return self._solver(
            self.passes * self.epochs * ceil(self.num_envs * self.num_steps / self.batch_size)
        )


METHODS: dict[str, type[Policy]] = {"ppo": PPO, "a2c": A2C, "reinforce": Reinforce}
