"""Diffusion: maximise Σ log p(y | noise undone), bounded below."""

from __future__ import annotations

from digits import LEVELS, SHAPE, row_of, steps

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    model = th.generative.Diffusion(
        th.generative.UNet(SHAPE, LEVELS, channels=(12, 24)), levels=LEVELS, predict="levels"
    )
    solver = steps(quick, 480, batch_size=64, learning_rate=0.01, ema_decay=0.95 if quick else 0.98)
    return row_of(
        "diffusion",
        "Σ log p(y | noise undone), bounded below",
        model,
        solver,
        quick,
        samples=8 if quick else 64,
    )


if __name__ == "__main__":
    print(run())
