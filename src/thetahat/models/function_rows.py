"""log p of each row by a function of one's own, for `laplace`: the formulas stand in `latent`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.batch import Batch
from ..families.base import Derivatives
from ..families.derivatives import (
    TwiceOnly,
    differenced,
    differenced_third,
    gradient,
    thrice,
    traced_third,
)
from .elimination import Array
from .laplace import Mode, Shift
from .regression import Predictor

if TYPE_CHECKING:
    from .latent import LatentModel


class FunctionRows:
    """log p of each row by a function of one's own, for `laplace`: its η's are the row's latent variables."""

    def __init__(self, model: LatentModel, batch: Batch):
        self.model, self.batch = model, batch
        self.free = list(range(model.size))
        self.predictors: list[Predictor] = []
        self._copies: tuple[int, Batch] = (1, batch)

    def base(self, beta: Tensor) -> list[Tensor]:
        return self.model.nothing(self.batch)

    def log_prob(self, beta: Tensor, eta: list[Tensor], copies: int = 1) -> Tensor:
        if self._copies[0] != copies:
            repeated = {n: t.repeat_interleave(copies, 0) for n, t in self.batch.tensors.items()}
            self._copies = copies, self.batch if copies == 1 else Batch(repeated)
        return self.model.given(self._copies[1], beta, eta)

    def derivatives(self, beta: Tensor, eta: list[Tensor], order: int) -> Derivatives:
        with torch.enable_grad():
            leaves = [e.detach().clone().requires_grad_() for e in eta]
            value = self.log_prob(beta, leaves)
            score = gradient(value.sum(), leaves, create_graph=order > 1)
            curvature: dict[tuple[int, int], Tensor] = {}
            for a in range(len(leaves) if order > 1 else 0):
                second = gradient(score[a].sum(), leaves[a:], create_graph=False)
                curvature |= {(a, a + j): found for j, found in enumerate(second)}
        return value.detach(), [s.detach() for s in score], curvature

    def third(self, beta: Tensor, eta: list[Tensor], v: dict[tuple[int, int], Tensor]) -> list[Tensor]:
        try:
            return traced_third(lambda *own: self.log_prob(beta, list(own)), eta, v)
        except TwiceOnly:
            return differenced_third(lambda own: self.derivatives(beta, list(own), 2)[2], eta, v)

    def pull(self, beta: Tensor, mode: Mode, w: Array | None, shift: Shift) -> Tensor:
        weight = torch.ones(len(self.batch), dtype=torch.float64) if w is None else torch.from_numpy(w)
        held = {ab: weight * torch.from_numpy(rows) for ab, rows in shift.variances.items()}
        with torch.enable_grad():
            leaf = beta.detach().clone().requires_grad_()
            v = [e.detach().clone().requires_grad_() for e in mode.eta]
            log_p = self.log_prob(leaf, v)
            score = gradient(log_p.sum(), v, create_graph=True)
            total = (weight * log_p).sum()
            for a, rows in shift.za.items():
                total = total + (weight * torch.from_numpy(rows) * score[a]).sum()
            (out,) = gradient(total, [leaf], create_graph=False)
            try:
                with thrice():
                    curvature = self._curvature(leaf, v, held)
                return out + gradient(curvature, [leaf], create_graph=False)[0]
            except TwiceOnly:
                return out + self._slopes_of_curvature(beta, v, held)

    def _curvature(self, beta: Tensor, v: list[Tensor], held: Mapping[tuple[int, int], Tensor]) -> Tensor:
        """½ Σ V ∘ ∂²log p/∂v²."""
        score = gradient(self.log_prob(beta, v).sum(), v, create_graph=True)
        total = v[0].new_zeros(())
        for a in {a for a, _ in held}:
            second = gradient(score[a].sum(), v, create_graph=True)
            for b in range(a, len(v)):
                if (a, b) in held:
                    total = total + (0.5 if a == b else 1.0) * (held[a, b] * second[b]).sum()
        return total

    def _slopes_of_curvature(
        self, beta: Tensor, v: list[Tensor], held: Mapping[tuple[int, int], Tensor]
    ) -> Tensor:
        """Its slopes in β where log p has no third derivatives: central differences of fourth order."""
        return differenced(lambda b: self._curvature(b, v, held).detach(), beta)

    def size(self, beta: Tensor, mode: Mode, w: Array | None) -> Tensor:
        """Of each β_j, how far it moves log p by about ½ nat: the step of differences is relative to it."""
        weight = None if w is None else torch.from_numpy(w)

        def total(b: Tensor) -> Tensor:
            log_p = self.log_prob(b, mode.eta)
            return (log_p if weight is None else weight * log_p).sum()

        with torch.enable_grad():
            H = torch.autograd.functional.hessian(total, beta.detach())
        curved = H.diagonal().abs()
        return torch.where(curved > 0, curved, (beta.abs() + 1) ** -2).nan_to_num(1.0, 1.0, 1.0) ** -0.5
