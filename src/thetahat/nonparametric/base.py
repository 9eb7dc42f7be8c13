"""What every nonparametric fit has: the log-likelihood, the certificate, a summary, a chart; and how steps are read at
other times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from ..errors import BadArgument
from ..evaluation.product_limit import Steps
from ..models.nonparametric import Times
from ..notebook import Printed
from ..printable import encodable, encoded, printable
from ..solvers.certificate import Certificate
from ..types import Chart, Named, Settings


class Curves(ABC):
    """A nonparametric fit: curves of groups, the log-likelihood, the certificate. It does not change.

    Parameters
    ----------
    times
        what was seen, in groups
    certificate, log_likelihood
        of the maximum, in nats: of the mass that the curves give to what was seen
    call
        by which it was made
    """

    title: ClassVar[str]
    certificate: Certificate
    log_likelihood: float
    call: Named
    times: Times

    def __init__(self, times: Times, certificate: Certificate, log_likelihood: float, call: Named):
        self.__dict__.update(
            times=times, certificate=certificate, log_likelihood=log_likelihood, call=dict(call)
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"a fit does not change: {name} cannot be set. Fit again, or copy what you need."
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in the order of their rows in every table."""
        return self.times.groups

    @property
    def observations(self) -> float:
        """n = Σ count."""
        return float(self.times.weight.sum())

    @abstractmethod
    def curves(
        self, *, times: Sequence[float] | None = None, level: float = 0.95, interval: str = "log-log"
    ) -> pd.DataFrame: ...

    @abstractmethod
    def _table(self, level: float) -> pd.DataFrame:
        """A row a group, for the summary."""

    def summary(self, *, level: float = 0.95) -> CurveSummary:
        """The fit on one screen: it prints itself. level: of the intervals."""
        return CurveSummary(self, level)

    def plot(self, what: str = "survival", *, level: float = 0.95) -> Chart:
        """A chart of the curves, as steps with their bands: "survival", of competing risks "incidence"."""
        from ..report.curve_plots import plot

        return plot(self, what, level)

    def __repr__(self) -> str:
        many = len(self.groups)
        return encodable(
            printable(
                f"{type(self).__name__}({many} curve{'s' * (many != 1)} of {self.times.response}; "
                f"log_likelihood={self.log_likelihood:.6g} nats; {self.certificate.status})"
            )
        )

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


class CurveSummary(Printed):
    """What was fitted, a line a group, the log-likelihood, the certificate."""

    def __init__(self, fit: Curves, level: float = 0.95):
        self.fit, self.level, self.table = fit, level, fit._table(level)

    @encoded
    def __str__(self) -> str:
        fit, times = self.fit, self.fit.times
        right = times.formula.partition("~")[2].strip()
        seen = f"{len(times.time):,} rows"
        if times.weights is not None:
            seen += f", {fit.observations:,g} observations (weights {times.weights!r})"
        if times.dropped:
            seen += f"; {times.dropped} dropped because a value is missing"
        lines = [
            f"{fit.title}: {times.response} ~ {right}",
            f"data            {seen}",
            "",
            self.table.to_string(index=False, float_format=lambda v: f"{v:.4g}", na_rep="-"),
            "",
            f"log-likelihood  {fit.log_likelihood:.6g} nats  (exact mass of {times.response})",
            str(fit.certificate),
        ]
        return printable("\n".join(lines))

    def __repr__(self) -> str:
        return str(self)

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        fit = self.fit
        rows = self.table.astype(object).where(self.table.notna(), None)
        return {
            **fit.call,
            "level": self.level,
            "observations": fit.observations,
            "dropped": fit.times.dropped,
            "groups": rows.to_dict("records"),
            "log_likelihood": fit.log_likelihood,
            "certificate": fit.certificate.to_dict(),
        }


def checked_times(times: Sequence[float]) -> np.ndarray:
    """Times at which to read a curve, as an array (m,)."""
    try:
        at = np.atleast_1d(np.asarray(times, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise BadArgument(f"times={times!r}. Accepted: times of at least 0, such as [12, 24].") from error
    if at.ndim != 1 or not len(at) or not np.isfinite(at).all() or (at < 0).any():
        raise BadArgument(f"times={times!r}. Accepted: finite times of at least 0, such as [12, 24].")
    return at


def read_at(curve: pd.DataFrame, at: np.ndarray, columns: list[str]) -> pd.DataFrame:
    """Steps read at any times; NaN after the last where the curve of survival is not 0."""
    t, place = curve["time"].to_numpy(), np.searchsorted(curve["time"], at, side="right") - 1
    out = curve[columns].iloc[place.clip(min=0)].reset_index(drop=True)
    if curve["survival"].iloc[-1] > 0:
        out.loc[at > t[-1]] = np.nan
    return out


def closed_form(counts: Sequence[Steps], groups: Sequence[str]) -> Certificate:
    size = sum(int((s.events > 0).sum()) for s in counts)
    none = [name for name, s in zip(groups, counts, strict=True) if not s.total.any()]
    detail = "Closed form."
    if none:
        shown = ", ".join(none[:4]) + (" …" if len(none) > 4 else "")
        detail += f" No event was seen in {shown}: the curve is 1 throughout."
    for name, s in zip(groups, counts, strict=True):
        ended = np.flatnonzero(s.hazard >= 1)
        if len(ended) and ended[0] < len(s.time) - 1:
            detail += (
                f" But in {name}, every row at risk at {s.time[ended[0]]:g} had the event: the curve is 0 from then on, though "
                "rows were watched later. For a curve from a later time on, keep the rows that lasted until then."
            )
    return Certificate("certified maximum", 0.0, 0.0, concave=True, rank=size, size=size, detail=detail)
