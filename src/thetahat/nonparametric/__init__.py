"""What a fit without parameters finds, and all that can be asked of it: Kaplan–Meier and Turnbull curves
(family="nonparametric"), cumulative incidences of competing risks (family="aalen_johansen").

The likelihood is that of the masses (or hazards) at the times that were seen: as many as the data ask for. It has its
maximum in closed form, or, of times known up to intervals, by `solvers.turnbull`, with a bound on the gap.
"""

from __future__ import annotations

from ..errors import NotConverged
from ..models.nonparametric import read_times
from ..types import Data, Named
from .base import Curves, CurveSummary
from .competing_risks import CompetingRisks
from .survival import Nonparametric

__all__ = ["CompetingRisks", "CurveSummary", "Curves", "Nonparametric", "fit_curves"]


def fit_curves(
    formula: str,
    data: Data,
    family: str,
    *,
    weights: str | None = None,
    missing: str = "drop",
    trusted: bool = False,
    on_failure: str = "raise",
) -> Curves:
    """What `th.fit` gives for family="nonparametric" and family="aalen_johansen".

    Raises
    ------
    NotConverged
        Turnbull's masses could not be certified, and on_failure is "raise"
    """
    causes = family == "aalen_johansen"
    times = read_times(formula, data, causes=causes, weights=weights, missing=missing, trusted=trusted)
    call: Named = {"formula": formula, "family": family, "weights": weights, "missing": missing}
    found: Curves = CompetingRisks(times, call) if causes else Nonparametric(times, call)
    if not found.certificate.ok and on_failure == "raise":
        raise NotConverged(str(found.certificate), found.certificate, found)
    return found
