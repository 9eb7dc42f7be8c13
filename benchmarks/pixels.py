"""Dynamically binarised MNIST: exact nats a test image of a PixelCNN, fitted in so many minutes of the processor.

    python benchmarks/pixels.py path/to/mnist [--epochs 5] [--width 32] [--blocks 6] [--threads 2] [--bfloat16]
        [--validate]

The folder holds the four IDX files (also .gz). Every pixel of every training image is drawn anew each epoch with its grey level as
probability; the test set is drawn once, from a seed, as in benchmarks/vae.py. A recipe is chosen with `--validate`, which never opens the test
files: the last 5,000 training images take their place. log p is exact: no bound, no draws.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

import thetahat as th


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--average", type=float, default=0.998)
    parser.add_argument("--rows", type=int, help="fit the first so many images only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bfloat16", action="store_true", help="products of the steps in bfloat16; scores never"
    )
    parser.add_argument("--validate", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)

    def images(name: str) -> th.generative.Images:
        return th.generative.Images(next(a.folder.glob(f"{name}-images-idx*")))

    grey = images("train")
    train, test = (
        (grey.take(slice(0, a.rows or 55_000)), grey.take(slice(55_000, None)))
        if a.validate
        else (grey if a.rows is None else grey.take(slice(0, a.rows)), images("t10k"))
    )
    steps = math.ceil(a.epochs * train.size / a.batch)
    network = th.generative.PixelCNN((28, 28), 1, levels=2, width=a.width, blocks=a.blocks, seed=a.seed)
    solver = th.Stochastic(
        steps=steps,
        batch_size=a.batch,
        learning_rate=a.rate,
        warmup_steps=min(200, steps // 10),
        betas=(0.9, 0.99),
        max_grad_norm=1.0,
        ema_decay=a.average,
        held_out=None,
        precision=torch.bfloat16 if a.bfloat16 else None,
        seed=a.seed,
        in_place=True,
    )
    begun, cpu = time.perf_counter(), time.process_time()
    fit = th.fit(
        th.generative.FullyVisible(th.families.Bernoulli(), network), train.binarised(), solver=solver
    )
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    score = fit.score(test.binarised(seed=1))
    which = "last 5,000 training" if a.validate else "test"
    count = sum(p.numel() for p in network.parameters())
    print(f"{count:,} parameters, {steps:,} steps of {a.batch} ({a.epochs:g} epochs)")
    print(f"fitted in {wall:.0f} s with {a.threads} threads, {cpu:.0f} s of CPU time")
    print(f"{which} images: {-score.mean:.3f} ± {score.standard_error:.3f} nats lost an image, {score.kind}")


if __name__ == "__main__":
    main()
