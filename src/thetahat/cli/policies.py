"""`thetahat fit policy`: a policy and a value function on the policy's own rollouts, a likelihood weighted by advantages."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from ..errors import BadArgument
from ..types import ModelLike, ObjectiveLike, SolverLike, SourceLike, Space
from .system import Sizes, System


@dataclass(frozen=True, kw_only=True)
class Policy(System):
    name: ClassVar[str] = "policy"
    draws_nothing: ClassVar[str] = "which plays: thetahat play RUN"
    env: Annotated[str, arg(metavar="NAME")] = "CartPole-v1"
    """An environment that gymnasium knows."""
    method: Literal["ppo", "a2c", "reinforce"] = "ppo"
    """Weights: clipped ratios of advantages, over several epochs; advantages, once; returns of whole episodes, once."""
    total: int = 50_000
    """Steps of the environments in all; --steps, where given, decides instead. (Whole episodes are counted as --length.)"""
    copies: int = 32
    """Environments side by side."""
    length: int = 32
    """Steps of each in a pass."""
    epochs: int = 8
    """Times that a pass is learnt from (ppo)."""
    batch_size: int = 256
    """Terms a step (ppo)."""
    steps: int = 0
    """Steps of the run; 0: as many as --total allows."""
    learning_rate: float = 3e-3
    """Of the first step; a line takes it to 0."""
    held_out: float = 0.0
    """Not used: each pass is new."""
    discount: float = 0.98
    """Of rewards to come."""
    trace: float = 0.9
    """λ of the advantages: 1 sums rewards, 0 trusts the value function after one step."""
    epsilon: float = 0.2
    """Ratios that leave 1 ± epsilon are clipped (ppo)."""
    entropy: float = 0.0
    """Weight of a bonus for entropy."""
    width: int = 64
    """Of the two hidden layers of policy and value function."""
    normalise: Annotated[bool, arg(help_behavior_hint="")] = False
    """States by their mean and standard deviation in all play so far; held as they are in evaluation."""
    episodes: int = 20
    """Whole greedy episodes, in environments of their own, played at each look; they decide nothing."""

    def read(self) -> tuple[Sizes, Any]:
        from ..rl.environments import Environments

        for name in ("total", "copies", "length", "epochs", "batch_size", "episodes", "width"):
            if vars(self)[name] < 1:
                raise BadArgument(f"--{name.replace('_', '-')} {vars(self)[name]}. Accepted: 1 or more.")
        if self.held_out:
            raise BadArgument(f"--held-out {self.held_out:g}: each pass of play is new, and none of it can be held out.")
        shown = Environments(self.env, 1)
        if shown.levels is None and len(shown.shape) != 1:
            raise BadArgument(
                f"--env {self.env} shows states of shape {shown.shape}. Accepted here: rows of numbers, or numbered states."
            )
        if self.normalise and shown.levels is not None:
            raise BadArgument(f"--normalise: the states of {self.env} are numbered, and have no scale.")
        inputs = shown.levels if shown.levels is not None else shown.shape[0]
        return {"inputs": inputs, "numbered": shown.levels is not None, "outputs": self._actions(shown.actions).outputs}, None

    @staticmethod
    def _actions(space: Space) -> Any:
        from ..rl.actions import actions_of

        return actions_of(space)

    def _network(self, sizes: Sizes, outputs: int, seed: int, beside: Any = None) -> Any:
        """beside : a network whose normaliser this one takes too"""
        from torch import nn

        from ..networks import Normaliser, mlp

        if sizes["numbered"]:
            return nn.Embedding(sizes["inputs"], outputs)
        network = mlp(sizes["inputs"], (self.width, self.width), outputs, "tanh", seed=seed)
        if not self.normalise:
            return network
        return nn.Sequential(Normaliser(sizes["inputs"]) if beside is None else beside[0], *network)

    def model(self, sizes: Sizes) -> Any:
        import torch

        from .. import rl
        from ..rl.environments import Environments

        network = self._network(sizes, sizes["outputs"], self.seed)
        with torch.no_grad():
            list(network.parameters())[-1 if sizes["numbered"] else -2].mul_(
                0.01
            )  # all actions about equally probable at the start
        return rl.Policy(network, self._actions(Environments(self.env, 1).actions))

    def other(self, path: Path, sizes: Sizes) -> Any:
        raise BadArgument("a policy is not scored on data, it plays: thetahat play RUN.")

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        from .. import rl
        from ..likelihood import LogLikelihood, Objective
        from ..rl.rollouts import Rollouts

        if self.method == "reinforce":
            rollouts = Rollouts(self.env, self.copies, seed=self.seed)
            return Objective([LogLikelihood(model, rollouts, rl.RewardToGo(self.discount, normalise=True))])
        value = rl.Value(self._network(sizes, 1, self.seed + 1, model.network))
        own = {"epochs": self.epochs, "batch_size": self.batch_size} if self.method == "ppo" else {}
        advantage = rl.GAE(value, self.discount, self.trace, normalise=True)
        rollouts = Rollouts(self.env, self.copies, length=self.length, advantage=advantage, seed=self.seed, **own)  # type: ignore[arg-type]
        weighting = rl.Clipped(self.epsilon, self.entropy) if self.method == "ppo" else rl.Advantage(self.entropy)
        return Objective([LogLikelihood(model, rollouts, weighting), LogLikelihood(value, rollouts)])

    def solver(self) -> SolverLike:
        passes = max(1, self.total // (self.copies * self.length))
        a_pass = self.epochs * ceil(self.copies * self.length / self.batch_size) if self.method == "ppo" else 1
        own = dataclasses.replace(self, steps=self.steps or passes * a_pass, held_out=0.5)
        return dataclasses.replace(super(Policy, own).solver(), held_out=None, warmup=0, decay="linear", clip=0.5)

    def measure(self, model: ModelLike) -> dict[str, float]:
        """Greedy returns, apart from those of the play that was learnt from."""
        from ..rl.rollouts import returns

        found = returns(model, self.env, self.episodes, seed=self.seed + 10_000)
        error = float(found.std()) / self.episodes**0.5 if self.episodes > 1 else float("nan")
        return {"greedy_return": float(found.mean()), "greedy_return_error": error}
