"""MNIST with all its 256 levels: bits per dimension of a VAE, a flow, a diffusion and an autoregressive model, each fitted for as many
seconds of the processor, in one table.

    python benchmarks/bits.py path/to/mnist [--seconds 300] [--rows 2000] [--only NAME …]

The folder holds the four IDX files (also .gz). A model's steps are as many as its first twenty say that the seconds allow. 2,000 of the
training images are held out to choose the θ that is kept; the first so many test images are scored. Every value is the mass of the same
images, exact or a lower bound, which the table names.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import thetahat as th

SHAPE, L = (28, 28), 256


def autoregressive() -> torch.nn.Module:
    pixel = th.families.MixtureOf(th.families.DiscretisedLogistic(L), 5)
    network = th.generative.PixelCNN(SHAPE, len(pixel.parameters), levels=L, width=32, blocks=6)
    with torch.no_grad():  # locations spread over the levels, scales that overlap
        for j in range(5):
            network.bias[2 * j] = (2 * j + 1) / 5 - 1
            network.bias[2 * j + 1] = -2.0
    return th.generative.FullyVisible(pixel, network)


def flow() -> torch.nn.Module:
    maps = ["logit", th.data.maps.Standardise(-3.0, 3.0)]
    return th.generative.Dequantised(
        th.generative.Flow.affine(784, transforms=3, hidden=(512,)), levels=L, maps=maps
    )


def diffusion() -> torch.nn.Module:
    network = th.generative.UNet(SHAPE, 1, channels=(32, 64, 64))
    return th.generative.Diffusion(network, levels=L, predict="v")


Build = Callable[[], torch.nn.Module]
MODELS: dict[
    str, tuple[Build, dict[str, Any], int | None]
] = {  # how it is made, how it is fitted, K of its score
    "autoregressive: PixelCNN": (autoregressive, {"batch_size": 50, "learning_rate": 3e-3}, None),
    "diffusion": (diffusion, {"batch_size": 64, "learning_rate": 2e-3}, 16),
    "VAE": (lambda: th.generative.VAE.images(SHAPE, L), {"batch_size": 100, "learning_rate": 2e-3}, 100),
    "flow": (flow, {"batch_size": 128, "learning_rate": 1e-3}, 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    train, test = (
        th.generative.Images(next(a.folder.glob(f"{name}-images-idx*"))) for name in ("train", "t10k")
    )
    kept, scored = train.take(slice(58_000, None)), test.take(slice(0, a.rows))
    train = train.take(slice(0, 58_000))
    scores, seconds, sizes, epochs = {}, {}, {}, {}
    for name, (build, settings, K) in MODELS.items():
        if a.only and name not in a.only:
            continue
        more: dict[str, Any] = {"betas": (0.9, 0.99), "max_grad_norm": 10.0, "warmup_steps": 0}
        begun = time.process_time()
        th.fit(build(), train, solver=th.Stochastic(steps=20, held_out=None, **settings, **more))
        steps = max(20, int(20 * a.seconds / (time.process_time() - begun)))
        more |= {
            "warmup_steps": min(100, steps // 10),
            "ema_decay": 0.995,
            "held_out": kept.take(slice(0, 500)),
            "evaluate_every": max(1, steps // 4),
        }
        begun = time.process_time()
        fit = th.fit(build(), train, solver=th.Stochastic(steps=steps, **settings, **more))
        seconds[name], sizes[name] = time.process_time() - begun, len(fit.theta)
        epochs[name] = steps * settings["batch_size"] / train.size
        scores[name] = fit.score(scored, **({} if K is None else {"samples": K}))
        print(f"{name}: {seconds[name]:.0f} s, {scores[name]}", flush=True)
    if len(scores) < 2:
        return
    table = th.compare(scores)
    print(table)
    lines = [
        f"# MNIST, 256 levels, bits per dimension of {scored.size} test images",
        "",
        f"{a.threads} threads, torch {torch.__version__}. ± is the standard error over images.",
        "",
        "| | bits per dimension | ± | kind | parameters | epochs | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in table.table.iterrows():
        s = table.scores[str(name)]
        error = s.standard_error * s.bits_per_dimension / abs(s.mean)
        lines.append(
            f"| {name} | {s.bits_per_dimension:.4f} | {error:.4f} | {row['kind']} | {sizes[str(name)]:,} | "
            f"{epochs[str(name)]:.1f} | {seconds[str(name)]:.0f} |"
        )
    if a.results is not None:
        a.results.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
