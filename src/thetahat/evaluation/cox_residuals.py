"""Residuals of Cox's model, and the test of its proportional hazards.

    martingale           M_i = events_i − q_i, q_i the expected number by `models.partial`
    cox-snell            events_i − M_i = Λ̂(t_i | x_i) since it entered: as times of rate 1, censored where t_i is, if the model is true
    deviance             sign(M) √(−2 (M + events log(events − M))): as normal as martingale residuals can be made
    score                each row's part of the gradient: Σ over the times at which it is at risk of (x − x̄) dM
    dfbeta               J⁻¹ times it: about how much β̂ changes if the row is left out
    schoenfeld           x − x̄(t) of each event
    scaled schoenfeld    d V times it, plus β̂: a smooth line through it estimates β(t); d the number of events

References
----------
Cox and Snell (1968), A general definition of residuals; Therneau, Grambsch and Fleming (1990), Martingale-based residuals
for survival models; Grambsch and Therneau (1994), Proportional hazards tests and diagnostics based on weighted residuals;
Therneau and Grambsch (2000), Modeling Survival Data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..distributions import chi2
from ..errors import BadArgument
from ..models.risk_sets import risk_sets
from . import cox_file_residuals
from .cox_fits import CoxFit, cox_file, cox_fit, stratum_names
from .outliers import alignment_of

if TYPE_CHECKING:
    from ..result import Fit

KINDS = ("martingale", "cox-snell", "deviance", "score", "dfbeta", "schoenfeld", "scaled schoenfeld")
ALONE = ("martingale", "cox-snell", "deviance")  # a number each row
TRANSFORMS = ("km", "identity", "rank", "log")


def residuals(fit: Fit, kind: str = "martingale") -> np.ndarray | pd.Series | pd.DataFrame:
    """Residuals of a fit with family="cox".

    Parameters
    ----------
    kind
        "martingale", "cox-snell", "deviance": a number each row that was given, NaN where the fit left it out. "score", "dfbeta": a
        frame with a column each coefficient, likewise. Of a fit with random effects or smooth terms there are the first
        three, at the conditional modes. "schoenfeld", "scaled schoenfeld": a row each event, in rising
        time (within strata), with the time, the stratum where there are several, and a column each coefficient. Of a
        row that stands for several, "martingale", "cox-snell", "deviance" and "score" are of one of them, "dfbeta" of all

    Raises
    ------
    BadArgument
        an unknown kind, a fit of another model, or one with exact ties, which has martingale residuals alone

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0], "e": [1, 1, 0, 1], "x": [1.0, 0.0, 1.0, 0.0]}
    >>> residuals(th.fit("Surv(t, e) ~ 1", data, family="cox")).round(4).tolist()
    [0.75, 0.4167, -0.5833, -0.5833]
    """
    _check(kind)
    file = cox_file(fit)
    if file is not None:
        return cox_file_residuals.collected(file, kind)
    found = cox_fit(fit, f"a residual of the kind {kind!r}", effects=kind in ALONE)
    if "schoenfeld" in kind:
        return _schoenfeld(found, kind.startswith("scaled"))
    if kind in ("score", "dfbeta"):
        s = found.model.weighted_scores(found.batch, found.weight)
        if kind == "dfbeta":
            s = (s * found.unit[:, None]) @ found.inverse()
        frame: pd.DataFrame = alignment_of(fit.source)(pd.DataFrame(s.numpy(), columns=found.model.names))
        return frame
    values = cox_file_residuals.of_martingale(kind, _martingale(found), found.batch["event"])
    out: np.ndarray | pd.Series = alignment_of(fit.source)(values.numpy())
    return out


def residual_blocks(fit: Fit, kind: str = "martingale") -> Iterator[pd.DataFrame]:
    """The same of a fit that streams its rows from a file, a block at a time, which is all that is held: for files whose
    residuals are as large as they are.

    Parameters
    ----------
    kind
        as of `residuals`

    Yields
    ------
    pd.DataFrame
        a row each row that was fitted (of the kinds of Schoenfeld each event), in falling time within a stratum. The index has
        their numbers in the file, from 0

    Raises
    ------
    BadArgument
        an unknown kind, or a fit whose rows are in memory

    Examples
    --------
    >>> for block in residual_blocks(fit, "dfbeta"):  # doctest: +SKIP
    ...     writer.write_table(pyarrow.Table.from_pandas(block))
    """
    _check(kind)
    file = cox_file(fit)
    if file is None:
        raise BadArgument(
            "residual_blocks is of a fit with family='cox' that streams its rows from a file. Others have residuals(fit, kind)."
        )
    return cox_file_residuals.blocks(file, kind)


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise BadArgument(f"residuals kind {kind!r}. Accepted: {', '.join(map(repr, KINDS))}.")


def _martingale(found: CoxFit) -> Tensor:
    partial = found.partial
    out = torch.zeros(len(found.batch), dtype=torch.float64)  # a row that was at risk at no event has none
    own = partial.residual if partial.weight is None else partial.residual / partial.weight
    out[partial.sets.rows] = own
    return out


def cox_snell_of(found: CoxFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cox–Snell residuals of the rows that were used, whether the event was seen, and how often each was observed."""
    event = found.batch["event"]
    count = found.batch.count.to(torch.float64)
    return (event - _martingale(found)).numpy(), (event == 1).numpy(), count.numpy()


