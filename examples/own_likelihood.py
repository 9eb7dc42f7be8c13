"""A likelihood of one's own: maximise Σ log Normal(y | b₁(1 − e^(−b₂x)), σ)."""

from __future__ import annotations

from typing import Any

import torch

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    @th.model(b1=500.0, b2=1e-4, sigma=th.positive(1.0))
    def misra1a(batch: Any, b1: torch.Tensor, b2: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return th.families.Normal().log_prob(batch["y"], b1 * (1 - torch.exp(-b2 * batch["x"])), sigma)

    found = th.fit(misra1a, th.data.shipped("misra1a"))
    truth = known("b1", found.estimates["b1"], 238.94212918, "NIST", 5e-9)
    return of_fit(
        found,
        "a likelihood of one's own",
        "adsorption, 14 rows",
        "Σ log Normal(y | b₁(1 − e^(−b₂x)), σ)",
        truth,
    )


if __name__ == "__main__":
    print(run())
