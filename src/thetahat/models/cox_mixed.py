"""Cox's model with random effects (frailty) and smooth terms, integrated out of the partial likelihood by Laplace.

    λ(t | x, b) = λ₀(t) exp(x·β + z·b),      b = Λ(φ) u,      u ~ N(0, I)

    ℓ(β, φ) = f(û) − ½ log det H(û),      f(u) = ℓ_p(Xβ + ZΛu) − ½ uᵀu,      H = I + ΛᵀGΛ,      G = ZᵀWZ,  W = −∂²ℓ_p/∂η²

ℓ_p is the partial log-likelihood (`partial`), whose W is a full matrix of rows: every two groups meet in a risk set, so
that nothing of H is sparse and no factor is eliminated. All columns C = (Z, X) share one dense matrix, and W is not
formed: CᵀWC is the information of ℓ_p in the coefficients of C. The gradient is that of `mixed`,

    ∂ℓ = (s + h − WCa)ᵀ ∂(Xβ + ZΛû) + (Zᵀs)·∂Λ a − Q ∘ ∂Λ,      a = ΛH⁻¹ΛᵀZᵀh,      h = −½ ∂ tr(A G)/∂η,   A = ΛH⁻¹Λᵀ

with s the residuals (events less those expected). A term t of ℓ_p gives row j of its risk set the share p_tj; then

    −2 h_j = Σ_t v_t p_tj [r_j − 2 z_jᵀ A m_t + 2 m_tᵀ A m_t − Σ_i p_ti r_i],      r_j = z_jᵀ A z_j

Source: Ripatti and Palmgren (2000), Estimation of multivariate frailty models using penalized partial likelihood, eq. 4
(with all of H, where they and R's coxme drop parts of it); Kristensen et al. (2016), TMB, for the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..memory import reserve
from .cox import CoxRegression
from .elimination import Array, Columns, Cross, Factored, NotPositiveDefinite, Scales
from .information import Information
from .laplace import NOTHING, SMALL, STEPS, FamilyRows, Laplace, Mode
from .mixed import RESTRICTED, Mixed
from .monotone import monotone
from .normal_mixed import LOG_2PI
from .partial import Partial
from .random_effects import Order, Random
from .taylor import Taylor

WIDEST = 2_000  # random effects, which share one dense matrix
CHUNK = 64  # columns that are written out for all rows at once


class CoxMixed(Mixed):
    """Cox's model with random effects and smooth terms.

    Parameters
    ----------
    regression
        its fixed effects and strata
    random
        the terms that are integrated out
    reml
        integrate the fixed effects out too
    points
        1: Laplace's approximation; there is no other

    Raises
    ------
    BadArgument
        more than 2,000 random effects, ties="exact", or points other than 1
    """

    together: ClassVar[bool] = True
    regression: CoxRegression

    def __init__(
        self, regression: CoxRegression, random: Sequence[Random], *, reml: bool = False, points: int = 1
    ):
        if points != 1:
            raise BadArgument(
                f"quadrature={points}: Cox's partial likelihood is of all groups together, and is integrated by Laplace's "
                "approximation alone. Leave quadrature out."
            )
        if regression.family.ties == "exact":
            raise BadArgument(
                "ties='exact' takes no random effect and no smooth term. Use ties='efron', which is close to it."
            )
        super().__init__(regression, random, reml=reml)
        if reml:
            self.measure = self.measure.replace(RESTRICTED, "restricted partial likelihood")
        sizes = {r.text: self._width(r) for r in self.random}
        if sum(sizes.values()) > WIDEST:
            each = ", ".join(f"{size:,} of {text}" for text, size in sizes.items())
            raise BadArgument(
                f"family='cox' has {sum(sizes.values()):,} random effects ({each}), and at most {WIDEST:,} are accepted: any "
                "two of them meet in a risk set, so that they share one dense matrix. Write strata(column) for a baseline "
                "hazard of each group, or covariance='cluster', by='column' for errors that allow for the groups."
            )

    def _width(self, r: Random) -> int:
        if r.smooth:
            return int(self.encoder.smooths[r.source].R.shape[1])
        return r.structure.width * self.encoder.groupings[r.source].size

    @property
    def order(self) -> Order:
        """No factor is eliminated: sparse terms, then dense ones."""
        every = range(len(self.random))
        return Order([], sorted(every, key=lambda i: self.random[i].smooth))

    def _evaluator(self, batch: Batch, weight: Tensor | None) -> PartialLaplace:
        return PartialLaplace(self, self.columns(batch), batch, weight)

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None:
        """A direction of β along which the partial likelihood rises for ever whatever b is, and so does its integral
        (`models.monotone`); None: there is none. Random effects have a density that falls, and need no proof."""
        with torch.no_grad():
            for batch in source.batches(self):
                weight = batch.count.to(torch.float64) if batch.counted else None
                found = monotone(self.regression, batch, self._of_beta(batch, weight))
                if found is not None:
                    return found
        return None

    def _of_beta(self, batch: Batch, weight: Tensor | None) -> Taylor | None:
        """The partial likelihood as a function of β alone, at the modes; None where these are not found, far out."""
        try:
            at = self._evaluator(batch, weight).mode(
                self.coefficients.detach(), self.covariance.detach(), joint=self.reml
            )
        except NotPositiveDefinite:
            return None
        return Taylor(at.partial.value, at.partial.gradient, Information(at.partial.information))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        raise BadArgument(
            "Cox's model leaves the baseline hazard open, and so has no distribution of times to draw from. A parametric "
            "family does: family='weibull'."
        )


@dataclass(frozen=True)
class PartialMode(Mode):
    """The mode, with the partial likelihood there, its terms' means of all columns (m + p, terms), and Cᵀs (m + p,)."""

    partial: Partial
    means: Tensor
    pulled: Array


