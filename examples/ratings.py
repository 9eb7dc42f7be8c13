"""Bradley–Terry ratings: maximise Σ w log σ(r_winner − r_loser)."""

from __future__ import annotations

import thetahat as th
from thetahat.tour.row import Row, known, of_fit


def run(quick: bool = False) -> Row:
    teams = th.data.Frame(th.data.shipped("baseball")).read(["winner"])["winner"]
    order = ["Baltimore", *sorted(set(teams) - {"Baltimore"})]
    games = th.preferences.Preferences(
        "winner", "loser", "games", data=th.data.shipped("baseball"), items=order
    )
    found = th.fit(th.preferences.BradleyTerry(items=games.items), games)
    truth = known("Milwaukee", found.estimates["Milwaukee"], 1.5814, "R BradleyTerry2", 5e-5)
    return of_fit(
        found, "Bradley–Terry ratings", "baseball, 273 games", "Σ w log σ(r_winner − r_loser)", truth
    )


if __name__ == "__main__":
    print(run())
