"""Preferences with ties, beside a figure that is known from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from ..data.shipped import shipped
from ..fit import fit
from ..preferences.bradley_terry import BradleyTerry
from ..preferences.comparisons import Preferences
from .row import Row, known, of_fit


def ties(quick: bool) -> Row:
    tastings = Preferences("winner", "loser", "count", tie="tie", data=shipped("pudding"))
    found = fit(BradleyTerry(items=tastings.items, ties="davidson"), tastings)
    truth = known("deviance", -2 * found.log_likelihood, 1619.4, "R PlackettLuce", 5e-2)
    return of_fit(found, "preferences with ties", "puddings, 745 tastings", "Σ w log(e^(±d/2) or ν)/Z", truth)


SYSTEMS: dict[str, Callable[[bool], Row]] = {"preferences with ties": ties}
