"""Cox's proportional hazards: λ(t | x) = λ₀(t) exp(xᵀβ), λ₀ left open.

    ℓ(β) = Σ_k [ Σ_{i ∈ D_k} w_i η_i − w̄_k Σ_{l=0}^{d_k−1} log(S_k − (l/d_k) T_k) ],      S_k = Σ_{R_k} w e^η,  T_k = Σ_{D_k} w e^η

over the times t_k of events, D_k the d_k rows that have one then, R_k those at risk, w̄_k the mean weight of D_k. That is
Efron's treatment of ties; Breslow's has no (l/d_k) T_k. Without ties both are the partial likelihood itself. ℓ is
concave: each logarithm is of a sum of exponentials with coefficients that are not negative.

    c_kl = w̄_k / (S_k − (l/d_k) T_k),      a_i = Σ_{k: i ∈ R_k} Σ_l c_kl − Σ_{k: i ∈ D_k} Σ_l (l/d_k) c_kl
    ∂ℓ = Σ_{events} w x − Xᵀr,   r_i = w_i e^{η_i} a_i;       −∂²ℓ = Xᵀ diag(r) X − Σ_kl w̄_k m_kl m_klᵀ

m_kl is the mean of x in the risk set with the weights of c_kl: everything is one cumulative sum of (n, p) and two products.

Source: Cox (1972, 1975), Partial likelihood; Efron (1977), The efficiency of Cox's likelihood function for censored data;
Breslow (1974); Therneau and Grambsch (2000), Modeling Survival Data, §3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source
from ..families.cox import Cox as CoxFamily
from .base import Model, unique
from .information import Information
from .regression import NARROW, Predictor
from .risk_sets import Array, RiskSets, risk_sets
from .taylor import Taylor

LARGE = 30.0  # the range of η beyond which a direction without a maximum is looked for
ROWS = 20_000  # up to which it is


@dataclass(frozen=True)
class Terms:
    """The sums at one β: of each (k, l) the denominator's share; of each row a_i and e^η."""

    value: float
    weight: Array  # (n,), these four in the order of the risk sets
    eta: Array  # less its largest, which is the shift
    hazard: Array  # e^η
    slot: Array  # k of each (k, l)
    share: Array  # l/d, 0 of Breslow's
    size: Array  # w̄_k; of Breslow's, with one (k, l) a time, the sum of the weights
    c: Array  # c_kl
    a: Array  # a_i, (n,)
    shift: float


