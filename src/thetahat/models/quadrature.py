"""Adaptive Gauss–Hermite quadrature of a mixed model's likelihood: one grouping factor, up to three effects a group.

    log p(y_g) = log ∫ e^{f_g(u)} du − (q/2) log 2π ≈ log Σ_k w_k e^{f_g(û + √2 C z_k) + z_kᵀz_k} + log det C + q log √2 − …

z_k, w_k the nodes and weights of Gauss and Hermite's rule in q dimensions, û the mode of f_g and C Cᵀ = H⁻¹ there. With one
node this is Laplace's approximation. The mode and H are functions of θ: û enters the graph by one Newton step from its own
value, which has the exact first derivative, and H by the rows' curvatures, so that the gradient is that of the sum itself.

Source: Pinheiro and Bates (1995), Approximations to the log-likelihood function in the nonlinear mixed-effects model, §2.4;
Liu and Pierce (1994), A note on Gauss–Hermite quadrature.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..families.derivatives import TwiceOnly, differenced, gradient, thrice
from .elimination import Columns, NotPositiveDefinite
from .laplace import Laplace, Rows

if TYPE_CHECKING:
    from .random_effects import RandomEffects

CELLS = 2**22  # rows times nodes at once
TRACED = 4  # effects of a group, of which the graph of an information is held
SQUARES = 2**21  # their squares times rows


class Quadrature(Laplace):
    """Of one batch of rows, with their weights: the modes are Laplace's."""

    def __init__(
        self, model: RandomEffects, rows: Rows, columns: Columns, batch: Batch, weight: Tensor | None
    ):
        super().__init__(model, rows, columns, batch, weight)
        assert columns.grouped is not None
        self.group = columns.grouped
        self.code = torch.from_numpy(self.group.code)
        self.z = torch.from_numpy(np.ascontiguousarray(self.group.z))
        nodes, weights = np.polynomial.hermite.hermgauss(model.points)
        q = self.group.width
        grid = np.stack(np.meshgrid(*[nodes] * q, indexing="ij"), -1).reshape(-1, q)
        shares = np.prod(np.stack(np.meshgrid(*[weights] * q, indexing="ij"), -1).reshape(-1, q), -1)
        self.nodes = torch.from_numpy(grid)
        self.logs = torch.from_numpy(np.log(shares)) + (self.nodes**2).sum(1)

    def expanded(self, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        try:
            mode = self.mode(beta, phi, joint=False)
        except NotPositiveDefinite:
            nothing = torch.full((len(beta) + len(phi),), torch.nan, dtype=torch.float64)
            return torch.tensor(-math.inf, dtype=torch.float64), nothing
        assert mode.u[0] is not None
        u, p = torch.from_numpy(mode.u[0].T.copy()), len(beta)
        try:
            with torch.enable_grad(), thrice():
                theta = torch.cat([beta, phi]).requires_grad_()
                value = self._integral(theta[:p], theta[p:], u)
            (slope,) = gradient(value, [theta], create_graph=False)
            return value.detach(), slope
        except TwiceOnly:  # H moves with third derivatives, which log p does not have
            at = torch.cat([beta, phi])
            with torch.enable_grad():
                value = self._integral(beta, phi, u).detach()
                slope = differenced(lambda t: self._moved(t[:p], t[p:]), at)
            return value, slope

    def _moved(self, beta: Tensor, phi: Tensor) -> Tensor:
        """The value elsewhere, at the mode there."""
        try:
            mode = self.mode(beta, phi, joint=False)
        except NotPositiveDefinite:
            return torch.tensor(torch.nan, dtype=torch.float64)
        assert mode.u[0] is not None
        return self._integral(beta, phi, torch.from_numpy(mode.u[0].T.copy())).detach()

    def exact(self, beta: Tensor, phi: Tensor) -> Tensor | None:
        """By automatic differentiation, where the groups of one factor have few effects."""
        q = self.group.width
        if self.columns.terms or q > TRACED or q**2 * len(self.batch) > SQUARES:
            return None
        H = self.hessian(beta, phi)
        return None if H is None else -H

    def hessian(self, beta: Tensor, phi: Tensor) -> Tensor | None:
        """∂²/∂(β, φ)² of the value, by automatic differentiation; None: log p has no fourth derivatives that are traced."""
        mode, p = self.mode(beta, phi, joint=False), len(beta)
        assert mode.u[0] is not None
        u = torch.from_numpy(mode.u[0].T.copy())
        try:
            with torch.enable_grad(), thrice():
                theta = torch.cat([beta, phi]).requires_grad_()
                value = self._integral(theta[:p], theta[p:], u, 2)
                (slope,) = gradient(value, [theta], create_graph=True)
                rows = [gradient(s, [theta], create_graph=False)[0] for s in slope]
        except TwiceOnly:
            return None
        except RuntimeError as error:
            if "not implemented" in str(error):  # torch's own functions that end there
                return None
            raise
        out = torch.stack(rows)
        return (out + out.T) / 2 if bool(torch.isfinite(out).all()) else None

    def _integral(self, beta: Tensor, phi: Tensor, u: Tensor, steps: int = 1) -> Tensor:
        """Σ_g log ∫, with its graph."""
        lam = self.model.factor_of_first(phi)
        base = self.rows.base(beta)
        # û moves with θ as so many Newton steps from where it stands do: the k-th brings the k-th derivative
        for _ in range(steps):
            score, H = self._derivatives(beta, base, lam, u)
            u = u + torch.linalg.solve(H.detach(), (score - u)[..., None])[..., 0]
        _, H = self._derivatives(beta, base, lam, u)
        L = torch.linalg.cholesky(H)
        q = u.shape[1]
        total = []
        step = max(1, CELLS // max(len(self.batch), 1))
        for start in range(0, len(self.nodes), step):
            z = self.nodes[start : start + step]
            moved = math.sqrt(2) * torch.linalg.solve_triangular(
                L.transpose(1, 2), z.T.expand(len(u), q, len(z)), upper=True
            )
            at = u[:, :, None] + moved  # (G, q, k)
            rows = self._log_prob(beta, base, lam, at)
            total.append(rows - 0.5 * (at**2).sum(1) + self.logs[start : start + step])
        inner = torch.logsumexp(torch.cat(total, 1), 1)
        return (inner - torch.log(torch.diagonal(L, dim1=1, dim2=2)).sum(1)).sum() - len(
            u
        ) * 0.5 * q * math.log(math.pi)

    def _eta(self, base: list[Tensor], lam: Tensor, u: Tensor) -> list[Tensor]:
        """The linear predictors at u, (G, q) or (G, q, k)."""
        out = list(base)
        b = torch.einsum("ka,ga...->gk...", lam, u)[self.code]  # (n, q, …)
        for k, a in enumerate(self.group.predictors):
            z = self.z[k] if u.ndim == 2 else self.z[k][:, None]
            j = self.free[a]
            own = out[j] if out[j].ndim == u.ndim - 1 else out[j][:, None]
            out[j] = own + z * b[:, k]
        return out

    def _log_prob(self, beta: Tensor, base: list[Tensor], lam: Tensor, at: Tensor) -> Tensor:
        """Σ of the rows' log p of each group and node, (G, k)."""
        n, k = len(self.batch), at.shape[2]
        eta = [(e if e.ndim == 2 else e[:, None]).expand(n, k).reshape(-1) for e in self._eta(base, lam, at)]
        rows = self.rows.log_prob(beta, eta, k).view(n, k)
        if self.w is not None:
            rows = rows * torch.from_numpy(self.w)[:, None]
        return at.new_zeros(at.shape[0], k).index_add(0, self.code, rows)

    def _derivatives(self, beta: Tensor, base: list[Tensor], lam: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """ΛᵀZᵀs (G, q) and H (G, q, q), with their graphs."""
        eta = self._eta(base, lam, u)
        leaves = [e if e.requires_grad else e.clone().requires_grad_() for e in eta]
        log_p = self.rows.log_prob(beta, leaves)
        log_p = log_p if self.w is None else log_p * torch.from_numpy(self.w)
        own = [leaves[self.free[a]] for a in self.group.predictors]
        first = gradient(log_p.sum(), own, create_graph=True)
        y, q = self.z, len(self.z)
        c = torch.stack([y[k] * first[k] for k in range(q)], 1)  # (n, q): ∂/∂b
        second = [gradient(first[k].sum(), own, create_graph=True) for k in range(q)]
        W = torch.stack(
            [torch.stack([-y[k] * y[j] * second[k][j] for j in range(q)], 1) for k in range(q)], 1
        )
        G = len(u)
        score = u.new_zeros(G, q).index_add(0, self.code, c) @ lam
        H = lam.T @ u.new_zeros(G, q, q).index_add(0, self.code, W) @ lam + torch.eye(q, dtype=torch.float64)
        return score, H


class Traced(Laplace):
    """Laplace's approximation, with the information of its rule of one node where that is known."""

    def exact(self, beta: Tensor, phi: Tensor) -> Tensor | None:
        if self.columns.grouped is None:
            return None
        return Quadrature(self.model, self.rows, self.columns, self.batch, self._weight).exact(beta, phi)