class PartialLaplace(Laplace):
    """Of one batch of rows, with their weights."""

    def __init__(self, model: CoxMixed, columns: Columns, batch: Batch, weight: Tensor | None):
        super().__init__(model, FamilyRows(model, batch), columns, batch, weight)
        rows = model.regression.ordered(batch, weight)
        assert rows is not None  # without an event there is no model
        self.ordered, self.ties = rows, model.regression.family.ties
        chosen = rows.sets.rows.numpy()
        self.count = rows.count if weight is None else weight[rows.sets.rows]
        offset = batch.tensors.get(f"offset{model.regression.predictors[0].slot}")
        self.offset = 0.0 if offset is None else offset[rows.sets.rows].numpy()
        reserve(
            8.0 * columns.starts[-1] * len(rows.sets.failed) * 2,
            f"the means of {columns.starts[-1]:,} columns in {len(rows.sets.failed):,} risk sets",
            "Use fewer groups, or strata(…) in the place of a random effect.",
        )
        parts = [t.rows[chosen] for t in columns.sparse_terms]
        self.Z = sparse.hstack(parts).tocsr() if parts else sparse.csr_matrix((len(chosen), 0))
        self.Zt = self.Z.T.tocsr()
        smooth = [
            rows.sets.centred_(torch.from_numpy(np.ascontiguousarray(t.rows[chosen].T)))
            for t in columns.random[len(parts) :]
        ]
        self.dense = torch.cat([*smooth, rows.X]).numpy()  # (columns, n)

    # ---- C, and its transpose ------------------------------------------------------------------------------

    def _rows(self, b: Array) -> Array:
        """C b, (n,) of b (m + p,), or (k, n) of b (k, m + p); of fewer columns than all, the first ones."""
        ms = self.Z.shape[1]
        out: Array = (self.Z @ b[..., :ms].T).T + b[..., ms:] @ self.dense[: b.shape[-1] - ms]
        return out

    def _pulled(self, r: Array) -> Array:
        """Cᵀ r, (m + p,)."""
        return np.concatenate([self.Zt @ r, self.dense @ r])

    def _chunks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """The first `size` columns written out, (k, n) at a time."""
        ms = self.Z.shape[1]
        for a in range(0, ms, CHUNK):
            b = min(a + CHUNK, ms)
            yield slice(a, b), torch.from_numpy(self.Zt[a:b].toarray())
        for a in range(ms, size, CHUNK):
            b = min(a + CHUNK, size)
            yield slice(a, b), torch.from_numpy(self.dense[a - ms : b - ms])

    def _information(self, partial: Partial) -> tuple[Array, Tensor]:
        """CᵀWC, (m + p, m + p), and the terms' means of C."""
        size, ms, q = self.columns.starts[-1], self.Z.shape[1], partial.smooth_expected.numpy()
        means = torch.empty(size, len(partial.v), dtype=torch.float64)
        for at, C in self._chunks(size):
            means[at] = partial.means_of(C)
        weighed = self.dense * q
        G = torch.empty(size, size, dtype=torch.float64)
        G[:ms, :ms] = torch.from_numpy((self.Zt.multiply(q).tocsr() @ self.Z).toarray())
        G[:ms, ms:] = torch.from_numpy(self.Zt @ weighed.T)
        G[ms:, :ms] = G[:ms, ms:].T
        G[ms:, ms:] = torch.from_numpy(weighed @ self.dense.T)
        for a in range(0, len(partial.v), 4096):
            own = means[:, a : a + 4096]
            G.addmm_(own * partial.v[a : a + 4096], own.T, alpha=-1)
        return ((G + G.T) / 2).numpy(), means

    # ---- the mode ------------------------------------------------------------------------------------------

    def mode(self, beta: Tensor, phi: Tensor, *, joint: bool) -> PartialMode:
        """û at (β, φ); joint: of the fixed effects too. f is concave in both.

        Raises
        ------
        NotPositiveDefinite
            f has no maximum that Newton's method finds, or H is singular there
        """
        scales, _ = self.model.scales(phi)
        m, fixed = self.columns.penalised, beta[self.places].numpy()
        x = self._start(joint, fixed)
        now = self._evaluated(scales, x)
        if not math.isfinite(now[0]):
            x = np.concatenate([np.zeros(m), fixed])
            now = self._evaluated(scales, x)
        factored, fresh, last = self._near.get(joint), False, math.inf
        size = len(x) if joint else m
        for _ in range(STEPS):
            g = self._slope(scales, now[2], x)[:size]
            if factored is None:
                factored, fresh = self._factored(scales, now[1], joint), True
            d = factored.solve(None, g[:, None])[1][:, 0]
            gain = float(g @ d)
            if not math.isfinite(gain):  # a scale so large that no digit is left
                raise NotPositiveDefinite
            if gain < NOTHING:
                break
            if not fresh and gain > 0.1 * last:
                factored = None
                continue
            found = self._searched(scales, x, np.pad(d, (0, len(x) - size)), now, gain)
            if found is None:
                if fresh:
                    break  # no step rises: rounding
                factored = None
                continue
            t, x, now = found
            if t == 1.0 and gain < SMALL and (fresh or gain * gain / last < NOTHING):
                break
            last = gain
            factored, fresh = (None, False) if fresh or t < 1.0 else (factored, False)
        value, partial, pulled = now
        G, means = self._information(partial)
        whole = Factored(Cross(None, None, None, G, self.columns), scales, fixed=True)
        self._warm[joint] = (None, x)
        self._near[joint] = whole if joint else whole.without_fixed()
        score = np.zeros(len(self.batch))
        score[self.ordered.sets.rows.numpy()] = partial.residual.numpy()
        return PartialMode((None, x), value, {0: score}, {}, whole, [], partial, means, pulled)

    def aside(self, beta: Tensor, phi: Tensor, joint: Mode) -> Mode:
        return self.mode(beta, phi, joint=False)

    def _start(self, joint: bool, fixed: Array) -> Array:
        found, m = self._warm.get(joint), self.columns.penalised
        if found is None:
            return np.concatenate([np.zeros(m), fixed])
        return found[1] if joint else np.concatenate([found[1][:m], fixed])

    def _evaluated(self, scales: Scales, x: Array) -> tuple[float, Partial, Array]:
        """f, the partial likelihood and Cᵀs at (u, β)."""
        m = self.columns.penalised
        _, b = scales.times(None, x[:m], self.columns)
        eta = torch.from_numpy(self._rows(np.concatenate([b, x[m:]])) + self.offset)
        partial = Partial(self.ordered, eta, self.count, self.ties)
        value = float(partial.value) - 0.5 * float(x[:m] @ x[:m])
        return value, partial, self._pulled(partial.residual.numpy())

    def _slope(self, scales: Scales, pulled: Array, x: Array) -> Array:
        """∂f/∂(u, β)."""
        m = self.columns.penalised
        _, of_u = scales.back(None, pulled[:m], self.columns)
        return np.concatenate([of_u - x[:m], pulled[m:]])

    def _factored(self, scales: Scales, partial: Partial, joint: bool) -> Factored:
        G = self._information(partial)[0]
        return Factored(Cross(None, None, None, G, self.columns), scales, fixed=joint)

    def _searched(
        self, scales: Scales, x: Array, d: Array, now: tuple[float, Partial, Array], gain: float
    ) -> tuple[float, Array, tuple[float, Partial, Array]] | None:
        """A step t along d that rises, halved from 1; None: there is none."""
        least = now[0] - 1e-10 * (1 + abs(now[0]))
        t = 1.0
        for _ in range(40):
            new = self._evaluated(scales, x + t * d)
            wanted = max(least, now[0] + 1e-4 * t * gain) if gain > 1e-6 else least
            if math.isfinite(new[0]) and new[0] >= wanted:
                return t, x + t * d, new
            t *= 0.5
        return None

    # ---- ℓ and its gradient --------------------------------------------------------------------------------

    def _expanded(self, beta: Tensor, phi: Tensor, mode: Mode, joint: Mode | None) -> tuple[Tensor, Tensor]:
        assert isinstance(mode, PartialMode)
        where = mode if joint is None else joint
        assert isinstance(where, PartialMode)
        m, columns = self.columns.penalised, self.columns
        factored = where.factored.without_fixed() if joint is None else where.factored
        random, fixed = factored.log_determinant
        value = mode.value - 0.5 * random
        if joint is not None:
            value += 0.5 * len(self.places) * LOG_2PI - 0.5 * fixed
        h = self._third(where, factored)
        _, back = factored.scales.back(None, h[:m], columns)
        right = np.concatenate([back, h[m:]])[: factored.size]
        a = factored.solve(None, right[:, None])[1][:, 0]
        a = np.pad(a, (0, len(h) - len(a)))
        _, b = factored.scales.times(None, a[:m], columns)
        change = h - where.factored.cross.rest @ np.concatenate([b, a[m:]])  # Cᵀ(h − WCa)
        gradient = torch.zeros(len(beta) + len(phi), dtype=torch.float64)
        of_fixed = mode.pulled[m:] + (change[m:] if joint is None else 0.0)
        gradient[self.places] = torch.from_numpy(of_fixed)
        moved = self._paired(phi, mode.pulled, mode.u[1])
        moved += self._paired(phi, change, where.u[1]) + self._paired(phi, where.pulled, a)
        gradient[len(beta) :] = moved - self.model.pulled(phi, *factored.slopes())
        return torch.tensor(value, dtype=torch.float64), gradient

    def _paired(self, phi: Tensor, z: Array, u: Array) -> Tensor:
        """∂/∂φ of z·Λu."""
        blocks = []
        for t, at in zip(self.columns.random, self.columns.starts, strict=False):
            own = slice(at, at + t.size)
            blocks.append(z[own].reshape(t.levels, t.width).T @ u[own].reshape(t.levels, t.width))
        return self.model.pulled(phi, None, blocks)

    def _third(self, mode: PartialMode, factored: Factored) -> Array:
        """Cᵀh, (m + p,)."""
        partial, means, size = mode.partial, mode.means, factored.size
        turned = Scales(None, tuple(lam.T for lam in factored.scales.rest))
        A = turned.right(turned.right(factored.inverse, self.columns).T, self.columns)  # ΛH⁻¹Λᵀ
        r = torch.zeros(len(partial.eta), dtype=torch.float64)
        across, within = torch.zeros_like(r), torch.zeros_like(partial.v)
        for at, C in self._chunks(size):
            moved = torch.from_numpy(np.ascontiguousarray(self._rows(A[at])))
            r += (C * moved).sum(0)
            across += (partial.expected_of(means[at]) * moved).sum(0)
            within += (means[at] * (torch.from_numpy(A[at]) @ means[:size])).sum(0)
        of_terms = 2 * within - partial.means_of(r[None])[0]
        total = r * partial.smooth_expected - 2 * across + partial.expected_of(of_terms[None])[0]
        return self._pulled(-0.5 * total.numpy())
