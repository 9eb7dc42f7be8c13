"""REINFORCE: maximise Σ (return − baseline) log π(a | s)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    policy = th.rl.Policy(th.networks.mlp(4, 32, 2, "tanh", seed=0))
    rollouts = th.rl.Rollouts("CartPole-v1", 16, seed=0)
    before = float(th.rl.rollouts.returns(policy, "CartPole-v1", 20, seed=1000).mean())
    solver = th.Stochastic(steps=15 if quick else 40, learning_rate=0.02, lr_schedule="constant")
    policy = th.fit(policy, rollouts, weights=th.rl.RewardToGo(0.99, normalise=True), solver=solver).model
    after = float(th.rl.rollouts.returns(policy, "CartPole-v1", 20, seed=1000).mean())
    return Row(
        "REINFORCE",
        "CartPole-v1, its own rollouts",
        "Σ (return − baseline) log π(a | s)",
        "greedy return, 20 episodes",
        before,
        after,
        f"stochastic: {solver.steps} steps on data drawn from the model",
        f"195 is the mark of CartPole-v0, 500 the most there is; found {after:.0f}",
        None if quick else after >= 195,
    )


if __name__ == "__main__":
    print(run())
