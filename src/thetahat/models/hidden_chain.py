"""The chain of a hidden Markov model: how its first state and its transitions depend on θ.

    δ = softmax of free logits, or the stationary distribution, δ A = δ
    a_t(j, k) = exp(x_t · w_jk) / Σ_l exp(x_t · w_jl),     w = 0 for one l of each row: staying, where that is possible

Without predictors x_t = 1. A transition that is held at probability 0 has no w.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .chain_layout import Array

TINY = 1e-300


@dataclass(frozen=True)
class Chain:
    """Which probabilities are free, and where their logits lie in θ.

    Parameters
    ----------
    allowed
        (K, K), whether a transition is possible
    starts
        (K,), whether a first state is
    stationary
        whether the first state has the stationary distribution
    columns
        names of the columns that the logits are linear in; none: constants
    """

    allowed: tuple[tuple[bool, ...], ...]
    starts: tuple[bool, ...]
    stationary: bool
    columns: tuple[str, ...] = ()

    @classmethod
    def full(cls, k: int, stationary: bool, columns: tuple[str, ...] = ()) -> Chain:
        return cls(((True,) * k,) * k, (True,) * k, stationary, columns)

    @property
    def k(self) -> int:
        return len(self.starts)

    @property
    def q(self) -> int:
        """Coefficients of a logit."""
        return len(self.columns) or 1

    def reference(self, j: int) -> int:
        """The state whose logit is 0 in row j."""
        return j if self.allowed[j][j] else self.allowed[j].index(True)

    @cached_property
    def first(self) -> list[int]:
        """The states whose initial logit is free."""
        return [] if self.stationary else [k for k in range(self.k) if self.starts[k]][1:]

    @cached_property
    def logits(self) -> list[tuple[int, int]]:
        """(j, k) of the transitions whose logit is free."""
        return [
            (j, k)
            for j in range(self.k)
            for k in range(self.k)
            if self.allowed[j][k] and k != self.reference(j)
        ]

    @property
    def sizes(self) -> tuple[int, int]:
        """Coordinates of θ of the first state, and of the transitions."""
        return len(self.first), len(self.logits) * self.q

    def places(self) -> list[tuple[int, int, slice]]:
        """(j, k, where in θ) of each logit."""
        at = len(self.first)
        return [(j, k, slice(at + i * self.q, at + (i + 1) * self.q)) for i, (j, k) in enumerate(self.logits)]

    # ---- probabilities of θ: autograd goes through ---------------------------------------------------------

    def log_transitions(self, w: Tensor, x: Tensor | None = None) -> Tensor:
        """log a, (K, K), or (K, K, n) of x (q, n)."""
        eta = w.reshape(-1, self.q) @ x if x is not None else w.reshape(-1, self.q)
        n = eta.shape[1]
        free = {jk: i for i, jk in enumerate(self.logits)}
        none, zero = w.new_full((n,), -torch.inf), w.new_zeros(n)
        rows = []
        for j in range(self.k):
            row = [
                eta[free[j, k]] if (j, k) in free else zero if k == self.reference(j) else none
                for k in range(self.k)
            ]
            rows.append(torch.log_softmax(torch.stack(row), 0))
        out = torch.stack(rows)
        return out if x is not None else out[..., 0]

    def log_initial(self, logits: Tensor, w: Tensor) -> Tensor:
        """log δ, (K,)."""
        if self.stationary:
            return torch.log(stationary(torch.exp(self.log_transitions(w))).clamp(min=TINY))
        seats = [k for k in range(self.k) if self.starts[k]]
        full = logits.new_full((self.k,), -torch.inf)
        return full.index_put(
            (torch.tensor(seats),), torch.log_softmax(torch.cat([logits.new_zeros(1), logits]), 0)
        )

    def written(self, logits: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """All logits, (K,) and (K, K, q): 0 for those of reference, −∞ (in the first column) where there is none."""
        first, full = w.new_full((self.k,), -torch.inf), w.new_zeros(self.k, self.k, self.q)
        seats = [k for k in range(self.k) if self.starts[k]]
        first[seats] = 0.0 if self.stationary else torch.cat([w.new_zeros(1), logits])
        for j in range(self.k):
            full[j, [k for k in range(self.k) if not self.allowed[j][k]], 0] = -torch.inf
        for (j, k), own in zip(self.logits, w.reshape(-1, self.q), strict=True):
            full[j, k] = own
        return first, full

    def read(self, first: Tensor, full: Tensor) -> tuple[Tensor, Tensor]:
        """The free ones of all logits, as (logits, w)."""
        seat = self.starts.index(True)
        w = [full[j, k] - full[j, self.reference(j)] for j, k in self.logits]
        return first[self.first] - first[seat], torch.cat([full.new_zeros(0), *w])

    # ---- the complete data ---------------------------------------------------------------------------------

    def initial_scores(self, logits: Tensor, w: Tensor) -> Array:
        """∂ log δ_k / ∂(logits, w), (K, p)."""
        own, rest = self.sizes
        out = torch.zeros(self.k, own + rest, dtype=torch.float64)
        if self.stationary and rest:
            # dδ = δ dA M⁻¹ with M = I − A + 1 1ᵀ, and ∂a_j/∂w_jk = a_jk (e_k − a_j)
            a = torch.exp(self.log_transitions(w))
            inverse, _ = torch.linalg.inv_ex(torch.eye(self.k, dtype=a.dtype) - a + 1.0)
            delta, rows = stationary(a), a @ inverse
            moved = [delta[j] * a[j, k] * (inverse[k] - rows[j]) for j, k in self.logits]
            out[:, own:] = torch.stack(moved, 1) / delta.clamp(min=TINY)[:, None]
        elif own:
            delta = torch.exp(self.log_initial(logits, w))
            seats = torch.tensor(self.first)
            out[:, :own] = torch.eye(self.k, dtype=torch.float64)[:, seats] - delta[seats]
        return out.numpy()

    def complete(
        self,
        logits: Tensor,
        w: Tensor,
        first: Tensor,
        taken: Array,
        x: Array | None,
        order: int = 2,
        *,
        exact: bool = True,
    ) -> tuple[float, Array, Array | None]:
        """Σ_k first_k log δ_k + Σ_t Σ_jk ξ_t(j, k) log a_t(j, k): its value, gradient and information in
        (logits, w).

        Parameters
        ----------
        first
            (K,) how often each state is expected to come first
        taken
            (K, K) Σ ξ; or (K, K, m) ξ of each row, with x (q, m)
        exact
            False: the information without the part of a stationary δ, positive semi-definite
        """
        own, rest = self.sizes
        p = own + rest
        gradient, J = np.zeros(p), np.zeros((p, p))
        log_a = self.log_transitions(w, None if x is None else torch.from_numpy(x)).numpy()
        xi = taken if x is not None else taken[:, :, None]
        a = np.exp(log_a if x is not None else log_a[:, :, None])
        X = np.ones((1, 1)) if x is None else x
        value = float(np.where(taken > 0, taken * np.where(taken > 0, log_a, 0.0), 0.0).sum())
        left = xi.sum(1)
        for j, k, at in self.places():
            gradient[at] = X @ (xi[j, k] - left[j] * a[j, k])
            for i, m, other in self.places() if order > 1 else ():
                if i == j:
                    J[at, other] = (X * (left[j] * a[j, k] * ((k == m) - a[j, m]))) @ X.T
        log_delta = self.log_initial(logits, w)
        seen = first > 0
        value += float((first[seen] * log_delta[seen]).sum())
        if self.stationary and rest:
            gradient[own:] += first[seen].numpy() @ self.initial_scores(logits, w)[seen.numpy(), own:]
            if order > 1 and exact:

                def of(v: Tensor) -> Tensor:
                    out: Tensor = (first[seen] * self.log_initial(logits, v)[seen]).sum()
                    return out

                J[own:, own:] -= torch.autograd.functional.hessian(of, w).numpy()
        elif own:
            d, total = torch.exp(log_delta)[self.first].numpy(), float(first.sum())
            gradient[:own] = first[self.first].numpy() - total * d
            J[:own, :own] = total * (np.diag(d) - np.outer(d, d))
        return value, gradient, J if order > 1 else None

    def maximum(self, first: Tensor, taken: Array) -> Tensor | None:
        """(logits, w) of the counts that are expected, where they have a formula; None where they have none."""
        if self.stationary or self.columns:
            return None
        top = np.log(np.maximum(taken, TINY))
        w = [top[j, k] - top[j, self.reference(j)] for j, k in self.logits]
        counts = torch.log(first.clamp(min=TINY))
        seat = self.starts.index(True)
        return torch.cat([counts[self.first] - counts[seat], torch.tensor(w, dtype=torch.float64)])


def stationary(a: Tensor) -> Tensor:
    """δ with δ A = δ, (K,): δ (I − A + 1 1ᵀ) = 1ᵀ. NaN where there are several (a chain in parts that never meet)."""
    k = len(a)
    one = a.new_ones(k)
    found, info = torch.linalg.solve_ex((torch.eye(k, dtype=a.dtype) - a + torch.outer(one, one)).T, one)
    out: Tensor = torch.where(info == 0, found, torch.nan)
    return out