def _schoenfeld(found: CoxFit, scaled: bool) -> pd.DataFrame:
    partial, sets = found.partial, found.partial.sets
    _refuse_exact(found)
    values = (partial.rows.X[:, sets.failed] - partial.slot_means[:, sets.slot]).T
    if scaled:
        d = float(partial.events.sum())
        values = d * values @ found.inverse() + found.theta
    order = np.lexsort(
        (sets.rows[sets.failed].numpy(), sets.time[sets.slot].numpy(), sets.stratum[sets.slot].numpy())
    )
    out = pd.DataFrame(values.numpy(), columns=found.model.names)
    out.insert(0, "time", sets.time[sets.slot].numpy())
    if found.model.strata is not None:
        codes = [code for code, *_ in found.starts()]
        names = dict(zip(codes, stratum_names(found.model, codes), strict=True))
        out.insert(1, "stratum", [names[int(g)] for g in sets.stratum[sets.slot]])
    return out.iloc[order].reset_index(drop=True)


def _refuse_exact(found: CoxFit) -> None:
    if bool(found.partial.exact.any()):
        raise BadArgument(
            "ties='exact' has martingale residuals alone, since tied events are drawn together. Use ties='efron'."
        )


# ---- proportional hazards ------------------------------------------------------------------------------------------


