"""Distributional reinforcement learning on CartPole and Acrobot: the greedy return after a run through `fit`
on a replay, several seeds.

    python benchmarks/distributional_rl.py [--seeds 5] [--rows C51/CartPole-v1 QR-DQN/Acrobot-v1 …] [--processes 2] [--results FILE]

Greedy return: of 100 episodes at the end, in environments of their own, played with the average of θ; the
training returns are used for nothing. One thread each; seconds are of CPU, evaluation left out. The settings
of C51 were found on seed 0 of each environment, those of QR-DQN on seeds 100 to 102, which are not among
those run here.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from policy import middle

EPISODES, DISCOUNT = 100, 0.99
PLACES = {
    "CartPole-v1": (4, 2, 500.0),
    "Acrobot-v1": (6, 3, -80.0),
}  # numbers of a state, actions, published level


@dataclass(frozen=True)
class Row:
    """What is fitted where: the network's widths, the solver's and the replay's settings."""

    hidden: tuple[int, ...]
    ends: tuple[float, float] | None  # of C51's support; None: QR-DQN, of 25 quantiles
    transitions: int
    solver: dict[str, Any]
    replay: dict[str, Any]


COARSE = {"batch_size": 64, "n_steps": 3, "target_update_interval": 15, "exploration": (1.0, 0.05, 8000)}
C51 = {"learning_rate": 0.002, "ema_decay": 0.995, "lr_schedule": "linear"}
ROWS = {
    "C51/CartPole-v1": Row((128, 64), (0.0, 100.0), 48_000, C51, COARSE | {"train_frequency": 3}),
    "C51/Acrobot-v1": Row((128, 64), (-100.0, 0.0), 50_000, C51, COARSE | {"train_frequency": 5}),
    "QR-DQN/Acrobot-v1": Row(
        (256, 256),
        None,
        98_000,
        {"learning_rate": 6.3e-4, "ema_decay": 0.9995, "lr_schedule": "constant"},
        {
            "batch_size": 128,
            "n_steps": 1,
            "target_update_interval": 250,
            "exploration": (1.0, 0.1, 12_000),
            "train_frequency": 1,
        },
    ),
}


def run(name: str, seed: int) -> dict[str, Any]:
    import torch

    import thetahat as th
    from thetahat.rl.rollouts import returns

    torch.set_num_threads(1)
    of, environment = ROWS[name], name.split("/")[1]
    d, actions, _ = PLACES[environment]
    model: Any
    if of.ends is None:
        model = th.rl.QRDQN(th.networks.mlp(d, of.hidden, actions * 25, "relu", seed=seed), 25)
    else:
        model = th.rl.C51(th.networks.mlp(d, of.hidden, actions * 51, "relu", seed=seed), *of.ends, 51)
    replay = th.rl.Replay(environment, 4, buffer_size=100_000, discount=DISCOUNT, seed=seed, **of.replay)
    steps = (of.transitions - replay.learning_starts) // replay.train_frequency
    begun = time.process_time()
    th.fit(model, replay, solver=th.Stochastic(steps=steps, max_grad_norm=10.0, seed=seed, **of.solver))
    seconds = time.process_time() - begun
    found = returns(model, environment, EPISODES, seed=10_000 + seed)
    print(
        name,
        seed,
        f"{float(found.mean()):.1f} ± {float(found.std()) / EPISODES**0.5:.1f}, {seconds:.0f} s",
        flush=True,
    )
    return {"greedy": float(found.mean()), "seconds": seconds, "played": replay.played}


def row(name: str, runs: list[dict[str, Any]]) -> str:
    model, environment = name.split("/")
    level = PLACES[environment][-1]
    iqm, low, high = middle([r["greedy"] for r in runs])
    reached = sum(r["greedy"] >= level for r in runs)
    each = ", ".join(f"{r['greedy']:.1f}" for r in runs)
    seconds = sorted(r["seconds"] for r in runs)[len(runs) // 2]
    return (
        f"| {model} | {environment} | {max(r['played'] for r in runs):,} | {iqm:.1f} ({low:.1f} to "
        f"{high:.1f}) "
        f"| {level:g}: {reached} of {len(runs)} | {each} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        asked = {
            (name, seed): pool.submit(run, name, seed) for seed in range(given.seeds) for name in given.rows
        }
        done = {key: future.result() for key, future in asked.items()}
    lines = [
        "# Distributions of returns on a replay: greedy return, one thread, seconds of CPU",
        "",
        f"{given.seeds} seeds, {EPISODES} greedy episodes each in environments of their own: interquartile "
        "mean over seeds, 95 % bootstrap interval.",
        "",
        "| model | environment | transitions played | greedy return | level, and seeds at or above it | each "
        "seed | seconds |",
        "|---|---|---|---|---|---|---|",
        *[row(name, [done[name, seed] for seed in range(given.seeds)]) for name in given.rows],
    ]
    print("\n".join(lines))
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
