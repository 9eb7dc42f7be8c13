"""PPO, with a value function: maximise Σ ρ A 1[not clipped] log π(a | s) + Σ log Normal(G | V(s))."""

from __future__ import annotations

from typing import Any

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    policy, value = (
        th.rl.Policy(th.networks.mlp(4, (64, 64), 2, "tanh", seed=0)),
        th.rl.Value(th.networks.mlp(4, (64, 64), 1, "tanh", seed=1)),
    )
    advantage = th.rl.GAE(value, 0.98, 0.9, normalise=True)
    rollouts = th.rl.Rollouts("CartPole-v1", 32, num_steps=32, advantage=advantage, epochs=8, batch_size=256)
    before = float(th.rl.rollouts.returns(policy, "CartPole-v1", 20, seed=1000).mean())
    solver = th.Stochastic(
        steps=320 if quick else 1200, learning_rate=3e-3, lr_schedule="linear", max_grad_norm=0.5
    )
    found = th.maximize(
        th.LogLikelihood(policy, rollouts, th.rl.Clipped(0.2)) + th.LogLikelihood(value, rollouts),
        solver=solver,
    )
    played: Any = found.source
    after = float(th.rl.rollouts.returns(found.model, "CartPole-v1", 20, seed=1000).mean())
    return Row(
        "PPO, with a value function",
        "CartPole-v1, its own rollouts",
        "Σ ρ A 1[not clipped] log π(a | s) + Σ log Normal(G | V(s))",
        "greedy return, 20 episodes",
        before,
        after,
        f"stochastic: {played.played:,} steps played, each pass learnt from 8 times",
        f"500 is the most there is; found {after:.0f}",
        None if quick else after >= 475,
    )


if __name__ == "__main__":
    print(run())
