"""MNIST and Fashion-MNIST: what a small convolutional classifier reaches through `fit` in so many seconds of one
processor core.

    python benchmarks/classifier.py path/to/mnist [--epochs 12] [--seed 0] [--validate]
    python benchmarks/classifier.py path/to/fashion-mnist --channels 32 64 128 --flip --shift 1 --epochs 20 --average 0.999

The folder holds the four IDX files (also .gz). 55,000 training images are fitted, moved by up to two pixels
anew each epoch; the 5,000 others decide the temperature and nothing else. The hyperparameters were chosen
with `--validate`, which never opens the test files: there the last 10,000 training images take their place.
Seconds are the process's own, data and temperature included, scoring of the test images not.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

import thetahat as th
from thetahat.evaluation.calibration import wilson
from thetahat.generative.image_files import read


def labelled(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """x (n, 784) bytes, y (n,)."""
    images, labels = (read(next(folder.glob(f"{name}-{kind}-idx*"))) for kind in ("images", "labels"))
    return {
        "x": torch.from_numpy(images.reshape(len(images), -1).copy()),
        "y": torch.from_numpy(labels.astype(np.int64)),
    }


def part(data: dict[str, torch.Tensor], rows: slice) -> dict[str, torch.Tensor]:
    return {name: t[rows] for name, t in data.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--shift", type=int, default=2)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--flip", action="store_true", help="mirror at random")
    parser.add_argument("--erase", type=int, default=0, help="side of an erased square")
    parser.add_argument("--average", type=float, help="decay of the average of θ")
    parser.add_argument("--decay", type=float, default=0.0, help="decoupled weight decay")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--validate", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    begun = time.process_time()
    every = labelled(given.folder, "train")
    if given.validate:
        test, every = part(every, slice(50_000, 60_000)), part(every, slice(50_000))
    else:
        test = labelled(given.folder, "t10k")
    n = len(every["y"]) - 5_000
    train, other = part(every, slice(n)), part(every, slice(n, None))
    steps = math.ceil(given.epochs * n / given.batch)
    solver = th.Stochastic(
        steps=steps,
        batch_size=given.batch,
        learning_rate=given.rate,
        warmup_steps=steps // 10,
        betas=(0.9, 0.99),
        ema_decay=given.average,
        weight_decay=given.decay,
        seed=given.seed,
        held_out=None,
    )
    network = th.generative.ConvNet((28, 28), 10, given.channels, seed=given.seed)
    changes = [th.generative.Shifts((28, 28), given.shift)]
    changes += [th.generative.Flips((28, 28))] if given.flip else []
    changes += [th.generative.Erasures((28, 28), given.erase)] if given.erase else []
    source = th.generative.Augmented(train, changes)
    classifier = th.fit(th.models.Conditional(th.families.Categorical(10), network), source, solver=solver)
    maximised = time.process_time() - begun
    tempered = th.fit(th.models.Tempered(classifier.model), other)
    spent = time.process_time() - begun

    print(
        f"{sum(p.numel() for p in network.parameters())} parameters, {steps} steps of {given.batch} "
        f"({given.epochs:g} epochs)"
    )
    print(f"{spent:.0f} s of one core, {maximised:.0f} of them the run")
    low, high = tempered.intervals().loc["temperature"]
    print(
        f"temperature {tempered.estimates['temperature']:.3f} ({low:.3f} to {high:.3f}); "
        f"{tempered.certificate}"
    )
    where = "validation" if given.validate else "test"
    right = tempered.predict(test, "probabilities").to_numpy().argmax(1) == test["y"].numpy()
    lowest, highest = wilson(np.array([float(right.sum())]), np.array([float(len(right))]))
    share = right.mean()
    print(
        f"{where} accuracy {100 * share:.2f} % ({100 * lowest[0]:.2f} to {100 * highest[0]:.2f}), "
        f"{(~right).sum()} of {len(right)} wrong"
    )
    for name, fit in (("as fitted", classifier), ("tempered", tempered)):
        score = fit.score(test)
        print(
            f"{where} nats, {name}: {-score.mean:.4f} ± {score.standard_error:.4f} lost an image; "
            f"calibration error {fit.calibration_error(test)}"
        )


if __name__ == "__main__":
    main()
