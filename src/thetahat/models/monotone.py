"""Whether Cox's partial likelihood rises for ever along some direction, decided by linear programming.

    log p rises or stays along δ at every event  ⟺  (x_i − x_j)·δ ≥ 0 for each event i and each j at risk there

If one of these is strict, every multiple of δ is better: the likelihood is monotone and has no maximum. (Where δ
separates no tied events from each other; of the exact likelihood only those at risk without an event count.) The
score at β = 0, s = Σ_events (x_i − mean over those at risk), is a sum of such differences with positive weights, so

    maximise s·δ   subject to   (x_i − x_j)·δ ≥ 0,   −1 ≤ δ ≤ 1

is above 0 exactly if there is such a direction. The constraints are Σ_k |D_k| |R_k|, too many to write out: those
that the solution violates are found by a running maximum over the risk sets, O(n p), and added.

References
----------
Heinze and Schemper (2001), A solution to the problem of monotone likelihood in Cox regression; Jacobsen (1989),
Existence and unicity of MLEs in discrete exponential family distributions.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from .partial import Partial, Rows
from .risk_sets import RiskSets

if TYPE_CHECKING:
    from .cox import CoxRegression
    from .taylor import Taylor

CUTS, ROUNDS = 400, 200  # constraints that are added at once, and how often
TINY = 1e-7
EPS = torch.finfo(torch.float64).eps
ROUNDING = 1e-10  # of an eigenvalue of a matrix with 1 on its diagonal
FAR = (1e2, 1e6, 1e10, 1e14)  # multiples of a direction at which the likelihood must not have fallen


def monotone(model: CoxRegression, batch: Batch) -> tuple[str, dict[str, float], str] | None:
    """(status, direction, why) where there is no maximum; None where there is one, or a direction along which
    nothing changes at all."""
    with torch.no_grad():
        weight = batch.count.to(torch.float64) if batch.counted else None
        rows, exact = model.ordered(batch, weight), model.family.ties == "exact"
        if rows is None or not model.layout.size or bounded(rows, model.taylor(batch, batch._count), exact):
            return None
        found = model.at(batch, weight)
        assert found is not None
        direction = recession(found, exact)
    if direction is None:
        return None
    names = model.names
    largest = float(direction.abs().max())
    kept = {
        n: float(d) / largest for n, d in zip(names, direction, strict=True) if abs(float(d)) > 1e-6 * largest
    }
    shown = " + ".join(f"{d:.4g}·{n}" if abs(d - 1) > 1e-9 else n for n, d in kept.items()).replace(
        "+ -", "− "
    )
    culprit = next(iter(kept)) if len(kept) == 1 else None
    way = (
        f"as the coefficient of {culprit} goes to {'+' if kept[culprit] > 0 else '−'}∞"
        if culprit
        else f"along {shown}"
    )
    most = f"{'largest' if kept[culprit] > 0 else 'smallest'} {culprit}" if culprit else f"largest {shown}"
    what = f"at every event the row that has it has the {most} of those at risk"
    return (
        "no maximum",
        kept,
        f"the partial likelihood has no maximum: {what}, so that it rises for ever {way}. "
        f"Leave out {', '.join(kept)}, or put a prior on {'it' if culprit else 'them'} "
        "(prior=th.priors.Normal(2.5), --prior normal:2.5).",
    )


def bounded(rows: Rows, at: Taylor, exact: bool) -> bool:
    """Whether the gradient g and the information J at one β prove that no direction is monotone.

    Along such a δ the events have the largest x·δ of those at risk. Then g·δ is a sum of v π (x_D − x_j)·δ, all ≥ 0,
    and δᵀJδ, a sum of variances, is at most that of v π ((x_D − x_j)·δ)², so that

        δᵀJδ ≤ (the largest |(x_D − x_j)·δ|) · g·δ

    Where the smallest eigenvalue of J is above what that allows, as at every maximum, there is none.
    """
    if at.information is None:
        return False
    J, g = at.information.dense(), at.gradient
    unit = J.diagonal().clamp(min=0).sqrt()  # coordinates in which every column has information 1
    if not (bool((unit > 0).all()) and bool(torch.isfinite(J).all()) and bool(torch.isfinite(g).all())):
        return False
    X = rows.X.numpy()  # whose minima are found in half of the time that torch takes
    largest = torch.from_numpy(np.maximum(-X.min(1), X.max(1)))
    many = float(rows.deaths.max()) if exact else 1.0
    widest = 2 * many * float((largest / unit).norm())
    least = float(torch.linalg.eigvalsh(J / unit[:, None] / unit)[0])
    return least > 2 * widest * float((g / unit).norm()) and least > ROUNDING


def recession(found: Partial, exact: bool) -> Tensor | None:
    """A direction δ, (p,), along which no event ever becomes less probable and some become more so."""
    from scipy.optimize import linprog  # takes long to load

    rows, sets = found.rows, found.sets
    scale = rows.X.abs().max(1).values
    scale = torch.where(scale > 0, scale, 1.0)
    X = rows.X / scale[:, None]
    flat = Partial(type(rows)(sets, X, None), torch.zeros(X.shape[1], dtype=torch.float64), None, "breslow")
    score = flat.gradient / len(sets.failed)
    cuts: list[np.ndarray] = []
    delta = torch.sign(score)
    for _ in range(ROUNDS):
        violated = _violated(sets, X, delta, exact)
        if violated is None:
            if float(score @ delta) <= TINY:
                return None
            delta = _plainest(sets, X, delta, score, exact)
            return delta / scale if _rises(found, delta @ X, exact) else None
        cuts.append(violated)
        A = np.unique(np.concatenate(cuts), axis=0)
        solved = linprog(-score.numpy(), A_ub=-A, b_ub=np.zeros(len(A)), bounds=(-1, 1), method="highs")
        if solved.x is None or -solved.fun <= TINY:
            return None
        delta = torch.from_numpy(solved.x)
    return None


def _rises(found: Partial, eta: Tensor, exact: bool) -> bool:
    """Whether ℓ does not fall along δ, far out: a programme solved to 10⁻⁷ leaves differences that are smaller, and
    there they are large."""
    ties = "exact" if exact else "efron" if found.tied else "breslow"
    own = found.rows.count if exact else None
    values = [float(Partial(found.rows, t * eta, own, ties, 1).value) for t in (0.0, *FAR)]
    noise = [8 * EPS * t * len(found.sets.failed) + TINY for t in FAR]  # of linear predictors of that size
    kept = all(b >= a - n for (a, b), n in zip(itertools.pairwise(values), noise, strict=True))
    return kept and values[1] > values[0]


def _plainest(sets: RiskSets, X: Tensor, delta: Tensor, score: Tensor, exact: bool) -> Tensor:
    """One column alone, where that is such a direction; else δ."""
    for j in torch.nonzero((delta.abs() > TINY) & (score.abs() > TINY))[:50, 0].tolist():
        alone = torch.zeros_like(delta)
        alone[j] = torch.sign(score[j])
        if _violated(sets, X, alone, exact) is None:
            return alone
    return delta


def _violated(sets: RiskSets, X: Tensor, delta: Tensor, exact: bool) -> np.ndarray | None:
    """Differences x_i − x_j of an event and a row at risk with (x_i − x_j)·δ < 0, the worst ones; None: there are
    none."""
    eta = delta @ X
    own = eta[sets.failed]
    if exact:  # tied events are drawn together, and do not compete
        eta = eta.clone()
        least = torch.from_numpy(np.minimum.reduceat(own.numpy(), sets.fail_starts))
        largest, who = _without_events(sets, eta)
    else:
        least = torch.from_numpy(np.minimum.reduceat(own.numpy(), sets.fail_starts))
        largest, who = sets.largest(eta)
    bad = torch.nonzero(largest - least > TINY)[:, 0]
    if not len(bad):
        return None
    worst = bad[torch.argsort((largest - least)[bad], descending=True)[:CUTS]]
    out = []
    for k in worst.tolist():
        begin = int(sets.fail_starts[k])
        end = int(sets.fail_starts[k + 1]) if k + 1 < sets.size else len(own)
        i = int(sets.failed[begin + int(torch.argmin(own[begin:end]))])
        out.append((X[:, i] - X[:, int(who[k])]).numpy())
    return np.stack(out)


def _without_events(sets: RiskSets, eta: Tensor) -> tuple[Tensor, Tensor]:
    """The largest η, and its row, among those at risk at each time that do not have their event then."""
    most, who = (
        torch.full((sets.size,), -torch.inf, dtype=torch.float64),
        torch.zeros(sets.size, dtype=torch.long),
    )
    has = torch.full((len(eta),), -1, dtype=torch.long)
    has[sets.failed] = sets.slot
    stratum = np.repeat(np.arange(len(sets.slot_starts) - 1), np.diff(sets.slot_starts))
    for k in range(sets.size):
        here = torch.arange(int(sets.row_starts[stratum[k]]), int(sets.ends[k]))
        here = here[(sets.stop[here] > k) & (has[here] != k)]
        if len(here):
            at = torch.argmax(eta[here])
            most[k], who[k] = eta[here][at], here[at]
    return most, who
