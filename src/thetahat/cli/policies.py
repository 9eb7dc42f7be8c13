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
from ..types import OF_SEED, ModelLike, Named, ObjectiveLike, Plain, SourceLike, Space
from .imported import function_of, named
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
    """An environment that gymnasium knows; or module:function or file.py:function, a function that makes one."""
    frame_stack: Annotated[
        int | None, arg(metavar="K", help_behavior_hint="(default: 1; with --atari 4)")
    ] = None
    """The latest K observations together are the state."""
    atari: Annotated[bool, arg(help_behavior_hint="")] = False
    """Atari's usual preprocessing: 4 frames a step, 84 x 84 grey levels, 4 frames stacked; in training each reward is replaced
    by its sign, in evaluation it is the game's."""
    max_episode_steps: Annotated[
        int | None, arg(metavar="STEPS", help_behavior_hint="(default: the environment's)")
    ] = None
    """Steps after which an episode is cut off."""
    vectorization: Literal["gymnasium", "tensor"] = "gymnasium"
    """tensor: all environments are one tensor, of CartPole-v1, Acrobot-v1, MountainCar-v0, MountainCarContinuous-v0,
    Pendulum-v1 (gymnasium's dynamics, to the last digit) and of a thetahat.rl.TensorEnvironment of one's own."""
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
    width: Annotated[
        int | None,
        arg(metavar="UNITS", help_behavior_hint="(default: 64; of images to 16 x 16 128; with --atari 512)"),
    ] = None
    """Units of each of the two hidden layers of the policy and of the value function; of images, of the one layer after the
    convolutions."""
    normalise: Annotated[bool, arg(help_behavior_hint="")] = False
    """Standardise states by their running mean and standard deviation; both are held fixed in evaluation."""
    normalise_rewards: Annotated[bool, arg(help_behavior_hint="")] = False
    """Divide rewards by the running standard deviation of the discounted return; evaluations are not divided."""
    eval_episodes: int = 20
    """Whole greedy episodes, in environments of their own, at each evaluation. Nothing is chosen by them."""

    def read(self) -> tuple[Sizes, Any]:
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
            "frame_stack",
        )
        for name, value in vars(self).items():
            if name in counts and value is not None and value < 1:
                raise BadArgument(f"--{name.replace('_', '-')} {value}. Accepted: 1 or more.")
        shown = self._one()
        if shown.levels is None and len(shown.shape) not in (1, 3, 4):
            raise BadArgument(
                f"--env {self.env} shows states of shape {shown.shape}. Accepted here: rows of numbers, images, or "
                "numbered states."
            )
        image = len(shown.shape) > 1
        if self.normalise and image:
            raise BadArgument(
                f"--normalise: the states of {self.env} are images, which are divided by the largest value of a pixel, "
                f"{shown.scale:g}. Leave the option out."
            )
        if self.normalise and shown.levels is not None:
            raise BadArgument(f"--normalise: the states of {self.env} are numbered, and have no scale.")
        inputs = shown.levels if shown.levels is not None else shown.shape[0]
        return {
            "inputs": inputs,
            "numbered": shown.levels is not None,
            "shape": list(shown.shape),
            "outputs": self._actions(shown.actions).outputs,
            **({"scale": shown.scale, "convolution": self._convolution(shown.shape)} if image else {}),
        }, None

    def _convolution(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Which convolutions suit images of this size: no settings are `Convolution`'s own."""
        from ..networks.convolution import ATARI, MINATAR

        image = shape[-3:]
        size = image[:2] if image[-1] <= image[0] else image[1:]
        if min(size) >= 3 and max(size) <= 16:
            return {"width": self.width or 128} | MINATAR
        return {"width": self.width or 512} | ATARI if self.atari else {}

    def continues(self, folder: Path, about: Named) -> None:
        known = about.get("settings")
        if self.width is None and isinstance(known, dict) and known.get("width") == 64:
            about = {**about, "settings": {**known, "width": None}}  # the default of earlier versions
        super().continues(folder, about)

    @property
    def environment(self) -> Plain:
        """What plays, as `Environments` takes it: its rewards are the environment's own."""
        return self._environment(False)

    def _environment(self, clip_rewards: bool) -> Plain:
        from ..rl.wrapping import Wrapped

        function = named(self.env)
        if function is None and not self.atari and (self.frame_stack or 1) == 1:
            return self.env
        made = self.env if function is None else function_of("--env", *function)
        if self.vectorization == "tensor":
            if self.atari or (self.frame_stack or 1) > 1:
                raise BadArgument(
                    "--vectorization tensor takes no --atari and no --frame-stack: these change observations one environment at a time. "
                    "Leave them out, or leave out --vectorization."
                )
            return made
        frames = self.frame_stack or (4 if self.atari else 1)
        return Wrapped(made, frames, self.atari, clip_rewards)

    def _one(self) -> Any:
        """One environment, for its spaces."""
        from ..rl.environments import Environments

        return Environments(self.environment, 1, self.made_with, self.vectorization)

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
        width = self.width or 64
        if len(sizes.get("shape", ())) > 1:  # runs of earlier versions have neither scale nor convolution
            own = {"width": width} | sizes.get("convolution", {})
            return Convolution(sizes["shape"], outputs, scale=sizes.get("scale", 255.0), seed=seed, **own)
        network = mlp(sizes["inputs"], (width, width), outputs, "tanh", seed=seed)
        if not self.normalise:
            return network
        return nn.Sequential(Normaliser(sizes["inputs"]) if beside is None else beside[0], *network)

    def model(self, sizes: Sizes) -> ModelLike:
        import torch

        from .. import rl

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
        return rl.Policy(network, self._actions(self._one().actions))

    def _rollouts(self, **play: Any) -> Any:
        from .. import rl

        return rl.Rollouts(
            self._environment(self.atari),
            self.num_envs,
            seed=self.seed,
            normalise_rewards=self.discount if self.normalise_rewards else False,
            settings=self.made_with,
            vectorization=self.vectorization,
            compile=self.compile and self.vectorization == "tensor",
            **play,
        )

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
            self.environment,
            self.seeds * self.eval_episodes,
            seed=self.seed + 10_000,
            max_steps=LONGEST_EVALUATION,
            vectorization=self.vectorization,
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
        rollouts = self._rollouts()
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
        rollouts = self._rollouts(num_steps=self.num_steps, advantage=advantage, **play)
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
