"""Bradley–Terry: which of two is preferred. Ratings of players, and the reward models of language models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument, ModelError
from .base import Model


class BradleyTerry(Model):
    """The probability that the winner is preferred to the loser.

        log p(a ≻ b) = log σ(r_a − r_b),      σ(x) = 1/(1 + e⁻ˣ)

    Parameters
    ----------
    scorer : a module that gives the rating r of each item from its features, (n, …) → (n,) or (n, 1)
    items : in place of a scorer: a rating of its own for each item, r of the first fixed at 0. Their number, or their names
        (`Preferences.items`)

    Raises
    ------
    BadArgument : neither or both were given
    ModelError : the scorer does not give one number an item

    Source: Bradley and Terry (1952), Rank analysis of incomplete block designs: I. The method of paired comparisons.

    >>> model = BradleyTerry(items=["Baltimore", "Milwaukee"])
    >>> batch = Batch({"winner": torch.tensor([1]), "loser": torch.tensor([0])})
    >>> round(model.log_prob(batch).item(), 6), model.names
    (-0.693147, ['Milwaukee'])
    """

    measure = "mass"
    target = "preference"

    def __init__(self, scorer: nn.Module | None = None, *, items: int | Sequence[str] | None = None):
        super().__init__()
        if (scorer is None) == (items is None):
            raise BadArgument(
                "BradleyTerry takes a scorer (a module), or items= (how many there are, or their names): one of the two."
            )
        self.items: list[str] | None = None
        if items is not None:
            self.items = [f"item {i}" for i in range(items)] if isinstance(items, int) else [str(name) for name in items]
            if len(self.items) < 2:
                raise BadArgument(f"a preference is between two items or more; received {len(self.items)}.")
            self.ratings = nn.Parameter(torch.zeros(len(self.items) - 1, dtype=torch.float64))
        self.scorer = scorer

    def rating(self, item: Tensor) -> Tensor:
        """r of each item: of its features, or of its number."""
        if self.scorer is None:
            if item.is_floating_point():
                raise ModelError(
                    "BradleyTerry(items=…) reads the numbers of the items, and the batch holds features. Give a scorer."
                )
            return torch.cat([self.ratings.new_zeros(1), self.ratings])[item]
        first = next(self.scorer.parameters(), None)
        r = self.scorer(item.to(first.dtype) if first is not None and item.is_floating_point() else item)
        r = r.squeeze(-1) if r.ndim > 1 and r.shape[-1] == 1 else r
        if r.ndim != 1 or len(r) != len(item):
            raise ModelError(
                f"the scorer gives a tensor of shape {tuple(r.shape)} for {len(item)} items. It must give one number each."
            )
        return r

    def log_prob(self, batch: Batch) -> Tensor:
        return nn.functional.logsigmoid(self.rating(batch["winner"]) - self.rating(batch["loser"]))

    def probability(self, batch: Batch) -> Tensor:
        """σ(r_a − r_b), that the one in "winner" is preferred to the one in "loser"."""
        with torch.no_grad():
            return torch.exp(self.log_prob(batch))

    def start(self, source: Source) -> Tensor:
        """All ratings equal; a scorer's parameters as they stand."""
        parts = [p.detach().reshape(-1) for p in self.parameters() if p.requires_grad]
        return torch.zeros_like(self.ratings) if self.scorer is None else torch.cat(parts)

    @property
    def names(self) -> list[str]:
        if self.items is None:
            return [f"{n}[{i}]" for n, p in self.named_parameters() if p.requires_grad for i in range(p.numel())]
        return self.items[1:]

    @property
    def coefficient_names(self) -> list[str]:
        return self.names

    @property
    def concave(self) -> bool:
        """log σ is concave, and the ratings are linear in θ for a table and for a linear scorer."""
        return self.scorer is None or isinstance(self.scorer, nn.Linear)
