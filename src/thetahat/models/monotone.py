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
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

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
NoMaximum = tuple[str, dict[str, float], str]
FAR = (1e2, 1e6, 1e10, 1e14)  # multiples of a direction at which the likelihood must not have fallen


class Problem(Protocol):
    """What is asked of the data, in memory or along a file. Columns are divided by `scale`, (p,), in δ and in cuts."""

    @property
    def scale(self) -> Tensor: ...

    def bounded(self) -> bool:
        """Whether one β proves that there is no direction: see `bounded`."""

    def score(self) -> Tensor:
        """The mean of s over the events, (p,)."""

    def violated(self, delta: Tensor) -> np.ndarray | None:
        """Differences x_i − x_j of an event and a row at risk with (x_i − x_j)·δ < 0, the worst ones; None: there are
        none."""

    def rises(self, delta: Tensor) -> bool:
        """Whether ℓ does not fall along δ, far out."""


def monotone(model: CoxRegression, batch: Batch, at: Taylor | None = None) -> NoMaximum | None:
    """(status, direction, why) where there is no maximum of all rows, which are one batch; None where there is one, or
    a direction along which nothing changes at all.

    at : ℓ as a function of β at any linear predictors, from which the proof that there is none is tried first
    """
    with torch.no_grad():
        rows = model.ordered(batch, batch.count.to(torch.float64) if batch.counted else None)
        if rows is None or not model.layout.size:
            return None
        at = model.taylor(batch, batch._count) if at is None else at
    return no_maximum(model.names, Held(model, rows, at))


def no_maximum(names: Sequence[str], problem: Problem) -> NoMaximum | None:
    """(status, direction, why), or None."""
    with torch.no_grad():
        direction = None if problem.bounded() else recession(problem)
    if direction is None:
        return None
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


class Held:
    """Rows in memory."""

    def __init__(self, model: CoxRegression, rows: Rows, at: Taylor):
        self.model, self.rows, self.at = model, rows, at
        self.exact = model.family.ties == "exact"

    def bounded(self) -> bool:
        X = self.rows.X.numpy()  # whose minima are found in half of the time that torch takes
        reach = 2 * torch.from_numpy(np.maximum(-X.min(1), X.max(1)))
        many = float(self.rows.deaths.max()) if self.exact else 1.0
        return bounded(many * reach, self.at)

    @cached_property
    def scale(self) -> Tensor:
        return _positive(self.rows.X.abs().max(1).values)

    @cached_property
    def X(self) -> Tensor:
        return self.rows.X / self.scale[:, None]

    def score(self) -> Tensor:
        nothing = torch.zeros(len(self.X), dtype=torch.float64)
        flat = Partial(Rows(self.rows.sets, self.X, None), nothing @ self.X, None, "breslow")
        return flat.gradient / len(self.rows.sets.failed)

    def violated(self, delta: Tensor) -> np.ndarray | None:
        return violated(self.rows.sets, self.X, delta, self.exact)

    def rises(self, delta: Tensor) -> bool:
        rows, ties, eta = self.rows, self.model.family.ties, delta @ self.X
        own = rows.count if self.exact else None
        found = [float(Partial(rows, t * eta, own, ties, 1).value) for t in (0.0, *FAR)]
        return rises(found, len(rows.sets.failed))


def bounded(reach: Tensor, at: Taylor) -> bool:
    """Whether the gradient g and the information J at one β prove that no direction is monotone.

    Along such a δ the events have the largest x·δ of those at risk. Then g·δ is a sum of v π (x_D − x_j)·δ, all ≥ 0,
    and δᵀJδ, a sum of variances, is at most that of v π ((x_D − x_j)·δ)², so that

        δᵀJδ ≤ (the largest |(x_D − x_j)·δ|) · g·δ

    Where the smallest eigenvalue of J is above what that allows, as at every maximum, there is none. `reach`, (p,), is
    at least every |x_D − x_j|.
    """
    if at.information is None:
        return False
    J, g = at.information.dense(), at.gradient
    unit = J.diagonal().clamp(min=0).sqrt()  # coordinates in which every column has information 1
    if not (bool((unit > 0).all()) and bool(torch.isfinite(J).all()) and bool(torch.isfinite(g).all())):
        return False
    least = float(torch.linalg.eigvalsh(J / unit[:, None] / unit)[0])
    return least > 2 * float((reach / unit).norm()) * float((g / unit).norm()) and least > ROUNDING


def recession(problem: Problem) -> Tensor | None:
    """A direction δ, (p,), along which no event ever becomes less probable and some become more so."""
    from scipy.optimize import linprog  # takes long to load

    score = problem.score()
    cuts: list[np.ndarray] = []
    delta = torch.sign(score)
    for _ in range(ROUNDS):
        found = problem.violated(delta)
        if found is None:
            if float(score @ delta) <= TINY:
                return None
            delta = _plainest(problem, delta, score)
            return delta / problem.scale if problem.rises(delta) else None
        cuts.append(found)
        A = np.unique(np.concatenate(cuts), axis=0)
        solved = linprog(-score.numpy(), A_ub=-A, b_ub=np.zeros(len(A)), bounds=(-1, 1), method="highs")
        if solved.x is None or -solved.fun <= TINY:
            return None
        delta = torch.from_numpy(solved.x)
    return None


def rises(values: Sequence[float], events: int) -> bool:
    """Whether ℓ does not fall from 0 over the multiples FAR: a programme solved to 10⁻⁷ leaves differences that are
    smaller, and there they are large."""
    noise = [8 * EPS * t * events + TINY for t in FAR]  # of linear predictors of that size
    kept = all(b >= a - n for (a, b), n in zip(itertools.pairwise(values), noise, strict=True))
    return kept and values[1] > values[0]


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, 1.0)


def _plainest(problem: Problem, delta: Tensor, score: Tensor) -> Tensor:
    """One column alone, where that is such a direction; else δ."""
    for j in torch.nonzero((delta.abs() > TINY) & (score.abs() > TINY))[:50, 0].tolist():
        alone = torch.zeros_like(delta)
        alone[j] = torch.sign(score[j])
        if problem.violated(alone) is None:
            return alone
    return delta


def violated(sets: RiskSets, X: Tensor, delta: Tensor, exact: bool) -> np.ndarray | None:
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
