"""C51 on CartPole and Acrobot: the greedy return after a climb through `fit` on a replay, several seeds.

    python benchmarks/distributional_rl.py [--seeds 5] [--environments CartPole-v1 Acrobot-v1] [--processes 2] [--results FILE]

The settings below are the same for both but for the ends of the support, the steps played and how often. Greedy return: of 100 episodes at
the end, in environments of their own, played with the average of θ; the training returns are used for nothing. One thread each; seconds are
of CPU, evaluation left out. The settings were found on seed 0 of each; seeds 1 and up had no part in that.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from policy import middle

EPISODES, ATOMS, DISCOUNT = 100, 51, 0.99
#             states, actions, low, high, transitions in all, a step, published level
SETTINGS: dict[str, tuple[int, int, float, float, int, int, float]] = {
    "CartPole-v1": (4, 2, 0.0, 100.0, 48_000, 3, 500.0),
    "Acrobot-v1": (6, 3, -100.0, 0.0, 50_000, 5, -80.0),
}


def run(environment: str, seed: int) -> dict[str, Any]:
    import torch

    import thetahat as th
    from thetahat.data.rollouts import returns

    torch.set_num_threads(1)
    d, actions, low, high, total, every, _ = SETTINGS[environment]
    model = th.models.C51(th.networks.mlp(d, (128, 64), actions * ATOMS, "relu", seed=seed), low, high, ATOMS)
    replay = th.data.Replay(
        environment,
        4,
        capacity=100_000,
        every=every,
        batch_size=64,
        steps=3,
        discount=DISCOUNT,
        refresh=15,
        explore=(1.0, 0.05, 8000),
        seed=seed,
    )
    steps = (total - replay.warmup) // every
    begun = time.process_time()
    solver = th.Stochastic(steps=steps, learning_rate=0.002, decay="linear", average=0.995, clip=10.0, seed=seed)
    th.fit(model, replay, solver=solver)
    seconds = time.process_time() - begun
    found = returns(model, environment, EPISODES, seed=10_000 + seed)
    print(environment, seed, f"{float(found.mean()):.1f} ± {float(found.std()) / EPISODES**0.5:.1f}, {seconds:.0f} s", flush=True)
    return {"greedy": float(found.mean()), "seconds": seconds, "played": replay.played}


def row(environment: str, runs: list[dict[str, Any]]) -> str:
    level = SETTINGS[environment][-1]
    iqm, low, high = middle([r["greedy"] for r in runs])
    reached = sum(r["greedy"] >= level for r in runs)
    each = ", ".join(f"{r['greedy']:.1f}" for r in runs)
    seconds = sorted(r["seconds"] for r in runs)[len(runs) // 2]
    return (
        f"| {environment} | {max(r['played'] for r in runs):,} | {iqm:.1f} ({low:.1f} to {high:.1f}) | {level:g}: {reached} of {len(runs)} | "
        f"{each} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        asked = {(name, seed): pool.submit(run, name, seed) for seed in range(given.seeds) for name in given.environments}
        done = {key: future.result() for key, future in asked.items()}
    lines = [
        "# C51 on a replay: greedy return, one thread, seconds of CPU",
        "",
        f"{given.seeds} seeds, {EPISODES} greedy episodes each in environments of their own: interquartile mean over seeds, 95 % bootstrap interval.",
        "",
        "| | transitions played | greedy return | level, and seeds at or above it | each seed | seconds |",
        "|---|---|---|---|---|---|",
        *[row(name, [done[name, seed] for seed in range(given.seeds)]) for name in given.environments],
    ]
    print("\n".join(lines))
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
