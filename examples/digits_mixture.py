"""Mixture, by EM: maximise Σ log Σ_k π_k Π_j Categorical(y_j | a_kj)."""

from __future__ import annotations

from digits import GREY, LEVELS, PIXELS, row_of, steps

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    parts = [
        th.generative.FullyVisible(GREY, th.generative.MaskedMLP(PIXELS, LEVELS - 1, hidden=None, seed=k))
        for k in range(10)
    ]
    solver = steps(quick, 300, batch_size=128, learning_rate=0.1)
    return row_of(
        "mixture of images",
        "Σ log Σ_k π_k Π_j Categorical(y_j | a_kj)",
        th.models.Mixture(parts),
        solver,
        quick,
    )


if __name__ == "__main__":
    print(run())
