"""Transformer, pixel by pixel: maximise Σ_i Σ_j log p(y_j | y_<j)."""

from __future__ import annotations

from digits import GREY, LEVELS, SHAPE, row_of, steps

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    network = th.generative.PixelTransformer(SHAPE, levels=LEVELS, layers=2, width=64)
    solver = steps(quick, 200, batch_size=64, optimiser="muon", learning_rate=0.01)
    return row_of(
        "transformer, pixel by pixel",
        "Σ_i Σ_j log p(y_j | y_<j)",
        th.generative.FullyVisible(GREY, network),
        solver,
        quick,
    )


if __name__ == "__main__":
    print(run())
