"""A row of the tour: one system, what was maximised, what is known of the answer."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..evaluation.score import Score
from ..report.formatting import minuses
from ..result import Fit
from ..types import Settings, fields_of


@dataclass(frozen=True)
class Row:
    """One system of the tour.

    Parameters
    ----------
    system, data
        what was fitted, to what
    maximised
        the sum, as a formula
    kind
        what `before` and `after` are: nats of the data fitted, nats a held-out term, a return
    before, after
        at the start of the run, and at θ̂; None if the system could not run
    certificate
        what is known of θ̂; or the extra that the system needs
    truth
        what is known of the answer from elsewhere, and what was found
    agrees
        whether the two agree to the digits given; None where nothing is known beforehand
    score
        of held-out data, where the system stands in a comparison with others
    drawn
        draws from the model, (n, d), where they can be looked at
    """

    system: str
    data: str
    maximised: str
    kind: str
    before: float | None
    after: float | None
    certificate: str
    truth: str
    agrees: bool | None = None
    score: Score | None = dataclasses.field(default=None, compare=False, repr=False)
    drawn: Any = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def change(self) -> str:
        """
        Examples
        --------
        >>> Row("linear regression", "36 rows", "Σ log Normal", "nats", -261.334, -45.6466, "", "").change
        '−261.33 → −45.647'
        """
        if self.before is None or self.after is None:
            return ""
        return minuses(f"{self.before:.5g} → {self.after:.5g}")

    def __str__(self) -> str:
        mark = {True: "agrees: ", False: "DIFFERS: ", None: ""}[self.agrees]
        change = f"{self.change} {self.kind}" if self.change else ""
        lines = [
            f"{self.system}: {self.data}",
            f"maximise {self.maximised}",
            change,
            self.certificate,
            mark + self.truth,
        ]
        return "\n".join(line for line in lines if line)

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        known = {name: value for name, value in fields_of(self).items() if name not in ("score", "drawn")}
        return known | ({} if self.score is None else {"score": self.score.to_dict()})


def of_fit(found: Fit, system: str, data: str, maximised: str, truth: tuple[str, bool]) -> Row:
    return Row(
        system,
        data,
        maximised,
        "nats",
        found.trace[0][1],
        found.log_likelihood,
        str(found.certificate),
        *truth,
    )


def known(what: str, found: float, known: float, whence: str, within: float) -> tuple[str, bool]:
    """What is known and what was found, to the digits of what is known; and whether they agree."""
    digits = max(1, math.floor(1e-9 - math.log10(within)))
    return f"{what} {known:.{digits}f} ({whence}); found {found:.{digits}f}", bool(
        abs(found - known) <= within
    )