class Cox(Model):
    """Proportional hazards with linear predictor.

    Parameters
    ----------
    family
        how ties are treated
    encoder
        how columns become tensors
    slot
        of the design
    strata
        which grouping of the encoder tells strata apart; None: there is one
    """

    separable = False
    concave = True

    def __init__(self, family: CoxFamily, encoder, slot: int, strata: int | None = None):  # type: ignore[no-untyped-def]
        super().__init__()
        self.family, self.encoder, self.slot, self.strata = family, encoder, slot, strata
        self.measure = family.measure
        self.predictor = Predictor(
            "log_hazard", family.parameters["log_hazard"], encoder.designs[slot], slot, 0
        )
        self.predictors = [self.predictor]
        self.coefficients = nn.Parameter(torch.zeros(self.predictor.size, dtype=torch.float64))
        self._held: tuple[int, Array, RiskSets] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Cox:
        out = Cox(self.family, self.encoder, self.slot, self.strata)
        with torch.no_grad():
            out.coefficients.copy_(self.coefficients)
        out._held = self._held
        memo[id(self)] = out
        return out

    # ---- the rows, in the order of the risk sets -----------------------------------------------------------

    def rows(self, batch: Batch) -> tuple[Array, RiskSets]:
        """X (p, n) and the risk sets, made once for each batch."""
        y = batch["y"]
        if self._held is None or self._held[0] != y.data_ptr() or self._held[1].shape[1] != len(y):
            entry = batch["entry"].numpy() if "entry" in batch else None
            stratum = None if self.strata is None else batch[f"group{self.strata}"].numpy()
            sets = risk_sets(y.numpy(), batch["event"].numpy() == 1, entry, stratum)
            self._held = (y.data_ptr(), np.ascontiguousarray(self.columns(batch)[:, sets.order]), sets)
        return self._held[1], self._held[2]

    def columns(self, batch: Batch) -> Array:
        """X, (p, n)."""
        p = self.predictor
        if any(levels > NARROW for _, _, levels in p.terms):
            return np.asarray(p.placed(batch, p.size).todense()).T
        return np.asarray(p.rows(batch, torch.float64).numpy())

    def eta(self, batch: Batch, theta: Tensor | None = None) -> list[Tensor]:
        """The log hazard ratio to x = 0 of each row, (n,), with a graph to β."""
        theta = self.coefficients if theta is None else theta
        return [self.predictor.eta(batch, theta).expand(len(batch))]

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    @property
    def fixed(self) -> dict[str, float]:
        return {}

    def label(self, parameter: str) -> str:
        return parameter

    def terms(self, batch: Batch, weight: Tensor | None) -> Terms:
        """The sums at β̂."""
        X, sets = self.rows(batch)
        w = _weight(batch, weight)[sets.order]
        eta = self.coefficients.detach().numpy() @ X
        offset = batch.tensors.get(f"offset{self.slot}")
        eta = eta if offset is None else eta + offset.numpy()[sets.order]
        shift = float(eta.max())
        hazard = np.exp(eta - shift)
        wh = w * hazard
        S = sets.at_risk(wh)
        d = np.bincount(sets.of_event, minlength=sets.size)
        total = sets.of_events(w)
        if self.family.ties == "breslow" or len(sets.events) == sets.size:
            slot, share, size, denominator = np.arange(sets.size), np.zeros(sets.size), total, S
        else:
            slot = np.repeat(np.arange(sets.size), d)
            first = np.cumsum(d) - d
            share = (np.arange(len(slot)) - first[slot]) / d[slot]
            size = (total / d)[slot]
            denominator = S[slot] - share * sets.of_events(wh)[slot]
        c = size / denominator
        value = float(w[sets.events] @ (eta[sets.events] - shift) - size @ np.log(denominator))
        a = sets.lived(np.bincount(slot, c, sets.size))
        a[sets.events] -= np.bincount(slot, share * c, sets.size)[sets.of_event]
        return Terms(value, w, eta - shift, hazard, slot, share, size, c, a, shift)

    def means(self, batch: Batch, found: Terms) -> Array:
        """m_kl, (p, slots): the mean of x among those at risk."""
        X, sets = self.rows(batch)
        wx = (found.weight * found.hazard) * X
        out = sets.at_risk(wx)
        if len(found.slot) > sets.size:
            out = out[:, found.slot] - found.share * sets.of_events(wx)[:, found.slot]
        out *= found.c / found.size
        return out

    # ---- p -------------------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch) -> Tensor:
        """An event's part of the partial likelihood, 0 of the others: it sums to ℓ."""
        sets = self.rows(batch)[1]
        found = self.terms(batch, None)
        logs = np.log(found.size / found.c)
        d = np.bincount(found.slot, minlength=sets.size)
        mean = np.bincount(found.slot, logs, sets.size) / d
        own = found.eta[sets.events] - mean[sets.of_event]
        out = np.zeros(len(batch))
        out[sets.order[sets.events]] = own
        return torch.from_numpy(out)

    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        X, sets = self.rows(batch)
        found = self.terms(batch, weight)
        r = found.weight * found.hazard * found.a
        event = np.zeros(len(r))
        event[sets.events] = found.weight[sets.events]
        gradient = torch.from_numpy(X @ (event - r))
        value = torch.tensor(found.value, dtype=torch.float64)
        if order < 2:
            return Taylor(value, gradient)
        m = self.means(batch, found)
        J = (X * r) @ X.T - (m * found.size) @ m.T
        return Taylor(value, gradient, Information(torch.from_numpy((J + J.T) / 2)))

    def scores(self, batch: Batch) -> Tensor:
        """Score residuals, (n, p): each row's part of ∂ℓ, as it would count for a sandwich.

        U_i = δ_i (x_i − m̄_i) − e^{η_i} Σ_{k: i ∈ R_k} (x_i − m_k) dΛ_k
        """
        X, sets = self.rows(batch)
        found = self.terms(batch, None)
        m = self.means(batch, found)
        d = np.bincount(found.slot, minlength=sets.size)
        mean = _by_slot(m, found.slot, sets.size) / d
        b = sets.lived(_by_slot(found.c * m, found.slot, sets.size))
        b[:, sets.events] -= _by_slot(found.share * found.c * m, found.slot, sets.size)[:, sets.of_event]
        own = -found.hazard * (X * found.a - b)
        own[:, sets.events] += X[:, sets.events] - mean[:, sets.of_event]
        out = np.empty_like(own)
        out[:, sets.order] = own
        return torch.from_numpy(np.ascontiguousarray(out.T))

    # ---- θ -------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return unique(self.predictor.design.names)

    @property
    def coefficient_names(self) -> list[str]:
        return self.names

    @property
    def slopes(self) -> list[bool]:
        return [True] * self.predictor.size

    def start(self, source: Source) -> Tensor:
        return torch.zeros(self.predictor.size, dtype=torch.float64)

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None:
        """A direction along which every event's x is the largest of those at risk, and one is larger: then the
        likelihood rises along it for ever (monotone likelihood)."""
        batch = next(iter(source.batches(self)))
        eta = self.terms(batch, None).eta
        if len(eta) > ROWS or not self.predictor.size or (np.isfinite(eta).all() and np.ptp(eta) < LARGE):
            return None
        d = _monotone(*self.rows(batch))
        if d is None:
            return None
        named = {n: float(v) for n, v in zip(self.names, d, strict=True) if abs(v) > 1e-7}
        what = " + ".join(f"{v:.3g}·{n}" for n, v in named.items())
        return (
            "no maximum",
            named,
            f"the partial likelihood has no maximum: at every time of an event the row that has it is the largest of those at "
            f"risk along {what} (monotone likelihood). Put a prior on it (prior=th.priors.Normal(2.5)), or drop a column.",
        )


