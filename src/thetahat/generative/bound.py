"""What is known only as a bound: log p(x) = log E_q[w], averaged over K draws of w inside the logarithm.

    L_K = E log (1/K) Σ_k w_k,      w_k drawn independently, E[w_k] = p(x)

    L_1 ≤ L_2 ≤ … ≤ log p(x),       L_K → log p(x)

References
----------
Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, Theorem 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..errors import BadArgument
from ..models.base import Model

GROUPS = 10  # of the draws of one pass, whose spread says how much their mean errs
FEWEST = 10 * GROUPS  # draws, at least, for it


class Bound(Model):
    """A model whose value is a lower bound made of K draws.

    A subclass says `log_prob(batch, generator=None)`, whose draws come from the generator, or from torch's
    own; the same generator gives two models the same draws. `K` is public, since a score states it.
    """

    kind: ClassVar[str] = "lower bound"
    K: int = 1

    def tightened(self, K: int) -> Self:
        """The same model, θ shared, scored with K draws an observation.

        Raises
        ------
        BadArgument
            K is not 1 or more
        """
        if K < 1:
            raise BadArgument(f"K={K}. Accepted: 1 or more draws an observation.")
        other = copy.copy(self)  # modules, hence θ, are shared
        other.K = K
        return other


def log_mean_exp(log_weights: Callable[[int], Tensor], K: int, held: int) -> Tensor:
    """log (1/K) Σ_k exp log w_k without holding all K, (n,).

    Parameters
    ----------
    log_weights
        k → (k, n) log weights, drawn anew at each call
    K
        how many in all
    held
        how many at once; with a graph all of them stay in memory anyway

    Examples
    --------
    >>> log_mean_exp(lambda k: torch.zeros(k, 2), 1000, 300)
    tensor([0., 0.])
    """
    parts = []
    for at in range(0, K, max(1, held)):
        k = min(max(1, held), K - at)
        drawn = log_weights(k)
        parts.append(torch.logsumexp(drawn, 0) if k > 1 else drawn[0])
    return (torch.logsumexp(torch.stack(parts), 0) if len(parts) > 1 else parts[0]) - math.log(K)


def log_mean_exp_error(log_weights: Callable[[int], Tensor], K: int, held: int) -> tuple[Tensor, Tensor]:
    """log w̄ of K draws and its standard error, (n,) each, from the same draws: the jackknife of G = 10 groups of them.

        error² = (G − 1)/G · Σ_g (log w̄_(−g) − mean)²,      w̄_(−g) the mean of all draws but those of group g

    With log weights of standard deviation 5 it is right to 2 %, where the delta method, √(var w / K) / w̄, is 0.4 of what it
    should be and two passes of K/2 draws each say 0.77 (K = 200): a draw that carries the sum is seen by leaving it out.

    References
    ----------
    Efron and Tibshirani (1993), An introduction to the bootstrap, §11.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> value, error = log_mean_exp_error(lambda k: 0.3 * torch.randn(k, 2000, generator=g), 1000, 300)
    >>> round(float(error.square().mean().sqrt()), 3)                     # √((e^0.09 − 1) / 1000) = 0.0097
    0.01
    """
    sizes = [K // GROUPS + (g < K % GROUPS) for g in range(GROUPS)]
    groups = torch.stack([log_mean_exp(log_weights, k, held).double() + math.log(k) for k in sizes])
    others = torch.stack(
        [
            torch.logsumexp(torch.cat([groups[:g], groups[g + 1 :]]), 0) - math.log(K - k)
            for g, k in enumerate(sizes)
        ]
    )
    apart = torch.where(
        others == -math.inf, 0.0, others - others.mean(0)
    )  # no draw has any weight: −∞, without an error
    variance = (GROUPS - 1) / GROUPS * apart.square().sum(0)
    return torch.logsumexp(groups, 0) - math.log(K), variance.sqrt()
