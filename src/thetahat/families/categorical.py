"""One of k categories without an order: multinomial logistic regression, and every classifier that ends in a
softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadArgument
from ..memory import reserve
from .base import Derivatives, Family, Parameter, Support, categories
from .log_sum_exp import COLUMNS, log_sum_exp
from .ranges import real

_NONE = -(2**62)
BLOCK = 16384  # rows of a table that are read at once
_UNCOUNTED = Support("the codes 0, 1, …", 0.0, integer=True, closed=(True, False))


@dataclass(frozen=True)
class Categorical(Family):
    """One of k categories, without an order.

        log p(y | η) = η_y − log Σ_j exp η_j,      η_0 = 0

    The parameters are the k − 1 log-odds logit_1 … logit_{k−1} against category 0, each with the predictors
    of the main formula. `log_prob` and `log_prob_eta` also accept k logits, the output of a network, where
    one is left over.

    Parameters
    ----------
    k
        the number of categories; y is coded 0 … k − 1

    References
    ----------
    McFadden (1974), Conditional logit analysis of qualitative choice behavior, eq. 12.

    Examples
    --------
    >>> round(Categorical(3).log_prob(torch.tensor(2.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 6)
    -0.551445
    """

    k: int | None = None

    measure = "mass"

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 2:
            raise BadArgument(f"k is {self.k}; a categorical response has 2 or more categories.")
        if self.link is not None:
            raise BadArgument(
                f"link is {self.link!r}; the logits of Categorical are its predictors and take no link."
            )

    @property
    def support(self) -> Support:
        return _UNCOUNTED if self.k is None else categories(self.k)

    @property
    def parameters(self) -> dict[str, Parameter]:
        return dict(_log_odds(_known(self, self.k)))

    @property
    def categories(self) -> int | None:
        return self.k

    def with_categories(self, k: int) -> Categorical:
        return replace(self, k=k)

    def log_prob(self, y: Tensor, *parameters: Tensor) -> Tensor:
        return self.log_prob_eta(y, *parameters)

    def log_prob_eta(self, y: Tensor, *eta: Tensor) -> Tensor:
        logits = self._logits(eta)
        code, inside = _code(self.support, y)
        return torch.where(inside, _chosen(logits, code) - torch.logsumexp(logits, 0), -torch.inf)

    def log_prob_outputs(self, y: Tensor, outputs: Tensor, **extras: Tensor) -> Tensor:
        k = _known(self, self.k)
        if outputs.shape[-1] == k - 1:  # beside the 0 of category 0
            outputs = F.pad(outputs, (1, 0))
        if outputs.shape[-1] != k or y.is_floating_point() or torch.compiler.is_compiling() or y.numel() == 0:
            return super().log_prob_outputs(y, outputs, **extras)
        if not y.is_cpu:  # elsewhere a code that is none reads other memory
            low, high = torch.aminmax(y)
            if low < 0 or high >= k:
                return super().log_prob_outputs(y, outputs, **extras)
        try:
            return (
                _cross(outputs, y)
                if y.ndim == 1
                else _cross(outputs.reshape(-1, k), y.reshape(-1)).view(y.shape)
            )
        except IndexError:  # some y is no code, and impossible
            return super().log_prob_outputs(y, outputs, **extras)

    def derivatives(
        self, y: Tensor, eta: Sequence[Tensor], extras: Mapping[str, Tensor] | None = None, order: int = 2
    ) -> Derivatives:
        self._affordable(len(y), order)
        logits = self._logits([e.detach() for e in eta])
        first = len(logits) - len(eta)  # 1: η_0 is 0 and has no derivative; 0: all k logits are given
        log_p = torch.log_softmax(logits, 0)
        p, (code, inside) = torch.exp(log_p), _code(self.support, y)
        value = torch.where(inside, _chosen(log_p, code), -torch.inf)
        score = [(code == j).to(p.dtype) - p[j] for j in range(first, len(logits))]
        if order < 2:
            return value, score, {}
        p = p[first:]
        pairs = ((a, b) for a in range(len(p)) for b in range(a, len(p)))
        return value, score, {(a, b): p[a] * (p[a] - 1) if a == b else p[a] * p[b] for a, b in pairs}

    def probabilities(self, *eta: Tensor) -> Tensor:
        """P(y = j | η), (…, k)."""
        return torch.softmax(self._logits(eta), 0).movedim(0, -1)

    def sample(self, *parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        p = self.probabilities(*parameters)
        drawn = torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=generator)
        return drawn.reshape(p.shape[:-1]).to(p.dtype)

    def start(self, y: Tensor, weight: Tensor) -> tuple[float, ...]:
        for order in (0, 1):  # before the first step what the last one needs
            self._affordable(min(len(y), BLOCK), order)
        count = _counts(y, weight, _known(self, self.k))
        return tuple(float(c) for c in torch.log(count[1:] / count[0]))

    @property
    def concave(self) -> bool:
        return True

    def recession(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # with y = c the chosen logit must outrun every other: d_c − d_j ≥ 0 for j ≠ c, d_0 = 0
        k, code = _known(self, self.k), y.long()
        self._affordable(len(y), 0)
        d = torch.eye(k, dtype=torch.float64, device=y.device)
        gaps = d[:, None, :] - d[None, :, :]  # (c, j, parameter)
        others = torch.stack([gaps[c][torch.arange(k, device=y.device) != c] for c in range(k)])[
            ..., 1:
        ]  # (c, k − 1, k − 1)
        return others[code], torch.zeros(len(y), k - 1, dtype=torch.bool, device=y.device)

    def _affordable(self, n: int, order: int) -> None:
        """Whether a table of n rows can be held: the order of its derivatives, or 0 for the directions that
        separation is looked for in."""
        k = _known(self, self.k)
        pairs = 0.5 * k**2 * (8 * n + 500)  # a tensor for each pair of log-odds
        held = {0: 8 * k**2 * (n + k), 1: 48 * n * k, 2: 48 * n * k + pairs}[order]
        instead = (
            "Join rare categories; or fit a network, which holds the logits of a batch alone: "
            f"th.models.Conditional(Categorical({k}), nn.Linear(columns, {k})) with th.Stochastic()."
        )
        reserve(held, f"{self} of {n:,} rows", instead)

    def _logits(self, eta: Sequence[Tensor]) -> Tensor:
        """The k logits, (k, …): those given, or 0 before the k − 1 given."""
        k = _known(self, self.k)
        if len(eta) not in (k - 1, k):
            raise BadArgument(
                f"{self} takes {k - 1} log-odds against category 0, or {k} logits; it was given {len(eta)}."
            )
        given = list(torch.broadcast_tensors(*eta))
        return torch.stack(given if len(eta) == k else [torch.zeros_like(given[0]), *given])


@lru_cache(maxsize=16)
def _log_odds(k: int) -> dict[str, Parameter]:
    """Made once: of thousands of categories it is asked for thousands of times."""
    return {f"logit_{j}": Parameter(real, own_predictors=True) for j in range(1, k)}


def _cross(logits: Tensor, y: Tensor) -> Tensor:
    """log p(y) of whole logits, (n, k) and (n,): one kernel forwards and one back. No code is passed over
    (torch's default is −100)."""
    if logits.shape[-1] > COLUMNS:  # torch's own sum of so many is off by 1e-5 in float32
        chosen = -F.nll_loss(logits, y.long(), reduction="none", ignore_index=_NONE)
        return (chosen - log_sum_exp(logits)).to(logits.dtype)
    return -F.cross_entropy(
        logits, y if y.dtype == torch.long else y.long(), reduction="none", ignore_index=_NONE
    )


def _code(support: Support, y: Tensor) -> tuple[Tensor, Tensor]:
    """y as an index, 0 where it is no code, and whether it is one."""
    inside = support.contains(y)
    return torch.where(inside, y, 0).long(), inside


def _chosen(table: Tensor, code: Tensor) -> Tensor:
    """table[code[i], i] of a table (k, …) whose rows broadcast with the codes."""
    *columns, code = torch.broadcast_tensors(*table, code)
    return torch.gather(torch.stack(columns), 0, code[None])[0]


def _known(family: Family, k: int | None) -> int:
    if k is None:
        raise BadArgument(f"{family} does not know its number of categories: give k, or with_categories(k).")
    return k


def _counts(y: Tensor, weight: Tensor, k: int) -> Tensor:
    """The weight of each category, and half an observation more, so that none is empty."""
    return torch.bincount(y.long(), weights=weight.double(), minlength=k) + 0.5
