"""Lasso: maximise Σ log Normal(y | xβ, σ) + Σ log Laplace(β | s)."""

from __future__ import annotations

from typing import Any

from diabetes import BETWEEN, ENTER, diabetes

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    plain, every, names = diabetes()
    formula = "y ~ " + " + ".join(names)
    order: list[str] = []
    for penalty in BETWEEN:
        estimates = th.fit(formula, plain, scale=1.0, prior=th.priors.Laplace(1 / penalty)).estimates
        order += [name for name in names if estimates[name] != 0 and name not in order]
    candidates: list[Any] = [None, *map(th.priors.Laplace, (0.03,) if quick else (0.01, 0.03, 0.1))]
    choice = th.fit("y ~ " + " + ".join(list(every)[:-1]), every).choose_prior(
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


if __name__ == "__main__":
    print(run())
