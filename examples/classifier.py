"""Network classifier: maximise Σ log Categorical(y | f_θ(x))."""

from __future__ import annotations

import math
from importlib import import_module

import torch

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    try:
        digits = import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise th.errors.MissingExtra.named("scikit-learn", "sklearn") from error
    x, y = torch.tensor(digits.data, dtype=torch.uint8), torch.tensor(digits.target)
    train, test = slice(0, 1400), slice(1400, None)
    held_out = th.data.Tensors({"x": x[test], "y": y[test]})
    network = th.generative.ConvNet((8, 8), 10, (16, 32), levels=17)
    solver = th.Stochastic(
        steps=60 if quick else 200, batch_size=100, learning_rate=0.01, warmup_steps=20, held_out=None
    )
    shifted = th.generative.Augmented(
        th.data.Tensors({"x": x[train], "y": y[train]}), th.generative.Shifts((8, 8), 1)
    )
    before = th.evaluation.score.score(
        th.models.Conditional(th.families.Categorical(10), network), held_out
    ).mean
    found = th.fit(th.models.Conditional(th.families.Categorical(10), network), shifted, solver=solver)
    after = found.score(held_out)
    right = (found.model.probabilities(held_out.whole).argmax(-1) == y[test]).double().mean()
    calibration = found.calibration_error(held_out)
    return Row(
        "network classifier",
        "digits, 1400 images, shifted",
        "Σ log Categorical(y | f_θ(x))",
        "nats a held-out image",
        before,
        after.mean,
        f"stochastic: on 397 other images {after.mean:.3f} ± {after.standard_error:.3f} nats; calibration "
        f"error {100 * calibration.value:.1f} %",
        f"chance is −log 10 = {-math.log(10):.3f} nats and 10 % right; found {100 * float(right):.1f} % "
        "right",
    )


if __name__ == "__main__":
    print(run())
