"""Latent variables of a likelihood of one's own: maximise Σ_trees log ∫ Π Normal(y | (A + b) / (1 + e^−(t − m)/s), σ) Normal(b | 0, τ) db."""

from __future__ import annotations

from typing import Any

import torch

import thetahat as th
from thetahat.tour.row import Row, known, of_fit

AGE = (
    118,
    484,
    664,
    1004,
    1231,
    1372,
    1582,
)  # days, and the girths of 5 orange trees: Draper and Smith (1981)
GIRTH = (
    (30, 58, 87, 115, 120, 142, 145),
    (33, 69, 111, 156, 172, 203, 203),
    (30, 51, 75, 108, 115, 139, 140),
    (32, 62, 112, 167, 179, 209, 214),
    (30, 49, 81, 125, 142, 174, 177),
)


def run(quick: bool = False) -> Row:
    @th.model(
        asymptote=200.0,
        middle=725.0,
        scale=350.0,
        sigma=th.positive(8.0),
        b=th.latent(by="tree", sd=30.0),
    )
    def growth(
        batch: Any,
        asymptote: torch.Tensor,
        middle: torch.Tensor,
        scale: torch.Tensor,
        sigma: torch.Tensor,
        b: torch.Tensor,
    ) -> Any:
        mean = (asymptote + b) / (1 + torch.exp(-(batch["age"] - middle) / scale))
        return th.families.Normal().at(mean, sigma)

    table = {
        "tree": [i for i, own in enumerate(GIRTH) for _ in own],
        "age": [float(a) for _ in GIRTH for a in AGE],
        "y": [float(g) for own in GIRTH for g in own],
    }
    found = th.fit(growth, table)
    truth = known("sd of trees", found.estimates["sd(b | tree)"], 31.6463, "R, nlmer", 1e-4)
    return of_fit(
        found, "nonlinear mixed model", "orange trees, 35 rows", "log ∫ Π Normal(y | b) Normal(b) db", truth
    )


if __name__ == "__main__":
    print(run())
