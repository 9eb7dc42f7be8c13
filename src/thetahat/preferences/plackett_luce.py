"""Plackett–Luce: several items in order, chosen one after the other from those that are left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..types import Level, Settings
from .bradley_terry import BradleyTerry


class PlackettLuce(BradleyTerry):
    """The probability of a ranking: the best is chosen among all, the next among those left, and so on.

        log p(a_1 ≻ … ≻ a_J) = Σ_j [ r_{a_j} − log Σ_{k ≥ j} exp r_{a_k} ]

    Concave in the ratings. Of two items it is `BradleyTerry`, whose pairs it can score and be judged on too.

    A maximum exists only if in every division of the items in two each side has one that was once placed
    above one of the other.

    Parameters
    ----------
    items
        how many, or their names (`Rankings.items`)
    reference
        whether the rating of the first is fixed at 0; without, a prior must hold them all

    References
    ----------
    Plackett (1975), The analysis of permutations; Luce (1959), Individual Choice Behavior; Hunter (2004), MM
    algorithms for generalized Bradley–Terry models, §5.

    Examples
    --------
    >>> model = PlackettLuce(3)
    >>> batch = Batch({"order": torch.tensor([[2, 0, 1]]), "places": torch.tensor([3])})
    >>> round(float(torch.exp(model.log_prob(batch).detach())), 6)  # one of 3! orders
    0.166667
    """

    def __init__(self, items: int | Sequence[Level], *, reference: bool = True):
        super().__init__(items=items, reference=reference)

    def to_config(self) -> Settings:
        """Plain values from which `from_config` makes the model again."""
        return {"items": self.items, "reference": self.reference}

    def log_prob(self, batch: Batch) -> Tensor:
        if "order" not in batch:
            return super().log_prob(batch)
        r = self.every_rating()[batch["order"]]  # (n, J)
        seen = self._seen(batch)
        J = r.shape[1]
        left = (
            torch.ones(J, J, dtype=torch.bool, device=r.device).triu() & seen[:, None, :]
        )  # of those at k, who is left when j is chosen
        left = left | torch.eye(J, dtype=torch.bool, device=r.device)
        chosen = r - torch.logsumexp(torch.where(left, r[:, None, :], -torch.inf), -1)
        return torch.where(seen, chosen, torch.zeros_like(chosen)).sum(-1)

    @staticmethod
    def _seen(batch: Batch) -> Tensor:
        """Which places are no padding, (n, J)."""
        J = batch["order"].shape[1]
        out: Tensor = torch.arange(J, device=batch["order"].device) < batch["places"][:, None]
        return out

    def _wins(self, source: Source) -> tuple[Tensor, Tensor, bool, bool]:
        """Who was placed directly above whom: what was placed above something further down is reached through
        those between."""
        over, under = [], []
        for batch in source.batches(self):
            if "order" not in batch:
                return super()._wins(source)
            each = self._seen(batch)[:, 1:] & (batch.count > 0)[:, None]
            over.append(batch["order"][:, :-1][each])
            under.append(batch["order"][:, 1:][each])
        return torch.cat(over), torch.cat(under), False, True
