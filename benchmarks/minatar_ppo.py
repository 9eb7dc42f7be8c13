"""MinAtar: PPO through `fit` on a game of 10 × 10 pixels, one thread.

    python benchmarks/minatar_ppo.py [--game Breakout] [--seeds 3] [--steps 5_000_000] [--results FILE]

The network is MinAtar's (one 3 × 3 convolution of 16 channels, 128 hidden units), one for the policy and one
for the value function. The games are as their authors set them: sticky actions with probability 0.1, and difficulty that
grows; the least set of actions (v1). Returns are those of whole episodes in environments of their own, drawn from the policy
and greedy; training returns are not used for anything. Settings were chosen on seed 100; those reported are 0, 1, 2 …

Young and Tian (2019), MinAtar: an Atari-inspired testbed for thorough and reproducible reinforcement learning
experiments, has curves of DQN and actor-critic over 5 million frames for comparison.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

EPISODES, LONGEST = 100, 10_000  # episodes of an evaluation; steps after which one counts what it has
SETTINGS: dict[str, Any] = {
    "num_envs": 64,
    "num_steps": 64,
    "epochs": 4,
    "batch_size": 512,
    "learning_rate": 1e-3,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "entropy_coef": 0.01,
    "clip_coef": 0.2,
    "max_grad_norm": 0.5,
}


def train(game: str, seed: int, total: int, evaluations: int, **changed: Any) -> dict[str, Any]:
    """One run: returns along the way, and seconds of learning alone."""
    import torch

    import thetahat as th
    from thetahat.networks.convolution import MINATAR
    from thetahat.rl.environments import Environments
    from thetahat.rl.rollouts import played

    torch.set_num_threads(1)
    own, name = SETTINGS | changed, f"MinAtar/{game}-v1"
    seen = Environments(name, 1)
    networks = [
        th.networks.Convolution(
            seen.shape, outputs, width=128, scale=seen.scale, seed=seed + 1000 * i, **MINATAR
        )
        for i, outputs in enumerate((int(seen.actions.n), 1))
    ]
    policy, value = th.rl.Policy(networks[0], seen.actions), th.rl.Value(networks[1])
    with torch.no_grad():
        networks[0].output.weight.mul_(0.01)  # all actions about equally probable at the start
    advantage = th.rl.GAE(value, own["discount"], own["gae_lambda"], normalise=True)
    rollouts = th.rl.Rollouts(
        name, own["num_envs"], num_steps=own["num_steps"], advantage=advantage, epochs=own["epochs"],
        batch_size=own["batch_size"], seed=seed,
    )  # fmt: skip
    weights = th.rl.Clipped(own["clip_coef"], own["entropy_coef"])
    objective = th.LogLikelihood(policy, rollouts, weights) + th.LogLikelihood(value, rollouts)
    passed = own["num_envs"] * own["num_steps"]
    passes, steps = max(1, total // passed), own["epochs"] * -(-passed // own["batch_size"])
    solver = th.Stochastic(
        steps=steps * passes,
        learning_rate=own["learning_rate"],
        lr_schedule="linear",
        max_grad_norm=own["max_grad_norm"],
        held_out=None,
        in_place=True,
        seed=seed,
    )
    state, spent, curve = solver.start(objective), 0.0, []
    for i in range(passes):
        begun = time.process_time()
        for _ in range(steps):
            state = solver.step(objective, state)
        spent += time.process_time() - begun
        if (i + 1) % max(1, passes // evaluations) == 0 or i + 1 == passes:
            found = {}
            for kind, greedy in (("drawn", False), ("greedy", True)):
                returns, _ = played(
                    policy, name, EPISODES, seed=10_000 + seed, greedy=greedy, max_steps=LONGEST
                )
                found[kind] = float(returns.mean())
            curve.append({"steps": rollouts.played, "seconds": spent, **found})
            print(json.dumps({"game": game, "seed": seed, **curve[-1]}), flush=True)
    return {"seed": seed, "steps": rollouts.played, "seconds": spent, "curve": curve}


def report(game: str, runs: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown: a line an evaluation, means over seeds and their standard errors."""
    rate = np.median([r["steps"] / r["seconds"] for r in runs])
    lines = [
        f"# MinAtar {game}: PPO, one thread",
        "",
        f"{len(runs)} seeds; {EPISODES} whole episodes an evaluation; mean over seeds ± standard error; "
        f"{rate:,.0f} steps a second of CPU, learning included.",
        "",
        "| steps | drawn from the policy | greedy |",
        "|---|---|---|",
    ]
    for row in zip(*(r["curve"] for r in runs), strict=True):
        cells = []
        for kind in ("drawn", "greedy"):
            x = np.array([each[kind] for each in row])
            error = f" ± {x.std(ddof=1) / len(x) ** 0.5:.2f}" if len(x) > 1 else ""
            cells.append(f"{x.mean():.2f}{error}")
        lines.append(f"| {row[0]['steps']:,} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--game", default="Breakout", help="Asterix, Breakout, Freeway, Seaquest, SpaceInvaders"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5_000_000)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument(
        "--settings", type=json.loads, default={}, metavar="JSON", help="other values of SETTINGS"
    )
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    unknown = sorted(set(given.settings) - set(SETTINGS))
    if unknown:
        parser.error(f"--settings knows {', '.join(SETTINGS)}; received {', '.join(unknown)}")
    runs = [
        train(given.game, seed, given.steps, given.evaluations, **given.settings)
        for seed in range(given.first_seed, given.first_seed + given.seeds)
    ]
    lines = report(given.game, runs)
    print("\n".join(lines))
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
