"""Regressions, pixel by pixel: maximise Σ_i Σ_j log Categorical(y_j | a_j + B_j·y_<j)."""

from __future__ import annotations

from digits import GREY, LEVELS, PIXELS, row_of, steps

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    model = th.generative.FullyVisible(
        GREY, th.generative.MaskedMLP(PIXELS, LEVELS - 1, hidden=(), levels=LEVELS)
    )
    solver = steps(quick, 600, batch_size=128, learning_rate=3e-3 if not quick else 2e-2)
    return row_of(
        "regressions, pixel by pixel", "Σ_i Σ_j log Categorical(y_j | a_j + B_j·y_<j)", model, solver, quick
    )


if __name__ == "__main__":
    print(run())
