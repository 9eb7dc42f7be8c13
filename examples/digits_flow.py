"""Flow: maximise Σ log ∫ p(y + u) du,  p(x) = N(f(x))·|f′(x)|."""

from __future__ import annotations

from digits import LEVELS, PIXELS, row_of, steps

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    flow = th.generative.Flow.affine(PIXELS, transforms=5, hidden=(128,))
    model = th.generative.Dequantised(flow, levels=LEVELS, maps=["logit", th.data.maps.Standardise(0.0, 2.5)])
    solver = steps(quick, 400, batch_size=128, learning_rate=3e-3)
    return row_of(
        "flow",
        "Σ log ∫ p(y + u) du,  p(x) = N(f(x))·|f′(x)|",
        model,
        solver,
        quick,
        samples=4 if quick else 16,
    )


if __name__ == "__main__":
    print(run())
