"""Cox's partial likelihood at one β: its value, gradient, information, and what each row adds to them.

    ℓ(β) = Σ_k [ Σ_{i in D_k} w_i η_i − Σ_{j=0}^{d_k−1} v_k log( Σ_{i in R_k} w_i e^{η_i} − f_j Σ_{i in D_k} w_i e^{η_i} ) ]

D_k are the d_k events at time t_k, R_k the rows at risk there. Efron: f_j = j/d_k, v_k = Σ_{D_k} w_i / d_k.
Breslow: one term, f = 0 and v_k = Σ_{D_k} w_i. So a slot k has one or several "terms" (k, f, v), and all that
follows is sums over terms. With u = 1 − f ρ_k, ρ_k = Σ_{D_k} w e^η / Σ_{R_k} w e^η, and a term's mean of x

    m = (Σ_R w e^η x − f Σ_D w e^η x) / (u Σ_R w e^η)

a row's expected number of events is q_i = Σ_{terms at which i is at risk} v w_i e^{η_i} (1 − f 1{i in D}) / (u Σ_R w e^η),
and then

    gradient = Σ_i (events_i − q_i) x_i,      information = Σ_i q_i x_i x_iᵀ − Σ_terms v m mᵀ

which is O(n p²) in two products of matrices; no (n, p, p) is formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument
from ..memory import empty
from .discrete_ties import Subsets, subsets, work
from .risk_sets import BLOCK, Cumulated, RiskSets

MOST_TERMS = 50_000_000
MOST_WORK = 1e9


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that are at risk at some event, in the order of their risk sets.

    X : (p, n), less its mean in each stratum, or another constant of it.  count : (n,) how often each was observed,
    None: once
    """

    sets: RiskSets
    X: Tensor
    count: Tensor | None
    known: bool | None = None  # what `whole` is of all rows, where these are a part of them

    @cached_property
    def whole(self) -> bool:
        """Whether the counts are whole numbers: then a row stands for so many equal ones."""
        if self.known is not None:
            return self.known
        return self.count is None or bool((self.count == self.count.round()).all())

    @cached_property
    def deaths(self) -> Tensor:
        """d_k, (m,): events at each time; of counts that are not whole, rows with an event."""
        sets = self.sets
        if self.count is None or not self.whole:
            return torch.bincount(sets.slot, minlength=sets.size).to(torch.float64)
        return sets.by_failed(self.count[sets.failed])

    def terms(self, ties: str) -> tuple[Tensor, Tensor] | None:
        """Slot and f of each term; None: one term a slot, f = 0."""
        if ties != "efron" or float(self.deaths.max()) <= 1:
            return None
        total = float(self.deaths.sum())
        if total > MOST_TERMS:
            raise BadArgument(
                f"Efron's likelihood has a term an event, and the counted rows have {total:.3g} of them. "
                "Use ties='breslow'."
            )
        d = self.deaths.to(torch.long)
        slot = torch.arange(len(d)).repeat_interleave(d)
        begin = torch.cumsum(d, 0) - d
        return slot, (torch.arange(len(slot)) - begin[slot]).to(torch.float64) / d[slot]

    @cached_property
    def efron(self) -> tuple[Tensor, Tensor] | None:
        return self.terms("efron")


