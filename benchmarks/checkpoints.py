"""What a checkpoint costs the training: time of a step that is followed by one, and of a step that is not.

    python benchmarks/checkpoints.py [PARAMETERS [STEPS]]          default 50,000,000 parameters, 91 steps

A network of two wide layers with AdamW, so that θ, two moments and the best θ are written: 16 bytes a parameter. A
checkpoint follows every thirtieth step. Times are of the thread that trains: its wall time, and its CPU time.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

import thetahat as th
from thetahat.solvers import iterate

EVERY = 30  # steps: a write of seconds is over before the next begins


def main(parameters: int = 50_000_000, steps: int = 91) -> None:
    width = round((parameters / 2) ** 0.5)
    g = torch.Generator().manual_seed(0)
    rows = th.data.Tensors({"x": torch.randn(64, width, generator=g), "y": torch.randn(64, generator=g)})
    network = torch.nn.Sequential(
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, 2),
    )
    objective = th.Objective([th.LogLikelihood(th.models.Conditional(th.families.Normal(), network), rows)])
    marks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        solver = th.Stochastic(
            steps=steps,
            batch_size=16,
            learning_rate=1e-5,
            held_out=0.25,
            evaluate_every=steps,
            checkpoint=Path(folder) / "checkpoint",
            checkpoint_every=EVERY,
            in_place=True,
        )
        iterate(solver, objective, lambda state: marks.append((time.perf_counter(), time.thread_time())))
        ended = time.perf_counter()
        size = (Path(folder) / "checkpoint").stat().st_size
    wall, cpu = ([b[i] - a[i] for a, b in pairwise(marks)] for i in (0, 1))
    print(
        f"{objective.size:,} parameters, {torch.get_num_threads()} thread; the last checkpoint {size / 1e6:,.0f} MB"
    )
    for name, kept in (
        ("without", [i for i in range(1, steps - 1) if i % EVERY]),
        ("with", [i for i in range(1, steps - 1) if i % EVERY == 0]),
    ):
        print(
            f"a step {name:8} a checkpoint: {median(wall[i] for i in kept):6.3f} s wall, "
            f"{median(cpu[i] for i in kept):6.3f} s CPU of the thread that trains"
        )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"the run: {ended - marks[0][0]:.2f} s wall, {time.process_time():.2f} s CPU of the process; most memory "
        f"{most:.2f} GB"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
