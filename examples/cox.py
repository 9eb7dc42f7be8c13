"""Proportional hazards: maximise Σ_events [η − log Σ_{at risk} e^η]."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    table = {  # Miller (1997): weeks to relapse, with and without maintained chemotherapy
        "time": [9, 13, 13, 18, 23, 28, 31, 34, 45, 48, 161, 5, 5, 8, 8, 12, 16, 23, 27, 30, 33, 43, 45],
        "status": [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1],
        "maintained": [1] * 11 + [0] * 12,
    }
    found = th.fit("Surv(time, status) ~ maintained", table, family="cox")
    truth = known("log hazard ratio", found.estimates["maintained"], -0.915532575, "R, survival 3.5-3", 1e-7)
    return of_fit(
        found, "Cox's hazards", "23 patients with leukaemia", "Σ events [η − log Σ at risk e^η]", truth
    )


if __name__ == "__main__":
    print(run())
