"""The baseline hazard of each stratum of a Cox fit, as increments at its event times: of rows in memory, and along a file.

    dΛ = Σ_{terms} (v/u) / Σ_R w e^η,      its variance Σ (v/u²) / (Σ_R w e^η)²,      ∫ x̄ dΛ = Σ (v/u) m / Σ_R w e^η

of the terms of `models.partial`. Along a file the events of each batch have all rows at risk, as `models.cox_streamed` carries
them: one pass, of which is held what was asked for: a column each event time, or each time that was given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..memory import empty, reserve
from ..models.cox_pass import Joined
from ..models.partial import Partial
from .cox_fits import CoxFile, CoxFit


@dataclass(frozen=True, eq=False)
class Stratum:
    """Of one stratum, at its event times (or the times asked for, each with what happened since the one before), rising: the
    increments of the hazard of a row at the stratum's centre.

    time, hazard, variance : (m,), variance that of the cumulative hazard were β known
    drift : (p, m) Σ x̄ dΛ, of x̄ less the centre
    shift : x·β of the centre;  centre : (p,)
    last : the last time at which anyone was watched
    at_risk, events : (m,), weighted
    """

    time: np.ndarray
    hazard: np.ndarray
    variance: np.ndarray
    drift: np.ndarray
    shift: float
    centre: np.ndarray
    last: float
    at_risk: np.ndarray
    events: np.ndarray


def strata_of(
    found: CoxFit | CoxFile, times: np.ndarray | None = None, *, drift: bool = True
) -> dict[int, Stratum]:
    """Each stratum with events, by its code.

    Parameters
    ----------
    times
        at which the sums are wanted, which spares a file's from being held at every event; None: at each event time
    drift
        whether Σ x̄ dΛ is needed
    """
    return _along(found, times, drift) if isinstance(found, CoxFile) else _in_memory(found, drift)


def _in_memory(found: CoxFit, drift: bool) -> dict[int, Stratum]:
    partial = found.partial
    if bool(partial.exact.any()):
        partial = Partial(partial.rows, partial.eta, partial.weight, "breslow")
    hazard, variance = _increments(partial)
    moved = empty(len(found.covariance) if drift else 0, len(hazard))
    for own, C in found.columns() if drift else ():
        moved[own] = _drift(partial, C)
    sets, weight = partial.sets, partial.weight
    at_risk = sets.sums(torch.ones(len(sets.rows), dtype=torch.float64) if weight is None else weight)[0]
    values = torch.cat([torch.stack([hazard, variance, at_risk, partial.events]), moved])
    y = found.batch["y"]
    codes = found.model.stratum(found.batch)
    out = {}
    for code, row, a, b in found.starts():
        here = y if codes is None else y[codes == code]
        shift = float(found.eta[sets.rows[row]] - partial.eta[row])
        centre = found.centre(row).numpy()
        out[code] = _stratum(sets.time[a:b], values[:, a:b], shift, centre, float(here.max()))
    return out


def _increments(partial: Partial) -> tuple[Tensor, Tensor]:
    """dΛ and its variance, (m,) each."""
    total = torch.exp(-partial.log_total)
    variance = partial.by_slot(partial.v / partial.u**2 if partial.tied else partial.v)
    return partial.alpha * total, variance * total**2


def _drift(partial: Partial, X: Tensor) -> Tensor:
    """Σ x̄ dΛ, (p, m), of these columns of the rows at risk."""
    shares = partial.v / partial.u if partial.tied else partial.v
    out: Tensor = partial.by_slot(partial.means_of(X) * shares) * torch.exp(-partial.log_total)
    return out


def _stratum(time: Tensor, values: Tensor, shift: float, centre: np.ndarray, last: float) -> Stratum:
    """Of columns in falling time: hazard, variance, at_risk, events, and the drift."""
    hazard, variance, at_risk, events, *_ = rising = values.flip(-1).numpy()
    return Stratum(
        time=time.flip(-1).numpy(),
        hazard=hazard,
        variance=variance,
        drift=rising[4:],
        shift=shift,
        centre=centre,
        last=last,
        at_risk=at_risk,
        events=events,
    )


# ---- along a file ----------------------------------------------------------------------------------------------------


def _along(found: CoxFile, times: np.ndarray | None, drift: bool) -> dict[int, Stratum]:
    rows = len(found.theta) * drift + 5
    if times is None:
        events = found.source.events.get(1, 0)
        reserve(
            16.0 * rows * events, f"{rows} values at each of up to {events:,} event times", "Give times=."
        )
    parts: dict[int, _Parts] = {}
    last: dict[int, float] = {}
    carried, centre = 0.0, np.zeros(len(found.theta))
    for own, partial, _ in found.steps():
        _latest(own, last)
        unit = torch.ones(len(own.eta), dtype=torch.float64) if own.weight is None else own.weight.clone()
        unit[: own.first] = carried
        carried, centre = float(unit[own.of_last].sum()), own.centre[:, 0].numpy()
        if partial is None:
            continue
        sets = partial.sets
        values = torch.stack([*_increments(partial), sets.sums(unit[sets.rows])[0], partial.events])
        values = torch.cat([values, _drift(partial, partial.rows.X)]) if drift else values
        for a, b in zip(sets.slot_starts[:-1], sets.slot_starts[1:], strict=True):
            own_parts = parts.setdefault(int(sets.stratum[a]), _Parts(times))
            own_parts.add(sets.time[a:b], values[:, a:b])
    shift = float(found.theta @ torch.from_numpy(centre))
    return {code: _stratum(*parts[code].whole, shift, centre, last[code]) for code in sorted(parts)}


def _latest(own: Joined, last: dict[int, float]) -> None:
    """The last time of each stratum of a batch."""
    codes, place = np.unique(own.codes[own.first :].numpy(), return_inverse=True)
    most = np.full(len(codes), -np.inf)
    np.maximum.at(most, place, own.time[own.first :].numpy())
    for code, time in zip(codes.tolist(), most.tolist(), strict=True):
        last[code] = max(last.get(code, time), time)


class _Parts:
    """Columns of one stratum by falling time, from batch to batch: all of them, or their sums up to each time asked for."""

    def __init__(self, times: np.ndarray | None):
        self.at = None if times is None else torch.from_numpy(np.unique(times))
        self.time: list[Tensor] = []
        self.values: list[Tensor] = []

    def add(self, time: Tensor, values: Tensor) -> None:
        if self.at is None:
            self.time.append(time.clone())
            self.values.append(values.clone())
            return
        if not self.values:
            self.values = [values.new_zeros(len(values), len(self.at) + 1)]
        # an event counts from the first time asked for that is not before it; after the last one it does not
        self.values[0].index_add_(1, torch.searchsorted(self.at, time), values)

    @property
    def whole(self) -> tuple[Tensor, Tensor]:
        if self.at is None:
            return torch.cat(self.time), torch.cat(self.values, 1)
        return self.at.flip(0), self.values[0][:, :-1].flip(1)
