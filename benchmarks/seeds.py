"""CartPole-v1: sixteen seeds of `thetahat fit policy`, trained together, beside two runs of Stable-Baselines3's PPO.

    python benchmarks/seeds.py --sb3 PYTHON [--seeds 16] [--peers 2] [--results FILE]

PYTHON is an interpreter that has stable-baselines3 (which may ask for another gymnasium, hence not this one).
Ours are the command's defaults: 32 environments, 32 steps, 8 epochs of batches of 256, two 64 × 64 tanh networks
a seed, 50,000 steps each. Those of Stable-Baselines3 are what RL Zoo tuned for it (`policy.py`: 8 environments, 32
steps, 20 epochs of batches of 256), to the same number of steps each; the same networks.

Seconds are of the wall, of everything that learning does, and of nothing of the evaluation; each process has
--threads threads of torch. Also told: one seed of ours alone by the same loop, so that the gain of the stack itself
is seen; and greedy returns of twenty episodes a seed, in environments of their own, at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

ENVIRONMENT, EPISODES, TOTAL = "CartPole-v1", 20, 50_000
ZOO = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0}


def ours(seeds: int, threads: int, total: int) -> dict[str, Any]:
    """The seeds 0 … S − 1 by the command's own objective and solver, without its evaluations and files."""
    import torch

    from thetahat.cli.policies import PPO
    from thetahat.rl.rollouts import returns

    torch.set_num_threads(threads)
    command = PPO(env=ENVIRONMENT, seeds=seeds, total_timesteps=total)
    sizes, _ = command.read()
    model = command.model(sizes)
    objective, solver = command.objective(model, None, sizes), command.trainer(sizes)
    begun = time.perf_counter()
    state = solver.start(objective)
    while not solver.done(objective, state):
        state = solver.step(objective, state)
    seconds = time.perf_counter() - begun
    if state.failure:
        raise SystemExit(state.failure)
    greedy = returns(model, ENVIRONMENT, seeds * EPISODES, seed=10_000).reshape(seeds, EPISODES).mean(1)
    return {"seconds": seconds, "steps": total, "greedy": greedy.tolist()}


def peer(seed: int, threads: int, total: int) -> dict[str, Any]:
    """A run of Stable-Baselines3's PPO, in this interpreter."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(threads)
    environments = make_vec_env(ENVIRONMENT, n_envs=8, seed=seed)
    model = PPO(
        "MlpPolicy",
        environments,
        learning_rate=lambda left: 1e-3 * left,
        clip_range=0.2,
        seed=seed,
        device="cpu",
        **ZOO,
    )
    begun = time.perf_counter()
    model.learn(total)
    seconds = time.perf_counter() - begun
    others = make_vec_env(ENVIRONMENT, n_envs=EPISODES, seed=10_000 + seed)
    mean, _ = evaluate_policy(model, others, EPISODES, deterministic=True)
    return {"seconds": seconds, "steps": model.num_timesteps, "greedy": [float(mean)]}


def apart(python: str, call: str) -> dict[str, Any]:
    """What a function of this file finds in a process of its own."""
    folder = str(Path(__file__).parent)
    code = f"import sys, json; sys.path.insert(0, {folder!r}); import seeds; print(json.dumps(seeds.{call}))"
    said = subprocess.run(
        [python, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True
    ).stdout
    return dict(json.loads(said.splitlines()[-1]))


def table(
    several: list[dict[str, Any]], one: list[dict[str, Any]], peers: list[list[dict[str, Any]]]
) -> list[str]:
    from thetahat.rl.performance import iqm

    S = len(several[0]["greedy"])
    together, alone = (float(np.median([r["seconds"] for r in runs])) for runs in (several, one))
    lines = [
        "| | runs | seconds | greedy return |",
        "|---|---|---|---|",
        f"| thetahat, together | {S} | {together:.1f} | {iqm(several[0]['greedy'])} |",
        f"| thetahat, one seed alone | 1 | {alone:.1f} | {one[0]['greedy'][0]:.1f} |",
    ]
    if peers:
        both = [sum(r["seconds"] for r in runs) for runs in peers]
        shown = ", ".join(f"{r['greedy'][0]:.1f}" for r in peers[0])
        lines.append(
            f"| Stable-Baselines3, one after another | {len(peers[0])} | {np.median(both):.1f} | {shown} |"
        )
        ratios = [r["seconds"] / b for r, b in zip(several, both, strict=True)]
        told = ", ".join(f"{r:.2f}" for r in ratios)
        lines += [
            "",
            f"{S} seeds together take {np.median(ratios):.2f} times as long as {len(peers[0])} runs of Stable-Baselines3 "
            f"(turns: {told}).",
        ]
    return [*lines, f"They take {together / alone:.1f} times as long as one of ours alone."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sb3", metavar="PYTHON")
    parser.add_argument("--python", default="python", help="the interpreter that has thetahat")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--total", type=int, default=TOTAL)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    several, one, peers = [], [], []
    rest = f"{given.threads}, {given.total}"
    for turn in range(given.turns):  # in turn, so that a machine whose speed moves is fair to all
        several.append(apart(given.python, f"ours({given.seeds}, {rest})"))
        one.append(apart(given.python, f"ours(1, {rest})"))
        if given.sb3:
            peers.append([apart(given.sb3, f"peer({s}, {rest})") for s in range(given.peers)])
        print(turn, several[-1]["seconds"], one[-1]["seconds"], [r["seconds"] for r in peers[-1]] if peers else "", flush=True)  # fmt: skip
    lines = [
        f"# CartPole-v1: seeds together, {given.total:,} steps a seed, {given.threads} thread(s)",
        "",
        f"Medians of {given.turns} turns, seconds of the wall; greedy returns of the first turn: mean of {EPISODES} episodes of "
        "each seed, interquartile mean over seeds with its 95 % bootstrap interval.",
        "",
        *table(several, one, peers),
    ]
    print("\n".join(lines))
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
