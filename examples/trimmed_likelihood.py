"""Trimmed likelihood: maximise Σ of the h largest log Normal(y | xβ, σ)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known


def run(quick: bool = False) -> Row:
    found = th.fit(
        "loss ~ air_flow + water_temperature + acid",
        th.data.shipped("stackloss"),
        robust=th.Trimmed(17 / 21),
    )
    truth = known("air flow", found.estimates["air_flow"], 0.7977, "R robustbase, ltsReg", 5e-5)
    return Row(
        "trimmed likelihood",
        "stack loss, 17 of 21 days",
        "Σ of the h largest log Normal(y | xβ, σ)",
        "nats of the rows kept",
        found.trace[0][1],
        found.maximised,
        str(found.certificate),
        *truth,
    )


if __name__ == "__main__":
    print(run())
