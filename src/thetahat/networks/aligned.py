"""Keys and values of rows of unequal lengths, each row ending in the last column: a cache from which every row reads on.

    row 0    · · · a a a a          the columns before a row's first token are empty: no token was read into them, and a
    row 1    · · · · · b b          mask keeps them from being seen; positions count from each row's own first token
    row 2    c c c c c c c

The distance of two tokens of one row is the distance of their columns, so windows of attention are as in a row alone. Rows
can be taken out and put in while others are being read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Aligned:
    """What was read of B rows.

    Parameters
    ----------
    layers
        of each layer keys and values, (B, H, C, d)
    lengths
        (B,) tokens read of each row, at most C, on the CPU
    last
        (B, k) the last tokens of each row, for a network that needs them; k may be 0

    Examples
    --------
    >>> keys = torch.arange(1.0, 7.0).view(2, 1, 3, 1)
    >>> two = Aligned.of([(keys, keys)], torch.tensor([3, 1]), torch.zeros(2, 0))
    >>> two.layers[0][0].flatten(1).tolist(), two.seen().tolist()
    ([[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]], [[True, True, True], [False, False, True]])
    >>> two[[1]].layers[0][0].flatten(1).tolist()
    [[4.0]]
    """

    layers: Sequence[tuple[Tensor, Tensor]]
    lengths: Tensor
    last: Tensor

    @classmethod
    def of(cls, layers: Sequence[tuple[Tensor, Tensor]], lengths: Tensor, last: Tensor) -> Aligned:
        """Of rows that all begin in column 0; what lies behind a row's length is left out."""
        C = int(lengths.max())
        if bool((lengths == C).all()):
            return cls([(k[:, :, :C], v[:, :, :C]) for k, v in layers], lengths, last)
        column = torch.arange(C) - (C - lengths[:, None])  # of each place, the one that it comes from

        def moved(x: Tensor) -> Tensor:
            index = column.clamp(min=0).to(x.device)[:, None, :, None]
            rows = x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3]))
            return torch.where((column >= 0).to(x.device)[:, None, :, None], rows, 0)

        return cls([(moved(k), moved(v)) for k, v in layers], lengths, last)

    @property
    def columns(self) -> int:
        """C."""
        return int(self.layers[0][0].shape[2]) if self.layers else int(self.lengths.max())

    @property
    def full(self) -> bool:
        """Whether no column of any row is empty."""
        return bool((self.lengths == self.columns).all())

    def seen(self, more: int = 0) -> Tensor:
        """(B, C + more), on the CPU: whether a column holds a token, or one of the next."""
        C = self.columns + more
        return torch.arange(C) >= C - more - self.lengths[:, None]

    def __getitem__(self, rows: Sequence[int] | Tensor) -> Aligned:
        """These rows, in this order; a row may be taken more than once."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        here = chosen.to(self.last.device)
        lengths = self.lengths[chosen.cpu()]
        C = int(lengths.max())
        layers = [
            (
                k[:, :, k.shape[2] - C :].index_select(0, chosen.to(k.device)),
                v[:, :, v.shape[2] - C :].index_select(0, chosen.to(v.device)),
            )
            for k, v in self.layers
        ]
        return Aligned(layers, lengths, self.last[here])

    @classmethod
    def joined(cls, parts: Sequence[Aligned]) -> Aligned:
        """The rows of all parts, one part after the other."""
        C = max(part.columns for part in parts)

        def wide(x: Tensor) -> Tensor:
            return F.pad(x, (0, 0, C - x.shape[2], 0)) if x.shape[2] < C else x

        layers = [
            (torch.cat([wide(k) for k, _ in each]), torch.cat([wide(v) for _, v in each]))
            for each in zip(*(part.layers for part in parts), strict=True)
        ]
        return cls(
            layers, torch.cat([part.lengths for part in parts]), torch.cat([part.last for part in parts])
        )
