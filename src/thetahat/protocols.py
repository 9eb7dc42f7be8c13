"""Optional abilities of models, sources, families and networks: who asks for each, and a complete example."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from .data.batch import Batch


@runtime_checkable
class Pairwise(Protocol):
    """A model of who is preferred to whom. `evaluation.calibration_error` asks it for the outcomes' probabilities.

    >>> import torch
    >>> class Coin(torch.nn.Module):
    ...     pairwise = True
    ...     def probabilities(self, batch):
    ...         return torch.tensor([0.5, 0.0, 0.5]).expand(len(batch), 3)
    >>> isinstance(Coin(), Pairwise)
    True
    """

    pairwise: ClassVar[bool]

    def probabilities(self, batch: Batch) -> Tensor:
        """P(the first is preferred), P(a tie), P(the second is preferred), (n, 3)."""
        ...
