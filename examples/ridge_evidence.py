"""Ridge, by the evidence: maximise log ∫ Π Normal(y | xβ, σ) · Π Normal(β | s) dβ."""

from __future__ import annotations

import numpy as np
import torch
from diabetes import diabetes

import thetahat as th
from thetahat.tour.row import Row, known


def run(quick: bool = False) -> Row:
    _, every, _ = diabetes()
    columns = list(every)[:-1]
    start = th.fit("y ~ " + " + ".join(columns) + " - 1", every, scale=0.7, prior=th.priors.Normal(1.0))
    choice = start.choose_prior(
        [th.priors.Normal(s) for s in ((0.05, 0.1) if quick else (0.02, 0.05, 0.1, 0.2))],
        by="evidence",
        folds=2,
    )
    X = torch.tensor(np.stack([every[name] for name in columns], 1))
    covariance = choice.scale**2 * X @ X.T + 0.7**2 * torch.eye(len(X), dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(len(X), dtype=torch.float64), covariance)
    closed = float(exact.log_prob(torch.tensor(every["y"])))
    return Row(
        "ridge, by the evidence",
        "diabetes, 442 patients, 64 columns",
        "log ∫ Π Normal(y | xβ, σ) · Π Normal(β | s) dβ",
        "nats of evidence, of s = 1 and of the chosen scale",
        start.evidence,
        choice.fit.evidence,
        str(choice.fit.certificate),
        *known("log p(y)", choice.fit.evidence, closed, "N(0, s²XXᵀ + σ²I)", 1e-6),
    )


if __name__ == "__main__":
    print(run())
