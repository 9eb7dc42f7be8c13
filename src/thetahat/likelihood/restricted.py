"""An objective on a linear subspace of θ: held coefficients, profile likelihoods, linear restrictions,
aliased columns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..models.information import Information
from ..models.taylor import Taylor
from .objective import Objective


class Restricted:
    """The objective as a function of φ, where θ = origin + basis φ.

    Parameters
    ----------
    objective
        of θ, (p,)
    origin
        a θ that satisfies the restriction, (p,)
    basis
        (p, r), columns span the directions that stay free; or a boolean mask (p,) of free coordinates
    """

    def __init__(self, objective: Objective, origin: Tensor, basis: Tensor):
        self.whole, self.origin = objective, origin.clone()
        self.free = torch.nonzero(basis).reshape(-1) if basis.dtype == torch.bool else None
        self.basis = None if basis.dtype == torch.bool else basis

    @property
    def size(self) -> int:
        return len(self.free) if self.free is not None else self.basis.shape[1]  # type: ignore[union-attr]

    @property
    def model(self) -> nn.Module:
        out: nn.Module = self.whole.model
        return out

    @property
    def rows(self) -> int | None:
        return self.whole.rows

    @property
    def concave(self) -> bool:
        return self.whole.concave

    @property
    def kinked(self) -> bool:
        return self.whole.kinked

    def lift(self, phi: Tensor) -> Tensor:
        """θ of φ."""
        if self.free is not None:
            theta = self.origin.clone()
            theta[self.free] = phi
            return theta
        assert self.basis is not None
        return self.origin + self.basis @ phi

    @property
    def theta(self) -> Tensor:
        """φ at which the model now stands (nearest, if it is off the subspace)."""
        theta = self.whole.theta
        if self.free is not None:
            return theta[self.free]
        assert self.basis is not None
        out: Tensor = torch.linalg.lstsq(self.basis, (theta - self.origin)[:, None]).solution[:, 0]
        return out

    def at(self, phi: Tensor) -> Restricted:
        """The same, its models at θ(φ)."""
        return self._of(self.whole.at(self.lift(phi)))

    def taylor(
        self, theta: Tensor | None = None, *, order: int = 2, precision: torch.dtype = torch.float64
    ) -> Taylor:
        part = self.whole.taylor(
            None if theta is None else self.lift(theta), order=order, precision=precision
        )
        if self.free is not None:
            J = None if part.information is None else part.information.restrict(self.free)
            return Taylor(part.value, part.gradient[self.free], J)
        assert self.basis is not None
        J = (
            None
            if part.information is None
            else Information(self.basis.T @ part.information.dense() @ self.basis)
        )
        return Taylor(part.value, self.basis.T @ part.gradient, J)

    def value(self, theta: Tensor | None = None) -> float:
        return float(self.taylor(theta, order=1).value)

    def thinned(self, keep: int) -> Restricted:
        return self._of(self.whole.thinned(keep))

    def _of(self, whole: Objective) -> Restricted:
        mask = torch.zeros(len(self.origin), dtype=torch.bool)
        if self.free is not None:
            mask[self.free] = True
        return Restricted(whole, self.origin, mask if self.free is not None else self.basis)  # type: ignore[arg-type]