def _weight(batch: Batch, weight: Tensor | None) -> Array:
    if weight is not None:
        return np.asarray(weight.numpy())
    return batch.count.to(torch.float64).numpy() if batch.counted else np.ones(len(batch))


def _by_slot(values: Array, slot: Array, size: int) -> Array:
    """Σ of the (k, l) of each k, (p, K), of (p, slots)."""
    return np.stack([np.bincount(slot, row, size) for row in values])


def _monotone(X: Array, sets: RiskSets) -> Array | None:
    """d in [−1, 1]^p with x_i·d ≥ x_j·d for each event i and all j at risk then, not all equal: a linear programme.

    A running maximum M over the rows by falling time has n constraints where the pairs would have n² (with late entry it
    is of all that leave later: a sufficient condition).
    """
    from scipy import sparse
    from scipy.optimize import linprog

    p, n = X.shape
    Z = X - X.mean(1, keepdims=True)
    scale = np.maximum(np.abs(Z).max(1), 1e-300)
    Z = Z / scale[:, None]
    one = sparse.identity(n, format="csr")
    own = sparse.hstack([sparse.csr_matrix(Z.T), -one])  # z·d − M_r ≤ 0
    follows = np.setdiff1d(np.arange(1, n), np.unique(sets.begin))
    chain = sparse.hstack(
        [sparse.csr_matrix((len(follows), p)), one[follows - 1] - one[follows]]
    )  # M_{r−1} ≤ M_r
    at = sets.last[sets.of_event] - 1
    reach = sparse.hstack(
        [sparse.csr_matrix(-Z[:, sets.events].T), one[at]]
    )  # M of those at risk ≤ z·d of the event
    count = sets.at_risk(np.ones(n))
    gain = (Z[:, sets.events] - (sets.at_risk(Z) / count)[:, sets.of_event]).sum(1)
    A = sparse.vstack([own, chain, reach]).tocsr()
    bounds = [(-1.0, 1.0)] * p + [(None, None)] * n
    found = linprog(
        np.concatenate([-gain, np.zeros(n)]), A_ub=A, b_ub=np.zeros(A.shape[0]), bounds=bounds, method="highs"
    )
    if found.status != 0 or -found.fun < 1e-7:
        return None
    return np.asarray(found.x[:p] / scale)
