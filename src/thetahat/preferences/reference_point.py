"""The reference point of KTO: what an answer's reward is compared with."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from ..data.batch import Batch


@runtime_checkable
class HasReferencePoint(Protocol):
    """A model of labels whose log p needs z0 of all answers that are scored. `Labelled` asks."""

    def mismatched(self, batch: Batch) -> Tensor:
        """β log π/π_ref of the mismatched answers of a batch, (n,)."""

    def reference_point(self, rewards: Tensor, count: Tensor) -> Tensor:
        """z0 of them, ()."""