def proportional_hazards(fit: Fit, transform: str = "km", *, terms: bool = True) -> pd.DataFrame:
    """Score tests of β(t) = β + θ g(t), θ = 0: whether the effect of each term changes with time.

        U = Σ_events g(t) (x − x̄),      I = [ Σ C_k    Σ g C_k  ]       χ² = uᵀ I⁻¹ u,  u = (0, U)
                                            [ Σ g C_k  Σ g² C_k ]

    C_k is the covariance of x at risk at t_k. The test of one term has all of β, and the θ of that term.

    Parameters
    ----------
    transform
        g: "km" (1 − the Kaplan–Meier estimate just before t: as good as uniform), "identity" (t), "rank" (among
        the times of all rows, censored or not), "log"
    terms
        a test each category with all its levels; False: a test each coefficient

    Returns
    -------
    pd.DataFrame
        a row each term, and "all": statistic, df, p

    Raises
    ------
    BadArgument
        a fit of another model, an unknown transform, or log of a time that is not positive

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"t": [1.0, 2.0, 3.0, 4.0, 5.0], "e": [1, 1, 0, 1, 1], "x": [1.0, 0.0, 1.0, 0.0, 1.0]}
    >>> fit = th.fit("Surv(t, e) ~ x", data, family="cox")
    >>> proportional_hazards(fit, "identity").round(4).loc["x"].tolist()
    [1.4207, 1.0, 0.2333]
    """
    found = cox_fit(fit, "the test of proportional hazards")
    _refuse_exact(found)
    partial, p = found.partial, found.model.layout.size
    if not p:
        raise BadArgument("the model has no coefficients whose effect could change with time.")
    sets = partial.sets
    g = torch.tensor(np.array(_of_time(found, transform)))
    g = g - (g * partial.events).sum() / partial.events.sum()  # which changes nothing but rounding
    U = partial.rows.X[:, sets.failed] - partial.slot_means[:, sets.slot]
    U = (U * (partial.units * g[sets.slot])).sum(1)
    first, cross, second = partial.information, partial.information_over(g), partial.information_over(g * g)
    J = torch.cat([torch.cat([first, cross], 1), torch.cat([cross, second], 1)])
    groups = _groups(found, terms)
    rows = {}
    for name, own in {**groups, "all": list(range(p))}.items():
        index = torch.tensor([*range(p), *(p + j for j in own)])
        u = torch.cat([torch.zeros(p, dtype=torch.float64), U[own]])
        statistic = float(u @ torch.linalg.solve(J[index[:, None], index], u))
        rows[name] = (statistic, len(own), float(chi2.sf(statistic, len(own))))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["statistic", "df", "p"])


def _groups(found: CoxFit, terms: bool) -> dict[str, list[int]]:
    """Which coefficients are tested together."""
    predictor, names = found.model.predictors[0], found.model.names
    if not terms:
        return {name: [j] for j, name in enumerate(names)}
    out = {name: [j] for j, name in enumerate(names[: predictor.design.columns])}
    for (_, start, size), term in zip(predictor.terms, predictor.design.coded, strict=True):
        out[term.term] = list(range(start, start + size))
    return out


def _of_time(found: CoxFit, transform: str) -> np.ndarray:
    """g at each slot, (m,)."""
    if transform not in TRANSFORMS:
        raise BadArgument(f"transform={transform!r}. Accepted: {', '.join(map(repr, TRANSFORMS))}.")
    sets = found.partial.sets
    time = sets.time.numpy()
    if transform == "identity":
        return time.copy()
    if transform == "log":
        if not (time > 0).all():
            raise BadArgument(
                f"transform='log' of the event time {time.min():g}: it takes positive times alone."
            )
        logarithm: np.ndarray = np.log(time)
        return logarithm
    if transform == "rank":
        y, unit = found.batch["y"].numpy(), found.batch.count.to(torch.float64).numpy()
        seen, where = np.unique(y, return_inverse=True)
        many = np.bincount(where, weights=unit)
        ranks = np.cumsum(many) - (many - 1) / 2  # of tied times their mean
        chosen: np.ndarray = ranks[np.searchsorted(seen, time)]
        return chosen
    # of all strata together: the events per row at risk, and the product of what is left, before each time
    used = None if found.weight is None else found.weight > 0
    pooled = risk_sets(found.batch["y"], found.batch["event"], found.batch.tensors.get("entry"), None, used)
    assert pooled is not None
    count = found.batch.count.to(torch.float64)[pooled.rows]
    at_risk = pooled.sums(count)[0].numpy()
    events = np.bincount(pooled.slot.numpy(), weights=count[pooled.failed].numpy(), minlength=pooled.size)
    rising = slice(None, None, -1)
    left = np.cumprod((1 - events / at_risk)[rising])
    before = np.concatenate([[1.0], left[:-1]])
    out: np.ndarray = 1 - before[np.searchsorted(pooled.time.numpy()[rising], time)]
    return out
