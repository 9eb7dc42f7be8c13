"""The same overfitted regression under two priors: the lasso, its scale by rows held out, and ridge, its
scale by the evidence."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch

from ..errors import MissingExtra
from ..fit import fit
from ..likelihood.priors import Laplace, Normal
from .row import Row, known

ENTER = (
    "bmi",
    "s5",
    "bp",
    "s3",
    "sex",
)  # Efron et al. (2004), and R's lars: the first columns of the lasso's path
BETWEEN = (
    920.0,
    650.0,
    380.0,
    200.0,
    100.0,
)  # penalties between the path's first knots, 949, 889, 453, 316, 130 and 89


def diabetes() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """442 patients: 10 columns of unit length beside y; all 64 of them, their squares and their products,
    standardised; the 10 names."""
    try:
        data = import_module("sklearn.datasets").load_diabetes()
    except ImportError as error:
        raise MissingExtra.named("scikit-learn", "sklearn") from error
    names, X, y = list(data.feature_names), data.data, data.target
    every = dict(zip(names, (X / X.std(0)).T, strict=True))
    for i, first in enumerate(names):
        for second in names[i:]:
            if first != "sex" or second != "sex":  # two values: its square is itself
                product = every[first] * every[second]
                every[f"{first}_{second}"] = (product - product.mean()) / product.std()
    return dict(zip(names, X.T, strict=True)) | {"y": y}, every | {"y": (y - y.mean()) / y.std()}, names


def lasso(quick: bool) -> Row:
    plain, every, names = diabetes()
    formula = "y ~ " + " + ".join(names)
    order: list[str] = []
    for penalty in BETWEEN:
        estimates = fit(formula, plain, scale=1.0, prior=Laplace(1 / penalty)).estimates
        order += [name for name in names if estimates[name] != 0 and name not in order]
    candidates: list[Any] = [None, *map(Laplace, (0.03,) if quick else (0.01, 0.03, 0.1))]
    choice = fit("y ~ " + " + ".join(list(every)[:-1]), every).choose_prior(
        candidates, folds=3 if quick else 5
    )
    before, after = choice.table["held_out"].iloc[0], choice.table["held_out"].max()
    return Row(
        "lasso",
        "diabetes, 442 patients, 64 columns",
        "Σ log Normal(y | xβ, σ) + Σ log Laplace(β | s)",
        "nats a held-out row, without a prior and with it",
        float(before),
        float(after),
        str(choice.fit.certificate),
        f"columns enter as {', '.join(ENTER)} (Efron et al. 2004); found {', '.join(order)}",
        tuple(order) == ENTER,
    )


def ridge(quick: bool) -> Row:
    _, every, _ = diabetes()
    columns = list(every)[:-1]
    start = fit("y ~ " + " + ".join(columns) + " - 1", every, scale=0.7, prior=Normal(1.0))
    choice = start.choose_prior(
        [Normal(s) for s in ((0.05, 0.1) if quick else (0.02, 0.05, 0.1, 0.2))], by="evidence", folds=2
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


SYSTEMS: dict[str, Callable[[bool], Row]] = {"lasso": lasso, "ridge, by the evidence": ridge}
