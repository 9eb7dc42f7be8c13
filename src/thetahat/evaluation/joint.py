"""The covariance of θ and of random effects together, by solutions of factored equations: it is not written out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inference.covariance import Covariance


@dataclass(frozen=True, eq=False)
class JointCovariance(Covariance):
    """A subclass says `size`, `of(G)` and `diagonal(G)`."""

    @property
    @abstractmethod
    def size(self) -> int: ...

    def variances(self) -> Tensor:
        return self.diagonal(torch.eye(self.size, dtype=torch.float64))

    def freedom(self, G: Tensor) -> Tensor:
        return torch.full((len(G),), self.df, dtype=torch.float64)

    def draws(self, z: Tensor) -> Tensor:
        V = self.of(torch.eye(self.size, dtype=torch.float64))
        values, vectors = torch.linalg.eigh(V)
        out: Tensor = vectors @ (values.clamp(min=0).sqrt()[:, None] * z)
        return out