class Partial:
    """The partial likelihood at one β.

    Parameters
    ----------
    rows
        those at risk
    eta
        (n,) their linear predictors; a constant of each stratum changes nothing
    weight
        (n,) count times weighting; None: 1
    ties
        "efron", "breslow" or "exact"
    order
        1: no information is asked for, which spares exact ties half of their work
    """

    def __init__(self, rows: Rows, eta: Tensor, weight: Tensor | None, ties: str, order: int = 2):
        self.rows, self.eta, self.weight, self.order = rows, eta, weight, order
        self.sets = sets = rows.sets
        self.log_weight = eta if weight is None else eta + torch.log(weight)
        self.weighed = sets.weighed(self.log_weight)
        self.log_total = self.weighed.log_total
        e = len(sets.failed)
        self.units = torch.ones(e, dtype=torch.float64) if weight is None else weight[sets.failed]
        self.exact = torch.zeros(sets.size, dtype=torch.bool)
        self.events = sets.by_failed(self.units)  # Σ of the weights of each slot's events, (m,)
        found = rows.efron if ties == "efron" else None
        self.tied = found is not None
        if found is not None:
            self.slot, self.f = found
            self.v = (self.events / rows.deaths)[self.slot]
            self.u = 1 - self.f * self.share[self.slot]
        else:
            if ties == "exact":
                self.exact = self._discrete()
            self.v = torch.where(self.exact, 0.0, self.events)

    def _discrete(self) -> Tensor:
        """Which slots have several events, that the exact likelihood takes as drawn together."""
        rows, d = self.rows, self.rows.deaths
        if not rows.whole or (self.weight is not None and self.weight is not rows.count):
            raise BadArgument(
                "ties='exact' counts subsets of rows, and takes no weights but whole numbers. Use ties='efron'."
            )
        out = d > 1
        many = work((self.sets.ends[out]).to(torch.float64), d[out])
        if many > MOST_WORK:
            raise BadArgument(
                f"ties='exact' takes {many:.1e} complex products here, for {int(out.sum())} tied times, of at most "
                f"{d.max():g} events each; at most {MOST_WORK:.0e} are done. Use ties='efron', which is close to it."
            )
        return out

    # ---- shares and terms --------------------------------------------------------------------------------------

    @cached_property
    def hazard_share(self) -> Tensor:
        """w e^η / Σ_R w e^η of each event at its own time, (e,)."""
        sets = self.sets
        return torch.exp(self.log_weight[sets.failed] - self.log_total[sets.slot])

    @cached_property
    def share(self) -> Tensor:
        """ρ_k, (m,)."""
        return self.sets.by_failed(self.hazard_share)

    def by_slot(self, terms: Tensor) -> Tensor:
        """Σ over the terms of each slot, (…, m)."""
        if not self.tied:
            return terms
        return terms.new_zeros(*terms.shape[:-1], self.sets.size).index_add_(-1, self.slot, terms)

    @cached_property
    def alpha(self) -> Tensor:
        """Σ v/u of each slot, (m,): times 1/Σ_R w e^η, the increment of the cumulative baseline hazard."""
        return self.by_slot(self.v / self.u) if self.tied else self.v

    @cached_property
    def term_means(self) -> Tensor:
        """m, (p, terms)."""
        return self.means_of(self.rows.X)

    def means_of(self, X: Tensor) -> Tensor:
        """m, (p, terms), of other columns of the same rows, (p, n)."""
        return self._of_terms(0, self.sets.size, self.weighed.means(X), X)

    def _of_terms(self, a: int, b: int, means: Tensor, X: Tensor) -> Tensor:
        """m, (p, terms), of the terms of the slots a ≤ k < b, whose risk sets have these means of X."""
        if not self.tied:
            return means
        here = self._terms(a, b)
        if here.stop - here.start == b - a:  # one event each
            return means
        k, own = self.slot[here] - a, self._events_of(a, b, X)
        out: Tensor = (means[:, k] - self.f[here] * own[:, k]) / self.u[here]
        return out

    def _events_of(self, a: int, b: int, X: Tensor) -> Tensor:
        """Σ_D w e^η x / Σ_R w e^η of the slots a ≤ k < b, (p, b − a)."""
        starts = self.sets.fail_starts
        events = slice(int(starts[a]), int(starts[b]) if b < len(starts) else None)
        share = X[:, self.sets.failed[events]].mul_(self.hazard_share[events])
        return torch.from_numpy(np.add.reduceat(share.numpy(), starts[a:b] - starts[a], axis=1))

    def _terms(self, a: int, b: int) -> slice:
        """The terms of the slots a ≤ k < b."""
        begin, end = torch.searchsorted(self.slot, torch.tensor([a, b])).tolist()
        return slice(begin, end)

    @cached_property
    def subsets(self) -> list[tuple[Tensor, Subsets]]:
        """(its rows, the sum over subsets) of each tied time of the exact likelihood."""
        return [self._subsets(int(k)) for k in torch.nonzero(self.exact)[:, 0]]

    def _subsets(self, k: int) -> tuple[Tensor, Subsets]:
        sets = self.sets
        stratum = int((torch.from_numpy(sets.slot_starts)[1:] <= k).sum())
        here = torch.arange(int(sets.row_starts[stratum]), int(sets.ends[k]))
        here = here[sets.stop[here] > k]
        count = torch.ones(len(here), dtype=torch.float64) if self.weight is None else self.weight[here]
        X = self.rows.X[:, here] if self.order > 1 else None
        return here, subsets(self.eta[here], count, int(self.rows.deaths[k]), X)

    # ---- ℓ and its derivatives -----------------------------------------------------------------------------------

    @cached_property
    def slot_log(self) -> Tensor:
        """What is subtracted from the events' η at each slot, (m,)."""
        if self.tied:
            return self.by_slot(self.v * (self.log_total[self.slot] + torch.log(self.u)))
        out = self.v * self.log_total
        for k, (_, found) in zip(torch.nonzero(self.exact)[:, 0], self.subsets, strict=True):
            out[k] = found.log_sum
        return out

    @cached_property
    def value(self) -> Tensor:
        """ℓ. Each slot's part is formed first: sums of η and of logarithms, each large, would cancel."""
        return (self.sets.by_failed(self.units * self.eta[self.sets.failed]) - self.slot_log).sum()

    @property
    def log_prob(self) -> Tensor:
        """Each event's part of ℓ, (e,); those of one time share what is subtracted."""
        part = (self.slot_log / self.events)[self.sets.slot]
        return self.eta[self.sets.failed] - part

    @cached_property
    def smooth_expected(self) -> Tensor:
        """q without the part of exact ties, (n,)."""
        return self._expected(None)

    def _expected(self, g: Tensor | None) -> Tensor:
        """q, (n,), with v multiplied by g of the slot, (m,)."""
        q = self.weighed.spread(self.alpha if g is None else self.alpha * g)
        if self.tied:
            own = self.by_slot(self.v * self.f / self.u)
            own = own if g is None else own * g
            q[self.sets.failed] -= self.hazard_share * own[self.sets.slot]
        return q

    @cached_property
    def expected(self) -> Tensor:
        """q, (n,): each row's expected number of events, given the times at which there were some."""
        if not self.subsets:
            return self.smooth_expected
        q = self.smooth_expected.clone()
        for here, found in self.subsets:
            q[here] += found.inside if self.weight is None else self.weight[here] * found.inside
        return q

    def expected_of(self, y: Tensor) -> Tensor:
        """Σ over the terms at which a row is at risk of its expected number of events there times y, (k, n), of y
        (k, terms): q is that of y = 1."""
        out = self.weighed.spread(self.by_slot(y * (self.v / self.u if self.tied else self.v)))
        if self.tied:
            own = self.by_slot(y * (self.v * self.f / self.u))[:, self.sets.slot]
            out.index_add_(1, self.sets.failed, -self.hazard_share * own)
        return out

    @property
    def residual(self) -> Tensor:
        """Events less those expected, (n,): weighted martingale residuals."""
        out = torch.neg(self.expected, out=empty(len(self.eta)))
        return out.index_add_(0, self.sets.failed, self.units)

    @cached_property
    def gradient(self) -> Tensor:
        return self.rows.X @ self.residual

    @property
    def information(self) -> Tensor:
        J = self._information(self.smooth_expected, None)
        for _, found in self.subsets:
            assert found.covariance is not None
            J = J + found.covariance
        return J

    def information_over(self, g: Tensor) -> Tensor:
        """Σ_k g_k times the information that the events at t_k give, (p, p), of g (m,)."""
        return self._information(self._expected(g), g)

    def _information(self, q: Tensor, g: Tensor | None) -> Tensor:
        X = self.rows.X
        J = X.new_zeros(len(X), len(X))
        if not self.tied and g is None and isinstance(self.weighed, Cumulated) and self.weighed.nested:
            return self._nested(self.weighed, J, q)
        for a in range(0, X.shape[1], BLOCK):
            part = X[:, a : a + BLOCK]
            J.addmm_(part * q[a : a + BLOCK], part.T)
        if self.tied:
            return self._of_ties(J, g)
        v = self.v if g is None else self.v * g
        for a, b, means in self.weighed.blocks(X):
            J.addmm_(means * v[a:b], means.T, alpha=-1)
        return (J + J.T) / 2

    def _of_ties(self, J: Tensor, g: Tensor | None) -> Tensor:
        """J less Σ v m mᵀ: a term's mean is m = [(1 − f) D + R]/u, D and R the parts of the risk set's mean that rows
        with an event and the others have, so that its terms share two vectors a slot."""
        left = 1 - self.f
        c = [self.by_slot(self.v / self.u**2 * left**power) for power in range(3)]
        c = c if g is None else [each * g for each in c]
        for a, b, means in self.weighed.blocks(self.rows.X):
            here = self._terms(a, b)
            if here.stop - here.start == b - a:  # one event each
                J.addmm_(means * c[0][a:b], means.T, alpha=-1)
                continue
            D = self._events_of(a, b, self.rows.X)
            R = means - D
            J.addmm_(D * c[2][a:b], D.T, alpha=-1)
            J.addmm_(R * c[0][a:b], R.T, alpha=-1)
            J.addmm_(D * c[1][a:b], R.T, alpha=-2)
        return (J + J.T) / 2

    def _nested(self, weighed: Cumulated, J: Tensor, q: Tensor) -> Tensor:
        """The information where each risk set holds those before it and a slot has one term: the sums at all rows,
        of which those at the end of a slot count, in one pass over X."""
        ends = empty(len(q)).zero_().index_copy_(0, self.sets.ends - 1, self.v.sqrt() / weighed.total)
        root = torch.sqrt(q, out=empty(len(q)))
        out = J.numpy()
        for part, sums, at in weighed.sums_by_block(self.rows.X):
            own = (part * root[at]).numpy()
            out += own @ own.T  # of a matrix and its transpose numpy forms one half
            own = sums.mul_(ends[at]).numpy()
            out -= own @ own.T
        return J

    # ---- rows ----------------------------------------------------------------------------------------------------

    @property
    def scores(self) -> Tensor:
        """Score residuals, (p, n), each for one unit of weight: Σ w s is the gradient, and J⁻¹ s is how far
        the row moves β̂.

            s_i = Σ_{terms} (dN_i − w-free hazard of i) (x_i − m)

        Source: Lin and Wei (1989), The robust inference for the Cox proportional hazards model.
        """
        if bool(self.exact.any()):
            raise BadArgument(
                "ties='exact' has no score residuals, since tied events are drawn together. Use ties='efron'."
            )
        X, sets = self.rows.X, self.sets
        out = self.expected_of(self.term_means) - X * self.smooth_expected
        if self.weight is not None:
            out = out / self.weight
        return out.index_add_(1, sets.failed, X[:, sets.failed] - self.slot_means[:, sets.slot])

    @cached_property
    def slot_means(self) -> Tensor:
        """The mean of x that an event at each time is compared with, (p, m)."""
        return self.by_slot(self.term_means * self.v) / self.events if self.tied else self.term_means
