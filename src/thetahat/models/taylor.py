"""Taylor: a log-likelihood at θ to second order, for any model; automatic differentiation where the model has
nothing faster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.batch import Batch
from ..data.devices import device_of, sent, widest
from ..memory import reserve
from ..protocols import HasScores, ScoresTogether, taylor_of
from ..types import ModelLike
from .information import Information


@dataclass
class Taylor:
    """ℓ(θ + d) ≈ value + gradientᵀd − ½ dᵀ J d. Two of them add."""

    value: Tensor
    gradient: Tensor
    information: Information | None = None

    def __add__(self, other: Taylor) -> Taylor:
        both = self.information is not None and other.information is not None
        J = self.information + other.information if both else None  # type: ignore[operator]
        return Taylor(self.value + other.value, self.gradient + other.gradient, J)

    def accumulate(self, other: Taylor) -> Taylor:
        """self + other, in the memory of self."""
        if self.information is None or other.information is None:
            return self + other
        return Taylor(
            self.value + other.value,
            self.gradient + other.gradient,
            self.information.accumulate(other.information),
        )

    def tensors(self) -> list[Tensor]:
        return [
            self.value,
            self.gradient,
            *(self.information.tensors() if self.information is not None else []),
        ]


def taylor(
    model: ModelLike,
    batch: Batch,
    weight: Tensor | None,
    order: int = 2,
    precision: torch.dtype = torch.float64,
) -> Taylor:
    """Σ w log p of a batch, its gradient and its information in the model's own θ.

    The model's own `taylor` if it has one; else reverse-mode differentiation of `log_prob`, once more for
    each row of the Hessian.
    """
    own = taylor_of(model)
    if own is not None:
        return own(batch, weight, order, precision)
    free = [p for p in model.parameters() if p.requires_grad]
    device = device_of(model)
    batch = batch.to(device)
    weight = None if weight is None else sent(weight, device)
    with torch.enable_grad(), _twice(order > 1):
        log_prob = model.log_prob(batch)
        value = (log_prob if weight is None else weighted(log_prob, weight)).sum(
            dtype=widest(device)
        )  # of float32 models too
        if not value.requires_grad:  # log p does not depend on θ
            nothing = torch.zeros(sum(p.numel() for p in free), dtype=widest(device), device=device)
            return Taylor(value, nothing, Information(torch.diag(nothing)) if order > 1 else None)
        gradient = _flat(torch.autograd.grad(value, free, create_graph=order > 1, allow_unused=True), free)
        if order < 2:
            return Taylor(value.detach(), gradient.detach())
        p = len(gradient)
        reserve(
            24.0 * p**2,
            f"the information of {p:,} parameters",
            "Use th.Stochastic() or th.LBFGS(), which hold gradients alone.",
        )
        rows = []
        for g in gradient:
            row = (
                torch.autograd.grad(g, free, retain_graph=True, allow_unused=True)
                if g.requires_grad
                else [None] * len(free)
            )
            rows.append(_flat(row, free))
    J = -torch.stack(rows).detach() if rows else torch.zeros(0, 0, device=device)
    return Taylor(value.detach(), gradient.detach(), Information((J + J.T) / 2))


def scores(model: ModelLike, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """∂ log p_i / ∂θ, (n, p), of one unit of weight each; `weight` is that of the rows, None: 1."""
    if isinstance(model, ScoresTogether):
        return model.weighted_scores(batch, weight)
    if isinstance(model, HasScores):
        return model.scores(batch)
    batch = batch.to(device_of(model))
    with torch.enable_grad(), _twice():
        return jacobian(model.log_prob(batch).reshape(-1), [p for p in model.parameters() if p.requires_grad])


def _twice(wanted: bool = True) -> AbstractContextManager[None]:
    """Attention by the one implementation that can be differentiated twice."""
    return sdpa_kernel(SDPBackend.MATH) if wanted else nullcontext()


def jacobian(values: Tensor, free: Sequence[Tensor]) -> Tensor:
    """∂ values_i / ∂θ, (n, p), of values (n,) that carry a graph: a pass a coordinate of θ."""
    with torch.enable_grad():
        # d(Σ v_i f_i)/dθ is linear in v: differentiating it in v gives a column a coordinate of θ
        v = torch.zeros_like(values, requires_grad=True)
        gradient = _flat(torch.autograd.grad(values, free, v, create_graph=True, allow_unused=True), free)
        columns = [
            torch.autograd.grad(g, v, retain_graph=True)[0] if g.requires_grad else torch.zeros_like(v)
            for g in gradient
        ]
    return torch.stack(columns, -1).detach() if columns else values.new_zeros(len(values), 0)


def weighted(log_prob: Tensor, weight: Tensor) -> Tensor:
    """w · log p with 0 · (−∞) = 0: a term that was not observed says nothing."""
    return torch.where(weight == 0, torch.zeros_like(log_prob), weight * log_prob)


def _flat(parts, free) -> Tensor:  # type: ignore[no-untyped-def]
    return torch.cat(
        [
            torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1)
            for g, p in zip(parts, free, strict=True)
        ]
    )
