"""Preferences with ties: maximise Σ w log(e^(±d/2) or ν)/Z."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    tastings = th.preferences.Preferences(
        "winner", "loser", "count", tie="tie", data=th.data.shipped("pudding")
    )
    found = th.fit(th.preferences.BradleyTerry(items=tastings.items, ties="davidson"), tastings)
    truth = known("deviance", -2 * found.log_likelihood, 1619.4, "R PlackettLuce", 5e-2)
    return of_fit(found, "preferences with ties", "puddings, 745 tastings", "Σ w log(e^(±d/2) or ν)/Z", truth)


if __name__ == "__main__":
    print(run())
