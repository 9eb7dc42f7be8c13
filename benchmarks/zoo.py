"""Environments of RL Zoo: PPO by the objective and solver of `thetahat fit policy`, with the settings that the zoo tuned for
Stable-Baselines3, beside the return that the zoo publishes.

    python benchmarks/zoo.py [--env Pendulum-v1 LunarLander-v3] [--seeds 1] [--settings JSON] [--results FILE]

LunarLander needs box2d (pip install "gymnasium[box2d]"). Differences from the zoo: Pendulum's policy is a normal squashed by
tanh whose spread depends on the state, theirs explores by gSDE; the zoo's figure for LunarLander is of version 2, whose
successor mends the wind and its determinism and leaves the rewards as they were. Published: mean and standard deviation over
episodes of one trained agent, rl-baselines3-zoo, benchmark.md.

Greedy returns are of whole episodes in environments of their own, apart from the play that was learnt from; the last ones are of
other episodes than those along the way. Nothing is chosen by them: the θ that is reported is the last. One thread; seconds are of
CPU, of learning alone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPISODES, LONGEST = 100, 10_000  # of an evaluation


@dataclass(frozen=True)
class Known:
    """What the zoo publishes of an environment, and the settings that gave it."""

    mean: float
    spread: float
    settings: dict[str, Any]


ZOO = {
    "Pendulum-v1": Known(
        -172.225,
        104.159,
        {
            "num_envs": 4, "num_steps": 1024, "batch_size": 64, "epochs": 10, "discount": 0.9, "gae_lambda": 0.95,
            "learning_rate": 1e-3, "total_timesteps": 100_000,
        },
    ),
    "LunarLander-v3": Known(
        242.119,
        31.823,
        {
            "num_envs": 16, "num_steps": 1024, "batch_size": 64, "epochs": 4, "discount": 0.999, "gae_lambda": 0.98,
            "learning_rate": 3e-4, "entropy_coef": 0.01, "total_timesteps": 1_000_000,
        },
    ),
}  # fmt: skip


def train(environment: str, seed: int, evaluations: int, **changed: Any) -> dict[str, Any]:
    """One run: greedy returns along the way and at the end, and seconds of learning alone."""
    import torch

    from thetahat.cli.policies import PPO
    from thetahat.rl.rollouts import played

    torch.set_num_threads(1)
    own = {"lr_schedule": "constant", **ZOO[environment].settings, **changed}
    command = PPO(env=environment, seed=seed, **own)
    sizes, _ = command.read()
    model = command.model(sizes)
    objective, solver = command.objective(model, None, sizes), command.trainer(sizes)
    every = max(1, command.passes // evaluations) * (solver.steps // command.passes)
    state, spent, curve = solver.start(objective), 0.0, []

    def evaluate(first: int) -> dict[str, float]:
        found, _ = played(model, environment, EPISODES, seed=first + seed, max_steps=LONGEST)
        return {"mean": float(found.mean()), "spread": float(found.std())}

    while not solver.done(objective, state):
        begun = time.process_time()
        for _ in range(every):
            if not solver.done(objective, state):
                state = solver.step(objective, state)
        spent += time.process_time() - begun
        if state.failure:
            raise SystemExit(state.failure)
        steps = int(objective.terms[0].source.played)  # type: ignore[union-attr]
        curve.append({"steps": steps, "seconds": round(spent, 1), **evaluate(10_000)})
        print(json.dumps({"environment": environment, "seed": seed, **curve[-1]}), flush=True)
    return {"seed": seed, "steps": steps, "seconds": spent, "curve": curve, **evaluate(20_000)}


def report(environment: str, runs: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table, one a run."""
    known = ZOO[environment]
    lines = []
    for run in runs:
        soon = next((e for e in run["curve"] if e["mean"] >= known.mean), None)
        when = "never" if soon is None else f"{soon['steps']:,} steps, {soon['seconds']:.0f} s"
        lines.append(
            f"| {environment} | {run['seed']} | {run['mean']:.1f} ± {run['spread'] / EPISODES**0.5:.1f} | {run['spread']:.1f} | "
            f"{known.mean:.1f} ({known.spread:.1f}) | {when} | {run['steps']:,} | {run['seconds']:.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", nargs="+", choices=list(ZOO), default=list(ZOO))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=12)
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="other settings")
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    lines = [
        "# RL Zoo's environments: PPO, one thread, seconds of CPU",
        "",
        f"Greedy return of {EPISODES} episodes at the end, ± its standard error; published: mean (standard deviation over episodes).",
        "",
        "| environment | seed | greedy return | deviation over episodes | published | first at or above the published mean | steps | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for environment in given.env:
        runs = [train(environment, s, given.evaluations, **given.settings) for s in range(given.seeds)]
        lines += report(environment, runs)
    print("\n".join(lines))
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
